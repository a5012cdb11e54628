"""The job table: its rows, the values read from them, and the one way a row changes. Decides nothing; see jobs.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, String, Text, func, insert, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from genba_shared.db import Base, Json, UtcDateTime
from genba_shared.principal import Clearance, Principal

Status = Literal["queued", "running", "succeeded", "failed", "cancelled", "dead"]
EventKind = Literal["status", "progress", "metrics", "line"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "dead"})
LEASE_FREE: dict[str, Any] = {"owner": None, "lease_expires_at": None}


class JobRow(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'dead')", name="status"),
        Index("ix_jobs_status_republish_at", "status", "republish_at"),
        Index("ix_jobs_status_lease_expires_at", "status", "lease_expires_at"),
        Index("ix_jobs_tenant_id", "tenant", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str]
    subject: Mapped[str]
    clearance: Mapped[int]
    compartments: Mapped[str] = mapped_column(Text)  # ",a,b,": so that SQL can test for a subset
    authority: Mapped[dict[str, Any]] = mapped_column(Json)  # roles and scopes at submission
    recipe: Mapped[str]
    params: Mapped[dict[str, Any]] = mapped_column(Json)
    queue: Mapped[str] = mapped_column(String(32))
    traceparent: Mapped[str | None] = mapped_column(String(64))

    status: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int]  # the fence: grows with every claim
    failures: Mapped[int]  # attempts that failed or lost their worker since the job was (re)queued by a person
    max_attempts: Mapped[int]
    owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    cancel_requested: Mapped[bool]
    progress: Mapped[float]
    message: Mapped[str] = mapped_column(Text)
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    last_seq: Mapped[int]

    created_at: Mapped[datetime]
    run_after: Mapped[datetime]
    republish_at: Mapped[datetime]
    publish_count: Mapped[int]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobEventRow(Base):
    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    at: Mapped[datetime]
    data: Mapped[dict[str, Any]] = mapped_column(Json)


class JobLeaderRow(Base):
    """Who may do what only one process should: one row per duty, held by renewal."""

    __tablename__ = "job_leaders"

    duty: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str]
    expires_at: Mapped[datetime]


@dataclass(frozen=True)
class Job:
    """A job as it stands."""

    id: str
    tenant: str
    subject: str
    clearance: Clearance
    recipe: str
    params: dict[str, Any]
    queue: str
    status: Status
    attempt: int
    failures: int
    max_attempts: int
    cancel_requested: bool
    progress: float
    message: str
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    last_seq: int
    created_at: datetime
    run_after: datetime
    started_at: datetime | None
    finished_at: datetime | None
    owner: str | None
    lease_expires_at: datetime | None
    traceparent: str | None
    principal: Principal = field(repr=False)  # who submitted it, with the authority of that moment
    replayed: bool = False  # this answer to a submission repeats an earlier one

    @property
    def done(self) -> bool:
        return self.status in TERMINAL


@dataclass(frozen=True)
class JobEvent:
    """One thing that happened to a job. ``seq`` has no gaps and never goes back, whatever the attempts do."""

    seq: int
    attempt: int
    kind: EventKind
    at: datetime
    data: dict[str, Any]


class NewEvent(NamedTuple):
    """An event that has no place in the sequence yet."""

    kind: EventKind
    data: dict[str, Any]


class JobHead(NamedTuple):
    """Where a job's sequence of events ends, and whether it will go on."""

    last_seq: int
    done: bool


def database_now(session: Session) -> datetime:
    """The server's clock on Postgres, which all workers share; this machine's on SQLite, which is on one machine."""
    if session.get_bind().dialect.name == "postgresql":
        return session.scalars(select(func.clock_timestamp(type_=UtcDateTime))).one()
    return datetime.now(UTC)


def change(session: Session, *where: ColumnElement[bool], **values: Any) -> JobRow | None:
    statement = update(JobRow).where(*where).values(**values).returning(JobRow)
    return session.scalars(
        statement, execution_options={"synchronize_session": False, "populate_existing": True}
    ).one_or_none()


def transition(
    session: Session, now: datetime, said: NewEvent | Sequence[NewEvent], *where: ColumnElement[bool], **values: Any
) -> JobRow | None:
    """One conditional UPDATE and the events that tell of it; None, and nothing written, if no row meets ``where``."""
    events = [said] if isinstance(said, NewEvent) else list(said)
    row = change(session, *where, last_seq=JobRow.last_seq + len(events), **values)
    if row is not None:
        append(session, row, now, events)
    return row


def append(session: Session, row: JobRow, now: datetime, events: Sequence[NewEvent]) -> None:
    """Write events that end at ``row.last_seq``: the caller's statement has reserved their places and holds the row."""
    values = [
        {"job_id": row.id, "seq": seq, "attempt": row.attempt, "kind": event.kind, "at": now, "data": event.data}
        for seq, event in enumerate(events, row.last_seq - len(events) + 1)
    ]
    if values:
        session.execute(insert(JobEventRow), values)


def job_of(row: JobRow) -> Job:
    return Job(
        id=row.id,
        tenant=row.tenant,
        subject=row.subject,
        clearance=Clearance(row.clearance),
        recipe=row.recipe,
        params=row.params,
        queue=row.queue,
        status=row.status,  # type: ignore[arg-type]  # the table's check constraint
        attempt=row.attempt,
        failures=row.failures,
        max_attempts=row.max_attempts,
        cancel_requested=row.cancel_requested,
        progress=row.progress,
        message=row.message,
        result=row.result,
        error=row.error,
        last_seq=row.last_seq,
        created_at=row.created_at,
        run_after=row.run_after,
        started_at=row.started_at,
        finished_at=row.finished_at,
        owner=row.owner,
        lease_expires_at=row.lease_expires_at,
        traceparent=row.traceparent,
        principal=Principal(
            subject=row.subject,
            roles=tuple(row.authority["roles"]),
            scopes=frozenset(row.authority["scopes"]),
            clearance=Clearance(row.clearance),
            compartments=frozenset(filter(None, row.compartments.split(","))),
            tenant=row.tenant,
        ),
    )
