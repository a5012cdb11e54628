"""``/v1/schedules``: make, look, change, delete. Firing is the sweeper's."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy.exc import IntegrityError

from genba_shared.dependencies import OptionalIdempotencyKey, require
from genba_shared.idempotency import Answer, Idempotency, Submission
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import ClearanceTooLow
from genba_shared.service import problem_responses
from genba_training.cron import Cron
from genba_training.recipes import Recipes
from genba_training.schedules import Changes, NewSchedule, Schedules, add, name_taken
from genba_training.schemas import SCHEDULE_ID, ScheduleChange, SchedulePage, ScheduleSubmission, ScheduleView
from genba_training.settings import Settings

ScheduleId = Annotated[str, Path(pattern=SCHEDULE_ID, description="A schedule's id.")]
Reader = Annotated[Principal, require("jobs:read")]
Writer = Annotated[Principal, require("jobs:write")]

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])


@router.post("", status_code=201, summary="Make a schedule", responses=problem_responses(400, 403, 409, 413, 422))
def create_schedule(
    body: ScheduleSubmission, key: OptionalIdempotencyKey, principal: Writer, request: Request, response: Response
) -> ScheduleView:
    """Check everything now that would be refused when it is due, and note when that is."""
    schedules = _schedules(request)
    settings: Settings = request.app.state.settings
    label = Clearance.parse(body.clearance) if body.clearance else principal.clearance
    if not principal.may_see(label):
        raise ClearanceTooLow("A schedule cannot be labelled above its maker.", clearance=label.label)
    recipe, params = _recipes(request).accept(
        body.recipe, body.params, principal=principal, max_bytes=settings.max_params_bytes
    )
    when = Cron(body.cron, body.time_zone)
    new = NewSchedule(body.name, recipe.name, params, when, body.overlap, body.enabled, label)
    if key is None:
        made = ScheduleView.of(schedules.create(new, principal=principal))
    else:
        submission = Submission.of(key, principal=principal, operation="POST /v1/schedules", payload=body)
        try:
            answer = Idempotency(schedules.database).once(
                submission,
                lambda session: Answer(
                    201, ScheduleView.of(add(session, new, principal=principal)).model_dump(mode="json")
                ),
            )
        except IntegrityError as error:
            raise name_taken(body.name) from error
        made = ScheduleView.model_validate(answer.body)
        if answer.replayed:
            response.headers["Idempotency-Replayed"] = "true"
    response.headers["Location"] = f"/v1/schedules/{made.id}"
    return made


@router.get("", summary="List schedules", responses=problem_responses(403))
def list_schedules(
    principal: Reader,
    request: Request,
    before: Annotated[str | None, Query(pattern=SCHEDULE_ID, description="`next_before` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> SchedulePage:
    """Your schedules, newest first; all of the tenant's for who may administer jobs."""
    found = _schedules(request).list(principal=principal, before=before, limit=limit + 1)
    page = found[:limit]
    return SchedulePage(
        schedules=[ScheduleView.of(schedule) for schedule in page],
        next_before=page[-1].id if len(found) > limit else None,
    )


@router.get("/{schedule_id}", summary="A schedule", responses=problem_responses(403, 404))
def get_schedule(schedule_id: ScheduleId, principal: Reader, request: Request) -> ScheduleView:
    return ScheduleView.of(_schedules(request).get(schedule_id, principal=principal))


@router.patch("/{schedule_id}", summary="Change a schedule", responses=problem_responses(403, 404, 409, 413, 422))
def change_schedule(schedule_id: ScheduleId, body: ScheduleChange, principal: Writer, request: Request) -> ScheduleView:
    """Change its name, parameters or rhythm, or switch it on and off. What was missed while it was off stays missed."""
    schedules = _schedules(request)
    settings: Settings = request.app.state.settings
    params = body.params
    if params is not None:
        recipe = schedules.get(schedule_id, principal=principal).recipe
        _, params = _recipes(request).accept(recipe, params, principal=principal, max_bytes=settings.max_params_bytes)
    changes = Changes(**body.model_dump(exclude={"params"}), params=params)
    return ScheduleView.of(schedules.change(schedule_id, changes, principal=principal))


@router.delete("/{schedule_id}", status_code=204, summary="Delete a schedule", responses=problem_responses(403, 404))
def delete_schedule(schedule_id: ScheduleId, principal: Writer, request: Request) -> None:
    """Its jobs stay: cancel those that should not run."""
    _schedules(request).delete(schedule_id, principal=principal)


def _schedules(request: Request) -> Schedules:
    schedules: Schedules = request.app.state.schedules
    return schedules


def _recipes(request: Request) -> Recipes:
    recipes: Recipes = request.app.state.recipes
    return recipes
