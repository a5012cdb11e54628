"""The life of a model in one story, over real processes: trained, refused by its gate, promoted, swapped under load, broken,
rolled back; its training killed and resumed, cancelled and gone. On SQLite with the folder broker, on Postgres with Redis.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
from tests.e2e.world import Genba, environment, free_port, until, up

from genba_gateway.client import Client, Job
from genba_shared.principal import PRINCIPAL_HEADER, Clearance, Principal, scopes_of, sign
from genba_shared.settings import Platform

pytestmark = [pytest.mark.xdist_group("lifecycle"), pytest.mark.long]

HERE = Path(__file__).parent
MODEL = "test.points"
REDIS_DATABASE = 12
POINT = [0.3, -0.1, 0.2, 0.9, -0.4, 0.8, 0.1, -0.7]


@dataclass(eq=False)
class Load(threading.Thread):
    """Asks the service the same question thirty times a second and keeps every answer."""

    url: str
    headers: dict[str, str]
    answers: list[tuple[int, Any]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        with httpx.Client(base_url=self.url, headers=self.headers, trust_env=False, timeout=30) as http:
            while not self.over.wait(0.03):
                answer = http.post("/v1/points/predict", json={"point": POINT})
                self.answers.append((answer.status_code, answer.json()))

    def version(self) -> int | None:
        """Which version gave the newest answer."""
        return self.answers[-1][1].get("version") if self.answers else None


@dataclass
class World:
    """A running Genba, a client of it, and a service that follows the model's champion."""

    genba: Genba
    client: Client
    service_url: str
    service_pid: int
    headers: dict[str, str]

    def train(self, **params: Any) -> Job:
        return self.client.jobs.wait(self.client.jobs.submit("test.train", params).id)

    def ready(self) -> Any:
        return httpx.get(f"{self.service_url}/ready", trust_env=False).json()

    def degraded(self) -> str:
        return str(self.ready().get("degraded", {}).get("model", ""))


