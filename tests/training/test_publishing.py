"""A job that trains: its version appears with its success or not at all, and serves only if it may."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from genba_shared.db import Database
from genba_shared.job_rows import JobRow
from genba_shared.jobs import Job, Jobs
from genba_shared.principal import Clearance, Principal
from genba_shared.recipe import Gate, Params, Recipe, Registration, Result, Run
from genba_shared.registry import Registry
from genba_training.runner import Runner

MODEL = "test.toy"
Train = Callable[..., str]


@pytest.fixture
def registry(runner: Runner) -> Registry:
    return runner.registry


@pytest.fixture
def start(jobs: Jobs, principal: Callable[..., Principal]) -> Callable[..., Job]:
    """``start("operator")``: a training job of somebody with that role."""

    def start(role: str = "engineer", **fields: Any) -> Job:
        return jobs.submit("test.train", {}, principal=principal(role, **fields), idempotency_key=None)

    return start


@pytest.fixture
def train(runner: Runner, start: Callable[..., Job], jobs: Jobs) -> Train:
    """``train(ndcg=0.4, before_end=…)``: run a job that registers a model; its outcome."""

    def train(*, role: str = "engineer", fields: Any = None, **trained: Any) -> str:
        return with_training(runner, **trained).run(start(role, **(fields or {})).id)

    return train


def with_training(runner: Runner, *, before_end: Callable[[Run], object] = lambda _run: None, **trained: Any) -> Runner:
    """A runner that knows ``test.train``, which calls ``before_end`` when its model is done."""

    def run(_: Any, run: Run) -> Result:
        registration = toy(run, **trained)
        before_end(run)
        return Result(value={"trained": True}, register=registration)

    recipe: Recipe[Any] = Recipe("test.train", Params, run)
    return replace(runner, recipes=replace(runner.recipes, by_name={recipe.name: recipe}))


def toy(run: Run, *, ndcg: float = 0.4, manifest: Any = None, **fields: Any) -> Registration:
    """A bundle in the attempt's folder, with the champion's metrics as its bundle remembers them."""
    champion = run.champion(MODEL)
    theirs = None if champion is None else json.loads((champion.folder / "bundle.json").read_text())["metrics"]
    bundle = run.workdir / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text(json.dumps(manifest or {"metrics": {"ndcg": ndcg}, "code_commit": "abc"}))
    (bundle / "towers.safetensors").write_bytes(f"weights of {ndcg}".encode())
    return Registration(MODEL, bundle, {"ndcg": ndcg}, data_hash="d1", champion_metrics=theirs, **fields)


def registered(jobs: Jobs) -> Any:
    """What the newest job's result says of its version."""
    with jobs.database.read() as session:
        row = session.query(JobRow).order_by(JobRow.id.desc()).first()
        assert row is not None
        return (row.result or {}).get("registered")


NOT_BELOW = (Gate("ndcg", not_below_champion_by=0.0),)


def test_a_trained_model_is_registered_and_promoted_with_its_job(
    train: Train, jobs: Jobs, registry: Registry, tmp_path: Path
) -> None:
    secret = {"clearance": Clearance.CONFIDENTIAL, "compartments": frozenset({"line_4"})}
    assert train(ndcg=0.4, fields=secret) == "succeeded"
    assert registered(jobs) == {"model": MODEL, "number": 1, "outcome": "promoted", "missed": []}
    version = registry.current(MODEL)
    assert version is not None
    assert (version.clearance, version.compartments) == (Clearance.CONFIDENTIAL, frozenset({"line_4"}))
    assert version.created_by == "key_test"
    assert version.lineage.job_id is not None
    assert version.lineage.job_id.startswith("job_")
    folder = registry.fetch(version, tmp_path / "cache")
    assert (folder / "towers.safetensors").read_bytes() == b"weights of 0.4"


def test_a_better_model_replaces_the_champion_and_a_worse_one_does_not(
    train: Train, jobs: Jobs, registry: Registry
) -> None:
    for ndcg in (0.4, 0.5, 0.3):
        assert train(ndcg=ndcg, gates=NOT_BELOW) == "succeeded"
    assert registered(jobs) == {
        "model": MODEL, "number": 3, "outcome": "gate_failed",
        "missed": ["ndcg is 0.3, needs 0.5 of version 2 less 0."],
    }  # fmt: skip
    assert registry.pointer(MODEL).number == 2
    assert registry.get(MODEL, 3).status == "gate_failed"
    assert [move.reason for move in registry.history(MODEL)] == ["passed 1 gates", "passed 1 gates"]


def test_a_champion_that_changed_during_training_is_not_replaced(train: Train, jobs: Jobs, registry: Registry) -> None:
    train(ndcg=0.4)
    train(ndcg=0.6, promote="never")

    def somebody_promotes(_run: Run) -> None:
        registry.promote(MODEL, 2, by="key_1", reason="a person's decision")

    assert train(ndcg=0.5, gates=NOT_BELOW, before_end=somebody_promotes) == "succeeded"
    assert registered(jobs)["outcome"] == "champion_changed"
    assert registry.pointer(MODEL).number == 2
    assert registry.get(MODEL, 3).lineage.parent == 1


