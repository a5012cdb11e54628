"""Find decisions, escalations and documents for one caller: as ``genba_shared.records`` does, and by compartment.

Transactions are begun and committed by whoever calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from genba_llm.tables import DecisionRow, DocumentRow, EscalationRow
from genba_shared import records
from genba_shared.db import utc_now
from genba_shared.principal import Principal
from genba_shared.problems import NotFound

Row = TypeVar("Row", DecisionRow, DocumentRow, EscalationRow)


def get(session: Session, model: type[Row], record_id: str, principal: Principal, *, lock: bool = False) -> Row:
    """One record. Raises NotFound when there is none that the caller may see, by compartment too."""
    row = records.get(session, model, record_id, principal, lock=lock)
    if not _in_compartments(row, principal):
        raise NotFound(f"There is no {model.noun} {record_id}.")
    return row


def page(
    session: Session,
    model: type[Row],
    principal: Principal,
    *where: ColumnElement[bool],
    limit: int,
    cursor: str | None,
) -> tuple[Sequence[Row], str | None]:
    """A page of records. Those of compartments that the caller is not in leave neither gaps nor cursors behind."""
    if model is DecisionRow:
        return records.page(session, model, principal, *where, limit=limit, cursor=cursor)
    found: list[Row] = []
    following: str | None = cursor
    while True:
        rows, following = records.page(session, model, principal, *where, limit=limit, cursor=following)
        found += [row for row in rows if _in_compartments(row, principal)]
        if following is None or len(found) > limit:
            return found[:limit], found[limit - 1].id if len(found) > limit else None


def _in_compartments(row: DecisionRow | DocumentRow | EscalationRow, principal: Principal) -> bool:
    return isinstance(row, DecisionRow) or principal.compartments.issuperset(row.compartments)


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
