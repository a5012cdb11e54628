"""Write procedures, golds, references and reviews, and find what belongs to them.

Records themselves are found through ``genba_shared.records``. Transactions are begun and committed by whoever calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import and_, case, delete, func, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, defer

from genba_shared import records
from genba_shared.db import utc_now
from genba_shared.ids import new_id
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import Conflict, Invalid, NotFound, VersionConflict, fault
from genba_sop import spoken
from genba_sop.tables import (
    CueRow,
    Erasure,
    ErasureKind,
    EvaluationRow,
    Gold,
    ProcedureRow,
    ProcedureVersion,
    ReferenceRow,
    Review,
    TranscriptRow,
    Video,
)
from genba_sop.transcripts import Cue

RESERVATION_S: Final = 6 * 3600.0  # an artifact written for a record that never came is erased after this


# --- procedures -----------------------------------------------------------------------------------------------------


def add_procedure(
    session: Session, principal: Principal, document: dict[str, Any], *, clearance: Clearance
) -> ProcedureRow:
    """A procedure at version 1."""
    moment = utc_now()
    row = ProcedureRow(
        id=new_id("proc"), tenant=principal.tenant, clearance=int(clearance), version=1,
        created_at=moment, created_by=principal.subject, updated_at=moment,
    )  # fmt: skip
    session.add(row)
    session.flush()
    _add_version(session, row, document, principal)
    return row


def _add_version(session: Session, row: ProcedureRow, document: dict[str, Any], principal: Principal) -> None:
    session.add(
        ProcedureVersion(
            procedure_id=row.id,
            version=row.version,
            document=document,
            created_at=row.updated_at,
            created_by=principal.subject,
        )
    )
    session.flush()


def new_version(
    session: Session, principal: Principal, procedure_id: str, document: dict[str, Any], *, expected: int | None
) -> ProcedureRow:
    """The procedure with ``document`` as its next version.

    Raises:  VersionConflict when ``expected`` (of If-Match; None takes any) is not the current version.
    """
    row = records.get(session, ProcedureRow, procedure_id, principal, lock=True)
    if expected is not None and expected != row.version:
        raise VersionConflict(
            f"Procedure {procedure_id} is at version {row.version}, not {expected}: read it again, then change it.",
            current_version=row.version,
        )
    row.version, row.updated_at = row.version + 1, utc_now()
    _add_version(session, row, document, principal)
    return row


def document_of(session: Session, procedure_id: str, version: int) -> dict[str, Any]:
    """What the author wrote in one version. Raises NotFound."""
    row = session.get(ProcedureVersion, (procedure_id, version))
    if row is None:
        raise NotFound(f"Procedure {procedure_id} has no version {version}.")
    return row.document


def golds_of(session: Session, procedure_id: str, version: int) -> Sequence[Gold]:
    """The gold runs of one version, in the order in which they were added."""
    where = (Gold.procedure_id == procedure_id, Gold.version == version)
    return session.scalars(select(Gold).where(*where).order_by(Gold.id)).all()


def gold_counts(session: Session, rows: Sequence[ProcedureRow]) -> dict[str, int]:
    """How many golds the current version of each procedure has."""
    if not rows:
        return {}
    current = or_(*(and_(Gold.procedure_id == row.id, Gold.version == row.version) for row in rows))
    found = session.execute(select(Gold.procedure_id, func.count()).where(current).group_by(Gold.procedure_id))
    return {procedure_id: count for procedure_id, count in found}  # noqa: C416 (dict() of rows does not type)


def add_gold(
    session: Session,
    principal: Principal,
    procedure: ProcedureRow,
    video: Video,
    spans: list[dict[str, Any]],
    *,
    spans_by: str,
) -> Gold:
    """A gold run of the procedure's current version.

    Raises:  Conflict when the video is one already, Invalid when it is more secret than the procedure.
    """
    if video.clearance > procedure.clearance:
        label = Clearance(video.clearance).label
        raise Invalid(
            f"Video {video.id} is labelled {label}, above its procedure: its pictures would show in reports.",
            errors=[
                fault("video_id", f"labelled {label}, above the procedure's {Clearance(procedure.clearance).label}")
            ],
        )
    if any(gold.video_id == video.id for gold in golds_of(session, procedure.id, procedure.version)):
        raise Conflict(f"Video {video.id} is a gold of this version already.")
    gold = Gold(
        id=new_id("gold"), procedure_id=procedure.id, version=procedure.version, video_id=video.id,
        spans=spans, spans_by=spans_by, created_at=utc_now(), created_by=principal.subject,
    )  # fmt: skip
    session.add(gold)
    session.flush()
    return gold


def videos_of(session: Session, golds: Sequence[Gold]) -> tuple[Video, ...]:
    """The video of each gold, in one query; its label is at most its procedure's, so who sees the one may see the other."""
    wanted = select(Video).where(Video.id.in_([gold.video_id for gold in golds]))
    found = {video.id: video for video in session.scalars(wanted)}
    return tuple(found[gold.video_id] for gold in golds)


