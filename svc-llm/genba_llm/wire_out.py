"""Records and verdicts as the wire shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from genba_llm.decisions import Recorded
from genba_llm.gate import Decision
from genba_llm.retrieval import Passage
from genba_llm.schemas import (
    CitationOut,
    DecisionName,
    DecisionOut,
    DecisionRecord,
    DocumentOut,
    EscalationOut,
    EvidenceOut,
)
from genba_llm.tables import DecisionRow, DocumentRow, EscalationRow
from genba_shared.db import utc_now
from genba_shared.wire_records import clearance_label


def decision_name(value: int) -> DecisionName:
    """A decision by its number."""
    return cast("DecisionName", Decision(value).name)


def decision_out(recorded: Recorded) -> DecisionOut:
    """A fresh decision with its evidence."""
    verdict = recorded.verdict
    return DecisionOut(
        id=recorded.id,
        decision=decision_name(verdict.decision),
        confidence=min(1.0, max(0.0, verdict.confidence)),
        domain=verdict.domain,
        language=verdict.language,
        policy_ref=verdict.policy_ref,
        escalation_target=verdict.escalation_target,
        escalation_id=recorded.escalation_id,
        reasons=list(verdict.reasons),
        evidence=[
            EvidenceOut(
                stage=each.stage,
                decision=decision_name(each.decision),
                codes=list(each.codes),
                scores={name: float(value) for name, value in each.scores.items()},
                elapsed_ms=round(each.elapsed_ms, 3),
            )
            for each in verdict.evidence
        ],
        model_version=verdict.model_version,
        audit_id=recorded.audit_seq,
        created_at=recorded.created_at,
    )


def record_out(row: DecisionRow) -> DecisionRecord:
    """A decision on record."""
    return DecisionRecord(
        id=row.id,
        clearance=clearance_label(row.clearance),
        created_at=row.created_at,
        created_by=row.created_by,
        route=row.route,
        action=row.action,
        domain=row.domain,
        language=row.language,
        decision=decision_name(row.decision),
        confidence=row.confidence,
        policy_ref=row.policy_ref,
        escalation_target=row.escalation_target,
        reasons=[str(each) for each in row.reasons],
        model_version=row.model_version,
        audit_id=row.audit_seq,
    )


def escalation_out(row: EscalationRow) -> EscalationOut:
    """A question in the queue."""
    return EscalationOut.model_validate(escalation_fields(row))


def escalation_fields(row: EscalationRow) -> dict[str, object]:
    """The same as a mapping, for who adds to it."""
    plain = ("id", "created_at", "created_by", "decision_id", "target", "status", "due_at", "assignee", "reason")
    return {
        **{name: getattr(row, name) for name in (*plain, "decided_by", "decided_at")},
        "clearance": clearance_label(row.clearance),
        "overdue": row.status != "decided" and row.due_at < utc_now(),
        "outcome": None if row.outcome is None else Decision(row.outcome).name,
    }


def document_out(row: DocumentRow) -> DocumentOut:
    """A document without its text."""
    plain = ("id", "created_at", "created_by", "title", "kind", "sha256", "compartments", "chars", "chunk_count")
    return DocumentOut.model_validate(
        {**{name: getattr(row, name) for name in plain}, "clearance": clearance_label(row.clearance)}
    )


def citations(passages: Sequence[Passage]) -> list[CitationOut]:
    """Passages with the numbers by which an answer cites them."""
    return [
        CitationOut(
            number=number,
            document_id=each.document_id,
            title=each.title,
            chunk=each.number,
            text=each.text,
            score=each.score,
        )
        for number, each in enumerate(passages, start=1)
    ]
