"""What the client hands to its callers: values read from answers, with the fields that this version knows and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, TypeVar

Status = Literal["queued", "running", "succeeded", "failed", "cancelled", "dead"]
Overlap = Literal["skip", "allow"]
OVER: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "dead"})

Record = TypeVar("Record", "Job", "Schedule", "Recipe")


@dataclass(frozen=True)
class Job:
    """A job as it stood when it was asked for."""

    id: str
    recipe: str
    params: dict[str, Any]
    queue: str
    status: Status
    progress: float
    message: str
    attempt: int
    failures: int
    max_attempts: int
    cancel_requested: bool
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    subject: str
    clearance: str
    schedule_id: str | None
    due_at: datetime | None
    created_at: datetime
    run_after: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def done(self) -> bool:
        return self.status in OVER

    @property
    def succeeded(self) -> bool:
        return self.status == "succeeded"


@dataclass(frozen=True)
class JobEvent:
    """One thing that happened to a job: ``status``, ``progress``, ``metrics`` or ``line``. ``seq`` grows without gaps."""

    seq: int
    kind: str
    at: datetime
    attempt: int
    data: dict[str, Any]


@dataclass(frozen=True)
class Schedule:
    """A schedule as it stood when it was asked for."""

    id: str
    name: str
    recipe: str
    params: dict[str, Any]
    cron: str
    time_zone: str
    overlap: Overlap
    enabled: bool
    next_run_at: datetime | None
    last_run_at: datetime | None
    last_job_id: str | None
    last_error: dict[str, Any] | None
    subject: str
    clearance: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Recipe:
    """What can be submitted; ``params_schema`` is JSON Schema."""

    name: str
    summary: str
    queue: str
    scope: str | None
    time_limit_s: float
    max_attempts: int
    max_running: int | None
    params_schema: dict[str, Any]


def read(kind: type[Record], document: Mapping[str, Any]) -> Record:
    """A record from its JSON. A newer server's further fields are left out; an older one's missing fields are None."""
    values = {field.name: document.get(field.name) for field in fields(kind)}
    for field in fields(kind):
        if "datetime" in str(field.type) and values[field.name] is not None:
            values[field.name] = datetime.fromisoformat(str(values[field.name]))
    return kind(**values)  # type: ignore[arg-type]  # the server's schema says what is what
