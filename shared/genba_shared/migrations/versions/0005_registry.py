"""Models, their versions, where their aliases point, and every move of an alias."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared import db

revision = "0005_registry"
down_revision = "0004_sop"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("name", sa.String(121), nullable=False),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_models")),
    )
    op.create_table(
        "model_versions",
        sa.Column("model", sa.String(121), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("files", db.Json, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("metrics", db.Json, nullable=False),
        sa.Column("gates", db.Json, nullable=False),
        sa.Column("job_id", sa.String(40), nullable=True),
        sa.Column("data_hash", sa.String(), nullable=False),
        sa.Column("code_commit", sa.String(), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=True),
        sa.Column("clearance", sa.Integer(), nullable=False),
        sa.Column("compartments", sa.Text(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status IN ('registered', 'gate_failed', 'retired')", name=op.f("ck_model_versions_status")),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_model_versions_model_models")),
        sa.PrimaryKeyConstraint("model", "number", name=op.f("pk_model_versions")),
    )
    op.create_table(
        "model_aliases",
        sa.Column("model", sa.String(121), nullable=False),
        sa.Column("alias", sa.String(16), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("moved_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_model_aliases_model_models")),
        sa.ForeignKeyConstraint(
            ["model", "number"],
            ["model_versions.model", "model_versions.number"],
            name=op.f("fk_model_aliases_model_number_model_versions"),
        ),
        sa.PrimaryKeyConstraint("model", "alias", name=op.f("pk_model_aliases")),
    )
    op.create_table(
        "model_moves",
        sa.Column("model", sa.String(121), nullable=False),
        sa.Column("alias", sa.String(16), nullable=False),
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("from_number", sa.Integer(), nullable=True),
        sa.Column("to_number", sa.Integer(), nullable=True),
        sa.Column("below", sa.Integer(), nullable=True),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", db.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_model_moves_model_models")),
        sa.PrimaryKeyConstraint("model", "alias", "generation", name=op.f("pk_model_moves")),
    )


def downgrade() -> None:
    op.drop_table("model_moves")
    op.drop_table("model_aliases")
    op.drop_table("model_versions")
    op.drop_table("models")
