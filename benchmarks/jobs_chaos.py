"""The kill -9 matrix of jobs, with counted losses: workers, brokers, databases and the API process die while jobs run.

Protocol. A real deployment in processes of its own: the API process (`genba run embedded`: gateway and job service),
workers with two children each, a broker and a database. Eight clients submit the jobs through the gateway with a key of
their own each, by `genba_gateway.client`, while the kills go on and no faster than these. Each job is eight steps of
0.1 s with a checkpoint after each, and one row in a table without any constraint when it is done: a job that is missing
there was lost, one that is there twice was doubled. Kills are spread evenly over the jobs by progress and not by the
clock; a worker kill hits a process that holds a running job (in turn the worker, whose children are orphaned, and one of
its children).

* `sqlite`: SQLite and the folder broker. That broker has no process, so "killing" it is deleting every message in its
  folder. That database has no server, so in its place the API process is killed, which also is its sweeper.
* `postgres`: Postgres and Redis, both started here on ports of their own. Redis keeps nothing on disk, so its -9 loses
  every message; Postgres is killed at its postmaster, with its default durability. The API process is killed as well.

Recovery: from a worker's kill until a job that it held is claimed again (lease 5 s), and from a broker's, database's or
API process's kill until the next job is claimed. At the end 1,000 requests at once submit with one Idempotency-Key.
Peer: `python -m benchmarks.plain_celery`, run by `make bench-jobs-chaos` after this. Exit 1 if a job is lost or doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import orjson
from benchmarks.chaos_world import Program, free_port, postgres_server, redis_server, running
from sqlalchemy import select, text

from genba_gateway.client import Client
from genba_gateway.keys import Keys
from genba_shared.db import Database
from genba_shared.job_rows import JobEventRow, JobRow
from genba_shared.settings import Platform

LEASE_S = 5.0
SUBMITTERS = 8
BROKEN_AFTER_S = 2400.0


@dataclass
class Deployment:
    """What runs, and how to look at it past the API: the table is the truth."""

    shape: str
    home: Path
    platform: Platform
    api: Program
    workers: list[Program]
    broker: Program | None
    postgres: Program | None
    url: str
    key: str = ""
    emptied: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = Database(self.platform.database_url)

    def kill_broker(self) -> bool:
        if self.broker is not None:
            return self.broker.kill()
        shutil.rmtree(self.home / "broker" / "messages", ignore_errors=True)
        self.emptied.append(time.time())
        return True

    def count(self, what: str) -> int:
        with self.database.read() as session:
            return int(session.execute(text(f"SELECT count(*) FROM {what}")).scalar_one())  # noqa: S608 - constants

    def owners(self) -> set[int]:
        """Processes that hold a running job which has made a step."""
        query = select(JobRow.owner).where(JobRow.status == "running", JobRow.progress > 0, JobRow.progress < 1)
        with self.database.read() as session:
            return {int(owner.split(":")[1]) for owner in session.scalars(query) if owner}


@contextmanager
def deployed(shape: str, *, workers: int) -> Iterator[Deployment]:
    with tempfile.TemporaryDirectory(prefix="genba-chaos-") as name:
        folder = Path(name)
        home = folder / "home"
        home.mkdir()
        redis, redis_url = redis_server(folder) if shape == "postgres" else (None, "")
        postgres, postgres_url = postgres_server(folder) if shape == "postgres" else (None, "")
        servers = [each for each in (redis, postgres) if each is not None]
        platform = Platform(home=home)
        if servers:
            platform = Platform(home=home, database_url=postgres_url, broker_url=redis_url)
        with running(*servers):
            key = _prepare(platform)
            port = free_port()
            api = Program(
                "api",
                [sys.executable, "-m", "genba_gateway", "run", "embedded", "--port", str(port)],
                folder / "api.log",
                env=_environment(platform),
                answers=lambda: _is_ready(port),
            )
            argv = [sys.executable, "-m", "genba_training.worker", "--queues", "cpu", "--concurrency", "2"]
            made = [
                Program(f"worker-{n}", argv, folder / "workers.log", env=_environment(platform)) for n in range(workers)
            ]
            with running(api, *made):
                url = f"http://127.0.0.1:{port}"
                deployment = Deployment(shape, home, platform, api, made, redis, postgres, url, key)
                try:
                    yield deployment
                finally:
                    deployment.database.close()


def _prepare(platform: Platform) -> str:
    database = Database(platform.database_url)
    try:
        database.upgrade()
        with database.transaction() as session:
            session.execute(text("CREATE TABLE effects (number INTEGER NOT NULL)"))
        return Keys(database, env="dev").create("chaos", role="admin")[1]
    finally:
        database.close()


def _environment(platform: Platform) -> dict[str, str]:
    return {
        "GENBA_HOME": str(platform.home),
        "GENBA_DATABASE_URL": platform.database_url,
        "GENBA_BROKER_URL": platform.broker_url,
        "GENBA_LOG_LEVEL": "error",
        "GENBA_GATEWAY_RATE_PER_MINUTE": "1000000",
        "GENBA_GATEWAY_RATE_BURST": "100000",
        "GENBA_GATEWAY_MAX_CONCURRENCY_PER_CALLER": "2000",
        "GENBA_TRAINING_RECIPES": '["chaos_recipes:RECIPES"]',
        "GENBA_TRAINING_MAX_ACTIVE_JOBS": "100000",
        "GENBA_TRAINING_LEASE_S": str(LEASE_S),
        "GENBA_TRAINING_HEARTBEAT_S": "0.1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def _is_ready(port: int) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/ready", trust_env=False, timeout=2).status_code == 200
    return False


# ---- the plan and who submits ----


@dataclass
class Plan:
    """How often each part dies; a part's next kill is due when its share of the jobs is done."""

    jobs: int
    kills: dict[str, int]
    done: Counter[str] = field(default_factory=Counter)

    def due(self, effects: int) -> list[str]:
        share = effects / self.jobs
        return [part for part, n in self.kills.items() if self.done[part] < n and share >= self._at(part) / n]

    def share_killed(self) -> float:
        return self.done["worker"] / max(self.kills["worker"], 1)

    def _at(self, part: str) -> float:
        """Parts do not die at the same moment, so that each one's recovery can be told."""
        return self.done[part] + {"worker": 0.0, "broker": 0.4, "database": 0.7}.get(part, 0.2)


