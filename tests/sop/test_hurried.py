"""A last step done in a few moments was done; one that was broken off was not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.sop.scoring_world import Do, World

from genba_sop.features import Features
from genba_sop.hurried import evenly
from genba_sop.reference import Reference, fit
from genba_sop.scoring import evaluate
from genba_sop.segmentation import Run


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=1, blend=2.0)  # features of neighbouring moments run into each other, as those of a video do


@pytest.fixture(scope="module", params=[1, 3], ids=["one gold", "three golds"])
def reference(world: World, request: pytest.FixtureRequest) -> Reference:
    return fit(world.procedure(), world.golds(request.param))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_last_step_in_a_quarter_of_its_time_is_too_fast(world: World, reference: Reference, seed: int) -> None:
    filmed = world.film(*"abcdefg", Do("h", pace=4.5), seed=seed)
    evaluation = evaluate(reference, filmed.features)
    assert [(d.kind, d.step_id) for d in evaluation.deviations] == [("too_fast", "h")]
    (deviation,) = evaluation.deviations
    assert deviation.end_s - deviation.start_s == pytest.approx(
        filmed.spans[-1].end_s - filmed.spans[-1].start_s, abs=0.5
    )


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_a_last_step_of_which_only_the_beginning_is_done_is_missing(
    world: World, reference: Reference, seed: int
) -> None:
    filmed = world.film(seed=seed)
    last = filmed.spans[-1]
    features = first(filmed.features, until_s=last.start_s + 0.25 * (last.end_s - last.start_s))
    assert [(d.kind, d.step_id) for d in evaluate(reference, features).deviations] == [("missing", "h")]


def first(features: Features, *, until_s: float) -> Features:
    """The beginning of a video."""
    rows = int(np.searchsorted(features.times_s, until_s))
    cut = {name: getattr(features, name)[:rows] for name in ("times_s", "values", "local", "motion")}
    return replace(features, **cut, duration_s=until_s)


def test_an_even_pace_ends_with_the_step_and_passes_over_as_many_rows_each_time() -> None:
    own = np.zeros(20, np.bool_)
    own[5:17] = True
    rows, columns = evenly(Run(0, 40, 43), own)
    assert rows.tolist() == [7, 10, 13, 16]
    assert columns.tolist() == [40, 41, 42, 43]
    assert evenly(Run(0, 40, 43), np.zeros(20, np.bool_)).shape == (2, 0)
