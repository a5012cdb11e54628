"""What training reads: a tenant's catalogue, users and events out of the database, as the arrays of ``dataset``.

A user's events on one item become one, from when the first spoke for it, with the most that was said: liking what one has clicked
and watched is one taste, not three. Events of bots and bursts are left out, and so are those of items that never came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_recommend import store
from genba_recommend.dataset import Catalogue, Dataset, Interactions, User
from genba_recommend.noise import find_noise
from genba_recommend.tables import EventRow


@dataclass(frozen=True)
class Found:
    """A dataset, what each item's content hashed to when it was read, and what was left out."""

    dataset: Dataset
    content_hashes: Mapping[str, str]
    noise: Mapping[str, int]
    strays: int  # events of items that are not in the catalogue
    up_to_seq: int


def read(session: Session, tenant: str, *, up_to_seq: int | None = None) -> Found:
    """Read everything, events up to a place in the order of arrival."""
    entries, _ = store.entries(session, tenant)
    catalogue = Catalogue(tuple(entry.item for entry in entries))
    profiles = {user.user_id: user for user in store.users(session, tenant)}
    last = store.last_seq(session) if up_to_seq is None else up_to_seq
    users: dict[str, int] = {}
    columns: list[tuple[int, int, float, int, float, float]] = []
    strays = 0
    query = select(
        EventRow.user_id, EventRow.item_id, EventRow.at, EventRow.kind, EventRow.weight, EventRow.watched_s
    ).where(EventRow.tenant == tenant, EventRow.seq <= last)
    for user_id, item_id, at, kind, weight, watched_s in session.execute(query.order_by(EventRow.seq)).yield_per(
        10_000
    ):
        item = catalogue.row_by_id.get(item_id)
        if item is None:
            strays += 1
            continue
        user = users.setdefault(user_id, len(users))
        columns.append((user, item, at.timestamp(), kind, weight, np.nan if watched_s is None else watched_s))
    everyone = tuple(profiles.get(user_id, User(user_id)) for user_id in users)
    table = np.array(columns, np.float64).reshape(-1, 6)
    events = Interactions.of(
        table[:, 0], table[:, 1], table[:, 2], kind=table[:, 3], weight=table[:, 4], watched_s=table[:, 5]
    )
    noise = find_noise(events)
    kept = first_of_each(events.take(~noise.any))
    hashes = {entry.item.item_id: entry.content_hash for entry in entries}
    return Found(Dataset(catalogue, everyone, kept), hashes, noise.counts(), strays, last)


def first_of_each(events: Interactions) -> Interactions:
    """The positive events, one for each user and item: the time of the first, the weight and the seconds of the most."""
    positive = events.positive
    if not len(positive):
        return positive
    order = np.lexsort((positive.time_s, positive.item, positive.user))
    found = positive.take(order)
    new = np.ones(len(found), np.bool_)
    new[1:] = (found.user[1:] != found.user[:-1]) | (found.item[1:] != found.item[:-1])
    starts = np.flatnonzero(new)
    watched = np.maximum.reduceat(np.nan_to_num(found.watched_s, nan=-1.0), starts)
    return Interactions.of(
        found.user[starts],
        found.item[starts],
        found.time_s[starts],
        kind=found.kind[starts],
        weight=np.maximum.reduceat(found.weight, starts),
        watched_s=np.where(watched < 0, np.nan, watched),
    )