def drop_references(session: Session, procedure_id: str) -> None:
    """Forget what was fitted on a procedure's golds: they have changed, and a gold that is gone must not live on in
    it.
    """
    gone = delete(ReferenceRow).where(ReferenceRow.procedure_id == procedure_id).returning(ReferenceRow.artifact_key)
    for key in sorted(session.scalars(gone).all()):
        promise_erasure(session, "artifact", key)


def drop_procedure(session: Session, principal: Principal, procedure_id: str) -> None:
    """Remove a procedure, its versions, golds and references. Evaluations stay: they are a record of what was said."""
    row = records.get(session, ProcedureRow, procedure_id, principal, lock=True)
    drop_references(session, row.id)
    session.execute(delete(Gold).where(Gold.procedure_id == row.id))
    session.execute(delete(ProcedureVersion).where(ProcedureVersion.procedure_id == row.id))
    session.delete(row)
    session.flush()


# --- videos ---------------------------------------------------------------------------------------------------------


def same_video(session: Session, *, tenant: str, clearance: int, sha256: str, encoder: str) -> Video | None:
    """The record of the same bytes, embedded by the same encoder, under the same label."""
    where = (Video.tenant == tenant, Video.clearance == clearance, Video.sha256 == sha256, Video.encoder == encoder)
    return session.scalars(select(Video).where(*where)).one_or_none()


def drop_video(session: Session, principal: Principal, video_id: str) -> Video:
    """Make a video invisible and promise the erasure of its artifacts and vectors.

    Raises:  Conflict while it is a gold of a procedure's current version; golds of old versions go with it.
    """
    video = records.get(session, Video, video_id, principal, lock=True)
    if used := {gold.procedure_id for gold in current_golds(session, video.id)}:
        mine = select(ProcedureRow.id).where(ProcedureRow.id.in_(used), records.visible(ProcedureRow, principal))
        named = sorted(session.scalars(mine))
        where = ", ".join(named) or "a procedure above your clearance"
        raise Conflict(f"Video {video_id} is a gold of {where}: remove the gold there first.", procedures=[*named])
    discard_video(session, video)
    return video


def discard_video(session: Session, video: Video) -> None:
    """Delete the row, and promise that what it owned goes too."""
    session.execute(delete(Gold).where(Gold.video_id == video.id))
    drop_transcript(session, video.id)
    for key in sorted({video.video_key, video.features_key, video.thumbnails_key}):
        promise_erasure(session, "artifact", key)
    promise_erasure(session, "clips", video.id, clip_count=video.clip_count)
    session.delete(video)
    session.flush()


def set_transcript(session: Session, video: Video, cues: Sequence[Cue]) -> None:
    """These cues instead of those that the video may have; lock the video first."""
    drop_transcript(session, video.id)
    index = spoken.inverted(cues)
    rows = [
        {"video_id": video.id, "position": position, "start_s": cue.start_s, "end_s": cue.end_s, "words": cue.words}
        for position, cue in enumerate(cues)
    ]
    session.execute(insert(CueRow), rows)
    spoken.enter(session, video.id, index)


def transcript_of(session: Session, video_id: str) -> list[Cue]:
    """The cues of a video in their order; none when it has no transcript."""
    query = select(CueRow).where(CueRow.video_id == video_id).order_by(CueRow.position)
    return [Cue(row.start_s, row.end_s, row.words) for row in session.scalars(query)]


