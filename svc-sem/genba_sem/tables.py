"""The rows that svc-sem keeps. Every record that a caller can name carries a tenant and a clearance label; ``store``
filters by both.

A particle names the label that it was given by the label's own id, for ever: what that label is called, and which one
it was merged into, is looked up when somebody asks. So a rename or a merge touches one row, whatever was classified.
Pictures are artifacts, a row holds their keys. Versions, decisions, reviews and sets of masters are only ever added.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from genba_shared.db import Json, Record, UtcDateTime
from genba_shared.records import Labelled


class LabelRow(Labelled, Record):
    """A category. Its id never changes and is never used again; everything else about it has versions."""

    noun = "label"

    __tablename__ = "sem_labels"
    __table_args__ = (Index("ix_sem_labels_tenant_id", "tenant", "id"),)

    version: Mapped[int] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(String(16))  # active | merged | split | retired
    successors: Mapped[list[Any]] = mapped_column(Json)  # ids: one of a merged label, several of a split one
    document: Mapped[dict[str, Any]] = mapped_column(Json)  # name, definition, synonyms
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LabelVersion(Record):
    """What a label was at one version, and what made it so. The label's history."""

    __tablename__ = "sem_label_versions"

    label_id: Mapped[str] = mapped_column(ForeignKey("sem_labels.id"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    event: Mapped[str] = mapped_column(String(16))  # created | revised | merged | absorbed | split | retired | restored
    status: Mapped[str] = mapped_column(String(16))
    successors: Mapped[list[Any]] = mapped_column(Json)
    document: Mapped[dict[str, Any]] = mapped_column(Json)
    detail: Mapped[dict[str, Any]] = mapped_column(Json)  # counts and ids that the event concerned
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String)


class ParticleRow(Labelled, Record):
    """A particle of one or several views, what it measures, and what it is held for now."""

    noun = "particle"

    __tablename__ = "sem_particles"
    __table_args__ = (
        UniqueConstraint("tenant", "batch", "name", "clearance"),  # by label: a name in use tells of no record above
        Index("ix_sem_particles_tenant_id", "tenant", "id"),
        Index("ix_sem_particles_tenant_label_id", "tenant", "label_id", "status"),
        Index("ix_sem_particles_tenant_queue", "tenant", "in_queue", "priority"),
        Index("ix_sem_particles_tenant_batch_status", "tenant", "batch", "status"),
        Index("ix_sem_particles_tenant_encoder_updated_at", "tenant", "encoder", "updated_at"),
    )

    version: Mapped[int] = mapped_column(Integer)
    role: Mapped[str] = mapped_column(String(16))  # sample | master
    name: Mapped[str] = mapped_column(String(200))
    batch: Mapped[str | None] = mapped_column(String(80))
    process: Mapped[str | None] = mapped_column(String(120))
    tool: Mapped[str | None] = mapped_column(String(120))
    recipe: Mapped[str | None] = mapped_column(String(120))
    lot: Mapped[str | None] = mapped_column(String(120))
    taken_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    note: Mapped[str] = mapped_column(Text)
    tags: Mapped[list[Any]] = mapped_column(Json)
    dropped: Mapped[list[Any]] = mapped_column(Json)  # views that could not be read, and why
    scaling: Mapped[dict[str, Any]] = mapped_column(Json)  # pixel sizes of the views, and the one they were brought to
    view_count: Mapped[int] = mapped_column(SmallInteger)

    encoder: Mapped[str | None] = mapped_column(String(120))  # None: not measured yet
    vector: Mapped[bytes | None] = mapped_column(LargeBinary)  # float32, fused over the views
    aspect_ratio: Mapped[float | None] = mapped_column(Float)
    circularity: Mapped[float | None] = mapped_column(Float)
    solidity: Mapped[float | None] = mapped_column(Float)
    diameter_um: Mapped[float | None] = mapped_column(Float)
    shape: Mapped[dict[str, Any]] = mapped_column(Json)  # every measured descriptor
    covered: Mapped[bool] = mapped_column(Boolean)  # its outline is cut off or hidden: left out of size statistics

    status: Mapped[str] = mapped_column(
        String(16)
    )  # waiting | confirmed | needs_review | unknown | reviewed | unreadable
    label_id: Mapped[str | None] = mapped_column(String(40))
    decided_by: Mapped[str] = mapped_column(String(16))  # nobody | model | review | split
    confidence: Mapped[float | None] = mapped_column(Float)
    reasons: Mapped[list[Any]] = mapped_column(Json)
    in_queue: Mapped[bool] = mapped_column(Boolean)
    priority: Mapped[float] = mapped_column(Float)
    decision: Mapped[dict[str, Any]] = mapped_column(Json)  # the newest decision, whole
    decided_in: Mapped[str | None] = mapped_column(String(40), index=True)  # the job that decided it
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ViewRow(Record):
    """One view of a particle: where its picture lies, its scale and quality."""

    __tablename__ = "sem_views"

    particle_id: Mapped[str] = mapped_column(ForeignKey("sem_particles.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    file_name: Mapped[str] = mapped_column(String(200))
    image_key: Mapped[str] = mapped_column(String(160), index=True)
    picture_key: Mapped[str | None] = mapped_column(String(160), index=True)  # a small JPEG of it
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(Integer)
    document: Mapped[dict[str, Any]] = mapped_column(Json)  # scale and its source, quality, box, size and shape
    described_by: Mapped[str | None] = mapped_column(String(120))  # the encoder that made ``raw``
    raw: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)  # float16, before any fit; kilobytes


class DescriptionRow(Record):
    """A view as another encoder describes it than the one that first did: what a proposed lane, or a later one, compares."""

    __tablename__ = "sem_view_descriptions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["particle_id", "position"], ["sem_views.particle_id", "sem_views.position"], ondelete="CASCADE"
        ),
    )

    particle_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    described_by: Mapped[str] = mapped_column(String(120), primary_key=True)
    raw: Mapped[bytes] = mapped_column(LargeBinary)  # float16


