"""Which particles have changed since their vectors were last copied is asked with every search by likeness."""

from __future__ import annotations

from alembic import op

revision = "0014_sem_likeness"
down_revision = "0013_recommend_candidates"
branch_labels = None
depends_on = None

_INDEX = "ix_sem_particles_tenant_encoder_updated_at"


def upgrade() -> None:
    op.create_index(_INDEX, "sem_particles", ["tenant", "encoder", "updated_at"])


def downgrade() -> None:
    op.drop_index(_INDEX, "sem_particles")
