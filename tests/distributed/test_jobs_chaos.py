"""The kill matrix: real worker processes are killed with -9 and brokers emptied, and no job is lost or done twice.

Thirty jobs on SQLite with the folder broker (everywhere) and on Postgres with Redis (marked ``distributed``). Kills
follow what the job table shows, not a clock, so each hits a worker in the middle of a job.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from sqlalchemy import text

from genba_shared.db import Database
from genba_shared.job_upkeep import Upkeep
from genba_shared.jobs import Job, Jobs
from genba_shared.principal import Principal
from genba_shared.queue import Wakeups, make_celery
from genba_shared.settings import Platform
from genba_training import worker_ready
from genba_training.sweeper import Sweeper

pytestmark = pytest.mark.long

RECIPES = Path(__file__).parents[1] / "training"
REDIS_DATABASE = 14
JOBS = 30
KILLS = 5
STEPS = 5
AT_MOST_S = 240.0  # only ends a test that is broken


class Shape:
    """One deployment: a database, a broker, a sweeper as the API process has it, and workers that can be killed."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.database = Database(platform.database_url)
        self.database.upgrade()
        with self.database.transaction() as session:
            session.execute(text("CREATE TABLE effects (job_id VARCHAR(40) NOT NULL)"))
        self.wakeups = Wakeups(make_celery(platform))
        self.jobs = Jobs(self.database, wake=self.wakeups.send)
        self.sweeper = Sweeper(
            Upkeep(self.database), self.wakeups, owner="api", every_s=0.2, keep_jobs=timedelta(days=2)
        )
        self.workers: list[subprocess.Popen[bytes]] = []
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("GENBA_")} | {
            "GENBA_HOME": str(platform.home),
            "GENBA_DATABASE_URL": platform.database_url,
            "GENBA_BROKER_URL": platform.broker_url,
            "GENBA_LOG_LEVEL": "warning",
            "GENBA_TRAINING_RECIPES": '["genba_training.builtin:RECIPES", "recipes_for_tests:RECIPES"]',
            "GENBA_TRAINING_LEASE_S": "2",
            "GENBA_TRAINING_HEARTBEAT_S": "0.1",
            "GENBA_TRAINING_STOP_GRACE_S": "0.5",
            "GENBA_TRAINING_DRAIN_WAIT_S": "0",
            "PYTHONPATH": str(RECIPES),
        }

    def start_worker(self) -> subprocess.Popen[bytes]:
        log = (self.platform.home / "workers.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "genba_training.worker", "--queues", "cpu"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        self.workers.append(process)
        return process

    def submit(self, principal: Principal, **params: Any) -> Job:
        return self.jobs.submit("test.work", params, principal=principal, idempotency_key=None, max_attempts=20)

    def empty_the_broker(self) -> None:
        if self.platform.broker_url.startswith("redis"):
            with redis.Redis.from_url(self.platform.broker_url) as client:
                client.flushdb()
        else:
            for message in (self.platform.home / "broker" / "messages").glob("*.msg"):
                message.unlink(missing_ok=True)

    def effects(self) -> Counter[str]:
        with self.database.read() as session:
            return Counter(session.scalars(text("SELECT job_id FROM effects")))

    def count(self, status: str) -> int:
        with self.database.read() as session:
            query = text("SELECT count(*) FROM jobs WHERE status = :status")
            return int(session.execute(query, {"status": status}).scalar_one())

    def busy_children(self) -> set[int]:
        """Process ids of workers' children that hold a job and have made a step in it."""
        with self.database.read() as session:
            query = text("SELECT owner FROM jobs WHERE status = 'running' AND progress > 0 AND progress < 0.7")
            return {int(owner.split(":")[1]) for owner in session.scalars(query) if owner}

    def close(self) -> None:
        for process in self.workers:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.sweeper.stop()
        self.wakeups.close()
        self.database.close()


@pytest.fixture(params=["sqlite+folder", pytest.param("postgres+redis", marks=pytest.mark.distributed)])
def shape(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Shape]:
    home = tmp_path / "home"
    home.mkdir()
    if request.param == "sqlite+folder":
        shape = Shape(Platform(home=home))
    else:
        new_database: Callable[[], str] = request.getfixturevalue("new_postgres_database")
        broker_url = f"{redis_url}/{REDIS_DATABASE}"
        shape = Shape(Platform(home=home, database_url=new_database(), broker_url=broker_url))
        shape.empty_the_broker()
    shape.sweeper.start()
    try:
        yield shape
    finally:
        shape.close()


def wait_until(condition: Callable[[], object], shape: Shape) -> None:
    ends_s = time.monotonic() + AT_MOST_S
    while not condition():
        if time.monotonic() > ends_s:
            pytest.fail((shape.platform.home / "workers.log").read_text()[-4000:])
        threading.Event().wait(0.02)


def kill_a_busy_worker(shape: Shape, *, only_its_child: bool) -> bool:
    """-9 to a worker (or its child) that is in the middle of a job. False: no job is left to be hit."""
    hit: list[int] = []

    def try_once() -> bool:
        if shape.count("succeeded") >= JOBS:
            return True
        for process in shape.workers:
            if process.poll() is None:
                children = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
                busy = children & shape.busy_children()
                if busy:
                    victim = busy.pop() if only_its_child else process.pid
                    os.kill(victim, signal.SIGKILL)
                    hit.append(victim)
                    if not only_its_child:
                        process.wait()
                        shape.start_worker()  # as a supervisor would
                    return True
        return False

    wait_until(try_once, shape)
    return bool(hit)


def test_killed_workers_and_emptied_brokers_lose_no_job_and_double_none(
    shape: Shape, principal: Callable[..., Principal]
) -> None:
    kills = 0
    for _ in range(2):
        shape.start_worker()
    submitted = [shape.submit(principal("engineer"), steps=STEPS, step_s=0.1).id for _ in range(JOBS)]
    for round_number in range(KILLS):
        kills += kill_a_busy_worker(shape, only_its_child=round_number % 2 == 1)
        if round_number == KILLS // 2:
            shape.empty_the_broker()
    wait_until(lambda: shape.count("succeeded") == JOBS, shape)
    effects = shape.effects()
    found = [shape.jobs.events(job_id) for job_id in submitted]
    attempts = sum(job.attempt for job, _ in found if job)
    print(f"{JOBS} jobs, {kills} kills, {attempts} attempts, 0 lost, 0 doubled")  # noqa: T201 - the matrix's line
    assert kills == KILLS
    assert set(effects) == set(submitted), "lost"
    assert set(effects.values()) == {1}, "doubled"
    assert attempts > JOBS + KILLS // 2, "the kills hit nobody in the middle of a job"
    for job, events in found:
        assert job is not None
        assert [event.seq for event in events] == list(range(1, job.last_seq + 1))
        assert [event.data.get("status") for event in events].count("succeeded") == 1
    resumed = [
        event.data["message"]
        for _, events in found
        for event in events
        if event.kind == "line" and event.data["message"] != "starts at 0"
    ]
    assert resumed, "no attempt resumed from a checkpoint"
    assert not list(shape.platform.home.glob("jobs/job_*/attempt-*"))


def test_a_worker_that_is_told_to_stop_gives_its_job_to_the_next(
    shape: Shape, principal: Callable[..., Principal]
) -> None:
    first = shape.start_worker()
    wait_until(lambda: worker_ready.is_ready(shape.platform), shape)
    job = shape.submit(principal("engineer"), steps=60, step_s=0.05)
    wait_until(lambda: (now := shape.jobs.peek(job.id)) and now.progress > 0.1, shape)
    first.terminate()
    assert first.wait(AT_MOST_S) == 0
    assert not worker_ready.is_ready(shape.platform)
    given_back = shape.jobs.peek(job.id)
    assert given_back is not None
    assert (given_back.status, given_back.failures) == ("queued", 0)
    shape.start_worker()
    wait_until(lambda: shape.count("succeeded"), shape)
    lines = [e.data["message"] for e in shape.jobs.events(job.id)[1] if e.kind == "line"]
    assert lines[0] == "starts at 0"
    assert int(lines[-1].removeprefix("starts at ")) > 0
    assert shape.effects() == Counter([job.id])


def test_recipes_that_hang_are_ended_and_their_worker_goes_on(
    shape: Shape, principal: Callable[..., Principal]
) -> None:
    """One that does not listen is cancelled all the same; one that wedges the whole process is tried again."""
    who = principal("engineer")
    parent = shape.start_worker()
    deaf = shape.jobs.submit("test.deaf", {}, principal=who, idempotency_key=None)
    wait_until(lambda: list(shape.platform.home.glob(f"jobs/{deaf.id}/attempt-*/half-done")), shape)
    shape.jobs.cancel(deaf.id, principal=who)
    wait_until(lambda: shape.count("cancelled"), shape)
    wedged = shape.jobs.submit("test.wedged", {}, principal=who, idempotency_key=None)
    wait_until(lambda: shape.count("succeeded"), shape)
    assert parent.poll() is None
    assert not (shape.platform.home / "jobs" / deaf.id).exists()
    done = shape.jobs.peek(wedged.id)
    assert done is not None
    assert (done.attempt, done.failures) == (2, 1)
    assert "wedge_the_first_time" in (shape.platform.home / "workers.log").read_text()
