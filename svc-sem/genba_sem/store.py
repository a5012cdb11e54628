"""Find and write rows for one caller. Every function takes the caller and sees only that tenant's records up to that
clearance.

What a caller may not see does not exist for them: NotFound, never Forbidden. Transactions are begun and committed by
whoever calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from sqlalchemy import ColumnElement, and_, case, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from genba_sem.tables import BundleRow, Labelled, LabelRow, MasterRow, ParticleRow, SemErasure, ViewRow
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import ClearanceTooLow, NotFound

Row = TypeVar("Row", LabelRow, ParticleRow, MasterRow, BundleRow)

NOUNS: Final = {LabelRow: "label", ParticleRow: "particle", MasterRow: "master", BundleRow: "bundle"}
RESERVATION_S: Final = 6 * 3600.0  # an artifact written for a record that never came is erased after this


def now() -> datetime:
    """The time that rows are stamped with."""
    return datetime.now(UTC)


def visible(model: type[Labelled], principal: Principal) -> ColumnElement[bool]:
    """The condition that every query of a labelled record carries."""
    return and_(model.tenant == principal.tenant, model.clearance <= int(principal.clearance))


def label_for(principal: Principal, asked: str | None) -> Clearance:
    """The clearance label of a new record: as asked, or internal, and never above the caller's own.

    Raises:  ClearanceTooLow: somebody could write what they cannot read back.
    """
    if asked is None:
        return min(Clearance.INTERNAL, principal.clearance)
    label = Clearance.parse(asked)
    if label > principal.clearance:
        raise ClearanceTooLow(f"You may label up to {principal.clearance.label}, not {label.label}.")
    return label


def get(session: Session, model: type[Row], record_id: str, principal: Principal, *, lock: bool = False) -> Row:
    """One record. Raises NotFound when there is none that the caller may see."""
    query = select(model).where(model.id == record_id, visible(model, principal))
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"There is no {NOUNS[model]} {record_id}.")
    return row


def page(
    session: Session,
    model: type[Row],
    principal: Principal,
    *where: ColumnElement[bool],
    limit: int,
    cursor: str | None,
) -> tuple[Sequence[Row], str | None]:
    """Rows newest first, after ``cursor``, and the cursor of the next page. Ids sort by time, so the cursor is the
    last id.
    """
    query = select(model).where(visible(model, principal), *where)
    if cursor is not None:
        query = query.where(model.id < cursor)
    rows = session.scalars(query.order_by(model.id.desc()).limit(limit + 1)).all()
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


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
    promise = dialect.insert(SemErasure).values(target=key, due_at=now() + timedelta(seconds=after_s))
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
    query = select(SemErasure.target).where(SemErasure.due_at <= now()).order_by(SemErasure.due_at)
    return session.scalars(query.limit(limit)).all()
