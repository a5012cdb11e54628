from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sem.sem_world import KINDS, fitted_encoder, masters_of, picture, seen

from genba_sem.classifier import CLASSIFIERS, DEFAULT, fitted_temperature, tempered
from genba_sem.deciding import Calibration, Policy, Reviewed, calibrate, is_audited, label_set, reviews_for
from genba_sem.encoders import HlgShape, unit
from genba_sem.lane import Lane, SeenView, see
from genba_sem.masters import MasterSet, TooFewMasters
from genba_sem.metrics import (
    auroc,
    expected_calibration_error,
    fpr_at_recall,
    risk_coverage,
    set_coverage,
)
from genba_sem.micrograph import View
from genba_sem.views import QualityMean


@pytest.fixture(scope="module")
def encoder() -> HlgShape:
    return fitted_encoder()


@pytest.fixture(scope="module")
def masters(encoder: HlgShape) -> MasterSet:
    return masters_of(encoder)


@pytest.fixture(scope="module")
def lane(encoder: HlgShape, masters: MasterSet) -> Lane:
    return Lane(encoder, masters)


@pytest.fixture(scope="module")
def new_particles(encoder: HlgShape) -> list[tuple[str, list[SeenView]]]:
    """Three of each kind, and which it is."""
    rng = np.random.default_rng(12)
    return [(kind, seen(encoder, kind, rng)) for kind in KINDS for _ in range(3)]


def test_new_particles_get_their_label(lane: Lane, encoder: HlgShape) -> None:
    rng = np.random.default_rng(11)
    for kind in KINDS:
        decision = lane.decide(seen(encoder, kind, rng))
        assert max(decision.probabilities, key=lambda label: decision.probabilities[label]) == f"lbl_{kind}"
        assert decision.nearest[0].label_id == f"lbl_{kind}"
        assert f"lbl_{kind}" in decision.label_set
        assert sum(view.weight for view in decision.views) == pytest.approx(1)


def test_without_reviews_nothing_is_confirmed_and_the_decision_says_how_many_are_lacking(
    lane: Lane, encoder: HlgShape
) -> None:
    decision = lane.decide(seen(encoder, "disc", np.random.default_rng(4)))
    assert decision.outcome != "confirmed"
    assert "not_calibrated" in decision.reasons
    assert decision.reviews_needed == 230


def test_after_enough_right_reviews_it_confirms(encoder: HlgShape, masters: MasterSet) -> None:
    reviews = [Reviewed(0.3, correct=True, similarity=0.3, truth_probability=0.3)] * 240
    lane = Lane(encoder, masters, reviews=reviews)
    assert lane.decide(seen(encoder, "disc", np.random.default_rng(4))).outcome == "confirmed"


def test_a_kind_without_masters_looks_less_known(encoder: HlgShape) -> None:
    lane = Lane(encoder, masters_of(encoder, ("disc", "square")))
    rng = np.random.default_rng(5)
    known = [lane.decide(seen(encoder, "disc", rng)).similarity for _ in range(4)]
    strange = [lane.decide(seen(encoder, "needle", rng)).similarity for _ in range(4)]
    assert min(known) > max(strange)


def test_a_black_view_is_ignored_and_a_repeated_one_changes_nothing(lane: Lane, encoder: HlgShape) -> None:
    views = seen(encoder, "needle", np.random.default_rng(6))
    whole = lane.decide(views)
    black = see(View(np.zeros((96, 96), np.float32)), encoder)
    with_black = lane.decide([*views, black])
    assert with_black.views[-1].weight == 0
    assert with_black.confidence == pytest.approx(whole.confidence, abs=1e-5)
    assert lane.decide([*views, views[0]]).confidence == pytest.approx(whole.confidence, abs=1e-5)


