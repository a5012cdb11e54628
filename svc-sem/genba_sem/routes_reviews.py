"""``/v1/sem/reviews``: what waits and why, what reviewers say, how it goes."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response, status

from genba_sem import labels, master_sets, reviews
from genba_sem.dependencies import Cursor, Limit, Reader, Reviewer
from genba_sem.labels import LabelBook
from genba_sem.master_sets import TooFewMasters
from genba_sem.reviews import Said
from genba_sem.schemas_particles import Batch, ScoredLabel, reason_out, ref, summary_fields, summary_out
from genba_sem.schemas_reviews import (
    LaneOut,
    ProgressOut,
    QueueItem,
    QueueOut,
    ReasonCount,
    RequestIn,
    Reviewed,
    ReviewIn,
    ReviewOut,
    review_out,
)
from genba_sem.service import Here, Sem
from genba_sem.tables import ParticleRow, ReviewRow
from genba_shared import records
from genba_shared.audit import append_in
from genba_shared.dependencies import IfMatch
from genba_shared.patterns import pattern
from genba_shared.principal import Principal
from genba_shared.problems import Invalid, fault
from genba_shared.service import problem_responses
from genba_shared.wire_records import Page, RecordId, expected_version

router = APIRouter(prefix="/v1/sem", tags=["sem reviews"])

_CURSOR: Final = re.compile(r"(-?\d{1,3}(?:\.\d{1,20})?(?:e-?\d{1,3})?)~([a-z]{2,8}_[0-9a-z]{1,30})", re.ASCII)
Reason = Annotated[
    str | None,
    Query(max_length=40, pattern=pattern(r"^[a-z_]+$", "must be a reason that the queue names")),
]


@router.get("/reviews", responses=problem_responses(404))
def get_queue(
    here: Here,
    principal: Reader,
    reason: Reason = None,
    label_id: Annotated[RecordId | None, Query(description="held for this label, as labels are now")] = None,
    batch: Annotated[Batch | None, Query()] = None,
    mine: Annotated[
        str | None,
        Query(
            pattern=pattern("^open$", "must be open, or left out"),
            description="open: without those that you have reviewed",
        ),
    ] = None,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=80, description="next_cursor of the page before")] = None,
) -> QueueOut:
    """What waits for a reviewer, most urgent first: what calibrates, audits, second opinions, then what is doubtful."""
    after = _after(cursor)
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
        rows = reviews.queue(
            session,
            principal,
            reason=reason,
            batch=batch,
            label_ids=None if label_id is None else book.meaning(label_id),
            without_reviewer=principal.subject if mine else None,
            after=after,
            limit=limit,
        )
        words = reviews.latest_words(session, [row.id for row in rows[:limit]])
    items = [_item(here, row, book, list(words[row.id])) for row in rows[:limit]]
    last = rows[limit - 1] if len(rows) > limit else None
    return QueueOut(items=items, next_cursor=f"{last.priority!r}~{last.id}" if last else None)


def _after(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    match = _CURSOR.fullmatch(cursor)
    if match is None or not math.isfinite(float(match[1])):
        raise Invalid("cursor is no cursor of this list.", errors=[fault("cursor", "is no cursor of this list")])
    return float(match[1]), match[2]


def _item(here: Sem, row: ParticleRow, book: LabelBook, reviewers: list[str]) -> QueueItem:
    said = row.decision
    contested = {"boundary", "disagreement", "second_opinion"} & set(row.reasons)
    likely: dict[str, float] = said.get("probabilities", {})
    members = [(each, ref(book, each)) for each in said.get("label_set", [])]
    return QueueItem(
        **summary_fields(row, book),
        priority=row.priority,
        label_set=[ScoredLabel(label=label, probability=likely.get(each)) for each, label in members if label],
        recommended_view=said.get("recommended_view"),
        reviewers=reviewers,
        reviewers_needed=here.settings.boundary_reviewers if contested else 1,
    )


@router.post("/reviews", status_code=status.HTTP_201_CREATED, responses=problem_responses(404, 409))
def add_review(body: ReviewIn, if_match: IfMatch, response: Response, here: Here, principal: Reviewer) -> Reviewed:
    """Say what a particle is. If-Match names the particle's version: who reviewed what somebody else just changed gets a 409."""
    expected = expected_version(if_match)
    with here.database.transaction() as session:
        book = labels.held(session, principal.tenant)
        row = records.get(session, ParticleRow, body.particle_id, principal, lock=True)
        review = reviews.say(
            session,
            principal,
            row,
            Said(body.label_id, body.note, body.seconds),
            book=book,
            reviewers_needed=here.settings.boundary_reviewers,
            expected=expected,
        )
        append_in(
            session, "sem.particle_reviewed", actor=principal.subject, subject=row.id, detail=reviews.document(review)
        )
        response.headers["ETag"] = f'"{row.version}"'
        return Reviewed(review=review_out(review, book), particle=summary_out(row, book), settled=not row.in_queue)


