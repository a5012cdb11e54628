"""What is measured is what is served; cold start and the dial for coverage ask and give what they say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from tests.recommend.taste_world import world

from genba_recommend.blending import Blend
from genba_recommend.cold_start import new_items, new_users
from genba_recommend.dataset import Catalogue, Dataset, Interactions, Item, Split, User, split_by_time
from genba_recommend.metrics import questions
from genba_recommend.neighbours import Neighbours
from genba_recommend.prior import Prior
from genba_recommend.reranker import Reranker
from genba_recommend.scoring import judge, served, with_prior


@dataclass(frozen=True)
class Served:
    """The terms of a model that are not its towers."""

    prior: Prior
    blend: Blend


def split() -> Split:
    items = tuple(Item(f"i{row}") for row in range(4))
    users = tuple(User(f"u{row}") for row in range(3))
    data = Dataset(Catalogue(items), users, Interactions.of([0, 1, 0, 2, 1, 0], [0, 1, 1, 0, 3, 3], range(6)))
    return split_by_time(data, newest=0.5)


def test_a_user_without_history_is_asked_among_what_is_known() -> None:
    asked = new_users(split())
    assert asked.users.tolist() == [2]
    assert asked.relevant.tolist() == [0]
    assert asked.candidates.tolist() == [True, True, False, False]


def test_an_item_never_seen_is_asked_of_users_with_history_and_only_against_its_like() -> None:
    asked = new_items(split())
    assert asked.users.tolist() == [0, 1]
    assert asked.relevant.tolist() == [3, 3]
    assert asked.candidates.tolist() == [False, False, False, True]


def test_the_first_model_is_compared_with_every_other_over_the_same_users() -> None:
    asked = questions(split_by_time(world()))
    scores = np.random.default_rng(0).random((80, 60))
    right = np.zeros((80, 60))
    right[np.repeat(asked.users, asked.n_relevant), asked.relevant] = 1.0
    judged = judge({"oracle": lambda users: right[users], "random": lambda users: scores[users]}, asked)
    assert judged.summary()["oracle"]["ndcg_at_10"] == pytest.approx(1.0)
    assert judged.against["random"].p < 0.001
    assert judged.against["random"].low > 0.3


def test_the_prior_shifts_every_user_alike() -> None:
    score = with_prior(lambda users: np.ones((len(users), 3), np.float32), np.array([0.0, -1, -2], np.float32), 0.5)
    assert score(np.arange(2)).tolist() == [[1.0, 0.5, 0.0]] * 2


def test_people_without_history_are_served_the_half_life_tuned_for_them() -> None:
    day_s = 86_400.0
    items, users = tuple(Item(f"i{row}") for row in range(2)), tuple(User(f"u{row}") for row in range(5))
    data = Dataset(Catalogue(items), users, Interactions.of([0, 1, 2, 3], [0, 0, 0, 1], [0.0, 0.0, 0.0, 30 * day_s]))
    score = served(
        lambda users: np.zeros((len(users), 2), np.float32),
        Served(Prior(half_life_days=1e4, newcomer_half_life_days=1.0), Blend()),
        Neighbours.none(2),
        Reranker.none(2),
        data,
    )
    assert score(np.arange(5)).argmax(1).tolist() == [0, 0, 0, 0, 1]
