"""A step that takes as long as two is told from two that follow each other, on costs that say the truth plainly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from tests.sop.scoring_world import World

from genba_sop.alignment import dtw
from genba_sop.doubled import Two, doubled
from genba_sop.observation import GoldRun, replacing
from genba_sop.reference import fit
from genba_sop.rows import Rows
from genba_sop.scoring import evaluate
from genba_sop.segmentation import EXTRA, Run

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ROWS, STEPS = 20, 5
USUAL = dict.fromkeys(range(STEPS), float(ROWS))


def labels(*parts: tuple[int, int]) -> Ints:
    """(step, rows) one after the other."""
    return np.concatenate([np.full(rows, step, np.int64) for step, rows in parts])


def told(
    believed: Ints, progress: Floats, *, looks_like: dict[int, float] | None = None, still: slice = slice(0)
) -> tuple[Two, ...]:
    """What is found where a row costs as much as its progress is off, and so much more in another step that looks like it."""

    def price(run: Run, step: int) -> float:
        once = np.linspace(0, 1, ROWS)
        path = dtw(np.abs(once[:, None] - progress[None, run.first : run.last + 1]))
        other = 0.0 if step in {believed[run.first], believed[run.last]} else (looks_like or {}).get(step, 0.9)
        return path.total / len(path.path) + other

    motion = np.ones(len(believed))
    motion[still] = 0.02
    return doubled(believed, USUAL, price, motion=motion, frame_s=0.25)


def gold_of(steps: Ints) -> GoldRun:
    """A gold of these labels, four rows a second, of which nothing else matters."""
    nothing = np.zeros((len(steps), 1), np.float32)
    return GoldRun(Rows(nothing, nothing, nothing, nothing[:, 0], np.arange(len(steps) + 1) / 4), steps)


def through(*lengths: int) -> Floats:
    """From beginning to end in so many rows, one after the other."""
    return np.concatenate([np.linspace(0, 1, rows) for rows in lengths])


LONG = labels((0, ROWS), (1, 2 * ROWS), (2, ROWS), (3, ROWS))


def test_a_step_gone_through_twice_is_two_performances() -> None:
    (two,) = told(LONG, through(ROWS, ROWS, ROWS, ROWS, ROWS))
    assert two == (Run(1, 20, 39), Run(1, 40, 59))


def test_a_step_gone_through_once_is_slow_however_long_it_takes() -> None:
    assert told(LONG, through(ROWS, 2 * ROWS, ROWS, ROWS)) == ()


def test_who_waits_before_a_step_has_not_done_it_however_much_that_resembles_it() -> None:
    assert told(LONG, through(ROWS, ROWS, ROWS, ROWS, ROWS), still=slice(20, 40)) == ()


def test_a_moment_in_no_step_between_the_two_does_not_hide_them() -> None:
    believed = labels((0, ROWS), (1, 18), (EXTRA, 4), (1, 18), (2, ROWS), (3, ROWS))
    (two,) = told(believed, through(ROWS, ROWS, ROWS, ROWS, ROWS))
    assert two == (Run(1, 20, 39), Run(1, 40, 59))


def test_two_parts_of_a_step_with_something_else_between_are_left_alone() -> None:
    believed = labels((0, ROWS), (1, 15), (EXTRA, 10), (1, 15), (2, ROWS), (3, ROWS))
    assert told(believed, through(ROWS, 2 * ROWS, ROWS, ROWS)) == ()


@pytest.mark.parametrize("at", [0, 1])
def test_one_of_the_two_is_the_step_that_seems_to_be_missing_where_it_looks_like_that(at: int) -> None:
    progress = through(ROWS, ROWS, ROWS, ROWS, ROWS)
    progress[20 + ROWS * at : 40 + ROWS * at] = progress[20 + ROWS * at : 40 + ROWS * at] ** 1.2  # a little otherwise
    (two,) = told(LONG, progress, looks_like={4: 0.2})
    assert {two.first.label, two.second.label} == {1, 4}


def test_a_missing_step_that_looks_otherwise_stays_missing() -> None:
    (two,) = told(LONG, through(ROWS, ROWS, ROWS, ROWS, ROWS), looks_like={4: 0.5})
    assert (two.first.label, two.second.label) == (1, 1)


def test_a_step_done_late_beside_one_that_looks_like_it_is_moved() -> None:
    world = World(alike={"b": "e"})
    found = evaluate(fit(world.procedure(), world.golds(3)), world.film(*"acdbefgh", seed=7).features)
    assert [(d.kind, d.step_id) for d in found.deviations] == [("moved", "b")]


@pytest.mark.parametrize("seconds", [0, 8, 30])
def test_a_rest_beside_a_step_done_unlike_any_gold_is_no_part_of_it(seconds: int) -> None:
    rest = 4 * seconds
    doing = labels((0, ROWS), (EXTRA, ROWS + rest), (2, ROWS))
    frames = np.concatenate([np.arange(ROWS), np.full(ROWS + rest, -1), np.arange(2 * ROWS, 3 * ROWS)])
    resting = np.zeros(len(doing), np.bool_)
    resting[2 * ROWS : 2 * ROWS + rest] = True
    golds = [gold_of(labels((0, ROWS), (1, ROWS), (2, ROWS)))]
    found = replacing(doing, frames[None], golds, np.ones(1), resting=resting)
    assert [(run.first, run.last, step) for run, step, _ in found] == [(20, 39, 1)]
