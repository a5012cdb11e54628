"""The addresses of one service: which to use next, which to leave alone for a while, and how much may be tried again.

Outlier ejection: an address that keeps failing is ejected, longer each time; when it is due again, one request tries it before
others follow, and if that one takes long, another. With a single address that is a circuit breaker. Retries draw on a budget
that requests earn, so that a failing service is not buried under them. Knows nothing of HTTP beyond "it failed".
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence

from genba_gateway.http1 import Pool
from genba_gateway.settings import Resilience
from genba_shared.problems import Unavailable

_random = random.SystemRandom()
_EWMA_WEIGHT = 0.05
_RATE_MIN_REQUESTS = 40
_MAX_FAILURE_RATE = 0.5


class ServiceUnavailable(Unavailable):
    """The service behind the gateway is not available."""


class Address:
    """One instance of a service."""

    def __init__(self, pool: Pool, resilience: Resilience, clock: Callable[[], float] = time.monotonic) -> None:
        self.pool = pool
        self.url = pool.url
        self._resilience = resilience
        self._clock = clock
        self._failures_in_row = 0
        self._failure_rate = 0.0
        self._seen = 0
        self._ejections = 0
        self._ejected_until_s = 0.0
        self._is_probing = False
        self.is_ready = True
        self.in_flight = 0

    @property
    def is_ejected(self) -> bool:
        """Whether it is left alone: ejected, or due again with a trial request under way that has just begun."""
        return self._ejected_until_s != 0.0 and self._clock() < self._ejected_until_s

    @property
    def retry_after_s(self) -> float:
        """Seconds until it may be tried again."""
        return max(0.0, self._ejected_until_s - self._clock())

    def start(self) -> None:
        """A request goes there."""
        self.in_flight += 1
        if self._ejected_until_s:
            # The trial; a long upload or answer that tells nothing yet keeps the next one for no longer.
            self._is_probing = True
            self._ejected_until_s = self._clock() + self._resilience.eject_s

    def succeed(self) -> None:
        """It answered."""
        self.in_flight -= 1
        self._failures_in_row = 0
        if self._failure_rate or self._seen < _RATE_MIN_REQUESTS:
            self._observe(0.0)
        if self._ejected_until_s:
            self._ejected_until_s = 0.0
            self._is_probing = False
            self._ejections = 0
            self._failure_rate, self._seen = 0.0, 0

    def fail(self) -> None:
        """It did not answer, or answered that it cannot."""
        self.in_flight -= 1
        self._observe(1.0)
        if self._ejected_until_s and not self._is_probing:
            return  # sent before the ejection: many that fail in one moment are one failure of the address
        self._failures_in_row += 1
        rate_is_bad = self._seen >= _RATE_MIN_REQUESTS and self._failure_rate > _MAX_FAILURE_RATE
        if self._is_probing or self._failures_in_row >= self._resilience.eject_after or rate_is_bad:
            self._eject()

    def give_up(self) -> None:
        """The request ended without telling anything about the address, as when its client left."""
        self.in_flight -= 1
        if self._is_probing:
            self._is_probing = False
            self._ejected_until_s = min(self._ejected_until_s, self._clock())

    def _observe(self, failure: float) -> None:
        self._seen += 1
        self._failure_rate += _EWMA_WEIGHT * (failure - self._failure_rate)

    def _eject(self) -> None:
        base_s = min(self._resilience.eject_s * 2**self._ejections, self._resilience.max_eject_s)
        self._ejected_until_s = self._clock() + base_s * _random.uniform(0.8, 1.2)
        self._ejections += 1
        self._is_probing = False
        self._failures_in_row = 0


class RetryBudget:
    """Each request earns a part of a retry; each retry costs one."""

    def __init__(self, *, ratio: float, reserve: int) -> None:
        self._ratio = ratio
        self._tokens = float(reserve)
        self._most = float(reserve * 10)

    def earn(self) -> None:
        """A request came."""
        if self._tokens < self._most:
            self._tokens += self._ratio

    def spend(self) -> bool:
        """Whether a retry may be made; if so, it is paid."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Balancer:
    """Chooses among the addresses of one service: of two picked by chance, the less busy."""

    def __init__(self, service: str, addresses: Sequence[Address]) -> None:
        self.service = service
        self.addresses = tuple(addresses)

    def pick(self, tried: Iterable[Address] = ()) -> Address:
        """An address that is not ejected, rather one that was not tried. Raises: ServiceUnavailable."""
        addresses = self.addresses
        if len(addresses) == 1 and not addresses[0].is_ejected:
            return addresses[0]
        candidates = [address for address in addresses if not address.is_ejected]
        if not candidates:
            retry_after_s = max(1, math.ceil(min(address.retry_after_s for address in addresses)))
            raise ServiceUnavailable(
                f"The service {self.service} is failing and is left alone; try again in {retry_after_s} s.",
                retry_after_s=retry_after_s,
                service=self.service,
            )
        tried = set(tried)
        preferred = (
            [address for address in candidates if address.is_ready and address not in tried]
            or [address for address in candidates if address not in tried]
            or candidates
        )
        if len(preferred) == 1:
            return preferred[0]
        one, other = _random.sample(preferred, 2)
        return one if one.in_flight <= other.in_flight else other

    def has_other(self, tried: Iterable[Address]) -> bool:
        """Whether an address that was not tried could be."""
        return any(not address.is_ejected and address not in set(tried) for address in self.addresses)
