"""Who did what, in a log that cannot be rewritten unnoticed: append-only rows, each holding the hash of the one before.

The database refuses UPDATE and DELETE by trigger; whoever gets around that breaks the chain, and ``verify`` says where.
Cutting off the end leaves a shorter chain that is whole: keep ``AuditReport.head`` elsewhere and hand it to ``verify``.
Entries name subjects by id and hold no user content. Knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import orjson
from pydantic import JsonValue
from sqlalchemy import BigInteger, String, Text, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from genba_shared.db import Base, Database, utc_now

GENESIS = "0" * 64
_ADVISORY_LOCK = 0x61756469  # "audi": appenders on Postgres stand in line behind it
_PAGE_ROWS = 1000


class AuditRow(Base):
    """One entry. ``at`` and ``detail`` are texts, because what is hashed must come back byte for byte."""

    __tablename__ = "platform_audit"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[str]
    event: Mapped[str]
    actor: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[str] = mapped_column(Text)
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


@dataclass(frozen=True)
class AuditEntry:
    """What happened (``event``), by whom (``actor``), to what (``subject``)."""

    seq: int
    at: str  # ISO 8601, UTC
    event: str
    actor: str
    subject: str
    detail: Mapping[str, JsonValue]
    hash: str


@dataclass(frozen=True)
class AuditReport:
    """Whether the chain holds; if not, the first entry where it does not and why."""

    entries: int
    head: str  # the newest entry's hash
    broken_at: int | None = None
    reason: str | None = None

    @property
    def intact(self) -> bool:
        return self.broken_at is None


class AuditLog:
    """The log in one database. Any number of processes may append: they make one chain."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(
        self, event: str, *, actor: str, subject: str, detail: Mapping[str, JsonValue] | None = None
    ) -> AuditEntry:
        """Write one entry in a transaction of its own."""
        with self._database.transaction() as session:
            return append_in(session, event, actor=actor, subject=subject, detail=detail)

    def entries(self, *, after_seq: int = 0, limit: int = 100) -> list[AuditEntry]:
        """Oldest first."""
        with self._database.read() as session:
            return [_entry(row) for row in _page(session, after_seq, limit)]

    def verify(self, *, expected_head: str | None = None) -> AuditReport:
        """Walk the whole chain. ``expected_head``: a hash seen earlier that must still be part of it.

        Finds an entry that was edited, deleted, inserted or moved; an end that was cut off only with ``expected_head``.
        """
        previous_hash, seq, head_seen = GENESIS, 0, expected_head in {None, GENESIS}
        with self._database.read() as session:
            for row in _rows(session):
                reason = _reason(row, seq + 1, previous_hash)
                if reason is not None:
                    return AuditReport(seq, previous_hash, broken_at=seq + 1, reason=reason)
                previous_hash, seq = row.hash, row.seq
                head_seen = head_seen or row.hash == expected_head
        if not head_seen:
            return AuditReport(seq, previous_hash, broken_at=seq + 1, reason="the expected head is not in the chain")
        return AuditReport(seq, previous_hash)


def append_in(
    session: Session, event: str, *, actor: str, subject: str, detail: Mapping[str, JsonValue] | None = None
) -> AuditEntry:
    """Write one entry in the caller's transaction, so that there is no effect without its entry."""
    if session.get_bind().dialect.name == "postgresql":  # on SQLite the transaction holds the write lock already
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
    last = session.execute(select(AuditRow.seq, AuditRow.hash).order_by(AuditRow.seq.desc()).limit(1)).first()
    row = AuditRow(
        seq=last.seq + 1 if last else 1,
        at=utc_now().isoformat(timespec="microseconds"),
        event=event,
        actor=actor,
        subject=subject,
        detail=orjson.dumps(dict(detail or {}), option=orjson.OPT_SORT_KEYS).decode(),
        previous_hash=last.hash if last else GENESIS,
    )
    row.hash = _hash(row)
    session.add(row)
    session.flush()
    return _entry(row)


def _hash(row: AuditRow) -> str:
    """Over a JSON array of every field: no two rows have the same text, whatever their fields hold."""
    fields = [row.seq, row.at, row.event, row.actor, row.subject, row.detail, row.previous_hash]
    return hashlib.sha256(orjson.dumps(fields)).hexdigest()


def _reason(row: AuditRow, expected_seq: int, previous_hash: str) -> str | None:
    if row.seq != expected_seq:
        return f"entry {expected_seq} is missing"
    if row.previous_hash != previous_hash:
        return "it does not continue the entry before it"
    if row.hash != _hash(row):
        return "its content does not match its hash"
    return None


def _page(session: Session, after_seq: int, limit: int) -> list[AuditRow]:
    return list(session.scalars(select(AuditRow).where(AuditRow.seq > after_seq).order_by(AuditRow.seq).limit(limit)))


def _rows(session: Session) -> Iterator[AuditRow]:
    """All rows in order, a page at a time; also those numbered below 1, which nobody can have appended."""
    after = -(2**63)
    while page := _page(session, after, _PAGE_ROWS):
        yield from page
        after = page[-1].seq
        session.expunge_all()


def _entry(row: AuditRow) -> AuditEntry:
    detail = orjson.loads(row.detail)
    return AuditEntry(row.seq, row.at, row.event, row.actor, row.subject, detail, row.hash)
