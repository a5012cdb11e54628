"""Which users have another profile or were erased: other processes of svc-recommend hold them in memory and have to know."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared import db

revision = "0019_recommend_user_changes"
down_revision = "0018_llm_escalation_compartments"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "recommend_user_changes",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("user_ids", db.Json, nullable=False),
        sa.Column("erased", sa.Boolean(), nullable=False),
        sa.Column("at", db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_recommend_user_changes")),
    )
    op.create_index("ix_recommend_user_changes_tenant_seq", "recommend_user_changes", ["tenant", "seq"])


def downgrade() -> None:
    op.drop_table("recommend_user_changes")
