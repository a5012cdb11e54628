"""svc-llm as a whole: over both databases with its own backend, and before a model server that speaks OpenAI's format."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.llm.service.model_server import MODEL, ModelServer, serving

from genba_llm.app import create_app
from genba_llm.generation import Backend
from genba_llm.service import Llm
from genba_llm.settings import Settings
from genba_shared.settings import Platform

Headers = Callable[..., dict[str, str]]
HARMLESS = "What is the tightening torque of an M8 bolt?"


@dataclass
class Service:
    """A running svc-llm and somebody who uses it."""

    client: TestClient
    llm: Llm
    signed: Headers

    def headers(self, *roles: str, **fields: Any) -> dict[str, str]:
        """By default those of an operator."""
        return self.signed(*(roles or ("operator",)), **fields)

    def get(self, path: str, *roles: str, **fields: Any) -> Any:
        return self.client.get(f"/v1/llm/{path}", headers=self.headers(*roles, **fields))

    def post(self, path: str, body: Any, *roles: str, **fields: Any) -> Any:
        return self.client.post(f"/v1/llm/{path}", json=body, headers=self.headers(*roles, **fields))

    def delete(self, path: str, *roles: str, **fields: Any) -> Any:
        return self.client.delete(f"/v1/llm/{path}", headers=self.headers(*roles, **fields))

    def document(self, text: str, *, params: dict[str, Any] | None = None, **fields: Any) -> Any:
        headers = self.headers(**fields) | {"content-type": "text/plain"}
        return self.client.post("/v1/llm/documents", content=text.encode(), params=params, headers=headers)

    def chat(self, text: str = HARMLESS, **body: Any) -> Any:
        return self.post("chat/completions", {"messages": [{"role": "user", "content": text}], **body})


@contextlib.contextmanager
def running(settings: Settings, signed: Headers, *, backend: Backend | None = None) -> Iterator[Service]:
    app = create_app(settings, backend=backend)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Service(client, app.state.llm, signed)


@pytest.fixture
def service(platform: Platform, database_url: str, signed: Headers) -> Iterator[Service]:
    """Embedded backend, over SQLite and over Postgres."""
    settings = Settings(platform=platform.model_copy(update={"database_url": database_url}))
    with running(settings, signed) as found:
        yield found


@pytest.fixture
def upgraded(platform: Platform, _upgraded_sqlite: Path) -> Platform:
    """Embedded mode whose database need not be upgraded first."""
    platform.home.mkdir(parents=True, exist_ok=True)
    shutil.copy(_upgraded_sqlite, platform.home / "genba.db")
    return platform


@pytest.fixture
def sqlite_service(upgraded: Platform, signed: Headers) -> Iterator[Service]:
    """Embedded mode, for what has nothing to do with the database."""
    with running(Settings(platform=upgraded), signed) as found:
        yield found


@pytest.fixture
def model() -> Iterator[ModelServer]:
    """A model server to be told what to say."""
    with serving() as found:
        yield found


@pytest.fixture
def served(upgraded: Platform, signed: Headers, model: ModelServer) -> Iterator[Service]:
    """svc-llm in front of that server."""
    settings = Settings(platform=upgraded, backend="openai", backend_url=model.url, backend_model=MODEL)
    with running(settings, signed) as found:
        yield found
