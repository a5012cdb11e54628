from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from genba_sem.active import choose
from genba_sem.classifier import CLASSIFIERS, DEFAULT, tempered
from genba_sem.encoders import Mask, Rows, unit
from genba_sem.fusion_choice import MEAN, Taught, right_without, simplest_that_wins
from genba_sem.label_issues import label_quality, ranked_issues
from genba_sem.learnt_head import LearntHead
from genba_sem.masters import MasterParticle
from genba_sem.metrics import mcnemar_p
from genba_sem.model import KeptMaster
from genba_sem.refining import best_classifier
from genba_sem.semi_supervised import Method, learn
from genba_sem.views import QualityMean


def clouds(
    rng: np.random.Generator, each: int, *, classes: int = 4, spread: float = 0.35
) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows around one axis a class."""
    labels = np.repeat(np.arange(classes), each)
    rows = np.eye(classes, 12)[labels] + spread * rng.normal(size=(len(labels), 12)) / np.sqrt(12)
    return unit(rows), labels


def test_typical_particles_of_every_region_are_asked_about_first() -> None:
    rows, labels = clouds(np.random.default_rng(0), 30)
    asked = choose(rows, 4, labelled=rows[:0], masters_per_label=0)
    assert sorted(labels[asked]) == [0, 1, 2, 3]
    more = choose(rows, 3, labelled=rows[asked[:1]], masters_per_label=1)
    assert labels[asked[0]] not in labels[more]


def test_margins_are_asked_about_once_labels_have_five_masters() -> None:
    rng = np.random.default_rng(1)
    rows, _ = clouds(rng, 30)
    probabilities = np.full((120, 4), 0.02)
    probabilities[:, 0] = 0.94
    doubtful = [5, 50, 90]
    probabilities[doubtful] = [0.5, 0.48, 0.01, 0.01]
    asked = choose(rows, 3, labelled=rows[:20], masters_per_label=5, probabilities=probabilities)
    assert set(asked) <= {*doubtful, *range(120)}
    assert len(set(asked) & set(doubtful)) >= 1
    with pytest.raises(ValueError, match="probabilities"):
        choose(rows, 3, labelled=rows[:20], masters_per_label=5, strategy="margin")


@pytest.mark.parametrize("strategy", ["hybrid", "typical", "margin", "random"])
def test_no_particle_is_asked_about_twice_and_the_choice_repeats(strategy: str) -> None:
    rng = np.random.default_rng(2)
    rows, _ = clouds(rng, 10)
    probabilities = tempered(rng.normal(size=(40, 4)), 1.0)
    picks = [
        choose(rows, 50, labelled=rows[:8], masters_per_label=9, probabilities=probabilities, strategy=strategy)  # type: ignore[arg-type]
        for _ in range(2)
    ]
    assert picks[0] == picks[1]
    assert sorted(picks[0]) == list(range(40))


def test_label_quality_agrees_with_cleanlab() -> None:
    from cleanlab.rank import get_label_quality_scores

    rng = np.random.default_rng(3)
    given = rng.integers(0, 5, 200)
    probabilities = tempered(rng.normal(size=(200, 5)) + 2 * np.eye(5)[given], 1.0)
    theirs = get_label_quality_scores(given, probabilities, method="normalized_margin", adjust_pred_probs=True)
    assert label_quality(probabilities, given) == pytest.approx(theirs, abs=1e-9)


def test_planted_errors_come_first() -> None:
    rng = np.random.default_rng(4)
    rows, labels = clouds(rng, 20)
    given = labels.copy()
    wrong = [3, 25, 47, 70]
    given[wrong] = (given[wrong] + 1) % 4
    issues = ranked_issues(rows, given, ("a", "b", "c", "d"))
    assert {issue.index for issue in issues[:4]} == set(wrong)
    assert issues[0].suggested == "abcd"[labels[issues[0].index]]
    assert ranked_issues(rows[:2], np.array([0, 1]), ("a", "b")) == []


@pytest.mark.parametrize("method", ["fixmatch", "freematch", "softmatch"])
def test_unlabelled_particles_help_and_their_pseudo_labels_are_reported(method: Method) -> None:
    rng = np.random.default_rng(5)
    rows, labels = clouds(rng, 60, spread=1.0)
    views = [unit(row + 0.1 * rng.normal(size=(3, 12))) for row in rows]
    known = [int(np.flatnonzero(labels == label)[0]) for label in range(4)]
    rest = [index for index in range(240) if index not in known]
    learnt = learn([views[i] for i in known], labels[known], [views[i] for i in rest], 4, method=method)
    alone = learn([views[i] for i in known], labels[known], [], 4, method=method)
    accuracy = [float((head.logits(rows[rest]).argmax(1) == labels[rest]).mean()) for head in (learnt, alone)]
    assert accuracy[0] >= accuracy[1] - 0.02
    assert accuracy[0] > 0.8
    assert len(learnt.rounds) == 10
    assert alone.rounds[-1].taken == 0
    if (learnt.pseudo >= 0).any():
        assert learnt.pseudo_label_precision(labels[rest]) > 0.8


def test_learning_without_a_label_is_refused() -> None:
    with pytest.raises(ValueError, match="without a labelled"):
        learn([], np.zeros(0, np.int64), [], 2)


def test_a_richer_fusion_is_taken_only_where_a_test_says_that_it_is_better() -> None:
    mean = [True] * 20 + [False] * 20
    by_luck = [True] * 22 + [False] * 18
    better = [True] * 30 + [False] * 10
    assert mcnemar_p(by_luck, mean) == pytest.approx(0.25)
    assert mcnemar_p(mean, mean) == 1
    assert simplest_that_wins({MEAN: mean, "deep-sets": by_luck, "gated-attention": by_luck}) == MEAN
    assert simplest_that_wins({MEAN: mean, "deep-sets": better, "set-transformer": better}) == "deep-sets"


def test_attention_wins_where_most_views_show_nothing_of_the_label() -> None:
    rng = np.random.default_rng(6)
    labels = np.repeat(np.arange(3), 14)
    clutter = np.eye(3, 24)[[0, 0, 0, 0]] * 0 + np.eye(24)[20]
    rows = []
    for label in labels:
        own = np.eye(24)[label] + np.eye(24)[10] + 0.15 * rng.normal(size=24)
        others = np.eye(24)[rng.integers(0, 3, 5)] * 1.5 + clutter[0] + 0.15 * rng.normal(size=(5, 24))
        rows.append(unit(np.concatenate([own[None], others])))
    taught = Taught(rows, [np.ones(6, np.float32)] * len(rows), labels, 3)
    right = {
        name: [each for fold in range(3) for each in right_without(name, taught, fold, classifier="blend-v1", seed=0)]
        for name in (MEAN, "gated-attention")
    }
    assert np.mean(right["gated-attention"]) > np.mean(right[MEAN])
    assert simplest_that_wins(right) == "gated-attention"


def test_a_learnt_head_speaks_for_successors_and_steps_aside_for_what_it_has_not_learnt() -> None:
    head = LearntHead("softmatch", ("a", "b", "c"), np.eye(3), {})
    rows = np.eye(3, dtype=np.float32)
    merged = head.relabelled({"b": "c"}.get)
    assert merged.columns == ("a", "c", "c")
    assert merged.speaks_for(("a", "c"), 3)
    assert list(merged.logits(rows, ("a", "c")).argmax(1)) == [0, 1, 1]
    assert not merged.speaks_for(("a", "d"), 3)
    assert not merged.speaks_for(("a", "c"), 4)


class _AsTheyAre:
    """An encoder whose raw rows are its rows."""

    id = kind = name = "as-they-are"
    raw_dim = dim = 12

    def describe(self, pixels: Rows, mask: Mask) -> Rows:
        raise NotImplementedError

    def embed(self, raw: Rows) -> Rows:
        return unit(raw)


def _masters(centres: Rows, labels: Sequence[int], each: int) -> list[KeptMaster]:
    rng = np.random.default_rng(4)
    made = []
    for at, label in enumerate(labels):
        for number in range(each):
            row = np.asarray(centres[at] + 0.2 * rng.normal(size=centres.shape[1]), np.float32)
            made.append(
                KeptMaster(MasterParticle(f"p{at}-{number}", f"lbl_{label}", row[None], np.ones(1, np.float32)), 0)
            )
    return made


def test_another_classifier_than_the_default_is_taken_only_where_a_test_says_that_it_is_better() -> None:
    axes = np.eye(12, dtype=np.float32)
    clear, scores = best_classifier(_AsTheyAre(), QualityMean(), _masters(axes[:3], (0, 1, 2), 6))
    assert clear == DEFAULT
    assert set(scores) == set(CLASSIFIERS)
    two_faced = np.stack([axes[0], -axes[0], axes[1], -axes[1]])  # no line divides them
    found, scores = best_classifier(_AsTheyAre(), QualityMean(), _masters(two_faced, (0, 0, 1, 1), 8))
    assert (found, scores[found]) == ("nearest-v1", 1.0)
