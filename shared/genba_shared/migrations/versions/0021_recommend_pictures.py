"""Pictures of svc-recommend's items, and the vectors that svc-sop's encoder gives them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared.db import UtcDateTime

revision = "0021_recommend_pictures"
down_revision = "0020_sop_transcripts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "recommend_pictures",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("item_id", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("media_type", sa.String(length=20), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("note", sa.String(length=300), nullable=True),
        sa.Column("encoder", sa.String(length=200), nullable=True),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.Column("claimed_until", UtcDateTime(timezone=True), nullable=True),
        sa.Column("sent_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "item_id", name=op.f("pk_recommend_pictures")),
    )
    op.create_index("ix_recommend_pictures_tenant_state", "recommend_pictures", ["tenant", "state"])


def downgrade() -> None:
    op.drop_table("recommend_pictures")