@router.get("/reviews/history", responses=problem_responses(404))
def list_reviews(
    here: Here,
    principal: Reader,
    particle_id: Annotated[RecordId | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ReviewOut]:
    """What reviewers said, newest first."""
    query = reviews.newest(principal)
    if particle_id is not None:
        query = query.where(ReviewRow.particle_id == particle_id)
    if cursor is not None:
        query = query.where(ReviewRow.id < cursor)
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
        rows = session.scalars(query.limit(limit + 1)).all()
    following = rows[limit - 1].id if len(rows) > limit else None
    return Page[ReviewOut](items=[review_out(row, book) for row in rows[:limit]], next_cursor=following)


@router.post("/reviews/requests", status_code=status.HTTP_202_ACCEPTED, responses=problem_responses(404, 409))
def request_reviews(body: RequestIn, here: Here, principal: Reviewer) -> QueueOut:
    """Ask for reviews of particles that do not wait for one; what they are held for stays meanwhile."""
    with here.database.transaction() as session:
        book = labels.book(session, principal.tenant)
        rows = reviews.lock(session, principal, body.particle_ids)
        for row in rows:
            reviews.enqueue(row, "requested")
        session.flush()
        return QueueOut(items=[_item(here, row, book, []) for row in rows], next_cursor=None)


@router.get("/reviews/progress", responses=problem_responses(404))
def get_progress(here: Here, principal: Reader) -> ProgressOut:
    """How the queue stands, how fast it goes, and how many error-free reviews are lacking until something is confirmed."""
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
        found = reviews.progress(session, principal, book)
    counts = {"particles_per_decision", "median_seconds", "waiting", "reviewed", "confirmed", "decisions", "audits"}
    fields: dict[str, Any] = {name: getattr(found, name) for name in counts}
    ranked = sorted(found.by_reason.items(), key=lambda each: -each[1])
    return ProgressOut(
        **fields,
        audits_wrong=found.audits_wrong,
        by_reason=[ReasonCount(**reason_out(code).model_dump(), particles=count) for code, count in ranked],
        lane=_lane(here, principal, book),
    )


@router.get("/lane", responses=problem_responses(404, 409))
def get_lane(here: Here, principal: Reader) -> LaneOut:
    """What decides about particles of your clearance now. 409 that names the labels while there are too few masters."""
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
    return _lane_out(here, principal, book)


def _lane(here: Sem, principal: Principal, book: LabelBook) -> LaneOut | None:
    try:
        return _lane_out(here, principal, book)
    except TooFewMasters:
        return None


def _lane_out(here: Sem, principal: Principal, book: LabelBook) -> LaneOut:
    ready = here.lanes.ready(principal.tenant, int(principal.clearance))
    with here.database.read() as session:
        newest = master_sets.newest(session, principal.tenant)
    lane, calibration = ready.lane, ready.lane.calibration
    return LaneOut(
        model=ready.model,
        master_set=ready.master_set,
        newest_master_set=newest.number if newest else 0,
        encoder=lane.versions.encoder,
        classifier=lane.versions.classifier,
        fusion=lane.versions.fusion,
        labels=len(lane.labels),
        masters=len(lane.masters.particles),
        promised_precision=lane.policy.precision,
        confirm_from=calibration.confirm_at,
        calibration_reviews=calibration.reviews,
        reviews_needed=calibration.reviews_needed,
        labels_left_out=[label for each in ready.left_out if (label := ref(book, each)) is not None],
    )
