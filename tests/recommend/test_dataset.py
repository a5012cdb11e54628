from __future__ import annotations

import numpy as np
import pytest
from tests.recommend.taste_world import N_USERS, world

from genba_recommend.dataset import (
    Catalogue,
    Dataset,
    Interactions,
    Item,
    Kind,
    User,
    from_records,
    histories,
    leave_last_out,
    split_by_time,
    split_each_user,
)


def test_a_global_split_lets_nothing_later_into_training() -> None:
    split = split_by_time(world(), newest=0.2)
    train, test = split.train.interactions, split.test.interactions
    assert train.time_s.max() <= test.time_s.min()
    assert len(test) == pytest.approx(0.2 * (len(train) + len(test)), abs=1)


def test_a_split_of_each_user_keeps_their_newest_events_apart() -> None:
    split = split_each_user(world(), newest=0.2)
    for user in range(N_USERS):
        old = split.train.interactions.time_s[split.train.interactions.user == user]
        new = split.test.interactions.time_s[split.test.interactions.user == user]
        assert old.max() <= new.min()


def test_leaving_the_last_out_asks_one_event_of_everybody() -> None:
    test = leave_last_out(world()).test.interactions
    assert np.array_equal(np.sort(test.user), np.arange(N_USERS))


def test_histories_hold_what_speaks_for_an_item_oldest_first() -> None:
    events = Interactions.of(
        [1, 0, 1, 1], [3, 2, 4, 5], [9.0, 1.0, 2.0, 3.0], kind=[Kind.LIKE, Kind.VIEW, Kind.CLICK, Kind.DISLIKE]
    )
    found = histories(events, n_users=3)
    assert [found.item[found.of(user)].tolist() for user in range(3)] == [[2], [4, 3], []]
    assert found.user.tolist() == [0, 1, 1]


def test_events_come_sorted_by_time() -> None:
    assert Interactions.of([0, 0], [1, 2], [5.0, 3.0]).item.tolist() == [2, 1]


def test_an_event_of_an_item_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="does not have"):
        Dataset(Catalogue((Item("a"),)), (User("u"),), Interactions.of([0], [1], [0.0]))


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        Interactions.of([0, 1], [1], [0.0, 1.0])


def test_the_hash_changes_with_any_value_and_with_nothing_else() -> None:
    assert world().data_hash == world().data_hash
    assert world().data_hash != world(seed=1).data_hash
    likes = from_records([Item("a")], [User("u")], [("u", "a", 1.0)])
    renamed = from_records([Item("a", title="A")], [User("u")], [("u", "a", 1.0)])
    assert likes.data_hash != renamed.data_hash
