"""Jobs, recipes and schedules as they look at the wire. Converts once, in one direction; decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from genba_shared.jobs import Job, Status
from genba_shared.patterns import pattern
from genba_shared.recipe import Recipe
from genba_training.cron import MAX_CHARS
from genba_training.schedules import MAX_NAME_CHARS, Overlap, Schedule

Label = Literal["public", "internal", "confidential", "secret"]
QUEUE = pattern("^[a-z]{1,16}$", "must be the name of a queue: cpu or gpu")
ARTIFACT_NAME = pattern(r"^[A-Za-z0-9_.-]{1,100}$", "must be the name of a file in the job's result")
JOB_ID = pattern(r"^job_[0-9a-z]{26}$", "must be a job's id as answers give it: job_ and 26 characters")
SCHEDULE_ID = pattern(r"^sch_[0-9a-z]{26}$", "must be a schedule's id as answers give it: sch_ and 26 characters")
RECIPE_NAME = pattern(
    r"^[a-z][a-z0-9_]{0,59}\.[a-z][a-z0-9_]{0,59}$", "must be two names joined by a dot, such as recommend.two_tower"
)


# One event of the stream, as its fields are named there; `data` is JSON.
EVENT_SCHEMA: Mapping[str, Any] = {
    "title": "JobEvent",
    "type": "object",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$", "description": "Send it as Last-Event-ID to go on from here."},
        "event": {"type": "string", "enum": ["status", "progress", "metrics", "line", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
}


class JobSubmission(BaseModel):
    """What to run. The same Idempotency-Key with the same submission gives the same job."""

    model_config = ConfigDict(extra="forbid")

    recipe: str = Field(pattern=RECIPE_NAME, description="One of /v1/recipes.", examples=["platform.verify_audit"])
    params: dict[str, Any] = Field(default_factory=dict, description="As the recipe's params_schema says.")
    clearance: Label | None = Field(
        default=None, description="The job's label; the submitter's own clearance by default, never above it."
    )


class JobView(BaseModel):
    """A job as it stands."""

    id: str
    recipe: str
    params: dict[str, Any]
    queue: str
    status: Status
    progress: float = Field(ge=0, le=1)
    message: str
    attempt: int = Field(description="How often a worker has taken it.")
    failures: int = Field(description="Attempts that failed or lost their worker; at max_attempts the job is dead.")
    max_attempts: int
    cancel_requested: bool
    result: dict[str, Any] | None = Field(description="value, metrics and artifacts, once it has succeeded.")
    error: dict[str, Any] | None = Field(description="The newest failure, as a problem document.")
    subject: str
    clearance: Label
    schedule_id: str | None = Field(description="The schedule that made it.")
    due_at: datetime | None = Field(description="The moment for which the schedule made it.")
    created_at: datetime
    run_after: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job) -> Self:
        shown = {name: getattr(job, name) for name in cls.model_fields if name != "clearance"}
        return cls(**shown, clearance=job.clearance.label)


class JobPage(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobView]
    next_before: str | None = Field(description="Give it as `before` for the next page; null on the last one.")


_NAME = Field(min_length=1, max_length=MAX_NAME_CHARS, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["nightly"])
_CRON = Field(min_length=9, max_length=MAX_CHARS, description="Five fields of cron.", examples=["30 2 * * MON-FRI"])
_ZONE = Field(max_length=64, description="An IANA time zone, in which the fields are read.", examples=["Asia/Tokyo"])
_OVERLAP = Field(description="While the job of the due time before is not over: skip this one, or allow both.")


class ScheduleSubmission(BaseModel):
    """What to run, and when. It runs with the authority that its maker has now."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, _NAME]
    recipe: str = Field(pattern=RECIPE_NAME, examples=["platform.verify_audit"])
    params: dict[str, Any] = Field(default_factory=dict, description="As the recipe's params_schema says.")
    cron: Annotated[str, _CRON]
    time_zone: Annotated[str, _ZONE] = "UTC"
    overlap: Annotated[Overlap, _OVERLAP] = "skip"
    enabled: bool = True
    clearance: Label | None = Field(default=None, description="Label of the schedule and its jobs; your own if absent.")


class ScheduleChange(BaseModel):
    """What to change; what is absent or null stays."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, _NAME] | None = None
    params: dict[str, Any] | None = None
    cron: Annotated[str, _CRON] | None = None
    time_zone: Annotated[str, _ZONE] | None = None
    overlap: Annotated[Overlap, _OVERLAP] | None = None
    enabled: bool | None = None


class ScheduleView(BaseModel):
    """A schedule as it stands."""

    id: str
    name: str
    recipe: str
    params: dict[str, Any]
    cron: str
    time_zone: str
    overlap: Overlap
    enabled: bool
    next_run_at: datetime | None = Field(description="The next due time; null while it is switched off.")
    last_run_at: datetime | None = Field(description="The due time that was seen to last.")
    last_job_id: str | None
    last_error: dict[str, Any] | None = Field(description="Why the last due time made no job, as a problem document.")
    subject: str
    clearance: Label
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, schedule: Schedule) -> Self:
        apart = {"cron", "time_zone", "subject", "clearance"}
        return cls(
            **{name: getattr(schedule, name) for name in cls.model_fields if name not in apart},
            cron=schedule.when.expression,
            time_zone=schedule.when.time_zone,
            subject=schedule.principal.subject,
            clearance=schedule.principal.clearance.label,
        )


class SchedulePage(BaseModel):
    """Schedules, newest first."""

    schedules: list[ScheduleView]
    next_before: str | None = Field(description="Give it as `before` for the next page; null on the last one.")


class RecipeView(BaseModel):
    """A recipe and what it takes."""

    name: str
    summary: str
    queue: str
    scope: str | None = Field(description="What a submitter needs besides jobs:write.")
    time_limit_s: float
    max_attempts: int
    max_running: int | None = Field(description="How many of its jobs run at the same time; the others wait.")
    params_schema: dict[str, Any] = Field(description="JSON Schema 2020-12 of the params.")

    @classmethod
    def of(cls, recipe: Recipe[Any]) -> Self:
        return cls(
            name=recipe.name,
            summary=recipe.summary,
            queue=recipe.queue,
            scope=recipe.scope,
            time_limit_s=recipe.time_limit_s,
            max_attempts=recipe.max_attempts,
            max_running=recipe.max_running,
            params_schema=recipe.params.model_json_schema(),
        )


class RecipeList(BaseModel):
    """What can be submitted here."""

    recipes: list[RecipeView]
