"""The door that does long work: ``RECIPES``. A worker resolves it by name; nothing here knows of queues, leases or HTTP.

``sem.classify`` decides batches, ``sem.reembed`` brings what older encoders described under the one that serves. ``sem.refresh``,
``sem.encoder``, ``sem.head``, ``sem.fusion`` and ``sem.semi_supervised`` propose a lane: encoder, masters, fusion, classifier and head in
one bundle, which becomes champion if it is no worse on reviewed particles that it has not seen. ``sem.next_batch`` says what to review,
``sem.audit`` which labels to look at again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, model_validator
from sqlalchemy import ColumnElement, or_, select

from genba_sem import classifying, onsite, refining
from genba_sem.auditing import AuditParams, audit
from genba_sem.classifying import Work
from genba_sem.encoders import Encoder
from genba_sem.learning import FusionParams, SemiSupervisedParams, fusion, semi_supervised
from genba_sem.next_batch import NextBatchParams, next_batch
from genba_sem.pictured import TextEncoder
from genba_sem.schemas_particles import Batch
from genba_sem.tables import ParticleRow
from genba_shared import records
from genba_shared.encoders import EncoderUnavailable
from genba_shared.patterns import pattern
from genba_shared.problems import Conflict
from genba_shared.recipe import Params, Recipe, Result, Run
from genba_shared.wire_records import ClearanceLabel, RecordId

DECIDED: Final = ("confirmed", "needs_review", "unknown", "reviewed", "unreadable")
_PART: Final = "[A-Za-z0-9][A-Za-z0-9._-]*"
EncoderName = Annotated[
    str,
    StringConstraints(
        pattern=pattern(
            rf"^(hlg-shape-v1|onsite-v1|(dino|onnx):{_PART}(/{_PART}){{0,3}})$",
            "must be hlg-shape-v1, onsite-v1, dino:NAME or onnx:NAME",
        ),
        max_length=120,
    ),
]
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
    with Work.of(run) as work:
        brought, after = 0, 0.0
        if params.folder is not None and params.batch is not None:
            clearance = records.label_for(run.principal, params.clearance)
            brought = classifying.bring_in(work, params.folder, params.batch, int(clearance))
            after = classifying.BROUGHT_IN
        where: list[ColumnElement[bool]] = []
        if params.batch is not None:
            where.append(ParticleRow.batch == params.batch)
        if params.particle_ids:
            where.append(ParticleRow.id.in_(params.particle_ids))
        statuses = ("waiting", *(DECIDED if params.decide == "again" else ()))
        found = classifying.classify(work, *where, statuses=statuses, after=after)
    value = {"batch": params.batch, "brought_in": brought, "by_status": dict(found)}
    return Result(
        value=value, metrics={"decided": float(sum(found.values())), **{k: float(v) for k, v in found.items()}}
    )


class RefreshParams(Params):
    """How to refresh the lane."""

    reviewed: Literal["become_masters", "only_judge"] = Field(
        "become_masters",
        description="Half of the reviewed particles may join the masters; the other half always judges.",
    )
    most_per_label: Annotated[int, Field(ge=1, le=1000)] = 30


def refresh(params: RefreshParams, run: Run) -> Result:
    """Masters with what reviewers added, encoder fit to all views, best classifier: one new lane, if it is no worse."""
    with Work.of(run) as work:
        held = refining.stock(work)
        now = refining.parts_now(work, held)
        masters = held.masters
        if params.reviewed == "become_masters":
            masters = refining.with_reviewed(held, most_per_label=params.most_per_label)
        run.progress(0.2, f"{len(masters)} masters, {len(held.judges)} held back")
        parts = refining.refitted(now, held, masters, seed=run.seed)
        classifier, scores = refining.best_classifier(parts.encoder, parts.fusion, masters)
        run.progress(0.7, f"classifier {classifier}")
        parts = replace(parts, masters=masters, classifier=classifier)
        return refining.propose(work, held, parts, now, made_by="sem.refresh", about={"left_out_by_classifier": scores})


class EncoderParams(Params):
    """Which encoder to propose."""

    encoder: EncoderName | None = Field(
        None,
        description="hlg-shape-v1; onsite-v1, which teaches itself on your pictures; dino:NAME or onnx:NAME with weights that this "
        "installation has. Absent: the one that serves, fitted anew.",
    )
    steps: Annotated[int, Field(ge=20, le=20_000, description="Of onsite-v1: 96 particles each.")] = 400


def encoder(params: EncoderParams, run: Run) -> Result:
    """Fit the encoder to the lab's newest views, labelled or not, or propose another one; masters and classifier stay.

    Another encoder first describes masters, reviewed particles and the newest views beside the one that serves, from the pictures that are
    kept; both are then measured on the same particles. Raises: Conflict where its weights are not here.
    """
    with Work.of(run) as work:
        serving = refining.stock(work)
        now = refining.parts_now(work, serving)
        held, parts = serving, now
        name = params.encoder or now.encoder.name
        if name == now.encoder.name != onsite.NAME:
            parts = refining.refitted(now, held, now.masters, seed=run.seed)
        else:
            ids = refining.particles_to_build_on(work)
            other = _other(work, name, ids, steps=params.steps)
            work.describer(other).describe(ids, lambda share: run.progress(0.5 + 0.4 * share, f"{other.id} looks"))
            held = refining.stock(work, other.kind)
            parts = refining.with_encoder(now, held, other, seed=run.seed)
        about = {"views": len(held.unlabelled), "instead_of": now.encoder.id}
        return refining.propose(work, held, parts, now, made_by="sem.encoder", about=about, held_now=serving)


@contextmanager
def _weights_are_here() -> Iterator[None]:
    try:
        yield
    except EncoderUnavailable as err:
        raise Conflict(str(err)) from err


def _other(work: Work, name: str, particle_ids: Sequence[str], *, steps: int) -> Encoder:
    """Raises: Conflict without the encoder's weights: trying again would not bring them."""
    if name != onsite.NAME:
        with _weights_are_here():
            return work.lanes.encoders.opened(name)
    from genba_sem.self_teaching import taught  # torch, which no other recipe here needs

    return taught(work, particle_ids, steps=steps, until=0.5)


