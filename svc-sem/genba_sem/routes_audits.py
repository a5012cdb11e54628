"""``/v1/sem/audits/labels``: labels that deserve a second look, reviewers who disagree, masters that are thin or lopsided."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from genba_sem import audits, labels
from genba_sem.dependencies import Reader
from genba_sem.schemas_particles import LabelRef, ref
from genba_sem.service import Here, Sem
from genba_shared.principal import Principal
from genba_shared.service import problem_responses
from genba_shared.wire_records import Wire

router = APIRouter(prefix="/v1/sem/audits", tags=["sem audits"])


class DoubtOut(Wire):
    """A label that deserves a look."""

    particle_id: str
    given: LabelRef | None
    suggested: LabelRef | None
    fit: float = Field(description="How well the label fits its neighbours, 0 to 1; a ranking, not a verdict.")
    is_master: bool


class ThinOut(Wire):
    """A label with few masters."""

    label: LabelRef | None
    masters: int
    views: int


class MastersOut(Wire):
    """How the masters stand."""

    labels: int
    masters: int
    ratio: float | None = Field(description="Masters of the largest label over those of the smallest.")
    lopsided: bool
    thin: list[ThinOut]


class ConfusedOut(Wire):
    """Two labels that reviewers of the same particle gave; null: none of the labels."""

    one: LabelRef | None
    two: LabelRef | None
    particles: int


class ReviewerOut(Wire):
    """A reviewer among others."""

    reviewer: str
    particles: int
    with_the_majority: int


class AuditOut(Wire):
    """What deserves a second look."""

    doubts: list[DoubtOut] = Field(description="Most doubtful first.")
    judged: int = Field(description="Labels of people that could be compared.")
    encoder: str | None = Field(description="Whose rows were compared: an encoder, or the model of the audit job.")
    audited_at: datetime | None = Field(description="When sem.audit compared all labels; null: the newest, just now.")
    audited_by_job: str | None
    masters: MastersOut
    reviewed_twice: int
    disagreed: int
    confused: list[ConfusedOut]
    reviewers: list[ReviewerOut]


@router.get("/labels", responses=problem_responses(404, 429))
async def audit_labels(here: Here, principal: Reader, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> AuditOut:
    """Labels of masters and reviewed particles, most doubtful first; how reviewers agree; which labels have few masters."""
    return await here.classifying(lambda: _audit(here, principal, limit))


def _audit(here: Sem, principal: Principal, limit: int) -> AuditOut:
    lane = here.lanes.lane_or_none(principal.tenant, int(principal.clearance))
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
        found = audits.doubts(session, principal, book, lane)
        health = audits.master_health(session, principal, book)
        said = audits.disagreement(session, principal, book)
    return AuditOut(
        doubts=[
            DoubtOut(
                particle_id=each.particle_id,
                given=ref(book, each.given),
                suggested=ref(book, each.suggested),
                fit=each.fit,
                is_master=each.is_master,
            )
            for each in found.found[:limit]
        ],
        judged=found.judged,
        encoder=found.encoder,
        audited_at=found.audit.created_at if found.audit else None,
        audited_by_job=found.audit.created_by if found.audit else None,
        masters=MastersOut(
            labels=health.labels,
            masters=health.masters,
            ratio=health.ratio,
            lopsided=health.lopsided,
            thin=[ThinOut(label=ref(book, t.label_id), masters=t.masters, views=t.views) for t in health.thin],
        ),
        reviewed_twice=said.reviewed_twice,
        disagreed=said.disagreed,
        confused=[ConfusedOut(one=ref(book, one), two=ref(book, two), particles=n) for one, two, n in said.confused],
        reviewers=[
            ReviewerOut(reviewer=name, particles=seen, with_the_majority=agreed)
            for name, (seen, agreed) in sorted(said.by_reviewer.items())
        ],
    )
