"""A bounded place for CPU work: so many run, so many wait, the next is told when to come back. Knows nothing of what
the work is.

The event loop only ever awaits here. A place is taken before a body is read, so that a refused upload costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from genba_shared.problems import TooManyRequests
from genba_shared.telemetry import Metrics

T = TypeVar("T")

_FIRST_GUESS_S: Final = 2.0  # of how long one piece of work takes, until some have been measured
_SMOOTHING: Final = 0.2


class QueueFull(TooManyRequests):
    """Too much work is waiting already."""


class WorkPool:
    """``workers`` threads and ``queue`` waiting places."""

    def __init__(self, name: str, *, workers: int, queue: int, metrics: Metrics) -> None:
        self._name, self._workers, self._limit = name, workers, workers + queue
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=f"{name}-pool")
        self._lock = threading.Lock()
        self._taken = 0
        self._typical_s = _FIRST_GUESS_S
        self._places = metrics.gauge(f"{name}_places", f"Places of the {name} pool taken, running and waiting.")
        self._seconds = metrics.histogram(f"{name}_seconds", f"How long one piece of {name} work runs.")

    @property
    def taken(self) -> int:
        """Places taken now, running and waiting."""
        return self._taken

    @property
    def is_full(self) -> bool:
        """Whether the next piece of work would be refused."""
        return self._taken >= self._limit

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for as long as the block runs.

        Raises:  QueueFull with Retry-After when every place is taken.
        """
        with self._lock:
            if self._taken >= self._limit:
                wait_s = max(1.0, round(self._taken * self._typical_s / self._workers, 1))
                raise QueueFull(
                    f"{self._taken} pieces of {self._name} work run or wait already; try again in about {wait_s:g} s.",
                    retry_after_s=wait_s,
                )
            self._taken += 1
            self._places.set(self._taken)
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1
                self._places.set(self._taken)

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread; the caller holds a place. If the caller goes away, the work finishes all the
        same.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._timed, work)

    async def __call__(self, work: Callable[[], T]) -> T:
        """Take a place and run ``work`` in it.

        Raises:  QueueFull.
        """
        with self.place():
            return await self.run(work)

    def _timed(self, work: Callable[[], T]) -> T:
        started_s = time.monotonic()
        try:
            return work()
        finally:
            took_s = time.monotonic() - started_s
            self._seconds.observe(took_s)
            with self._lock:
                self._typical_s += _SMOOTHING * (took_s - self._typical_s)

    def close(self) -> None:
        """Wait for what runs; what only waits is given up."""
        self._threads.shutdown(wait=True, cancel_futures=True)
