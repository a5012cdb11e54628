"""What names a record carries its label: particles' names in a batch, and lines of the recommender's refresh log.

Lines that are there already may name items of any label: they are shown to those who may see all, until they go after a week.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017_labels_of_names"
down_revision = "0016_ordered_reads"
branch_labels = None
depends_on = None

OLD, NEW = "uq_sem_particles_tenant_batch_name", "uq_sem_particles_tenant_batch_name_clearance"


def upgrade() -> None:
    with op.batch_alter_table("sem_particles") as table:
        table.drop_constraint(op.f(OLD), type_="unique")
        table.create_unique_constraint(op.f(NEW), ["tenant", "batch", "name", "clearance"])
    with op.batch_alter_table("recommend_refresh_log") as table:
        table.add_column(sa.Column("clearance", sa.SmallInteger(), server_default="3", nullable=False))
    op.execute("UPDATE recommend_refresh_log SET clearance = 0 WHERE level <> 'error'")


def downgrade() -> None:
    with op.batch_alter_table("recommend_refresh_log") as table:
        table.drop_column("clearance")
    with op.batch_alter_table("sem_particles") as table:
        table.drop_constraint(op.f(NEW), type_="unique")
        table.create_unique_constraint(op.f(OLD), ["tenant", "batch", "name"])
