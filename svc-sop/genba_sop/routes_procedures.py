"""``/v1/sop/procedures``: register, revise, attach golds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Response, status

from genba_shared import records
from genba_shared.audit import append_in
from genba_shared.dependencies import IfMatch, OptionalIdempotencyKey
from genba_shared.idempotency import Answer, Submission
from genba_shared.principal import Principal
from genba_shared.service import problem_responses
from genba_shared.wire_records import Page, RecordId, clearance_label, expected_version
from genba_sop import procedures, store
from genba_sop.authoring import AuthoredProcedure
from genba_sop.procedures import Registered, registered
from genba_sop.routes_videos import Cursor, Limit, Reader, Writer
from genba_sop.schemas import (
    GoldIn,
    GoldOut,
    GoldSteps,
    ProcedureIn,
    ProcedureOut,
    ProcedureSummary,
    SpanOut,
    StepOut,
    TextOut,
)
from genba_sop.service import Here
from genba_sop.tables import Gold, ProcedureRow

router = APIRouter(prefix="/v1/sop/procedures", tags=["sop procedures"])

Version = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="an older version; the current one when absent")]


@router.post("", status_code=status.HTTP_201_CREATED, responses=problem_responses(404, 409))
def create_procedure(
    body: ProcedureIn, key: OptionalIdempotencyKey, response: Response, here: Here, principal: Writer
) -> ProcedureOut:
    """Register a procedure. With an ``Idempotency-Key`` a repeated request gives the same procedure again."""
    golds = here.procedures.place_all(principal, body)
    submission = (
        Submission.of(key, principal=principal, operation="POST /v1/sop/procedures", payload=body)
        if key is not None
        else None
    )
    if submission is None:
        with here.database.transaction() as session:
            found = procedures.register(session, principal, body, golds, clearance=body.clearance)
    else:
        answer = here.idempotency.once(
            submission,
            lambda session: Answer(
                201, procedures.register(session, principal, body, golds, clearance=body.clearance).row.id
            ),
        )
        with here.database.read() as session:
            found = registered(session, records.get(session, ProcedureRow, str(answer.body), principal))
        if answer.replayed:
            response.headers["Idempotency-Replayed"] = "true"
    here.warm(principal, found.row.id)
    response.headers["Location"] = f"/v1/sop/procedures/{found.row.id}"
    return _out(found, response)


@router.get("", responses=problem_responses(404))
def list_procedures(here: Here, principal: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[ProcedureSummary]:
    """The procedures that you may see, newest first."""
    with here.database.read() as session:
        rows, following = records.page(session, ProcedureRow, principal, limit=limit, cursor=cursor)
        golds = store.gold_counts(session, rows)
        found = [(row, procedures.procedure_at(session, row.id, row.version)) for row in rows]
    items = [
        ProcedureSummary(
            id=row.id,
            clearance=clearance_label(row.clearance),
            created_at=row.created_at,
            created_by=row.created_by,
            version=row.version,
            updated_at=row.updated_at,
            title=TextOut.model_validate(procedure.title),
            step_count=len(procedure.steps),
            gold_count=golds.get(row.id, 0),
        )
        for row, procedure in found
    ]
    return Page[ProcedureSummary](items=items, next_cursor=following)


@router.get("/{procedure_id}", responses=problem_responses(404))
def get_procedure(
    procedure_id: RecordId, response: Response, here: Here, principal: Reader, version: Version = None
) -> ProcedureOut:
    """A procedure, at its current version or an older one."""
    with here.database.read() as session:
        found = registered(session, records.get(session, ProcedureRow, procedure_id, principal), version=version)
        outliers = here.evaluations.outliers(session, found)
    answer = _out(found, response)
    answer.advice += [f"Gold {each} lies far from the others: is it a good example?" for each in outliers]
    return answer


@router.put("/{procedure_id}", responses=problem_responses(404, 409))
def revise_procedure(
    procedure_id: RecordId,
    body: AuthoredProcedure,
    response: Response,
    here: Here,
    principal: Writer,
    if_match: IfMatch,
) -> ProcedureOut:
    """Make the next version. Golds whose spans still fit come along; 409 when somebody else was quicker."""
    expected = expected_version(if_match)
    golds = here.procedures.place_all(principal, body, revises=procedure_id)
    with here.database.transaction() as session:
        found = procedures.revise(session, principal, procedure_id, body, golds, expected=expected)
        detail = {"version": found.version}
        append_in(session, "sop.procedure_revised", actor=principal.subject, subject=procedure_id, detail=detail)
    here.warm(principal, procedure_id)
    return _out(found, response)


@router.delete("/{procedure_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problem_responses(404))
def delete_procedure(procedure_id: RecordId, here: Here, principal: Writer) -> None:
    """Remove a procedure with its versions and golds. Its evaluations stay on record; the gold videos stay videos."""
    with here.database.transaction() as session:
        store.drop_procedure(session, principal, procedure_id)
        append_in(session, "sop.procedure_deleted", actor=principal.subject, subject=procedure_id)
    here.evaluations.forget(procedure_id)


@router.post("/{procedure_id}/golds", status_code=status.HTTP_201_CREATED, responses=problem_responses(404, 409))
async def attach_gold(procedure_id: RecordId, body: GoldIn, here: Here, principal: Writer) -> GoldOut:
    """Make a video a gold run of the current version. Without steps they are proposed: look at them, then correct
    them.
    """
    return await here.evaluating(lambda: _attach(here, principal, procedure_id, body))


def _attach(here: Here, principal: Principal, procedure_id: str, body: GoldIn) -> GoldOut:
    version, placed = here.procedures.place_one(principal, procedure_id, body.video_id, body.steps)
    with here.database.transaction() as session:
        gold = gold_out(procedures.attach(session, principal, procedure_id, placed, version=version))
    here.warm(principal, procedure_id)
    return gold


@router.get("/{procedure_id}/golds", responses=problem_responses(404))
def list_golds(procedure_id: RecordId, here: Here, principal: Reader, version: Version = None) -> list[GoldOut]:
    """The gold runs of a version."""
    with here.database.read() as session:
        row = records.get(session, ProcedureRow, procedure_id, principal)
        return [gold_out(gold) for gold in store.golds_of(session, row.id, version or row.version)]


@router.put("/{procedure_id}/golds/{gold_id}", responses=problem_responses(404, 409))
async def correct_gold(
    procedure_id: RecordId, gold_id: RecordId, body: GoldSteps, here: Here, principal: Writer
) -> GoldOut:
    """Say where the steps of a gold run of the current version really lie; evaluations of before stay as they are."""
    return await here.evaluating(lambda: _correct(here, principal, procedure_id, gold_id, body))


def _correct(here: Here, principal: Principal, procedure_id: str, gold_id: str, body: GoldSteps) -> GoldOut:
    version, placed = here.procedures.place_again(principal, procedure_id, gold_id, body.steps)
    with here.database.transaction() as session:
        gold = gold_out(procedures.correct(session, principal, procedure_id, gold_id, placed, version=version))
        detail = {"gold": gold_id}
        append_in(session, "sop.gold_corrected", actor=principal.subject, subject=procedure_id, detail=detail)
    here.warm(principal, procedure_id)
    return gold


@router.delete(
    "/{procedure_id}/golds/{gold_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problem_responses(404, 409)
)
def detach_gold(procedure_id: RecordId, gold_id: RecordId, here: Here, principal: Writer) -> None:
    """Take a gold run away from the current version; the video stays."""
    with here.database.transaction() as session:
        procedures.detach(session, principal, procedure_id, gold_id)
        detail = {"gold": gold_id}
        append_in(session, "sop.gold_detached", actor=principal.subject, subject=procedure_id, detail=detail)
    here.evaluations.forget(procedure_id)
    here.warm(principal, procedure_id)


def gold_out(gold: Gold) -> GoldOut:
    """A gold as the wire shows it."""
    return GoldOut(
        id=gold.id,
        procedure_id=gold.procedure_id,
        version=gold.version,
        video_id=gold.video_id,
        steps=[SpanOut.model_validate(span) for span in gold.spans],
        steps_by="author" if gold.spans_by == "author" else "proposed",
        created_at=gold.created_at,
        created_by=gold.created_by,
    )


def _out(found: Registered, response: Response) -> ProcedureOut:
    response.headers["ETag"] = f'"{found.version}"'
    return ProcedureOut(
        id=found.row.id,
        clearance=clearance_label(found.row.clearance),
        created_at=found.row.created_at,
        created_by=found.row.created_by,
        version=found.version,
        updated_at=found.row.updated_at,
        title=TextOut.model_validate(found.procedure.title),
        steps=[StepOut.model_validate(asdict(step)) for step in found.procedure.steps],
        golds=[gold_out(gold) for gold in found.golds],
        advice=found.advice,
    )
