"""Views as a second encoder describes them, beside the first: what a proposed lane is built of and measured with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012_sem_view_descriptions"
down_revision = "0011_sem_label_audits"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sem_view_descriptions",
        sa.Column("particle_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("described_by", sa.String(length=120), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["particle_id", "position"],
            ["sem_views.particle_id", "sem_views.position"],
            name=op.f("fk_sem_view_descriptions_particle_id_sem_views"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("particle_id", "position", "described_by", name=op.f("pk_sem_view_descriptions")),
    )


def downgrade() -> None:
    op.drop_table("sem_view_descriptions")
