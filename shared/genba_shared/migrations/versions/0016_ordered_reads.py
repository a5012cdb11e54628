"""Indexes in the order in which growing tables are read: events and reviews as they came, escalations newest first."""

from __future__ import annotations

from alembic import op

revision = "0016_ordered_reads"
down_revision = "0015_recommend_shown"
branch_labels = None
depends_on = None

_INDEXES = {
    "ix_recommend_events_tenant_seq": ("recommend_events", ["tenant", "seq"]),
    "ix_llm_escalations_tenant_id": ("llm_escalations", ["tenant", "id"]),
    "ix_sem_reviews_tenant_id": ("sem_reviews", ["tenant", "id"]),
    "ix_sem_reviews_tenant_calibrates_id": ("sem_reviews", ["tenant", "calibrates", "id"]),
}


def upgrade() -> None:
    for name, (table, columns) in _INDEXES.items():
        op.create_index(name, table, columns)


def downgrade() -> None:
    for name, (table, _) in _INDEXES.items():
        op.drop_index(name, table_name=table)
