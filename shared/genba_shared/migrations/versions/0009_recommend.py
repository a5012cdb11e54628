"""The recommender: catalogue, users, events, vectors, experiments and what was shown."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared import db

revision = "0009_recommend"
down_revision = "0008_audit_tree"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_counters()
    _create_embedding_model_versions()
    _create_embeddings()
    _create_events()
    _create_experiments()
    _create_exposures()
    _create_feature_importance()
    _create_items()
    _create_refresh_log()
    _create_users()


def _create_counters() -> None:
    op.create_table(
        "recommend_counters",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_recommend_counters")),
    )


def _create_embedding_model_versions() -> None:
    op.create_table(
        "recommend_embedding_model_versions",
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("tower", sa.String(length=40), nullable=False),
        sa.Column("path", sa.String(length=200), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("refreshes", sa.Integer(), nullable=False),
        sa.Column("refreshed_at", db.UtcDateTime(timezone=True), nullable=True),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model", "version", name=op.f("pk_recommend_embedding_model_versions")),
    )


def _create_embeddings() -> None:
    op.create_table(
        "recommend_embeddings",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("content_hash", sa.String(length=32), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "version", "kind", "id", name=op.f("pk_recommend_embeddings")),
    )


def _create_events() -> None:
    op.create_table(
        "recommend_events",
        sa.Column("seq", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(length=128), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("item_id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("watched_s", sa.Float(), nullable=True),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("session_id", sa.String(length=128), nullable=True),
        sa.Column("received_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_recommend_events")),
        sa.UniqueConstraint("tenant", "event_id", name=op.f("uq_recommend_events_tenant_event_id")),
    )
    op.create_index("ix_recommend_events_tenant_day", "recommend_events", ["tenant", "day"])
    op.create_index("ix_recommend_events_tenant_user_id_at", "recommend_events", ["tenant", "user_id", "at"])


def _create_experiments() -> None:
    op.create_table(
        "recommend_experiments",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("arms", db.Json, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("started_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("stopped_at", db.UtcDateTime(timezone=True), nullable=True),
        sa.Column("outcome", db.Json, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recommend_experiments")),
    )
    op.create_index("ix_recommend_experiments_tenant_status", "recommend_experiments", ["tenant", "status"])


def _create_exposures() -> None:
    op.create_table(
        "recommend_exposures",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("list_id", sa.String(length=40), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("experiment_id", sa.String(length=40), nullable=True),
        sa.Column("arm", sa.String(length=40), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("source", sa.String(length=12), nullable=False),
        sa.Column("items", db.Json, nullable=False),
        sa.Column("propensities", db.Json, nullable=True),
        sa.Column("diversity", sa.Float(), nullable=True),
        sa.Column("at", db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recommend_exposures")),
    )
    op.create_index("ix_recommend_exposures_experiment_id_user_id", "recommend_exposures", ["experiment_id", "user_id"])
    op.create_index("ix_recommend_exposures_tenant_at", "recommend_exposures", ["tenant", "at"])


def _create_feature_importance() -> None:
    op.create_table(
        "recommend_feature_importance",
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("feature", sa.String(length=60), nullable=False),
        sa.Column("metric", sa.String(length=40), nullable=False),
        sa.Column("importance", sa.Float(), nullable=False),
        sa.Column("spread", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "feature", name=op.f("pk_recommend_feature_importance")),
    )


def _create_items() -> None:
    op.create_table(
        "recommend_items",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("item_id", sa.String(length=128), nullable=False),
        sa.Column("document", db.Json, nullable=False),
        sa.Column("clearance", sa.SmallInteger(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("content_hash", sa.String(length=32), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "item_id", name=op.f("pk_recommend_items")),
    )
    op.create_index("ix_recommend_items_tenant_revision", "recommend_items", ["tenant", "revision"])


def _create_refresh_log() -> None:
    op.create_table(
        "recommend_refresh_log",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("at", db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recommend_refresh_log")),
    )
    op.create_index("ix_recommend_refresh_log_tenant_at", "recommend_refresh_log", ["tenant", "at"])


def _create_users() -> None:
    op.create_table(
        "recommend_users",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("age_range", sa.String(length=40), nullable=True),
        sa.Column("region", sa.String(length=80), nullable=True),
        sa.Column("sessions_per_week", sa.Float(), nullable=True),
        sa.Column("updated_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "user_id", name=op.f("pk_recommend_users")),
    )


def downgrade() -> None:
    op.drop_table("recommend_users")
    op.drop_table("recommend_refresh_log")
    op.drop_table("recommend_items")
    op.drop_table("recommend_feature_importance")
    op.drop_table("recommend_exposures")
    op.drop_table("recommend_experiments")
    op.drop_table("recommend_events")
    op.drop_table("recommend_embeddings")
    op.drop_table("recommend_embedding_model_versions")
    op.drop_table("recommend_counters")
