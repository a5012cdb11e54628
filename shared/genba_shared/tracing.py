"""Spans for an OpenTelemetry collector, where one is set: what the trace ids in log lines and ``traceparent`` belong to.

A span is handed over when it has ended, and the SDK's own thread carries it away: a collector that is slow or gone costs
spans, never a request. A span holds routes, statuses and ids of records; no user content and no personal data.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Mapping
from typing import Literal

from genba_shared.settings import Platform
from genba_shared.telemetry import TraceContext, get_logger

Kind = Literal["server", "consumer"]

_TIMEOUT_S = 3.0
_EVERY_MS = 2000

log = get_logger(__name__)


def spans_for(service: str, platform: Platform) -> Spans | None:
    """Where a process of ``service`` hands its spans; None without GENBA_OTLP_URL. Raises: ValueError without the extra."""
    if platform.otlp_url is None:
        return None
    try:
        return Spans(service, url=platform.otlp_url, env=platform.env)
    except ModuleNotFoundError as missing:
        raise ValueError(f"GENBA_OTLP_URL needs the extra otel, which is not installed: {missing}") from missing


class Spans:
    """Takes ended spans of one service and sends them in batches, by OTLP over HTTP."""

    def __init__(self, service: str, *, url: str, env: str) -> None:
        import requests
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        session = requests.Session()
        session.trust_env = False  # an internal address is not reached through a proxy
        exporter = OTLPSpanExporter(url, timeout=_TIMEOUT_S, session=session)
        self._processor = BatchSpanProcessor(exporter, schedule_delay_millis=_EVERY_MS)
        self._resource = Resource(
            {"service.namespace": "genba", "service.name": f"genba-{service}", "deployment.environment.name": env}
        )
        atexit.register(self.close)

    def add(
        self,
        name: str,
        trace: TraceContext,
        *,
        parent: str | None,
        kind: Kind,
        duration_s: float,
        attributes: Mapping[str, str | int],
        failed: bool = False,
    ) -> None:
        """A span that ends now. ``parent``: the id of the span above it, 16 hex digits, which may be another process's."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        ended_ns = time.time_ns()
        flags = TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT)
        trace_id = int(trace.trace_id, 16)
        above = None if parent is None else SpanContext(trace_id, int(parent, 16), is_remote=True, trace_flags=flags)
        span = ReadableSpan(
            name,
            SpanContext(trace_id, int(trace.span_id, 16), is_remote=False, trace_flags=flags),
            parent=above,
            resource=self._resource,
            attributes=attributes,
            kind=SpanKind.SERVER if kind == "server" else SpanKind.CONSUMER,
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
            start_time=ended_ns - round(duration_s * 1e9),
            end_time=ended_ns,
        )
        self._processor.on_end(span)

    def flush(self) -> None:
        """Send what waits, now: before a process that may be ended at any moment takes its next job."""
        self._processor.force_flush()

    def close(self) -> None:
        """Send what waits and stop; again is harmless."""
        atexit.unregister(self.close)
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # of the SDK


def request_span(
    spans: Spans,
    trace: TraceContext,
    *,
    parent: str | None,
    method: str,
    route: str,
    status: int,
    duration_s: float,
    request_id: str,
) -> None:
    """The span of an answered request, by OpenTelemetry's conventions for HTTP."""
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "genba.request_id": request_id,
    }
    failed = status >= 500
    if failed:
        attributes["error.type"] = str(status)
    spans.add(
        f"{method} {route}",
        trace,
        parent=parent,
        kind="server",
        duration_s=duration_s,
        attributes=attributes,
        failed=failed,
    )
