"""What every service gives before it has a route of its own."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import BaseModel, model_validator
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Message

from genba_shared.dependencies import current_principal, require
from genba_shared.edge import as_problem
from genba_shared.principal import PRINCIPAL_HEADER, Clearance, Principal, sign
from genba_shared.problems import Conflict, Unavailable
from genba_shared.service import create_service, problem_responses
from genba_shared.settings import Platform
from genba_shared.wire_records import _AN_ID, RecordId

Headers = Callable[..., dict[str, str]]


class Span(BaseModel):
    """A thing with a rule of its own."""

    start_s: float
    end_s: float

    @model_validator(mode="after")
    def _ordered(self) -> Span:
        if self.end_s < self.start_s:
            raise ValueError("end_s must not be before start_s")
        return self


class Thing(BaseModel):
    spans: list[Span]


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


def build(platform: Platform, name: str = "sop") -> FastAPI:
    app = create_service(name, title="Test", platform=platform, lifespan=lifespan)
    router = APIRouter(prefix="/things")

    @router.get("/{thing_id}")
    def read_thing(thing_id: str, caller: Annotated[Principal, require("sop:read")]) -> Thing:
        if thing_id == "broken":
            raise RuntimeError("the password is hunter2")
        if thing_id == "busy":
            raise Conflict("The thing is busy.", thing=thing_id)
        return Thing(spans=[Span(start_s=0, end_s=len(caller.subject))])

    @router.post("/{thing_id}", status_code=201, responses=problem_responses(409))
    def write_thing(thing_id: str, thing: Thing, limit: int = 3) -> Thing:
        return thing

    @router.get("/{thing_id}/stream", response_class=StreamingResponse)
    def stream_thing(thing_id: str) -> StreamingResponse:
        def lines() -> Iterator[bytes]:
            yield b"first"
            raise RuntimeError("half way")

        return StreamingResponse(lines())

    @router.post("/{thing_id}/upload")
    async def upload(thing_id: str, request: Request) -> int:
        return len(await request.body())

    app.include_router(router, prefix=f"/v1/{name}")
    return app


@pytest.fixture
def app(platform: Platform) -> FastAPI:
    return build(platform)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def log(capfd: pytest.CaptureFixture[str], platform: Platform) -> Callable[[], list[dict[str, Any]]]:
    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capfd.readouterr().err.splitlines()]

    return lines


@pytest.fixture
def platform(platform: Platform) -> Platform:
    return platform.model_copy(update={"log_format": "json"})


def test_a_service_says_that_it_is_alive_and_ready(client: TestClient) -> None:
    assert client.get("/health").json()["service"] == "sop"
    assert client.get("/ready").json() == {"status": "ready", "checks": [], "degraded": {}}


def test_readiness_names_every_check_that_fails_even_one_that_raises(app: FastAPI, client: TestClient) -> None:
    def broken() -> str | None:
        raise ConnectionError("postgres://user:password@host")

    app.state.readiness.add("database", lambda: None)
    app.state.readiness.add("encoder", lambda: "is loading")
    app.state.readiness.add("vectors", broken)
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == {"encoder": "is loading", "vectors": "the check failed with ConnectionError"}
    assert "password" not in answer.text
    metrics = client.get("/metrics").text
    assert [
        f'genba_sop_check_passes{{check="{name}"}} {well}' in metrics
        for name, well in (("database", 1.0), ("encoder", 0.0))
    ] == [True, True]


def test_a_draining_service_is_alive_but_not_ready(app: FastAPI, client: TestClient) -> None:
    app.state.readiness.drain()
    assert client.get("/ready").status_code == 503
    assert client.get("/health").status_code == 200


def test_without_a_principal_nothing_under_v1_answers(client: TestClient) -> None:
    for path in ("/v1/sop/things/a", "/v1/sop/nothing", "/v1"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:genba:problem:unauthorized")


@pytest.mark.parametrize(
    "header",
    [
        sign(Principal("a", ("admin",), frozenset({"*"}), Clearance.SECRET), b"another secret"),
        "v1.e30.",
        "",
        "….…",
    ],
    ids=["other secret", "no body", "empty", "no words"],
)
def test_a_forged_principal_is_refused(client: TestClient, header: str) -> None:
    assert client.get("/v1/sop/things/a", headers=[(PRINCIPAL_HEADER.encode(), header.encode())]).status_code == 401


def test_an_expired_principal_is_refused(client: TestClient, platform: Platform, principal: Callable[..., Any]) -> None:
    expired = sign(principal("viewer"), platform.load_principal_secret(), ttl_s=-1)
    assert client.get("/v1/sop/things/a", headers={PRINCIPAL_HEADER: expired}).status_code == 401


def test_a_principal_needs_the_scope_of_the_route(client: TestClient, signed: Headers) -> None:
    assert client.get("/v1/sop/things/a", headers=signed("viewer")).status_code == 200
    refused = client.get("/v1/sop/things/a", headers=signed("auditor"))
    assert refused.status_code == 403
    assert refused.json()["scope"] == "sop:read"


def test_an_expected_failure_is_the_problem_that_was_raised(client: TestClient, signed: Headers) -> None:
    answer = client.get("/v1/sop/things/busy", headers=signed("viewer"))
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["thing"] == "busy"
    assert answer.json()["instance"] == "/v1/sop/things/busy"


def test_an_unexpected_failure_tells_the_caller_an_id_and_the_log_the_rest(
    client: TestClient, signed: Headers, log: Callable[[], list[dict[str, Any]]]
) -> None:
    answer = client.get("/v1/sop/things/broken", headers=signed("viewer"))
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
    failed = next(line for line in log() if line["event"] == "request_failed")
    assert failed["request_id"] == answer.json()["request_id"] == answer.headers["x-request-id"]
    assert failed["exception"][0]["exc_type"] == "RuntimeError"
    assert all("locals" not in frame for frame in failed["exception"][0]["frames"])


def test_an_unknown_address_is_a_problem(client: TestClient, signed: Headers) -> None:
    answer = client.get("/v1/sop/nothing", headers=signed("viewer"))
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:genba:problem:not-found")


def test_a_wrong_method_is_told_all_the_right_ones(client: TestClient, signed: Headers) -> None:
    answer = client.put("/v1/sop/things/a", headers=signed("admin"))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")


def test_a_payload_that_does_not_validate_names_its_fields(client: TestClient, signed: Headers) -> None:
    body = {"spans": [{"start_s": 1, "end_s": 2}, {"start_s": "x", "end_s": 2}, {"start_s": 3, "end_s": 2}]}
    answer = client.post("/v1/sop/things/a?limit=many", headers=signed("admin"), json=body)
    assert answer.status_code == 422
    errors = {error["field"]: error["message"] for error in answer.json()["errors"]}
    assert list(errors) == ["limit", "spans[1].start_s", "spans[2]"]
    assert errors["spans[2]"] == "end_s must not be before start_s"


@pytest.mark.parametrize("body", [b"{", b'{"spans": [', b"\xff\xfe", b""])
def test_a_body_that_is_no_json_is_a_problem_of_the_body(client: TestClient, signed: Headers, body: bytes) -> None:
    headers = {**signed("admin"), "content-type": "application/json"}
    answer = client.post("/v1/sop/things/a", headers=headers, content=body)
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_request_keeps_the_id_it_came_with_unless_that_is_unsafe(client: TestClient) -> None:
    assert client.get("/health", headers={"x-request-id": "req_0123456789"}).headers["x-request-id"] == "req_0123456789"
    for unsafe in ("short", "with space in it", "x" * 200, 'quo"te-quote'):
        made = client.get("/health", headers={"x-request-id": unsafe}).headers["x-request-id"]
        assert made.startswith("req_")


def test_a_request_makes_one_log_line_without_content(
    client: TestClient, signed: Headers, log: Callable[[], list[dict[str, Any]]]
) -> None:
    headers = {**signed("admin"), "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    body = {"spans": [{"start_s": 1, "end_s": 77777}]}
    client.post("/v1/sop/things/very-private-id?limit=5", headers=headers, json=body)
    (line,) = (line for line in log() if line["event"] == "request")
    assert line["route"] == "/v1/sop/things/{thing_id}"
    assert (line["method"], line["status"], line["subject"], line["service"]) == ("POST", 201, "key_test", "sop")
    assert line["trace_id"] == "a" * 32
    assert line["duration_ms"] > 0
    assert not any(secret in json.dumps(line) for secret in ("77777", "very-private-id", "limit=5", "v1."))


def test_metrics_count_by_route_template_and_status(client: TestClient, signed: Headers) -> None:
    for thing_id in ("a", "b", "busy"):
        client.get(f"/v1/sop/things/{thing_id}", headers=signed("viewer"))
    client.get("/v1/sop/nothing/1", headers=signed("viewer"))
    client.request("BREW", "/nowhere")
    text = client.get("/metrics").text
    route = 'method="GET",route="/v1/sop/things/{thing_id}"'
    assert f'genba_sop_requests_total{{{route},status="200"}} 2.0' in text
    assert f'genba_sop_requests_total{{{route},status="409"}} 1.0' in text
    assert f"genba_sop_request_seconds_count{{{route}}} 3.0" in text
    assert 'genba_sop_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'genba_sop_requests_total{method="other",route="unmatched",status="404"} 1.0' in text
    assert "nothing" not in text


def test_a_scrape_that_waits_for_the_database_holds_no_other_request_up(platform: Platform) -> None:
    answered = threading.Event()

    class Slow(Collector):
        def describe(self) -> list[GaugeMetricFamily]:
            return []

        def collect(self) -> Iterator[GaugeMetricFamily]:
            yield GaugeMetricFamily("genba_sop_slow", "Waits.", value=float(answered.wait(10)))

    async def story() -> str:
        app = build(platform)
        app.state.metrics.registry.register(Slow())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sop") as client:
            scrape = asyncio.create_task(client.get("/metrics"))
            await asyncio.sleep(0)
            assert (await client.get("/health")).status_code == 200
            answered.set()
            return (await scrape).text

    assert "genba_sop_slow 1.0" in asyncio.run(story())


def test_two_services_in_one_process_do_not_share_metrics(platform: Platform) -> None:
    sop, training = build(platform, "sop"), build(platform, "training")
    again = build(platform, "sop")
    TestClient(sop).get("/health")
    assert (
        'genba_sop_requests_total{method="GET",route="/health",status="200"} 1.0'
        in TestClient(sop).get("/metrics").text
    )
    assert "genba_sop" not in TestClient(training).get("/metrics").text
    assert 'route="/health"' not in TestClient(again).get("/metrics").text


def test_a_mounted_service_answers_as_it_does_alone(platform: Platform, signed: Headers) -> None:
    gateway = Starlette(routes=[Mount("/", app=build(platform))])
    with TestClient(gateway) as client:
        assert client.get("/v1/sop/things/a", headers=signed("viewer")).status_code == 200
        assert client.put("/v1/sop/things/a", headers=signed("viewer")).headers["allow"] == "GET, POST"
        assert client.get("/v1/sop/things/a").status_code == 401
        assert "/v1/sop/things/{thing_id}" in client.get("/metrics").text


def test_a_service_mounted_under_a_prefix_still_asks_who_it_is(platform: Platform, signed: Headers) -> None:
    with TestClient(Starlette(routes=[Mount("/inner", app=build(platform))])) as client:
        assert client.get("/inner/v1/sop/things/a").status_code == 401
        assert client.get("/inner/v1/sop/things/a", headers=signed("viewer")).status_code == 200


def test_probes_do_not_fill_the_log(client: TestClient, log: Callable[[], list[dict[str, Any]]]) -> None:
    for path in ("/health", "/ready", "/metrics"):
        client.get(path)
    assert log() == []
    client.get("/nothing")
    assert [line["status"] for line in log()] == [404]


def test_an_answer_that_breaks_off_half_way_is_not_made_to_look_whole(client: TestClient, signed: Headers) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        client.get("/v1/sop/things/a/stream", headers=signed("viewer"))
    assert 'route="/v1/sop/things/{thing_id}/stream",status="500"} 1.0' in client.get("/metrics").text


def test_a_problem_of_ours_says_its_cause_in_the_log_only(
    app: FastAPI, client: TestClient, log: Callable[[], list[dict[str, Any]]]
) -> None:
    def connect() -> None:
        raise ConnectionError("10.0.0.7 refused")

    @app.get("/vectors")
    def vectors() -> None:
        try:
            connect()
        except ConnectionError as error:
            raise Unavailable("The vectors cannot be reached.", retry_after_s=5) from error

    answer = client.get("/vectors")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "10.0.0.7" not in answer.text
    logged = next(line for line in log() if line["event"] == "problem")
    assert logged["code"] == "unavailable"
    assert "10.0.0.7" in json.dumps(logged["exception"])


def test_a_client_that_hangs_up_makes_no_noise(
    app: FastAPI, signed: Headers, log: Callable[[], list[dict[str, Any]]]
) -> None:
    arriving: Iterator[Message] = iter(
        [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
    )
    sent: list[Message] = []

    async def receive() -> Message:
        return next(arriving)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in signed("admin").items()]
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/sop/things/a/upload",
        "raw_path": b"", "root_path": "", "query_string": b"", "headers": headers, "scheme": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert sent == []
    (line,) = log()
    assert (line["event"], line["status"], line["level"]) == ("request", 499, "info")


def test_openapi_documents_problems_scopes_and_unique_operations(app: FastAPI) -> None:
    document = app.openapi()
    operation = document["paths"]["/v1/sop/things/{thing_id}"]["get"]
    assert operation["security"] == [{"bearer": ["sop:read"]}]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for status in ("401", "403", "422", "500"):
        content = operation["responses"][status]["content"]
        assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert "409" in document["paths"]["/v1/sop/things/{thing_id}"]["post"]["responses"]
    assert "HTTPValidationError" not in json.dumps(document)
    ids = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids)) == 4
    assert all(path.startswith("/v1/") for path in document["paths"])


def test_a_request_outside_v1_has_no_principal(client: TestClient, app: FastAPI) -> None:
    @app.get("/whoami")
    def whoami(request: Request) -> str:
        return current_principal(request).subject

    assert client.get("/whoami").status_code == 401


def test_a_malformed_id_is_answered_in_words(platform: Platform, signed: Headers) -> None:
    app = create_service("sop", title="Test", platform=platform, lifespan=lifespan)

    @app.get("/v1/sop/things/{thing_id}")
    def read_thing(thing_id: RecordId) -> str:
        return thing_id

    with TestClient(app) as client:
        problem = client.get("/v1/sop/things/Not-an-id", headers=signed("viewer")).json()
    assert problem["errors"] == [{"field": "thing_id", "message": _AN_ID, "code": "string_pattern_mismatch"}]
    assert "[" not in _AN_ID


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_file_that_finds_no_room_is_no_fault_of_the_code(number: int) -> None:
    problem = as_problem(OSError(number, os.strerror(number), "/somewhere/inside"))
    assert (problem.status, problem.code) == (503, "disk-full")
    assert "/somewhere" not in problem.detail
    assert as_problem(OSError(errno.EACCES, "denied")).status == 500
