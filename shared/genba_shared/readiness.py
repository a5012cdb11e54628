"""Whether a service should be sent work, and why not: named checks, asked at /ready and shown as a metric. Knows no web, no service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from genba_shared.telemetry import get_logger

log = get_logger(__name__)


class Degraded(str):
    """A check's reason that is to be seen at /ready but does not take the service out: it works on without."""

    __slots__ = ()


class Readiness:
    """Whether this service should be sent work: named checks, each silent when well and else saying why not.

    A check that answers ``Degraded`` is shown and does not stop the work.
    """

    def __init__(self) -> None:
        self._checks: dict[str, Callable[[], str | None]] = {}
        self._draining = False
        self.passed: Mapping[str, bool] = {}  # by check, as of the last time that somebody asked

    def add(self, name: str, check: Callable[[], str | None]) -> None:
        self._checks[name] = check

    def drain(self) -> None:
        """Say no from now on: the process finishes what it has and takes nothing new."""
        self._draining = True

    @property
    def draining(self) -> bool:
        """For answers that would otherwise go on for minutes: end them, their clients come back elsewhere."""
        return self._draining

    @property
    def names(self) -> list[str]:
        return list(self._checks)

    def reasons(self) -> dict[str, str]:
        """Why not ready, by check; empty when ready. A check that raises is a check that fails."""
        return {name: said for name, said in self.said().items() if not isinstance(said, Degraded)}

    def said(self) -> dict[str, str]:
        """What every check says that is not silent; those that are only ``Degraded`` too."""
        found = {"process": "is shutting down"} if self._draining else {}
        checks = list(self._checks.items())
        for name, check in checks:
            try:
                reason = check()
            except Exception as error:  # a broken check must not take the readiness answer down
                log.warning("readiness_check_failed", check=name, error=type(error).__name__, exc_info=True)
                reason = f"the check failed with {type(error).__name__}"
            if reason:
                found[name] = reason
        self.passed = {name: name not in found for name, _ in checks}
        return found


class ReadinessCollector(Collector):
    """``genba_<service>_check_passes{check}``. Asks nothing itself: the gateway asks every two seconds, and a check may be slow."""

    def __init__(self, prefix: str, readiness: Readiness) -> None:
        self._prefix, self._readiness = prefix, readiness

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            f"{self._prefix}_check_passes",
            "1 while a check of readiness passes, as of the last time that /ready was asked.",
            labels=["check"],
        )
        for name, passed in self._readiness.passed.items():
            family.add_metric([name], float(passed))
        return [family]
