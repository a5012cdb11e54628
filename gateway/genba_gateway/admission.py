"""How much work is let in at once. Work that would only wait is turned away early, while somebody can still act on it.

A request beyond the concurrency cap waits its turn, first come first served, for a bounded time in a bounded queue. When the
event loop itself goes on lagging, every request is waiting already: then new ones are turned away at once. One long pause is
no such queue: what came during it is worked off after it (CoDel's rule, Nichols & Jacobson 2012). Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque

from genba_shared.problems import Overloaded

_LAG_CHECK_S = 0.1
_LAG_CHECKS = 4  # in a row


class Admission:
    """Slots for work. ``enter`` before, ``leave`` after; only requests that find no free slot ever wait."""

    def __init__(self, *, max_concurrency: int, max_waiting: int, queue_s: float) -> None:
        self._max_concurrency = max_concurrency
        self._max_waiting = max_waiting
        self._queue_s = queue_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lag_handle: asyncio.TimerHandle | None = None
        self._expected_s = 0.0
        self.in_work = 0
        self._lags_s: deque[float] = deque([0.0] * _LAG_CHECKS, maxlen=_LAG_CHECKS)
        self._lasting_lag_s = 0.0  # the least of them
        self.shed: dict[str, int] = {"queue_full": 0, "queue_time": 0, "loop_lag": 0, "caller_concurrency": 0}

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    @property
    def lag_s(self) -> float:
        """How late the event loop last was."""
        return self._lags_s[-1]

    def enter_now(self) -> bool:
        """Take a slot if one is free and nobody waits for it. Raises: Overloaded."""
        if self._lasting_lag_s > self._queue_s:
            self._refuse("loop_lag", "The gateway is falling behind.")
        if self.in_work >= self._max_concurrency or self._waiting:
            return False
        self.in_work += 1
        return True

    async def enter(self) -> None:
        """Take a slot, waiting for one if need be. Raises: Overloaded."""
        if self.enter_now():
            return
        if len(self._waiting) >= self._max_waiting:
            self._refuse("queue_full", "Too many requests are waiting already.")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._queue_s):
                await turn
        except TimeoutError:
            self._give_up(turn)
            self._refuse("queue_time", "No capacity came free in time.")
        except asyncio.CancelledError:
            self._give_up(turn)
            raise

    def leave(self) -> None:
        """Give the slot back; it passes straight to whoever waits longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_work -= 1

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self.leave()  # the slot came in the same moment: pass it on
        elif turn in self._waiting:
            self._waiting.remove(turn)

    def _refuse(self, reason: str, detail: str) -> None:
        self.shed[reason] += 1
        raise Overloaded(
            f"{detail} Try again a little later.", retry_after_s=max(1, round(self._queue_s)), reason=reason
        )

    def refuse_caller(self, limit: int) -> None:
        """Turn away a caller who keeps too many requests in work. Raises: Overloaded."""
        self._refuse("caller_concurrency", f"You have {limit} requests in work already.")

    def watch_lag(self, loop: asyncio.AbstractEventLoop) -> None:
        """Measure how late the loop runs what it was asked to run: the time that every request now waits unseen."""
        now_s = loop.time()
        self.note_lag(now_s - self._expected_s if self._lag_handle else 0.0)
        self._expected_s = now_s + _LAG_CHECK_S
        self._lag_handle = loop.call_later(_LAG_CHECK_S, self.watch_lag, loop)

    def note_lag(self, lag_s: float) -> None:
        """Take a measurement of the loop's lag into account."""
        self._lags_s.append(max(0.0, lag_s))
        self._lasting_lag_s = min(self._lags_s)

    def close(self) -> None:
        """Stop measuring."""
        if self._lag_handle is not None:
            self._lag_handle.cancel()
