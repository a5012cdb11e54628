"""A step that seems to be missing is found where another permitted order puts it, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from tests.sop.scoring_world import World

from genba_sop.deviations import happened_before
from genba_sop.free_order import standing_in
from genba_sop.metrics import temporal_iou
from genba_sop.observation import recognised
from genba_sop.reference import fit
from genba_sop.scoring import evaluate
from genba_sop.segmentation import EXTRA, Run, runs_of

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
ROWS, STEPS = 20, 6
USUAL = dict.fromkeys(range(STEPS), float(ROWS))


def labels(*parts: tuple[int, int]) -> Ints:
    """(step, rows) one after the other."""
    return np.concatenate([np.full(rows, step, np.int64) for step, rows in parts])


def order(*, free: tuple[int, ...] = (1, 2, 3)) -> Mask:
    """Every step after all before it, but for some that may change places."""
    chained = np.triu(np.ones((STEPS, STEPS), np.bool_), 1)
    chained[np.ix_(free, free)] = False
    return chained


def looked_for(believed: Ints, costs: dict[int, float], rules: Mask) -> tuple[int, Run] | None:
    """What is found, where a row costs so much in a step and 0.9 in any other."""

    def price(_: Run, step: int) -> float:
        return costs.get(step, 0.9)

    found = standing_in(believed, USUAL, rules, price, frame_s=0.25)
    return None if found is None else (found.step, found.run)


DONE_EARLY = labels((0, 20), (EXTRA, 18), (1, 20), (2, 20), (4, 20), (5, 20))


def test_what_resembles_nothing_and_takes_as_long_is_the_step_that_seems_to_be_missing() -> None:
    assert looked_for(DONE_EARLY, {3: 0.5}, order()) == (3, Run(EXTRA, 20, 37))


@pytest.mark.parametrize(
    ("believed", "cost", "rules"),
    [
        (DONE_EARLY, 0.65, order()),  # it is too unlike
        (DONE_EARLY, 0.5, order(free=())),  # nothing may change places
        (labels((0, 20), (EXTRA, 8), (1, 20), (2, 20), (4, 20), (5, 20)), 0.5, order()),  # too short for it
        (labels((0, 20), (EXTRA, 18), (1, 20), (2, 20), (3, 20), (4, 20), (5, 20)), 0.5, order()),  # it is there
    ],
)
def test_a_step_is_not_found_where_it_cannot_be(believed: Ints, cost: float, rules: Mask) -> None:
    assert looked_for(believed, {3: cost}, rules) is None


def test_a_step_done_once_more_is_the_missing_one_only_where_it_is_hardly_less_like_it() -> None:
    believed = labels((0, 22), (1, 20), (0, 18), (2, 20), (4, 20), (5, 20))
    assert looked_for(believed, {0: 0.3, 3: 0.45}, order()) == (3, Run(0, 42, 59))
    assert looked_for(believed, {0: 0.1, 3: 0.45}, order()) is None


def test_a_step_that_takes_as_long_as_both_is_both() -> None:
    believed = labels((0, 20), (1, 20), (2, 42), (4, 20), (5, 20))
    assert looked_for(believed, {2: 0.2, 3: 0.5}, order()) == (3, Run(2, 62, 81))
    assert looked_for(believed, {2: 0.0, 3: 0.5}, order()) is None


def test_a_long_stretch_is_several_steps_that_are_missing() -> None:
    believed = labels((0, 20), (EXTRA, 38), (1, 20), (4, 20), (5, 20))
    assert looked_for(believed, {2: 0.4, 3: 0.5}, order()) == (2, Run(EXTRA, 39, 57))


def test_steps_that_may_change_places_are_no_deviation_with_one_gold() -> None:
    free = World(seed=5, noise=1.5, after=dict.fromkeys("cdef", ("b",)) | {"g": ("c", "d", "e", "f")})
    reference = fit(free.procedure(), free.golds(1))
    for n, doings in enumerate(("abfcdegh", "abdfecgh", "abefdcgh")):
        assert evaluate(reference, free.film(*doings, seed=20 + n).features).deviations == ()


@pytest.mark.parametrize("seed", [20, 21, 22])
def test_a_step_that_in_another_order_looks_like_the_step_before_it_is_not_missing(seed: int) -> None:
    """As a mask that is put on before the vest: the picture is still that of the step before."""
    free = World(after=dict.fromkeys("cdef", ("b",)) | {"g": ("c", "d", "e", "f")})
    film = free.film(*"abfcdegh", seed=seed, noise=0.5)
    before, early = (next(span for span in film.spans if span.step_id == step) for step in "bf")
    times_s, values = film.features.times_s, film.features.values.copy()
    usual = values[(times_s >= before.start_s) & (times_s < before.end_s)].mean(axis=0)
    values[(times_s >= early.start_s) & (times_s < early.end_s)] += usual / np.linalg.norm(usual)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    found = evaluate(fit(free.procedure(), free.golds(1)), replace(film.features, values=values))
    assert {d.kind for d in found.deviations} <= {"execution"}
    (span,) = next(step.spans for step in found.steps if step.step_id == "f")
    assert temporal_iou((span.start_s, span.end_s), (early.start_s, early.end_s)) > 0.6


def test_what_comes_later_than_in_any_gold_makes_another_history_and_what_is_left_out_does_not() -> None:
    histories = (frozenset({0, 1}), frozenset({0, 1, 2}))
    assert happened_before({0, 1}, {2}, histories)
    assert happened_before({0}, set(), histories)  # 1 was left out
    assert not happened_before({0}, {1, 2}, histories)  # 1 comes later
    assert not happened_before({0, 5}, set(), histories)


def test_something_that_is_much_less_like_a_step_than_its_first_performance_is_no_second_one() -> None:
    world = World()
    (gold,) = fit(world.procedure(), world.golds(1)).golds
    believed = np.where(gold.labels == 5, EXTRA, gold.labels)  # what stands in the place of the sixth step
    (extra,) = (run for run in runs_of(believed) if run.label == EXTRA)
    for dearer, expected in ((0.1, ((extra, 2),)), (0.35, ())):
        cost = np.full((len(gold.labels),) * 2, 1.0)
        for run in runs_of(gold.labels):
            cost[run.first : run.last + 1, run.first : run.last + 1] = 0.0
        cost[:, extra.first : extra.last + 1] = 1.0
        cost[gold.labels == 2, extra.first : extra.last + 1] = dearer
        assert recognised(believed, [cost], [gold], np.ones(1), frame_s=0.25) == expected
