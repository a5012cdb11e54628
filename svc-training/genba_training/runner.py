"""Run one job for one message: claim it, give its recipe what it needs, and settle the row, exactly once.

Everything that an attempt writes lies in its own folder until the transaction that also marks the job succeeded; an
attempt that lost its lease writes nothing that anybody reads. Knows no broker and no domain.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import structlog
from pydantic import JsonValue

from genba_shared.artifacts import Artifacts
from genba_shared.jobs import Job, Jobs, Status
from genba_shared.problems import Problem
from genba_shared.recipe import (
    Cancelled,
    Checkpoint,
    Drained,
    LeaseLost,
    Recipe,
    Reporter,
    Result,
    Run,
    Stopped,
    TimedOut,
    seed_of,
)
from genba_shared.registry import Registry
from genba_shared.telemetry import TraceContext, get_logger
from genba_shared.tracing import Spans
from genba_training.attempt import Heartbeat, NoWatchdog, Watchdog, json_safe
from genba_training.publishing import Publishing
from genba_training.recipes import Recipes, validate
from genba_training.settings import Settings
from genba_training.tracking import tracker

Outcome = Status | Literal["lost", "not_ours"]
_MAX_DETAIL_CHARS = 2000

log = get_logger(__name__)


def end_process() -> NoReturn:
    """End this process at once: for a recipe that was told to stop and does not."""
    os._exit(70)


@dataclass(frozen=True)
class Runner:
    """Runs jobs in this thread. ``owner`` names this process for leases; ``draining`` says that it should end."""

    jobs: Jobs
    recipes: Recipes
    artifacts: Artifacts
    settings: Settings
    owner: str
    draining: Callable[[], bool] = lambda: False
    end: Callable[[], None] = end_process
    watchdog: Watchdog = field(default_factory=NoWatchdog)
    spans: Spans | None = None

    def run(self, job_id: str) -> Outcome:
        """Do what a wake-up asks for. A job that is taken, not due or over costs one statement."""
        if self.draining():
            return "not_ours"
        limits = self.recipes.limits
        job = self.jobs.claim(job_id, owner=self.owner, lease_s=self.settings.lease_s, limits=limits)
        if job is None:
            _clean_up(self.jobs, self._folder(job_id))
            return "not_ours"
        log.info("attempt_started", job=job.id, recipe=job.recipe, attempt=job.attempt)
        recipe = self.recipes.by_name.get(job.recipe)
        started_s = time.perf_counter()
        with structlog.contextvars.bound_contextvars(**_log_fields(job)):
            outcome = self._refuse(job) if recipe is None else self._attempt(job, recipe)
        log.info("attempt_ended", job=job.id, recipe=job.recipe, attempt=job.attempt, outcome=outcome)
        if self.spans is not None:
            _trace(self.spans, job, outcome, time.perf_counter() - started_s)
        if outcome in {"succeeded", "failed", "cancelled"}:
            shutil.rmtree(self._folder(job.id), ignore_errors=True)
        return outcome

    @property
    def registry(self) -> Registry:
        return Registry(self.jobs.database, self.artifacts)

    # ---- one attempt ----

    def _refuse(self, job: Job) -> Outcome:
        """Another worker may have the recipe, so the job is tried again."""
        why = "; ".join(f"{source}: {reason}" for source, reason in self.recipes.broken.items())
        error = LookupError(f"This worker has no recipe {job.recipe}. {why}".rstrip())
        return self.jobs.fail(job, _document(error), retry=True) or "lost"

    def _attempt(self, job: Job, recipe: Recipe[Any]) -> Outcome:
        workdir = self._folder(job.id) / f"attempt-{job.attempt:06d}"
        heartbeat = Heartbeat(
            self.jobs,
            job,
            lease_s=self.settings.lease_s,
            every_s=self.settings.heartbeat_s,
            stop_grace_s=self.settings.stop_grace_s,
            drain_wait_s=self.settings.drain_wait_s,
            time_limit_s=recipe.time_limit_s,
            draining=self.draining,
            watchdog=self.watchdog,
            too_late=lambda reason: self._end_now(job, heartbeat, reason),
        )
        tracked = tracker(self.settings.platform, job, heartbeat)
        outcome: Outcome = "lost"  # what stands when not even the ending could be written
        try:
            with heartbeat:
                try:
                    self._sweep_folder(job)
                    workdir.mkdir(parents=True)
                    run = self._run(job, workdir, tracked)
                    result = recipe.run(validate(recipe, job.params), run)
                    outcome = self._finish(job, heartbeat, run, result, tracked.run_id())
                except (Exception, Stopped) as error:  # noqa: BLE001 - every ending of a recipe is settled in the row
                    outcome = self._settle(job, heartbeat, error)
                finally:
                    shutil.rmtree(workdir, ignore_errors=True)
        finally:
            tracked.close(outcome, lambda: (self.jobs.peek(job.id) or job).result, self.artifacts)
        return outcome

    def _run(self, job: Job, workdir: Path, reporter: Reporter) -> Run:
        return Run(
            job_id=job.id,
            attempt=job.attempt,
            seed=seed_of(job.id),
            workdir=workdir,
            checkpoint=Checkpoint(self._folder(job.id) / "checkpoints", attempt=job.attempt),
            principal=job.principal,
            platform=self.settings.platform,
            database=self.jobs.database,
            artifacts=self.artifacts,
            reporter=reporter,
        )

    def _finish(self, job: Job, heartbeat: Heartbeat, run: Run, result: Result, mlflow_run_id: str | None) -> Outcome:
        keys = {name: self._store(path) for name, path in result.artifacts.items()}
        elsewhere = {} if mlflow_run_id is None else {"mlflow_run_id": mlflow_run_id}
        document = json_safe({"value": result.value, "metrics": result.metrics, "artifacts": keys, **elsewhere})
        publish = Publishing.prepare(self.registry, run, result)
        events = heartbeat.take_events()
        try:
            if self.jobs.finish(job, document, events=events, publish=publish):
                publish.say()
                return "succeeded"
        except Exception:
            heartbeat.put_back(events)
            raise
        # Not ours any more, or cancelled at the last moment: nothing was published, the row is settled by who owns it.
        return self.jobs.stop(job, "cancelled") or "lost"

    def _store(self, path: Path) -> str:
        """Stored by content: an attempt that stores and then loses its lease leaves at most bytes nobody points to."""
        return self.artifacts.put(path, suffix="".join(path.suffixes[-2:]).lower())

    # ---- endings ----

    def _settle(self, job: Job, heartbeat: Heartbeat, error: Exception | Stopped) -> Outcome:
        events = heartbeat.take_events()
        match error:
            case LeaseLost():
                return "lost"
            case Cancelled():
                return self.jobs.stop(job, "cancelled", events=events) or "lost"
            case Drained():
                return self.jobs.stop(job, "queued", events=events) or "lost"
            case Problem() if error.status < 500:
                document, retry = _document(error), False
            case _:
                if not isinstance(error, TimedOut | Problem):
                    log.warning("attempt_failed", job=job.id, recipe=job.recipe, attempt=job.attempt, exc_info=error)
                document, retry = _document(error), True
        return self.jobs.fail(job, json_safe(document), retry=retry, events=events) or "lost"

    def _end_now(self, job: Job, heartbeat: Heartbeat, reason: Stopped) -> None:
        """The recipe does not stop. Settle the row for it and end the process; a pool starts a fresh one."""
        outcome = self._settle(job, heartbeat, reason)
        log.warning("attempt_ended_by_force", job=job.id, recipe=job.recipe, reason=type(reason).__name__)
        gone = self._folder(job.id) if outcome == "cancelled" else self._folder(job.id) / f"attempt-{job.attempt:06d}"
        shutil.rmtree(gone, ignore_errors=True)
        self.end()

    # ---- folders ----

    def _folder(self, job_id: str) -> Path:
        return self.settings.jobs_dir / job_id

    def _sweep_folder(self, job: Job) -> None:
        """Throw away what attempts that died left behind; this attempt holds the lease."""
        for stale in self._folder(job.id).glob("attempt-*"):
            shutil.rmtree(stale, ignore_errors=True)
        for stale in self._folder(job.id).glob("checkpoints/.*.tmp"):
            shutil.rmtree(stale, ignore_errors=True)


def prune(jobs: Jobs, jobs_dir: Path) -> None:
    """Delete the folders of jobs that are over and will not be resumed; for a worker's start."""
    if jobs_dir.is_dir():
        for folder in jobs_dir.glob("job_*"):
            _clean_up(jobs, folder)


