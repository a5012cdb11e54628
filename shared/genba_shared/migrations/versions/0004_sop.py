"""What svc-sop keeps: videos, procedures with versions and golds, references, evaluations, reviews, promised
erasures.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared import db

revision = "0004_sop"
down_revision = "0003_gateway"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_erasures()
    _create_evaluations()
    _create_procedures()
    _create_videos()
    _create_golds()
    _create_procedure_versions()
    _create_references()
    _create_reviews()


def _create_erasures() -> None:
    op.create_table(
        "sop_erasures",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("target", sa.String(length=160), nullable=False),
        sa.Column("clip_count", sa.Integer(), nullable=False),
        sa.Column("due_at", db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sop_erasures")),
        sa.UniqueConstraint("kind", "target", name=op.f("uq_sop_erasures_kind_target")),
    )
    op.create_index(op.f("ix_sop_erasures_due_at"), "sop_erasures", ["due_at"], unique=False)


def _create_evaluations() -> None:
    op.create_table(
        "sop_evaluations",
        sa.Column("procedure_id", sa.String(length=40), nullable=False),
        sa.Column("procedure_version", sa.Integer(), nullable=False),
        sa.Column("video_id", sa.String(length=40), nullable=False),
        sa.Column("operator", sa.String(length=120), nullable=True),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("reviewed_verdict", sa.String(length=16), nullable=True),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("raw_score", sa.Float(), nullable=False),
        sa.Column("encoder", sa.String(length=120), nullable=False),
        sa.Column("model_version", sa.String(length=80), nullable=False),
        sa.Column("document", db.Json, nullable=False),
        sa.Column("timings_ms", db.Json, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("clearance", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sop_evaluations")),
    )
    op.create_index("ix_sop_evaluations_operator", "sop_evaluations", ["tenant", "operator"], unique=False)
    op.create_index("ix_sop_evaluations_procedure_id_id", "sop_evaluations", ["procedure_id", "id"], unique=False)
    op.create_index("ix_sop_evaluations_tenant_id", "sop_evaluations", ["tenant", "id"], unique=False)
    op.create_index(op.f("ix_sop_evaluations_video_id"), "sop_evaluations", ["video_id"], unique=False)


def _create_procedures() -> None:
    op.create_table(
        "sop_procedures",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated_at", db.UtcDateTime(), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("clearance", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sop_procedures")),
    )
    op.create_index("ix_sop_procedures_tenant_id", "sop_procedures", ["tenant", "id"], unique=False)


def _create_videos() -> None:
    op.create_table(
        "sop_videos",
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("info", db.Json, nullable=False),
        sa.Column("encoder", sa.String(length=120), nullable=False),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.Column("sampled_frames", sa.Integer(), nullable=False),
        sa.Column("video_key", sa.String(length=160), nullable=False),
        sa.Column("features_key", sa.String(length=160), nullable=False),
        sa.Column("thumbnails_key", sa.String(length=160), nullable=False),
        sa.Column("timings_ms", db.Json, nullable=False),
        sa.Column("expires_at", db.UtcDateTime(), nullable=True),
        sa.Column("clip_count", sa.Integer(), nullable=False),
        sa.Column("indexed_in", sa.String(length=120), nullable=True),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("clearance", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sop_videos")),
        sa.UniqueConstraint(
            "tenant", "clearance", "sha256", "encoder", name=op.f("uq_sop_videos_tenant_clearance_sha256_encoder")
        ),
    )
    op.create_index("ix_sop_videos_expires_at", "sop_videos", ["expires_at"], unique=False)
    op.create_index(op.f("ix_sop_videos_features_key"), "sop_videos", ["features_key"], unique=False)
    op.create_index(op.f("ix_sop_videos_indexed_in"), "sop_videos", ["indexed_in"], unique=False)
    op.create_index("ix_sop_videos_tenant_id", "sop_videos", ["tenant", "id"], unique=False)
    op.create_index(op.f("ix_sop_videos_thumbnails_key"), "sop_videos", ["thumbnails_key"], unique=False)
    op.create_index(op.f("ix_sop_videos_video_key"), "sop_videos", ["video_key"], unique=False)


def _create_golds() -> None:
    op.create_table(
        "sop_golds",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("procedure_id", sa.String(length=40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("video_id", sa.String(length=40), nullable=False),
        sa.Column("spans", db.Json, nullable=False),
        sa.Column("spans_by", sa.String(length=16), nullable=False),
        sa.Column("created_at", db.UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["procedure_id"],
            ["sop_procedures.id"],
            name=op.f("fk_sop_golds_procedure_id_sop_procedures"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["video_id"], ["sop_videos.id"], name=op.f("fk_sop_golds_video_id_sop_videos")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sop_golds")),
        sa.UniqueConstraint(
            "procedure_id", "version", "video_id", name=op.f("uq_sop_golds_procedure_id_version_video_id")
        ),
    )
    op.create_index(op.f("ix_sop_golds_procedure_id"), "sop_golds", ["procedure_id"], unique=False)
    op.create_index(op.f("ix_sop_golds_video_id"), "sop_golds", ["video_id"], unique=False)


def _create_procedure_versions() -> None:
    op.create_table(
        "sop_procedure_versions",
        sa.Column("procedure_id", sa.String(length=40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", db.Json, nullable=False),
        sa.Column("created_at", db.UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["procedure_id"],
            ["sop_procedures.id"],
            name=op.f("fk_sop_procedure_versions_procedure_id_sop_procedures"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("procedure_id", "version", name=op.f("pk_sop_procedure_versions")),
    )


def _create_references() -> None:
    op.create_table(
        "sop_references",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("procedure_id", sa.String(length=40), nullable=False),
        sa.Column("artifact_key", sa.String(length=160), nullable=False),
        sa.Column("created_at", db.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["procedure_id"],
            ["sop_procedures.id"],
            name=op.f("fk_sop_references_procedure_id_sop_procedures"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_sop_references")),
    )
    op.create_index(op.f("ix_sop_references_artifact_key"), "sop_references", ["artifact_key"], unique=False)
    op.create_index(op.f("ix_sop_references_procedure_id"), "sop_references", ["procedure_id"], unique=False)


def _create_reviews() -> None:
    op.create_table(
        "sop_reviews",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("evaluation_id", sa.String(length=40), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("deviations", db.Json, nullable=False),
        sa.Column("created_at", db.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["sop_evaluations.id"],
            name=op.f("fk_sop_reviews_evaluation_id_sop_evaluations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sop_reviews")),
    )
    op.create_index(op.f("ix_sop_reviews_evaluation_id"), "sop_reviews", ["evaluation_id"], unique=False)


def downgrade() -> None:
    for table in (  # their indexes go with them
        "sop_reviews",
        "sop_references",
        "sop_procedure_versions",
        "sop_golds",
        "sop_videos",
        "sop_procedures",
        "sop_evaluations",
        "sop_erasures",
    ):
        op.drop_table(table)
