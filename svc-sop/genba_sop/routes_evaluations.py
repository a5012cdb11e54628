"""``/v1/sop/evaluations``: score, look, report, review."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Response, status
from sqlalchemy.orm import defer

from genba_shared import records
from genba_shared.audit import append_in
from genba_shared.dependencies import IdempotencyKey, require
from genba_shared.idempotency import Answer, Submission
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import NotFound
from genba_shared.service import problem_responses
from genba_shared.wire_records import JobOut, Page, RecordId, clearance_label, job_out
from genba_sop import report, report_pdf, review, store
from genba_sop.bundles import Thumbnails, unpack_thumbnails
from genba_sop.evaluation import Verdict
from genba_sop.evaluations import Asked
from genba_sop.routes_videos import Cursor, Limit, Reader, Writer
from genba_sop.schemas import (
    AgreementOut,
    EvaluationBatchIn,
    EvaluationIn,
    EvaluationOut,
    EvaluationSummary,
    Language,
    Operator,
    ReviewIn,
    ReviewOut,
)
from genba_sop.service import Here, Sop
from genba_sop.tables import EvaluationRow, ProcedureRow, Review, Video

router = APIRouter(prefix="/v1/sop", tags=["sop evaluations"])

Reviewer = Annotated[Principal, require("sop:review")]
CLAIM_S: Final = 15.0  # after a process that died; one that only takes longer keeps its claim unless the caller repeats
_SUMMARY: Final = ("procedure_id", "procedure_version", "video_id", "operator", "score", "verdict", "reviewed_verdict",
                   "encoder", "model_version", "timings_ms")  # fmt: skip


@router.post("/evaluations", status_code=status.HTTP_201_CREATED, responses=problem_responses(404, 409, 429))
async def evaluate_video(
    body: EvaluationIn, response: Response, key: IdempotencyKey, here: Here, principal: Writer
) -> EvaluationOut:
    """Score a video against the current version of a procedure. The same ``Idempotency-Key`` gives the same
    evaluation.
    """
    row, replayed = await here.evaluating(lambda: _evaluate(here, principal, key, body))
    response.headers["Location"] = f"/v1/sop/evaluations/{row.id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return evaluation_out(row)


def _evaluate(here: Sop, principal: Principal, key: str, body: EvaluationIn) -> tuple[EvaluationRow, bool]:
    submission = Submission.of(key, principal=principal, operation="POST /v1/sop/evaluations", payload=body)
    with here.idempotency.claim(submission, lease_s=CLAIM_S) as claim:
        if claim.answer is not None:
            with here.database.read() as session:
                return records.get(session, EvaluationRow, str(claim.answer.body), principal), True
        scored = here.evaluations.score(Asked(principal, body.procedure_id, body.video_id, operator=body.operator))
        with here.database.transaction() as session:
            row = here.evaluations.write(session, scored)
            claim.finish(session, Answer(201, row.id))
        return row, False


@router.post("/evaluations/batch", status_code=status.HTTP_202_ACCEPTED, responses=problem_responses(404, 409, 429))
def evaluate_batch(
    body: EvaluationBatchIn, response: Response, key: IdempotencyKey, here: Here, principal: Writer
) -> JobOut:
    """Score many videos against one procedure, as a job; each evaluation appears in the list as soon as it is made."""
    with here.database.read() as session:
        labels = [records.get(session, ProcedureRow, body.procedure_id, principal).clearance]
        labels += [records.get(session, Video, item.video_id, principal).clearance for item in body.videos]
    job = here.jobs.submit(
        "sop.evaluate_batch",
        body.model_dump(mode="json"),
        principal=principal,
        idempotency_key=key,
        clearance=Clearance(max(labels)),
    )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_out(job)


@router.get("/evaluations", responses=problem_responses(404))
def list_evaluations(
    here: Here,
    principal: Reader,
    procedure_id: RecordId | None = None,
    video_id: RecordId | None = None,
    operator: Annotated[Operator | None, Query()] = None,
    verdict: Annotated[Verdict | None, Query(description="of the machine")] = None,
    reviewed: Annotated[bool | None, Query(description="only those with a review, or only those without")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[EvaluationSummary]:
    """Evaluations that you may see, newest first."""
    wanted = {"procedure_id": procedure_id, "video_id": video_id, "operator": operator, "verdict": verdict}
    where = [getattr(EvaluationRow, name) == value for name, value in wanted.items() if value is not None]
    if reviewed is not None:
        column = EvaluationRow.reviewed_verdict
        where.append(column.is_not(None) if reviewed else column.is_(None))
    with here.database.read() as session:
        rows, following = records.page(
            session,
            EvaluationRow,
            principal,
            *where,
            limit=limit,
            cursor=cursor,
            options=(defer(EvaluationRow.document),),
        )  # traces of long videos are megabytes
    return Page[EvaluationSummary](items=[EvaluationSummary(**_columns(row)) for row in rows], next_cursor=following)


@router.get("/evaluations/{evaluation_id}", responses=problem_responses(404))
def get_evaluation(evaluation_id: RecordId, here: Here, principal: Reader) -> EvaluationOut:
    """One evaluation, whole."""
    with here.database.read() as session:
        return evaluation_out(records.get(session, EvaluationRow, evaluation_id, principal))


_REPORTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {kind: {} for kind in ("text/html", "application/json", "text/csv", "application/pdf")}},
    **problem_responses(404),
}


@router.get("/evaluations/{evaluation_id}/report", response_class=Response, responses=_REPORTS)
def get_report(
    evaluation_id: RecordId,
    here: Here,
    principal: Reader,
    lang: Annotated[Language | None, Query(description="the language shown first; the caller's when absent")] = None,
    accept_language: Annotated[str | None, Header()] = None,
) -> Response:
    """The report as one HTML page with its pictures in it, in English and Japanese; it prints well."""
    return get_report_as(evaluation_id, "html", here, principal, lang, accept_language)


@router.get("/evaluations/{evaluation_id}/report.{form}", response_class=Response, responses=_REPORTS)
def get_report_as(
    evaluation_id: RecordId,
    form: Literal["html", "json", "csv", "pdf"],
    here: Here,
    principal: Reader,
    lang: Annotated[Language | None, Query(description="the language shown first; the caller's when absent")] = None,
    accept_language: Annotated[str | None, Header()] = None,
) -> Response:
    """The report as HTML, JSON, CSV (UTF-8, for a spreadsheet) or PDF."""
    with here.database.read() as session:
        row = records.get(session, EvaluationRow, evaluation_id, principal)
        evaluation = evaluation_out(row)
        videos = {
            video_id: found
            for video_id in (row.video_id, evaluation.trace.gold_video_id)
            if (found := session.get(Video, video_id)) is not None
        }
        reviews = [review_out(each) for each in store.reviews_of(session, row.id)]
    language = lang or ("ja" if (accept_language or "").lower().startswith("ja") else "en")
    if form == "json":
        return Response(evaluation.model_dump_json(), media_type="application/json")
    if form == "csv":
        body: str | bytes = report.to_csv(evaluation)
        return _file(body, "text/csv; charset=utf-8", f"{row.id}.csv")
    page = report.assemble(
        evaluation,
        report.extra_of(row.document),
        reviews=reviews,
        pictures=report.Pictures(lambda video_id: _thumbnails(here, videos.get(video_id))),
    )
    if form == "pdf":
        return _file(report_pdf.to_pdf(page, language=language), "application/pdf", f"{row.id}.pdf")
    return Response(
        report.to_html(page, language=language),
        media_type="text/html",
        headers={"content-security-policy": report.CONTENT_SECURITY_POLICY, "cache-control": "private, no-store"},
    )


def _thumbnails(here: Sop, video: Video | None) -> Thumbnails | None:
    """A video's kept frames; None when it has been erased, perhaps just now."""
    if video is None:
        return None
    try:
        with here.artifacts.open(video.thumbnails_key) as file:
            return unpack_thumbnails(file)
    except NotFound:
        return None


