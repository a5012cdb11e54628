"""What users did, kept in memory for those who ask: read once, then moved on by every event, so that a like counts in the next list.

A history holds each item once, from when it first spoke for the item, with the most that was said: as training reads it.
Knows no table and no model; ``load`` is how a user is read who is not here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from genba_recommend.dataset import User

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
    """One user at one moment; ``did`` by catalogue row. ``memory`` is for whoever computes something of this moment."""

    user: User
    did: Mapping[int, Did] = field(default_factory=dict)
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

    def after(self, row: int, did: Did) -> Person:
        """The same user after one more event."""
        before = self.did.get(row)
        return Person(self.user, {**self.did, row: before.and_then(did) if before else did})

    def known_as(self, user: User) -> Person:
        """The same user with another profile."""
        return replace(self, user=user, memory={})


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

    def note(self, user_id: str, row: int, did: Did) -> None:
        """A user did something. Saying it twice changes nothing."""
        with self._lock:
            self._loading.pop(user_id, None)
            if (person := self._here.get(user_id)) is not None:
                self._here[user_id] = person.after(row, did)

    def rename(self, user: User) -> None:
        """A user's profile has changed."""
        with self._lock:
            self._loading.pop(user.user_id, None)
            if (person := self._here.get(user.user_id)) is not None:
                self._here[user.user_id] = person.known_as(user)

    def forget(self, user_id: str | None = None) -> None:
        """One user, or all of them."""
        with self._lock:
            if user_id is None:
                self._here.clear()
                self._loading.clear()
            else:
                self._loading.pop(user_id, None)
                self._here.pop(user_id, None)
