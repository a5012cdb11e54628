"""Read users with what they did out of the rows, over a shelf: one who asks, or all of them for a refresh."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from sqlalchemy.orm import Session

from genba_recommend import store
from genba_recommend.catalogue import Shelf
from genba_recommend.dataset import User
from genba_recommend.people import Did, Person
from genba_recommend.store import Deed


def read_person(session: Session, tenant: str, user_id: str, shelf: Shelf) -> Person:
    """One user; somebody unknown has nothing but the id."""
    user = store.user(session, tenant, user_id)
    return _person(user, (deed for _, deed in store.deeds(session, tenant, user_id=user_id)), shelf)


def read_people(session: Session, tenant: str, shelf: Shelf) -> Iterator[Person]:
    """Everybody who did something, in the order of their ids."""
    profiles = {user.user_id: user for user in store.users(session, tenant)}
    for user_id, deeds in groupby(store.deeds(session, tenant), key=lambda pair: pair[0]):
        yield _person(profiles.get(user_id, User(user_id)), (deed for _, deed in deeds), shelf)


def _person(user: User, deeds: Iterator[Deed], shelf: Shelf) -> Person:
    did, strays = {}, set()
    for deed in deeds:
        if (row := shelf.row(deed.item_id)) is not None:
            did[row] = Did(deed.at_s, deed.weight, deed.watched_s, deed.seen)
        else:
            strays.add(deed.item_id)
    return Person(user, did, frozenset(strays))
