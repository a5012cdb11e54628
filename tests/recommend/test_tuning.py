"""Weights follow the data: a term that helps is taken, one that does not is left out, and strangers get what is popular."""

from __future__ import annotations

import numpy as np
import pytest
from tests.recommend.taste_world import world

from genba_recommend import tuning
from genba_recommend.blending import Blend
from genba_recommend.cold_start import new_users
from genba_recommend.dataset import Catalogue, Dataset, Interactions, Item, User, split_by_time
from genba_recommend.metrics import Questions, ScoreUsers, quality, questions, rank
from genba_recommend.prior import Prior, everybody
from genba_recommend.scoring import blended, popularity_now, with_prior
from genba_recommend.tuning import Tuned, fit_neighbours, half_lives_within, tune

N_ITEMS, N_USERS = 200, 150


def noise(seed: int = 0) -> ScoreUsers:
    """Towers that know nothing."""
    drawn = np.random.default_rng(seed).normal(size=(N_USERS, N_ITEMS)).astype(np.float32)
    return lambda users: drawn[users]


def truth(data: Dataset) -> ScoreUsers:
    """Towers that know everybody's group."""
    items = np.array([int(item.genre[0][1:]) for item in data.catalogue.items])
    fits = (items[None, :] == np.arange(N_USERS)[:, None] % 4).astype(np.float32)
    return lambda users: 3.0 * fits[users]


def shuffled(data: Dataset) -> Dataset:
    """The same items at the same times by anybody: nothing goes with anything."""
    events = data.interactions
    user = np.random.default_rng(0).permutation(events.user)
    return data.with_interactions(Interactions.of(user, events.item, events.time_s))