class DecisionRow(Record):
    """What was decided about a particle, by what, at one moment. Rows are only ever added."""

    __tablename__ = "sem_decisions"
    __table_args__ = (Index("ix_sem_decisions_particle_id_id", "particle_id", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    particle_id: Mapped[str] = mapped_column(ForeignKey("sem_particles.id", ondelete="CASCADE"))
    by: Mapped[str] = mapped_column(String(16))  # model | review | split
    actor: Mapped[str] = mapped_column(String)
    status: Mapped[str] = mapped_column(String(16))
    label_id: Mapped[str | None] = mapped_column(String(40))
    confidence: Mapped[float | None] = mapped_column(Float)
    master_set: Mapped[int | None] = mapped_column(Integer)
    model: Mapped[str] = mapped_column(String(120))
    document: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class MasterRow(Labelled, Record):
    """A particle that stands for a label. It belongs to the sets from ``since`` until before ``until``."""

    noun = "master"

    __tablename__ = "sem_masters"
    __table_args__ = (Index("ix_sem_masters_tenant_until", "tenant", "until"),)

    label_id: Mapped[str] = mapped_column(ForeignKey("sem_labels.id"), index=True)
    particle_id: Mapped[str] = mapped_column(ForeignKey("sem_particles.id"), index=True)
    since: Mapped[int] = mapped_column(Integer)
    until: Mapped[int | None] = mapped_column(Integer)


class MasterSetRow(Record):
    """One version of a tenant's masters: what stood for what, under one digest."""

    __tablename__ = "sem_master_sets"

    tenant: Mapped[str] = mapped_column(String, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    counts: Mapped[dict[str, Any]] = mapped_column(Json)  # label id → masters
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String)


class ReviewRow(Record):
    """A reviewer's word on a particle. Rows are only ever added: the latest of each reviewer counts, the history stays."""

    __tablename__ = "sem_reviews"
    __table_args__ = (
        Index("ix_sem_reviews_particle_id_id", "particle_id", "id"),
        Index("ix_sem_reviews_tenant_id", "tenant", "id"),
        Index("ix_sem_reviews_tenant_calibrates_id", "tenant", "calibrates", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    particle_id: Mapped[str] = mapped_column(ForeignKey("sem_particles.id", ondelete="CASCADE"))
    tenant: Mapped[str] = mapped_column(String)
    reviewer: Mapped[str] = mapped_column(String)
    label_id: Mapped[str | None] = mapped_column(String(40))  # None: none of the labels fits
    was_label_id: Mapped[str | None] = mapped_column(String(40))  # what the machine said
    was_status: Mapped[str] = mapped_column(String(16))
    reasons: Mapped[list[Any]] = mapped_column(Json)  # why it had been in the queue
    confidence: Mapped[float | None] = mapped_column(Float)
    decided_from: Mapped[dict[str, Any]] = mapped_column(Json)  # model and set whose word was judged
    calibrates: Mapped[bool] = mapped_column(Boolean)  # drawn whatever its confidence
    note: Mapped[str] = mapped_column(Text)
    seconds: Mapped[float | None] = mapped_column(Float)  # that the decision took
    bundle_id: Mapped[str | None] = mapped_column(String(40), index=True)
    source: Mapped[str] = mapped_column(String(16))  # api | bundle | label_studio
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class BundleRow(Labelled, Record):
    """Particles of the queue that look alike, to be decided together."""

    noun = "bundle"

    __tablename__ = "sem_bundles"
    __table_args__ = (Index("ix_sem_bundles_tenant_status", "tenant", "status"),)

    version: Mapped[int] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(String(16))  # open | confirmed | split | stale
    particle_ids: Mapped[list[Any]] = mapped_column(Json)
    document: Mapped[dict[str, Any]] = mapped_column(Json)  # representatives, edge, tags, contention, cohesion
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LabelAuditRow(Labelled, Record):
    """Labels of people that a job has compared with what the lane makes of their neighbours."""

    noun = "label audit"

    __tablename__ = "sem_label_audits"
    __table_args__ = (Index("ix_sem_label_audits_tenant_id", "tenant", "id"),)

    model: Mapped[str] = mapped_column(String(120))  # whose rows were compared
    judged: Mapped[int] = mapped_column(Integer)
    doubts: Mapped[list[Any]] = mapped_column(
        Json
    )  # the most doubtful first: particle_id, given, suggested, fit, is_master


class SemErasure(Record):
    """An artifact that may have lost its last owner and must then go."""

    __tablename__ = "sem_erasures"

    target: Mapped[str] = mapped_column(String(160), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class LabelStudioTask(Record):
    """Which particle a task of a Label Studio project shows: its webhooks name the task and nothing of the data."""

    __tablename__ = "sem_label_studio_tasks"

    tenant: Mapped[str] = mapped_column(String, primary_key=True)
    project: Mapped[str] = mapped_column(String(80), primary_key=True)
    task_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    particle_id: Mapped[str] = mapped_column(ForeignKey("sem_particles.id", ondelete="CASCADE"), index=True)


class PolicyRow(Record):
    """What a tenant wants promised of automatic confirmations; without a row the installation's settings hold."""

    __tablename__ = "sem_policies"

    tenant: Mapped[str] = mapped_column(String, primary_key=True)
    version: Mapped[int] = mapped_column(Integer)
    precision: Mapped[float] = mapped_column(Float)
    audit_share: Mapped[float] = mapped_column(Float)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_by: Mapped[str] = mapped_column(String)
