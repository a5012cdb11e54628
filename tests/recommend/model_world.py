"""A service with a model: a generated world in its database, a worker in the test's thread, versions trained in seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient
from tests.recommend.shop_world import Service

from genba_recommend.app import create_app
from genba_recommend.generator import Size, World, generate
from genba_recommend.settings import Settings
from genba_shared.jobs import Jobs
from genba_shared.principal import PRINCIPAL_HEADER, Clearance, Principal, scopes_of, sign
from genba_shared.queue import Wakeups, make_celery
from genba_shared.settings import Platform
from genba_training.recipes import load, validate
from genba_training.runner import Runner
from genba_training.settings import Settings as TrainingSettings

QUICK = {
    "max_epochs": 2,
    "places_per_epoch": 4000,
    "dim": 16,
    "history_len": 20,
    "gate_over_popularity": None,
    "gate_below_champion": None,
}
SMALL = Size(items=120, users=60, days=20)
ROWS_AT_ONCE = 5000
RECIPES = ["genba_recommend.training:RECIPES"]
LEASE_S = 2.0  # of an attempt in a process that a test kills, and then waits for


@dataclass
class Trained:
    """A service over a generated world."""

    service: Service
    world: World
    runner: Runner
    principal: Principal
    jobs: list[str] = field(default_factory=list)

    def submit(self, recipe: str, **params: Any) -> str:
        """Submit a job and leave it to whoever takes it; its id."""
        known = self.runner.recipes.by_name[recipe]
        accepted = validate(known, params).model_dump(mode="json")
        job = self.runner.jobs.submit(
            recipe, accepted, principal=self.principal, idempotency_key=f"job-{uuid.uuid4()}",
            queue=known.queue, max_attempts=known.max_attempts,
        )  # fmt: skip
        self.jobs.append(job.id)
        return job.id

    def run(self, recipe: str, **params: Any) -> Any:
        """Submit and run one job to its end; the job."""
        job_id = self.submit(recipe, **params)
        self.runner.run(job_id)
        return self.runner.jobs.peek(job_id)

    @contextmanager
    def worker(self, job_id: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker in a process group of its own, woken for a job; killed at the end of the block if it is still there."""
        platform = self.service.recommend.settings.platform
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GENBA_")} | {
            "GENBA_HOME": str(platform.home),
            "GENBA_TRAINING_RECIPES": json.dumps(RECIPES),
            "GENBA_TRAINING_LEASE_S": str(LEASE_S),
            "GENBA_TRAINING_HEARTBEAT_S": "0.1",
        }
        wakeups = Wakeups(make_celery(platform))
        job = self.runner.jobs.peek(job_id)
        assert job is not None
        wakeups.send(job_id, queue=job.queue)
        argv = [sys.executable, "-m", "genba_training.worker", "--queues", "cpu,gpu"]
        process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            wakeups.close()

    def again(self) -> Any:
        """Run the last job again, once the lease of the attempt that died has run out."""
        time.sleep(LEASE_S + 0.1)
        self.runner.run(self.jobs[-1])
        return self.runner.jobs.peek(self.jobs[-1])

    def train(self, **params: Any) -> Any:
        """A new version, promoted and taken up."""
        job = self.run("recommend.two_tower", **{**QUICK, **params})
        assert job.status == "succeeded", job.error
        self.take_up()
        return job

    def take_up(self) -> None:
        """What the service does by itself within half a second."""
        self.service.shop.live.refresh()
        self.service.follow()


def somebody(*roles: str) -> Principal:
    """Who asks, when no fixture is at hand."""
    return Principal("key_test", roles, scopes_of(roles), Clearance.INTERNAL)


@contextmanager
def serving(home: Path) -> Iterator[Service]:
    """svc-recommend in embedded mode over a home, which may be a copy of another."""
    platform = Platform(home=home, log_format="console")
    app = create_app(Settings(platform=platform, poll_s=60.0))

    def signed(*roles: str, **fields: Any) -> dict[str, str]:
        caller = replace(somebody(*roles), **fields)
        return {PRINCIPAL_HEADER: sign(caller, platform.load_principal_secret())}

    with TestClient(app, raise_server_exceptions=False) as client:
        yield Service(client, app.state.recommend, signed)


def fill(service: Service, size: Size, *, seed: int = 0) -> World:
    """Send a generated world to the service."""
    world = generate(size, seed=seed)
    later_by_s = int(time.time()) - 3600 - int(world.events.at_s.max())  # so that it ends an hour ago
    for path, key, rows in (
        ("/items", "items", list(world.item_rows(later_by_s=later_by_s))),
        ("/users", "users", list(world.user_rows())),
        ("/events", "events", list(world.event_rows(later_by_s=later_by_s))),
    ):
        send: Callable[..., Any] = service.post if path == "/events" else service.put
        for at in range(0, len(rows), ROWS_AT_ONCE):
            answer = send(path, {key: [dict(row) for row in rows[at : at + ROWS_AT_ONCE]]})
            assert answer.status_code == 200, answer.text
            assert not answer.json()["rejected"], answer.text[:500]
    service.follow()
    return world


def users_with_history(trained: Trained, n: int = 5) -> list[str]:
    """Users who would get a personal list."""
    counts = np.bincount(trained.world.events.of("like").users)
    return [trained.world.user_id(int(user)) for user in np.argsort(-counts)[:n]]


def runner_for(service: Service, lease_s: float = 60.0) -> Runner:
    """A worker over the same database and artifacts."""
    platform = service.recommend.settings.platform
    return Runner(
        jobs=Jobs(service.recommend.database),
        recipes=load(RECIPES),
        artifacts=service.recommend.registry.artifacts,
        settings=TrainingSettings(platform=platform, recipes=tuple(RECIPES), heartbeat_s=0.2, lease_s=lease_s),
        owner="worker-1",
    )
