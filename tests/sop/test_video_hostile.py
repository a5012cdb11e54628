"""Files that nobody should trust: each gets a clear problem or a right answer, and the process that serves goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import structlog.testing
from tests.sop.hostile_videos import CORPUS, Case, Recording

from genba_shared.problems import Problem
from genba_sop.video import Extraction, extract


def outcome(path: Path) -> Extraction | Problem:
    try:
        return extract(path)
    except Problem as problem:
        return problem


@pytest.mark.parametrize("container", ["mp4", "mpegts", "matroska", "avi"])
def test_a_file_with_bytes_changed_at_random_never_breaks_the_decoder(container: str, tmp_path: Path) -> None:
    path = tmp_path / "upload.mp4"
    Recording(container, codec="mpeg4" if container == "avi" else "libx264").write(path)
    whole, rng = path.read_bytes(), np.random.default_rng(len(container))
    with structlog.testing.capture_logs() as logs:
        for _ in range(8):
            spoilt = np.frombuffer(whole, np.uint8).copy()
            places = rng.integers(8, rng.choice([1500, len(spoilt)]), rng.integers(1, 40))
            spoilt[places] = rng.integers(0, 256, len(places))
            path.write_bytes(spoilt.tobytes())
            outcome(path)
    assert [log for log in logs if log["event"] == "decoder_died"] == []


@pytest.mark.parametrize("case", CORPUS, ids=str)
def test_a_file_gets_a_clear_problem_or_a_right_answer(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "upload.mp4"
    case.build(path)
    got = outcome(path)
    if isinstance(got, Problem):
        assert isinstance(got, case.refused), f"{got.code}: {got.detail}"
        assert 400 <= got.status < 500
        assert case.says in got.detail
        assert str(tmp_path) not in got.detail
    else:
        assert case.answered is not None, f"answered, but should be refused: {got.info}"
        assert case.answered(got), f"{got.info}, {len(got.features.times_s)} frames"
