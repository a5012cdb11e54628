"""What a recommender learns from: a catalogue, its users and what they did, as arrays. Knows nothing of databases, files or models.

An interaction refers to its user and item by their row in ``Dataset.users`` and ``Catalogue.items``; rows are all that the
numerics see, ids come back at the edge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Index = Ints | Bools | slice


class Kind(IntEnum):
    """What a user did; the numbers are stored in arrays and never change."""

    LIKE = 0
    VIEW = 1
    CLICK = 2
    IMPRESSION = 3
    DISLIKE = 4


POSITIVE_KINDS = (Kind.LIKE, Kind.VIEW, Kind.CLICK)


@dataclass(frozen=True, slots=True)
class Item:
    """A video of the catalogue. Only the id is needed; None and empty mean unknown."""

    item_id: str
    title: str = ""
    description: str = ""
    genre: tuple[str, ...] = ()
    maker: str | None = None
    performers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    price: float | None = None
    duration_s: float | None = None
    published_at_s: float | None = None  # seconds since 1970
    embedding: tuple[float, ...] | None = None  # of thumbnail or preview; one length for the whole catalogue
    embedding_by: str | None = None  # the encoder that made it of the item's picture here; None where it was sent


@dataclass(frozen=True, slots=True)
class User:
    """Who is recommended to, beside what they did."""

    user_id: str
    age_range: str | None = None
    region: str | None = None
    sessions_per_week: float | None = None


@dataclass(frozen=True)
class Catalogue:
    """All items, in the order that rows refer to."""

    items: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def row_by_id(self) -> Mapping[str, int]:
        return {item.item_id: row for row, item in enumerate(self.items)}


@dataclass(frozen=True)
class Interactions:
    """Events as columns, all of length n.

    user, item: int64 rows.   time_s: float64, seconds since 1970.   kind: int8, of ``Kind``.
    weight: float32 > 0, how much the event says (1 is usual).   watched_s: float32, nan where not a view.
    """

    user: Ints
    item: Ints
    time_s: Floats
    kind: npt.NDArray[np.int8]
    weight: npt.NDArray[np.float32]
    watched_s: npt.NDArray[np.float32]

    @classmethod
    def of(
        cls,
        user: npt.ArrayLike,
        item: npt.ArrayLike,
        time_s: npt.ArrayLike,
        *,
        kind: npt.ArrayLike | None = None,
        weight: npt.ArrayLike | None = None,
        watched_s: npt.ArrayLike | None = None,
    ) -> Self:
        """Build from any columns, sorted by time (stable); without a kind all are likes of weight 1.

        Raises: ValueError for columns of different lengths.
        """
        n = np.size(user)
        events = cls(
            user=np.asarray(user, np.int64),
            item=np.asarray(item, np.int64),
            time_s=np.asarray(time_s, np.float64),
            kind=np.full(n, Kind.LIKE, np.int8) if kind is None else np.asarray(kind, np.int8),
            weight=np.ones(n, np.float32) if weight is None else np.asarray(weight, np.float32),
            watched_s=np.full(n, np.nan, np.float32) if watched_s is None else np.asarray(watched_s, np.float32),
        )
        shapes = {column.shape for column in vars(events).values()}
        if shapes != {(n,)}:
            raise ValueError(f"Columns of interactions have different shapes: {sorted(shapes)}.")
        return events.take(np.argsort(events.time_s, kind="stable"))

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: Index) -> Self:
        """Return the chosen events, in the order of the index."""
        return type(self)(
            self.user[index],
            self.item[index],
            self.time_s[index],
            self.kind[index],
            self.weight[index],
            self.watched_s[index],
        )

    @property
    def positive(self) -> Self:
        """Return the events that speak for an item."""
        return self.take(np.isin(self.kind, POSITIVE_KINDS) & (self.weight > 0))


@dataclass(frozen=True)
class Histories:
    """Positive events by user, oldest first: those of user u are ``[offsets[u], offsets[u + 1])``.

    offsets: (U + 1,) int64.   item, time_s, weight, watched_s: (n,).
    """

    offsets: Ints
    item: Ints
    time_s: Floats
    weight: npt.NDArray[np.float32]
    watched_s: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def user(self) -> Ints:
        """Return the user of every event, (n,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def of(self, user: int) -> slice:
        return slice(int(self.offsets[user]), int(self.offsets[user + 1]))


@dataclass(frozen=True)
class Dataset:
    """A catalogue, its users and their interactions, sorted by time."""

    catalogue: Catalogue
    users: tuple[User, ...]
    interactions: Interactions

    def __post_init__(self) -> None:
        rows = self.interactions
        if len(rows) and (
            rows.item.min() < 0
            or rows.item.max() >= len(self.catalogue)
            or rows.user.min() < 0
            or rows.user.max() >= len(self.users)
        ):
            raise ValueError("An interaction refers to a user or item that the dataset does not have.")
        if np.any(np.diff(rows.time_s) < 0):
            raise ValueError("Interactions must be sorted by time; Interactions.of does it.")

    def with_interactions(self, interactions: Interactions) -> Self:
        return type(self)(self.catalogue, self.users, interactions)

    @cached_property
    def histories(self) -> Histories:
        return histories(self.interactions, n_users=len(self.users))

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over everything that training can see: the same data give the same hash on every machine."""
        digest = hashlib.sha256()
        for rows in (self.catalogue.items, self.users):
            for row in rows:
                digest.update(repr(row).encode())
        events = self.interactions
        for column in (events.user, events.item, events.time_s, events.kind, events.weight, events.watched_s):
            digest.update(np.ascontiguousarray(column).astype(column.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """What may be learnt from and what is asked, over the same catalogue and users."""

    train: Dataset
    test: Dataset


def histories(interactions: Interactions, *, n_users: int) -> Histories:
    """Group the positive events by user, oldest first."""
    positive = interactions.positive
    order = np.lexsort((positive.time_s, positive.user))
    events = positive.take(order)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(events.user, minlength=n_users))])
    return Histories(offsets.astype(np.int64), events.item, events.time_s, events.weight, events.watched_s)


def split_by_time(dataset: Dataset, *, newest: float = 0.2) -> Split:
    """Global time split: the newest share of all events is the test.

    Raises: ValueError for a share outside (0, 1).
    """
    if not 0 < newest < 1:
        raise ValueError(f"The newest share must lie between 0 and 1, not {newest}.")
    cut = round(len(dataset.interactions) * (1 - newest))
    return _split(dataset, np.arange(len(dataset.interactions)) < cut)


def split_each_user(dataset: Dataset, *, newest: float = 0.2) -> Split:
    """Per-user time split: the newest share (rounded down, at least one of two) of everybody's events is the test.

    Not a temporal protocol: training sees events that are later than other users' tests.
    """
    events = dataset.interactions
    left = _events_to_come(events, len(dataset.users))
    total = np.bincount(events.user, minlength=len(dataset.users))[events.user]
    held = np.maximum((total * newest).astype(np.int64), (total > 1).astype(np.int64))
    return _split(dataset, left >= held)


def leave_last_out(dataset: Dataset) -> Split:
    """Everybody's last event is the test, for users with at least two."""
    events = dataset.interactions
    total = np.bincount(events.user, minlength=len(dataset.users))[events.user]
    return _split(dataset, (_events_to_come(events, len(dataset.users)) > 0) | (total < 2))


def _events_to_come(events: Interactions, n_users: int) -> Ints:
    """How many later events the same user has, (n,)."""
    order = np.argsort(events.user, kind="stable")
    ends = np.cumsum(np.bincount(events.user, minlength=n_users))
    left = np.empty(len(events), np.int64)
    left[order] = ends[events.user[order]] - 1 - np.arange(len(events))
    return left


def _split(dataset: Dataset, in_train: Bools) -> Split:
    events = dataset.interactions
    return Split(dataset.with_interactions(events.take(in_train)), dataset.with_interactions(events.take(~in_train)))


def from_records(items: Iterable[Item], users: Iterable[User], events: Iterable[tuple[str, str, float]]) -> Dataset:
    """Build from ids and (user id, item id, time_s) likes; KeyError for a user or item that is not listed."""
    catalogue, everyone = Catalogue(tuple(items)), tuple(users)
    row_by_user = {user.user_id: row for row, user in enumerate(everyone)}
    triples = [(row_by_user[user], catalogue.row_by_id[item], time_s) for user, item, time_s in events]
    user_rows, item_rows, times_s = zip(*triples, strict=True) if triples else ((), (), ())
    return Dataset(catalogue, everyone, Interactions.of(user_rows, item_rows, times_s))
