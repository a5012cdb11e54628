"""Compare every label that a person gave with what the lane makes of the others, as a job; the audits view shows the newest.

The view itself can only compare the newest few thousand while somebody waits. The most doubtful may be put back into the queue: what
they are held for stays until a reviewer says otherwise. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Final

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_sem import audits, labels, lanes, reviews
from genba_sem.audits import Doubt
from genba_sem.classifying import Work
from genba_sem.tables import LabelAuditRow, ParticleRow
from genba_shared.db import utc_now
from genba_shared.ids import new_id
from genba_shared.problems import Conflict
from genba_shared.recipe import Params, Result, Run

_KEPT: Final = 500  # doubts that an audit keeps


class AuditParams(Params):
    """How many labels to compare, and what to do with the most doubtful."""

    most_particles: Annotated[int, Field(ge=2, le=100_000, description="Newest masters and reviewed particles.")] = (
        20_000
    )
    enqueue: Annotated[
        int, Field(ge=0, le=500, description="Reviewed particles that go back into the queue; masters never do.")
    ] = 0


def audit(params: AuditParams, run: Run) -> Result:
    """Rank the labels, most doubtful first. Raises: TooFewMasters; Conflict with fewer than two labels to compare."""
    with Work.of(run) as work:
        principal = work.principal
        ready = work.lanes.ready(principal.tenant, int(principal.clearance))
        rows = lanes.newest_fused(
            run.database,
            ready.lane,
            *audits.labelled_by_people(principal),
            most=params.most_particles,
            progress=lambda share, said: run.progress(0.6 * share, said),
        )
        run.progress(0.6, f"comparing {len(rows)} labels")
        with run.database.read() as session:
            given = audits.given_by(session, labels.book(session, principal.tenant), list(rows))
        found = audits.ranked(
            {each: (rows[each], given[each]) for each in rows if each in given}, ready.lane.made_of_masters
        )
        if not found:
            raise Conflict("An audit compares labels: it needs particles of two labels, two of a label at least.")
        doubts = [each for each in found if each.given != each.suggested]
        suspects = [each.particle_id for each in doubts if not each.is_master][: params.enqueue]
        counts = {"judged": len(found), "doubts": len(doubts), "enqueued": len(suspects)}

        def publish(session: Session) -> None:
            session.add(
                LabelAuditRow(
                    id=new_id("aud"), tenant=principal.tenant, clearance=int(principal.clearance), created_at=utc_now(),
                    created_by=run.job_id, model=ready.model, judged=len(found),
                    doubts=[asdict(each) for each in doubts[:_KEPT]],
                )
            )  # fmt: skip
            _enqueue(session, principal.tenant, suspects, doubts)

        return Result(
            value={**counts, "model": ready.model},
            metrics={name: float(count) for name, count in counts.items()},
            publish=publish,
        )


def _enqueue(session: Session, tenant: str, suspects: Sequence[str], doubts: Sequence[Doubt]) -> None:
    """In the transaction that marks the job succeeded; a particle that got another label meanwhile is passed over."""
    by_id = {each.particle_id: each for each in doubts}
    book = labels.book(session, tenant)
    where = (ParticleRow.id.in_(suspects), ParticleRow.status == "reviewed", ParticleRow.in_queue.is_(False))
    for row in session.scalars(select(ParticleRow).where(*where).order_by(ParticleRow.id).with_for_update()):
        if reviews.now_id(book, row.label_id) == by_id[row.id].given:
            reviews.enqueue(row, "label_suspect", priority=1.0 - by_id[row.id].fit)
    session.flush()
