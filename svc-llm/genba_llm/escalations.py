"""What the gate would not decide alone: a queue of questions for people, each with a time by which somebody should have decided.

What people decide is the only truth that the gate's confidence can be held against: ``quality`` reads it, and
``llm.gate_review`` lets it set the gate's confidence and threshold. The question's text
lies encrypted until then, and goes with the decision unless the policy keeps texts. Knows no route.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
from pydantic import JsonValue
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from genba_llm import store
from genba_llm.gate import Decision
from genba_llm.review import Reviewed, weight_of
from genba_llm.sealed import TextVault
from genba_llm.tables import DecisionRow, EscalationRow, SealedText
from genba_shared import records
from genba_shared.audit import append_in
from genba_shared.db import utc_now
from genba_shared.principal import Principal
from genba_shared.problems import Conflict, Forbidden


def assign(session: Session, principal: Principal, escalation_id: str, assignee: str) -> EscalationRow:
    """Say who looks at it; again, to hand it over. Raises: NotFound; Conflict when it is decided."""
    row = _undecided(session, principal, escalation_id)
    row.assignee, row.status = assignee, "assigned"
    detail = {"assignee": assignee}
    append_in(session, "llm.escalation_assigned", actor=principal.subject, subject=row.id, detail=detail)
    return row


def decide(session: Session, principal: Principal, escalation_id: str, outcome: Decision, reason: str) -> EscalationRow:
    """A person's decision, with why. Nobody decides on what they asked themselves.

    Raises: NotFound; Conflict when it is decided already; Forbidden for one's own question.
    """
    row = _undecided(session, principal, escalation_id)
    if row.created_by == principal.subject:
        raise Forbidden("Nobody decides on their own question: somebody else has to.")
    if outcome is Decision.ESCALATE:
        raise ValueError("A person decides to allow, deny or refuse.")
    row.status, row.outcome, row.reason = "decided", int(outcome), reason
    row.decided_by, row.decided_at = principal.subject, utc_now()
    row.assignee = row.assignee or principal.subject
    _let_text_go(session, row.decision_id)
    detail: dict[str, JsonValue] = {
        "outcome": outcome.name,
        "decision": row.decision_id,
        "late": row.decided_at > row.due_at,
    }
    append_in(session, "llm.escalation_decided", actor=principal.subject, subject=row.id, detail=detail)
    return row


def _undecided(session: Session, principal: Principal, escalation_id: str) -> EscalationRow:
    row = store.get(session, EscalationRow, escalation_id, principal, lock=True)
    if row.status == "decided":
        raise Conflict(f"It was decided by {row.decided_by}.", decided_by=row.decided_by)
    return row


def _let_text_go(session: Session, decision_id: str) -> None:
    kept = session.get(SealedText, (decision_id, "prompt"))
    if kept is not None and kept.keep == "queue":
        kept.sealed, kept.keep = None, "commitment"


def question_of(session: Session, vault: TextVault, row: EscalationRow) -> str | None:
    """The text that waits for a decision; None when it is gone."""
    kept = session.get(SealedText, (row.decision_id, "prompt"))
    if kept is None or kept.sealed is None:
        return None
    return vault.open(kept.sealed, bound_to=f"{row.decision_id}/prompt")


def erase_due(session: Session, *, now: datetime) -> int:
    """Erase texts and salts whose time is over; how many."""
    rows = session.scalars(select(SealedText).where(SealedText.expires_at < now).limit(1000)).all()
    for row in rows:
        session.delete(row)
    return len(rows)


def decided_pairs(session: Session, principal: Principal) -> list[tuple[DecisionRow, EscalationRow]]:
    """Decisions that people have ruled on, of those that the caller may see."""
    query = (
        select(DecisionRow, EscalationRow)
        .join(EscalationRow, EscalationRow.decision_id == DecisionRow.id)
        .where(EscalationRow.status == "decided", records.visible(DecisionRow, principal))
        .order_by(EscalationRow.id)
    )
    return [(decision, escalation) for decision, escalation in session.execute(query).all()]


def reviewed_of(
    session: Session, model_version: str, *where: ColumnElement[bool], since: datetime | None = None
) -> Reviewed:
    """What people decided of what this very model (classifier and fusion) escalated or was spot-checked for.

    Only where the content decided: what a rule sends to people says nothing of the gate's confidence.
    """
    conditions = [EscalationRow.status == "decided", DecisionRow.allow_probability.is_not(None), *where]
    with_reasoner = DecisionRow.model_version.startswith(f"{model_version}+", autoescape=True)
    conditions.append(or_(DecisionRow.model_version == model_version, with_reasoner))
    if since is not None:
        conditions.append(DecisionRow.created_at >= since)
    query = (
        select(DecisionRow.allow_probability, DecisionRow.reasons, EscalationRow.outcome)
        .join(EscalationRow, EscalationRow.decision_id == DecisionRow.id)
        .where(*conditions)
        .order_by(EscalationRow.id)
    )
    kept = [
        (float(allow or 0.0), outcome == int(Decision.ALLOW), *weight)
        for allow, codes, outcome in session.execute(query)
        if (weight := weight_of(codes)) is not None
    ]
    allow, allowed, weights, spot = zip(*kept, strict=True) if kept else ((), (), (), ())
    return Reviewed(
        np.array(allow, np.float64),
        np.array(allowed, np.bool_),
        np.array(weights, np.float64),
        np.array(spot, np.bool_),
    )
