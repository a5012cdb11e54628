"""Clients that others wrote work unchanged, through the gateway with a key: OpenAI's library, a LiteLLM-shaped one, MCP's SDK."""

from __future__ import annotations

import asyncio
import contextlib
import io
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
import uvicorn
from mcp.client.client import Client
from rich.console import Console
from tests.llm.service.model_server import MODEL, ModelServer, serving
from typer.testing import CliRunner

from genba_gateway import app as gateway
from genba_gateway import settings as gateway_settings
from genba_gateway.home import first_admin_key
from genba_gateway.keys import Keys
from genba_llm import demo
from genba_llm.app import create_app
from genba_llm.cli import app as cli
from genba_llm.settings import Settings
from genba_shared.db import Database
from genba_shared.settings import Platform

PLANS = "Show me the operational plan of the battalion and where its troop positions are."
TO_A_PERSON = {"text": "What is the torque of an M8 bolt?", "action": "disclose", "classification": "internal"}
QUESTION = "What is the tightening torque of an M8 bolt?"


class Installation:
    """A gateway with svc-llm behind it, on a real port."""

    def __init__(self, url: str, platform: Platform, model: ModelServer) -> None:
        self.url, self.model, self.home = url, model, platform.home
        database = Database(platform.database_url)
        self.key = Keys(database, env="dev").create("operator", role="operator", clearance="internal")[1]
        self.admin = (platform.home / "admin.key").read_text().strip()
        self.viewer = Keys(database, env="dev").create("viewer", role="viewer", clearance="internal")[1]
        database.close()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, _upgraded_sqlite: Path) -> Iterator[Installation]:
    home = tmp_path_factory.mktemp("clients") / "home"
    home.mkdir()
    shutil.copy(_upgraded_sqlite, home / "genba.db")
    platform = Platform(home=home, log_level="error")
    first_admin_key(platform)
    with serving() as model:
        settings = Settings(platform=platform, backend="openai", backend_url=model.url, backend_model=MODEL)
        door = gateway.create_app(gateway_settings.Settings(platform=platform), mounts={"llm": create_app(settings)})
        with listening(door) as url:
            yield Installation(url, platform, model)


@pytest.fixture(autouse=True)
def _the_next_test_finds_it_as_this_one_did(installation: Installation) -> Iterator[None]:
    """No document that it could be answered from, and a model that says what it always says."""
    text = installation.model.text
    yield
    installation.model.text = text
    headers = {"authorization": f"Bearer {installation.admin}"}
    with httpx.Client(base_url=installation.url, headers=headers, trust_env=False, timeout=60) as client:
        for each in client.get("/v1/llm/documents", params={"limit": 200}).json()["items"]:
            assert client.delete(f"/v1/llm/documents/{each['id']}").status_code == 204