def test_the_order_of_views_does_not_matter(lane: Lane, encoder: HlgShape) -> None:
    views = seen(encoder, "square", np.random.default_rng(7), 5)
    forward, backward = lane.decide(views), lane.decide(views[::-1])
    assert forward.confidence == pytest.approx(backward.confidence, abs=1e-5)
    assert [v.contribution for v in forward.views] == pytest.approx(
        [v.contribution for v in backward.views][::-1], abs=1e-4
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**16))
def test_fusion_is_permutation_invariant(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, quality = unit(rng.normal(size=(count, 16)).astype(np.float32)), rng.random(count, np.float32)
    order = rng.permutation(count)
    first, second = QualityMean().fuse(rows, quality), QualityMean().fuse(rows[order], quality[order])
    assert np.allclose(first.row, second.row, atol=1e-5)
    assert np.allclose(first.weights[order], second.weights, atol=1e-5)


def test_a_particle_of_black_views_alone_is_not_confirmed(lane: Lane, encoder: HlgShape) -> None:
    decision = lane.decide([see(View(np.zeros((96, 96), np.float32)), encoder)])
    assert decision.outcome != "confirmed"
    assert "poor_quality" in decision.reasons


def test_views_of_another_encoder_and_no_views_are_refused(lane: Lane, encoder: HlgShape) -> None:
    view = seen(encoder, "disc", np.random.default_rng(1), 1)[0]
    with pytest.raises(ValueError, match="another encoder"):
        lane.decide([replace(view, raw=view.raw[:10])])
    with pytest.raises(ValueError, match="needs a view"):
        lane.decide([])


def test_a_merge_moves_answers_without_any_picture(encoder: HlgShape, masters: MasterSet) -> None:
    merged = Lane(encoder, masters.relabelled({"lbl_square": "lbl_disc"}))
    decision = merged.decide(seen(encoder, "square", np.random.default_rng(9)))
    assert merged.labels == ("lbl_disc", "lbl_needle")
    assert max(decision.probabilities, key=lambda label: decision.probabilities[label]) == "lbl_disc"


def test_too_few_masters_are_named(encoder: HlgShape) -> None:
    masters = masters_of(encoder, each=1)
    with pytest.raises(TooFewMasters) as caught:
        masters.checked(least=3)
    assert caught.value.labels == ("lbl_disc", "lbl_needle", "lbl_square")
    with pytest.raises(TooFewMasters):
        Lane(encoder, MasterSet(masters.particles[:1]))


def test_a_lane_of_single_masters_still_decides(encoder: HlgShape) -> None:
    lane = Lane(encoder, masters_of(encoder, each=1))
    assert lane.decide(seen(encoder, "needle", np.random.default_rng(3))).label_set


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_every_classifier_tells_the_figures_apart(
    kind: str, encoder: HlgShape, masters: MasterSet, new_particles: list[tuple[str, list[SeenView]]]
) -> None:
    lane = Lane(encoder, masters, classifier=kind)
    answers = [(k, lane.decide(views).probabilities) for k, views in new_particles]
    assert all(max(p, key=lambda label: p[label]) == f"lbl_{k}" for k, p in answers)


@pytest.mark.parametrize("labels", [2, 3])
def test_a_particle_between_two_labels_is_less_sure_than_one_like_its_masters(labels: int) -> None:
    rng = np.random.default_rng(8)
    centres = np.eye(labels, 12)
    masters = unit(np.repeat(centres, 5, axis=0) + 0.1 * rng.normal(size=(5 * labels, 12)))
    decides = CLASSIFIERS[DEFAULT](masters, np.repeat(np.arange(labels), 5), labels)
    between = unit(np.stack([share * centres[0] + (1 - share) * centres[1] for share in (1.0, 0.8, 0.6)]))
    sure, less, least = tempered(decides.logits(between), 1.0).max(1)
    assert sure > less > least


def test_a_fit_is_saved_and_loaded_as_the_same_encoder(encoder: HlgShape, tmp_path: Path) -> None:
    encoder.save(tmp_path / "fit.safetensors")
    again = HlgShape.load(tmp_path / "fit.safetensors")
    raw = np.stack([see(View(picture("disc", np.random.default_rng(0))), encoder).raw])
    assert again.id == encoder.id
    assert np.array_equal(again.embed(raw), encoder.embed(raw))
    with pytest.raises(ValueError, match="At least 8 rows"):
        HlgShape.fit(raw)


def test_error_free_reviews_needed_for_a_precision() -> None:
    assert [reviews_for(precision) for precision in (0.90, 0.95, 0.98, 0.99)] == [22, 45, 114, 230]


RIGHT = Reviewed(0.9, correct=True, similarity=0.5, truth_probability=0.9)
WRONG = replace(RIGHT, correct=False)


def calibrated(reviews: Sequence[Reviewed], precision: float) -> Calibration:
    return calibrate(reviews, Policy(precision=precision), left_out_truth=np.zeros(0), left_out_similarity=np.zeros(0))


def test_one_error_among_the_surest_asks_for_more_reviews() -> None:
    assert calibrated([RIGHT] * 44, 0.95).reviews_needed == 1
    after = calibrated(
        [replace(WRONG, confidence=0.95), *(replace(RIGHT, confidence=0.9 - at / 100) for at in range(45))], 0.95
    )
    assert after.confirm_at is None
    assert after.reviews_needed == 45


@pytest.mark.parametrize("more", [0, 100, 400])
def test_as_many_reviews_as_are_said_to_be_lacking_suffice_when_they_are_the_surest(more: int) -> None:
    doubtful = [replace(RIGHT, confidence=0.6), replace(WRONG, confidence=0.6)] * (more // 2)
    past = [*[replace(RIGHT, confidence=0.95)] * 12, WRONG, *doubtful]
    lacking = calibrated(past, 0.85).reviews_needed
    assert lacking > 0
    for added, said in ((lacking - 1, 1), (lacking, 0)):
        after = calibrated([*past, *[replace(RIGHT, confidence=0.99)] * added], 0.85)
        assert (after.reviews_needed, after.confirm_at is None) == (said, said > 0)


def test_an_error_among_the_surest_does_not_block_for_ever() -> None:
    past = [replace(WRONG, confidence=0.99), *(replace(RIGHT, confidence=0.9 - at / 5000) for at in range(299))]
    assert calibrated(past[:150], 0.95).confirm_at is None
    assert (calibrated(past, 0.95).confirm_at or 1.0) <= past[-5].confidence


def test_a_threshold_answers_for_all_reviews_that_are_as_sure() -> None:
    assert calibrated([RIGHT] * 60, 0.95).confirm_at == 0.9
    assert calibrated([*[RIGHT] * 60, *[WRONG] * 10], 0.95).confirm_at is None


@pytest.mark.parametrize("curve", ["steep", "an error among the surest", "just too bad"])
@pytest.mark.parametrize("reviews", [150, 400])
def test_the_promised_precision_is_broken_in_at_most_a_tenth_of_deployments(curve: str, reviews: int) -> None:
    rank = np.arange(4000) / 4000
    error = {
        "steep": 0.5 * rank**3,
        "an error among the surest": np.where(rank < 0.05, 0.06, np.where(rank < 0.7, 0.01, 0.4)),
        "just too bad": np.where(rank < 0.5, 0.052, 0.3),
    }[curve]
    precision = 1 - np.cumsum(error) / np.arange(1, 4001)  # of what is at least as sure
    rng, broken = np.random.default_rng(0), 0
    for _ in range(200):
        at = rng.integers(4000, size=reviews)
        right = rng.random(reviews) >= error[at]
        found = calibrated([Reviewed(1 - rank[k], bool(ok), 0.5, 0.5) for k, ok in zip(at, right, strict=True)], 0.95)
        broken += found.confirm_at is not None and precision[round((1 - found.confirm_at) * 4000)] < 0.95
    assert broken <= 0.1 * 200 + 2.33 * np.sqrt(200 * 0.1 * 0.9)  # what chance alone exceeds once in a hundred


def test_conformal_sets_hold_the_truth_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    labels = tuple("abcdef")

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        truth = rng.integers(0, 6, count)
        logits = rng.normal(size=(count, 6)) + 2 * np.eye(6)[truth]
        return tempered(logits, 0.8), truth

    probabilities, truth = draw(400)
    reviews = [Reviewed(p.max(), p.argmax() == t, 0.5, p[t]) for p, t in zip(probabilities, truth, strict=True)]
    for coverage in (0.9, 0.95):
        calibration = calibrate(
            reviews, Policy(set_coverage=coverage), left_out_truth=np.zeros(0), left_out_similarity=np.zeros(0)
        )
        fresh, wanted = draw(4000)
        sets = [label_set(p, labels, calibration) for p in fresh]
        assert set_coverage(sets, [labels[t] for t in wanted])[0] == pytest.approx(coverage, abs=0.03)


@pytest.mark.parametrize(("count", "most"), [(8, 0.0), (10, 1 / 11), (18, 1 / 19), (19, 0.05), (60, 0.05)])
def test_as_many_known_ones_are_called_unknown_as_so_few_allow(count: int, most: float) -> None:
    rng = np.random.default_rng(count)
    rates = []
    for _ in range(2000):
        known = rng.normal(size=count) / 10
        found = calibrate([], Policy(), left_out_truth=np.zeros(0), left_out_similarity=known).unknown_below
        rates.append(np.mean(rng.normal(size=50) / 10 < found))
    assert np.mean(rates) <= most + 0.005
    assert np.mean(rates) >= 0.7 * most  # and no fewer than that lets be seen


def test_the_audit_takes_its_share_and_always_the_same() -> None:
    policy = Policy(audit_share=0.05)
    taken = [is_audited(f"p{number}", policy) for number in range(4000)]
    assert np.mean(taken) == pytest.approx(0.05, abs=0.01)
    assert taken == [is_audited(f"p{number}", policy) for number in range(4000)]


def test_metrics_agree_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    rng = np.random.default_rng(3)
    positive, negative = rng.normal(1, 1, 80), rng.normal(0, 1, 120).round(1)
    truth, scores = np.repeat([1, 0], [80, 120]), np.concatenate([positive, negative])
    assert auroc(positive, negative) == pytest.approx(roc_auc_score(truth, scores))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert fpr_at_recall(positive, negative) == pytest.approx(false[np.argmax(true >= 0.95)])
    curve = risk_coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, True])
    assert curve.coverage_at(1.0) == 0.5
    assert curve.risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4])
    assert expected_calibration_error([0.9, 0.9, 0.1], [True, True, False]) == pytest.approx(0.1)


def test_the_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 2000)
    honest = 1.5 * np.eye(4)[truth] + rng.gumbel(size=(2000, 4))
    assert fitted_temperature(5 * honest, truth) > 3 * fitted_temperature(honest, truth)
