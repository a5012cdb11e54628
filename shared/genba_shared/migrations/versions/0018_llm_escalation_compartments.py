"""A question that waits for a person carries the compartments of what it is about: its text is for reviewers who are in them.

Questions that are there already were made without: they stay visible by tenant and clearance alone.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared import db

revision = "0018_llm_escalation_compartments"
down_revision = "0017_labels_of_names"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("llm_escalations") as table:
        table.add_column(sa.Column("compartments", db.Json, server_default="[]", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("llm_escalations") as table:
        table.drop_column("compartments")