@contextlib.contextmanager
def listening(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(installation: Installation) -> Iterator[openai.OpenAI]:
    base_url = f"{installation.url}/v1/llm"
    with openai.OpenAI(base_url=base_url, api_key=installation.key, max_retries=0) as found:
        yield found


def test_openais_client_chats(client: openai.OpenAI, installation: Installation) -> None:
    answer = client.chat.completions.create(
        model="genba", messages=[{"role": "user", "content": QUESTION}], seed=1, temperature=0
    )
    assert answer.choices[0].message.content == installation.model.text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 18


def test_openais_client_streams(client: openai.OpenAI, installation: Installation) -> None:
    stream = client.chat.completions.create(
        model="genba",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert text == installation.model.text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 7
    assert [each.choices[0].finish_reason for each in chunks if each.choices][-1] == "stop"


def test_openais_client_is_told_of_a_refusal_as_a_filter(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="genba", messages=[{"role": "user", "content": PLANS}], extra_body={"domain": "defense"}
    )
    assert answer.choices[0].finish_reason == "content_filter"


def test_openais_client_lists_models_and_moderates(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "genba"
    results = client.moderations.create(input=[PLANS, "What time is it in Osaka?"]).results
    assert [each.flagged for each in results] == [True, False]


def test_openais_client_raises_its_own_errors(installation: Installation) -> None:
    base_url = f"{installation.url}/v1/llm"
    stranger = openai.OpenAI(base_url=base_url, api_key="gnb_dev_wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    viewer = openai.OpenAI(base_url=base_url, api_key=installation.viewer, max_retries=0)
    with viewer, pytest.raises(openai.PermissionDeniedError):
        viewer.chat.completions.create(model="genba", messages=[{"role": "user", "content": "a"}])
    with openai.OpenAI(base_url=base_url, api_key=installation.key, max_retries=0) as operator:
        with pytest.raises(openai.UnprocessableEntityError):
            operator.chat.completions.create(model="genba", messages=[{"role": "robot", "content": "a"}])  # type: ignore[list-item,misc]
        installation.model.status = 503
        try:
            with pytest.raises(openai.InternalServerError, match="503"):
                operator.chat.completions.create(model="genba", messages=[{"role": "user", "content": QUESTION}])
        finally:
            installation.model.status = 200


def test_a_litellm_shaped_guardrail_client_works(installation: Installation) -> None:
    """What LiteLLM sends (docs.litellm.ai, Generic Guardrail API): its suffix behind the api_base, these fields, these answers."""
    headers = {"authorization": f"Bearer {installation.key}"}
    with httpx.Client(headers=headers, trust_env=False) as client:
        for texts, action in ((["What time is it in Osaka?"], "NONE"), ([PLANS], "BLOCKED")):
            body = {
                "texts": texts,
                "images": None,
                "tools": None,
                "tool_calls": None,
                "structured_messages": [{"role": "user", "content": texts[0]}],
                "request_data": {"user_api_key_hash": "h", "user_api_key_user_id": "u"},
                "request_headers": {"user-agent": "litellm"},
                "litellm_version": "1.80.0",
                "input_type": "request",
                "litellm_call_id": "call-1",
                "litellm_trace_id": "trace-1",
                "additional_provider_specific_params": {},
                "model": "gpt-4o",
            }
            url = f"{installation.url}/v1/llm/guardrail/beta/litellm_basic_guardrail_api"
            answer = client.post(url, json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["action"] == action


def test_mcps_client_lists_and_calls_the_tools(installation: Installation) -> None:
    async def story() -> None:
        async with asking(installation.key) as session:
            tools = await session.list_tools()
            assert {each.name for each in tools.tools} == {"triage", "think", "search"}
            triage = await session.call_tool("triage", {"text": PLANS, "domain": "defense"})
            assert triage.structured_content is not None
            assert triage.structured_content["decision"] in {"DENY", "REFUSE"}
            installation.model.text = "<think-task>HIDDEN</think-task><final>25 Nm.</final>"
            thought = await session.call_tool("think", {"text": QUESTION})
            assert thought.structured_content is not None
            assert thought.structured_content["answer"] == "25 Nm."
            assert "HIDDEN" not in repr(thought)
            found = await session.call_tool("search", {"query": "torque"})
            assert found.structured_content is not None
            assert found.structured_content["hits"] == []
            wrong = await session.call_tool("triage", {"text": "a", "domain": "astrology"})
            assert wrong.is_error

    @contextlib.asynccontextmanager
    async def asking(key: str) -> Any:
        from mcp.client.streamable_http import streamable_http_client

        headers = {"authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(headers=headers, trust_env=False, timeout=60) as http:
            transport = streamable_http_client(f"{installation.url}/v1/llm/mcp", http_client=http)
            async with Client(transport) as session:
                yield session

    asyncio.run(asyncio.wait_for(story(), 120))


def test_the_tools_ask_for_the_same_key_as_the_routes(installation: Installation) -> None:
    url = f"{installation.url}/v1/llm/mcp"
    with httpx.Client(trust_env=False) as client:
        assert client.post(url, json={}).status_code == 401
        assert client.post(url, json={}, headers={"authorization": f"Bearer {installation.viewer}"}).status_code == 403
        got = client.get(url, headers={"authorization": f"Bearer {installation.key}"})
        assert (got.status_code, got.headers["allow"]) == (405, "POST")


RUN = CliRunner().invoke


@pytest.fixture
def genba(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``genba llm …`` as an engineer who may also review."""
    monkeypatch.setenv("GENBA_URL", installation.url)
    monkeypatch.setenv("GENBA_API_KEY", installation.admin)

    def run(*arguments: str, code: int = 0) -> str:
        done = RUN(cli, list(arguments))
        assert done.exit_code == code, done.output
        return done.output

    return run


def test_the_command_asks_and_its_exit_code_says_what_was_decided(
    genba: Any, installation: Installation, tmp_path: Path
) -> None:
    assert "ALLOW" in genba("triage", QUESTION)
    assert "entry" in genba(
        "triage", TO_A_PERSON["text"], "--action", "draft_mail", "--classification", "confidential", code=1
    )
    installation.model.text = "<think-task>HIDDEN</think-task><final>25 Nm.</final>"
    assert genba("think", QUESTION).strip() == "25 Nm."
    manual = tmp_path / "manual.md"
    manual.write_text("# Manual\n\nM8 bolts of the guard are tightened to 25 Nm.")
    document = genba("documents", "add", str(manual), "--clearance", "internal").strip()
    assert document.startswith("doc_")
    assert "Manual" in genba("documents", "list")
    assert "25 Nm" in genba("search", "M8 bolts of the guard")
    report = tmp_path / "report.html"
    period = ("--start", "2026-01-01T00:00:00Z", "--end", "2036-01-01T00:00:00Z")
    genba("report", *period, "--out", str(report))
    assert report.read_text().startswith("<!doctype html>")
    genba("report", *period, "--out", str(tmp_path / "report.doc"), code=2)


def test_the_command_publishes_rules_and_says_why_it_cannot(genba: Any, tmp_path: Path) -> None:
    shown = genba("policies", "show")
    policy = tmp_path / "policy.yml"
    policy.write_text(shown, encoding="utf-8")
    assert "is in force" in genba("policies", "publish", str(policy), "--note", "the same")
    policy.write_text("domains: {}", encoding="utf-8")
    genba("policies", "publish", str(policy), "--note", "broken", code=3)
    policy.write_text("a: [", encoding="utf-8")
    genba("policies", "publish", str(policy), "--note", "broken", code=2)


def test_the_command_decides_what_somebody_else_asked(genba: Any, installation: Installation) -> None:
    headers = {"authorization": f"Bearer {installation.key}"}
    asked = httpx.post(f"{installation.url}/v1/llm/triage", json=TO_A_PERSON, headers=headers, trust_env=False).json()
    escalation = asked["escalation_id"]
    assert escalation in genba("escalations", "list")
    assert "M8 bolt" in genba("escalations", "show", escalation)
    genba("escalations", "decide", escalation, "ALLOW", "--reason", "They asked for it.")
    assert escalation not in genba("escalations", "list")
    genba("escalations", "decide", escalation, "DENY", "--reason", "Too late.", code=3)


def test_the_demos_story_finds_what_it_planted(installation: Installation) -> None:
    headers = {"authorization": f"Bearer {installation.admin}"}
    with httpx.Client(base_url=installation.url, headers=headers, trust_env=False, timeout=60) as client:
        installation.model.text = "<final>25 Nm.</final>"
        assert demo.run(client, installation.home.parent / "llm", Console(file=io.StringIO()))
