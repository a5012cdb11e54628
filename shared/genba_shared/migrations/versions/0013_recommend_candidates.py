"""What chance chose among, beside the chances: without it nobody can say what another version would have chosen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared import db

revision = "0013_recommend_candidates"
down_revision = "0012_sem_view_descriptions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("recommend_exposures", sa.Column("candidates", db.Json, nullable=True))


def downgrade() -> None:
    op.drop_column("recommend_exposures", "candidates")