def tuned(data: Dataset, towers: ScoreUsers) -> Tuned:
    split = split_by_time(data)
    return tune(
        towers, split.train, questions(split),
        half_lives_days=(3.0, 1e4), prior_weights=(0.1, 0.5, 1.0, 2.0),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    return world(n_events=4_000, n_items=N_ITEMS, n_users=N_USERS)


def test_where_towers_know_nothing_neighbours_carry_the_list(data: Dataset) -> None:
    found = tuned(data, noise())
    assert found.blend.neighbours > 0
    assert found.blended.ndcg_at_10.mean() > 1.5 * found.alone.ndcg_at_10.mean()


def test_what_is_tuned_is_at_least_as_good_as_every_term_alone(data: Dataset) -> None:
    split = split_by_time(data)
    asked, events = questions(split), split.train.interactions
    found = tuned(data, truth(data))
    best = float(found.blended.ndcg_at_10.mean())
    popular = popularity_now(Prior(1e4), events, n_items=N_ITEMS)
    alone = [truth(data), everybody(popular)]
    for kind in ("item_knn", "ease_100", "ease_500"):
        neighbours = fit_neighbours(kind, events, n_users=N_USERS, n_items=N_ITEMS)
        alone.append(blended(noise(), neighbours, split.train.histories, Blend(towers=0.0, neighbours=1.0)))
    assert all(best >= float(quality(rank(score, asked), asked).ndcg_at_10.mean()) - 1e-9 for score in alone)


def test_where_nothing_goes_with_anything_there_are_no_neighbours(data: Dataset) -> None:
    assert tuned(shuffled(data), noise()).blend.neighbours == 0.0


def test_trials_agree_with_full_ranking(data: Dataset) -> None:
    split = split_by_time(data)
    asked, events, towers = questions(split), split.train.interactions, truth(data)
    found = tuned(data, towers)
    for prior, blend, ndcg in found.trials[:: max(1, len(found.trials) // 8)]:
        neighbours = fit_neighbours(blend.kind, events, n_users=N_USERS, n_items=N_ITEMS)
        popular = popularity_now(prior, events, n_items=N_ITEMS)
        score = with_prior(blended(towers, neighbours, split.train.histories, blend), popular, prior.weight)
        assert float(quality(rank(score, asked), asked).ndcg_at_10.mean()) == pytest.approx(ndcg, abs=2e-3)


def test_strangers_get_the_towers_only_where_that_helps(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "LEAST_STRANGERS", 20)
    # The first 30 users appear in the newest fifth alone.
    events = data.interactions
    cut_s = float(np.quantile(events.time_s, 0.8))
    late = data.with_interactions(events.take((events.user >= 30) | (events.time_s >= cut_s)))
    split = split_by_time(late, newest=float((late.interactions.time_s >= cut_s).mean()))
    strangers = new_users(split)
    assert len(strangers) >= 20
    weights = {
        name: tune(
            towers, split.train, questions(split),
            half_lives_days=(1e4,), prior_weights=(0.5, 1.0), strangers=strangers,
        ).blend.stranger
        for name, towers in (("profile", truth(data)), ("noise", noise()))
    }  # fmt: skip
    assert weights["profile"] > 0
    assert weights["noise"] == 0.0
    monkeypatch.setattr(tuning, "LEAST_STRANGERS", 100)  # so few say nothing
    found = tune(
        truth(data), split.train, questions(split),
        half_lives_days=(1e4,), prior_weights=(0.5, 1.0), strangers=strangers,
    )  # fmt: skip
    assert found.blend.stranger == 0.0


def test_people_without_history_get_the_half_life_that_is_best_without_the_towers() -> None:
    # Item 0 was taken long ago by many, item 1 lately by a few. Of those asked afterwards more take what was taken lately.
    day_s = 86_400.0
    old, late = [(user, 0, user * 100.0) for user in range(20)], [(20 + n, 1, 30 * day_s) for n in range(5)]
    events = Interactions.of(*zip(*old, *late, strict=True))
    nothing = np.zeros(0, np.int64)
    data = Dataset(Catalogue((Item("a"), Item("b"))), tuple(User(str(user)) for user in range(40)), events)

    def asked(users: range, relevant: int) -> Questions:
        n = len(users)
        known = (nothing, np.zeros(n + 1, np.int64), np.ones(2, np.bool_))
        return Questions(np.array(users), np.full(n, relevant), np.arange(n + 1), *known)

    def newcomer_half_life_days(strangers: Questions | None) -> float | None:
        return tune(
            lambda users: np.zeros((len(users), 2), np.float32), data, asked(range(3), 0),
            half_lives_days=(1.0, 1e4), prior_weights=(1.0,), strangers=strangers,
        ).prior.newcomer_half_life_days  # fmt: skip

    assert newcomer_half_life_days(None) == 1e4
    assert newcomer_half_life_days(asked(range(30, 31), 1)) == 1e4
    assert newcomer_half_life_days(asked(range(30, 32), 1)) == 1.0  # the other is not better by more than chance
    assert newcomer_half_life_days(asked(range(30, 34), 1)) == 1.0


def test_half_lives_longer_than_the_log_are_not_tried_and_no_fading_always_is() -> None:
    events = Interactions.of([0, 0], [0, 1], [0.0, 10 * 86_400.0])
    assert half_lives_within((1.0, 7.0, 30.0), events) == (1.0, 7.0, 1000.0)
    assert half_lives_within((30.0,), events) == (30.0, 1000.0)


def test_the_less_is_known_of_somebody_the_less_the_towers_count() -> None:
    blend = Blend(towers=1.0, doubt=3.0, stranger=0.25, neighbours=2.0, fade=0.5)
    np.testing.assert_allclose(blend.towers_at(np.array([0, 1, 3, 97])), [0.25, 0.25, 0.5, 0.97])
    np.testing.assert_allclose(Blend().towers_at(np.array([0, 1, 50])), [0.0, 1.0, 1.0])
    spoken = blend.of_history(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], np.float32))
    np.testing.assert_allclose(spoken, [[2 / np.sqrt(1.5), 1 / np.sqrt(1.5), 0.0], [0.0, 0.0, 0.0]], rtol=1e-6)
