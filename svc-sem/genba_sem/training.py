"""The door that does long work: ``RECIPES``. A worker resolves it by name; nothing here knows of queues, leases or HTTP.

``sem.classify`` decides batches. ``sem.refresh``, ``sem.encoder``, ``sem.head`` and ``sem.fusion`` propose a lane: encoder fit, masters,
fusion and classifier in one bundle, which becomes champion if it is no worse on reviewed particles that it has not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator
from sqlalchemy import ColumnElement

from genba_sem import classifying, store
from genba_sem.classifying import Work
from genba_sem.lanes import Lanes
from genba_sem.model import describer
from genba_sem.schemas_particles import Batch
from genba_sem.service import ARTIFACTS
from genba_sem.settings import Settings
from genba_sem.tables import ParticleRow
from genba_sem.wire import ClearanceLabel, RecordId
from genba_shared.recipe import Params, Recipe, Result, Run

Folder = Annotated[str, StringConstraints(min_length=1, max_length=400, pattern=r"^[^\x00]+$")]


class ClassifyParams(Params):
    """What to classify: what waits in a batch, or particles by their ids, or a folder that becomes a batch first."""

    batch: Batch | None = None
    particle_ids: Annotated[list[RecordId], Field(max_length=10_000)] = Field(default_factory=list)
    folder: Folder | None = Field(None, description="Below the folder that the installation lets jobs read.")
    clearance: ClearanceLabel | None = Field(None, description="Of the particles of a folder.")
    decide: Literal["waiting", "again"] = Field(
        "waiting", description="again: also what has a decision; reviewed particles keep their label."
    )

    @model_validator(mode="after")
    def _selects(self) -> ClassifyParams:
        if self.batch is None and not self.particle_ids:
            raise ValueError("give batch or particle_ids")
        if self.folder is not None and self.batch is None:
            raise ValueError("a folder becomes a batch: name it")
        return self


def classify(params: ClassifyParams, run: Run) -> Result:
    """Bring in a folder if one is named, then decide. Every particle is on record at once; a resumed job goes on where it stopped."""
    with work_of(run) as work:
        brought = 0
        if params.folder is not None and params.batch is not None:
            clearance = store.label_for(run.principal, params.clearance)
            brought = classifying.bring_in(work, params.folder, params.batch, int(clearance))
        where: list[ColumnElement[bool]] = []
        if params.batch is not None:
            where.append(ParticleRow.batch == params.batch)
        if params.particle_ids:
            where.append(ParticleRow.id.in_(params.particle_ids))
        again = ("confirmed", "needs_review", "unknown", "reviewed", "unreadable")
        statuses = ("waiting", *(again if params.decide == "again" else ()))
        found = classifying.classify(work, *where, statuses=statuses)
    value = {"batch": params.batch, "brought_in": brought, "by_status": dict(found)}
    return Result(
        value=value, metrics={"decided": float(sum(found.values())), **{k: float(v) for k, v in found.items()}}
    )


@contextmanager
def work_of(run: Run) -> Iterator[Work]:
    """What a job of this service needs."""
    settings = Settings(platform=run.platform)
    lanes = Lanes(run.database, run.artifacts, settings)
    try:
        yield Work(run, settings, run.database, run.artifacts.below(ARTIFACTS), lanes, describer())
    finally:
        lanes.close()


RECIPES: dict[str, Recipe[Any]] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "sem.classify",
            ClassifyParams,
            classify,
            summary="Classify a batch of particles.",
            scope="sem:write",
            time_limit_s=48 * 3600.0,
        ),
    )
}
