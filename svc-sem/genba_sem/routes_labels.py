"""``/v1/sem/labels``: create, rename, define, merge, split, retire, restore, and what became of what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response, status
from sqlalchemy.orm import Session

from genba_sem import curation, labels, master_sets
from genba_sem.curation import Part
from genba_sem.dependencies import Cursor, Limit, Reader, Writer
from genba_sem.schemas_labels import (
    LabelIn,
    LabelOut,
    LabelReason,
    LabelRedirect,
    LabelRevision,
    LabelStatus,
    LabelVersionOut,
    MergeIn,
    MergeOut,
    SplitIn,
    SplitOut,
    label_out,
    redirect_out,
    version_out,
)
from genba_sem.service import Here
from genba_sem.tables import LabelRow
from genba_shared import records
from genba_shared.audit import append_in
from genba_shared.dependencies import IfMatch, OptionalIdempotencyKey
from genba_shared.idempotency import Answer, Submission
from genba_shared.principal import Principal
from genba_shared.service import problem_responses
from genba_shared.wire_records import Page, RecordId, expected_version

router = APIRouter(prefix="/v1/sem/labels", tags=["sem labels"])


@router.post("", status_code=status.HTTP_201_CREATED, responses=problem_responses(404, 409))
def create_label(
    body: LabelIn, key: OptionalIdempotencyKey, response: Response, here: Here, principal: Writer
) -> LabelOut:
    """Make a label. Its id is for ever; all else about it may change later."""

    def make(session: Session) -> LabelRow:
        clearance = records.label_for(principal, body.clearance)
        return labels.create(session, principal, body.document(), clearance=clearance)

    if key is None:
        with here.database.transaction() as session:
            row = make(session)
    else:
        submission = Submission.of(key, principal=principal, operation="POST /v1/sem/labels", payload=body)
        answer = here.idempotency.once(submission, lambda session: Answer(201, make(session).id))
        with here.database.read() as session:
            row = records.get(session, LabelRow, str(answer.body), principal)
        if answer.replayed:
            response.headers["Idempotency-Replayed"] = "true"
    response.headers["Location"] = f"/v1/sem/labels/{row.id}"
    response.headers["ETag"] = f'"{row.version}"'
    return label_out(row, masters=0, particles=0)


@router.get("", responses=problem_responses(404))
def list_labels(
    here: Here,
    principal: Reader,
    label_status: Annotated[LabelStatus | None, Query(alias="status")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[LabelOut]:
    """The labels that you may see, newest first, with what they hold."""
    where = [] if label_status is None else [LabelRow.status == label_status]
    with here.database.read() as session:
        rows, following = records.page(session, LabelRow, principal, *where, limit=limit, cursor=cursor)
        return Page[LabelOut](items=_outs(session, principal, rows), next_cursor=following)


@router.get(
    "/{label_id}",
    response_model=LabelOut,
    responses={
        308: {"model": LabelRedirect, "description": "It was merged; Location leads to its successor."},
        **problem_responses(404),
    },
)
def get_label(
    label_id: RecordId,
    response: Response,
    here: Here,
    principal: Reader,
    merged: Annotated[
        Literal["redirect", "show"], Query(description="show: answer with a merged label itself")
    ] = "redirect",
) -> LabelOut | Response:
    """A label as it is now. One that was merged redirects to what it means today."""
    with here.database.read() as session:
        row = records.get(session, LabelRow, label_id, principal)
        if row.status == "merged" and merged == "redirect":
            body = redirect_out(labels.label_of(row)).model_dump_json()
            headers = {"location": f"/v1/sem/labels/{row.successors[0]}"}
            return Response(body, status.HTTP_308_PERMANENT_REDIRECT, headers, "application/json")
        response.headers["ETag"] = f'"{row.version}"'
        return _outs(session, principal, [row])[0]


@router.get("/{label_id}/history", responses=problem_responses(404))
def get_label_history(label_id: RecordId, here: Here, principal: Reader) -> list[LabelVersionOut]:
    """Every version of a label, oldest first: what it was, what made it so, who and why."""
    with here.database.read() as session:
        records.get(session, LabelRow, label_id, principal)
        return [version_out(row) for row in labels.history(session, label_id)]


@router.put("/{label_id}", responses=problem_responses(404, 409))
def revise_label(
    label_id: RecordId, body: LabelRevision, response: Response, if_match: IfMatch, here: Here, principal: Writer
) -> LabelOut:
    """Rename or define a label. 409 when somebody else was quicker. Nothing is retrained and no particle is touched."""
    expected = expected_version(if_match)
    with here.database.transaction() as session:
        row = labels.revise(session, principal, label_id, body.document(), expected=expected, reason=body.reason)
        return _changed(session, principal, row, "sem.label_revised", response)


@router.post("/{label_id}/merge", responses=problem_responses(404, 409))
def merge_label(
    label_id: RecordId, body: MergeIn, response: Response, if_match: IfMatch, here: Here, principal: Writer
) -> MergeOut:
    """Let this label mean another from now on. Its particles and masters go along; ``restore`` undoes it."""
    expected = expected_version(if_match)
    with here.database.transaction() as session:
        row, into, concerned = curation.merge(
            session, principal, label_id, body.into, expected=expected, reason=body.reason
        )
        merged = _changed(session, principal, row, "sem.label_merged", response, into=into.id)
        return MergeOut(merged=merged, into=_outs(session, principal, [into])[0], particles=concerned)


@router.post("/{label_id}/split", responses=problem_responses(404, 409))
def split_label(
    label_id: RecordId, body: SplitIn, response: Response, if_match: IfMatch, here: Here, principal: Writer
) -> SplitOut:
    """Replace a label by several. Its particles go to the part that they resemble most and wait for a reviewer there."""
    expected = expected_version(if_match)
    parts = [Part(part.document(), tuple(part.master_ids)) for part in body.into]
    lane = here.lanes.lane_or_none(principal.tenant, int(principal.clearance))
    with here.database.transaction() as session:
        done = curation.split(session, principal, label_id, parts, expected=expected, reason=body.reason, lane=lane)
        ids = [part.id for part in done.parts]
        out = _changed(session, principal, done.label, "sem.label_split", response, into=ids)
        return SplitOut(
            split=out,
            into=_outs(session, principal, done.parts),
            particles={part: done.particles.get(part, 0) for part in ids},
            unassigned=done.particles.get(None, 0),
            master_set=done.master_set,
        )


@router.post("/{label_id}/retire", responses=problem_responses(404, 409))
def retire_label(
    label_id: RecordId, body: LabelReason, response: Response, if_match: IfMatch, here: Here, principal: Writer
) -> LabelOut:
    """Give a label to no more particles; those that have it keep it."""
    expected = expected_version(if_match)
    with here.database.transaction() as session:
        row = curation.retire(session, principal, label_id, expected=expected, reason=body.reason)
        return _changed(session, principal, row, "sem.label_retired", response)


@router.post("/{label_id}/restore", responses=problem_responses(404, 409))
def restore_label(
    label_id: RecordId, body: LabelReason, response: Response, if_match: IfMatch, here: Here, principal: Writer
) -> LabelOut:
    """Undo a merge or a retirement: the label, its masters and its particles are what they were."""
    expected = expected_version(if_match)
    with here.database.transaction() as session:
        row = curation.restore(session, principal, label_id, expected=expected, reason=body.reason)
        return _changed(session, principal, row, "sem.label_restored", response)


def _changed(
    session: Session, principal: Principal, row: LabelRow, event: str, response: Response, **detail: str | list[str]
) -> LabelOut:
    """The label after a change, which goes into the audit log."""
    audited = {"version": row.version, **detail}
    append_in(session, event, actor=principal.subject, subject=row.id, detail=audited)  # type: ignore[arg-type]
    response.headers["ETag"] = f'"{row.version}"'
    return _outs(session, principal, [row])[0]


def _outs(session: Session, principal: Principal, rows: Sequence[LabelRow]) -> list[LabelOut]:
    book = labels.book(session, principal.tenant)
    particles = curation.counts_by_label(session, principal, book)
    masters = master_sets.current(session, principal.tenant)
    held = Counter(row.label_id for row in masters if row.clearance <= principal.clearance)
    return [label_out(row, masters=held[row.id], particles=particles[row.id]) for row in rows]
