"""Views of particles that were found, and promises that artifacts go.

Records themselves are found through ``genba_shared.records``. Transactions are begun and committed by whoever calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

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


def promise_erasure(session: Session, key: str, *, after_s: float = 0.0) -> None:
    """Promise that an artifact goes, unless by then a view needs it. A promise made twice is one, at the earlier time."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    promise = dialect.insert(SemErasure).values(target=key, due_at=utc_now() + timedelta(seconds=after_s))
    earlier = case((promise.excluded.due_at < SemErasure.due_at, promise.excluded.due_at), else_=SemErasure.due_at)
    session.execute(promise.on_conflict_do_update(index_elements=[SemErasure.target], set_={"due_at": earlier}))


def keep_artifacts(session: Session, keys: Sequence[str]) -> None:
    """Take back the promises on ``keys``: the record that is being written needs them."""
    session.execute(delete(SemErasure).where(SemErasure.target.in_(keys)))


def is_owned(session: Session, key: str) -> bool:
    """Whether a view still needs an artifact: equal content has one artifact, whoever sent it."""
    owner = select(ViewRow.particle_id).where(or_(ViewRow.image_key == key, ViewRow.picture_key == key))
    return session.scalar(owner.limit(1)) is not None


def due_erasures(session: Session, *, limit: int) -> Sequence[str]:
    """Artifacts whose time has come."""
    query = select(SemErasure.target).where(SemErasure.due_at <= utc_now()).order_by(SemErasure.due_at)
    return session.scalars(query.limit(limit)).all()
