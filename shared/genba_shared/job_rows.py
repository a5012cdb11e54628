"""The job table: its rows, the values read from them, and the one way a row changes. Decides nothing; see jobs.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    String,
    Text,
    and_,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from genba_shared.db import Json, Record, UtcDateTime
from genba_shared.ids import new_id
from genba_shared.principal import Clearance, Principal

Status = Literal["queued", "running", "succeeded", "failed", "cancelled", "dead"]
EventKind = Literal["status", "progress", "metrics", "line"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "dead"})
LEASE_FREE: dict[str, Any] = {"owner": None, "lease_expires_at": None}
NO_LIMITS: Mapping[str, int] = MappingProxyType({})  # how many jobs of a recipe may run at a time


class Owned:
    """Whose a row is, with the authority of the moment in which it was made, and who may see it."""

    tenant: Mapped[str]
    subject: Mapped[str]
    clearance: Mapped[int]
    compartments: Mapped[str] = mapped_column(Text)  # ",a,b,": so that SQL can test for a subset
    authority: Mapped[dict[str, Any]] = mapped_column(Json)  # roles and scopes

    @property
    def principal(self) -> Principal:
        return Principal(
            subject=self.subject,
            roles=tuple(self.authority["roles"]),
            scopes=frozenset(self.authority["scopes"]),
            clearance=Clearance(self.clearance),
            compartments=frozenset(filter(None, self.compartments.split(","))),
            tenant=self.tenant,
        )

    @staticmethod
    def columns(
        principal: Principal, *, clearance: Clearance | None = None, compartments: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """The values of these columns; the label defaults to the principal's own."""
        labels = principal.compartments if compartments is None else compartments
        return {
            "tenant": principal.tenant,
            "subject": principal.subject,
            "clearance": int(principal.clearance if clearance is None else clearance),
            "compartments": "".join(f",{name}" for name in sorted(labels)) + ",",
            "authority": {"roles": list(principal.roles), "scopes": sorted(principal.scopes)},
        }


def visible(rows: type[Owned], principal: Principal) -> ColumnElement[bool]:
    """Own rows, or the tenant's for who may administer jobs; never above the caller's clearance and compartments.

    Compartments are text like ",a,b,": taking out what the caller holds must leave nothing but the comma.
    """
    left: ColumnElement[str] = rows.compartments.expression
    for name in sorted(principal.compartments):
        left = func.replace(left, f",{name},", ",")
    return and_(
        rows.tenant == principal.tenant,
        rows.clearance <= int(principal.clearance),
        left == ",",
        *(() if principal.allows("jobs:admin") else (rows.subject == principal.subject,)),
    )


class JobRow(Owned, Record):
    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'dead')", name="status"),
        Index("ix_jobs_status_republish_at", "status", "republish_at"),
        Index("ix_jobs_status_lease_expires_at", "status", "lease_expires_at"),
        Index("ix_jobs_tenant_id", "tenant", "id"),
        Index("ix_jobs_schedule_id_due_at", "schedule_id", "due_at", unique=True),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    recipe: Mapped[str]
    params: Mapped[dict[str, Any]] = mapped_column(Json)
    queue: Mapped[str] = mapped_column(String(32))
    traceparent: Mapped[str | None] = mapped_column(String(64))
    schedule_id: Mapped[str | None] = mapped_column(String(40))  # which schedule made it, and for which moment:
    due_at: Mapped[datetime | None]  # at most one job for each

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


class JobEventRow(Record):
    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    at: Mapped[datetime]
    data: Mapped[dict[str, Any]] = mapped_column(Json)


class JobLeaderRow(Record):
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
    schedule_id: str | None
    due_at: datetime | None
    principal: Principal = field(repr=False)  # who submitted it, with the authority of that moment
    replayed: bool = False  # this answer to a submission repeats an earlier one

    @property
    def done(self) -> bool:
        return self.status in TERMINAL


@dataclass(frozen=True)
class NewJob:
    """What is to be put into the table; its label defaults to its owner's own clearance and compartments."""

    recipe: str
    params: Mapping[str, Any]
    principal: Principal
    queue: str = "cpu"
    max_attempts: int = 4
    clearance: Clearance | None = None
    compartments: Iterable[str] | None = None
    run_after: datetime | None = None
    traceparent: str | None = None
    schedule_id: str | None = None
    due_at: datetime | None = None


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


def put(session: Session, new: NewJob, now: datetime, *, sweeper_waits: timedelta = timedelta()) -> Job:
    """Insert a queued job with its first event. The sweeper sends its message unless that happens before it looks."""
    due = new.run_after or now
    row = JobRow(
        id=new_id("job"),
        **Owned.columns(new.principal, clearance=new.clearance, compartments=new.compartments),
        recipe=new.recipe,
        params=dict(new.params),
        queue=new.queue,
        traceparent=new.traceparent,
        schedule_id=new.schedule_id,
        due_at=new.due_at,
        status="queued",
        attempt=0,
        failures=0,
        max_attempts=new.max_attempts,
        cancel_requested=False,
        progress=0.0,
        message="",
        last_seq=1,
        created_at=now,
        run_after=due,
        republish_at=due if new.run_after else due + sweeper_waits,
        publish_count=0,
    )
    session.add(row)
    session.flush()
    append(session, row, now, [NewEvent("status", {"status": "queued"})])
    return job_of(row)


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
        schedule_id=row.schedule_id,
        due_at=row.due_at,
        principal=row.principal,
    )
