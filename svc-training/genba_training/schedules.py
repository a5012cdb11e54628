"""Schedules: jobs that come due by the clock. The table, who may change it, and the one step that turns a due time into a job.

    next_run_at ≤ now ──fire──► one job, next_run_at moves past now

A due time is fired in one transaction that moves the schedule on and inserts the job, so a crash leaves both or
neither, and two processes that fire at once make one job; the database holds (schedule, due time) unique besides.
Due times that were missed come to one job. The job runs with the authority that the schedule's maker had when making it,
while a key of theirs still works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import CheckConstraint, Index, String, case, func, select
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm import Mapped, Session, mapped_column

from genba_shared.db import Database, Json, Record
from genba_shared.ids import new_id
from genba_shared.job_rows import TERMINAL, JobRow, NewJob, Owned, database_now, put, visible
from genba_shared.jobs import check_quota
from genba_shared.keyholders import has_a_good_key
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import AlreadyExists, Internal, NotFound, Problem, Unauthorized, Unavailable
from genba_shared.telemetry import get_logger
from genba_training.cron import MAX_CHARS, Cron
from genba_training.recipes import Recipes

Overlap = Literal["skip", "allow"]
MAX_NAME_CHARS = 100

log = get_logger(__name__)


class ScheduleRow(Owned, Record):
    __tablename__ = "job_schedules"
    __table_args__ = (
        CheckConstraint("overlap IN ('skip', 'allow')", name="overlap"),
        Index("ix_job_schedules_tenant_subject_name", "tenant", "subject", "name", unique=True),
        Index("ix_job_schedules_enabled_next_run_at", "enabled", "next_run_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(MAX_NAME_CHARS))
    recipe: Mapped[str]
    params: Mapped[dict[str, Any]] = mapped_column(Json)
    cron: Mapped[str] = mapped_column(String(MAX_CHARS))
    time_zone: Mapped[str] = mapped_column(String(64))
    overlap: Mapped[str] = mapped_column(String(8))
    enabled: Mapped[bool]
    next_run_at: Mapped[datetime | None]  # NULL: switched off
    last_run_at: Mapped[datetime | None]  # the due time, not the moment in which it was noticed
    last_job_id: Mapped[str | None] = mapped_column(String(40))
    last_error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


@dataclass(frozen=True)
class NewSchedule:
    """What to run and when. ``overlap`` says what to do while the job of the due time before is not over."""

    name: str
    recipe: str
    params: Mapping[str, Any]
    when: Cron
    overlap: Overlap = "skip"
    enabled: bool = True
    clearance: Clearance | None = None


@dataclass(frozen=True)
class Changes:
    """What to change of a schedule; None leaves it."""

    name: str | None = None
    params: Mapping[str, Any] | None = None
    cron: str | None = None
    time_zone: str | None = None
    overlap: Overlap | None = None
    enabled: bool | None = None


@dataclass(frozen=True)
class Schedule:
    """A schedule as it stands."""

    id: str
    name: str
    recipe: str
    params: dict[str, Any]
    when: Cron
    overlap: Overlap
    enabled: bool
    next_run_at: datetime | None
    last_run_at: datetime | None
    last_job_id: str | None
    last_error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    principal: Principal = field(repr=False)


class ScheduleFigures(NamedTuple):
    """What operators watch: how many there are, how many failed to make their last job, how late the latest is."""

    enabled: int = 0
    disabled: int = 0
    failing: int = 0
    overdue_s: float = 0.0


class Schedules:
    """The schedules of one database. Whoever calls has checked recipe, params and rhythm."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(self, new: NewSchedule, *, principal: Principal) -> Schedule:
        """Raises: AlreadyExists for a name that its maker uses already."""
        try:
            with self.database.transaction() as session:
                return add(session, new, principal=principal)
        except IntegrityError as error:
            raise name_taken(new.name) from error

    def get(self, schedule_id: str, *, principal: Principal) -> Schedule:
        """Raises: NotFound, also for a schedule that this principal may not see."""
        with self.database.read() as session:
            return _schedule_of(_seen(session, schedule_id, principal))

    def list(self, *, principal: Principal, before: str | None = None, limit: int = 50) -> Sequence[Schedule]:
        """The newest schedules that this principal may see, newest first; ``before`` is the last id of the page before."""
        query = select(ScheduleRow).where(visible(ScheduleRow, principal)).order_by(ScheduleRow.id.desc()).limit(limit)
        if before is not None:
            query = query.where(ScheduleRow.id < before)
        with self.database.read() as session:
            return [_schedule_of(row) for row in session.scalars(query)]

    def change(self, schedule_id: str, changes: Changes, *, principal: Principal) -> Schedule:
        """Change what is given. The next due time is found anew, and never lies before one that was fired.

        Raises: NotFound; AlreadyExists; Invalid for a rhythm that cannot be.
        """
        try:
            with self.database.transaction() as session:
                row, now = _seen(session, schedule_id, principal, lock=True), database_now(session)
                for name in ("name", "cron", "time_zone", "overlap", "enabled"):
                    if (value := getattr(changes, name)) is not None:
                        setattr(row, name, value)
                if changes.params is not None:
                    row.params = dict(changes.params)
                when = Cron(row.cron, row.time_zone)
                when.check(now)
                moved = changes.cron is not None or changes.time_zone is not None
                if not row.enabled:
                    row.next_run_at = None
                elif moved or row.next_run_at is None:
                    row.next_run_at = when.after(max(now, row.last_run_at or now))
                row.last_error, row.updated_at = None, now
                return _schedule_of(row)
        except IntegrityError as error:
            raise name_taken(changes.name or "") from error

    def delete(self, schedule_id: str, *, principal: Principal) -> None:
        """Its jobs stay. Raises: NotFound."""
        with self.database.transaction() as session:
            session.delete(_seen(session, schedule_id, principal, lock=True))

    def fire_due(self, recipes: Recipes, *, max_active: int | None, limit: int = 100) -> int:
        """Make the jobs of all due times; how many were made.

        Each schedule is a transaction of its own, and one that breaks keeps nothing else from being made: its row says
        so and waits for its next due time. What a database that is away breaks stays due.
        """
        with self.database.read() as session:
            now = database_now(session)
            due = select(ScheduleRow.id).where(ScheduleRow.enabled, ScheduleRow.next_run_at <= now)
            ids = session.scalars(due.order_by(ScheduleRow.next_run_at).limit(limit)).all()
        made = 0
        for schedule_id in ids:
            try:
                made += self._fire(schedule_id, recipes, max_active)
            except (Unavailable, OperationalError, InterfaceError, OSError) as error:
                log.warning("schedule_put_off", schedule=schedule_id, error=type(error).__name__)
            except Exception as error:
                log.exception("schedule_broken", schedule=schedule_id)
                self._pass_over(schedule_id, error)
        return made

    def figures(self) -> ScheduleFigures:
        """For metrics, read when somebody scrapes."""
        with self.database.read() as session:
            now = database_now(session)
            row = session.execute(
                select(
                    func.count(case((ScheduleRow.enabled, 1))),
                    func.count(case((~ScheduleRow.enabled, 1))),
                    func.count(case((ScheduleRow.last_error.is_not(None), 1))),
                    func.min(case((ScheduleRow.enabled, ScheduleRow.next_run_at))),
                )
            ).one()
        overdue_s = 0.0 if row[3] is None else max((now - row[3]).total_seconds(), 0.0)
        return ScheduleFigures(row[0], row[1], row[2], overdue_s)

    def _fire(self, schedule_id: str, recipes: Recipes, max_active: int | None) -> bool:
        """Whether a job was made: a due time that is refused or skipped is over too, and the row says why."""
        with self.database.transaction() as session:
            locked = select(ScheduleRow).where(ScheduleRow.id == schedule_id).with_for_update()
            row, now = session.scalars(locked).one_or_none(), database_now(session)
            if row is None or not row.enabled or row.next_run_at is None or row.next_run_at > now:
                return False  # another process was quicker, or somebody changed it
            due_at, row.last_error = row.next_run_at, None
            row.last_run_at, row.next_run_at = due_at, _next(row, now)
            if row.overlap == "skip" and _is_under_way(session, row.last_job_id):
                log.info("schedule_skipped", schedule=row.id, job=row.last_job_id)
                return False
            try:
                _check_keys(session, row, now)
                row.last_job_id = put(session, _job(session, row, due_at, recipes, max_active), now).id
            except Problem as problem:
                row.last_error = problem.document()
                log.warning("schedule_failed", schedule=row.id, recipe=row.recipe, problem=problem.code)
                return False
            log.info("schedule_fired", schedule=row.id, job=row.last_job_id, late_s=(now - due_at).total_seconds())
            return True

    def _pass_over(self, schedule_id: str, error: Exception) -> None:
        """Say on the row why its due time made no job, and go on to the next one: the log has the rest."""
        said = Internal(f"The job could not be made: {type(error).__name__}. The log of svc-training says more.")
        try:
            with self.database.transaction() as session:
                locked = select(ScheduleRow).where(ScheduleRow.id == schedule_id).with_for_update()
                row, now = session.scalars(locked).one_or_none(), database_now(session)
                if row is not None and row.next_run_at is not None and row.next_run_at <= now:
                    row.last_error = said.document()
                    row.last_run_at, row.next_run_at = row.next_run_at, _next(row, now)
        except Exception:
            log.exception("schedule_still_due", schedule=schedule_id)


