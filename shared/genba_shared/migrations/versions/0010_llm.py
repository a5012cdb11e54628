"""svc-llm: decisions, sealed texts, the queue for people, revisions of policies, documents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from genba_shared import db

revision = "0010_llm"
down_revision = "0009_recommend"
branch_labels = None
depends_on = None

TABLES = ("llm_chunks", "llm_documents", "llm_policy_versions", "llm_escalations", "llm_sealed_texts", "llm_decisions")


def _labelled() -> list[sa.Column[object]]:
    return [
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("clearance", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
    ]


def upgrade() -> None:
    _create_decisions()
    _create_sealed_texts()
    _create_escalations()
    _create_policy_versions()
    _create_documents()
    _create_chunks()


def _create_decisions() -> None:
    op.create_table(
        "llm_decisions",
        *_labelled(),
        sa.Column("route", sa.String(40), nullable=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("domain", sa.String(40), nullable=False),
        sa.Column("language", sa.String(2), nullable=False),
        sa.Column("decision", sa.SmallInteger(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("allow_probability", sa.Float(), nullable=True),
        sa.Column("policy_ref", sa.String(200), nullable=False),
        sa.Column("escalation_target", sa.String(80), nullable=True),
        sa.Column("reasons", db.Json, nullable=False),
        sa.Column("model_version", sa.String(200), nullable=False),
        sa.Column("sketch", sa.BigInteger(), nullable=False),
        sa.Column("audit_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_llm_decisions")),
    )
    op.create_index("ix_llm_decisions_tenant_id", "llm_decisions", ["tenant", "id"])
    op.create_index(op.f("ix_llm_decisions_audit_seq"), "llm_decisions", ["audit_seq"])


def _create_sealed_texts() -> None:
    op.create_table(
        "llm_sealed_texts",
        sa.Column("decision_id", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("keep", sa.String(16), nullable=False),
        sa.Column("expires_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["decision_id"],
            ["llm_decisions.id"],
            name=op.f("fk_llm_sealed_texts_decision_id_llm_decisions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("decision_id", "kind", name=op.f("pk_llm_sealed_texts")),
    )
    op.create_index("ix_llm_sealed_texts_expires_at", "llm_sealed_texts", ["expires_at"])


def _create_escalations() -> None:
    op.create_table(
        "llm_escalations",
        *_labelled(),
        sa.Column("decision_id", sa.String(40), nullable=False),
        sa.Column("target", sa.String(80), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("due_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("assignee", sa.String(), nullable=True),
        sa.Column("outcome", sa.SmallInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("decided_by", sa.String(), nullable=True),
        sa.Column("decided_at", db.UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["decision_id"], ["llm_decisions.id"], name=op.f("fk_llm_escalations_decision_id_llm_decisions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_llm_escalations")),
    )
    op.create_index("ix_llm_escalations_tenant_status_due_at", "llm_escalations", ["tenant", "status", "due_at"])
    op.create_index("ix_llm_escalations_decision_id", "llm_escalations", ["decision_id"], unique=True)


def _create_policy_versions() -> None:
    op.create_table(
        "llm_policy_versions",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("document", db.Json, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("created_at", db.UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("note", sa.String(500), nullable=False),
        sa.PrimaryKeyConstraint("kind", "revision", name=op.f("pk_llm_policy_versions")),
    )


def _create_documents() -> None:
    op.create_table(
        "llm_documents",
        *_labelled(),
        sa.Column("title", sa.String(300), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("compartments", db.Json, nullable=False),
        sa.Column("chars", sa.Integer(), nullable=False),
        sa.Column("chunk_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_llm_documents")),
    )
    op.create_index("ix_llm_documents_tenant_id", "llm_documents", ["tenant", "id"])


def _create_chunks() -> None:
    op.create_table(
        "llm_chunks",
        sa.Column("document_id", sa.String(40), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("clearance", sa.SmallInteger(), nullable=False),
        sa.Column("compartments", db.Json, nullable=False),
        sa.Column("title", sa.String(300), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["llm_documents.id"],
            name=op.f("fk_llm_chunks_document_id_llm_documents"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("document_id", "number", name=op.f("pk_llm_chunks")),
    )
    op.create_index("ix_llm_chunks_tenant", "llm_chunks", ["tenant"])


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
