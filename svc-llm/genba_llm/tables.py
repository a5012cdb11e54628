"""The rows that svc-llm keeps. A decision's text is in none of them but ``SealedText``, and there only encrypted or as a salt.

Records that a caller can name carry a tenant and a clearance label; ``store`` filters by both.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, LargeBinary, SmallInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from genba_shared.db import Json, Record, UtcDateTime
from genba_shared.records import Labelled


class DecisionRow(Labelled, Record):
    """What the gate decided, and its entry in the audit log."""

    noun = "decision"

    __tablename__ = "llm_decisions"
    __table_args__ = (Index("ix_llm_decisions_tenant_id", "tenant", "id"),)

    route: Mapped[str] = mapped_column(String(40))
    action: Mapped[str] = mapped_column(String(20))
    domain: Mapped[str] = mapped_column(String(40))
    language: Mapped[str] = mapped_column(String(2))
    decision: Mapped[int] = mapped_column(SmallInteger)
    confidence: Mapped[float] = mapped_column(Float)
    allow_probability: Mapped[float | None] = mapped_column(Float)
    policy_ref: Mapped[str] = mapped_column(String(200))
    escalation_target: Mapped[str | None] = mapped_column(String(80))
    reasons: Mapped[list[Any]] = mapped_column(Json)
    model_version: Mapped[str] = mapped_column(String(200))
    sketch: Mapped[int] = mapped_column(BigInteger)  # keyed simhash of the text: tells paraphrases, shows nothing
    audit_seq: Mapped[int] = mapped_column(BigInteger, index=True)


class SealedText(Record):
    """The salt of a commitment, and the text itself, encrypted, where the policy or a person's queue needs it."""

    __tablename__ = "llm_sealed_texts"
    __table_args__ = (Index("ix_llm_sealed_texts_expires_at", "expires_at"),)

    decision_id: Mapped[str] = mapped_column(ForeignKey("llm_decisions.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)  # prompt | thinking | answer
    salt: Mapped[bytes] = mapped_column(LargeBinary)
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    keep: Mapped[str] = mapped_column(String(16))  # commitment | queue (until a person has decided) | policy
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class EscalationRow(Labelled, Record):
    """A question that waits for a person."""

    noun = "escalation"

    __tablename__ = "llm_escalations"
    __table_args__ = (
        Index("ix_llm_escalations_tenant_id", "tenant", "id"),
        Index("ix_llm_escalations_tenant_status_due_at", "tenant", "status", "due_at"),
        Index("ix_llm_escalations_decision_id", "decision_id", unique=True),
    )

    decision_id: Mapped[str] = mapped_column(ForeignKey("llm_decisions.id"))
    target: Mapped[str] = mapped_column(String(80))
    compartments: Mapped[list[Any]] = mapped_column(Json, server_default="[]")  # of what is asked about
    status: Mapped[str] = mapped_column(String(16))  # open | assigned | decided
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    assignee: Mapped[str | None] = mapped_column(String)
    outcome: Mapped[int | None] = mapped_column(SmallInteger)
    reason: Mapped[str | None] = mapped_column(Text)
    decided_by: Mapped[str | None] = mapped_column(String)
    decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class PolicyVersion(Record):
    """One revision of the policy or of the identity; the newest is in force."""

    __tablename__ = "llm_policy_versions"

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)  # policy | identity
    revision: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    document: Mapped[dict[str, Any]] = mapped_column(Json)
    fingerprint: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String)
    note: Mapped[str] = mapped_column(String(500))


class DocumentRow(Labelled, Record):
    """A document of the company."""

    noun = "document"

    __tablename__ = "llm_documents"
    __table_args__ = (Index("ix_llm_documents_tenant_id", "tenant", "id"),)

    title: Mapped[str] = mapped_column(String(300))
    kind: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64))
    compartments: Mapped[list[Any]] = mapped_column(Json)
    chars: Mapped[int] = mapped_column(Integer)
    chunk_count: Mapped[int] = mapped_column(Integer)


class ChunkRow(Record):
    """A piece of a document. Its label is repeated here: what is searched must be filtered without looking elsewhere."""

    __tablename__ = "llm_chunks"
    __table_args__ = (Index("ix_llm_chunks_tenant", "tenant"),)

    document_id: Mapped[str] = mapped_column(ForeignKey("llm_documents.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    tenant: Mapped[str] = mapped_column(String)
    clearance: Mapped[int] = mapped_column(SmallInteger)
    compartments: Mapped[list[Any]] = mapped_column(Json)
    title: Mapped[str] = mapped_column(String(300))
    text: Mapped[str] = mapped_column(Text)
