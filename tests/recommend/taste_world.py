"""A small world for the recommender's numerics: groups of users who like groups of items, in order of time."""

from __future__ import annotations

import numpy as np

from genba_recommend.dataset import Catalogue, Dataset, Interactions, Item, User
from genba_recommend.features import DAY_S

N_GROUPS, N_ITEMS, N_USERS = 4, 60, 80


def world(
    *, n_events: int = 1_500, n_items: int = N_ITEMS, n_users: int = N_USERS, days: float = 60.0, seed: int = 0
) -> Dataset:
    """Four in five events stay within the user's group; groups are genres."""
    rng = np.random.default_rng(seed)
    item_group, user_group = np.arange(n_items) % N_GROUPS, np.arange(n_users) % N_GROUPS
    user = rng.integers(0, n_users, n_events)
    own = rng.integers(0, n_items // N_GROUPS, n_events) * N_GROUPS + user_group[user]
    item = np.where(rng.random(n_events) < 0.8, own, rng.integers(0, n_items, n_events))
    items = tuple(
        Item(f"i{row}", title=f"作品 {row}", genre=(f"g{item_group[row]}",), maker=f"m{row % 3}")
        for row in range(n_items)
    )
    users = tuple(User(f"u{row}", region="tokyo" if row % 2 else None) for row in range(n_users))
    return Dataset(Catalogue(items), users, Interactions.of(user, item, rng.random(n_events) * days * DAY_S))
