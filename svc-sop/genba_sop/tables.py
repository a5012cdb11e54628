"""The rows that svc-sop keeps. Every record that a caller can name carries a tenant and a clearance label; ``store``
filters by both.

Pictures, features and references are artifacts: a row holds their keys. ``Erasure`` rows are the promise that an
artifact or a
set of vectors will go, made in the transaction that makes its owner invisible, so that a crash leaves nothing behind
for good.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from genba_shared.db import Json, Record, UtcDateTime
from genba_shared.records import Labelled

ErasureKind = Literal["artifact", "clips"]


class Video(Labelled, Record):
    """An ingested video: its facts and the keys of what was made of it. A row exists only when all of it does."""

    noun = "video"

    __tablename__ = "sop_videos"
    __table_args__ = (
        UniqueConstraint("tenant", "clearance", "sha256", "encoder"),
        Index("ix_sop_videos_tenant_id", "tenant", "id"),
        Index("ix_sop_videos_expires_at", "expires_at"),
    )

    title: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    info: Mapped[dict[str, Any]] = mapped_column(Json)  # decoder's VideoInfo
    encoder: Mapped[str] = mapped_column(String(120))
    duration_s: Mapped[float] = mapped_column(Float)
    sampled_frames: Mapped[int] = mapped_column(Integer)
    video_key: Mapped[str] = mapped_column(String(160), index=True)
    features_key: Mapped[str] = mapped_column(String(160), index=True)
    thumbnails_key: Mapped[str] = mapped_column(String(160), index=True)
    timings_ms: Mapped[dict[str, Any]] = mapped_column(Json)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    clip_count: Mapped[int] = mapped_column(Integer)  # vectors made of it, ids follow from the video's id
    indexed_in: Mapped[str | None] = mapped_column(
        String(120), index=True
    )  # the collection version that holds them; None: not yet


class CueRow(Record):
    """What is said in a stretch of a video, of its transcript: who may see the video may read it, and it goes with it."""

    __tablename__ = "sop_transcript_cues"

    video_id: Mapped[str] = mapped_column(ForeignKey("sop_videos.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    start_s: Mapped[float] = mapped_column(Float)
    end_s: Mapped[float] = mapped_column(Float)
    words: Mapped[str] = mapped_column(Text)


class TranscriptRow(Record):
    """That a video's cues are in the index of words, and how many terms each has: one little-endian uint16 a cue."""

    __tablename__ = "sop_transcripts"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    video_id: Mapped[str] = mapped_column(ForeignKey("sop_videos.id", ondelete="CASCADE"), unique=True)
    lengths: Mapped[bytes] = mapped_column(LargeBinary)


class CueTermRow(Record):
    """Which cues of a transcript hold a term: pairs of little-endian uint16, a cue's position and how often it does."""

    __tablename__ = "sop_cue_terms"
    __table_args__ = ({"sqlite_with_rowid": False},)  # the table is the index: half as large

    term: Mapped[str] = mapped_column(String(64), primary_key=True)
    transcript_id: Mapped[int] = mapped_column(
        ForeignKey("sop_transcripts.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    places: Mapped[bytes] = mapped_column(LargeBinary)


class ProcedureRow(Labelled, Record):
    """A procedure's identity and its current version."""

    noun = "procedure"

    __tablename__ = "sop_procedures"
    __table_args__ = (Index("ix_sop_procedures_tenant_id", "tenant", "id"),)

    version: Mapped[int] = mapped_column(Integer)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ProcedureVersion(Record):
    """What the author wrote, kept for ever: an evaluation names the version it used."""

    __tablename__ = "sop_procedure_versions"

    procedure_id: Mapped[str] = mapped_column(ForeignKey("sop_procedures.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String)


class Gold(Record):
    """A gold run of one procedure version: a video and where each step lies in it."""

    __tablename__ = "sop_golds"
    __table_args__ = (UniqueConstraint("procedure_id", "version", "video_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    procedure_id: Mapped[str] = mapped_column(ForeignKey("sop_procedures.id", ondelete="CASCADE"), index=True)
    version: Mapped[int] = mapped_column(Integer)
    video_id: Mapped[str] = mapped_column(ForeignKey("sop_videos.id"), index=True)
    spans: Mapped[list[Any]] = mapped_column(Json)
    spans_by: Mapped[str] = mapped_column(String(16))  # author | proposed
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String)


class ReferenceRow(Record):
    """A fitted reference, named by everything it was fitted on."""

    __tablename__ = "sop_references"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    procedure_id: Mapped[str] = mapped_column(ForeignKey("sop_procedures.id", ondelete="CASCADE"), index=True)
    artifact_key: Mapped[str] = mapped_column(String(160), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class EvaluationRow(Labelled, Record):
    """A stored evaluation. Columns are what lists filter by; ``document`` is the whole of it."""

    noun = "evaluation"

    __tablename__ = "sop_evaluations"
    __table_args__ = (
        Index("ix_sop_evaluations_tenant_id", "tenant", "id"),
        Index("ix_sop_evaluations_procedure_id_id", "procedure_id", "id"),
        Index("ix_sop_evaluations_operator", "tenant", "operator"),
    )

    procedure_id: Mapped[str] = mapped_column(String(40))
    procedure_version: Mapped[int] = mapped_column(Integer)
    video_id: Mapped[str] = mapped_column(String(40), index=True)
    operator: Mapped[str | None] = mapped_column(String(120))
    verdict: Mapped[str] = mapped_column(String(16))  # of the machine; reviews override it without changing it
    reviewed_verdict: Mapped[str | None] = mapped_column(String(16))  # of the latest review
    score: Mapped[float] = mapped_column(Float)
    raw_score: Mapped[float] = mapped_column(Float)  # before calibration: what calibration learns from
    encoder: Mapped[str] = mapped_column(String(120))
    model_version: Mapped[str] = mapped_column(String(80))
    document: Mapped[dict[str, Any]] = mapped_column(Json)
    timings_ms: Mapped[dict[str, Any]] = mapped_column(Json)


class Review(Record):
    """A reviewer's word on an evaluation. Rows are only ever added: the latest counts, the history stays."""

    __tablename__ = "sop_reviews"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    evaluation_id: Mapped[str] = mapped_column(ForeignKey("sop_evaluations.id", ondelete="CASCADE"), index=True)
    reviewer: Mapped[str] = mapped_column(String)
    verdict: Mapped[str] = mapped_column(String(16))
    score: Mapped[float | None] = mapped_column(Float)
    reason: Mapped[str] = mapped_column(Text)
    deviations: Mapped[list[Any]] = mapped_column(Json)  # [{"index": 0, "confirmed": true}, …]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Erasure(Record):
    """Something that must go from storage outside the database: an artifact that may have lost its last owner, or
    vectors.
    """

    __tablename__ = "sop_erasures"
    __table_args__ = (UniqueConstraint("kind", "target"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    target: Mapped[str] = mapped_column(String(160))  # artifact key | video id
    clip_count: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