class Submitting(threading.Thread):
    """Eight clients that submit while everything dies; ``acknowledged`` maps a job's number to the id that came back."""

    def __init__(self, deployment: Deployment, plan: Plan) -> None:
        super().__init__(daemon=True)
        self._deployment, self._plan = deployment, plan
        self.acknowledged: dict[int, str] = {}

    def run(self) -> None:
        with ThreadPoolExecutor(SUBMITTERS) as pool:
            list(pool.map(self._share, range(SUBMITTERS)))

    def _share(self, which: int) -> None:
        """A share of the jobs, never more than three tenths ahead of the kills: so there is a queue at every kill."""
        with Client(self._deployment.url, self._deployment.key, retry_within_s=BROKEN_AFTER_S) as client:
            for number in range(which, self._plan.jobs, SUBMITTERS):
                while number / self._plan.jobs > self._plan.share_killed() + 0.3:
                    time.sleep(0.1)
                job = client.jobs.submit("chaos.work", {"number": number}, idempotency_key=f"chaos-{number}")
                self.acknowledged[number] = job.id


# ---- killing ----


def kill(deployment: Deployment, part: str, turn: int) -> bool:
    """One -9. False: nothing could be hit now."""
    match part:
        case "worker":
            return kill_a_busy_worker(deployment, turn)
        case "broker":
            return deployment.kill_broker()
        case "database":
            return deployment.postgres is not None and deployment.postgres.kill()
        case _:
            return deployment.api.kill()


def kill_a_busy_worker(deployment: Deployment, turn: int) -> bool:
    busy = deployment.owners()
    count = len(deployment.workers)
    for worker in (deployment.workers[(turn + n) % count] for n in range(count)):
        if hit := worker.children() & busy:
            return worker.kill(None if turn % 2 else min(hit))
    return False


def chaos(deployment: Deployment, plan: Plan) -> None:
    """Kill by the plan until every job is done."""
    ends_s, seen = time.monotonic() + BROKEN_AFTER_S, 0
    while seen < plan.jobs or plan.due(seen):
        if time.monotonic() > ends_s:
            print(f"gave up: {seen} of {plan.jobs} jobs are done")
            return
        time.sleep(0.05)
        try:
            seen = deployment.count("effects")
            for part in plan.due(seen):
                if part == "worker" and seen >= plan.jobs:
                    plan.kills["worker"] = plan.done["worker"]  # nobody is busy any more
                elif kill(deployment, part, plan.done[part]):
                    plan.done[part] += 1
        except Exception:  # noqa: BLE001, S112 - the database is down, because it was killed
            continue


# ---- counting ----


@dataclass(frozen=True)
class Count:
    """What became of the jobs."""

    jobs: int
    acknowledged: int
    lost: int
    doubled: int
    attempts: int
    resumed: int
    kills: dict[str, int]
    recovery_s: dict[str, list[float]]
    took_s: float
    with_one_key: int


def count(deployment: Deployment, submitting: Submitting, plan: Plan, took_s: float, with_one_key: int) -> Count:
    with deployment.database.read() as session:
        effects = Counter(session.scalars(text("SELECT number FROM effects")))
        rows = list(session.scalars(select(JobRow).where(JobRow.recipe == "chaos.work")))
        claims = [
            (row.job_id, row.attempt, row.at.timestamp())
            for row in session.scalars(select(JobEventRow).where(JobEventRow.kind == "status"))
            if row.data.get("status") == "running" and not row.data.get("cancel_requested")
        ]
    unfinished = [row for row in rows if row.status != "succeeded" and row.params["number"] < plan.jobs]
    lost = [number for number in range(plan.jobs) if effects[number] == 0]
    return Count(
        jobs=plan.jobs,
        acknowledged=len(submitting.acknowledged),
        lost=max(len(lost), len(unfinished)),
        doubled=sum(times - 1 for times in effects.values() if times > 1),
        attempts=sum(row.attempt for row in rows),
        resumed=sum(1 for row in rows if (row.result or {}).get("value", {}).get("resumed", 0) > 0),
        kills=dict(plan.done),
        recovery_s=recovery(deployment, claims),
        took_s=took_s,
        with_one_key=with_one_key,
    )


