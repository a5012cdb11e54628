"""An answer that is written while it is sent ends with its request, in a thread that may wait."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Generator
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from genba_shared.streamed import Streamed


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_a_client_that_leaves_ends_what_is_written_for_it(spec_version: str) -> None:
    ended_in: list[threading.Thread] = []
    gone = threading.Event()

    def pieces() -> Generator[bytes, None, None]:
        try:
            while True:
                yield b"piece"
        finally:
            ended_in.append(threading.current_thread())

    async def receive() -> dict[str, Any]:
        while not gone.is_set():
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message.get("body"):
            gone.set()
            if spec_version == "2.4":
                raise OSError("the client has left")
            await asyncio.sleep(0.01)

    async def serve() -> None:
        scope = {"type": "http", "asgi": {"spec_version": spec_version}, "extensions": {}}
        await Streamed(written, media_type="text/plain")(scope, receive, send)  # type: ignore[arg-type]

    written = pieces()  # held here, so that it does not end merely because nobody knows it any more
    if spec_version == "2.4":
        with pytest.raises(ClientDisconnect):
            asyncio.run(serve())
    else:
        asyncio.run(serve())
    assert inspect.getgeneratorstate(written) == inspect.GEN_CLOSED
    assert ended_in[0] is not threading.main_thread(), "the event loop's thread may not wait"