def add(session: Session, new: NewSchedule, *, principal: Principal) -> Schedule:
    """Insert a schedule; for a caller that has a transaction. Raises: Invalid; IntegrityError for a name in use."""
    now = database_now(session)
    new.when.check(now)
    row = ScheduleRow(
        id=new_id("sch"),
        **Owned.columns(principal, clearance=new.clearance),
        name=new.name,
        recipe=new.recipe,
        params=dict(new.params),
        cron=new.when.expression,
        time_zone=new.when.time_zone,
        overlap=new.overlap,
        enabled=new.enabled,
        next_run_at=new.when.after(now) if new.enabled else None,
        last_run_at=None,
        last_job_id=None,
        last_error=None,
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    session.flush()
    return _schedule_of(row)


def name_taken(name: str) -> AlreadyExists:
    return AlreadyExists(f"You have a schedule {name!r} already: change that one, or choose another name.")


def _check_keys(session: Session, row: ScheduleRow, now: datetime) -> None:
    """Raises: Unauthorized where the maker's keys have all been revoked or run out: with them goes what they left behind."""
    if not has_a_good_key(session, row.subject, now):
        raise Unauthorized(
            "The key that made this schedule was revoked or has expired, and has no successor: make the schedule anew"
            " with a key that works, and delete this one."
        )


def _job(session: Session, row: ScheduleRow, due_at: datetime, recipes: Recipes, max_active: int | None) -> NewJob:
    """What a due time puts into the queue. Raises: Problem if it would be refused from the maker's own hands too."""
    recipe, params = recipes.accept(row.recipe, row.params, principal=row.principal)
    if max_active is not None:
        check_quota(session, row.principal, max_active)
    return NewJob(
        recipe.name,
        params,
        row.principal,
        queue=recipe.queue,
        max_attempts=recipe.max_attempts,
        schedule_id=row.id,
        due_at=due_at,
    )


def _next(row: ScheduleRow, now: datetime) -> datetime | None:
    """The due time after now: those that were missed on the way are not made up for."""
    try:
        return Cron(row.cron, row.time_zone).after(now)
    except (ValueError, KeyError) as error:  # the machine's time zones have changed
        log.warning("schedule_stopped", schedule=row.id, error=str(error))
        return None


def _is_under_way(session: Session, job_id: str | None) -> bool:
    status = session.scalar(select(JobRow.status).where(JobRow.id == job_id)) if job_id else None
    return status is not None and status not in TERMINAL


def _seen(session: Session, schedule_id: str, principal: Principal, *, lock: bool = False) -> ScheduleRow:
    query = select(ScheduleRow).where(ScheduleRow.id == schedule_id, visible(ScheduleRow, principal))
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"There is no schedule {schedule_id}.")
    return row


def _schedule_of(row: ScheduleRow) -> Schedule:
    return Schedule(
        id=row.id,
        name=row.name,
        recipe=row.recipe,
        params=row.params,
        when=Cron(row.cron, row.time_zone),
        overlap=row.overlap,  # type: ignore[arg-type]  # the table's check constraint
        enabled=row.enabled,
        next_run_at=row.next_run_at,
        last_run_at=row.last_run_at,
        last_job_id=row.last_job_id,
        last_error=row.last_error,
        created_at=row.created_at,
        updated_at=row.updated_at,
        principal=row.principal,
    )
