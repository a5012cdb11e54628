"""Schedules, and which of them made a job for which moment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared import db

revision = "0006_schedules"
down_revision = "0005_registry"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_schedules",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("params", db.Json, nullable=False),
        sa.Column("cron", sa.String(100), nullable=False),
        sa.Column("time_zone", sa.String(64), nullable=False),
        sa.Column("overlap", sa.String(8), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_run_at", db.UtcDateTime(timezone=True), nullable=True),
        sa.Column("last_run_at", db.UtcDateTime(timezone=True), nullable=True),
        sa.Column("last_job_id", sa.String(40), nullable=True),
        sa.Column("last_error", db.Json, nullable=True),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("clearance", sa.Integer(), nullable=False),
        sa.Column("compartments", sa.Text(), nullable=False),
        sa.Column("authority", db.Json, nullable=False),
        sa.CheckConstraint("overlap IN ('skip', 'allow')", name=op.f("ck_job_schedules_overlap")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_schedules")),
    )
    op.create_index("ix_job_schedules_tenant_subject_name", "job_schedules", ["tenant", "subject", "name"], unique=True)
    op.create_index("ix_job_schedules_enabled_next_run_at", "job_schedules", ["enabled", "next_run_at"])
    op.add_column("jobs", sa.Column("schedule_id", sa.String(40), nullable=True))
    op.add_column("jobs", sa.Column("due_at", db.UtcDateTime(timezone=True), nullable=True))
    op.create_index("ix_jobs_schedule_id_due_at", "jobs", ["schedule_id", "due_at"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_jobs_schedule_id_due_at", "jobs")
    op.drop_column("jobs", "due_at")
    op.drop_column("jobs", "schedule_id")
    op.drop_table("job_schedules")
