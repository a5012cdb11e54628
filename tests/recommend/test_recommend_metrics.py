from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.recommend.taste_world import world

from genba_recommend.dataset import Catalogue, Dataset, Interactions, Item, Split, User, split_by_time
from genba_recommend.metrics import (
    catalog_coverage,
    entropy,
    hits,
    ndcg_at_k,
    paired_bootstrap,
    precision_at_k,
    quality,
    questions,
    rank,
    rank_alike,
    recall_at_k,
    top_k,
)
from genba_recommend.prior import everybody


def reference(listed: list[int], relevant: set[int], k: int) -> tuple[float, float, float]:
    """NDCG, precision and recall as the textbooks write them, one user at a time."""
    gain = sum(1 / math.log2(place + 2) for place, item in enumerate(listed[:k]) if item in relevant)
    best = sum(1 / math.log2(place + 2) for place in range(min(k, len(relevant))))
    found = len(relevant & set(listed[:k]))
    return gain / best, found / k, found / len(relevant)


@given(st.integers(0, 10_000))
def test_measures_agree_with_the_textbook(seed: int) -> None:
    split = split_by_time(world(n_events=200, seed=seed % 50))
    asked = questions(split)
    scores = np.random.default_rng(seed).random((80, 60))
    lists = rank(lambda users: scores[users], asked, k=50)
    hit = hits(lists, asked)
    for at, user in enumerate(asked.users):
        before = set(split.train.interactions.item[split.train.interactions.user == user].tolist())
        relevant = set(split.test.interactions.item[split.test.interactions.user == user].tolist()) - before
        relevant &= set(np.flatnonzero(asked.candidates).tolist())
        right = [item for item in np.argsort(-scores[user]).tolist() if asked.candidates[item] and item not in before]
        assert [item for item in lists[at].tolist() if item >= 0] == right[:50]
        ndcg, precision, recall = reference(right, relevant, 10)
        assert ndcg_at_k(hit, asked.n_relevant, 10)[at] == pytest.approx(ndcg)
        assert precision_at_k(hit, 10)[at] == pytest.approx(precision)
        assert recall_at_k(hit, asked.n_relevant, 10)[at] == pytest.approx(recall)


def test_what_a_user_has_seen_and_what_nobody_touched_is_not_asked_for() -> None:
    events = Interactions.of([0, 1, 0, 0, 0, 2], [0, 1, 0, 1, 2, 0], [0.0, 0.0, 5.0, 5.0, 5.0, 5.0])
    data = Dataset(Catalogue(tuple(Item(str(row)) for row in range(3))), tuple(User(str(u)) for u in range(3)), events)
    train, test = data.with_interactions(events.take(slice(0, 2))), data.with_interactions(events.take(slice(2, 6)))
    asked = questions(Split(train, test))
    assert asked.users.tolist() == [0]  # user 1 does nothing later, user 2 did nothing before
    assert asked.relevant.tolist() == [1]  # 0 was seen, 2 is new to everybody
    assert asked.candidates.tolist() == [True, True, False]


def test_some_of_the_questions_keep_their_answers() -> None:
    asked = questions(split_by_time(world()))
    some = asked.of(np.array([1, 4]))
    assert some.users.tolist() == asked.users[[1, 4]].tolist()
    assert some.n_relevant.tolist() == asked.n_relevant[[1, 4]].tolist()
    assert (
        some.relevant[: some.relevant_offsets[1]].tolist()
        == asked.relevant[asked.relevant_offsets[1] : asked.relevant_offsets[2]].tolist()
    )


def test_ties_go_to_the_smaller_row_and_there_is_never_more_than_there_is() -> None:
    scores = np.array([[1.0, 3.0, 3.0, -np.inf]])
    assert top_k(scores, 2).tolist() == [[1, 2]]
    assert top_k(scores, 6).tolist() == [[1, 2, 0, -1, -1, -1]]


@pytest.mark.parametrize("n", [7, 650, 1003])
def test_the_best_of_many_are_those_of_a_sort(n: int) -> None:
    scores = np.random.default_rng(n).permuted(np.tile(np.arange(n, dtype=np.float32), (9, 1)), axis=1)
    scores[0, scores[0] > 3] = -np.inf
    listed, order = top_k(scores, 10), np.argsort(-scores, axis=1, kind="stable")[:, :10]
    there = np.take_along_axis(scores, order, 1) > -np.inf
    np.testing.assert_array_equal(listed[:, : order.shape[1]], np.where(there, order, -1))
    assert (listed[:, order.shape[1] :] == -1).all()


def test_coverage_and_entropy_tell_one_list_for_all_from_many() -> None:
    same, different = np.array([[0, 1], [0, 1]]), np.array([[0, 1], [2, 3]])
    assert catalog_coverage(same, 4) == 0.5
    assert catalog_coverage(different, 4) == 1.0
    assert entropy(same) == 1.0
    assert entropy(different) == 2.0


def test_a_perfect_ranking_has_every_measure_at_its_best() -> None:
    asked = questions(split_by_time(world()))
    scores = np.zeros((80, 60))
    scores[np.repeat(asked.users, asked.n_relevant), asked.relevant] = 1
    best = quality(rank(lambda users: scores[users], asked), asked)
    assert best.ndcg_at_10.min() == pytest.approx(1)
    assert best.recall_at_50.min() == 1


def test_a_bootstrap_finds_a_difference_and_none_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.random(500)
    assert paired_bootstrap(theirs + 0.1 + 0.2 * rng.standard_normal(500), theirs, seed=0).p < 0.01
    assert paired_bootstrap(theirs + 0.2 * rng.standard_normal(500), theirs, seed=0).p > 0.01
    with pytest.raises(ValueError, match="paired"):
        paired_bootstrap(theirs, theirs[:3], seed=0)


def test_one_order_for_all_gives_the_lists_of_full_ranking() -> None:
    data = world(n_events=2_000, n_items=60, n_users=40)
    asked = questions(split_by_time(data))
    drawn = np.random.default_rng(0)
    apart, tied = drawn.permutation(60).astype(np.float32), drawn.integers(0, 9, 60).astype(np.float32)
    tied[:3] = -np.inf
    for scores, k in ((apart, 10), (apart, 100), (tied, 100)):
        np.testing.assert_array_equal(rank_alike(scores, asked, k=k), rank(everybody(scores), asked, k=k))
