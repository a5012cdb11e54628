"""Generated videos that several stories use."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.clips import film

from genba_sop.data import DemoSet, generate


@pytest.fixture(scope="session")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    """The PPE procedure with one gold, and a trainee's run with planted deviations."""
    return generate("ppe", tmp_path_factory.mktemp("ppe"), seed=3, golds=1, size=(320, 240), fps=15.0)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve small videos, each of other bytes."""
    folder = tmp_path_factory.mktemp("clips")
    return [film(folder / f"clip_{n}.mp4", seconds=2 + n / 8, seed=n) for n in range(12)]
