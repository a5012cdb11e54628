"""``/v1/sem/label-studio``: an ML backend for Label Studio. Predictions with scores go out, annotations come back as reviews.

Label Studio sends the API key as the password of basic authentication, and its webhooks as a header that is set there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from genba_sem import label_studio, labels, reviews
from genba_sem.dependencies import Reader, Reviewer
from genba_sem.label_studio import BadConfig, Control
from genba_sem.labels import LabelBook
from genba_sem.reviews import Said
from genba_sem.service import Here, Sem
from genba_sem.tables import LabelStudioTask, ParticleRow
from genba_shared import records
from genba_shared.audit import append_in
from genba_shared.patterns import pattern
from genba_shared.principal import Principal
from genba_shared.problems import Invalid, fault
from genba_shared.service import problem_responses
from genba_shared.wire_records import Wire

router = APIRouter(prefix="/v1/sem/label-studio", tags=["sem label studio"])


class HealthOut(Wire):
    """What Label Studio asks for before it connects."""

    status: str = "UP"
    model_class: str = "genba-sem"
    v2: bool = True


class Lenient(BaseModel):
    """A document of Label Studio: what this backend does not use is passed over, since every release adds to it."""

    model_config = ConfigDict(extra="ignore")


class SetupIn(Lenient):
    """A project that connects."""

    project: Any = Field(None, description="The project's id, alone or with its moment of creation, or the project.")
    label_config: str | None = Field(None, alias="schema")
    hostname: str | None = None
    extra_params: Any = None


class SetupOut(Wire):
    """The version that Label Studio files predictions under."""

    model_version: str


class TaskIn(Lenient):
    """A task: a particle to be predicted, if its data name one."""

    id: int | None = Field(None, ge=-(2**53), le=2**53)
    data: dict[str, Any] = Field(default_factory=dict)


class PredictIn(Lenient):
    """Tasks to predict."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [{"tasks": [{"id": 1, "data": {"particle_id": "par_1"}}], "project": "3.1669290681",
                          "label_config": "<View/>"}]
        },
    )  # fmt: skip

    tasks: list[TaskIn] = Field(max_length=1000)
    project: Any = Field(None, description="The project's id, alone or with its moment of creation, or the project.")
    label_config: str | None = None


class RegionOut(Wire):
    """One region of a prediction."""

    from_name: str
    to_name: str
    type: str
    value: dict[str, list[str]]
    score: float


class PredictionOut(Wire):
    """What the lane says of a task's particle; no regions where it says nothing or the project does not offer the label."""

    model_version: str
    score: float
    result: list[RegionOut]


class PredictOut(Wire):
    """Predictions in the order of the tasks."""

    results: list[PredictionOut]
    model_version: str


class WebhookOut(Wire):
    """What became of an event."""

    status: str
    result: dict[str, Any] = Field(default_factory=dict)


class TasksOut(Wire):
    """A label config and tasks to import into Label Studio, most urgent first."""

    label_config: str
    tasks: list[dict[str, Any]]


@router.get("/health", responses=problem_responses(404))
def health(principal: Reader) -> HealthOut:
    """Label Studio's question whether the backend is there."""
    del principal
    return HealthOut()


@router.post("/setup", responses=problem_responses(404))
def setup(body: SetupIn, here: Here, principal: Reader) -> SetupOut:
    """A project connects: the answer is the version that decides now. A label config without Choices is refused."""
    if body.label_config:
        _control(body.label_config)
    return SetupOut(model_version=_version(here, principal))


@router.post("/predict", responses=problem_responses(404, 409))
def predict(body: PredictIn, here: Here, principal: Reader) -> PredictOut:
    """What particles were held for, with the confidence as score, so that Label Studio can order tasks by it."""
    control = _control(body.label_config) if body.label_config else None
    version = _version(here, principal)
    project = label_studio.project_of(body.project)
    asked = [(task, label_studio.particle_of(task.data)) for task in body.tasks]
    with here.database.transaction() as session:
        book = labels.book(session, principal.tenant)
        ids = {particle_id for _, particle_id in asked if particle_id}
        rows = {row.id: row for row in _visible(session, principal, ids)}
        for task, particle_id in asked:
            if task.id is not None and particle_id in rows and project:
                _remember(session, principal.tenant, project, task.id, particle_id)
        results = [_predicted(rows.get(particle_id or ""), book, control, version) for _, particle_id in asked]
    return PredictOut(results=results, model_version=version)


def _control(config: str) -> Control:
    try:
        return label_studio.control_of(config)
    except BadConfig as err:
        raise Invalid(str(err), errors=[fault("label_config", str(err))]) from err


def _version(here: Sem, principal: Principal) -> str:
    live = here.lanes.model_now(principal.tenant)
    return live or "masters"


def _visible(session: Session, principal: Principal, ids: set[str]) -> list[ParticleRow]:
    query = select(ParticleRow).where(ParticleRow.id.in_(ids), records.visible(ParticleRow, principal))
    return list(session.scalars(query).all())


def _remember(session: Session, tenant: str, project: str, task_id: int, particle_id: str | None) -> None:
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    row = {"tenant": tenant, "project": project, "task_id": task_id, "particle_id": particle_id}
    insert = dialect.insert(LabelStudioTask).values(row)
    keys = [LabelStudioTask.tenant, LabelStudioTask.project, LabelStudioTask.task_id]
    session.execute(insert.on_conflict_do_update(index_elements=keys, set_={"particle_id": particle_id}))


