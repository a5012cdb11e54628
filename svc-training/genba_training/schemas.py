"""Jobs and recipes as they look at the wire. Converts once, in one direction; decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from genba_shared.jobs import Job, Status
from genba_shared.recipe import Recipe

Label = Literal["public", "internal", "confidential", "secret"]
JOB_ID = r"^job_[0-9a-z]{26}$"
RECIPE_NAME = r"^[a-z][a-z0-9_]{0,59}\.[a-z][a-z0-9_]{0,59}$"


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


class RecipeView(BaseModel):
    """A recipe and what it takes."""

    name: str
    summary: str
    queue: str
    scope: str | None = Field(description="What a submitter needs besides jobs:write.")
    time_limit_s: float
    max_attempts: int
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
            params_schema=recipe.params.model_json_schema(),
        )


class RecipeList(BaseModel):
    """What can be submitted here."""

    recipes: list[RecipeView]
