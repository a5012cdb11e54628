"""Which doubtful stretch is told anew first, and what counts as having done a step: on costs that say the truth plainly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from genba_sop.alignment import dtw
from genba_sop.explaining import Piece, Told, simplest
from genba_sop.segmentation import EXTRA, Run, runs_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ROWS, STEPS, NOTHING = 20, 6, 0.55  # gold rows a step, at four a second
LIKE, UNLIKE = 0.05, 1.0


def labels(*parts: tuple[int, int]) -> Ints:
    """(step, rows) one after the other."""
    return np.concatenate([np.full(rows, step, np.int64) for step, rows in parts])


def told(truth: Ints, believed: Ints, *, motion: Floats | None = None) -> Told:
    """One gold of every step in order. A trainee row is like the gold's row of the step that it truly shows, as far into it."""
    gold = np.repeat(np.arange(STEPS), ROWS)
    cost = np.full((len(gold), len(truth)), UNLIKE)
    for run in runs_of(truth):
        if run.label >= 0:
            own = np.flatnonzero(gold == run.label)
            for i, column in enumerate(range(run.first, run.last + 1)):
                near = own[round(i * (ROWS - 1) / max(1, run.last - run.first))]
                cost[max(own[0], near - 2) : near + 3, column] = LIKE
    cost = np.where(np.add.outer(gold, np.zeros(len(truth))) < 0, UNLIKE, cost)
    frames, path = np.full(len(truth), -1), np.full(len(truth), NOTHING)
    for run in runs_of(believed):
        if run.label >= 0:
            own = np.flatnonzero(gold == run.label)
            for i, j in dtw(cost[own, run.first : run.last + 1]).path:
                frames[run.first + j], path[run.first + j] = own[i], cost[own[i], run.first + j]
    order = np.triu(np.ones((STEPS, STEPS), np.bool_), 1)
    moving = np.ones(len(truth)) if motion is None else motion
    return Told(
        [cost], [gold], np.ones(1), np.array([NOTHING]), path[None].copy(), frames[None].copy(), believed.copy(),
        moving, [np.ones(len(gold))], order, 0.25,
    )  # fmt: skip


def shown(pieces: Sequence[Piece]) -> list[int]:
    return [piece.run.label for piece in pieces]


def test_a_run_without_anything_doubtful_has_no_better_story() -> None:
    plain = labels(*((step, ROWS) for step in range(STEPS)))
    assert simplest(told(plain, plain), {}) == ()


def test_a_step_out_of_turn_that_was_taken_for_two_fragments_of_others_is_one_step() -> None:
    truth = labels((0, 20), (2, 20), (1, 20), (3, 20), (4, 20), (5, 20))
    believed = labels((0, 20), (1, 9), (2, 11), (1, 20), (3, 20), (4, 20), (5, 20))
    pieces = simplest(told(truth, believed), {})
    assert [label for label in shown(pieces) if label in {1, 2}] == [2, 1]


def test_of_two_doubtful_stretches_the_one_that_gains_more_is_told_first() -> None:
    """Where all of step 4 was taken for none, more is gained than where a part of step 1 was."""
    truth = labels(*((step, ROWS) for step in range(STEPS)))
    believed = labels((0, 20), (1, 14), (EXTRA, 6), (2, 20), (3, 20), (EXTRA, 20), (5, 20))
    first = simplest(told(truth, believed), {})
    assert 4 in shown(first)
    assert all(piece.run.first >= 60 for piece in first)  # the other stretch is not touched yet
    believed[80:100] = 4
    second = simplest(told(truth, believed), {})
    assert 1 in shown(second)
    assert all(piece.run.last < 80 for piece in second)


def test_a_fragment_of_a_step_does_not_count_as_having_done_it() -> None:
    """Five rows of a pause were taken for step 3; where it truly was done it is that step all the same, not extra."""
    truth = labels((0, 20), (EXTRA, 5), (1, 20), (2, 20), (3, 20), (4, 20), (5, 20))
    believed = labels((0, 20), (3, 5), (1, 20), (2, 20), (EXTRA, 20), (4, 20), (5, 20))
    pieces = simplest(told(truth, believed), {})
    found = next(piece.run for piece in pieces if piece.run.label == 3)
    assert (found.first, found.last) == (65, 84)


@pytest.mark.parametrize("share", [1.0, 0.02])
def test_who_stands_still_does_no_step_whatever_it_resembles(share: float) -> None:
    truth = labels(*((step, ROWS) for step in range(STEPS)))
    believed = labels((0, 20), (1, 20), (2, 20), (EXTRA, 20), (4, 20), (5, 20))
    motion = np.ones(len(truth))
    motion[40:100] = share
    assert (3 in shown(simplest(told(truth, believed, motion=motion), {}))) == (share == 1.0)


def test_a_run_that_stays_what_it_was_keeps_its_borders() -> None:
    truth = labels(*((step, ROWS) for step in range(STEPS)))
    believed = labels((0, 20), (1, 20), (2, 21), (EXTRA, 19), (4, 20), (5, 20))
    pieces = {piece.run.label: piece for piece in simplest(told(truth, believed), {})}
    assert pieces[2].kept
    assert pieces[2].run == Run(2, 40, 60)
    assert not pieces[3].kept
    assert (pieces[3].run.first, pieces[3].run.last) == (61, 79)
