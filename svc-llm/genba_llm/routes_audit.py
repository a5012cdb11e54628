"""``/v1/llm/audit`` and its proofs, the compliance report, and what the host watch sees. For auditors."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from genba_llm import report, store
from genba_llm.escalations import decided_pairs, reviewed_of
from genba_llm.gate import Decision
from genba_llm.quality import LEAST_ROWS, calibration, consistency
from genba_llm.routes_gate import Reader
from genba_llm.schemas import (
    CalibrationOut,
    ConsistencyOut,
    DecisionName,
    DecisionRecord,
    HostOut,
    QualityOut,
    ReviewOut,
    VerifyOut,
)
from genba_llm.service import Here
from genba_llm.tables import DecisionRow
from genba_llm.verdict import Domain
from genba_llm.wire_out import record_out
from genba_shared import records
from genba_shared.audit_export import proof_text
from genba_shared.audit_tree import newest_note, prove
from genba_shared.dependencies import require
from genba_shared.principal import Principal
from genba_shared.problems import Invalid
from genba_shared.service import problem_responses
from genba_shared.wire import Moment
from genba_shared.wire_records import Page, RecordId

router = APIRouter(prefix="/v1/llm", tags=["llm audit"])
Auditor = Annotated[Principal, require("audit:read")]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[RecordId | None, Query(description="next_cursor of the page before")]
Start = Annotated[Moment | None, Query(description="From this moment on.")]
End = Annotated[Moment | None, Query(description="Before this moment.")]
_MOST_CLUSTERED = 5000
_REPORT_WAITS_S = 5.0


@router.get("/audit")
def search_decisions(
    here: Here,
    principal: Auditor,
    decision: DecisionName | None = None,
    domain: Domain | None = None,
    by: Annotated[str | None, Query(max_length=200, description="Who asked.")] = None,
    start: Start = None,
    end: End = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[DecisionRecord]:
    """Decisions on record, newest first."""
    where = store.between(start, end)
    if decision is not None:
        where.append(DecisionRow.decision == int(Decision[decision]))
    if domain is not None:
        where.append(DecisionRow.domain == domain)
    if by is not None:
        where.append(DecisionRow.created_by == by)
    with here.database.read() as session:
        rows, following = store.page(session, DecisionRow, principal, *where, limit=limit, cursor=cursor)
        return Page[DecisionRecord](items=[record_out(row) for row in rows], next_cursor=following)


@router.get("/audit/{decision_id}", responses=problem_responses(404))
def read_decision(decision_id: RecordId, here: Here, principal: Auditor) -> DecisionRecord:
    """One decision on record."""
    with here.database.read() as session:
        return record_out(store.get(session, DecisionRow, decision_id, principal))


@router.get("/verify")
def verify_log(here: Here, _: Auditor) -> VerifyOut:
    """Walk the whole audit log of this installation: chain, tree, tiles and signatures."""
    found = here.log_check.ask().result().report
    with here.database.read() as session:
        note = newest_note(session)
    key = here.audit.key
    return VerifyOut(
        intact=found.intact,
        entries=found.entries,
        sealed=found.sealed,
        head=found.head,
        root=found.root,
        broken_at=found.broken_at,
        reason=found.reason,
        checkpoint=note,
        key=key.vkey if key else "",
    )


@router.get(
    "/proof/{decision_id}",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problem_responses(404)},
)
def prove_decision(decision_id: RecordId, here: Here, principal: Auditor) -> Response:
    """The proof that a decision is in the log (C2SP tlog-proof), for ``genba audit check`` or any tool that reads it."""
    with here.database.read() as session:
        row = store.get(session, DecisionRow, decision_id, principal)
        text = proof_text(prove(session, row.audit_seq))
    return Response(text, media_type="text/plain; charset=utf-8", headers={"cache-control": "private, no-store"})


@router.get(
    "/report",
    response_class=Response,
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}, "text/csv": {"schema": {"type": "string"}}}}
    },
)
def compliance_report(
    here: Here,
    principal: Auditor,
    start: Annotated[Moment, Query(description="From this moment on.")],
    end: Annotated[Moment, Query(description="Before this moment.")],
    form: Annotated[Literal["html", "csv"], Query(alias="format")] = "html",
    lang: Annotated[Literal["en", "ja"], Query()] = "en",
) -> Response:
    """The compliance report of a period: counts, what people decided otherwise, overdue questions, whether the log holds."""
    if end <= start:
        raise Invalid(
            "Mend end: it must be later than start.", errors=[{"field": "end", "message": "must be later than start"}]
        )
    if form == "csv":
        blocks = report.csv_blocks(here.database, principal, start, end)
        name = f"decisions-{start:%Y%m%d}-{end:%Y%m%d}.csv"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "private, no-store"}
        return StreamingResponse(blocks, media_type="text/csv; charset=utf-8", headers=headers)
    checked = here.log_check.within(_REPORT_WAITS_S)
    with here.database.read() as session:
        facts = report.gather(session, principal, start, end)
    page = report.to_html(facts, checked, policy=here.gate.policy.state.reference, lang=lang)
    headers = {"content-security-policy": report.CONTENT_SECURITY_POLICY, "cache-control": "private, no-store"}
    return Response(page, media_type="text/html; charset=utf-8", headers=headers)


@router.get("/quality")
def read_quality(here: Here, principal: Reader) -> QualityOut:
    """Whether the gate's confidence agrees with people, and whether it decides paraphrases alike."""
    with here.database.read() as session:
        pairs = [
            (decision.allow_probability, escalation.outcome == int(Decision.ALLOW))
            for decision, escalation in decided_pairs(session, principal)
            if decision.allow_probability is not None
        ]
        rows, _ = store.page(session, DecisionRow, principal, limit=_MOST_CLUSTERED, cursor=None)
        alike = consistency([row.sketch for row in rows], [row.decision for row in rows])
        classifier, fusion = here.gate.model
        name = f"{classifier.version}+{fusion.version}"
        reviewed = reviewed_of(session, name, records.visible(DecisionRow, principal))
    probs = np.array([prob for prob, _ in pairs], dtype=np.float64)
    allowed = np.array([allowed for _, allowed in pairs], dtype=np.bool_)
    return QualityOut(
        calibration=CalibrationOut(**asdict(calibration(probs, allowed))),
        consistency=ConsistencyOut(**asdict(alike)),
        review=ReviewOut(
            model_version=name,
            rows=len(reviewed.allow),
            needed=LEAST_ROWS,
            spot_checks=reviewed.spot_checks,
            temperature=fusion.review_temperature,
            allow_from=fusion.allow_from,
            bound=fusion.alpha,
            false_allow_share=reviewed.false_allow_share(),
        ),
    )


@router.get("/host")
def read_host(here: Here, _: Auditor) -> HostOut:
    """What the last look at this host found that is not on the list."""
    watch = here.watch
    return HostOut(
        watched=watch.allowed is not None,
        complete=watch.seen.complete if watch.seen else False,
        violations=[f"{each.kind}: {each.what}" for each in watch.found],
        looked_at=watch.looked_at,
    )
