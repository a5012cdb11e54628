"""Intervals keep their promise, scores meet the reviewers', and too few reviews say so."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from genba_sop.conformal import WHOLE, Calibration, Review, calibrate, conformal_quantile


def reviews(count: int, *, seed: int, procedure: str = "p", bias: float = 0.0, noise: float = 6.0) -> list[Review]:
    """Reviewers who score ``bias`` above the machine, in a curve, with noise."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(20, 95, count)
    judged = np.clip(scores + bias + 8 * np.sin(scores / 15) + noise * rng.standard_t(4, count), 0, 100)
    return [Review(procedure, float(s), float(j)) for s, j in zip(scores, judged, strict=True)]


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("count", [25, 80])
def test_coverage_is_within_two_points_of_what_is_promised(coverage: float, count: int) -> None:
    hits = []
    for seed in range(400):
        rows = reviews(count + 20, seed=seed)
        learnt = calibrate(rows[:count])
        for row in rows[count:]:
            low, high = learnt.interval("p", row.score, coverage=coverage)
            hits.append(low <= row.reviewed <= high)
    residuals = count if count < 30 else count // 2
    exact = np.ceil((residuals + 1) * coverage) / (residuals + 1)  # what n residuals can offer
    assert np.mean(hits) >= coverage - 0.02
    assert np.mean(hits) <= exact + 0.02


@pytest.mark.parametrize(("coverage", "least"), [(0.8, 4), (0.9, 9), (0.95, 19)])
def test_with_too_few_reviews_the_interval_is_everything(coverage: float, least: int) -> None:
    rows = reviews(least, seed=1)
    assert calibrate(rows[:-1]).interval("p", 70, coverage=coverage) == WHOLE
    assert calibrate(rows).interval("p", 70, coverage=coverage) != WHOLE


def test_reviews_of_one_procedure_say_nothing_of_another() -> None:
    learnt = calibrate(reviews(40, seed=2, procedure="p"))
    assert learnt.interval("p", 70) != WHOLE
    assert learnt.interval("q", 70) == WHOLE


def test_procedures_that_are_judged_differently_each_keep_their_coverage() -> None:
    hits: dict[str, list[bool]] = {"calm": [], "wild": []}
    for seed in range(200):
        calm = reviews(40, seed=seed, procedure="calm", noise=1.0)
        wild = reviews(40, seed=seed + 1000, procedure="wild", noise=12.0)
        learnt = calibrate([*calm[:25], *wild[:25]])
        for row in (*calm[25:], *wild[25:]):
            low, high = learnt.interval(row.procedure_id, row.score)
            hits[row.procedure_id].append(low <= row.reviewed <= high)
    assert np.mean(hits["calm"]) >= 0.88
    assert np.mean(hits["wild"]) >= 0.88


def test_thirty_reviews_calibrate_and_twenty_nine_do_not() -> None:
    rows = reviews(30, seed=3, bias=-15)
    assert not calibrate(rows[:29]).calibrated
    assert calibrate(rows[:29]).score(60) == 60
    assert calibrate(rows).calibrated
    assert calibrate(rows).score(60) < 60


def test_the_calibration_curve_never_falls() -> None:
    learnt = calibrate(reviews(200, seed=4))
    curve = [learnt.score(score) for score in np.linspace(0, 100, 201)]
    assert all(a <= b for a, b in pairwise(curve))


def test_calibration_brings_scores_nearer_to_the_reviewers() -> None:
    rows = reviews(400, seed=5, bias=-12)
    learnt = calibrate(rows[:200])
    before = np.mean([abs(row.reviewed - row.score) for row in rows[200:]])
    after = np.mean([abs(row.reviewed - learnt.score(row.score)) for row in rows[200:]])
    assert after < 0.7 * before


def test_the_quantile_is_the_ranked_residual() -> None:
    assert conformal_quantile([3.0, 1.0, 2.0, 5.0, 4.0, 9.0, 8.0, 7.0, 6.0], 0.9) == 9.0
    assert conformal_quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert conformal_quantile([], 0.9) == float("inf")


def test_intervals_stay_on_the_scale() -> None:
    low, high = Calibration(residuals={"p": (50.0,) * 20}).interval("p", 90)
    assert (low, high) == (40.0, 100.0)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1])
def test_an_impossible_coverage_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="coverage"):
        conformal_quantile([1.0], coverage)


def test_a_score_off_the_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 100\]"):
        calibrate([Review("p", 101.0, 50.0)])