def test_a_champion_is_asked_for_once_and_stays_what_it_was(train: Train, registry: Registry) -> None:
    seen = []

    def ask_again(run: Run) -> None:
        registry.promote(MODEL, 2, by="key_1", reason="meanwhile")
        seen.append(run.champion(MODEL))

    train(ndcg=0.4)
    train(ndcg=0.6, promote="never")
    train(before_end=ask_again)
    assert [champion and champion.number for champion in seen] == [1]


def test_a_submitter_without_the_right_to_promote_gets_a_version_only(
    train: Train, jobs: Jobs, registry: Registry
) -> None:
    train(role="operator")
    assert registered(jobs)["outcome"] == "not_allowed"
    assert registry.current(MODEL) is None
    assert registry.get(MODEL, 1).status == "registered"


def test_a_bundle_that_cannot_be_stored_fails_the_job_for_good(train: Train, jobs: Jobs, registry: Registry) -> None:
    def leave_a_pickle(run: Run) -> None:
        (run.workdir / "bundle" / "model.pkl").write_bytes(b"x")

    assert train(before_end=leave_a_pickle) == "failed"
    with jobs.database.read() as session:
        row = session.query(JobRow).one()
        assert row.error is not None
        assert row.error["type"] == "urn:genba:problem:bad-bundle"
    assert registry.models() == []


def test_a_fenced_attempt_publishes_nothing_and_leaves_bytes_only(
    train: Train, jobs: Jobs, registry: Registry, runner: Runner, tmp_path: Path
) -> None:
    def somebody_else_takes_the_job(run: Run) -> None:
        with jobs.database.transaction() as session:
            session.execute(update(JobRow).values(owner="worker-2", attempt=JobRow.attempt + 1))

    assert train(ndcg=0.4, before_end=somebody_else_takes_the_job) == "lost"
    assert registry.models() == []
    assert registry.current(MODEL) is None
    stored = [path.read_bytes() for path in (tmp_path / "artifacts" / "models").rglob("*.safetensors")]
    assert stored == [b"weights of 0.4"]
    assert not list(runner.settings.jobs_dir.glob("job_*/attempt-*"))
    with jobs.database.transaction() as session:  # the bytes are no obstacle to who does own it
        session.execute(update(JobRow).values(lease_expires_at=datetime.now(UTC) - timedelta(seconds=1)))
        job_id = session.query(JobRow).one().id
    assert with_training(runner, ndcg=0.4).run(job_id) == "succeeded"
    assert registered(jobs)["number"] == 1


def test_a_job_cancelled_at_its_last_moment_registers_nothing(
    train: Train, jobs: Jobs, registry: Registry, principal: Callable[..., Principal]
) -> None:
    assert train(before_end=lambda run: jobs.cancel(run.job_id, principal=principal("engineer"))) == "cancelled"
    assert registry.models() == []


def test_what_a_recipe_publishes_and_its_version_come_together(
    runner: Runner, start: Callable[..., Job], registry: Registry, jobs: Jobs
) -> None:
    def fail(_session: Any) -> None:
        raise RuntimeError("the domain's own row does not fit")

    def run(_: Any, run: Run) -> Result:
        return Result(register=toy(run), publish=fail if run.attempt == 1 else None)

    recipe: Recipe[Any] = Recipe("test.train", Params, run)
    local = replace(runner, recipes=replace(runner.recipes, by_name={recipe.name: recipe}))
    job = start()
    assert local.run(job.id) == "queued"
    assert registry.models() == []
    with jobs.database.transaction() as session:
        session.execute(update(JobRow).values(run_after=datetime.now(UTC) - timedelta(seconds=1)))
    assert local.run(job.id) == "succeeded"
    assert registered(jobs)["number"] == 1


DIES_WHILE_FINISHING = """
import os, signal, sys
from pathlib import Path
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.jobs import Jobs
from genba_shared.settings import Platform
from genba_training.recipes import Recipes
from genba_training.runner import Runner
from genba_training.settings import Settings
sys.path.insert(0, sys.argv[1])
from test_publishing import with_training

def die(*_args, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

Jobs.finish = die
url, home, artifacts, job_id = sys.argv[2:]
settings = Settings(platform=Platform(home=Path(home), database_url=url))
runner = Runner(
    jobs=Jobs(Database(url)), recipes=Recipes({}, {}), artifacts=Artifacts(artifacts), settings=settings, owner="worker-1"
)
with_training(runner).run(job_id)
"""


def test_a_worker_killed_between_storing_and_finishing_leaves_no_version(
    start: Callable[..., Job], runner: Runner, database: Database, jobs: Jobs, registry: Registry, tmp_path: Path
) -> None:
    job = start()
    url = database.url.render_as_string(hide_password=False)
    home, here = runner.settings.platform.home, Path(__file__).parent
    argv = [sys.executable, "-c", DIES_WHILE_FINISHING, *map(str, (here, url, home, tmp_path / "artifacts", job.id))]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    assert list((tmp_path / "artifacts" / "models").rglob("*.safetensors"))
    assert registry.models() == []
    with jobs.database.transaction() as session:
        session.execute(update(JobRow).values(lease_expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert with_training(runner).run(job.id) == "succeeded"
    assert registered(jobs) == {"model": MODEL, "number": 1, "outcome": "promoted", "missed": []}
