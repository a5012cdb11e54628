"""An answer that is written while it is sent, and whose writing ends with it.

Starlette leaves an iterator that nobody goes on with to the garbage collector: whichever thread that happens to run in then does
what the iterator does at its end, inside whatever locks and transactions it holds. Knows nothing of what is sent.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

from anyio import CancelScope, to_thread
from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class Streamed(StreamingResponse):
    """``StreamingResponse`` over a generator, which is closed in a worker thread before the request is over, however that ends."""

    def __init__(
        self, pieces: Generator[bytes, None, None], *, media_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(self._pieces.close)
