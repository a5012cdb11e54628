"""The Merkle tree over the audit log: full tiles and signed checkpoints, which the database keeps append-only like the log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008_audit_tree"
down_revision = "0007_sem"
branch_labels = None
depends_on = None

TABLES = ("platform_audit_tiles", "platform_audit_checkpoints")


def upgrade() -> None:
    op.create_table(
        "platform_audit_tiles",
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "position", name=op.f("pk_platform_audit_tiles")),
    )
    op.create_table(
        "platform_audit_checkpoints",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_platform_audit_checkpoints")),
    )
    for table in TABLES:
        if op.get_bind().dialect.name == "sqlite":
            for change in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
                )
        else:
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION platform_audit_refuse()"
            )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
