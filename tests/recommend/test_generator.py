"""The generated world has structure: what knows more of it ranks better, and each planted effect can be seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from genba_recommend.dataset import POSITIVE_KINDS, Kind
from genba_recommend.generator import Habits, Size, World, generate, write
from genba_recommend.generator_behaviour import KINDS
from genba_recommend.generator_catalogue import DAY_S, TAGS
from genba_recommend.generator_words import STYLES

Scores = NDArray[np.float64]


@pytest.fixture(scope="module")
def world() -> World:
    return generate(Size(items=1500, users=800, days=50), seed=3)


class Protocol:
    """Global time split, last fifth held out; full ranking over what is published by then, seen removed; NDCG@10 of clicks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cut_s = world.start_s + int(0.8 * world.size.days) * DAY_S
        clicks = world.events.of("click")
        self.train, self.test = clicks.pick(clicks.at_s < self.cut_s), clicks.pick(clicks.at_s >= self.cut_s)
        there = np.isin(np.arange(world.size.items), self.test.items) & (world.catalogue.published_s < self.cut_s)
        self.users = np.intersect1d(self.train.users, self.test.users[there[self.test.items]])

    def matrix(self) -> Scores:
        """(U, N) 1 where a user clicked before the cut."""
        seen = np.zeros((self.world.size.users, self.world.size.items))
        seen[self.train.users, self.train.items] = 1
        return seen

    def ndcg_at_10(self, scores: Scores) -> float:
        """scores: (U, N) or (N,)."""
        scores = np.where(self.world.catalogue.published_s < self.cut_s, np.atleast_2d(scores), -np.inf)
        gains = np.zeros((self.world.size.users, self.world.size.items))
        gains[self.test.users, self.test.items] = 1
        gains[:, self.world.catalogue.published_s >= self.cut_s] = 0
        ranked = np.argsort(np.where(self.matrix() > 0, -np.inf, scores), axis=1)[:, ::-1][:, :10]
        discount = 1 / np.log2(np.arange(2, 12))
        found = (np.take_along_axis(gains, ranked, 1) * discount).sum(1)
        ideal = np.array([discount[: int(min(n, 10))].sum() for n in gains.sum(1)])
        return float((found[self.users] / ideal[self.users]).mean())

    def popularity(self) -> Scores:
        return self.decayed_popularity(np.inf)

    def decayed_popularity(self, half_life_days: float) -> Scores:
        weight = 0.5 ** ((self.cut_s - self.train.at_s) / DAY_S / half_life_days)
        return np.bincount(self.train.items, weight, minlength=self.world.size.items).astype(np.float64)

    def item_knn(self) -> Scores:
        seen = self.matrix()
        together = seen.T @ seen
        norm = np.sqrt(np.diag(together))
        cosine = together / (np.outer(norm, norm) + 10)
        np.fill_diagonal(cosine, 0)
        return np.asarray(seen @ cosine)

    def oracle(self) -> Scores:
        return self.world.true_scores(np.arange(self.world.size.users), self.cut_s)

    def by_chance(self) -> Scores:
        return np.random.default_rng(0).random((self.world.size.users, self.world.size.items))


def test_an_oracle_of_tastes_beats_co_occurrence_and_decayed_popularity_which_beat_popularity_which_beats_chance(
    world: World,
) -> None:
    protocol = Protocol(world)
    oracle, knn = protocol.ndcg_at_10(protocol.oracle()), protocol.ndcg_at_10(protocol.item_knn())
    decayed = protocol.ndcg_at_10(protocol.decayed_popularity(3.0))
    popular, chance = protocol.ndcg_at_10(protocol.popularity()), protocol.ndcg_at_10(protocol.by_chance())
    assert oracle > 1.5 * max(knn, decayed)
    assert min(knn, decayed) > 1.2 * popular
    assert popular > 2 * chance


