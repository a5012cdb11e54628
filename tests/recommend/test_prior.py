from __future__ import annotations

import numpy as np
import pytest
from tests.recommend.taste_world import world

from genba_recommend.dataset import Interactions, Kind, histories
from genba_recommend.features import DAY_S
from genba_recommend.prior import Prior, decayed_counts
from genba_recommend.sampling import Places, PriorByDay


def test_an_event_counts_half_after_a_half_life() -> None:
    events = Interactions.of([0, 0, 1], [0, 1, 1], [0.0, 3 * DAY_S, 3 * DAY_S])
    counts = decayed_counts(events, n_items=3, now_s=3 * DAY_S, half_life_days=3)
    assert counts.tolist() == [0.5, 2.0, 0.0]


def test_a_dislike_makes_nothing_popular() -> None:
    events = Interactions.of([0], [0], [0.0], kind=[Kind.DISLIKE])
    assert not decayed_counts(events, n_items=1, now_s=0.0, half_life_days=1).any()


def test_log_popularity_is_at_most_zero_and_finite_for_what_nobody_touched() -> None:
    logs = Prior(half_life_days=7).log_popularity(Interactions.of([0], [1], [0.0]), n_items=3, now_s=0.0)
    assert logs.max() == 0
    assert np.isfinite(logs).all()
    assert Prior().log_popularity(Interactions.of([], [], []), n_items=0, now_s=0.0).shape == (0,)


@pytest.mark.parametrize("most_cells", [10_000_000, 60 * 20])
def test_the_prior_of_a_day_knows_nothing_of_that_day_or_later(most_cells: int) -> None:
    data = world()
    prior = Prior(half_life_days=5)
    whole = PriorByDay.of(data.histories, prior, n_items=60, most_cells=most_cells)
    day = 30
    start_s = data.histories.time_s.min() + day // whole.days_each * whole.days_each * DAY_S
    early = data.interactions.take(data.interactions.time_s < start_s)
    cut = PriorByDay.of(histories(early, n_users=80), prior, n_items=60, most_cells=most_cells)
    assert len(whole.log_popularity) > len(cut.log_popularity)
    days, items = np.array([day]), np.arange(60)
    expected = decayed_counts(early, n_items=60, now_s=start_s, half_life_days=5)
    assert np.corrcoef(np.exp(whole.at(days, items)[0]), expected)[0, 1] > 0.99


def test_batches_are_neighbours_in_time_and_say_how_often_an_item_is_expected() -> None:
    data = world()
    places = Places.of(data.histories, n_items=60, half_life_days=20, skip_days=5)
    batches = list(places.epoch(1_024, batch=128, rng=np.random.default_rng(0)))
    assert len(batches) == 8
    assert max(np.ptp(batch.day) for batch in batches) < 30
    assert places.day.min() >= 5
    for batch in batches:
        assert batch.frequency.sum() == pytest.approx(1)
        assert (batch.frequency[batch.item] > 0).all()
        assert np.array_equal(data.histories.item[batch.place], batch.item)


def test_newer_places_are_drawn_more_often() -> None:
    places = Places.of(world().histories, n_items=60, half_life_days=5, skip_days=0)
    drawn = np.concatenate([b.day for b in places.epoch(4_096, batch=64, rng=np.random.default_rng(0))])
    assert (drawn > 30).mean() > 0.9


def test_only_the_first_event_of_a_user_with_an_item_is_learnt_from() -> None:
    day_s = [row * DAY_S for row in range(5)]
    events = Interactions.of([0, 0, 0, 1, 1], [1, 1, 2, 1, 2], day_s, weight=[0.5, 2, 1, 1, 1])
    places = Places.of(histories(events, n_users=2), n_items=3, half_life_days=1e9, skip_days=0)
    assert places.place.tolist() == [0, 2, 3, 4]
    assert places.chance.tolist() == pytest.approx(
        [0.4, 0.2, 0.2, 0.2]
    )  # a click that became a like counts as the like
