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
from dataclasses import dataclass
from typing import Protocol

_MAX_CALLERS = 200_000


@dataclass(frozen=True, slots=True)
class Policy:
    """``burst`` requests at once, ``per_minute`` sustained."""

    name: str
    per_minute: int
    burst: int

    @property
    def interval_s(self) -> float:
        """Between requests at the sustained rate."""
        return 60 / self.per_minute

    @property
    def window_s(self) -> int:
        """In which a used-up burst refills: the draft's w."""
        return max(1, math.ceil(self.interval_s * self.burst))

    @property
    def header(self) -> bytes:
        """``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-11): a quota q for each window of w seconds."""
        return f'"{self.name}";q={self.burst};w={self.window_s}'.encode()


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request passes, and what is left."""

    is_allowed: bool
    remaining: int
    reset_s: float
    retry_after_s: float = 0.0

    def header(self, policy: Policy) -> bytes:
        """``RateLimit``: r requests are left, all of q again in t seconds."""
        return b'"%s";r=%d;t=%d' % (policy.name.encode(), self.remaining, math.ceil(self.reset_s))


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
        interval_s = 60 / policy.per_minute
        tolerance_s = interval_s * policy.burst
        arrival_s = self._arrivals_s.get(caller, now_s)
        ahead_s = arrival_s - now_s + interval_s if arrival_s > now_s else interval_s
        if ahead_s > tolerance_s + 1e-9:
            return Decision(
                is_allowed=False, remaining=0, reset_s=ahead_s - interval_s, retry_after_s=ahead_s - tolerance_s
            )
        if len(self._arrivals_s) >= _MAX_CALLERS and caller not in self._arrivals_s:
            self.forget_idle()
        self._arrivals_s[caller] = now_s + ahead_s
        return Decision(is_allowed=True, remaining=int((tolerance_s - ahead_s) / interval_s + 1e-6), reset_s=ahead_s)

    def is_used_up(self, caller: str, policy: Policy) -> bool:
        """Whether ``take`` would refuse, without taking."""
        interval_s = 60 / policy.per_minute
        ahead_s = max(0.0, self._arrivals_s.get(caller, 0.0) - self._clock()) + interval_s
        return ahead_s > interval_s * policy.burst + 1e-9

    def forget_idle(self) -> None:
        """Drop callers whose burst is full again; should too many stay, all: a fresh burst for some beats no memory for all."""
        now_s = self._clock()
        self._arrivals_s = {caller: at_s for caller, at_s in self._arrivals_s.items() if at_s > now_s}
        if len(self._arrivals_s) >= _MAX_CALLERS:
            self._arrivals_s.clear()

    async def close(self) -> None:
        """Nothing is held."""
