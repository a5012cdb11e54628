"""The distributed shape: gateway, services and worker as processes of their own, over real Postgres and Redis.

The same story as embedded mode, then what only this shape can show: Prometheus asking every process, a worker killed in the
middle of a job, a service that dies behind the gateway, and one of two instances restarted at a time without a lost request.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
import yaml
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import make_url
from tests.deploy.promql import RULES
from tests.deploy.test_observability import queries
from tests.e2e.clips import film
from tests.e2e.world import (
    START_WITHIN_S,
    Process,
    User,
    free_port,
    fresh_key,
    problem,
    started,
    until,
    user,
)

from genba_gateway.keys import Keys
from genba_shared.db import Database

pytestmark = [pytest.mark.distributed, pytest.mark.xdist_group("processes"), pytest.mark.long]

REDIS_DATABASE = 13
LOADERS = 2
RECIPES = ("genba_training.builtin:RECIPES", "genba_sop.training:RECIPES")
# What may be empty in a new, quiet system without a GPU, a training job and the other services: errors, backups, GPUs,
# running jobs, theirs.
MAY_BE_EMPTY = re.compile(
    r"5\.\.|last_backup|gateway_errors|_gpu_|running_(progress|value)|model=~.llm|genba_(recommend|llm|sem)|service=\"(recommend|llm|sem)\""
)
STEPS = [{"id": "red", "name": {"en": "Red", "ja": "赤"}}, {"id": "blue", "critical": True}]
SPANS = [{"id": "red", "start_s": 0, "end_s": 1}, {"id": "blue", "start_s": 1, "end_s": 2}]


@dataclass
class Instance:
    """One process that can be ended and started again at the same address."""

    service: str
    port: int
    log_file: Path
    settings: Mapping[str, str]
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        arguments = ("run", self.service, *(() if self.service == "worker" else ("--port", str(self.port))))
        self.process = self.stack.enter_context(started(*arguments, log_file=self.log_file, settings=self.settings))

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.popen.poll() is None, self.process.log[-4000:]
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/ready", trust_env=False, timeout=5).status_code == 200
        return False

    def has_read_procedures(self) -> bool:
        """Whether requests for a procedure have reached this process since it started."""
        seen = httpx.get(f"{self.url}/metrics", trust_env=False, timeout=60).text
        return 'route="/v1/sop/procedures/{procedure_id}"' in seen

    def figure(self, name: str) -> float:
        """The sum of a metric over its labels; 0 while it has no samples."""
        seen = httpx.get(f"{self.url}/metrics", trust_env=False, timeout=60).text
        found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", seen, flags=re.MULTILINE)
        return sum(map(float, found))

    def wait(self) -> None:
        until(self.is_ready, within_s=START_WITHIN_S, what=f"{self.service} becoming ready")

    def stop(self) -> int:
        """Drain; the exit code."""
        assert self.process is not None
        code = self.process.terminate()
        assert self.process.left_behind() == []
        self.stack.close()
        return code

    def kill(self) -> None:
        """``kill -9``, with whatever it had started."""
        assert self.process is not None
        self.process.note_family()
        psutil.Process(self.process.popen.pid).kill()
        self.stack.close()


@dataclass
class Shape:
    """The processes, and an admin's key."""

    gateway: Instance
    sop: tuple[Instance, Instance]
    training: Instance
    workers: tuple[Instance, Instance]
    key: str

    @property
    def instances(self) -> tuple[Instance, ...]:
        return (*self.sop, self.training, *self.workers, self.gateway)


