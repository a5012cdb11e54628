"""The jobs' API: submit, look, follow, cancel, requeue. Runs no job; its lifespan holds the sweeper that keeps the queue true."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Header, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.dependencies import IdempotencyKey, require
from genba_shared.job_upkeep import Upkeep
from genba_shared.jobs import Job, Jobs, Status, process_name
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import NotFound
from genba_shared.queue import Wakeups, make_celery
from genba_shared.registry import Registry
from genba_shared.service import create_service, problem_responses
from genba_shared.streamed import Streamed
from genba_training import recipes, routes_models, routes_schedules
from genba_training.metrics import ModelCollector, QueueCollector, RunningCollector, SweeperCollector
from genba_training.schedules import Schedules
from genba_training.schemas import (
    ARTIFACT_NAME,
    EVENT_SCHEMA,
    JOB_ID,
    QUEUE,
    RECIPE_NAME,
    SCHEDULE_ID,
    JobPage,
    JobSubmission,
    JobView,
    RecipeList,
    RecipeView,
)
from genba_training.settings import Settings
from genba_training.streams import EventStreams
from genba_training.sweeper import Sweeper

JobId = Annotated[str, Path(pattern=JOB_ID, description="A job's id.")]
Reader = Annotated[Principal, require("jobs:read")]
Writer = Annotated[Principal, require("jobs:write")]

_MAX_SEQ = 2**31 - 1
_CHUNK_BYTES = 1 << 18


def create_app(settings: Settings | None = None) -> FastAPI:
    """svc-training: resources in the lifespan, routes below."""
    settings = Settings() if settings is None else settings
    platform = settings.platform

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(platform.database_url)
        database.upgrade()
        upkeep = Upkeep(database)
        wakeups = Wakeups(make_celery(platform))
        jobs = Jobs(database, wake=wakeups.send)
        streams = EventStreams(
            jobs.heads,
            lambda job_id, after: jobs.events(job_id, after=after),
            poll_s=settings.event_poll_s,
            max_streams=settings.max_event_streams,
            max_stream_s=settings.event_stream_max_s,
            draining=lambda: app.state.readiness.draining,
        )
        known, schedules = recipes.load(settings.recipes), Schedules(database)
        artifacts = Artifacts(platform.artifacts_url)
        registry = Registry(database, artifacts)
        sweeper = Sweeper(
            upkeep,
            wakeups,
            owner=process_name(),
            every_s=settings.sweep_s,
            keep_jobs=timedelta(days=settings.keep_jobs_days),
            limits=known.limits,
            fire_due=lambda: schedules.fire_due(known, max_active=settings.max_active_jobs),
            chores=(lambda: registry.retain_all(keep=settings.keep_model_versions),),
        )
        collectors = (
            QueueCollector(upkeep.figures, schedules.figures),
            RunningCollector(upkeep.running),
            SweeperCollector(sweeper),
            ModelCollector(registry.figures),
        )
        for collector in collectors:
            app.state.metrics.registry.register(collector)
        app.state.readiness.add("sweeper", sweeper.unwell)
        app.state.jobs, app.state.streams, app.state.settings = jobs, streams, settings
        app.state.artifacts, app.state.registry = artifacts, registry
        app.state.recipes, app.state.schedules = known, schedules
        sweeper.start()
        try:
            async with streams.polling():
                yield
        finally:
            sweeper.stop()
            for collector in collectors:
                app.state.metrics.registry.unregister(collector)
            wakeups.close()
            database.close()

    app = create_service("training", title="Genba jobs", platform=platform, lifespan=lifespan)
    app.include_router(router)
    app.include_router(routes_schedules.router)
    app.include_router(routes_models.router)
    return app


router = APIRouter(tags=["jobs"])


@router.post(
    "/v1/jobs", status_code=202, summary="Submit a job", responses=problem_responses(400, 403, 409, 410, 413, 422, 429)
)
def submit_job(
    submission: JobSubmission, key: IdempotencyKey, principal: Writer, request: Request, response: Response
) -> JobView:
    """Validate the parameters, put the job into the table and wake a worker. It is safe to repeat with the same key."""
    settings: Settings = request.app.state.settings
    known: recipes.Recipes = request.app.state.recipes
    recipe, params = known.accept(
        submission.recipe, submission.params, principal=principal, max_bytes=settings.max_params_bytes
    )
    trace = request.scope["state"].get("trace")
    job = _jobs(request).submit(
        recipe.name,
        params,
        principal=principal,
        idempotency_key=key,
        queue=recipe.queue,
        max_attempts=recipe.max_attempts,
        clearance=Clearance.parse(submission.clearance) if submission.clearance else None,
        traceparent=None if trace is None else trace.header,
        max_active=settings.max_active_jobs,
    )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if job.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return JobView.of(job)


@router.get("/v1/jobs", summary="List jobs", responses=problem_responses(403))
def list_jobs(
    principal: Reader,
    request: Request,
    status: Annotated[Status | None, Query(description="`dead` are the dead letters.")] = None,
    recipe: Annotated[str | None, Query(pattern=RECIPE_NAME)] = None,
    queue: Annotated[str | None, Query(pattern=QUEUE)] = None,
    schedule: Annotated[str | None, Query(pattern=SCHEDULE_ID, description="Jobs that this schedule made.")] = None,
    before: Annotated[str | None, Query(pattern=JOB_ID, description="`next_before` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobPage:
    """Your jobs, newest first; all of the tenant's for who may administer jobs."""
    found = _jobs(request).list(
        principal=principal,
        status=status,
        recipe=recipe,
        queue=queue,
        schedule_id=schedule,
        before=before,
        limit=limit + 1,
    )
    more = len(found) > limit
    page = found[:limit]
    return JobPage(jobs=[JobView.of(job) for job in page], next_before=page[-1].id if more else None)


