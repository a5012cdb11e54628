"""The simplest explanation of a doubtful stretch: its inner loops against brute force, and the stories that it tells."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tests.sop.scoring_world import World

from genba_sop._explaining import cheapest, segment_costs
from genba_sop.alignment import dtw
from genba_sop.reference import fit
from genba_sop.scoring import evaluate

INF = np.inf


def test_a_stretch_costs_what_its_warping_path_costs_on_average() -> None:
    block = np.random.default_rng(1).random((5, 9))
    table = segment_costs(block, 6)
    for start, end in itertools.combinations(range(10), 2):
        if end - start > 6:
            assert table[start, end] == INF
        else:
            path = dtw(block[:, start:end])
            assert table[start, end] == pytest.approx(path.total / len(path.path))


@pytest.mark.parametrize("seed", range(5))
def test_the_story_told_is_the_cheapest_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    borders, steps = 5, 2
    forwards = np.triu(np.ones((borders, borders)), 1) > 0
    table = np.where(forwards[:, :, None], rng.uniform(0.2, 3, (borders, borders, steps)), INF)
    none = np.where(forwards, rng.uniform(0.2, 3, (borders, borders)), INF)
    again, left = rng.uniform(0, 1, (1 << steps, steps)), rng.uniform(0, 1, 1 << steps)
    best = INF
    for count in range(borders - 1):
        for inner in itertools.combinations(range(1, borders - 1), count):
            cuts = (0, *inner, borders - 1)
            for pieces in itertools.product(range(-1, steps), repeat=count + 1):
                if any(a == b == -1 for a, b in itertools.pairwise(pieces)):
                    continue
                cost, done = 0.0, 0
                for a, b, k in zip(cuts, cuts[1:], pieces, strict=False):
                    cost += none[a, b] if k < 0 else table[a, b, k] + again[done, k]
                    done |= 0 if k < 0 else 1 << k
                best = min(best, cost + left[done])
    cost, cuts_found, found = cheapest(table, none, again, left)
    assert cost == pytest.approx(best)
    assert cuts_found[0] == 0
    assert cuts_found[-1] == borders - 1
    assert len(found) == len(cuts_found) - 1


class Alike(World):
    """Two steps, in either order, that begin and end in the same way: gloves and glasses are taken up and put on."""

    def __init__(self) -> None:
        super().__init__(after={"b": (), "c": ("a", "b")})
        a, b = self._paths["a"], self._paths["b"]
        b[0], b[-1] = a[0], a[-1]
        b[[1, -2]] = 0.5 * (a[[1, -2]] + b[[1, -2]])


@pytest.mark.parametrize("seed", range(4))
def test_two_steps_that_look_alike_may_change_places(seed: int) -> None:
    world = Alike()
    filmed = world.film(*"bacdefgh", seed=40 + seed)
    evaluation = evaluate(fit(world.procedure(), world.golds(5)), filmed.features)
    assert evaluation.deviations == ()
    assert evaluation.verdict == "pass"


@pytest.mark.parametrize("seed", range(4))
def test_of_two_steps_that_look_alike_the_one_left_out_is_named(seed: int) -> None:
    world = Alike()
    evaluation = evaluate(fit(world.procedure(), world.golds(5)), world.film(*"bcdefgh", seed=50 + seed).features)
    assert [(d.kind, d.step_id) for d in evaluation.deviations] == [("missing", "a")]


@pytest.mark.parametrize("golds", [1, 5])
def test_a_step_out_of_turn_is_moved_and_never_missing_and_repeated(golds: int) -> None:
    world = Alike()
    evaluation = evaluate(fit(world.procedure(), world.golds(golds)), world.film(*"bcdeafgh", seed=60).features)
    assert [(d.kind, d.step_id) for d in evaluation.deviations] == [("moved", "a")]
    assert evaluation.verdict == "fail"