@pytest.fixture(scope="module")
def database_url(postgres_server_url: str) -> Iterator[str]:
    server, name = make_url(postgres_server_url), f"genba_test_{secrets.token_hex(6)}"
    engine = create_engine(server.set(database="postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="module")
def redis_database(redis_url: str) -> Iterator[str]:
    url = f"{redis_url}/{REDIS_DATABASE}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture(scope="module")
def shape(database_url: str, redis_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shape]:
    folder = tmp_path_factory.mktemp("processes")
    secret = folder / "principal.secret"
    secret.write_text(secrets.token_hex(32))
    common = {
        "GENBA_DATABASE_URL": database_url,
        "GENBA_BROKER_URL": redis_database,
        "GENBA_ARTIFACTS_URL": str(folder / "artifacts"),
        "GENBA_PRINCIPAL_SECRET_FILE": str(secret),
        "GENBA_TRAINING_LEASE_S": "3",
        "GENBA_TRAINING_HEARTBEAT_S": "0.2",
        "GENBA_TRAINING_WORK_DIR": str(folder / "jobs"),
        "GENBA_TRAINING_RECIPES": json.dumps([*RECIPES, "recipes_for_tests:RECIPES"]),
        "PYTHONPATH": str(Path(__file__).parents[1] / "training"),
    }

    def instance(service: str, name: str, **settings: str) -> Instance:
        port = free_port()
        own = {"GENBA_HOME": str(folder / name)}  # each has its own disk, as containers have
        if service == "worker":
            own["GENBA_TRAINING_OPERATIONS_PORT"] = str(port)
        return Instance(service, port, folder / f"{name}.log", {**common, **own, **settings})

    sop = (instance("sop", "sop-1"), instance("sop", "sop-2"))
    training = instance("training", "training")
    workers = (instance("worker", "worker-1"), instance("worker", "worker-2"))
    upstreams = {"sop": [each.url for each in sop], "training": [training.url]}
    gateway = instance(
        "gateway",
        "gateway",
        GENBA_GATEWAY_UPSTREAMS=json.dumps(upstreams),
        GENBA_GATEWAY_RATE_PER_MINUTE="1000000",
        GENBA_GATEWAY_RATE_BURST="100000",
        GENBA_REDIS_URL=redis_database,
    )
    database = Database(database_url)
    database.upgrade()
    with database.transaction() as session:
        session.execute(text("CREATE TABLE effects (job_id VARCHAR(40) NOT NULL)"))  # of recipes_for_tests
    key = Keys(database, env="dev").create("admin", role="admin", clearance="secret")[1]
    database.close()
    made = Shape(gateway, sop, training, workers, key)
    try:
        for each in made.instances:
            each.start()
        for each in made.instances:
            each.wait()
        yield made
    finally:
        for each in made.instances:
            each.stack.close()


@pytest.fixture(scope="module")
def admin(shape: Shape) -> Iterator[User]:
    with user(shape.gateway.url, shape.key) as somebody:
        yield somebody


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [film(folder / f"clip_{n}.mp4", seconds=2 + n / 8, seed=100 + n) for n in range(4)]


@pytest.fixture(scope="module")
def procedure_id(admin: User, clips: list[Path]) -> str:
    golds = [{"video": admin.video(clips[0]), "steps": SPANS}]
    answer = admin.post("/v1/sop/procedures", {"title": {"en": "Blocks"}, "steps": STEPS, "golds": golds})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_the_main_job_works_across_processes(admin: User, procedure_id: str, clips: list[Path]) -> None:
    video, key = admin.video(clips[1]), fresh_key()
    made = admin.evaluate(procedure_id, video, key=key)
    assert made.status_code == 201, made.text
    again = admin.evaluate(procedure_id, video, key=key)  # perhaps at the other instance: the key is in the database
    assert (again.status_code, again.json()["id"]) == (201, made.json()["id"])
    for form, begins in (("html", b"<!doctype html>"), ("json", b"{"), ("pdf", b"%PDF-")):
        assert admin.get(f"/v1/sop/evaluations/{made.json()['id']}/report.{form}").content.startswith(begins)
    part = admin.get(f"/v1/sop/videos/{video}/content", headers={"range": "bytes=4-11"})
    assert (part.status_code, part.content) == (206, clips[1].read_bytes()[4:12])


def test_a_batch_is_done_by_the_worker(admin: User, procedure_id: str, clips: list[Path]) -> None:
    videos = [admin.video(clip) for clip in clips[2:]]
    body = {"procedure_id": procedure_id, "videos": [{"video_id": video} for video in videos]}
    job = admin.done(admin.post("/v1/sop/evaluations/batch", body, key=fresh_key()).json()["id"])
    assert job["status"] == "succeeded", job
    assert [len(admin.listed("/v1/sop/evaluations", video_id=video)) for video in videos] == [1, 1]


def test_one_document_describes_every_process(admin: User) -> None:
    paths = admin.get("/v1/openapi.json").json()["paths"]
    assert {"/v1/sop/evaluations", "/v1/jobs", "/v1/keys"} <= paths.keys()


def prometheus_over(shape: Shape, folder: Path) -> Path:
    """deploy/prometheus/prometheus.yml with these processes' addresses in place of names that containers would have."""
    document = yaml.safe_load(RULES[0].parents[1].joinpath("prometheus.yml").read_text(encoding="utf-8"))
    genba = document["scrape_configs"][0]
    del genba["dns_sd_configs"], genba["relabel_configs"]
    genba["static_configs"] = [
        {"targets": [each.url.removeprefix("http://")], "labels": {"process": each.service}} for each in shape.instances
    ]
    document["scrape_configs"] = [genba]
    document["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    document["rule_files"] = [str(path) for path in RULES]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def prometheus(shape: Shape, promtool: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A real Prometheus that asks every process of the shape."""
    address = f"127.0.0.1:{free_port()}"
    argv = (
        str(Path(promtool).with_name("prometheus")),
        f"--config.file={prometheus_over(shape, tmp_path)}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address={address}",
    )
    with (tmp_path / "prometheus.log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            with httpx.Client(base_url=f"http://{address}/api/v1", trust_env=False, timeout=10) as client:
                yield client
        finally:
            process.kill()


def asked(prometheus: httpx.Client, path: str, **params: str) -> Any:
    """The data of an answer; empty while nobody answers."""
    with contextlib.suppress(httpx.TransportError):
        answer = prometheus.get(path, params=params)
        return answer.json()["data"] if answer.status_code == 200 else {}
    return {}


def test_prometheus_reaches_every_process_and_every_panel_has_an_answer(
    shape: Shape, admin: User, prometheus: httpx.Client, promtool: str
) -> None:
    for instance in shape.instances:
        exposition = httpx.get(f"{instance.url}/metrics", trust_env=False).text
        subprocess.run([promtool, "check", "metrics"], input=exposition, text=True, check=True)
    every = [{"process": each.service, "health": "up"} for each in shape.instances]

    def reached() -> list[dict[str, str]]:
        targets = asked(prometheus, "targets").get("activeTargets", [])
        return [{"process": each["labels"]["process"], "health": each["health"]} for each in targets]

    def by_process(found: list[dict[str, str]]) -> list[str]:
        return sorted(map(str, found))

    until(lambda: by_process(reached()) == by_process(every), what="every process being scraped")
    admin.get("/v1/jobs")  # something that grows between two scrapes
    wanted = {
        name: expression.replace("$__rate_interval", "1m")
        for name, expression in queries().items()
        if not MAY_BE_EMPTY.search(expression)
    }

    def empty() -> list[str]:
        return [
            name
            for name, expression in wanted.items()
            if not asked(prometheus, "query", query=expression).get("result")
        ]

    with contextlib.suppress(AssertionError):
        until(lambda: not empty(), within_s=120)
    assert empty() == []
    health = {rule["name"]: rule["health"] for group in asked(prometheus, "rules")["groups"] for rule in group["rules"]}
    assert set(health.values()) == {"ok"}, health


def test_a_worker_that_is_killed_leaves_its_job_to_the_other(shape: Shape, admin: User) -> None:
    submitted = admin.post(
        "/v1/jobs", {"recipe": "test.work", "params": {"steps": 80, "step_s": 0.05}}, key=fresh_key()
    )
    job_id = submitted.json()["id"]
    until(lambda: admin.job(job_id).get("progress", 0) > 0.1, what="the job being under way")
    busy = until(
        lambda: [each for each in shape.workers if each.figure("genba_worker_busy_slots") == 1], what="a busy worker"
    )
    assert len(busy) == 1
    busy[0].kill()
    job = admin.done(job_id)
    assert (job["status"], job["result"]["value"]["done"]) == ("succeeded", 80)
    with httpx.Client(base_url=shape.gateway.url, headers={"authorization": f"Bearer {shape.key}"}) as client:
        events = client.get(f"/v1/jobs/{job_id}/events").text
    starts = [int(number) for number in re.findall(r"starts at (\d+)", events)]
    assert starts[0] == 0
    assert starts[-1] > 0, "it went on from its checkpoint"
    assert shape.training.figure("genba_training_leases_expired_total") >= 1
    busy[0].start()
    busy[0].wait()


def test_nobody_gets_to_a_service_past_the_gateway(shape: Shape) -> None:
    for instance in (shape.sop[0], shape.training):
        path = "/v1/jobs" if instance.service == "training" else "/v1/sop/videos"
        with user(instance.url, shape.key) as intruder:
            problem(intruder.get(path), 401)


def test_one_instance_after_the_other_restarts_without_a_lost_request(
    shape: Shape, admin: User, procedure_id: str
) -> None:
    answers: Counter[int | str] = Counter()
    over = threading.Event()

    def load() -> None:
        with user(shape.gateway.url, shape.key) as somebody:
            while not over.wait(0.005):  # a request at a time: what is asked is whether one is lost, not how many fit
                try:
                    answers[somebody.get(f"/v1/sop/procedures/{procedure_id}").status_code] += 1
                except httpx.HTTPError as error:
                    answers[repr(error)] += 1

    loaders = [threading.Thread(target=load) for _ in range(LOADERS)]
    for loader in loaders:
        loader.start()
    try:
        for instance in shape.sop:
            seen = answers.total()
            assert instance.stop() == 0
            until(lambda seen=seen: answers.total() > seen + 50, what="answers from the other instance")  # type: ignore[misc]
            instance.start()
            instance.wait()
            until(instance.has_read_procedures, what="the restarted instance taking its share again")
    finally:
        over.set()
        for loader in loaders:
            loader.join()
    assert set(answers) == {200}, answers


def test_a_service_that_is_gone_is_a_problem_and_its_return_is_noticed(
    shape: Shape, admin: User, procedure_id: str
) -> None:
    for instance in shape.sop:
        instance.kill()
    for _ in range(8):
        answer = admin.get(f"/v1/sop/procedures/{procedure_id}")
        assert answer.status_code in {502, 503}
        problem(answer, answer.status_code)
    assert admin.get("/v1/jobs").status_code == 200  # the others do not suffer
    until(lambda: admin.get("/ready").status_code == 503, what="the gateway saying that it is not ready")
    for instance in shape.sop:
        instance.start()
    for instance in shape.sop:
        instance.wait()
    until(lambda: admin.get(f"/v1/sop/procedures/{procedure_id}").status_code == 200, within_s=60, what="the recovery")


def test_every_process_drains_and_leaves_nothing_behind(shape: Shape) -> None:
    assert [(each.service, each.stop()) for each in reversed(shape.instances)] == [
        (each.service, 0) for each in reversed(shape.instances)
    ]
