"""Start, drain and stop, what the gateway says of itself, and the one document for all services."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi import FastAPI
from openapi_spec_validator import OpenAPIV31SpecValidator
from tests.gateway.world import (
    OK,
    Echo,
    Received,
    Service,
    door,
    free_port,
    read_answer,
    request_bytes,
    running,
    settings,
    until,
)

from genba_gateway import app, backup
from genba_gateway.mounted import StartFailed
from genba_gateway.openapi import merge
from genba_gateway.routes import RouteTable
from genba_gateway.settings import Settings
from genba_shared.readiness import Degraded
from genba_shared.service import create_service
from genba_shared.settings import Platform

PROGRAM = """
import sys
from pathlib import Path
from genba_gateway.app import create_app
from genba_gateway.server import serve
from genba_gateway.settings import Settings
from genba_shared.db import Database
from genba_shared.settings import Platform

platform = Platform(home=Path(sys.argv[1]), log_level="error")
database = Database(platform.database_url)
database.upgrade()
database.close()
chosen = {"platform": platform, "upstreams": {"sop": [sys.argv[3]]}, "rate_per_minute": 6_000_000, "rate_burst": 100_000}
gateway = create_app(Settings.model_validate({**chosen, "resilience": {"drain_notice_s": 0.5, "drain_s": float(sys.argv[4])}}))
Path(sys.argv[1], "key").write_text(gateway.keys.create("admin", role="admin", clearance="secret")[1])
serve(gateway, host="127.0.0.1", port=int(sys.argv[2]))
"""


def test_a_drain_under_load_fails_no_request(platform: Platform, tmp_path: Path) -> None:
    """SIGTERM to a real process while clients keep asking: whoever got a connection gets whole, right answers to the end."""

    async def story() -> None:
        async def answer_later(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.02)
            writer.write(OK)

        service = Service(answer_later)
        port = free_port()
        async with running(service):
            said = tmp_path / "stderr"
            with said.open("wb") as stderr:
                process = subprocess.Popen(  # noqa: ASYNC220 - started before anything waits
                    [sys.executable, "-c", PROGRAM, str(tmp_path), str(port), service.url, "30"], stderr=stderr
                )
            await until(lambda: process.poll() is not None or _listens(port), within_s=60)
            headers = {"Authorization": f"Bearer {(tmp_path / 'key').read_text()}"}
            failed: list[str] = []
            answered = 0
            closing = 0
            is_over = False

            async def client() -> None:
                nonlocal answered, closing
                while not is_over:
                    try:
                        reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    except ConnectionError:
                        return  # the door is closed: a balancer would go elsewhere
                    try:
                        while not is_over:
                            writer.write(request_bytes("GET", "/v1/sop/x", headers=headers))
                            answer = await read_answer(reader)
                            answered += 1
                            if answer.status != 200:
                                failed.append(str(answer.status))
                            if answer.headers.get("connection") == "close":
                                closing += 1
                                break
                    except (ConnectionError, asyncio.IncompleteReadError) as error:
                        failed.append(repr(error))
                    finally:
                        writer.close()

            clients = [asyncio.create_task(client()) for _ in range(16)]
            await until(lambda: answered > 200)
            process.send_signal(signal.SIGTERM)
            try:
                await until(lambda: process.poll() is not None, within_s=120)
            finally:
                process.kill()
                is_over = True
                await asyncio.gather(*clients)
            assert failed == [], said.read_text()[-2000:]
            assert closing > 0

    asyncio.run(story())


def test_a_process_with_a_thread_that_hangs_does_not_outlive_its_drain(tmp_path: Path) -> None:
    hangs = "import signal, threading\nthreading.Thread(target=threading.Event().wait).start()\n"
    hangs += "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"  # as `genba run` does
    port, said = free_port(), tmp_path / "stderr"
    argv = [sys.executable, "-c", hangs + PROGRAM, str(tmp_path), str(port), "http://127.0.0.1:9", "1"]
    with said.open("wb") as stderr, subprocess.Popen(argv, stderr=stderr) as process:
        try:
            asyncio.run(until(lambda: process.poll() is not None or _listens(port), within_s=60))
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "Timeout" in said.read_text()
    assert "threading.py" in said.read_text()


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_draining_turns_readiness_off_and_still_answers(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service)) as gateway:
            assert (await gateway.ask("GET", "/ready", key="")).status == 200
            gateway.gateway.drain()
            ready = await gateway.ask("GET", "/ready", key="")
            assert (ready.status, "shutting down" in ready.json()["detail"]) == (503, True)
            answer = await gateway.ask("GET", "/v1/sop/x")
            assert (answer.status, answer.headers["connection"]) == (200, "close")

    asyncio.run(story())


def test_readiness_names_the_service_that_is_away(platform: Platform) -> None:
    async def story() -> None:
        async with door(settings(platform, Service())) as gateway:
            ready = await gateway.ask("GET", "/ready", key="")
            assert ready.status == 503
            assert "sop" in ready.json()["reasons"]
            metrics = (await gateway.ask("GET", "/metrics", key="")).body.decode()
            assert 'genba_gateway_service_ready{service="sop"} 0.0' in metrics
            assert (await gateway.ask("GET", "/health", key="")).status == 200

    asyncio.run(story())


@contextlib.asynccontextmanager
async def _nothing(_app: FastAPI) -> AsyncIterator[None]:
    yield


def test_readiness_passes_on_what_works_less_well_in_a_mounted_service(platform: Platform) -> None:
    async def story() -> None:
        app = create_service("llm", title="a service", platform=platform, lifespan=_nothing)
        app.state.readiness.add("backend", lambda: Degraded("is being loaded"))
        async with door(settings(platform), mounts={"llm": app}) as gateway:
            ready = await gateway.ask("GET", "/ready", key="")
            assert (ready.status, ready.json()["degraded"]) == (200, {"llm": "backend is being loaded"})
            metrics = (await gateway.ask("GET", "/metrics", key="")).body.decode()
            assert 'genba_gateway_service_ready{service="llm"} 1.0' in metrics

    asyncio.run(story())


def test_mounted_services_are_started_and_stopped_and_their_state_reaches_requests(platform: Platform) -> None:
    async def story() -> None:
        told: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await receive()
                scope["state"]["model"] = "loaded"
                told.append("started")
                await send({"type": "lifespan.startup.complete"})
                await receive()
                told.append("stopped")
                await send({"type": "lifespan.shutdown.complete"})
                return
            told.append(scope["state"]["model"])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async with door(settings(platform), mounts={"sop": app}) as gateway:
            assert (await gateway.ask("GET", "/v1/sop/x")).status == 200
        assert told[0] == "started"
        assert "loaded" in told
        assert told[-1] == "stopped"

    asyncio.run(story())


def test_a_mounted_service_that_hangs_keeps_nobody_from_knowing_of_the_others(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "READY_S", 0.2)

    class Hung(Echo):
        async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
            if scope.get("path") == "/ready":
                await asyncio.Event().wait()
            await super().__call__(scope, receive, send)

    async def story() -> None:
        async with door(settings(platform), mounts={"sop": Hung(), "sem": Echo()}) as gateway:
            ready = await gateway.ask("GET", "/ready")
            assert ready.status == 503
            assert ready.json()["reasons"] == {"sop": "does not answer: TimeoutError"}

    asyncio.run(story())


def test_a_mounted_service_that_does_not_start_stops_the_start_with_its_reason(platform: Platform) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no model"})

    async def story() -> None:
        from genba_gateway.app import create_app
        from genba_shared.db import Database

        database = Database(platform.database_url)
        database.upgrade()
        database.close()
        gateway = create_app(settings(platform), mounts={"sop": broken})
        with pytest.raises(StartFailed, match="no model"):
            async with gateway.running():
                pass

    asyncio.run(story())


def test_a_failure_inside_a_mounted_service_is_a_problem_not_a_traceback(platform: Platform) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            raise RuntimeError("secret detail")
        await Echo()(scope, receive, send)

    async def story() -> None:
        async with door(settings(platform), mounts={"sop": broken}) as gateway:
            answer = await gateway.ask("GET", "/v1/sop/x")
            assert answer.status == 500
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
            assert b"secret detail" not in answer.body

    asyncio.run(story())


def test_metrics_and_access_log_name_routes_never_paths_or_keys(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service)) as gateway:
            await gateway.ask("GET", "/v1/sop/videos/vid_private?name=tanaka")
            await gateway.ask("GET", "/nowhere/private")
            await gateway.ask("GET", "/v1/sop/x", key="")
            text = (await gateway.ask("GET", "/metrics", key="")).body.decode()
            assert 'genba_gateway_requests_total{method="GET",route="/v1/sop",status="200"} 1.0' in text
            assert 'genba_gateway_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
            assert 'genba_gateway_requests_total{method="GET",route="/v1/sop",status="401"} 1.0' in text
            assert 'genba_gateway_upstream_attempts_total{outcome="ok",service="sop"} 1.0' in text
            assert 'genba_gateway_service_ready{service="sop"} 1.0' in text
            gateway.gateway.access_log.flush()
            log = gateway.log.getvalue().decode()
            for private in ("vid_private", "tanaka", "/nowhere", gateway.key):
                assert private not in text
                assert private not in log
            assert len(log.splitlines()) == 4

    asyncio.run(story())


def test_metrics_say_when_the_last_backup_was_made(platform: Platform, tmp_path: Path) -> None:
    name = "genba_gateway_last_backup_timestamp_seconds "

    async def story() -> None:
        async with door(settings(platform)) as gateway:

            async def said_s() -> float:
                text = (await gateway.ask("GET", "/metrics", key="")).body.decode()
                return next(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

            assert await said_s() == 0
            made = backup.create(platform, tmp_path / "genba.tar")
            assert abs(await said_s() - made.made_at.timestamp()) < 1
            os.utime(platform.home / "last-backup", (1000, 1000))
            with pytest.raises(backup.CannotBackUp):
                backup.create(platform, tmp_path / "genba.tar")
            assert await said_s() == 1000, "a backup that failed is none"

    asyncio.run(story())


def test_the_document_of_all_services_is_valid_and_says_what_each_operation_needs(platform: Platform) -> None:
    sop = FastAPI(title="Procedures")

    @sop.get("/v1/sop/videos/{video_id}")
    def read_video(video_id: str) -> dict[str, str]:
        return {"id": video_id}

    @sop.post("/v1/other/hidden")
    def hidden() -> None: ...

    async def story() -> None:
        async with door(settings(platform), mounts={"sop": sop}) as gateway:
            answer = await gateway.ask("GET", "/v1/openapi.json", key="")
            document = answer.json()
            OpenAPIV31SpecValidator(document).validate()
            operation = document["paths"]["/v1/sop/videos/{video_id}"]["get"]
            assert (operation["x-genba-scope"], operation["x-genba-clearance"]) == ("sop:read", "internal")
            assert {"401", "403", "429", "502", "503"} <= operation["responses"].keys()
            assert "/v1/other/hidden" not in document["paths"]
            assert "/v1/keys" in document["paths"]
            ids = [
                op["operationId"] for item in document["paths"].values() for op in item.values() if "operationId" in op
            ]
            assert len(ids) == len(set(ids))

    asyncio.run(story())


def test_schemas_of_one_name_and_two_meanings_are_told_apart() -> None:
    def service(kind: str) -> dict[str, Any]:
        prefix = {"string": "sop", "integer": "sem"}[kind]
        reference = {"$ref": "#/components/schemas/Item"}
        return {
            "info": {"title": prefix},
            "paths": {
                f"/v1/{prefix}/a": {
                    "get": {
                        "operationId": "a",
                        "responses": {"200": {"description": "", "content": {"x/y": {"schema": reference}}}},
                    }
                }
            },
            "components": {
                "schemas": {
                    "Item": {"type": kind},
                    "Shared": {"type": "null"},
                    "Nest": {"type": "array", "items": reference},
                }
            },
        }

    merged = merge({"sop": service("string"), "sem": service("integer")}, RouteTable(), version="1")
    schemas = merged["components"]["schemas"]
    assert {"Item", "SemItem", "Shared"} <= schemas.keys()
    assert "SemShared" not in schemas
    assert (schemas["Item"], schemas["SemItem"]) == ({"type": "string"}, {"type": "integer"})
    used = merged["paths"]["/v1/sem/a"]["get"]["responses"]["200"]["content"]["x/y"]["schema"]["$ref"]
    assert used == "#/components/schemas/SemItem"
    nests = {
        name: schema["items"]["$ref"].rsplit("/", 1)[1]
        for name, schema in schemas.items()
        if "items" in schema and name != "Problem"
    }
    assert sorted(nests.values()) == ["Item", "SemItem"]


def test_the_reader_loads_nothing_from_elsewhere(platform: Platform) -> None:
    async def story() -> None:
        async with door(settings(platform)) as gateway:
            page = await gateway.ask("GET", "/docs", key="")
            assert page.status == 200
            assert "default-src 'none'" in page.headers["content-security-policy"]
            for name in ("docs.js", "docs.css"):
                asset = await gateway.ask("GET", f"/docs/{name}", key="")
                assert asset.status == 200
                assert b"://" not in asset.body
            assert b"://" not in page.body
            assert (await gateway.ask("GET", "/docs/other.js", key="")).status == 404

    asyncio.run(story())


def test_upstreams_can_be_set_one_service_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENBA_GATEWAY_UPSTREAMS__SOP", "http://a:1, http://b:2")
    monkeypatch.setenv("GENBA_GATEWAY_RESILIENCE__RETRIES", "1")
    chosen = Settings()
    assert chosen.upstreams == {"sop": ("http://a:1", "http://b:2")}
    assert chosen.resilience.retries == 1


@pytest.mark.parametrize("url", ["ftp://a", "http://a/path", "http://user@a", "sop:8000", "http://a?x=1"])
def test_an_upstream_that_is_no_plain_base_url_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="upstreams"):
        Settings.model_validate({"upstreams": {"sop": [url]}})


def test_settings_stay_small_and_described() -> None:
    assert len(Settings.model_fields) <= 25
    assert all(field.description for field in Settings.model_fields.values())
    assert orjson.dumps(Settings.model_json_schema(mode="serialization"))
