"""The second stage learns how users differ from the crowd, from what came before, and leaves alone whom nobody knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from tests.recommend.taste_world import N_GROUPS, world

from genba_recommend import tuning
from genba_recommend.dataset import Catalogue, Dataset, Interactions, Item, Split, User, split_by_time
from genba_recommend.features import FIRST_KNOWN, EncoderConfig, Encoders, ItemFeatures
from genba_recommend.metrics import ScoreUsers, quality, questions, rank
from genba_recommend.prior import Prior, everybody
from genba_recommend.reranker import FEATURES, HEAD, YEAR_S, Reranker, age_of, head_first
from genba_recommend.reranker_fitting import conditional_logit, fit_reranker, look
from genba_recommend.scoring import lasting_now, popularity_now, reranked
from genba_recommend.tuning import tune

N_ITEMS, N_USERS = 200, 150


@pytest.fixture(scope="module")
def data() -> Dataset:
    return world(n_events=4_000, n_items=N_ITEMS, n_users=N_USERS)


def shuffled(data: Dataset) -> Dataset:
    """The same items at the same times by anybody."""
    events = data.interactions
    user = np.random.default_rng(1).permutation(events.user)
    return data.with_interactions(Interactions.of(user, events.item, events.time_s))


def codes_of(data: Dataset) -> tuple[ItemFeatures, int]:
    encoders = Encoders.fit(data, EncoderConfig())
    return encoders.items(data.catalogue), len(encoders.genres) + FIRST_KNOWN


def fitted(data: Dataset) -> Reranker:
    items, n_genres = codes_of(data)
    return fit_reranker(data, items, n_genres=n_genres, half_life_days=1e4, seed=0)


def looked(data: Dataset) -> Reranker:
    items, n_genres = codes_of(data)
    return look(data, items, n_genres=n_genres)


def popular(data: Dataset) -> ScoreUsers:
    return everybody(popularity_now(Prior(1e4), data.interactions, n_items=len(data.catalogue)))


def ndcg(score: ScoreUsers, split: Split) -> float:
    asked = questions(split)
    return float(quality(rank(score, asked), asked).ndcg_at_10.mean())


def test_it_puts_what_users_of_a_taste_choose_before_what_all_choose(data: Dataset) -> None:
    split = split_by_time(data)
    second, first = fitted(split.train), popular(split.train)
    assert second.weights[FEATURES.index("genre")] > 0
    assert ndcg(reranked(first, second, 1.0, split.train), split) > 1.5 * ndcg(first, split)


def test_where_nothing_tells_who_chooses_what_next_to_nothing_is_added(data: Dataset) -> None:
    # Whoever read what came after a moment would find the very choices that are asked for, and learn large weights.
    found, told = fitted(shuffled(data)), fitted(data)

    def spread(reranker: Reranker, data: Dataset) -> float:
        past = data.histories
        rows = np.arange(N_ITEMS)
        gains = [reranker.gains(reranker.profile_in(past, user), rows, now_s=past.time_s.max()) for user in range(40)]
        return float(np.std(gains))

    assert spread(found, shuffled(data)) < 0.2 * spread(told, data)


def test_what_came_after_a_moment_changes_nothing_that_was_known_then(data: Dataset) -> None:
    events, cut = data.interactions, 3_000
    later = np.arange(len(events)) >= cut
    other = replace(events, item=np.where(later, (events.item + 7) % N_ITEMS, events.item))
    ours, theirs = (looked(data.with_interactions(each.take(~later))) for each in (events, other))
    for name in ("direction", "lately", "ever", "genre_share", "age_share"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_weights_are_those_that_make_the_choices_most_likely() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3_000, 20, 2)).astype(np.float32)
    given = rng.normal(size=(3_000, 20)).astype(np.float32)
    given[::3, 15:] = -np.inf  # shorter shortlists
    scores = given + features @ np.array([1.2, -0.5])
    chosen = np.zeros(given.shape, np.bool_)
    chosen[np.arange(3_000), (scores + rng.gumbel(size=scores.shape)).argmax(1)] = True
    found = conditional_logit(features, given, chosen)
    np.testing.assert_allclose(found, [1.2, -0.5], atol=0.08)

    def loss(weights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        scores = given + features @ weights
        return -float((scores[chosen] - np.log(np.exp(scores).sum(1))).mean()) + 0.5e-3 * float(weights @ weights)

    np.testing.assert_allclose(found, minimize(loss, np.zeros(2)).x, atol=5e-3)


def test_a_user_like_the_crowd_gets_nothing_and_the_order_of_a_history_does_not_matter(data: Dataset) -> None:
    second = looked(data)
    rows = np.arange(N_ITEMS, dtype=np.int32)
    crowd = np.bincount(data.interactions.item, minlength=N_ITEMS).astype(np.float32)
    profile = second.profile(rows, crowd, np.zeros(N_ITEMS))
    assert np.abs(profile.genre[FIRST_KNOWN:]).max() < 0.02
    assert np.abs(profile.age).max() == 0.0  # nobody told when items were published
    mine, weight = rows[::N_GROUPS], np.linspace(0.5, 2, N_ITEMS // N_GROUPS, dtype=np.float32)
    at_s = np.linspace(0, 1e6, len(mine))
    one, other = second.profile(mine, weight, at_s), second.profile(mine[::-1], weight[::-1], at_s[::-1])
    for name in ("genre", "age", "point"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5)
    # A taste for one genre speaks for it and against the others.
    genre = second.features(one, rows, now_s=0.0)[:, FEATURES.index("genre")]
    assert genre[::N_GROUPS].min() > 0 > np.delete(genre, np.s_[::N_GROUPS]).max()


def test_ages_count_from_when_an_item_was_chosen() -> None:
    # Half the catalogue is new and half is old; one user takes old things, which everybody else leaves.
    items = tuple(Item(f"i{n}", published_at_s=-20 * YEAR_S if n % 2 else -0.1 * YEAR_S) for n in range(40))
    users = tuple(User(f"u{n}") for n in range(10))
    events = [(user, item, float(user)) for user in range(1, 10) for item in range(0, 40, 2)]
    events += [(0, item, 0.0) for item in range(1, 20, 2)]
    data = Dataset(Catalogue(items), users, Interactions.of(*zip(*events, strict=True)))
    second, past = looked(data), data.histories
    age = [
        second.features(second.profile_in(past, user), np.array([20, 21]), now_s=10.0)[:, FEATURES.index("age")]
        for user in (0, 1)
    ]
    assert age[0][1] > 0.5 > -0.5 > age[0][0]
    assert age[1][0] > age[1][1]
    assert age_of(np.array([np.nan, -np.inf, 5.0, -40 * YEAR_S]), 0.0).tolist() == [0, 0, 1, 8]


def test_only_a_shortlist_is_put_in_order_and_people_without_history_keep_theirs(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba_recommend.scoring.SHORTLIST", 15)
    events = data.interactions
    data = data.with_interactions(events.take(events.user != 3))
    first = np.random.default_rng(0).normal(size=(N_USERS, N_ITEMS)).astype(np.float32)
    second = replace(looked(data), weights=np.array([1, 1, 1, 1], np.float32))
    users = np.array([0, 3])
    known, stranger = reranked(lambda users: first[users], second, 1.0, data)(users)
    np.testing.assert_array_equal(stranger, first[3])
    monkeypatch.setattr("genba_recommend.scoring.SHORTLIST", 3)  # of whom there may be none in a batch, at any width
    np.testing.assert_array_equal(reranked(lambda users: first[users], second, 1.0, data)(users[1:]), first[3:4])
    monkeypatch.setattr("genba_recommend.scoring.SHORTLIST", 15)
    seen = data.histories.item[data.histories.of(0)]
    expected = first[0].copy()
    expected[seen] = -np.inf
    listed = np.flatnonzero(known > -np.inf)
    assert set(listed) == set(np.argsort(-expected)[:15])
    gains = second.gains(second.profile_in(data.histories, 0), listed, now_s=float(data.histories.time_s.max()))
    np.testing.assert_allclose(known[listed], first[0][listed] + gains, atol=1e-5)
    assert np.argsort(-known)[:15].tolist() != np.argsort(-expected)[:15].tolist()


def test_it_is_taken_where_it_helps_by_more_than_chance(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "KINDS", {})  # neighbours would say all of it first

    def weights(data: Dataset) -> tuple[float, float]:
        split = split_by_time(data)
        found = tune(
            lambda users: np.zeros((len(users), N_ITEMS), np.float32), split.train, questions(split),
            half_lives_days=(1e4,), prior_weights=(0.5, 1.0), reranker=fitted(split.train),
        )  # fmt: skip
        assert found.first_blend.reranker == 0.0
        return found.blend.reranker, found.blend.towers

    second, towers = weights(data)
    assert second > 0
    assert towers > 0  # discovery is theirs
    assert weights(shuffled(data))[0] == 0.0


def test_the_first_places_go_by_what_is_chosen_now_and_the_others_by_what_lasts_as_well() -> None:
    rng = np.random.default_rng(2)
    now, lasting = rng.normal(size=40), np.zeros(40)
    order = np.argsort(-now)
    lasting[order[30]], lasting[order[3]] = 9.0, 1.0
    places, scores = head_first((now + lasting).astype(np.float32), lasting.astype(np.float32), 20)
    assert places.tolist() == [*order[:HEAD], order[30], *order[HEAD:19]]
    assert np.all(np.diff(scores) < 0)
    np.testing.assert_allclose(scores[:HEAD], now[order[:HEAD]], atol=1e-5)
    few, _ = head_first((now + lasting).astype(np.float32), lasting.astype(np.float32), 4)
    assert few.tolist() == order[:4].tolist()
    nothing, _ = head_first(np.zeros(0, np.float32), np.zeros(0, np.float32), 4)
    assert not len(nothing)


def test_what_lasts_is_counted_where_more_is_found_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = world(n_events=12_000, n_items=N_ITEMS, n_users=N_USERS)
    events = data.interactions  # some items are chosen more than others, all the time
    data = data.with_interactions(
        events.take(np.random.default_rng(0).random(len(events)) < 8 / (8 + events.item // 4))
    )
    monkeypatch.setattr(tuning, "KINDS", {})
    monkeypatch.setattr("genba_recommend.scoring.SHORTLIST", N_ITEMS)
    monkeypatch.setattr("genba_recommend.tuning.SHORTLIST", N_ITEMS)
    split = split_by_time(data)
    asked, second = questions(split), fitted(split.train)

    def tuned(half_life_days: float) -> Prior:
        towers = everybody(np.zeros(N_ITEMS, np.float32))
        return tune(
            towers, split.train, asked, half_lives_days=(half_life_days,), prior_weights=(1.0,), reranker=second
        ).prior

    span_days = float(np.ptp(split.train.interactions.time_s)) / 86_400
    forgetful, lasting = tuned(span_days / 100), tuned(1e4 * span_days)
    assert forgetful.lasting > 0
    assert lasting.lasting == 0.0  # nothing fades: it would be the same list
    popular = popularity_now(forgetful, split.train.interactions, n_items=N_ITEMS)
    lists = [
        rank(reranked(everybody(popular), second, 1.0, split.train, each), asked)
        for each in (None, lasting_now(forgetful, split.train))
    ]
    np.testing.assert_array_equal(lists[0][:, :HEAD], lists[1][:, :HEAD])
    found = [float(quality(each, asked).recall_at_50.mean()) for each in lists]
    assert found[1] > found[0]


def test_too_few_people_teach_nothing() -> None:
    assert fitted(world(n_events=150)).is_empty
    assert fitted(world(n_events=1)).is_empty


def test_it_comes_back_as_it_was_written_and_follows_its_items_to_another_shelf(data: Dataset, tmp_path: Path) -> None:
    second = fitted(data)
    second.write(tmp_path / "reranker.npz")
    back = Reranker.read(tmp_path / "reranker.npz", second.genre)
    assert not back.is_empty
    rows = np.arange(N_ITEMS)
    profile = back.profile_in(data.histories, 5)
    expected = second.gains(second.profile_in(data.histories, 5), rows, now_s=0.0)
    np.testing.assert_array_equal(back.gains(profile, rows, now_s=0.0), expected)
    weighed = second.features(profile, rows, now_s=0.0) @ second.weights
    np.testing.assert_allclose(expected, weighed, atol=1e-5)
    # One item is gone, and one came that training did not know: its genre speaks, its people do not.
    place = np.where(rows == 0, -1, N_ITEMS - rows)  # backwards
    genre = np.concatenate([second.genre[:0:-1], second.genre[:2]])
    place[1:] -= 1
    moved = back.onto(place, genre, np.full(len(genre), -np.inf))
    np.testing.assert_allclose(moved.gains(profile, place[1:], now_s=0.0), expected[1:], rtol=1e-5)
    new = moved.features(profile, np.array([N_ITEMS]), now_s=0.0)[0]
    assert new[FEATURES.index("genre")] != 0
    assert new[[FEATURES.index("lately"), FEATURES.index("ever")]].tolist() == [0.0, 0.0]