def recovery(deployment: Deployment, claims: list[tuple[str, int, float]]) -> dict[str, list[float]]:
    """Seconds by part. ``claims`` are (job, attempt, when), of attempts that were started."""
    moments = sorted(when for _, _, when in claims)
    by_attempt = {(job, attempt): when for job, attempt, when in claims}
    found: dict[str, list[float]] = {"worker": []}
    kills = sorted(moment for worker in deployment.workers for moment in worker.kills)
    for (job, attempt), when in by_attempt.items():
        if attempt > 1:
            before = [moment for moment in kills if by_attempt.get((job, attempt - 1), when) <= moment <= when]
            if before:
                found["worker"].append(when - before[-1])
    broker = deployment.broker.kills if deployment.broker else deployment.emptied
    database = deployment.postgres.kills if deployment.postgres else []
    for part, killed in (("broker", broker), ("database", database), ("api", deployment.api.kills)):
        later = [(moment, [each for each in moments if each > moment]) for moment in killed]
        found[part] = [after[0] - moment for moment, after in later if after]
    return found


async def one_key(deployment: Deployment, requests: int) -> int:
    """How many jobs ``requests`` simultaneous submissions with one Idempotency-Key make, each on a connection of its own.

    Plain sockets: a client's pool of a thousand connections would be what is measured.
    """
    body = orjson.dumps({"recipe": "chaos.work", "params": {"number": 10**6, "steps": 1}})
    head = (
        "POST /v1/jobs HTTP/1.1\r\nhost: genba\r\nconnection: close\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {deployment.key}\r\nidempotency-key: one-for-all\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    port = int(deployment.url.rpartition(":")[2])

    async def submit() -> str:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head.encode() + body)
                answer, _, document = (await reader.read()).partition(b"\r\n\r\n")
                writer.close()
                status = int(answer.split()[1]) if answer else 503
                if status == 202:
                    return str(orjson.loads(document)["id"])
                assert status in {409, 429, 503}, document
            await asyncio.sleep(random.uniform(0.2, 2.0))

    ids = await asyncio.gather(*(submit() for _ in range(requests)))
    assert len(ids) == requests
    return len(set(ids))


# ---- telling ----


def table(shape: str, counted: Count) -> str:
    kills = counted.kills
    names = {"worker": "worker", "broker": "broker", "database": "database", "api": "API process"}
    ran = f"{counted.jobs} jobs in {counted.took_s:.0f} s, {counted.acknowledged} acknowledged"
    went = f"{counted.attempts} attempts, {counted.resumed} finished from a checkpoint"
    one = f"1,000 submissions at once with one key: {counted.with_one_key} job"
    lines = [f"\n{shape}: {ran}, {went}", f"lost {counted.lost}, doubled {counted.doubled}; {one}"]
    lines += ["| kill -9 of | times | recovery p50 | longest |", "|---|---|---|---|"]
    for part, label in names.items():
        if kills.get(part):
            seconds = counted.recovery_s.get(part) or [float("nan")]
            lines.append(f"| {label} | {kills[part]} | {np.median(seconds):.1f} s | {max(seconds):.1f} s |")
    return "\n".join(lines)


def run(shape: str, options: argparse.Namespace) -> Count:
    kills = {"worker": options.worker_kills, "broker": options.broker_kills, "api": options.api_kills}
    if shape == "postgres":
        kills["database"] = options.database_kills
    plan = Plan(options.jobs, kills)
    with deployed(shape, workers=options.workers) as deployment:
        started_s = time.monotonic()
        submitting = Submitting(deployment, plan)
        submitting.start()
        chaos(deployment, plan)
        submitting.join()
        took_s = time.monotonic() - started_s
        deployment.api.wait()
        with_one_key = asyncio.run(one_key(deployment, 1000))
        return count(deployment, submitting, plan, took_s, with_one_key)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started here is stopped
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2, help="worker processes, two children each")
    parser.add_argument("--worker-kills", type=int, default=50)
    parser.add_argument("--broker-kills", type=int, default=10)
    parser.add_argument("--database-kills", type=int, default=5)
    parser.add_argument("--api-kills", type=int, default=5)
    options = parser.parse_args()
    shapes = ("sqlite", "postgres") if options.shape == "both" else (options.shape,)
    good = True
    for shape in shapes:
        counted = run(shape, options)
        print(table(shape, counted), flush=True)
        good &= (counted.lost, counted.doubled, counted.with_one_key) == (0, 0, 1)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
