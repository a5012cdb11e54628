"""People's decisions set the gate's confidence and threshold, and never loosen the promised bound without spot checks."""

from __future__ import annotations

import numpy as np
import pytest

from genba_llm.fusion import Fusion, Signals, flattened
from genba_llm.fusion_fit import conformal_threshold
from genba_llm.review import Reviewed, refit, weight_of, weighted_threshold
from genba_llm.verdict import Decision


def reviewed(allow: np.ndarray, allowed: np.ndarray, *, one_in: int = 1, spot: np.ndarray | None = None) -> Reviewed:
    checks = np.zeros(len(allow), np.bool_) if spot is None else spot
    return Reviewed(allow, allowed, np.where(checks, float(one_in), 1.0), checks)


def people(rows: int, *, temperature: float, below: float, seed: int = 0) -> Reviewed:
    """Escalated requests (below the threshold), decided as often for ALLOW as the true probability says."""
    rng = np.random.default_rng(seed)
    said = rng.uniform(0.02, below, rows)
    true = flattened(said, temperature)
    return reviewed(said, rng.random(rows) < true)


def decisions(fusion: Fusion) -> list[Decision]:
    """What a fusion decides from surest danger to surest harmlessness."""
    found = []
    for allow in np.linspace(0.001, 0.999, 400):
        logits = np.log([allow, *((1 - allow) * np.array([0.5, 0.3, 0.2]))])
        found.append(fusion.decide(Signals(logits, logits, logits)).decision)
    return found


def test_confidence_is_refitted_and_nothing_that_was_held_back_is_let_through() -> None:
    before = Fusion(allow_from=0.85, alpha=0.05)
    found = refit(before, people(2000, temperature=2.0, below=0.85), version="reviewed")
    assert found.temperature == pytest.approx(2.0, abs=0.3)
    assert found.loss_after < found.loss_before
    assert found.threshold == "kept"
    assert found.fusion.version == "reviewed"
    allowed = [each is Decision.ALLOW for each in decisions(before)]
    assert [each is Decision.ALLOW for each in decisions(found.fusion)] == allowed
    assert any(allowed)
    assert Fusion.from_json(found.fusion.to_json()).review_temperature == found.fusion.review_temperature


def test_a_second_review_goes_on_from_the_first() -> None:
    first = refit(Fusion(allow_from=0.85, alpha=0.05), people(2000, temperature=2.0, below=0.85), version="1").fusion
    again = refit(first, people(2000, temperature=1.5, below=0.7, seed=1), version="2").fusion
    assert again.review_temperature == pytest.approx(2.0 * 1.5, abs=0.7)


def test_noise_changes_nothing() -> None:
    calibrated = people(400, temperature=1.0, below=0.85)
    found = refit(Fusion(allow_from=0.85, alpha=0.05), calibrated, version="v")
    assert found.loss_after <= found.loss_before
    assert found.fusion.allow_from >= flattened(np.array([0.85]), found.temperature)[0] - 1e-12


def test_people_who_allow_everything_in_the_queue_do_not_lower_the_threshold() -> None:
    rng = np.random.default_rng(0)
    allow = rng.uniform(0.5, 0.85, 400)
    allowed = np.ones(400, np.bool_)
    allowed[:40] = False
    allow[:40] = rng.uniform(0.01, 0.3, 40)  # what was dangerous was far below
    found = refit(Fusion(allow_from=0.85, alpha=0.05), reviewed(allow, allowed), version="v")
    assert found.threshold == "kept"


def test_spot_checks_that_find_danger_raise_it() -> None:
    rng = np.random.default_rng(0)
    escalated, checked = rng.uniform(0.2, 0.85, 200), rng.uniform(0.85, 1.0, 200)
    wrong = checked < 0.93
    allow = np.concatenate([escalated, checked])
    allowed = np.concatenate([np.arange(200) % 4 > 0, ~wrong])
    spot = np.arange(400) >= 200
    found = refit(Fusion(allow_from=0.85, alpha=0.05), reviewed(allow, allowed, one_in=5, spot=spot), version="v")
    assert found.threshold == "raised"
    dangerous = ~allowed
    kept = flattened(allow, found.temperature)[dangerous] >= found.fusion.allow_from
    weight = np.where(spot, 5.0, 1.0)[dangerous]
    assert weight[kept].sum() / weight.sum() <= 0.05


def test_spot_checks_that_find_none_let_it_fall_as_far_as_the_bound_allows() -> None:
    rng = np.random.default_rng(0)
    escalated, checked = rng.uniform(0.2, 0.85, 1000), rng.uniform(0.85, 1.0, 300)
    allow = np.concatenate([escalated, checked])
    dangerous = np.concatenate([escalated < 0.6, np.zeros(300, np.bool_)])
    dangerous[:5] = True
    spot = np.arange(1300) >= 1000
    data = reviewed(allow, ~dangerous, one_in=10, spot=spot)
    found = refit(Fusion(allow_from=0.85, alpha=0.05), data, version="v")
    assert found.threshold == "lowered"
    let_through = flattened(allow, found.temperature)[dangerous] >= found.fusion.allow_from
    assert let_through.mean() <= 0.05
    assert data.false_allow_share() == 0.0


def test_the_weighted_threshold_is_the_plain_one_where_all_weigh_alike() -> None:
    scores = np.random.default_rng(3).beta(2, 3, 99)
    assert weighted_threshold(scores, np.ones(99), 0.05) == conformal_threshold(scores, 0.05)
    assert weighted_threshold(scores[:10], np.ones(10), 0.05) is None
    assert weighted_threshold(np.empty(0), np.empty(0), 0.05) is None


def test_one_rare_row_that_stands_for_many_is_not_enough() -> None:
    """A spot check of one in 1,000 counts as a thousand, and so does the request to come."""
    scores = np.linspace(0.1, 0.8, 200)
    weight = np.ones(200)
    weight[50] = 1000.0
    assert weighted_threshold(scores, weight, 0.05) is None


def test_too_few_or_one_sided_decisions_are_refused() -> None:
    with pytest.raises(ValueError, match="30"):
        refit(Fusion(), people(20, temperature=1.0, below=0.8), version="v")
    with pytest.raises(ValueError, match="both kinds"):
        refit(Fusion(), reviewed(np.full(50, 0.5), np.ones(50, np.bool_)), version="v")


@pytest.mark.parametrize(
    ("codes", "weight"),
    [
        (["content_uncertain"], (1.0, False)),
        (["content_escalate", "trick_leet"], (1.0, False)),
        (["rule_disclose", "content_uncertain"], None),
        (["backend_unreachable"], None),
        (["spot_check_1_in_20"], (20.0, True)),
        ([], None),
    ],
)
def test_only_what_the_content_decided_counts(codes: list[str], weight: tuple[float, bool] | None) -> None:
    assert weight_of(codes) == weight