class ReembedParams(Params):
    """What to bring under the encoder that serves."""

    batch: Batch | None = Field(None, description="Only this batch; absent: everything that you may see.")


def reembed(params: ReembedParams, run: Run) -> Result:
    """Describe by the serving encoder what others described, from the pictures that are kept, and decide again; reviewed labels stay.

    After a promotion of another encoder this makes older particles comparable with new ones. Resumed, it goes on where it stopped.
    """
    with Work.of(run) as work:
        tenant, clearance = work.principal.tenant, int(work.principal.clearance)
        encoder = work.lanes.describer(tenant)
        ready = work.lanes.ready(tenant, clearance)
        here = [] if params.batch is None else [ParticleRow.batch == params.batch]
        masters = (
            ParticleRow.tenant == tenant,
            ParticleRow.clearance <= clearance,
            ParticleRow.role == "master",
            *here,
        )
        with run.database.read() as session:
            ids = list(session.scalars(select(ParticleRow.id).where(*masters)))
        failed = work.describer(encoder).describe(ids)
        elsewhere = or_(ParticleRow.encoder.is_(None), ParticleRow.encoder != ready.lane.space)
        found = classifying.classify(work, elsewhere, ParticleRow.role == "sample", *here, statuses=DECIDED)
    value = {"encoder": encoder.id, "masters": len(ids) - failed, "failed": failed, "by_status": dict(found)}
    return Result(value=value, metrics={"decided": float(sum(found.values())), "failed": float(failed)})


class HeadParams(Params):
    """Which classifier to propose."""

    classifier: Literal["best", "prototypes-v1", "nearest-v1", "head-v1", "blend-v1"] = "best"


