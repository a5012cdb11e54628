"""The job table and its transitions: the truth about all long work. A message on the broker is only a hint.

    queued ──claim──► running ──finish──► succeeded
      ▲  │               │ ├───fail, as asked───► failed          (a Problem: retrying cannot help)
      │  │               │ ├───fail, last try───► dead            (dead letter)
      │  └──cancel──┐    │ ├───cancelled────────► cancelled
      │             └────┼─┼────────────────────► cancelled
      └──fail, retry · release · lease ran out ──┘                requeue: failed, dead, cancelled → queued

Every transition is one transaction whose first statement is one conditional UPDATE: who loses the race changes nothing.
``attempt`` only grows and fences: a heartbeat or a finish that names another attempt finds no row. Times are the
database's on Postgres and this machine's on SQLite. Knows no broker, no recipe's code and no HTTP.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import JsonValue
from sqlalchemy import ColumnElement, and_, case, func, or_, select, true
from sqlalchemy.orm import Session, aliased

from genba_shared import idempotency
from genba_shared.db import Database, take_turns
from genba_shared.idempotency import Answer, Submission
from genba_shared.job_rows import (
    LEASE_FREE,
    NO_LIMITS,
    TERMINAL,
    EventKind,
    Job,
    JobEvent,
    JobEventRow,
    JobHead,
    JobRow,
    NewEvent,
    NewJob,
    Status,
    append,
    change,
    database_now,
    job_of,
    put,
    transition,
    visible,
)
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import ClearanceTooLow, Conflict, Gone, NotFound, TooManyRequests

__all__ = [
    "TERMINAL",
    "EventKind",
    "Job",
    "JobEvent",
    "JobHead",
    "Jobs",
    "NewEvent",
    "Status",
    "backoff_s",
    "check_quota",
    "process_name",
]

_BACKOFF_BASE_S, _BACKOFF_CAP_S = 2.0, 300.0
_SWEEPER_WAITS_S = 10.0  # how long a wake-up that was sent right after the commit is given
_QUOTA_RETRY_S = 10


def backoff_s(failures: int) -> float:
    """How long to wait before the next try: exponential, full jitter (Brooker 2015), capped at five minutes."""
    return random.uniform(0.0, min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2.0 ** min(failures, 32)))  # noqa: S311


def process_name() -> str:
    """Names this process in leases; unique even when a process id comes again."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class Jobs:
    """The job table. Cheap to make; holds nothing but the database and, if given, how to wake a worker."""

    def __init__(self, database: Database, *, wake: Callable[[str, str], object] | None = None) -> None:
        """``wake(job_id, queue)`` is called after a commit and may fail; without one the sweeper's next round does it."""
        self.database = database
        self._wake = wake or (lambda _job_id, _queue: None)
        self._sweeper_waits = timedelta(seconds=0.0 if wake is None else _SWEEPER_WAITS_S)

    # ---- the submitter's side ----

    def submit(
        self,
        recipe: str,
        params: Mapping[str, Any],
        *,
        principal: Principal,
        idempotency_key: str | None,
        queue: str = "cpu",
        max_attempts: int = 4,
        clearance: Clearance | None = None,
        compartments: Iterable[str] | None = None,
        run_after: datetime | None = None,
        traceparent: str | None = None,
        max_active: int | None = None,
    ) -> Job:
        """Put a job into the table; the same key with the same payload gives the job that is there already.

        Labels default to the submitter's own clearance and compartments. ``max_active`` bounds the submitter's jobs
        that are not done. The key holds for 24 hours, per tenant and subject.

        Raises: IdempotencyKeyReused; TooManyRequests; ClearanceTooLow for a label above the submitter's own.
        """
        labels = frozenset(principal.compartments if compartments is None else compartments)
        label = principal.clearance if clearance is None else clearance
        if not principal.may_see(label, labels):
            raise ClearanceTooLow("A job cannot be labelled above its submitter.", clearance=label.label)
        names: list[JsonValue] = [*sorted(labels)]
        payload: JsonValue = {"params": dict(params), "clearance": label.label, "compartments": names}
        with self.database.transaction() as session:
            key = idempotency_key and Submission.of(
                idempotency_key, principal=principal, operation=f"submit {recipe}", payload=payload
            )
            claim = idempotency.begin(session, key) if key else None
            if claim and claim.answer:
                return _replayed(session, claim.answer)
            if max_active is not None:
                check_quota(session, principal, max_active)
            new = NewJob(
                recipe,
                params,
                principal,
                queue=queue,
                max_attempts=max_attempts,
                clearance=label,
                compartments=labels,
                run_after=run_after,
                traceparent=traceparent,
            )
            job = put(session, new, database_now(session), sweeper_waits=self._sweeper_waits)
            if claim:
                claim.finish(session, Answer(202, {"job_id": job.id}))
        if run_after is None:
            self._wake(job.id, job.queue)
        return job

    def get(self, job_id: str, *, principal: Principal) -> Job:
        """Raises: NotFound, also for a job that this principal may not see."""
        with self.database.read() as session:
            row = session.scalar(select(JobRow).where(JobRow.id == job_id, visible(JobRow, principal)))
            if row is None:
                raise NotFound(f"There is no job {job_id}.")
            return job_of(row)

    def list(
        self,
        *,
        principal: Principal,
        status: Status | None = None,
        recipe: str | None = None,
        queue: str | None = None,
        schedule_id: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[Job]:
        """The newest jobs that this principal may see, newest first; ``before`` is the last id of the page before."""
        query = select(JobRow).where(visible(JobRow, principal)).order_by(JobRow.id.desc()).limit(limit)
        asked = {"status": status, "recipe": recipe, "queue": queue, "schedule_id": schedule_id}
        for column, value in asked.items():
            if value is not None:
                query = query.where(getattr(JobRow, column) == value)
        if before is not None:
            query = query.where(JobRow.id < before)
        with self.database.read() as session:
            return [job_of(row) for row in session.scalars(query)]

    def events(self, job_id: str, *, after: int = 0, limit: int = 500) -> tuple[Job | None, Sequence[JobEvent]]:
        """The job as it stands and its events after ``after``. Whoever calls has checked that the job may be seen.

        The job is read first: when it is done, its ``last_seq`` is the last event there will be.
        """
        query = select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.seq > after)
        with self.database.read() as session:
            row = session.get(JobRow, job_id)
            job = None if row is None else job_of(row)
            rows = session.scalars(query.order_by(JobEventRow.seq).limit(limit))
            return job, [JobEvent(r.seq, r.attempt, r.kind, r.at, r.data) for r in rows]  # type: ignore[arg-type]

    def heads(self, job_ids: Sequence[str]) -> dict[str, JobHead]:
        """Where the sequences of these jobs end: one cheap look for everybody who follows one."""
        query = select(JobRow.id, JobRow.last_seq, JobRow.status).where(JobRow.id.in_(job_ids))
        with self.database.read() as session:
            return {row.id: JobHead(row.last_seq, row.status in TERMINAL) for row in session.execute(query)}

    def cancel(self, job_id: str, *, principal: Principal) -> Job:
        """A queued job is cancelled at once; a running one is asked to stop and cannot publish any more.

        Raises: NotFound; Conflict for a job that is over (cancelling a cancelled one is no conflict).
        """
        with self.database.transaction() as session:
            now = database_now(session)
            mine = (JobRow.id == job_id, visible(JobRow, principal))
            row = transition(
                session, now, NewEvent("status", {"status": "cancelled"}), *mine, JobRow.status == "queued",
                status="cancelled", finished_at=now,
            ) or transition(
                session, now, NewEvent("status", {"status": "running", "cancel_requested": True}),
                *mine, JobRow.status == "running", ~JobRow.cancel_requested, cancel_requested=True,
            )  # fmt: skip
            job = None if row is None else job_of(row)
        if job is None:
            job = self.get(job_id, principal=principal)
            if job.status not in {"cancelled", "running"}:
                raise Conflict(f"The job is over: {job.status}.", status_of_job=job.status)
        elif job.status == "cancelled" and job.attempt > 0:
            self._wake(job.id, job.queue)  # some worker may hold its checkpoint: a hint to delete it
        return job

    def requeue(self, job_id: str, *, principal: Principal) -> Job:
        """Give a dead, failed or cancelled job a fresh set of attempts; it resumes from its checkpoint if one is left.

        Raises: NotFound; Conflict for a job that is waiting, running or has succeeded.
        """
        with self.database.transaction() as session:
            now = database_now(session)
            row = transition(
                session, now, NewEvent("status", {"status": "queued", "reason": "requeued"}),
                JobRow.id == job_id, visible(JobRow, principal), JobRow.status.in_(("dead", "failed", "cancelled")),
                status="queued", failures=0, cancel_requested=False, error=None, result=None, finished_at=None,
                progress=0.0, message="", run_after=now, republish_at=now + self._sweeper_waits, publish_count=0,
            )  # fmt: skip
            job = None if row is None else job_of(row)
        if job is None:
            job = self.get(job_id, principal=principal)
            raise Conflict(f"Only a dead, failed or cancelled job can be requeued; this one is {job.status}.")
        self._wake(job.id, job.queue)
        return job

    # ---- the worker's side ----

    def peek(self, job_id: str) -> Job | None:
        """The job, whoever asks: for workers, which act for the platform."""
        with self.database.read() as session:
            row = session.get(JobRow, job_id)
            return None if row is None else job_of(row)

    def claim(self, job_id: str, *, owner: str, lease_s: float, limits: Mapping[str, int] = NO_LIMITS) -> Job | None:
        """Take the job, or get None because somebody else has it, it is not due, or it is over.

        A running job whose lease ran out can be taken too: that counts as a failure of the attempt before.
        ``limits`` says of which recipes only so many jobs may run at a time; a job above waits on, and the sweeper
        sends its message when there is room.
        """
        with self.database.transaction() as session:
            room, limited = _room(session, job_id, limits)
            now = database_now(session)
            abandoned = and_(JobRow.status == "running", JobRow.lease_expires_at < now)
            row = transition(
                session, now, NewEvent("status", {"status": "running"}),
                JobRow.id == job_id, ~JobRow.cancel_requested, room,
                or_(
                    and_(JobRow.status == "queued", JobRow.run_after <= now),
                    and_(abandoned, JobRow.failures + 1 < JobRow.max_attempts),
                ),
                status="running", owner=owner, lease_expires_at=now + timedelta(seconds=lease_s),
                attempt=JobRow.attempt + 1,
                failures=case((JobRow.status == "running", JobRow.failures + 1), else_=JobRow.failures),
                started_at=func.coalesce(JobRow.started_at, now),
            )  # fmt: skip
            if row is None and limited:
                waiting = (JobRow.id == job_id, JobRow.status == "queued", JobRow.run_after <= now)
                change(session, *waiting, republish_at=now, publish_count=0)
            return None if row is None else job_of(row)

    def heartbeat(
        self, claim: Job, events: Sequence[NewEvent] = (), *, lease_s: float
    ) -> Literal["go_on", "cancel", "fenced"]:
        """Extend the lease, carry events out (the last progress becomes the row's), bring back what to do."""
        with self.database.transaction() as session:
            now = database_now(session)
            values: dict[str, Any] = {"lease_expires_at": now + timedelta(seconds=lease_s)}
            for event in events:
                if event.kind == "progress":
                    values |= {"progress": event.data["fraction"], "message": event.data["message"]}
            row = change(session, *_owned(claim), last_seq=JobRow.last_seq + len(events), **values)
            if row is None:
                return "fenced"
            append(session, row, now, events)
            return "cancel" if row.cancel_requested else "go_on"

    def finish(
        self,
        claim: Job,
        result: Mapping[str, Any],
        *,
        events: Sequence[NewEvent] = (),
        publish: Callable[[Session], Mapping[str, Any] | None] | None = None,
    ) -> bool:
        """Mark the job succeeded and make its effects visible, in one transaction. False: fenced off, or cancelled.

        What ``publish`` returns joins the result: what only this transaction could know.
        """
        with self.database.transaction() as session:
            now = database_now(session)
            row = transition(
                session, now, [*events, NewEvent("status", {"status": "succeeded"})],
                *_owned(claim), ~JobRow.cancel_requested,
                status="succeeded", result=dict(result), error=None, progress=1.0, finished_at=now, **LEASE_FREE,
            )  # fmt: skip
            if row is None:
                return False
            if publish is not None and (more := publish(session)):
                row.result = {**result, **more}
            return True

    def fail(
        self, claim: Job, error: Mapping[str, Any], *, retry: bool, events: Sequence[NewEvent] = ()
    ) -> Status | None:
        """The attempt failed: back to the queue with back-off, or ``failed`` (no retry), or ``dead`` (no tries left).

        None: fenced off.
        """
        failures = claim.failures + 1
        status: Status = "failed" if not retry else "dead" if failures >= claim.max_attempts else "queued"
        with self.database.transaction() as session:
            now = database_now(session)
            due = now + timedelta(seconds=backoff_s(failures) if status == "queued" else 0.0)
            said: dict[str, Any] = {"error": dict(error)}
            if status == "queued":
                said["run_after"] = due.isoformat()
            return _leave(session, claim, status, now, events, said, due=due, failures=failures, error=dict(error))

    def stop(
        self, claim: Job, status: Literal["cancelled", "queued"], *, events: Sequence[NewEvent] = ()
    ) -> Status | None:
        """The attempt stopped without fault: it was cancelled, or its worker drains and gives the job back.

        None: fenced off.
        """
        with self.database.transaction() as session:
            now = database_now(session)
            return _leave(session, claim, status, now, events, {}, due=now)


