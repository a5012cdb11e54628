"""One trace from the client through the gateway and a service into a job, as a collector gets it over a real socket."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.gateway.world import Door, door, until
from tests.gateway.world import settings as gateway_settings
from tests.training.conftest import make_effects_table

from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.jobs import Jobs
from genba_shared.settings import Platform
from genba_shared.telemetry import TraceContext
from genba_shared.tracing import spans_for
from genba_training import recipes
from genba_training.app import create_app
from genba_training.runner import Runner
from genba_training.settings import Settings

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = CALLER[:-1] + "0"


@dataclass
class Collector:
    """Keeps every span that arrives, with its service."""

    url: str = ""
    spans: list[tuple[str, Any]] = field(default_factory=list)

    def named(self, name: str) -> list[tuple[str, Any]]:
        return [(service, span) for service, span in self.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()

    class SpanReceiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            for resource in request.resource_spans:
                named = {each.key: each.value.string_value for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    found.spans += [(named["service.name"], span) for span in scope.spans]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), SpanReceiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_trace_goes_from_the_caller_through_gateway_and_service_into_the_attempt(
    settings: Settings, collector: Collector
) -> None:
    platform = settings.platform.model_copy(update={"otlp_url": collector.url})
    chosen = settings.model_copy(update={"platform": platform})
    job_id, refused = asyncio.run(_submit(chosen, collector))
    database = Database(platform.database_url)
    make_effects_table(database)
    runner = Runner(
        jobs=Jobs(database),
        recipes=recipes.load(chosen.recipes),
        artifacts=Artifacts(platform.artifacts_url),
        settings=chosen,
        owner="worker-1",
        spans=spans_for("worker", platform),
    )
    assert runner.run(job_id) == "succeeded"
    database.close()

    ((at_service, posted),) = _one(collector, "genba-training")
    ((at_gateway, came),) = _one(collector, "genba-gateway")
    ((at_worker, worked),) = collector.named("job test.work")
    assert (at_service, at_gateway, at_worker) == ("genba-training", "genba-gateway", "genba-worker")
    assert {span.trace_id.hex() for span in (posted, came, worked)} == {CALLER[3:35]}
    assert came.parent_span_id.hex() == CALLER[36:52]
    assert posted.parent_span_id == came.span_id
    assert worked.parent_span_id == posted.span_id
    assert came.start_time_unix_nano <= posted.start_time_unix_nano < came.end_time_unix_nano
    assert attributes(worked) == {"genba.job.id": job_id, "genba.job.attempt": 1, "genba.job.outcome": "succeeded"}
    assert attributes(posted)["http.response.status_code"] == 202
    assert attributes(posted)["genba.request_id"] == attributes(came)["genba.request_id"]
    assert refused == 422


def _one(collector: Collector, service: str) -> list[tuple[str, Any]]:
    """The spans of a service that say 202."""
    return [each for each in collector.spans if each[0] == service and _status(each[1]) == 202]


def _status(span: Any) -> Any:
    return attributes(span).get("http.response.status_code")


async def _submit(settings: Settings, collector: Collector) -> tuple[str, int]:
    """A job that is taken, one that is refused, one that its caller does not want traced; nobody's probe is a span."""
    chosen = gateway_settings(settings.platform)
    async with door(chosen, mounts={"training": create_app(settings)}) as opened:
        work = {"recipe": "test.work", "params": {"steps": 1, "step_s": 0}}
        taken = await _post(opened, work, key="a", traceparent=CALLER)
        refused = await _post(opened, {"recipe": "test.nix"}, key="b", traceparent=CALLER)
        quiet = await _post(opened, work, key="c", traceparent=NOT_SAMPLED)
        stranger = await opened.ask("GET", "/v1/jobs", key="")
        assert (taken.status, quiet.status, stranger.status) == (202, 202, 401)
        await until(lambda: len(collector.spans) >= 4)
    assert sorted(_status(span) for _, span in collector.spans) == [202, 202, 422, 422]
    return str(json.loads(taken.body)["id"]), refused.status


async def _post(opened: Door, job: dict[str, Any], *, key: str, traceparent: str) -> Any:
    headers = {"Idempotency-Key": key, "traceparent": traceparent}
    return await opened.ask("POST", "/v1/jobs", headers=headers, json=job)


def test_a_job_of_no_trace_begins_one_and_a_collector_that_is_gone_costs_only_its_span(
    runner: Runner, submit: Any, collector: Collector, platform: Platform
) -> None:
    spans = spans_for("worker", platform.model_copy(update={"otlp_url": collector.url}))
    traced = replace(runner, spans=spans)
    job = submit("test.nobody_has_this")
    assert traced.run(job.id) == "queued"  # another worker may have it
    gone = spans_for("worker", platform.model_copy(update={"otlp_url": "http://127.0.0.1:9/v1/traces"}))
    assert replace(runner, spans=gone).run(submit("test.work", steps=1, step_s=0).id) == "succeeded"
    ((_, span),) = collector.spans
    assert span.name == "job test.nobody_has_this"
    assert span.parent_span_id == b""


def test_without_a_collector_there_are_no_spans_and_without_the_extra_a_clear_word(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spans_for("sop", platform) is None
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(ValueError, match="needs the extra otel"):
        spans_for("sop", platform.model_copy(update={"otlp_url": "http://127.0.0.1:9/v1/traces"}))


def test_a_span_of_a_trace_that_failed_is_marked(collector: Collector, platform: Platform) -> None:
    spans = spans_for("sop", platform.model_copy(update={"otlp_url": collector.url}))
    assert spans is not None
    trace = TraceContext.start()
    spans.add("x", trace, parent=None, kind="server", duration_s=0.5, attributes={}, failed=True)
    spans.close()
    spans.close()
    ((_, span),) = collector.spans
    assert (span.status.code, span.trace_id.hex()) == (2, trace.trace_id)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 500_000_000
