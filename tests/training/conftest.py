"""A runner in the test's own thread, and the table in which test recipes leave their effects."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.jobs import Job, Jobs
from genba_shared.principal import Principal
from genba_shared.settings import Platform
from genba_training.recipes import load
from genba_training.runner import Runner
from genba_training.settings import Settings

TEST_RECIPES = "recipes_for_tests:RECIPES"


def make_effects_table(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS effects (job_id VARCHAR(40) NOT NULL)"))


def effects(database: Database) -> list[str]:
    """Job ids in the order of their effects; a job that is in here twice was done twice."""
    with database.read() as session:
        return list(session.scalars(text("SELECT job_id FROM effects")))


@pytest.fixture(autouse=True)
def _recipes_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    importlib.invalidate_caches()
    sys.modules.pop("recipes_for_tests", None)


@pytest.fixture
def settings(platform: Platform) -> Settings:
    return Settings(
        platform=platform,
        recipes=("genba_training.builtin:RECIPES", TEST_RECIPES),
        heartbeat_s=0.02,
        stop_grace_s=30.0,  # a loaded machine is no recipe that does not stop
        drain_wait_s=0.0,
        sweep_s=0.05,
        event_poll_s=0.02,
    )


@pytest.fixture
def jobs(database: Database) -> Jobs:
    make_effects_table(database)
    return Jobs(database)


@pytest.fixture
def runner(jobs: Jobs, settings: Settings, tmp_path: Path) -> Runner:
    return Runner(
        jobs=jobs,
        recipes=load(settings.recipes),
        artifacts=Artifacts(str(tmp_path / "artifacts")),
        settings=settings,
        owner="worker-1",
        end=lambda: None,  # in a worker it ends the process, which here is pytest
    )


@pytest.fixture
def submit(jobs: Jobs, runner: Runner, principal: Callable[..., Principal]) -> Callable[..., Job]:
    """``submit("test.work", steps=3)``"""

    def submit(recipe: str, **params: object) -> Job:
        known = runner.recipes.by_name.get(recipe)
        return jobs.submit(
            recipe,
            params,
            principal=principal("engineer"),
            idempotency_key=None,
            max_attempts=known.max_attempts if known else 4,
        )

    return submit


@pytest.fixture
def another(runner: Runner) -> Callable[..., Runner]:
    """A second worker beside ``runner``: ``another(draining=…)``."""

    def build(**changes: object) -> Runner:
        return replace(runner, **{"owner": "worker-2", **changes})  # type: ignore[arg-type]

    return build