@router.get("/v1/jobs/{job_id}", summary="A job", responses=problem_responses(403, 404))
def get_job(job_id: JobId, principal: Reader, request: Request) -> JobView:
    return JobView.of(_jobs(request).get(job_id, principal=principal))


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": EVENT_SCHEMA}}, "description": "Events as they come."},
        204: {"description": "The job is done and every event was seen: do not reconnect."},
        **problem_responses(403, 404, 503),
    },
)
async def follow_job(
    job_id: JobId,
    principal: Reader,
    request: Request,
    last_event_id: Annotated[int, Header(ge=0, le=_MAX_SEQ, description="Continue after this event.")] = 0,
) -> Response:
    """Server-sent events `status`, `progress`, `metrics` and `line`, from the first or after `Last-Event-ID`.

    The stream closes with `end` when the job is done, and after some minutes without it: reconnect then.
    """
    streams: EventStreams = request.app.state.streams
    job: Job = await to_thread.run_sync(lambda: _jobs(request).get(job_id, principal=principal))
    if job.done and last_event_id >= job.last_seq:
        return Response(status_code=204)
    return StreamingResponse(
        await streams.open(job_id, last_event_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.get(
    "/v1/jobs/{job_id}/artifacts/{name}",
    summary="A file that a job made",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "The file."},
        **problem_responses(403, 404),
    },
)
def get_artifact(
    job_id: JobId,
    name: Annotated[str, Path(pattern=ARTIFACT_NAME, description="A name in result.artifacts.")],
    principal: Reader,
    request: Request,
) -> Response:
    job = _jobs(request).get(job_id, principal=principal)
    key = (job.result or {}).get("artifacts", {}).get(name)
    if key is None:
        raise NotFound(f"The job has no artifact {name!r}.")
    artifacts: Artifacts = request.app.state.artifacts
    return Streamed(
        _chunks(artifacts, key),
        media_type="application/octet-stream",
        headers={"Content-Length": str(artifacts.size_bytes(key)), "ETag": f'"{key}"'},
    )


@router.post(
    "/v1/jobs/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=problem_responses(403, 404, 409)
)
def cancel_job(job_id: JobId, principal: Writer, request: Request) -> JobView:
    """A waiting job is cancelled at once. A running one is told to stop and can no longer publish anything."""
    return JobView.of(_jobs(request).cancel(job_id, principal=principal))


@router.post(
    "/v1/jobs/{job_id}/requeue", status_code=202, summary="Requeue a job", responses=problem_responses(403, 404, 409)
)
def requeue_job(job_id: JobId, principal: Writer, request: Request) -> JobView:
    """Give a dead, failed or cancelled job a fresh set of attempts."""
    return JobView.of(_jobs(request).requeue(job_id, principal=principal))


@router.get("/v1/recipes", summary="List recipes", tags=["recipes"], responses=problem_responses(403))
def list_recipes(principal: Reader, request: Request) -> RecipeList:  # noqa: ARG001 - the scope is the point
    """What can be submitted, with the JSON Schema of its parameters."""
    known: recipes.Recipes = request.app.state.recipes
    return RecipeList(recipes=[RecipeView.of(recipe) for recipe in known if recipe.submitted_by is None])


def _chunks(artifacts: Artifacts, key: str) -> Generator[bytes, None, None]:
    with artifacts.open(key) as file:  # in here: an answer that is never sent opens nothing
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs
