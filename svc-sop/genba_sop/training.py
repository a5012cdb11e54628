"""The door that does long work: ``RECIPES``. A worker resolves it by name; nothing here knows of queues, leases or
HTTP.

``sop.ingest`` takes what is too large or too long for a request; ``sop.evaluate_batch`` scores many videos. Neither
touches the vectors,
which belong to the serving process: it indexes what it finds new.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_shared.db import Database
from genba_shared.patterns import pattern
from genba_shared.principal import Clearance
from genba_shared.problems import ClearanceTooLow, Conflict, Gone, NotFound, Problem
from genba_shared.recipe import Params, Recipe, Result, Run
from genba_shared.wire_records import ClearanceLabel, RecordId
from genba_sop import store, transcripts
from genba_sop.encoders import open_encoder
from genba_sop.evaluations import Asked, Evaluations
from genba_sop.ingest import Owner, Received, limits_of, prepare, record
from genba_sop.schemas import EvaluationItem
from genba_sop.settings import Settings
from genba_sop.tables import EvaluationRow

Key = Annotated[str, Field(pattern=pattern(r"^[0-9a-f]{2}/[0-9a-f]{64}\.[a-z0-9]{1,8}$", "must be an artifact's key"))]


class IngestParams(Params):
    """An upload that lies among the artifacts already."""

    video_id: RecordId
    key: Key
    sha256: Annotated[str, Field(pattern=pattern(r"^[0-9a-f]{64}$", "must be 64 hex digits, lower case"))]
    size_bytes: Annotated[int, Field(gt=0)]
    title: Annotated[str, Field(max_length=200)] = ""
    clearance: ClearanceLabel = "internal"
    retention_days: Annotated[int, Field(ge=1)] | None = None
    transcript_key: Key | None = None


def ingest(params: IngestParams, run: Run) -> Result:
    """Decode, embed and record one video. The record appears in the transaction that marks the job succeeded."""
    settings = Settings(platform=run.platform)
    label = Clearance.parse(params.clearance)
    if label > run.principal.clearance:
        raise ClearanceTooLow("The video is labelled above its submitter.")
    try:
        path = run.artifacts.local_path(params.key)
        spoken = None if params.transcript_key is None else run.artifacts.local_path(params.transcript_key).read_bytes()
    except NotFound as err:
        raise Gone("The upload is not there any more; upload the video again.") from err
    received = Received(path, params.sha256, params.size_bytes, params.title)
    prepared = prepare(
        received,
        database=run.database,
        artifacts=run.artifacts,
        encoder=open_encoder(settings.encoder, weights=settings.encoder_weights),
        limits=limits_of(settings, in_request=False),
        sample_fps=settings.sample_fps,
        progress=lambda share: run.progress(0.95 * share, "decoding and embedding"),
    )
    cues = None
    if spoken is not None:  # below a line that tells whose it is
        cues = transcripts.read(spoken.partition(b"\n")[2], duration_s=prepared.duration_s)
    owner = Owner(run.principal.tenant, int(label), run.principal.subject, params.retention_days)

    def publish(session: Session) -> None:
        record(session, run.artifacts, prepared, owner, video_id=params.video_id, cues=cues)
        if params.transcript_key is not None:  # its words are in the database now
            store.promise_erasure(session, "artifact", params.transcript_key)

    known = _known(run.database, owner, prepared.encoder, params.sha256)
    metrics = {"frames": float(prepared.sampled_frames), "seconds": prepared.duration_s}
    return Result(value={"video_id": known or params.video_id}, metrics=metrics, publish=publish)


def _known(database: Database, owner: Owner, encoder: str, sha256: str) -> str | None:
    """The id under which the same bytes are on record already."""
    with database.read() as session:
        video = store.same_video(
            session, tenant=owner.tenant, clearance=owner.clearance, sha256=sha256, encoder=encoder
        )
    return video.id if video else None


class BatchParams(Params):
    """Videos to score against one procedure."""

    procedure_id: RecordId
    videos: Annotated[list[EvaluationItem], Field(min_length=1, max_length=1000)]


def evaluate_batch(params: BatchParams, run: Run) -> Result:
    """Score one video after the other. Each evaluation is on record at once; a resumed job goes on where it stopped."""
    settings = Settings(platform=run.platform)
    scorer = Evaluations(
        run.database, run.artifacts, references_kept=settings.reference_cache, coverage=settings.conformal_level
    )
    saved = run.checkpoint.load()
    done: dict[str, dict[str, Any]] = dict(saved.state["done"]) if saved else {}
    for index, item in enumerate(params.videos):
        if item.video_id not in done:
            done[item.video_id] = _one(scorer, params.procedure_id, item, run)
            run.checkpoint.save({"done": done})
        run.progress((index + 1) / len(params.videos), f"{index + 1} of {len(params.videos)}")
    failed = sum("problem" in each for each in done.values())
    if failed == len(params.videos):
        raise Conflict(f"None of {failed} videos could be scored: {next(iter(done.values()))['problem']}")
    results = [{"video_id": item.video_id, **done[item.video_id]} for item in params.videos]
    return Result(value={"results": results}, metrics={"scored": float(len(done) - failed), "failed": float(failed)})


def _one(scorer: Evaluations, procedure_id: str, item: EvaluationItem, run: Run) -> dict[str, Any]:
    """One evaluation, or why there is none. The job's id in the record tells a repeated attempt that it was made."""
    made_by = f"{run.principal.subject} ({run.job_id})"
    with run.database.read() as session:
        if (earlier := _made(session, made_by, item.video_id)) is not None:
            return earlier
    try:
        scored = scorer.score(Asked(run.principal, procedure_id, item.video_id, operator=item.operator))
        with run.database.transaction() as session:
            if (earlier := _made(session, made_by, item.video_id)) is not None:
                return earlier
            row = scorer.write(session, scored, created_by=made_by)
            return _said(row)
    except Problem as problem:
        return {"problem": problem.detail}


def _made(session: Session, made_by: str, video_id: str) -> dict[str, Any] | None:
    where = (EvaluationRow.created_by == made_by, EvaluationRow.video_id == video_id)
    row = session.scalars(select(EvaluationRow).where(*where)).first()
    return _said(row) if row else None


def _said(row: EvaluationRow) -> dict[str, Any]:
    return {"evaluation_id": row.id, "score": row.score, "verdict": row.verdict}


RECIPES: dict[str, Recipe[Any]] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "sop.ingest",
            IngestParams,
            ingest,
            summary="Ingest a large or long video.",
            scope="sop:write",
            time_limit_s=3 * 3600.0,
            submitted_by="POST /v1/sop/videos",  # the key of the bytes is as good as the bytes
        ),
        Recipe(
            "sop.evaluate_batch",
            BatchParams,
            evaluate_batch,
            summary="Score many videos against one procedure.",
            scope="sop:write",
        ),
    )
}
