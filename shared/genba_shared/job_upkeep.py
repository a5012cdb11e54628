"""What keeps the job table true when processes die: leases that ran out, messages that got lost, rows that grew old.

One process at a time does it (``lead``); doing it twice would be harmless, only wasteful. Knows no broker: it says
which jobs need a message and is told which were sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, case, delete, func, not_, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from genba_shared.db import Database
from genba_shared.job_rows import (
    LEASE_FREE,
    NO_LIMITS,
    TERMINAL,
    Job,
    JobEventRow,
    JobLeaderRow,
    JobRow,
    NewEvent,
    append,
    change,
    database_now,
    job_of,
)

_MOST_RUNNING = 200
_REPUBLISH_FIRST_S, _REPUBLISH_CAP_S = 10.0, 300.0
_WORKER_LOST: dict[str, Any] = {
    "type": "urn:genba:problem:worker-lost",
    "title": "The worker went silent.",
    "status": 500,
    "detail": "Its lease ran out: the process was killed, lost the database, or hung.",
}


class QueueFigures(NamedTuple):
    """What operators watch, per queue."""

    queue: str
    depth: int
    oldest_age_s: float
    running: int
    dead: int
    attempts: int


class RunningFigures(NamedTuple):
    """The job of a recipe that began last: how far it is, and the figures that it said last."""

    recipe: str
    progress: float
    values: dict[str, float]


class Upkeep:
    """The sweeper's view of the job table."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def lead(self, duty: str, *, owner: str, lease_s: float) -> bool:
        """Take or keep a duty. One process at a time holds it; who stops renewing loses it."""
        held = select(JobLeaderRow.duty).where(JobLeaderRow.duty == duty)
        try:
            with self.database.transaction() as session:
                now = database_now(session)
                until = now + timedelta(seconds=lease_s)
                taken = session.scalar(
                    update(JobLeaderRow)
                    .where(JobLeaderRow.duty == duty, or_(JobLeaderRow.owner == owner, JobLeaderRow.expires_at < now))
                    .values(owner=owner, expires_at=until)
                    .returning(JobLeaderRow.duty)
                )
                if taken is None and session.scalar(held) is None:
                    session.add(JobLeaderRow(duty=duty, owner=owner, expires_at=until))
                    return True
                return taken is not None
        except IntegrityError:
            return False  # another process made the row in the same moment

    def resign(self, duty: str, *, owner: str) -> None:
        """Let somebody else lead at once."""
        with self.database.transaction() as session:
            session.execute(delete(JobLeaderRow).where(JobLeaderRow.duty == duty, JobLeaderRow.owner == owner))

    def expire_leases(self) -> Sequence[Job]:
        """Running jobs whose worker went silent go back to the queue, end cancelled if asked to, or die."""
        with self.database.transaction() as session:
            now = database_now(session)
            silent = and_(JobRow.status == "running", JobRow.lease_expires_at < now)
            due = now  # no back-off: the job did nothing wrong, and its lease was waited for already
            swept: list[JobRow] = []
            for (job_id,) in session.execute(select(JobRow.id).where(silent)).all():
                outcome = case(
                    (JobRow.cancel_requested, "cancelled"),
                    (JobRow.failures + 1 >= JobRow.max_attempts, "dead"),
                    else_="queued",
                )
                row = change(
                    session, JobRow.id == job_id, silent,
                    status=outcome, failures=JobRow.failures + 1, last_seq=JobRow.last_seq + 1,
                    error=_WORKER_LOST, run_after=due, republish_at=due, publish_count=0,
                    finished_at=case((outcome == "queued", None), else_=now), **LEASE_FREE,
                )  # fmt: skip
                if row is not None:
                    said = NewEvent("status", {"status": row.status, "reason": "the worker went silent"})
                    append(session, row, now, [said])
                    swept.append(row)
            return [job_of(row) for row in swept]

    def unpublished(
        self, *, limit: int = 200, every: bool = False, limits: Mapping[str, int] = NO_LIMITS
    ) -> list[tuple[str, str]]:
        """(id, queue) of due jobs whose message is missing or overdue; ``every`` ignores when they were last sent.

        Of a recipe that may run ``limits`` times at once only as many are given as there is room for: more messages
        would only be taken by workers that may not claim.
        """
        with self.database.read() as session:
            now = database_now(session)
            due = and_(JobRow.status == "queued", JobRow.run_after <= now)
            missing = true() if every else JobRow.republish_at <= now
            query = select(JobRow.id, JobRow.queue).where(due, missing).order_by(JobRow.id)
            found = list(session.execute(query.where(JobRow.recipe.not_in(tuple(limits))).limit(limit)))
            limited = select(JobRow.recipe).where(due, missing, JobRow.recipe.in_(tuple(limits))).distinct()
            for recipe in sorted(session.scalars(limited)):
                is_taken = or_(JobRow.status == "running", and_(due, not_(missing)))
                taken = session.scalars(select(func.count()).where(JobRow.recipe == recipe, is_taken)).one()
                room = limits[recipe] - taken
                if room > 0:
                    found += session.execute(query.where(JobRow.recipe == recipe).limit(min(room, limit)))
            return [(row.id, row.queue) for row in found]

    def published(self, job_ids: Iterable[str]) -> None:
        """Note that messages went out, so that the next ones wait: 10 s, 20 s, … five minutes."""
        with self.database.transaction() as session:
            now = database_now(session)
            counts = session.execute(
                select(JobRow.id, JobRow.publish_count).where(JobRow.id.in_(tuple(job_ids)), JobRow.status == "queued")
            ).all()
            for count in sorted({row.publish_count for row in counts}):
                session.execute(
                    update(JobRow)
                    .where(JobRow.id.in_([row.id for row in counts if row.publish_count == count]))
                    .where(JobRow.status == "queued")
                    .values(publish_count=count + 1, republish_at=now + timedelta(seconds=_republish_after_s(count)))
                )

    def prune(self, *, older_than: timedelta, limit: int = 500) -> int:
        """Delete up to ``limit`` jobs (with their events) that ended longer ago than that; how many went."""
        with self.database.transaction() as session:
            cutoff = database_now(session) - older_than
            over = select(JobRow.id).where(JobRow.status.in_(sorted(TERMINAL)), JobRow.finished_at < cutoff)
            ids = session.scalars(over.order_by(JobRow.finished_at).limit(limit)).all()
            session.execute(delete(JobEventRow).where(JobEventRow.job_id.in_(ids)))
            session.execute(delete(JobRow).where(JobRow.id.in_(ids)))
            return len(ids)

    def figures(self) -> Sequence[QueueFigures]:
        """Depth, age, running, dead letters and attempts of each queue, from the table and not from events."""
        waiting, running = JobRow.status == "queued", JobRow.status == "running"
        with self.database.read() as session:
            now = database_now(session)
            due = and_(waiting, JobRow.run_after <= now)
            rows = session.execute(
                select(
                    JobRow.queue,
                    func.count(case((waiting, 1))).label("depth"),
                    func.min(case((due, JobRow.run_after))).label("oldest"),
                    func.count(case((running, 1))).label("running"),
                    func.count(case((JobRow.status == "dead", 1))).label("dead"),
                    func.coalesce(func.sum(JobRow.attempt), 0).label("attempts"),
                ).group_by(JobRow.queue)
            ).all()
        return [
            QueueFigures(
                row.queue,
                row.depth,
                0.0 if row.oldest is None else max((now - row.oldest).total_seconds(), 0.0),
                row.running,
                row.dead,
                int(row.attempts),
            )
            for row in rows
        ]

    def running(self) -> Sequence[RunningFigures]:
        """What runs, one for each recipe."""
        with self.database.read() as session:
            rows = session.execute(
                select(JobRow.id, JobRow.recipe, JobRow.progress)
                .where(JobRow.status == "running")
                .order_by(JobRow.started_at.desc(), JobRow.id)
                .limit(_MOST_RUNNING)
            ).all()
            newest = {row.recipe: row for row in reversed(rows)}
            found = []
            for recipe, row in sorted(newest.items()):
                said = session.scalar(
                    select(JobEventRow.data)
                    .where(JobEventRow.job_id == row.id, JobEventRow.kind == "metrics")
                    .order_by(JobEventRow.seq.desc())
                    .limit(1)
                )
                values = {name: value for name, value in (said or {}).get("values", {}).items() if value is not None}
                found.append(RunningFigures(recipe, row.progress, values))
        return found


def _republish_after_s(publish_count: int) -> float:
    return float(min(_REPUBLISH_CAP_S, _REPUBLISH_FIRST_S * 2.0 ** min(publish_count, 16)))