def head(params: HeadParams, run: Run) -> Result:
    """Propose a classifier; encoder and masters stay. ``best``: the default, unless another is better by test with masters left out."""
    with Work.of(run) as work:
        held = refining.stock(work)
        now = refining.parts_now(work, held)
        best, scores = refining.best_classifier(now.encoder, now.fusion, held.masters)
        chosen = best if params.classifier == "best" else params.classifier
        parts = replace(now, classifier=chosen, head=None)
        return refining.propose(work, held, parts, now, made_by="sem.head", about={"left_out_by_classifier": scores})


class IndexPicturesParams(Params):
    """What to look at with the model for text."""

    batch: Batch | None = Field(None, description="Only this batch; absent: everything that you may see.")


def index_pictures(params: IndexPicturesParams, run: Run) -> Result:
    """Describe views by the installation's OpenCLIP model, for text search; what it has described is passed over.

    Raises: Conflict where none is set or its weights are not here.
    """
    with Work.of(run) as work:
        with _weights_are_here():
            encoder = TextEncoder(work.settings.text_encoder, work.settings.text_encoder_weights).opened()
        if encoder is None:
            raise Conflict("No model for text is set: see GENBA_SEM_TEXT_ENCODER.")
        here = [] if params.batch is None else [ParticleRow.batch == params.batch]
        tenant, clearance = work.principal.tenant, int(work.principal.clearance)
        mine = (
            ParticleRow.tenant == tenant,
            ParticleRow.clearance <= clearance,
            ParticleRow.status != "waiting",
            *here,
        )
        with run.database.read() as session:
            ids = list(session.scalars(select(ParticleRow.id).where(*mine).order_by(ParticleRow.id)))

        def progress(share: float) -> None:
            run.raise_if_cancelled()
            run.progress(share, f"{encoder.id} looks")

        failed = work.describer(encoder).describe(ids, progress)
    value = {"encoder": encoder.id, "particles": len(ids) - failed, "failed": failed}
    return Result(value=value, metrics={"particles": float(len(ids) - failed), "failed": float(failed)})


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
        Recipe(
            "sem.refresh",
            RefreshParams,
            refresh,
            summary="Renew the lane: masters with reviewed particles, encoder fit, best classifier.",
            scope="sem:write",
            max_running=1,
        ),
        Recipe(
            "sem.encoder",
            EncoderParams,
            encoder,
            summary="Fit the encoder to the lab's own views, or propose another one.",
            scope="sem:write",
            max_running=1,
        ),
        Recipe(
            "sem.reembed",
            ReembedParams,
            reembed,
            summary="Bring older particles under the encoder that serves.",
            scope="sem:write",
            max_running=1,
            time_limit_s=48 * 3600.0,
        ),
        Recipe(
            "sem.index_pictures",
            IndexPicturesParams,
            index_pictures,
            summary="Let the model for text look at pictures, so that search finds them by words.",
            scope="sem:write",
            max_running=1,
            time_limit_s=48 * 3600.0,
        ),
        Recipe("sem.head", HeadParams, head, summary="Choose the classifier.", scope="sem:write", max_running=1),
        Recipe(
            "sem.fusion",
            FusionParams,
            fusion,
            summary="Train the fusions of views, and propose the simplest that wins.",
            scope="sem:write",
            max_running=1,
        ),
        Recipe(
            "sem.semi_supervised",
            SemiSupervisedParams,
            semi_supervised,
            summary="Learn a head from labelled particles and from those that nobody has reviewed.",
            scope="sem:write",
            max_running=1,
        ),
        Recipe(
            "sem.next_batch",
            NextBatchParams,
            next_batch,
            summary="Choose the particles whose review teaches most, and put them into the queue.",
            scope="sem:write",
            max_running=1,
        ),
        Recipe(
            "sem.audit",
            AuditParams,
            audit,
            summary="Rank the labels that people gave by how doubtful they are.",
            scope="sem:write",
            max_running=1,
        ),
    )
}
