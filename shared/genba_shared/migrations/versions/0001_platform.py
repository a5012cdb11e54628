"""The platform's own tables: the audit log, which the database itself keeps append-only, and idempotency keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared import db

revision = "0001_platform"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "platform_idempotency",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("claimed_until", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("expires_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", db.Json, nullable=True),
        sa.Column("headers", db.Json, nullable=True),
        sa.PrimaryKeyConstraint("tenant", "subject", "key", name=op.f("pk_platform_idempotency")),
    )
    op.create_index(op.f("ix_platform_idempotency_expires_at"), "platform_idempotency", ["expires_at"])
    op.create_table(
        "platform_audit",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_platform_audit")),
    )
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER platform_audit_no_{change.lower()} BEFORE {change} ON platform_audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION platform_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER platform_audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON platform_audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION platform_audit_refuse()"
        )


def downgrade() -> None:
    op.drop_table("platform_audit")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION platform_audit_refuse()")
    op.drop_table("platform_idempotency")
