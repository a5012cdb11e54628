"""Recipes of the platform itself, for operators; they also show that a queue works before any domain is installed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import Field

from genba_shared.audit import AuditLog
from genba_shared.job_upkeep import Upkeep
from genba_shared.patterns import pattern
from genba_shared.problems import Conflict
from genba_shared.recipe import Params, Recipe, Result, Run


class VerifyAudit(Params):
    """What must still be in the log."""

    expected_head: str | None = Field(
        default=None,
        pattern=pattern(r"^[0-9a-f]{64}$", "must be 64 hex digits, lower case"),
        description="A head noted earlier and kept elsewhere; without it, a log whose end was cut off looks whole.",
    )


def verify_audit(params: VerifyAudit, run: Run) -> Result:
    """Walk the whole audit chain; a broken one fails the job and says where."""
    report = AuditLog(run.database).verify(expected_head=params.expected_head)
    if not report.intact:
        raise Conflict(
            f"The audit log breaks at entry {report.broken_at}: {report.reason}.", broken_at=report.broken_at
        )
    run.progress(1.0, f"{report.entries} entries hold")
    return Result(value={"head": report.head}, metrics={"entries": report.entries})


class PruneJobs(Params):
    """Which jobs to delete."""

    older_than_days: int = Field(ge=2, le=3650, description="Delete jobs that ended longer ago than this many days.")


def prune_jobs(params: PruneJobs, run: Run) -> Result:
    """Delete finished jobs with their events, some hundred per transaction so that nobody waits for the table."""
    upkeep, deleted = Upkeep(run.database), 0
    while gone := upkeep.prune(older_than=timedelta(days=params.older_than_days)):
        deleted += gone
        run.log(deleted, deleted=deleted)
        run.raise_if_cancelled()
    return Result(value={"deleted": deleted})


RECIPES: dict[str, Recipe[Any]] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "platform.verify_audit",
            VerifyAudit,
            verify_audit,
            summary="Check that nobody has rewritten the audit log.",
            scope="audit:read",
            time_limit_s=3600.0,
        ),
        Recipe(
            "platform.prune_jobs",
            PruneJobs,
            prune_jobs,
            summary="Delete finished jobs and their events.",
            scope="jobs:admin",
            time_limit_s=3600.0,
            max_running=1,
        ),
    )
}
