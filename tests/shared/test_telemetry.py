"""Log lines, metric names, trace context."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from genba_shared.telemetry import Metrics, TraceContext, configure_logging, get_logger

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(autouse=True)
def _put_logging_back() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_log_line_is_one_json_object_with_its_fields(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    get_logger("genba.test").info("model_swapped", model="sem", version=7)
    line = json.loads(capfd.readouterr().err)
    assert {
        "event": "model_swapped",
        "model": "sem",
        "version": 7,
        "level": "info",
        "logger": "genba.test",
    }.items() <= line.items()
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_line_that_cannot_be_rendered_says_so_and_stops_no_work(
    log_format: Literal["json", "console"], capfd: pytest.CaptureFixture[str]
) -> None:
    class Unspeakable:
        def __repr__(self) -> str:
            raise RuntimeError

    configure_logging(log_format=log_format)
    get_logger("genba.test").info("model_swapped", model=Unspeakable())
    line = json.loads(capfd.readouterr().err)
    assert (line["event"], line["of"], line["reason"]) == ("line_not_rendered", "model_swapped", "RuntimeError")


def test_a_log_that_nobody_can_read_any_more_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging()
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    get_logger("genba.test").info("model_swapped")


def test_configuring_twice_does_not_log_twice(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    configure_logging()
    get_logger("a").info("once")
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_library_that_uses_logging_gets_the_same_shape(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        logging.getLogger("library").warning("slow: %d s", 3)
    line = json.loads(capfd.readouterr().err)
    assert (line["event"], line["level"], line["request_id"]) == ("slow: 3 s", "warning", "req_1")


def test_the_level_holds_for_ours_and_for_libraries(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="warning")
    get_logger("a").info("not shown")
    logging.getLogger("library").info("not shown")
    logging.getLogger("uvicorn.access").info("never shown")
    assert capfd.readouterr().err == ""


def test_people_get_lines_without_json(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(log_format="console")
    get_logger("a").info("started", port=8080)
    line = capfd.readouterr().err
    assert "started" in line
    assert "port=8080" in line
    assert not line.startswith("{")


def test_a_trace_goes_on_where_it_came_from() -> None:
    context = TraceContext.parse(f"00-{TRACE}-{SPAN}-01")
    assert context == TraceContext(TRACE, SPAN, sampled=True)
    child = context.child()
    assert child.trace_id == TRACE
    assert child.span_id != SPAN
    assert TraceContext.parse(child.header) == child


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-extra",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_a_trace_header_that_is_not_valid_is_ignored(header: str | None) -> None:
    assert TraceContext.parse(header) is None


def test_a_later_version_of_the_header_is_read_as_far_as_it_is_known() -> None:
    assert TraceContext.parse(f"01-{TRACE}-{SPAN}-00-more") == TraceContext(TRACE, SPAN, sampled=False)


def test_a_new_trace_is_valid() -> None:
    started = TraceContext.start()
    assert TraceContext.parse(started.header) == started


def test_metrics_are_named_by_service_and_live_in_their_own_registry() -> None:
    sop, training = Metrics("sop"), Metrics("training")
    for metrics in (sop, training):
        metrics.counter("videos", "Videos taken in.").inc()
        metrics.histogram("decode_seconds", "Decoding.").observe(0.2)
        metrics.gauge("queue_depth", "Waiting.", ["queue"]).labels("cpu").set(3)
    names = {family.name for family in sop.collect()}
    assert {"genba_sop_videos", "genba_sop_decode_seconds", "genba_sop_queue_depth"} <= names
    assert all(name.startswith("genba_sop_") for name in names)
    assert sop.registry.get_sample_value("genba_sop_videos_total") == 1
    assert sop.registry.get_sample_value("genba_sop_videos_created") is None
