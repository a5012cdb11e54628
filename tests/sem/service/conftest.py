"""svc-sem over both databases, somebody who uses it, and particles as a batch of a lab leaves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert
from starlette.testclient import TestClient
from tests.sem.service.pictures import KINDS, views

from genba_sem.app import create_app
from genba_sem.service import Sem
from genba_sem.settings import Settings
from genba_sem.tables import ParticleRow
from genba_shared.db import utc_now
from genba_shared.ids import new_id
from genba_shared.settings import Platform

Headers = Callable[..., dict[str, str]]
Json = dict[str, Any]
JAPANESE = {"disc": "円盤", "needle": "針状", "square": "四角"}


@dataclass
class Service:
    """A running svc-sem and somebody who uses it."""

    client: TestClient
    sem: Sem
    signed: Headers

    def headers(self, *roles: str, **fields: Any) -> dict[str, str]:
        """By default those of an engineer who may also review."""
        return self.signed(*(roles or ("engineer", "reviewer")), **fields)

    def get(self, path: str, *roles: str, params: Json | None = None, **fields: Any) -> Any:
        return self.client.get(path, params=params, headers=self.headers(*roles, **fields), follow_redirects=False)

    def post(self, path: str, body: Any, *roles: str, version: int | str | None = None, **fields: Any) -> Any:
        matching = {} if version is None else {"if-match": f'"{version}"' if isinstance(version, int) else version}
        return self.client.post(path, json=body, headers=self.headers(*roles, **fields) | matching)

    def put(self, path: str, body: Any, *, version: int | str, **fields: Any) -> Any:
        matching = {"if-match": f'"{version}"' if isinstance(version, int) else version}
        return self.client.put(path, json=body, headers=self.headers(**fields) | matching)

    def delete(self, path: str, *roles: str, **fields: Any) -> Any:
        return self.client.delete(path, headers=self.headers(*roles, **fields))

    def label(self, en: str, ja: str = "", **body: Any) -> str:
        """A new label; its id."""
        answer = self.post("/v1/sem/labels", {"name": {"en": en, "ja": ja}, **body})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def classified(self, vectors: Sequence[Sequence[float]], label_id: str | None, **columns: Any) -> list[str]:
        """Particles in the table as a job leaves them, one for each vector; their ids."""
        moment = utc_now()
        ids = [new_id("par") for _ in vectors]
        shared = {
            "tenant": "default", "clearance": 1, "created_at": moment, "created_by": "key_test", "version": 1,
            "role": "sample", "batch": None, "note": "", "tags": [], "dropped": [], "scaling": {}, "view_count": 0,
            "encoder": "e-1", "shape": {}, "covered": False, "status": "confirmed", "label_id": label_id,
            "decided_by": "model", "confidence": 0.99, "reasons": [], "in_queue": False, "priority": 0.0,
            "decision": {}, "decided_in": None, "updated_at": moment, **columns,
        }  # fmt: skip
        rows = [
            {"id": each, "name": f"p-{each}", "vector": np.asarray(vector, np.float32).tobytes(), **shared}
            for each, vector in zip(ids, vectors, strict=True)
        ]
        with self.sem.database.transaction() as session:
            session.execute(insert(ParticleRow), rows)
        return ids

    def master(self, label_id: str, vector: Sequence[float]) -> str:
        """A particle with this vector that stands for a label; the master's id."""
        [particle] = self.classified([vector], label_id, role="master")
        answer = self.post("/v1/sem/masters", {"label_id": label_id, "particle_id": particle})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def send(
        self, images: Sequence[bytes | tuple[str, bytes]], *roles: str, key: str | None = None, **fields: Any
    ) -> Any:
        """Send a particle's views; those without a name get one."""
        named = [each if isinstance(each, tuple) else (f"view_{k}.png", each) for k, each in enumerate(images)]
        files = [("views", (name, content, "application/octet-stream")) for name, content in named]
        rights = {name: fields.pop(name) for name in ("tenant", "subject") if name in fields}
        headers = self.headers(*roles, **rights) | ({"idempotency-key": key} if key else {})
        return self.client.post("/v1/sem/particles", files=files, data=fields, headers=headers)

    def particle(self, images: Sequence[bytes | tuple[str, bytes]], **fields: Any) -> Any:
        """The same, and it is taken; the particle."""
        answer = self.send(images, **fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def lab(self, *, masters: int = 3, kinds: Sequence[str] = KINDS) -> dict[str, str]:
        """Labels with masters of two views each; their ids by kind."""
        found = {kind: self.label(kind.capitalize(), JAPANESE[kind]) for kind in kinds}
        for kind, label_id in found.items():
            for seed in range(masters):
                self.particle(views(kind, seed=seed), master_of=label_id, name=f"master {kind} {seed}")
        return found

    def counts(self) -> dict[str, int]:
        """Particles by the label that each id means now; labels without any are left out."""
        items = self.get("/v1/sem/labels", params={"limit": 200}).json()["items"]
        return {item["id"]: item["particles"] for item in items if item["particles"]}


@pytest.fixture
def settings(platform: Platform, database_url: str) -> Settings:
    return Settings(platform=platform.model_copy(update={"database_url": database_url}), sweep_every_s=3600.0)


@pytest.fixture
def service(settings: Settings, signed: Headers) -> Iterator[Service]:
    """svc-sem, over SQLite and over Postgres."""
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Service(client, app.state.sem, signed)


@pytest.fixture
def sqlite_service(platform: Platform, signed: Headers) -> Iterator[Service]:
    """svc-sem in embedded mode, for what has nothing to do with the database."""
    app = create_app(Settings(platform=platform, sweep_every_s=3600.0))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Service(client, app.state.sem, signed)
