"""Rate limits by GCRA: one number per caller, no windows whose edges let twice the rate through.

Two stores keep the number: this process's memory, and Redis when several gateways must count together; one suite tests
both. Knows nothing of who the caller is or what an answer looks like, except for the draft's two header fields.

GCRA (ITU-T I.371): each caller has a theoretical arrival time. A request moves it one emission interval on; a request that
would move it more than the burst tolerance ahead of now is refused and moves nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

_MAX_CALLERS = 200_000
_PASSES, _REFUSED = True, False  # by position: names would double the cost of a decision


class Policy:
    """``burst`` requests at once, ``per_minute`` sustained. What every request asks of it is worked out once."""

    __slots__ = ("burst", "header", "interval_s", "name", "per_minute", "quoted", "tolerance_s")

    def __init__(self, name: str, per_minute: int, burst: int) -> None:
        self.name = name
        self.per_minute = per_minute
        self.burst = burst
        self.interval_s = 60 / per_minute  # between requests at the sustained rate
        self.tolerance_s = self.interval_s * burst + 1e-9  # how far ahead of now the arrival may be
        self.quoted = f'"{name}"'.encode()
        # ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-11): a quota q for each window of w seconds.
        self.header = b"%b;q=%d;w=%d" % (self.quoted, burst, max(1, math.ceil(self.interval_s * burst)))


class Decision(NamedTuple):
    """Whether a request passes, and what is left."""

    is_allowed: bool
    remaining: int
    reset_s: float
    retry_after_s: float = 0.0

    def header(self, policy: Policy) -> bytes:
        """``RateLimit``: r requests are left, all of q again in t seconds."""
        return b"%b;r=%d;t=%d" % (policy.quoted, self.remaining, math.ceil(self.reset_s))


class Limiter(Protocol):
    """Counts callers. ``take`` never raises for want of a store: a limiter that is down must not take the service down."""

    async def take(self, caller: str, policy: Policy) -> Decision: ...

    async def close(self) -> None: ...


class MemoryLimiter:
    """Counts in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._arrivals_s: dict[str, float] = {}

    async def take(self, caller: str, policy: Policy) -> Decision:
        return self.take_now(caller, policy)

    def take_now(self, caller: str, policy: Policy) -> Decision:
        """``take`` without waiting: what the pipeline calls when it counts in memory."""
        now_s = self._clock()
        interval_s, tolerance_s = policy.interval_s, policy.tolerance_s
        arrival_s = self._arrivals_s.get(caller, now_s)
        ahead_s = arrival_s - now_s + interval_s if arrival_s > now_s else interval_s
        if ahead_s > tolerance_s:
            return Decision(_REFUSED, 0, ahead_s - interval_s, ahead_s - tolerance_s)
        if len(self._arrivals_s) >= _MAX_CALLERS and caller not in self._arrivals_s:
            self.forget_idle()
        self._arrivals_s[caller] = now_s + ahead_s
        return Decision(_PASSES, int((tolerance_s - ahead_s) / interval_s + 1e-6), ahead_s)

    def is_used_up(self, caller: str, policy: Policy) -> bool:
        """Whether ``take`` would refuse, without taking."""
        ahead_s = max(0.0, self._arrivals_s.get(caller, 0.0) - self._clock()) + policy.interval_s
        return ahead_s > policy.tolerance_s

    def forget_idle(self) -> None:
        """Drop callers whose burst is full again; should too many stay, all: a fresh burst for some beats no memory for all."""
        now_s = self._clock()
        self._arrivals_s = {caller: at_s for caller, at_s in self._arrivals_s.items() if at_s > now_s}
        if len(self._arrivals_s) >= _MAX_CALLERS:
            self._arrivals_s.clear()

    async def close(self) -> None:
        """Nothing is held."""
