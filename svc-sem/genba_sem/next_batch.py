"""Which particles to review next, so that few reviews teach much: chosen from all that nobody has reviewed, and put into the queue.

They stand behind what calibrates, audits and what somebody asked for, and before what is merely doubtful, in the order of their use. A
new choice takes the place of the one before. Because they were chosen, their reviews never calibrate. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import numpy as np
from pydantic import Field
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from genba_sem import lanes, reviews
from genba_sem.active import Strategy, choose
from genba_sem.classifying import Work
from genba_sem.schemas_particles import Batch
from genba_sem.tables import ParticleRow
from genba_shared.problems import Conflict
from genba_shared.recipe import Params, Result, Run

_PAGE: Final = 500
_MOST_REVIEWED: Final = 5000
_OPEN: Final = ("needs_review", "unknown", "confirmed")


class NextBatchParams(Params):
    """How many particles to ask about, and how to choose them."""

    count: Annotated[int, Field(ge=1, le=1000)] = 50
    strategy: Annotated[
        Strategy,
        Field(description="hybrid: typical ones while labels have fewer than five masters, then the smallest margins."),
    ] = "hybrid"
    batch: Batch | None = Field(None, description="Only particles of this batch.")
    most_candidates: Annotated[int, Field(ge=1, le=100_000, description="Newest particles to choose from.")] = 20_000


def next_batch(params: NextBatchParams, run: Run) -> Result:
    """Choose, and put what was chosen into the queue. Raises: Conflict where nothing is left to ask about."""
    with Work.of(run) as work:
        ready = work.lanes.ready(work.principal.tenant, int(work.principal.clearance))
        lane, mine = (
            ready.lane,
            (
                ParticleRow.tenant == work.principal.tenant,
                ParticleRow.clearance <= int(work.principal.clearance),
                ParticleRow.role == "sample",
            ),
        )
        asked = [ParticleRow.batch == params.batch] if params.batch is not None else []
        found = lanes.newest_fused(
            run.database,
            lane,
            *mine,
            *asked,
            ParticleRow.status.in_(_OPEN),
            most=params.most_candidates,
            progress=lambda share, said: run.progress(0.4 * share, said),
        )
        if not found:
            raise Conflict("Every decided particle has been reviewed: there is none to ask about.")
        reviewed = lanes.newest_fused(
            run.database,
            lane,
            *mine,
            ParticleRow.status == "reviewed",
            ParticleRow.id.not_in([each.particle_id for each in lane.masters.particles]),
            most=_MOST_REVIEWED,
            progress=lambda share, said: run.progress(0.4 + 0.1 * share, said),
        )
        ids, rows = list(found), np.array(list(found.values()), np.float32)
        labelled = np.array([*lane.rows, *reviewed.values()], np.float32)
        run.progress(0.5, f"choosing from {len(ids)}")
        chosen = choose(
            rows,
            params.count,
            labelled=labelled,
            masters_per_label=len(labelled) / len(lane.labels),
            probabilities=lane.probabilities(rows),
            strategy=params.strategy,
            seed=run.seed,
        )
        order = {ids[at]: place for place, at in enumerate(chosen)}
        value = {"candidates": len(ids), "chosen": len(order), "particle_ids": list(order), "model": ready.model}
        return Result(
            value=value,
            metrics={"candidates": float(len(ids)), "chosen": float(len(order))},
            publish=lambda session: _enqueue(session, mine, order),
        )


def _enqueue(session: Session, mine: Sequence[ColumnElement[bool]], order: Mapping[str, int]) -> None:
    """In the transaction that marks the job succeeded; what has been reviewed meanwhile is passed over."""
    still = (*mine, ParticleRow.status.in_(_OPEN))
    for row in _locked(
        session, *still, ParticleRow.in_queue.is_(True), reviews.has_reason(session, reviews.NEXT_BATCH)
    ):
        reviews.withdraw(row, reviews.NEXT_BATCH)
    first, last = reviews.NEXT_BATCH_PRIORITY
    wanted = sorted(order)
    for start in range(0, len(wanted), _PAGE):
        for row in _locked(session, *still, ParticleRow.id.in_(wanted[start : start + _PAGE])):
            share = order[row.id] / max(1, len(order) - 1)
            reviews.enqueue(row, reviews.NEXT_BATCH, priority=first + share * (last - first))
    session.flush()


def _locked(session: Session, *where: ColumnElement[bool]) -> Sequence[Any]:
    return session.scalars(select(ParticleRow).where(*where).order_by(ParticleRow.id).with_for_update()).all()
