"""``/v1/llm/escalations``: the questions that wait for a person."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter

from genba_llm import escalations, store
from genba_llm.gate import Decision
from genba_llm.routes_audit import Cursor, Limit
from genba_llm.routes_gate import Reader
from genba_llm.schemas import AssignIn, DecideIn, EscalationDetail, EscalationOut
from genba_llm.service import Here
from genba_llm.tables import DecisionRow, EscalationRow
from genba_llm.wire_out import escalation_fields, escalation_out, record_out
from genba_shared.dependencies import require
from genba_shared.principal import Principal
from genba_shared.service import problem_responses
from genba_shared.wire_records import Page, RecordId

router = APIRouter(prefix="/v1/llm/escalations", tags=["llm escalations"])
Reviewer = Annotated[Principal, require("llm:review")]


@router.get("")
def list_escalations(
    here: Here,
    principal: Reader,
    status: Literal["open", "assigned", "decided"] | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[EscalationOut]:
    """Questions in the queue, newest first; without their texts."""
    where = [] if status is None else [EscalationRow.status == status]
    with here.database.read() as session:
        rows, following = store.page(session, EscalationRow, principal, *where, limit=limit, cursor=cursor)
        return Page[EscalationOut](items=[escalation_out(row) for row in rows], next_cursor=following)


@router.get("/{escalation_id}", responses=problem_responses(404))
def read_escalation(escalation_id: RecordId, here: Here, principal: Reviewer) -> EscalationDetail:
    """One question with its text, for who may decide."""
    with here.database.read() as session:
        row = store.get(session, EscalationRow, escalation_id, principal)
        decision = store.get(session, DecisionRow, row.decision_id, principal)
        return EscalationDetail.model_validate(
            {
                **escalation_fields(row),
                "text": escalations.question_of(session, here.vault, row),
                "decision": record_out(decision),
            }
        )


@router.post("/{escalation_id}/assign", responses=problem_responses(404, 409))
def assign_escalation(escalation_id: RecordId, body: AssignIn, here: Here, principal: Reviewer) -> EscalationOut:
    """Say who looks at it: you, or somebody that you name."""
    with here.database.transaction() as session:
        row = escalations.assign(session, principal, escalation_id, body.assignee or principal.subject)
        return escalation_out(row)


@router.post("/{escalation_id}/decision", responses=problem_responses(404, 409))
def decide_escalation(escalation_id: RecordId, body: DecideIn, here: Here, principal: Reviewer) -> EscalationOut:
    """Decide, with a reason. The question's text is erased with it, unless the policy keeps texts."""
    with here.database.transaction() as session:
        row = escalations.decide(session, principal, escalation_id, Decision[body.outcome], body.reason)
        found = escalation_out(row)
        decision = session.get(DecisionRow, row.decision_id)
    if decision is not None and decision.decision == int(Decision.ALLOW):
        here.metrics.spot_checks.labels(body.outcome.lower()).inc()
        return found
    here.metrics.overrides.labels(body.outcome.lower()).inc()
    return found
