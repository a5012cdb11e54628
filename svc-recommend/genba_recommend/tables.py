"""The rows that svc-recommend keeps. Each carries its tenant; what a caller may see of the catalogue is decided by the item's label.

Items and users are named by the ids of whoever sends them. Events are only ever added. Vectors are a copy: they can be made again
from the rows and a version of the model, whose number every one of them carries.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, Float, Index, Integer, LargeBinary, SmallInteger, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from genba_shared.db import Json, Record

VectorKind = Literal["item", "user"]
BigId = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only what it calls INTEGER


class ItemRow(Record):
    """A video of the catalogue. ``document`` is what was sent; ``content_hash`` covers what the item tower reads of it."""

    __tablename__ = "recommend_items"
    __table_args__ = (Index("ix_recommend_items_tenant_revision", "tenant", "revision"),)

    tenant: Mapped[str] = mapped_column(String, primary_key=True)
    item_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(Json)
    clearance: Mapped[int] = mapped_column(SmallInteger)
    active: Mapped[bool]
    content_hash: Mapped[str] = mapped_column(String(32))
    revision: Mapped[int] = mapped_column(BigInteger)  # of the change that wrote it; see Counter
    updated_at: Mapped[datetime]


class PictureRow(Record):
    """The picture of an item, kept among the artifacts, and what svc-sop's encoder made of it. See ``picture_store``."""

    __tablename__ = "recommend_pictures"
    __table_args__ = (Index("ix_recommend_pictures_tenant_state", "tenant", "state"),)

    tenant: Mapped[str] = mapped_column(String, primary_key=True)
    item_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    key: Mapped[str] = mapped_column(String(100))
    sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(String(20))
    size_bytes: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(12))  # waiting | embedded | unreadable
    note: Mapped[str | None] = mapped_column(String(300))  # why it waits, or what is wrong with it
    encoder: Mapped[str | None] = mapped_column(String(200))
    vector: Mapped[bytes | None] = mapped_column(LargeBinary)  # little-endian float32
    claimed_until: Mapped[datetime | None]  # somebody is embedding it
    sent_at: Mapped[datetime]


class Counter(Record):
    """The number of the last change to a tenant's catalogue. Writers hold this row, so numbers appear in their order."""

    __tablename__ = "recommend_counters"

    tenant: Mapped[str] = mapped_column(String, primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)


class UserRow(Record):
    """What is known of a user beside what they did; all of it optional."""

    __tablename__ = "recommend_users"

    tenant: Mapped[str] = mapped_column(String, primary_key=True)
    user_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    age_range: Mapped[str | None] = mapped_column(String(40))
    region: Mapped[str | None] = mapped_column(String(80))
    sessions_per_week: Mapped[float | None] = mapped_column(Float)
    updated_at: Mapped[datetime]


class UserChange(Record):
    """That users have another profile, or were erased, for processes that hold them in memory; kept for a day."""

    __tablename__ = "recommend_user_changes"
    __table_args__ = (Index("ix_recommend_user_changes_tenant_seq", "tenant", "seq"),)

    seq: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    tenant: Mapped[str] = mapped_column(String)
    user_ids: Mapped[list[Any]] = mapped_column(Json)
    erased: Mapped[bool]
    at: Mapped[datetime]


class EventRow(Record):
    """Something that a user did with an item. ``seq`` is the order of arrival, ``day`` counts from 1970."""

    __tablename__ = "recommend_events"
    __table_args__ = (
        UniqueConstraint("tenant", "event_id"),
        Index("ix_recommend_events_tenant_user_id_at", "tenant", "user_id", "at"),
        Index("ix_recommend_events_tenant_day", "tenant", "day"),
        Index("ix_recommend_events_tenant_seq", "tenant", "seq"),
    )

    seq: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    tenant: Mapped[str] = mapped_column(String)
    event_id: Mapped[str] = mapped_column(String(128))
    user_id: Mapped[str] = mapped_column(String(128))
    item_id: Mapped[str] = mapped_column(String(128))
    kind: Mapped[int] = mapped_column(SmallInteger)  # dataset.Kind
    at: Mapped[datetime]
    day: Mapped[int] = mapped_column(Integer)
    watched_s: Mapped[float | None] = mapped_column(Float)
    weight: Mapped[float] = mapped_column(Float)  # evidence.weight_of
    session_id: Mapped[str | None] = mapped_column(String(128))
    received_at: Mapped[datetime]