def _leave(
    session: Session,
    claim: Job,
    status: Status,
    now: datetime,
    events: Sequence[NewEvent],
    said: Mapping[str, Any],
    *,
    due: datetime,
    **values: Any,
) -> Status | None:
    """The attempt gives up the row, in one statement; what became of the job, None if the row was not its own any more.

    A job that somebody asked to cancel does not go back to the queue: nobody could claim it there.
    """
    ends: ColumnElement[Any] = case((JobRow.cancel_requested, now), else_=None)
    row = change(
        session, *_owned(claim), last_seq=JobRow.last_seq + len(events) + 1,
        status=case((JobRow.cancel_requested, "cancelled"), else_=status) if status == "queued" else status,
        finished_at=ends if status == "queued" else now,
        run_after=due, republish_at=due, publish_count=0, **values, **LEASE_FREE,
    )  # fmt: skip
    if row is None:
        return None
    what = {"status": row.status, **said} if row.status == status else {"status": row.status}
    append(session, row, now, [*events, NewEvent("status", what)])
    return row.status  # type: ignore[return-value]  # the table's check constraint


def _room(session: Session, job_id: str, limits: Mapping[str, int]) -> tuple[ColumnElement[bool], bool]:
    """The condition that the job's recipe may run once more, and whether there is one.

    Claims of a limited recipe take turns: two that count at the same moment would both find the last place free.
    """
    recipe = session.scalar(select(JobRow.recipe).where(JobRow.id == job_id)) if limits else None
    if recipe is None or recipe not in limits:
        return true(), False
    take_turns(session, f"claims of {recipe}")
    other = aliased(JobRow)
    others = select(func.count()).where(other.recipe == recipe, other.status == "running", other.id != job_id)
    return others.scalar_subquery() < limits[recipe], True


