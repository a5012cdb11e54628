"""What the gateway measures, kept in plain lists on the event loop's one thread and turned into metrics when scraped.

prometheus-client's own counters take a lock and a label look-up for each request; these cost a dictionary look-up and a
bisection. Knows nothing of how a request is answered.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from genba_gateway.admission import Admission
from genba_gateway.proxy import ReverseProxy
from genba_shared.readiness import Degraded
from genba_shared.telemetry import LATENCY_BUCKETS_S

_BOUNDS = tuple(LATENCY_BUCKETS_S)


class RequestSeries:
    """Requests of one route, method and status: how many, how long together, and how many in each bucket."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.buckets = [0] * (len(_BOUNDS) + 1)


class RequestMetrics(Collector):
    """Rate, errors and duration per route; what was turned away, and why; what the proxies did."""

    def __init__(
        self,
        admission: Admission,
        proxies: Callable[[], Iterable[ReverseProxy]],
        *,
        unready: Mapping[str, str | None],
        last_backup_s: Callable[[], float],
    ) -> None:
        self._series: dict[tuple[str, str, int], RequestSeries] = {}
        self._admission = admission
        self._proxies = proxies
        self._unready = unready  # why a service is not ready, by its name; the gateway keeps it up to date
        self._last_backup_s = last_backup_s
        self.refused_credentials = 0
        self.limited = 0

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Note one answered request."""
        key = (route, method, status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = RequestSeries()
        series.seconds += seconds
        series.buckets[bisect_left(_BOUNDS, seconds)] += 1

    def collect(self) -> Iterable[Metric]:
        """The metrics as they stand."""
        yield from self._requests()
        yield from self._admissions()
        yield from self._upstreams()
        yield _gauge(
            "genba_gateway_last_backup_timestamp_seconds",
            "When `genba backup create` last backed up this home; 0 where it never did.",
            {"": self._last_backup_s()},
        )

    def _requests(self) -> Iterable[Metric]:
        total = CounterMetricFamily(
            "genba_gateway_requests", "Requests answered, by route and status.", labels=["route", "method", "status"]
        )
        seconds = HistogramMetricFamily(
            "genba_gateway_request_seconds",
            "Time from a request's head to the end of its answer.",
            labels=["route", "method"],
        )
        merged: dict[tuple[str, str], RequestSeries] = {}
        for (route, method, status), series in sorted(
            self._series.copy().items()
        ):  # the scrape has a thread of its own
            total.add_metric([route, method, str(status)], sum(series.buckets))
            both = merged.setdefault((route, method), RequestSeries())
            both.seconds += series.seconds
            both.buckets = [mine + its for mine, its in zip(both.buckets, series.buckets, strict=True)]
        bounds = [*(str(bound) for bound in _BOUNDS), "+Inf"]
        for labels, series in merged.items():
            counts = list(zip(bounds, map(float, accumulate(series.buckets)), strict=True))
            seconds.add_metric(list(labels), counts, sum_value=series.seconds)
        yield total
        yield seconds
        yield _counter("genba_gateway_limited", "Requests refused by a rate limit.", {"": self.limited})
        yield _counter(
            "genba_gateway_refused_credentials", "Credentials that were refused.", {"": self.refused_credentials}
        )

    def _admissions(self) -> Iterable[Metric]:
        admission = self._admission
        yield _gauge("genba_gateway_requests_in_flight", "Requests in work.", {"": admission.in_work})
        yield _gauge("genba_gateway_waiting_requests", "Requests waiting for a slot.", {"": admission.waiting})
        yield _gauge("genba_gateway_loop_lag_seconds", "How late the event loop last was.", {"": admission.lag_s})
        yield _counter("genba_gateway_shed", "Requests turned away to shed load.", admission.shed, label="reason")

    def _upstreams(self) -> Iterable[Metric]:
        ready = GaugeMetricFamily(
            "genba_gateway_service_ready", "1 while a service says that it is ready.", labels=["service"]
        )
        for service, reason in self._unready.items():
            ready.add_metric([service], float(reason is None or isinstance(reason, Degraded)))
        attempts = CounterMetricFamily(
            "genba_gateway_upstream_attempts", "Attempts at services, by outcome.", labels=["service", "outcome"]
        )
        retries = CounterMetricFamily("genba_gateway_upstream_retries", "Attempts after the first.", labels=["service"])
        in_flight = GaugeMetricFamily(
            "genba_gateway_upstream_in_flight", "Requests at an instance.", labels=["service", "instance"]
        )
        ejected = GaugeMetricFamily(
            "genba_gateway_upstream_ejected", "1 while an instance is left alone.", labels=["service", "instance"]
        )
        connections = GaugeMetricFamily(
            "genba_gateway_upstream_connections", "Open connections.", labels=["service", "instance"]
        )
        for proxy in self._proxies():
            for outcome, count in proxy.attempts.items():
                attempts.add_metric([proxy.service, outcome], count)
            retries.add_metric([proxy.service], proxy.retries)
            for address in proxy.addresses:
                labels = [proxy.service, address.url]
                in_flight.add_metric(labels, address.in_flight)
                ejected.add_metric(labels, float(address.is_ejected))
                connections.add_metric(labels, address.pool.open_connections)
        yield from (ready, attempts, retries, in_flight, ejected, connections)


def _counter(name: str, documentation: str, values: Mapping[str, float], *, label: str | None = None) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=[label] if label else [])
    for value, count in values.items():
        family.add_metric([value] if label else [], count)
    return family


def _gauge(name: str, documentation: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, documentation)
    for count in values.values():
        family.add_metric([], count)
    return family