def test_popularity_has_a_long_tail(world: World) -> None:
    clicks = np.sort(np.bincount(world.events.of("click").items, minlength=world.size.items))[::-1]
    assert clicks[: world.size.items // 10].sum() > 0.45 * clicks.sum()
    assert (clicks > 0).mean() > 0.6


def test_trends_move_so_that_last_weeks_favourites_are_not_those_of_the_first_week(world: World) -> None:
    shown, day = world.events.of("impression"), (world.events.of("impression").at_s - world.start_s) // DAY_S

    def shares(first: int, last: int) -> Scores:
        rows = (day >= first) & (day < last)
        counts = np.bincount(world.catalogue.styles[shown.items[rows]], minlength=len(STYLES))
        return np.asarray(counts / counts.sum())

    def distance(a: Scores, b: Scores) -> float:
        return float(np.abs(a - b).sum() / 2)

    assert distance(shares(0, 7), shares(43, 50)) > 1.5 * distance(shares(0, 7), shares(7, 14))


def test_tastes_move_so_that_old_clicks_say_less_than_new_ones(world: World) -> None:
    moved = np.flatnonzero((world.hidden.switch_day > 15) & (world.hidden.switch_day < 35))
    clicks = world.events.of("click")
    clicks = clicks.pick(np.isin(clicks.users, moved))
    day = (clicks.at_s - world.start_s) / DAY_S
    taste_now = world.hidden.taste(clicks.users, np.full(len(clicks), float(world.size.days)))
    affinity = (taste_now * world.hidden.item_vectors[clicks.items]).sum(1)
    since = day - world.hidden.switch_day[clicks.users]
    assert affinity[since > 3].mean() > affinity[since < -3].mean() + 0.2


def test_a_world_that_stands_still_has_neither_trends_nor_tastes_that_move_and_weak_taste_chooses_less() -> None:
    size = Size(items=300, users=120, days=20)
    still = generate(size, habits=Habits(drift="still"))
    assert np.ptp(still.hidden.trend) == 0
    np.testing.assert_array_equal(still.hidden.taste_before, still.hidden.taste_after)

    def fit(world: World) -> float:
        """Mean cosine of tastes and what was shown."""
        shown = world.events.of("impression")
        days = (shown.at_s - world.start_s) / DAY_S
        return float((world.hidden.taste(shown.users, days) * world.hidden.item_vectors[shown.items]).sum(1).mean())

    assert fit(generate(size, habits=Habits(taste=0.5))) < 0.6 * fit(generate(size))


def test_a_session_keeps_to_its_mood(world: World) -> None:
    shown = world.events.of("impression")
    styles = world.catalogue.styles[shown.items]
    next_one = (shown.sessions[1:] == shown.sessions[:-1]) & (shown.users[1:] == shown.users[:-1])
    same = styles[1:] == styles[:-1]
    by_user = shown.pick(np.argsort(shown.users, kind="stable"))
    other_visit = (by_user.users[1:] == by_user.users[:-1]) & (by_user.sessions[1:] != by_user.sessions[:-1])
    between = (world.catalogue.styles[by_user.items[1:]] == world.catalogue.styles[by_user.items[:-1]])[other_visit]
    assert same[next_one].mean() > 1.3 * between.mean()


def test_who_fits_clicks_watches_and_likes_more_and_who_does_not_dislikes(world: World) -> None:
    events = world.events
    taste = world.hidden.taste(events.users, (events.at_s - world.start_s) / DAY_S)
    affinity = (taste * world.hidden.item_vectors[events.items]).sum(1)
    shown, clicked, liked, disliked = (
        affinity[events.kinds == KINDS.index(kind)].mean() for kind in ("impression", "click", "like", "dislike")
    )
    assert disliked < shown < clicked < liked
    views = events.of("view")
    watched = views.watched_s / world.catalogue.durations_s[views.items]
    fits = affinity[events.kinds == KINDS.index("view")] > 0.6
    assert watched[fits].mean() > watched[~fits].mean() + 0.1
    assert watched.max() <= 1.01


def test_nothing_is_shown_before_it_is_published_or_to_somebody_who_has_not_joined_nor_clicked_twice(
    world: World,
) -> None:
    shown = world.events.of("impression")
    day = (shown.at_s - world.start_s) // DAY_S
    published_day = (world.catalogue.published_s[shown.items] - world.start_s) // DAY_S
    assert (day >= published_day).all()
    assert (shown.at_s >= world.people.joined_s[shown.users]).all()
    clicks = world.events.of("click")
    assert len(np.unique(clicks.users.astype(np.int64) * world.size.items + clicks.items)) == len(clicks)
    assert (np.diff(world.events.at_s) >= 0).all()


def test_new_items_and_new_users_appear_during_the_log(world: World) -> None:
    assert 0.15 < (world.catalogue.published_s > world.start_s).mean() < 0.25
    assert 0.15 < (world.people.joined_s > world.start_s).mean() < 0.25


def test_features_of_an_item_and_the_age_of_a_user_tell_of_taste(world: World) -> None:
    catalogue, vectors = world.catalogue, world.hidden.item_vectors
    for names in (catalogue.genres[:, 0], catalogue.makers, catalogue.performers[:, 0], catalogue.tags[:, 0]):
        pairs = vectors @ vectors.T
        alike = (names[:, None] == names) & ~np.eye(len(names), dtype=np.bool_)
        assert pairs[alike].mean() > pairs.mean() + 0.15
    tastes, ages = world.hidden.taste_before, world.people.ages
    told = ages >= 0
    pairs = tastes[told] @ tastes[told].T
    assert pairs[ages[told][:, None] == ages[told]].mean() > pairs.mean() + 0.02


def test_the_same_seed_makes_the_same_world_and_another_seed_another() -> None:
    first, again, other = (generate(Size(200, 50, 10), seed=seed) for seed in (1, 1, 2))
    assert list(first.event_rows()) == list(again.event_rows())
    assert list(first.item_rows()) == list(again.item_rows())
    assert list(first.event_rows()) != list(other.event_rows())


def test_files_hold_the_wires_rows_in_both_languages(tmp_path: Path) -> None:
    said: list[str] = []
    world = generate(Size(300, 60, 14), seed=5, progress=lambda _share, what: said.append(what))
    written = write(world, tmp_path / "demo")
    items, users, events = (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in (written.items_path, written.users_path, written.events_path)
    )
    assert (
        (len(items), len(users), len(events))
        == (written.items, written.users, written.events)
        == (300, 60, len(world.events))
    )
    assert said[-1] == f"{written.events} events"
    assert {row["kind"] for row in events} == set(KINDS)
    assert all(("watched_s" in row) == (row["kind"] == "view") for row in events)
    assert len({row["event_id"] for row in events}) == len(events)
    assert {row["user_id"] for row in events} <= {row["user_id"] for row in users}
    assert all(set(row["tags"]) <= set(TAGS) and row["tags"] and row["performers"] and row["genre"] for row in items)
    assert any(len(row["genre"]) == 2 for row in items)
    in_japanese = [any("ぁ" <= letter <= "龠" for letter in row["title"]) for row in items]
    assert 0.5 < sum(in_japanese) / len(items) < 0.9
    assert any("age_range" not in row for row in users)
    assert any("region" in row for row in users)


def test_a_tiny_world_can_be_made() -> None:
    world = generate(Size(items=3, users=2, days=2), seed=0)
    assert len(list(world.item_rows())) == 3


def test_a_world_without_anybody_is_refused() -> None:
    with pytest.raises(ValueError, match="users"):
        generate(Size(users=0))


def test_the_arrays_of_training_say_the_same_as_the_files(world: World) -> None:
    dataset = world.dataset()
    rows = list(world.event_rows())
    assert len(dataset.interactions) == len(rows)
    assert len(dataset.catalogue) == world.size.items
    for n in (0, len(rows) // 2, len(rows) - 1):
        assert dataset.catalogue.items[dataset.interactions.item[n]].item_id == rows[n]["item_id"]
        assert dataset.users[dataset.interactions.user[n]].user_id == rows[n]["user_id"]
        assert Kind(dataset.interactions.kind[n]).name.lower() == rows[n]["kind"]
    assert len(dataset.histories.item) == np.isin(dataset.interactions.kind, POSITIVE_KINDS).sum()