def _owned(claim: Job) -> tuple[ColumnElement[bool], ...]:
    return (
        JobRow.id == claim.id,
        JobRow.status == "running",
        JobRow.owner == claim.owner,
        JobRow.attempt == claim.attempt,
    )


def check_quota(session: Session, principal: Principal, max_active: int) -> None:
    """Raises: TooManyRequests. Submitters take turns, so that two at the same moment cannot both take the last place."""
    take_turns(session, f"jobs of {principal.tenant} {principal.subject}")
    active = session.scalar(
        select(func.count()).select_from(JobRow).where(
            JobRow.tenant == principal.tenant,
            JobRow.subject == principal.subject,
            JobRow.status.in_(("queued", "running")),
        )
    )  # fmt: skip
    if active is not None and active >= max_active:
        raise TooManyRequests(
            f"{active} of your jobs are waiting or running and {max_active} may: wait for one, or cancel one.",
            active=active,
            max_active=max_active,
            retry_after_s=_QUOTA_RETRY_S,
        )


def _replayed(session: Session, answer: Answer) -> Job:
    job_id = answer.body["job_id"] if isinstance(answer.body, dict) else None
    row = session.get(JobRow, job_id)
    if row is None:
        raise Gone(f"This Idempotency-Key stands for the job {job_id}, which has been deleted. Use a new key.")
    return replace(job_of(row), replayed=True)