def _clean_up(jobs: Jobs, folder: Path) -> None:
    """A dead letter keeps its checkpoints, because it may be requeued; who else is over needs none."""
    if folder.is_dir():
        job = jobs.peek(folder.name)
        if job is None or (job.done and job.status != "dead"):
            shutil.rmtree(folder, ignore_errors=True)


def _log_fields(job: Job) -> dict[str, str]:
    """What every line that the work logs carries, so that a request's trace goes on in its job."""
    return {"job": job.id} | ({} if job.traceparent is None else {"traceparent": job.traceparent})


def _trace(spans: Spans, job: Job, outcome: Outcome, duration_s: float) -> None:
    """An attempt is a span below the request that submitted its job; sent at once, the process may be ended before the next."""
    above = TraceContext.parse(job.traceparent)
    spans.add(
        f"job {job.recipe}",
        TraceContext.start() if above is None else above.child(),
        parent=None if above is None else above.span_id,
        kind="consumer",
        duration_s=duration_s,
        attributes={"genba.job.id": job.id, "genba.job.attempt": job.attempt, "genba.job.outcome": outcome},
        failed=outcome in {"failed", "dead"},
    )
    spans.flush()


def _document(error: BaseException) -> dict[str, JsonValue]:
    if isinstance(error, Problem):
        return error.document()
    kind = "attempt-timed-out" if isinstance(error, TimedOut) else "attempt-failed"
    return {
        "type": f"urn:genba:problem:{kind}",
        "title": "The attempt ran too long." if isinstance(error, TimedOut) else "The attempt failed.",
        "status": 500,
        "detail": f"{type(error).__name__}: {error}"[:_MAX_DETAIL_CHARS],
    }
