"""Find labelled records for one caller: that tenant's, up to that clearance, and nothing else.

What a caller may not see does not exist for them: NotFound, never Forbidden. Every service's store asks through here, so
that no query forgets the condition. Transactions are begun and committed by whoever calls. Knows no table.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from sqlalchemy import ColumnElement, Select, SmallInteger, String, and_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from genba_shared.db import UtcDateTime
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import ClearanceTooLow, NotFound


class Labelled:
    """Who may see a record, and who made it when. ``noun`` is what a problem calls it. Ids sort by time."""

    noun: ClassVar[str]

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String)
    clearance: Mapped[int] = mapped_column(SmallInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String)


Row = TypeVar("Row", bound=Labelled)


def visible(model: type[Labelled], principal: Principal) -> ColumnElement[bool]:
    """The condition that every query of a labelled record carries."""
    return and_(model.tenant == principal.tenant, model.clearance <= int(principal.clearance))


def label_for(principal: Principal, asked: str | None) -> Clearance:
    """The clearance label of a new record: as asked, or internal, and never above the caller's own.

    Raises: ClearanceTooLow: somebody could write what they cannot read back.
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
        raise NotFound(f"There is no {model.noun} {record_id}.")
    return row


def page(
    session: Session,
    model: type[Row],
    principal: Principal,
    *where: ColumnElement[bool],
    limit: int,
    cursor: str | None,
    options: Sequence[Any] = (),
) -> tuple[Sequence[Row], str | None]:
    """Rows newest first, after ``cursor``, and the cursor of the next page: ids sort by time, so it is the last id."""
    query: Select[Any] = select(model).where(visible(model, principal), *where).options(*options)
    if cursor is not None:
        query = query.where(model.id < cursor)
    rows = session.scalars(query.order_by(model.id.desc()).limit(limit + 1)).all()
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None
