"""Planted bots and bursts are found among generated people, who are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from genba_recommend.dataset import Interactions, Kind
from genba_recommend.generator import Size, World, generate
from genba_recommend.noise import NoiseRules, find_noise


@pytest.fixture(scope="module")
def world() -> World:
    return generate(Size(items=800, users=400, days=30), seed=2)


@pytest.fixture(scope="module")
def people(world: World) -> Interactions:
    return world.dataset().interactions


def with_more(people: Interactions, more: Interactions) -> Interactions:
    columns = {
        name: np.concatenate([getattr(people, name), getattr(more, name)])
        for name in ("user", "item", "time_s", "kind", "weight", "watched_s")
    }
    return Interactions.of(**columns)


def crawler(world: World, *, user: int, gap_s: float, jitter_s: float = 0.0) -> Interactions:
    """Two days of clicks."""
    rng = np.random.default_rng(user)
    time_s = world.start_s + 5 * 86_400 + np.arange(0, 2 * 86_400, gap_s)
    time_s = time_s + rng.uniform(0, jitter_s, len(time_s))
    items = rng.integers(0, world.size.items, len(time_s))
    return Interactions.of(np.full(len(time_s), user), items, time_s, kind=np.full(len(time_s), Kind.CLICK))


def test_generated_people_are_hardly_ever_taken_for_bots(people: Interactions, world: World) -> None:
    found = find_noise(people)
    assert len(found.bots) <= world.size.users // 100
    assert not found.burst.any()


def test_a_crawler_that_never_sleeps_is_a_bot_even_when_its_beat_is_hidden(people: Interactions, world: World) -> None:
    found = find_noise(with_more(people, crawler(world, user=400, gap_s=120, jitter_s=600)))
    assert 400 in found.bots
    assert len(found.bots) <= 1 + world.size.users // 100


def test_a_script_with_a_fixed_beat_is_a_bot_even_when_it_works_an_hour_a_day(
    people: Interactions, world: World
) -> None:
    script = crawler(world, user=401, gap_s=20, jitter_s=1)
    working = script.take((script.time_s % 86_400) < 3600)
    assert 401 in find_noise(with_more(people, working)).bots


def test_somebody_who_watches_more_seconds_than_pass_is_a_bot(people: Interactions, world: World) -> None:
    rng = np.random.default_rng(0)
    time_s = world.start_s + np.sort(rng.uniform(0, 36_000, 60))
    views = Interactions.of(
        np.full(60, 402), np.arange(60), time_s, kind=np.full(60, Kind.VIEW), watched_s=np.full(60, 3600.0)
    )
    assert 402 in find_noise(with_more(people, views)).bots


def test_likes_bought_from_throw_away_accounts_are_a_burst_and_the_items_own_fans_are_kept(
    people: Interactions, world: World
) -> None:
    rng = np.random.default_rng(0)
    item = int(np.bincount(people.item).argmax())
    start = world.start_s + 10 * 86_400
    bought = Interactions.of(np.arange(1000, 1080), np.full(80, item), start + rng.uniform(0, 3000, 80))
    events = with_more(people, bought)
    found = find_noise(events)
    assert found.burst_items.tolist() == [item]
    assert found.burst[events.user >= 1000].all()
    assert not found.burst[(events.user < 400) & (np.bincount(people.user, minlength=1080)[events.user] > 50)].any()


def test_a_premiere_that_real_viewers_flock_to_is_no_burst(people: Interactions, world: World) -> None:
    fans = np.argsort(-np.bincount(people.user))[:150]
    start = world.start_s + 10 * 86_400
    premiere = Interactions.of(fans, np.full(150, 3), start + np.arange(150) * 10.0)
    assert not find_noise(with_more(people, premiere)).burst.any()


def test_a_view_of_a_second_is_marked_and_one_of_unknown_length_is_not() -> None:
    events = Interactions.of([0, 0, 0], [1, 2, 3], [0.0, 1.0, 2.0], kind=[Kind.VIEW] * 3, watched_s=[1.0, np.nan, 60.0])
    assert find_noise(events).any.tolist() == [True, False, False]


def test_marks_are_counted_for_the_jobs_metrics(people: Interactions, world: World) -> None:
    found = find_noise(with_more(people, crawler(world, user=400, gap_s=60)))
    counts = found.counts()
    assert counts["bots"] == len(found.bots)
    assert counts["bot_events"] >= 2880


def test_impressions_alone_make_nobody_a_bot_and_no_events_are_fine() -> None:
    shown = Interactions.of(
        np.zeros(5000), np.arange(5000), np.arange(5000) * 60.0, kind=np.full(5000, Kind.IMPRESSION)
    )
    assert not find_noise(shown).any.any()
    assert find_noise(shown.take(slice(0, 0)), NoiseRules(min_actions=1)).counts()["bots"] == 0
