"""What several stories use: generated videos, and an embedded mode whose worker knows the tests' recipes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.e2e.clips import film
from tests.e2e.world import Genba, up

from genba_shared.db import Database
from genba_shared.settings import Platform
from genba_sop.data import DemoSet, generate

WITH_TEST_RECIPES = {
    "GENBA_LOG_FORMAT": "json",
    "GENBA_TRAINING_RECIPES": '["genba_training.builtin:RECIPES", "recipes_for_tests:RECIPES"]',
    "GENBA_TRAINING_LEASE_S": "2",
    "GENBA_TRAINING_HEARTBEAT_S": "0.1",
    "GENBA_TRAINING_STOP_GRACE_S": "0.5",
    "GENBA_TRAINING_EVENT_POLL_S": "0.05",
    "PYTHONPATH": str(Path(__file__).parents[1] / "training"),
}


@pytest.fixture(scope="session")
def genba_with_test_recipes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Genba]:
    """One for all modules of the group ``jobs-cli``: a start costs seconds."""
    with up(tmp_path_factory.mktemp("jobs") / "home", settings=WITH_TEST_RECIPES) as running:
        database = Database(Platform(home=running.home).database_url)
        with database.transaction() as session:
            session.execute(text("CREATE TABLE effects (job_id VARCHAR(40) NOT NULL)"))
        database.close()
        yield running


@pytest.fixture(scope="session")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    """The PPE procedure with one gold, and a trainee's run with planted deviations."""
    return generate("ppe", tmp_path_factory.mktemp("ppe"), seed=3, golds=1, size=(320, 240), fps=15.0)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve small videos, each of other bytes."""
    folder = tmp_path_factory.mktemp("clips")
    return [film(folder / f"clip_{n}.mp4", seconds=2 + n / 8, seed=n) for n in range(12)]