def _file(body: str | bytes, media_type: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "private, no-store"}
    return Response(body, media_type=media_type, headers=headers)


@router.post(
    "/evaluations/{evaluation_id}/review",
    status_code=status.HTTP_201_CREATED,
    responses=problem_responses(404, 409),
)
def review_evaluation(evaluation_id: RecordId, body: ReviewIn, here: Here, principal: Reviewer) -> ReviewOut:
    """Override the verdict, with a reason. The machine's verdict and every earlier review stay on record."""
    said = review.Said(
        body.verdict,
        body.reason,
        score=body.score,
        deviations=tuple((item.index, item.confirmed) for item in body.deviations),
    )
    with here.database.transaction() as session:
        row = review.add(session, principal, evaluation_id, said)
        detail = {"verdict": body.verdict, "review": row.id}
        append_in(session, "sop.evaluation_reviewed", actor=principal.subject, subject=evaluation_id, detail=detail)
        return review_out(row)


@router.get("/evaluations/{evaluation_id}/reviews", responses=problem_responses(404))
def list_reviews(evaluation_id: RecordId, here: Here, principal: Reader) -> list[ReviewOut]:
    """Every review of an evaluation, oldest first."""
    with here.database.read() as session:
        records.get(session, EvaluationRow, evaluation_id, principal)
        return [review_out(row) for row in store.reviews_of(session, evaluation_id)]


@router.get("/reviews/agreement", responses=problem_responses(404))
def get_agreement(here: Here, principal: Reader, procedure_id: RecordId | None = None) -> AgreementOut:
    """How far reviewers agree with each other and with the machine."""
    with here.database.read() as session:
        if procedure_id is not None:
            records.get(session, ProcedureRow, procedure_id, principal)
        return AgreementOut.model_validate(review.agreement(store.visible_reviews(session, principal, procedure_id)))


def _columns(row: EvaluationRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "clearance": clearance_label(row.clearance),
        "created_at": row.created_at,
        "created_by": row.created_by,
        **{name: getattr(row, name) for name in _SUMMARY},
    }


def evaluation_out(row: EvaluationRow) -> EvaluationOut:
    """An evaluation as the wire shows it."""
    return EvaluationOut.model_validate({**row.document, **_columns(row)})


def review_out(row: Review) -> ReviewOut:
    """A review as the wire shows it."""
    return ReviewOut.model_validate(row)