def _predicted(row: ParticleRow | None, book: LabelBook, control: Control | None, version: str) -> PredictionOut:
    label = book.now(row.label_id) if row is not None and row.label_id else None
    choice = label_studio.choice_for(label, control) if label is not None and control is not None else None
    score = 0.0 if row is None else 1.0 if row.status == "reviewed" else row.confidence or 0.0
    if choice is None or control is None:
        return PredictionOut(model_version=version, score=0.0, result=[])
    return PredictionOut.model_validate(label_studio.prediction(control, choice, score, version))


@router.post("/webhook", status_code=status.HTTP_201_CREATED, responses={
    200: {"model": WebhookOut, "description": "An event that concerns no review."}, **problem_responses(404, 409),
})  # fmt: skip
def webhook(
    body: Annotated[
        dict[str, Any], Body(examples=[{"action": "ANNOTATION_CREATED", "annotation": {}, "project": {"id": 2}}])
    ],
    response: Response,
    here: Here,
    principal: Reviewer,
) -> WebhookOut:
    """An annotation comes back as a review by whoever made it. What concerns no particle of ours is passed over with a word."""
    action = body.get("action")
    if not isinstance(action, str) or not action:
        raise Invalid("The event has no action.", errors=[fault("action", "is missing")])
    annotation = body.get("annotation")
    if action not in label_studio.EVENTS or not isinstance(annotation, Mapping):
        response.status_code = status.HTTP_200_OK
        known = action in label_studio.KNOWN_EVENTS
        return WebhookOut(status="ok" if known else "Unknown event")
    with here.database.transaction() as session:
        result = _review(session, here, principal, body, annotation)
    if "review" not in result:
        response.status_code = status.HTTP_200_OK
    return WebhookOut(status="ok", result=result)


def _review(
    session: Session, here: Sem, principal: Principal, body: Mapping[str, Any], annotation: Mapping[str, Any]
) -> dict[str, Any]:
    choices = label_studio.chosen(annotation)
    if not choices:
        return {"passed_over": "the annotation was skipped or chooses nothing"}
    particle_id = _particle(session, principal.tenant, body, annotation)
    book = labels.held(session, principal.tenant)
    rows = reviews.lock(session, principal, [particle_id] if particle_id else [])
    if not rows:
        return {"passed_over": "the task shows no particle of this installation"}
    meant = (label_studio.label_for(choice, book, rows[0].clearance) for choice in choices)
    label = next(filter(None, meant), None)
    if label is None and label_studio.NONE_OF_THEM not in map(labels.plain, choices):
        return {"passed_over": f"there is no label {choices[0]!r}"}
    lead_time = annotation.get("lead_time")
    seconds = float(lead_time) if isinstance(lead_time, int | float) and 0 <= lead_time < 86_400 else None
    said = Said(label.id if label else None, seconds=seconds, source="label_studio")
    reviewer = f"{principal.subject}/label-studio:{label_studio.annotator(annotation)}"
    review = reviews.say(
        session,
        principal,
        rows[0],
        said,
        book=book,
        reviewers_needed=here.settings.boundary_reviewers,
        reviewer=reviewer,
    )
    append_in(session, "sem.particle_reviewed", actor=reviewer, subject=rows[0].id, detail=reviews.document(review))
    return {"review": review.id, "particle_id": rows[0].id, "settled": not rows[0].in_queue}


def _particle(session: Session, tenant: str, body: Mapping[str, Any], annotation: Mapping[str, Any]) -> str | None:
    """By the task's data where the event brings them; else by the task that was predicted before."""
    task = body.get("task")
    if isinstance(task, Mapping) and (found := label_studio.particle_of(task.get("data"))):
        return found
    task_id = annotation.get("task") or (task.get("id") if isinstance(task, Mapping) else None)
    project = label_studio.project_of(body.get("project"))
    if not isinstance(task_id, int) or abs(task_id) > 2**53 or not project:
        return None
    row = session.get(LabelStudioTask, (tenant, project, task_id))
    return row.particle_id if row is not None else None


@router.get("/tasks", responses=problem_responses(404))
def tasks(
    here: Here,
    principal: Reader,
    address: Annotated[
        str,
        Query(
            max_length=200,
            pattern=pattern(r"^https?://[^\s\"<>]+$", "must begin with http:// or https://"),
            description="of this API",
        ),
    ] = "http://localhost:8080",
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> TasksOut:
    """A label config and the queue as tasks, to be imported into Label Studio. Ids of labels are its choices' aliases."""
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
        rows = reviews.queue(
            session, principal, reason=None, batch=None, label_ids=None, without_reviewer=None, after=None, limit=limit
        )[:limit]
    shown = [
        {
            "data": {
                "particle_id": row.id,
                "name": row.name,
                **{f"view{k}": f"{address}/v1/sem/particles/{row.id}/views/{k}/picture" for k in range(row.view_count)},
            }
        }
        for row in rows
    ]
    views = max((row.view_count for row in rows), default=1)
    return TasksOut(
        label_config=label_studio.config_for(book.active(int(principal.clearance)), views=views), tasks=shown
    )
