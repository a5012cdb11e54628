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

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from genba_shared.telemetry import get_logger

log = get_logger(__name__)

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


# Redis' own clock, so that gateways whose clocks differ agree. Integer microseconds: Lua numbers are doubles, exact to 2^53.
_GCRA = """
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local arrival = tonumber(redis.call('GET', KEYS[1]) or now)
if arrival < now then arrival = now end
local ahead = arrival - now + interval
if ahead > tolerance then return {0, 0, ahead - interval, ahead - tolerance} end
redis.call('SET', KEYS[1], string.format('%.0f', now + ahead), 'PX', math.ceil(ahead / 1000) + 1)
return {1, math.floor((tolerance - ahead) / interval), ahead, 0}
"""


class RedisLimiter:
    """Counts in Redis, for gateways that share their callers; in memory while Redis does not answer."""

    def __init__(self, url: str, *, timeout_s: float = 0.1, pause_s: float = 1.0, prefix: str = "genba:rate:") -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            max_connections=64,
        )
        self._script = self._redis.register_script(_GCRA)
        self._prefix = prefix
        self._fallback = MemoryLimiter()
        self._pause_s = pause_s
        self._paused_until_s = 0.0

    async def take(self, caller: str, policy: Policy) -> Decision:
        if time.monotonic() < self._paused_until_s:
            return self._fallback.take_now(caller, policy)
        interval_us = round(60_000_000 / policy.per_minute)
        try:
            allowed, remaining, reset_us, retry_us = await self._script(
                keys=[self._prefix + caller], args=[interval_us, interval_us * policy.burst]
            )
        except (RedisError, OSError, TimeoutError) as error:
            self._paused_until_s = time.monotonic() + self._pause_s
            log.warning("rate_limits_local", reason=type(error).__name__, for_s=self._pause_s)
            return self._fallback.take_now(caller, policy)
        return Decision(bool(allowed), remaining, reset_us / 1e6, retry_us / 1e6)

    async def close(self) -> None:
        await self._redis.aclose()
