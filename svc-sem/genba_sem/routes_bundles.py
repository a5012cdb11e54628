"""``/v1/sem/reviews/bundles``: look-alikes of the queue, to be confirmed with one look or split."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response, status
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from genba_sem import bundling, labels
from genba_sem.dependencies import Cursor, Limit, Reader, Reviewer
from genba_sem.labels import LabelBook
from genba_sem.schemas_particles import ScoredLabel, ref, summary_out
from genba_sem.schemas_reviews import BundleOut, BundlesIn, BundleWhole, ConfirmedOut, ConfirmIn, SplitBundleIn
from genba_sem.service import Here, Sem
from genba_sem.tables import BundleRow, ParticleRow
from genba_shared import records
from genba_shared.audit import append_in
from genba_shared.dependencies import IfMatch
from genba_shared.principal import Principal
from genba_shared.service import problem_responses
from genba_shared.wire_records import Page, RecordId, clearance_label, expected_version

router = APIRouter(prefix="/v1/sem/reviews/bundles", tags=["sem reviews"])

BundleStatus = Literal["open", "confirmed", "split", "stale"]


@router.post("", status_code=status.HTTP_201_CREATED, responses=problem_responses(404, 409, 429))
async def build_bundles(body: BundlesIn, here: Here, principal: Reviewer) -> list[BundleOut]:
    """Bundle the queue anew, largest first. Open bundles of before become stale; particles that resemble no other stay single."""
    return await here.classifying(lambda: _build(here, principal, body))


def _build(here: Sem, principal: Principal, body: BundlesIn) -> list[BundleOut]:
    with here.database.transaction() as session:
        book = labels.book(session, principal.tenant)
        rows = bundling.build(session, principal, book, least=body.least, batch=body.batch)
        return [_out(session, row, book) for row in rows]


@router.get("", responses=problem_responses(404))
def list_bundles(
    here: Here,
    principal: Reader,
    bundle_status: Annotated[BundleStatus, Query(alias="status")] = "open",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[BundleOut]:
    """Bundles, newest first."""
    where: list[ColumnElement[bool]] = [BundleRow.status == bundle_status]
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
        rows, following = records.page(session, BundleRow, principal, *where, limit=limit, cursor=cursor)
        return Page[BundleOut](items=[_out(session, row, book) for row in rows], next_cursor=following)


@router.get("/{bundle_id}", responses=problem_responses(404))
def get_bundle(bundle_id: RecordId, response: Response, here: Here, principal: Reader) -> BundleWhole:
    """A bundle with its members."""
    with here.database.read() as session:
        row = records.get(session, BundleRow, bundle_id, principal)
        book = labels.book(session, principal.tenant)
        response.headers["ETag"] = f'"{row.version}"'
        return BundleWhole(**_out(session, row, book).model_dump(), particle_ids=row.particle_ids)


@router.post("/{bundle_id}/confirm", responses=problem_responses(404, 409))
def confirm_bundle(
    bundle_id: RecordId, body: ConfirmIn, if_match: IfMatch, response: Response, here: Here, principal: Reviewer
) -> ConfirmedOut:
    """Give every member one label, except those taken out. Boundary cases among them still wait for another reviewer."""
    expected = expected_version(if_match)
    with here.database.transaction() as session:
        book = labels.held(session, principal.tenant)
        bundle = bundling.open_bundle(session, principal, bundle_id, expected=expected)
        done = bundling.confirm(
            session,
            principal,
            bundle,
            body.label_id,
            without=body.without,
            note=body.note,
            seconds=body.seconds,
            book=book,
            reviewers_needed=here.settings.boundary_reviewers,
        )
        detail = {"label": body.label_id, "settled": done.settled}
        append_in(session, "sem.bundle_confirmed", actor=principal.subject, subject=bundle_id, detail=detail)
        response.headers["ETag"] = f'"{bundle.version}"'
        out = _out(session, bundle, book)
    return ConfirmedOut(bundle=out, settled=done.settled, waiting_for_another=done.waiting, skipped=list(done.skipped))


@router.post("/{bundle_id}/split", status_code=status.HTTP_201_CREATED, responses=problem_responses(404, 409))
def split_bundle(
    bundle_id: RecordId, body: SplitBundleIn, if_match: IfMatch, here: Here, principal: Reviewer
) -> list[BundleOut]:
    """Replace a bundle by its parts; members that are alone go back to the queue."""
    expected = expected_version(if_match)
    with here.database.transaction() as session:
        book = labels.book(session, principal.tenant)
        bundle = bundling.open_bundle(session, principal, bundle_id, expected=expected)
        made = bundling.split(session, principal, bundle, count=body.parts, given=body.groups)
        return [_out(session, row, book) for row in made]


def _out(session: Session, row: BundleRow, book: LabelBook) -> BundleOut:
    said = row.document
    shown = {*said["representatives"], *said["edge"]}
    found = {each.id: each for each in session.scalars(select(ParticleRow).where(ParticleRow.id.in_(shown)))}
    scored = [(ref(book, each), share) for each, share in said["labels"].items()]
    return BundleOut(
        id=row.id,
        clearance=clearance_label(row.clearance),
        created_at=row.created_at,
        created_by=row.created_by,
        version=row.version,
        status=row.status,
        size=len(row.particle_ids),
        cohesion=said["cohesion"],
        labels=[ScoredLabel(label=label, probability=share) for label, share in scored if label is not None],
        representatives=[summary_out(found[each], book) for each in said["representatives"] if each in found],
        edge=[summary_out(found[each], book) for each in said["edge"] if each in found],
        tags=said["tags"],
        nearest_masters=said["masters"],
        updated_at=row.updated_at,
    )
