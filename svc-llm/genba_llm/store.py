"""Find rows for one caller. Every function takes the caller and sees only that tenant's records up to that clearance.

What a caller may not see does not exist for them: NotFound, never Forbidden. Transactions are begun and committed by
whoever calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session

from genba_llm.tables import DecisionRow, DocumentRow, EscalationRow, Labelled
from genba_shared.db import utc_now
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import ClearanceTooLow, NotFound

Row = TypeVar("Row", DecisionRow, DocumentRow, EscalationRow)

NOUNS: Final[dict[type, str]] = {DecisionRow: "decision", DocumentRow: "document", EscalationRow: "escalation"}


def visible(model: type[Labelled], principal: Principal) -> ColumnElement[bool]:
    """The condition that every query of a labelled record carries."""
    return and_(model.tenant == principal.tenant, model.clearance <= int(principal.clearance))


def label_for(principal: Principal, asked: str | None) -> Clearance:
    """The label of a new record: as asked, or internal, and never above the caller's own. Raises: ClearanceTooLow."""
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
    if row is None or not _in_compartments(row, principal):
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
    """Rows newest first, after ``cursor``, and the cursor of the next page. Ids sort by time, so the cursor is the last id."""
    query: Select[Any] = select(model).where(visible(model, principal), *where)
    if cursor is not None:
        query = query.where(model.id < cursor)
    rows = list(session.scalars(query.order_by(model.id.desc()).limit(limit + 1)))
    following = rows[limit - 1].id if len(rows) > limit else None
    return [row for row in rows[:limit] if _in_compartments(row, principal)], following


def _in_compartments(row: object, principal: Principal) -> bool:
    return not isinstance(row, DocumentRow) or principal.compartments.issuperset(row.compartments)


def between(start: datetime | None, end: datetime | None) -> list[ColumnElement[bool]]:
    """Decisions of a period: from ``start`` on, before ``end``."""
    found: list[ColumnElement[bool]] = []
    if start is not None:
        found.append(DecisionRow.created_at >= start)
    if end is not None:
        found.append(DecisionRow.created_at < end)
    return found


def queue_counts(session: Session) -> tuple[int, int]:
    """How many questions wait for a person, and how many of them are overdue; over all tenants, for the metrics."""
    waiting = EscalationRow.status != "decided"
    count = select(func.count()).select_from(EscalationRow).where(waiting)
    return session.scalar(count) or 0, session.scalar(count.where(EscalationRow.due_at < utc_now())) or 0
