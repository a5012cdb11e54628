"""What svc-sem keeps: labels, particles, decisions, masters, reviews, bundles."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared import db

revision = "0007_sem"
down_revision = "0006_schedules"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_bundles()
    _create_erasures()
    _create_labels()
    _create_master_sets()
    _create_particles()
    _create_policies()
    _create_decisions()
    _create_label_studio_tasks()
    _create_label_versions()
    _create_masters()
    _create_reviews()
    _create_views()


def _create_bundles() -> None:
    op.create_table(
        "sem_bundles",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("particle_ids", db.Json, nullable=False),
        sa.Column("document", db.Json, nullable=False),
        sa.Column("updated_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("clearance", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sem_bundles")),
    )
    op.create_index("ix_sem_bundles_tenant_status", "sem_bundles", ["tenant", "status"], unique=False)


def _create_erasures() -> None:
    op.create_table(
        "sem_erasures",
        sa.Column("target", sa.String(length=160), nullable=False),
        sa.Column("due_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("target", name=op.f("pk_sem_erasures")),
    )
    op.create_index(op.f("ix_sem_erasures_due_at"), "sem_erasures", ["due_at"], unique=False)


def _create_labels() -> None:
    op.create_table(
        "sem_labels",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("successors", db.Json, nullable=False),
        sa.Column("document", db.Json, nullable=False),
        sa.Column("updated_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("clearance", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sem_labels")),
    )
    op.create_index("ix_sem_labels_tenant_id", "sem_labels", ["tenant", "id"], unique=False)


def _create_master_sets() -> None:
    op.create_table(
        "sem_master_sets",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("counts", db.Json, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "number", name=op.f("pk_sem_master_sets")),
    )


def _create_particles() -> None:
    op.create_table(
        "sem_particles",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("batch", sa.String(length=80), nullable=True),
        sa.Column("process", sa.String(length=120), nullable=True),
        sa.Column("tool", sa.String(length=120), nullable=True),
        sa.Column("recipe", sa.String(length=120), nullable=True),
        sa.Column("lot", sa.String(length=120), nullable=True),
        sa.Column("taken_at", db.UtcDateTime(timezone=True), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("tags", db.Json, nullable=False),
        sa.Column("dropped", db.Json, nullable=False),
        sa.Column("scaling", db.Json, nullable=False),
        sa.Column("view_count", sa.SmallInteger(), nullable=False),
        sa.Column("encoder", sa.String(length=120), nullable=True),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.Column("aspect_ratio", sa.Float(), nullable=True),
        sa.Column("circularity", sa.Float(), nullable=True),
        sa.Column("solidity", sa.Float(), nullable=True),
        sa.Column("diameter_um", sa.Float(), nullable=True),
        sa.Column("shape", db.Json, nullable=False),
        sa.Column("covered", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("label_id", sa.String(length=40), nullable=True),
        sa.Column("decided_by", sa.String(length=16), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("reasons", db.Json, nullable=False),
        sa.Column("in_queue", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.Float(), nullable=False),
        sa.Column("decision", db.Json, nullable=False),
        sa.Column("decided_in", sa.String(length=40), nullable=True),
        sa.Column("updated_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("clearance", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sem_particles")),
        sa.UniqueConstraint("tenant", "batch", "name", name=op.f("uq_sem_particles_tenant_batch_name")),
    )
    op.create_index(op.f("ix_sem_particles_decided_in"), "sem_particles", ["decided_in"], unique=False)
    op.create_index(
        "ix_sem_particles_tenant_batch_status", "sem_particles", ["tenant", "batch", "status"], unique=False
    )
    op.create_index("ix_sem_particles_tenant_id", "sem_particles", ["tenant", "id"], unique=False)
    op.create_index("ix_sem_particles_tenant_label_id", "sem_particles", ["tenant", "label_id", "status"], unique=False)
    op.create_index("ix_sem_particles_tenant_queue", "sem_particles", ["tenant", "in_queue", "priority"], unique=False)


def _create_policies() -> None:
    op.create_table(
        "sem_policies",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("precision", sa.Float(), nullable=False),
        sa.Column("audit_share", sa.Float(), nullable=False),
        sa.Column("updated_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_sem_policies")),
    )


def _create_decisions() -> None:
    op.create_table(
        "sem_decisions",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("particle_id", sa.String(length=40), nullable=False),
        sa.Column("by", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("label_id", sa.String(length=40), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("master_set", sa.Integer(), nullable=True),
        sa.Column("model", sa.String(length=120), nullable=False),
        sa.Column("document", db.Json, nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["particle_id"],
            ["sem_particles.id"],
            name=op.f("fk_sem_decisions_particle_id_sem_particles"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sem_decisions")),
    )
    op.create_index("ix_sem_decisions_particle_id_id", "sem_decisions", ["particle_id", "id"], unique=False)


def _create_label_studio_tasks() -> None:
    op.create_table(
        "sem_label_studio_tasks",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("project", sa.String(length=80), nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=False),
        sa.Column("particle_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["particle_id"],
            ["sem_particles.id"],
            name=op.f("fk_sem_label_studio_tasks_particle_id_sem_particles"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "project", "task_id", name=op.f("pk_sem_label_studio_tasks")),
    )
    op.create_index(
        op.f("ix_sem_label_studio_tasks_particle_id"), "sem_label_studio_tasks", ["particle_id"], unique=False
    )


def _create_label_versions() -> None:
    op.create_table(
        "sem_label_versions",
        sa.Column("label_id", sa.String(length=40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("successors", db.Json, nullable=False),
        sa.Column("document", db.Json, nullable=False),
        sa.Column("detail", db.Json, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["label_id"], ["sem_labels.id"], name=op.f("fk_sem_label_versions_label_id_sem_labels")
        ),
        sa.PrimaryKeyConstraint("label_id", "version", name=op.f("pk_sem_label_versions")),
    )


def _create_masters() -> None:
    op.create_table(
        "sem_masters",
        sa.Column("label_id", sa.String(length=40), nullable=False),
        sa.Column("particle_id", sa.String(length=40), nullable=False),
        sa.Column("since", sa.Integer(), nullable=False),
        sa.Column("until", sa.Integer(), nullable=True),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("clearance", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["label_id"], ["sem_labels.id"], name=op.f("fk_sem_masters_label_id_sem_labels")),
        sa.ForeignKeyConstraint(
            ["particle_id"], ["sem_particles.id"], name=op.f("fk_sem_masters_particle_id_sem_particles")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sem_masters")),
    )
    op.create_index(op.f("ix_sem_masters_label_id"), "sem_masters", ["label_id"], unique=False)
    op.create_index(op.f("ix_sem_masters_particle_id"), "sem_masters", ["particle_id"], unique=False)
    op.create_index("ix_sem_masters_tenant_until", "sem_masters", ["tenant", "until"], unique=False)


def _create_reviews() -> None:
    op.create_table(
        "sem_reviews",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("particle_id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("label_id", sa.String(length=40), nullable=True),
        sa.Column("was_label_id", sa.String(length=40), nullable=True),
        sa.Column("was_status", sa.String(length=16), nullable=False),
        sa.Column("reasons", db.Json, nullable=False),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("decided_from", db.Json, nullable=False),
        sa.Column("calibrates", sa.Boolean(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("bundle_id", sa.String(length=40), nullable=True),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["particle_id"],
            ["sem_particles.id"],
            name=op.f("fk_sem_reviews_particle_id_sem_particles"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sem_reviews")),
    )
    op.create_index(op.f("ix_sem_reviews_bundle_id"), "sem_reviews", ["bundle_id"], unique=False)
    op.create_index("ix_sem_reviews_particle_id_id", "sem_reviews", ["particle_id", "id"], unique=False)


def _create_views() -> None:
    op.create_table(
        "sem_views",
        sa.Column("particle_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("file_name", sa.String(length=200), nullable=False),
        sa.Column("image_key", sa.String(length=160), nullable=False),
        sa.Column("picture_key", sa.String(length=160), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("document", db.Json, nullable=False),
        sa.Column("described_by", sa.String(length=120), nullable=True),
        sa.Column("raw", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["particle_id"],
            ["sem_particles.id"],
            name=op.f("fk_sem_views_particle_id_sem_particles"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("particle_id", "position", name=op.f("pk_sem_views")),
    )
    op.create_index(op.f("ix_sem_views_image_key"), "sem_views", ["image_key"], unique=False)
    op.create_index(op.f("ix_sem_views_picture_key"), "sem_views", ["picture_key"], unique=False)


def downgrade() -> None:
    for table in (  # their indexes go with them
        "sem_views",
        "sem_reviews",
        "sem_masters",
        "sem_label_versions",
        "sem_label_studio_tasks",
        "sem_decisions",
        "sem_policies",
        "sem_particles",
        "sem_master_sets",
        "sem_labels",
        "sem_erasures",
        "sem_bundles",
    ):
        op.drop_table(table)