def drop_transcript(session: Session, video_id: str) -> bool:
    """Remove a video's cues; whether there were any."""
    session.execute(delete(TranscriptRow).where(TranscriptRow.video_id == video_id))  # and, with it, its terms
    gone = delete(CueRow).where(CueRow.video_id == video_id).returning(CueRow.position)
    return bool(session.scalars(gone).all())


def current_golds(session: Session, video_id: str) -> Sequence[Gold]:
    """Where a video is a gold of a current version."""
    join = and_(ProcedureRow.id == Gold.procedure_id, ProcedureRow.version == Gold.version)
    return session.scalars(select(Gold).join(ProcedureRow, join).where(Gold.video_id == video_id)).all()


def expired_videos(session: Session, *, limit: int) -> Sequence[Video]:
    """Videos past their retention that no current version holds as a gold, of every tenant."""
    join = and_(ProcedureRow.id == Gold.procedure_id, ProcedureRow.version == Gold.version)
    golds = select(Gold.video_id).join(ProcedureRow, join)
    where = (Video.expires_at <= utc_now(), Video.id.not_in(golds))
    query = select(Video).where(*where).order_by(Video.expires_at).limit(limit)
    return session.scalars(query.with_for_update(skip_locked=True)).all()  # another replica may be sweeping too


# --- erasure --------------------------------------------------------------------------------------------------------


def promise_erasure(
    session: Session, kind: ErasureKind, target: str, *, clip_count: int = 0, after_s: float = 0.0
) -> None:
    """Promise that ``target`` goes, unless by then somebody needs it. A promise made twice is one, at the earlier
    time.
    """
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    promise = dialect.insert(Erasure).values(
        id=new_id("erase"),
        kind=kind,
        target=target,
        clip_count=clip_count,
        due_at=utc_now() + timedelta(seconds=after_s),
    )
    earlier = case((promise.excluded.due_at < Erasure.due_at, promise.excluded.due_at), else_=Erasure.due_at)
    session.execute(
        promise.on_conflict_do_update(index_elements=[Erasure.kind, Erasure.target], set_={"due_at": earlier})
    )


def keep_artifacts(session: Session, keys: Sequence[str]) -> None:
    """Take back the promises on ``keys``: the record that is being written needs them."""
    session.execute(delete(Erasure).where(Erasure.kind == "artifact", Erasure.target.in_(keys)))


def is_owned(session: Session, key: str) -> bool:
    """Whether any record still needs an artifact: equal content has one artifact, whoever uploaded it."""
    videos = select(Video.id).where(or_(Video.video_key == key, Video.features_key == key, Video.thumbnails_key == key))
    references = select(ReferenceRow.key).where(ReferenceRow.artifact_key == key)
    return session.scalar(videos.limit(1)) is not None or session.scalar(references.limit(1)) is not None


def due_erasures(session: Session, *, limit: int) -> Sequence[Erasure]:
    """Promises whose time has come."""
    return session.scalars(
        select(Erasure).where(Erasure.due_at <= utc_now()).order_by(Erasure.due_at).limit(limit)
    ).all()


# --- reviews --------------------------------------------------------------------------------------------------------


def reviews_of(session: Session, evaluation_id: str) -> Sequence[Review]:
    """The reviews of one evaluation, oldest first."""
    return session.scalars(select(Review).where(Review.evaluation_id == evaluation_id).order_by(Review.id)).all()


def visible_reviews(
    session: Session, principal: Principal, procedure_id: str | None
) -> list[tuple[EvaluationRow, Review]]:
    """Every review of the evaluations that the caller may see, with its evaluation, oldest first."""
    query = select(EvaluationRow, Review).options(defer(EvaluationRow.document))
    query = query.join(Review, Review.evaluation_id == EvaluationRow.id)
    query = query.where(records.visible(EvaluationRow, principal)).order_by(Review.id)
    if procedure_id is not None:
        query = query.where(EvaluationRow.procedure_id == procedure_id)
    return [(evaluation, review) for evaluation, review in session.execute(query).all()]
