"""Rate limits that several gateways count together, in Redis. Imported only where a Redis is named: its client is slow to load."""

from __future__ import annotations

import time

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from genba_gateway.limits import Decision, MemoryLimiter, Policy
from genba_shared.telemetry import get_logger

log = get_logger(__name__)

# Redis' own clock, so that gateways whose clocks differ agree. Integer microseconds: Lua numbers are doubles, exact to 2^53.
# No arrival is further ahead than the tolerance unless that clock was set back: then nobody waits for it to catch up.
_GCRA = """
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local arrival = tonumber(redis.call('GET', KEYS[1]) or now)
if arrival < now then arrival = now end
if arrival > now + tolerance then arrival = now + tolerance end
local ahead = arrival - now + interval
if ahead > tolerance then return {0, 0, ahead - interval, ahead - tolerance} end
redis.call('SET', KEYS[1], string.format('%.0f', now + ahead), 'PX', math.ceil(ahead / 1000) + 1)
return {1, math.floor((tolerance - ahead) / interval), ahead, 0}
"""


class RedisLimiter:
    """Counts in Redis, for gateways that share their callers; in memory while Redis does not answer."""

    def __init__(self, url: str, *, timeout_s: float = 0.1, pause_s: float = 1.0, prefix: str = "genba:rate:") -> None:
        # More requests at once than connections wait a moment: Redis is not away.
        pool = BlockingConnectionPool.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            max_connections=64,
            timeout=timeout_s,
        )
        self._redis: Redis = Redis.from_pool(pool)
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