class EmbeddingModelVersion(Record):
    """A version of the towers as the refresh knows it. Which one serves is the registry's business; ``active`` repeats it."""

    __tablename__ = "recommend_embedding_model_versions"

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    tower: Mapped[str] = mapped_column(String(40))
    path: Mapped[str] = mapped_column(String(200))
    active: Mapped[bool]
    refreshes: Mapped[int] = mapped_column(
        Integer
    )  # how many refreshes have ended; a reader sees by it that there is more
    refreshed_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class FeatureImportance(Record):
    """How much of a metric is lost when one feature is shuffled."""

    __tablename__ = "recommend_feature_importance"

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    feature: Mapped[str] = mapped_column(String(60), primary_key=True)
    metric: Mapped[str] = mapped_column(String(40))
    importance: Mapped[float] = mapped_column(Float)
    spread: Mapped[float] = mapped_column(Float)


class EmbeddingRow(Record):
    """A vector of an item or a user under one version: little-endian float32 of unit length."""

    __tablename__ = "recommend_embeddings"

    tenant: Mapped[str] = mapped_column(String, primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    content_hash: Mapped[str] = mapped_column(String(32))  # of what it was made from: stale when that has changed
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    made_at: Mapped[datetime]


class RefreshLog(Record):
    """What a refresh did, batch by batch; kept for a week."""

    __tablename__ = "recommend_refresh_log"
    __table_args__ = (Index("ix_recommend_refresh_log_tenant_at", "tenant", "at"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    tenant: Mapped[str] = mapped_column(String)
    job_id: Mapped[str] = mapped_column(String(40))
    version: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(8))
    level: Mapped[str] = mapped_column(String(8))
    message: Mapped[str] = mapped_column(Text)
    clearance: Mapped[int] = mapped_column(SmallInteger, server_default="3")  # of the items that it names
    at: Mapped[datetime]


class ExperimentRow(Record):
    """An experiment between arms. Arms never change once it runs: who wants others starts another."""

    __tablename__ = "recommend_experiments"
    __table_args__ = (Index("ix_recommend_experiments_tenant_status", "tenant", "status"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String)
    name: Mapped[str] = mapped_column(String(100))
    status: Mapped[str] = mapped_column(String(12))  # running | stopped
    share: Mapped[float] = mapped_column(Float)  # of the users that take part
    arms: Mapped[list[Any]] = mapped_column(Json)
    created_by: Mapped[str] = mapped_column(String)
    started_at: Mapped[datetime]
    stopped_at: Mapped[datetime | None]
    outcome: Mapped[dict[str, Any] | None] = mapped_column(Json)


class ExposureRow(Record):
    """A list as it was shown: to whom, by which arm and version, with what chance."""

    __tablename__ = "recommend_exposures"
    __table_args__ = (
        Index("ix_recommend_exposures_experiment_id_user_id", "experiment_id", "user_id"),
        Index("ix_recommend_exposures_tenant_at", "tenant", "at"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    tenant: Mapped[str] = mapped_column(String)
    list_id: Mapped[str] = mapped_column(String(40))
    user_id: Mapped[str] = mapped_column(String(128))
    experiment_id: Mapped[str | None] = mapped_column(String(40))
    arm: Mapped[str | None] = mapped_column(String(40))
    version: Mapped[int | None] = mapped_column(Integer)
    source: Mapped[str] = mapped_column(String(12))
    items: Mapped[list[Any]] = mapped_column(Json)
    propensities: Mapped[list[Any] | None] = mapped_column(Json)  # None: nothing was left to chance
    candidates: Mapped[list[Any] | None] = mapped_column(Json)  # what chance chose among, the chosen included
    diversity: Mapped[float | None] = mapped_column(Float)  # mean distance between the items, 1 - cosine
    at: Mapped[datetime]


class ShownRow(Record):
    """How often an item was on personal lists lately, over all processes. See ``discovering.Seldom``."""

    __tablename__ = "recommend_shown"
    __table_args__ = (Index("ix_recommend_shown_tenant_changed_at", "tenant", "changed_at"),)

    tenant: Mapped[str] = mapped_column(String, primary_key=True)
    item_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    times: Mapped[float] = mapped_column(Float)  # as if all had happened on discovering.ORIGIN_DAY
    changed_at: Mapped[datetime]
