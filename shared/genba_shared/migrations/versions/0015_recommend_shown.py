"""How often each item was shown, where every process of svc-recommend finds it: counts of one process ended with it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared import db

revision = "0015_recommend_shown"
down_revision = "0014_sem_likeness"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "recommend_shown",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("item_id", sa.String(128), nullable=False),
        sa.Column("times", sa.Float(), nullable=False),
        sa.Column("changed_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "item_id", name=op.f("pk_recommend_shown")),
    )
    op.create_index("ix_recommend_shown_tenant_changed_at", "recommend_shown", ["tenant", "changed_at"])


def downgrade() -> None:
    op.drop_table("recommend_shown")
