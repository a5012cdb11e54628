"""A job's events as a stream of server-sent events (the WHATWG's HTML standard, 9.2).

One look at the table per ``poll_s`` serves every open stream; a stream reads events only when there are new ones. An
event's id is its place in the job's sequence, so ``Last-Event-ID`` continues where a client was cut off.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from anyio import to_thread

from genba_shared.jobs import Job, JobEvent, JobHead
from genba_shared.problems import Overloaded
from genba_shared.telemetry import get_logger

_KEEP_ALIVE_S = 15.0
_RECONNECT_MS = 2000

log = get_logger(__name__)


class EventStreams:
    """All open streams of one process. ``heads`` and ``events`` read the job table and are called in threads."""

    def __init__(
        self,
        heads: Callable[[Sequence[str]], Mapping[str, JobHead]],
        events: Callable[[str, int], tuple[Job | None, Sequence[JobEvent]]],
        *,
        poll_s: float,
        max_streams: int,
        max_stream_s: float,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._read_heads, self._read_events = heads, events
        self._poll_s, self._max_streams, self._max_stream_s = poll_s, max_streams, max_stream_s
        self._draining = draining
        self._watched: Counter[str] = Counter()
        self._heads: dict[str, JobHead] = {}
        self._looked = asyncio.Condition()

    @asynccontextmanager
    async def polling(self) -> AsyncIterator[None]:
        """Streams move while this block runs."""
        closing = asyncio.Event()
        poller = asyncio.create_task(self._poll(closing))
        try:
            yield
        finally:
            closing.set()  # no cancelling: a look that is under way must give its connection back
            await poller

    def check_room(self) -> None:
        """Raises: Overloaded."""
        if self._watched.total() >= self._max_streams:
            raise Overloaded("Too many event streams are open; poll the job instead, or try again.", retry_after_s=5)

    async def stream(self, job_id: str, after: int) -> AsyncIterator[bytes]:
        """Events after ``after`` as they come; the last is ``end``, without id, when the job is done."""
        self._watched[job_id] += 1
        try:
            yield b"retry: %d\n\n" % _RECONNECT_MS
            ends_s = time.monotonic() + self._max_stream_s
            while time.monotonic() < ends_s and not self._draining():
                job, events = await to_thread.run_sync(self._read_events, job_id, after)
                if job is None:
                    return  # deleted while watched
                for event in events:
                    after = event.seq
                    yield _encode(event)
                if after >= job.last_seq:
                    if job.done:
                        yield b"event: end\ndata: " + orjson.dumps({"status": job.status}) + b"\n\n"
                        return
                    while not await self._news(job_id, after, ends_s):
                        yield b": keep-alive\n\n"
        finally:
            self._watched[job_id] -= 1
            if self._watched[job_id] <= 0:
                del self._watched[job_id]
                self._heads.pop(job_id, None)

    async def _news(self, job_id: str, after: int, ends_s: float) -> bool:
        """Wait until the job has moved or the stream's time is up (True), or somebody must be told we live (False)."""

        def moved() -> bool:
            head = self._heads.get(job_id)
            return self._draining() or (head is not None and (head.last_seq > after or head.done))

        wait_s = min(_KEEP_ALIVE_S, ends_s - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s), self._looked:
                await self._looked.wait_for(moved)
                return True
        return time.monotonic() >= ends_s

    async def _poll(self, closing: asyncio.Event) -> None:
        while not closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(closing.wait(), self._poll_s)
            if watched := list(self._watched):
                try:
                    self._heads = dict(await to_thread.run_sync(self._read_heads, watched))
                except Exception as error:  # noqa: BLE001 - a database that is away must not end every stream
                    log.warning("event_poll_failed", error=type(error).__name__)
                async with self._looked:
                    self._looked.notify_all()


def _encode(event: JobEvent) -> bytes:
    data: dict[str, Any] = {"at": event.at, "attempt": event.attempt, **event.data}
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.seq, event.kind.encode(), orjson.dumps(data))
