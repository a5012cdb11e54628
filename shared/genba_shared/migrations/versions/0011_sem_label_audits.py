"""Audits of labels that a job has made, for the audits view."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared import db

revision = "0011_sem_label_audits"
down_revision = "0010_llm"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sem_label_audits",
        sa.Column("model", sa.String(length=120), nullable=False),
        sa.Column("judged", sa.Integer(), nullable=False),
        sa.Column("doubts", db.Json, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("clearance", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sem_label_audits")),
    )
    op.create_index("ix_sem_label_audits_tenant_id", "sem_label_audits", ["tenant", "id"], unique=False)


def downgrade() -> None:
    op.drop_table("sem_label_audits")