@contextmanager
def points_service(home: Path, settings: dict[str, str]) -> Iterator[tuple[str, int]]:
    port = free_port()
    argv = [sys.executable, "-m", "uvicorn", "points_service:create_app", "--factory", "--app-dir", str(HERE)]
    with (home.parent / "service.log").open("ab") as log:
        process = subprocess.Popen(
            [*argv, "--port", str(port), "--log-level", "warning"],
            env=environment({**settings, "GENBA_HOME": str(home), "GENBA_LOG_LEVEL": "warning"}),
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(params=["embedded", pytest.param("postgres+redis", marks=pytest.mark.distributed)])
def world(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[World]:
    home, urls = tmp_path / "home", {}
    if request.param == "postgres+redis":
        make: Callable[[], str] = request.getfixturevalue("new_postgres_database")
        urls = {"GENBA_DATABASE_URL": make(), "GENBA_BROKER_URL": f"{redis_url}/{REDIS_DATABASE}"}
        with redis.Redis.from_url(urls["GENBA_BROKER_URL"]) as broker:
            broker.flushdb()
    settings = {
        **urls,
        "GENBA_LOG_FORMAT": "json",
        "GENBA_TRAINING_RECIPES": '["recipes_for_tests:RECIPES"]',
        "GENBA_TRAINING_LEASE_S": "3",
        "GENBA_TRAINING_HEARTBEAT_S": "0.1",
        "GENBA_TRAINING_EVENT_POLL_S": "0.05",
        "PYTHONPATH": str(HERE.parent / "training"),
    }
    with (
        up(home, settings=settings) as genba,
        points_service(home, settings) as (service_url, pid),
        Client(genba.url, genba.admin_key) as client,
    ):
        who = Principal("web", ("viewer",), scopes_of(("viewer",)), Clearance.INTERNAL)
        headers = {PRINCIPAL_HEADER: sign(who, Platform(home=home).load_principal_secret(), ttl_s=3600)}
        yield World(genba, client, service_url, pid, headers)


def test_a_model_lives_from_its_training_to_its_rollback(world: World) -> None:
    models = world.client.models

    # ---- trained, evaluated, registered, promoted: and served without anybody's doing
    first = world.train(epochs=1)
    assert first.result is not None
    assert first.result["registered"] == {"model": MODEL, "number": 1, "outcome": "promoted", "missed": []}
    load = Load(world.service_url, world.headers)
    until(lambda: _answers(world), what="the first answer")
    load.start()
    until(lambda: load.version() == 1, what="version 1")

    # ---- it misses its gate: registered, not promoted, and the job says why
    missed = world.train(accuracy_at_least=0.9999)
    assert missed.succeeded
    assert missed.result is not None
    assert (missed.result["registered"]["number"], missed.result["registered"]["outcome"]) == (2, "gate_failed")
    assert "needs at least 0.9999" in missed.result["registered"]["missed"][0]
    assert models.version(MODEL, 2).status == "gate_failed"
    assert models.get(MODEL).champion.number == 1

    # ---- a worker is killed in the middle of an epoch: the job goes on and ends with the same metrics
    job = world.client.jobs.submit("test.train", {"epochs": 4, "step_s": 0.05})
    until(lambda: world.client.jobs.get(job.id).progress > 0.3, what="the middle of an epoch")
    old = world.genba.kill("worker")
    resumed = world.client.jobs.wait(job.id)
    until(lambda: world.genba.process.pid_of("worker") != old, what="the worker's restart")
    assert (resumed.status, resumed.attempt, resumed.failures) == ("succeeded", 2, 1)
    starts = [e.data["message"] for e in world.client.jobs.watch(job.id) if e.kind == "line"]
    assert starts[0] == "starts at minibatch 0"
    assert int(starts[-1].removeprefix("starts at minibatch ")) > 16
    undisturbed = world.train(epochs=4)
    assert resumed.result is not None
    assert undisturbed.result is not None
    assert resumed.result["metrics"] == undisturbed.result["metrics"]

    # ---- cancelled: stopped within seconds, and nothing is left of it
    job = world.client.jobs.submit("test.train", {"epochs": 500, "step_s": 0.05})
    folder = world.genba.home / "jobs" / job.id
    until(lambda: world.client.jobs.get(job.id).progress > 0, what="its start")
    world.client.jobs.cancel(job.id)
    assert world.client.jobs.wait(job.id, within_s=30).status == "cancelled"
    until(lambda: not folder.exists(), what="the folder's end")
    assert models.get(MODEL).newest == 4

    # ---- the champion's weights do not load: the one before serves on, and readiness says so
    until(lambda: load.version() == 4, what="version 4")
    assert world.train(epochs=5, spoil=True).result == {
        "value": {"minibatches": 80},
        "metrics": models.version(MODEL, 5).metrics,
        "artifacts": {},
        "registered": {"model": MODEL, "number": 5, "outcome": "promoted", "missed": []},
    }
    said = until(world.degraded, what="the word in readiness")
    assert "version 5 of test.points does not load" in said
    assert "version 4 serves" in said
    assert load.version() == 4
    assert world.ready()["status"] == "ready"

    # ---- rolled back, twice: the answers of before come back, without a restart
    assert models.rollback(MODEL, reason="version 5 does not load").champion.number == 4
    until(lambda: not world.degraded(), what="readiness without reserve")
    assert models.rollback(MODEL, reason="and 4 is worse on line 2").champion.number == 3
    until(lambda: load.version() == 3, what="version 3")
    models.promote(MODEL, 1, reason="what we began with")
    until(lambda: load.version() == 1, what="version 1 again")
    assert psutil.Process(world.service_pid).is_running()

    # ---- and in all that time no request failed and no answer mixed two versions
    load.over.set()
    load.join()
    assert {status for status, _ in load.answers} == {200}
    by_version = {version: {a["prob"] for _, a in load.answers if a["version"] == version} for version in (1, 3, 4)}
    assert {a["version"] for _, a in load.answers} <= {1, 3, 4}
    assert all(len(probs) == 1 for probs in by_version.values()), by_version
    assert by_version[3] == by_version[4], "the same training twice gives the same model"
    assert by_version[1] != by_version[3]
    assert [move.to_number for move in models.history(MODEL)] == [1, 3, 4, 5, 4, 3, 1]


def _answers(world: World) -> bool:
    """Whether the service is up and has a model."""
    try:
        answer = httpx.post(
            f"{world.service_url}/v1/points/predict", json={"point": POINT}, headers=world.headers, trust_env=False
        )
    except httpx.TransportError:
        return False
    return answer.status_code == 200
