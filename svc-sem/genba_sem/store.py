"""Views of particles that were found, and promises that artifacts go.

Records themselves are found through ``genba_shared.records``. Transactions are begun and committed by whoever calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import case, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from genba_sem.tables import SemErasure, ViewRow
from genba_shared.db import utc_now

ARTIFACTS: Final = "sem"  # a store of this service's own: what no view needs, nobody else does
RESERVATION_S: Final = 6 * 3600.0  # an artifact written for a record that never came is erased after this


def views_of(session: Session, particle_ids: Sequence[str]) -> dict[str, list[ViewRow]]:
    """The views of particles that the caller has found, in their order."""
    found: dict[str, list[ViewRow]] = {particle_id: [] for particle_id in particle_ids}
    query = select(ViewRow).where(ViewRow.particle_id.in_(particle_ids))
    for view in session.scalars(query.order_by(ViewRow.particle_id, ViewRow.position)):
        found[view.particle_id].append(view)
    return found


# --- erasure --------------------------------------------------------------------------------------------------------


def promise_erasures(session: Session, keys: Iterable[str], *, after_s: float = 0.0) -> None:
    """Promise that artifacts go, unless by then a view needs them. A promise made twice is one, at the earlier time.

    They are made in one order everywhere, so that two uploads never lock each other out.
    """
    due_at = utc_now() + timedelta(seconds=after_s)
    promises = [{"target": key, "due_at": due_at} for key in sorted(set(keys))]
    if promises:
        session.connection().execute(_PROMISE[session.get_bind().dialect.name], promises)


def _promise(insert: Any) -> Any:
    table = SemErasure.__table__
    promise = insert(table)
    earlier = case((promise.excluded.due_at < table.c.due_at, promise.excluded.due_at), else_=table.c.due_at)
    return promise.on_conflict_do_update(index_elements=[table.c.target], set_={"due_at": earlier})


_PROMISE: Final = {"sqlite": _promise(sqlite.insert), "postgresql": _promise(postgresql.insert)}


def keep_artifacts(session: Session, keys: Sequence[str]) -> set[str]:
    """Take back the promises on ``keys``: the record that is being written needs them. Returns those that nothing was promised of any
    more: another record needs them too, or an eraser was quicker.
    """
    mine = SemErasure.target.in_(keys)
    query = select(SemErasure.target).where(mine).order_by(SemErasure.target).with_for_update()
    promised = set(session.scalars(query))  # locked in one order, as they are made
    session.execute(delete(SemErasure).where(mine))
    return set(keys) - promised


def is_owned(session: Session, key: str) -> bool:
    """Whether a view still needs an artifact: equal content has one artifact, whoever sent it."""
    owner = select(ViewRow.particle_id).where(or_(ViewRow.image_key == key, ViewRow.picture_key == key))
    return session.scalar(owner.limit(1)) is not None


def due_erasures(session: Session, *, limit: int) -> Sequence[str]:
    """Artifacts whose time has come."""
    query = select(SemErasure.target).where(SemErasure.due_at <= utc_now()).order_by(SemErasure.due_at)
    return session.scalars(query.limit(limit)).all()
