"""Who did what, in a log that cannot be rewritten unnoticed: append-only rows, each holding the hash of the one before.

The database refuses UPDATE and DELETE by trigger; whoever gets around that breaks the chain, and ``verify`` says where.
Over the chain grows a Merkle tree with signed checkpoints (``audit_tree``): they find an end that was cut off or rewritten,
and prove one entry without showing the others. Entries name subjects by id and hold no user content. Knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import orjson
from pydantic import JsonValue
from sqlalchemy import BigInteger, String, Table, Text, func, insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from genba_shared.db import Database, Record, utc_now
from genba_shared.tlog import Checkpoint, NoteKey

GENESIS = "0" * 64
_ADVISORY_LOCK = 0x61756469  # "audi": appenders on Postgres stand in line behind it


class AuditRow(Record):
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
    """Whether the log holds; if not, the first entry where it does not and why."""

    entries: int
    head: str  # the newest entry's hash
    broken_at: int | None = None
    reason: str | None = None
    sealed: int = 0  # entries below the newest signed checkpoint; what is above is held by the chain alone
    root: str | None = None  # hex, of the tree over all entries

    @property
    def intact(self) -> bool:
        return self.broken_at is None


class NewEntry(NamedTuple):
    """What somebody wants to have on record."""

    event: str
    actor: str
    subject: str
    detail: Mapping[str, JsonValue] = {}


class Fields(NamedTuple):
    """A row's columns, in the order in which they are hashed, then its hash."""

    seq: int
    at: str
    event: str
    actor: str
    subject: str
    detail: str
    previous_hash: str
    hash: str

    def entry(self) -> bytes:
        """What is hashed: a JSON array of every field. No two rows have the same, whatever their fields hold."""
        return orjson.dumps(self[:7])


COLUMNS = (
    AuditRow.seq,
    AuditRow.at,
    AuditRow.event,
    AuditRow.actor,
    AuditRow.subject,
    AuditRow.detail,
    AuditRow.previous_hash,
    AuditRow.hash,
)


# Every decision waits for these, so they are built once and run below the ORM: 4 ms of CPU less for ten entries.
_TABLE = cast("Table", AuditRow.__table__)
_INSERT = insert(_TABLE)
_LAST = select(_TABLE.c.seq, _TABLE.c.hash).order_by(_TABLE.c.seq.desc()).limit(1)
_STAND_IN_LINE = select(func.pg_advisory_xact_lock(_ADVISORY_LOCK))


@dataclass(frozen=True)
class AuditLog:
    """The log in one database. Any number of processes may append: they make one chain."""

    database: Database
    key: NoteKey | None = field(default=None, kw_only=True)  # whose checkpoints ``verify`` believes

    def append(
        self, event: str, *, actor: str, subject: str, detail: Mapping[str, JsonValue] | None = None
    ) -> AuditEntry:
        """Write one entry in a transaction of its own."""
        with self.database.transaction() as session:
            return append_in(session, event, actor=actor, subject=subject, detail=detail)

    def entries(self, *, after_seq: int = 0, limit: int = 100) -> list[AuditEntry]:
        """Oldest first."""
        query = select(*COLUMNS).where(AuditRow.seq > after_seq).order_by(AuditRow.seq).limit(limit)
        with self.database.read() as session:
            return [entry_of(Fields(*row)) for row in session.execute(query)]

    def verify(self, *, expected_head: str | None = None, witnessed: Sequence[Checkpoint] = ()) -> AuditReport:
        """Walk the whole log. ``expected_head``: a hash seen earlier that must still be part of it; ``witnessed``: checkpoints
        that were kept elsewhere.

        Finds an entry that was edited, deleted, inserted or moved. An end that was cut off or written anew is found by the
        signed checkpoints in the database if ``key`` is known and they were left; else by what was kept elsewhere.
        """
        from genba_shared.audit_verify import verify

        return verify(self.database, key=self.key, expected_head=expected_head, witnessed=witnessed)


def append_in(
    session: Session, event: str, *, actor: str, subject: str, detail: Mapping[str, JsonValue] | None = None
) -> AuditEntry:
    """Write one entry in the caller's transaction, so that there is no effect without its entry."""
    last = stand_in_line(session)
    [row] = append_after(session, last, [NewEntry(event, actor, subject, detail or {})])
    return entry_of(row)


def stand_in_line(session: Session) -> tuple[int, str]:
    """Wait until no other transaction appends; the number and the hash of the last entry, which stay so until this one ends."""
    connection = session.connection()
    if connection.dialect.name == "postgresql":  # on SQLite the transaction holds the write lock already
        connection.execute(_STAND_IN_LINE)
    last = connection.execute(_LAST).first()
    return (last.seq, last.hash) if last else (0, GENESIS)


def append_after(session: Session, last: tuple[int, str], new: Sequence[NewEntry]) -> list[Fields]:
    """Write entries behind ``last``, which ``stand_in_line`` gave."""
    seq, previous_hash = last
    at = utc_now().isoformat(timespec="microseconds")
    rows: list[Fields] = []
    for each in new:
        seq += 1
        detail = orjson.dumps(dict(each.detail), option=orjson.OPT_SORT_KEYS).decode()
        row = Fields(seq, at, each.event, each.actor, each.subject, detail, previous_hash, "")
        previous_hash = hash_of(row.entry())
        rows.append(row._replace(hash=previous_hash))
    fields = [row._asdict() for row in rows]
    session.connection().execute(_INSERT, fields if len(fields) != 1 else fields[0])
    return rows


def hash_of(entry: bytes) -> str:
    """The link of the chain."""
    return hashlib.sha256(entry).hexdigest()


def entry_of(row: Fields) -> AuditEntry:
    """A row as callers see it."""
    return AuditEntry(row.seq, row.at, row.event, row.actor, row.subject, orjson.loads(row.detail), row.hash)
