"""What a process tells of itself: log lines, metrics and trace context. Knows nothing of routes or records.

A log line is an event with fields, never a sentence; no user content and no personal data goes into one.
Metrics are named ``genba_<service>_<what>_<unit>`` in base units and live in one registry per application, because
embedded mode holds every application in one process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_QUIET = (
    "uvicorn.access",
    "httpx",
    "httpx2",
    "httpcore",
    "botocore",
    "aiobotocore",
    "fsspec",
    "s3fs",
    "alembic",
    "mcp",
    "opentelemetry",
    "urllib3",
    "pypdf",
    "qdrant_client",
)

_writing = threading.Lock()

# No locals in tracebacks: they hold bodies, principals and secrets.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))

disable_created_metrics()  # type: ignore[no-untyped-call]  # `…_created` doubles the series of every counter and nothing here reads them


def configure_logging(*, level: str = "info", log_format: Literal["json", "console"] = "json") -> None:
    """Send this process's log, ours and the libraries', to stderr, a line per event. Calling it again is harmless."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render = _surely(
        [_TRACEBACKS, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    # Ours go straight to stderr: by way of logging a line would be formatted twice over, for three times the time.
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=False,
    )
    handler = _ToStderr()
    handler.set_name("genba")
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [h for h in root.handlers if h.get_name() != "genba"] + [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _surely(processors: Sequence[structlog.typing.Processor]) -> structlog.typing.Processor:
    """``processors`` in turn. A line that cannot be rendered says so, and does not stop the work that wrote it."""

    def render(logger: Any, method: str, said: structlog.typing.EventDict) -> str:
        rendered: Any = said
        event, name, at = said.get("event"), said.get("logger"), said.get("timestamp")  # renderers take them out
        try:
            for process in processors:
                rendered = process(logger, method, rendered)
        except Exception as error:  # noqa: BLE001 - whatever an object's repr or a key may raise
            lost = {"event": "line_not_rendered", "of": str(event), "reason": type(error).__name__}
            return json.dumps(lost | {"level": "error", "logger": name, "timestamp": at})
        return str(rendered)

    return render


def _write(line: str) -> None:
    """To whatever ``sys.stderr`` is at that moment: test runners and daemons exchange it."""
    with _writing:
        sys.stderr.write(line + "\n")


class _Lines:
    """What structlog hands a finished line to. One that cannot be written must not stop the work."""

    def __init__(self, name: str) -> None:
        self.name = name  # for add_logger_name

    def info(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a pipe that nobody reads, a stream that is closed
            _write(line)

    debug = warning = error = critical = info


class _ToStderr(logging.Handler):
    """For the lines of libraries."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _write(self.format(record))
        except Exception:  # noqa: BLE001 (as in logging itself: a line that cannot be written must not stop the work)
            self.handleError(record)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger(name))


@dataclass(frozen=True)
class TraceContext:
    """W3C trace context: which trace a request belongs to and which span is its parent."""

    trace_id: str
    span_id: str
    sampled: bool = True

    @classmethod
    def parse(cls, header: str | None) -> TraceContext | None:
        """None for a header that is absent or not valid; the specification says to start a new trace then."""
        match = _TRACEPARENT.fullmatch(header.strip()) if header else None
        if match is None:
            return None
        version, trace_id, span_id, flags, rest = match.groups()
        if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
            return None
        return cls(trace_id, span_id, bool(int(flags, 16) & 1))

    @classmethod
    def start(cls) -> TraceContext:
        return cls(secrets.token_hex(16), secrets.token_hex(8))

    def child(self) -> TraceContext:
        return TraceContext(self.trace_id, secrets.token_hex(8), self.sampled)

    @property
    def header(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


class Metrics:
    """The metrics of one application: its own registry, and names that all begin with ``genba_<service>_``."""

    def __init__(self, service: str) -> None:
        self.prefix = f"genba_{service.replace('-', '_')}"
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(namespace=self.prefix, registry=self.registry)

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        """``name`` without prefix and without ``_total``."""
        return Counter(f"{self.prefix}_{name}", documentation, labels, registry=self.registry)

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"{self.prefix}_{name}", documentation, labels, registry=self.registry)

    def histogram(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = LATENCY_BUCKETS_S,
    ) -> Histogram:
        """``name`` ends in its base unit, such as ``decode_seconds``."""
        return Histogram(f"{self.prefix}_{name}", documentation, labels, buckets=buckets, registry=self.registry)

    def collect(self) -> Any:
        return self.registry.collect()
