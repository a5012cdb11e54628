"""What users did, kept in memory for those who ask: read once, then moved on by every event, so that a like counts in the next list.

A history holds each item once, from when it first spoke for the item, with the most that was said: as training reads it.
Knows no table and no model; ``load`` is how a user is read who is not here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from genba_recommend.dataset import User
from genba_recommend.evidence import LIKE
from genba_recommend.reasons import Act

Rows = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Did:
    """What a user did with one item. ``at_s`` is None while nothing spoke for it."""

    at_s: float | None
    weight: float
    watched_s: float | None
    seen: bool

    def and_then(self, other: Did) -> Did:
        """Both together."""
        times = [at_s for at_s in (self.at_s, other.at_s) if at_s is not None]
        watched = [w for w in (self.watched_s, other.watched_s) if w is not None]
        return Did(
            min(times, default=None),
            max(self.weight, other.weight),
            max(watched, default=None),
            self.seen or other.seen,
        )


@dataclass(frozen=True)
class Person:
    """One user at one moment; ``did`` by catalogue row. ``memory`` is for whoever computes something of this moment.

    strays: ids of items that they did something with and that the catalogue does not have yet.
    """

    user: User
    did: Mapping[int, Did] = field(default_factory=dict)
    strays: frozenset[str] = frozenset()
    memory: dict[object, object] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def history(self) -> tuple[tuple[int, Did], ...]:
        """Rows that something spoke for, newest first."""
        found = [(row, did) for row, did in self.did.items() if did.at_s is not None]
        return tuple(sorted(found, key=lambda pair: (-(pair[1].at_s or 0.0), pair[0])))

    @cached_property
    def seen(self) -> Rows:
        """Rows that must not be offered again, sorted."""
        return np.array(sorted(row for row, did in self.did.items() if did.seen), np.int32)

    def act(self, row: int) -> Act:
        """The most that they did with an item of their history; of a session, which has no user, only the items are known."""
        did = self.did[row]
        if not self.user.user_id:
            return "looked"
        return "liked" if did.weight >= LIKE else "watched" if did.seen else "looked"

    def after(self, *deeds: tuple[int, Did], strays: Collection[str] = ()) -> Person:
        """The same user after more events; themselves if all of that was known."""
        new: dict[int, Did] = {}
        for row, did in deeds:
            before = new.get(row) or self.did.get(row)
            now = did if before is None else before.and_then(did)
            if now != before:
                new[row] = now
        if not new and self.strays.issuperset(strays):
            return self
        return Person(self.user, {**self.did, **new}, self.strays.union(strays))

    def known_as(self, user: User) -> Person:
        """The same user with another profile."""
        return self if user == self.user else replace(self, user=user, memory={})


class People:
    """The users of whom somebody asked lately."""

    def __init__(self, load: Callable[[str], Person], *, most: int) -> None:
        self._load, self._most = load, most
        self._here: OrderedDict[str, Person] = OrderedDict()
        self._loading: dict[str, object] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._here)

    def here(self, user_id: str) -> Person | None:
        """A user who is in memory."""
        person = self._here.get(user_id)
        if person is not None:
            with self._lock:
                if user_id in self._here:
                    self._here.move_to_end(user_id)
        return person

    def get(self, user_id: str) -> Person:
        """A user, read if need be. What is read is kept unless the user did something meanwhile."""
        if (person := self.here(user_id)) is not None:
            return person
        mine = object()
        with self._lock:
            self._loading[user_id] = mine
        person = self._load(user_id)
        with self._lock:
            if self._loading.get(user_id) is mine:
                del self._loading[user_id]
                self._here[user_id] = person
                if len(self._here) > self._most:
                    self._here.popitem(last=False)
        return person

    def note(self, user_id: str, *deeds: tuple[int, Did], strays: Collection[str] = ()) -> None:
        """A user did something, with rows and with items that are not here yet. Saying it twice changes nothing."""
        with self._lock:
            self._loading.pop(user_id, None)
            if (person := self._here.get(user_id)) is not None:
                self._here[user_id] = person.after(*deeds, strays=strays)

    def came(self, item_ids: Collection[str]) -> None:
        """Items are here now: whoever did something with one of them is read anew."""
        with self._lock:
            self._loading.clear()
            waited = [id_ for id_, person in self._here.items() if not person.strays.isdisjoint(item_ids)]
            for user_id in waited:
                del self._here[user_id]

    def those_here(self, user_ids: Iterable[str]) -> list[str]:
        """Those who are in memory or being read."""
        with self._lock:
            return [user_id for user_id in user_ids if user_id in self._here or user_id in self._loading]

    def rename(self, user: User) -> None:
        """A user's profile has changed."""
        with self._lock:
            self._loading.pop(user.user_id, None)
            if (person := self._here.get(user.user_id)) is not None:
                self._here[user.user_id] = person.known_as(user)

    def forget(self, user_id: str) -> None:
        """Hold a user no longer."""
        with self._lock:
            self._loading.pop(user_id, None)
            self._here.pop(user_id, None)
