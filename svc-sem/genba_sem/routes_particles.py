"""``/v1/sem/particles``: send views, get a label or an honest doubt; look, annotate, decide again, erase."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response, status
from pydantic import JsonValue, ValidationError
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from genba_sem import labels, master_sets, particles, store
from genba_sem.dependencies import Cursor, Limit, Reader, Writer
from genba_sem.lanes import Ready
from genba_sem.looking import File, Hints, is_sidecar, look, texts_of
from genba_sem.particles import Image, Owner, Stored
from genba_sem.schemas_particles import (
    FORM,
    Annotation,
    Batch,
    BatchOut,
    DecisionOut,
    Erased,
    ParticleForm,
    ParticleOut,
    ParticleStatus,
    ParticleSummary,
    decision_out,
    particle_out,
    summary_out,
)
from genba_sem.service import Here, Sem
from genba_sem.tables import DecisionRow, MasterRow, ParticleRow, ViewRow
from genba_sem.upload import Form, check, receive
from genba_sem.wire import Line
from genba_shared import records
from genba_shared.audit import append_in
from genba_shared.dependencies import IdempotencyKey, IfMatch, OptionalIdempotencyKey
from genba_shared.idempotency import Answer, Submission
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import Conflict, EncoderMismatch, Invalid, NotFound, VersionConflict, fault, invalid
from genba_shared.service import problem_responses
from genba_shared.wire_records import JobOut, Page, RecordId, expected_version, job_out

router = APIRouter(prefix="/v1/sem", tags=["sem particles"])

CLAIM_S: Final = 60.0  # after a process that died; one that only takes longer keeps its claim unless the caller repeats
_BODY: Final[dict[str, Any]] = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}}
_PICTURE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
    **problem_responses(404),
}
Position = Annotated[int, Path(ge=0, le=11)]


@router.post(
    "/particles",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=_BODY,
    responses=problem_responses(404, 408, 409, 411, 413, 415, 429),
)
async def send_particle(
    request: Request, response: Response, key: OptionalIdempotencyKey, here: Here, principal: Writer
) -> ParticleOut:
    """Send the views of one particle. Without masters for two labels: 409 that names the labels, and nothing is stored."""
    check(request, cap_bytes=here.settings.body_cap_bytes)
    with here.classifying.place():
        cap = {"cap_bytes": here.settings.body_cap_bytes, "cap_file_bytes": here.settings.max_image_bytes}
        async with receive(request, here.spool, **cap) as form:
            asked = _form(form)
            answer, replayed = await here.classifying.run(lambda: _take(here, principal, form, asked, key))
    response.headers["Location"] = f"/v1/sem/particles/{answer.id}"
    response.headers["ETag"] = f'"{answer.version}"'
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return answer


def _form(form: Form) -> ParticleForm:
    try:
        return ParticleForm.model_validate(form.fields)
    except ValidationError as err:
        raise invalid(err.errors(include_url=False)) from err


def _take(
    here: Sem, principal: Principal, form: Form, asked: ParticleForm, key: str | None
) -> tuple[ParticleOut, bool]:
    if key is None:
        return _store(here, principal, form, asked, None)
    files: list[Any] = [[sent.sha256, sent.file_name] for sent in form.files]
    payload: JsonValue = {"files": files, "fields": asked.model_dump(mode="json")}
    submission = Submission.of(key, principal=principal, operation="POST /v1/sem/particles", payload=payload)
    with here.idempotency.claim(submission, lease_s=CLAIM_S) as claim:
        if claim.answer is not None:
            with here.database.read() as session:
                return whole(session, principal, str(claim.answer.body)), True
        return _store(here, principal, form, asked, lambda session, found: claim.finish(session, Answer(201, found)))


def _store(here: Sem, principal: Principal, form: Form, asked: ParticleForm, finish: Any) -> tuple[ParticleOut, bool]:
    """Look, store, decide and record; a particle that nothing can decide is not stored."""
    owner = Owner(principal.tenant, int(records.label_for(principal, asked.clearance)), principal.subject)
    images = _images(here, form)
    ready = None
    if asked.master_of is not None:
        with here.database.read() as session:
            labels.given(labels.book(session, principal.tenant), asked.master_of, clearance=owner.clearance)
    elif asked.decide == "now":
        ready = here.lanes.ready(owner.tenant, owner.clearance)
    hints = Hints(asked.pixel_size_nm, asked.scale_bar_nm, texts_of([File(s.path, s.file_name) for s in form.files]))
    looks = None
    if asked.decide == "now" or asked.master_of is not None:
        files = [File(image.path, image.file_name) for image in images]
        looks = look(
            files,
            here.lanes.describer(owner.tenant) if ready is None else ready.lane.encoder,
            hints=hints,
            limits=here.limits,
            least=here.settings.min_views,
            read=here.pictures.read_view,
        )
    stored = Stored(tuple(images), looks, hints)
    particles.put(here.database, here.artifacts, [stored])
    while True:
        with here.database.transaction() as session:
            book = labels.held(session, owner.tenant)
            if ready is None or not book.divided(ready.lane.labels):
                row = _record(session, here, principal, stored, asked, owner, ready=ready)
                if finish is not None:
                    finish(session, row.id)
                answer = whole(session, principal, row.id)
                break
        ready = here.lanes.ready(owner.tenant, owner.clearance)  # a label was split while the views were looked at
    here.watch.decided(answer.status)
    return answer, False


def _record(
    session: Session,
    here: Sem,
    principal: Principal,
    stored: Stored,
    asked: ParticleForm,
    owner: Owner,
    *,
    ready: Ready | None,
) -> ParticleRow:
    role = "sample" if asked.master_of is None else "master"
    facts = asked.facts(fallback=stored.images[0].file_name)
    [row] = particles.record(session, here.artifacts, [(stored, facts)], owner, role=role)
    if asked.master_of is not None:
        master = master_sets.add(session, principal, asked.master_of, row, reason=f"{row.name} registered")
        row.status, row.label_id, row.decided_by = "reviewed", master.label_id, "review"
    elif ready is not None and stored.looks is not None:
        decision = ready.decide([each.seen for each in stored.looks.views], row.id)
        particles.decide(session, row, ready, decision, actor=principal.subject)
    session.flush()
    return row


def _images(here: Sem, form: Form) -> list[Image]:
    images = [sent for sent in form.files if not is_sidecar(sent.file_name)]
    if len(images) > here.settings.max_views:
        message = f"{len(images)} views were sent; a particle has at most {here.settings.max_views}"
        raise Invalid(f"{message}.", errors=[fault("views", message)])
    if not images:
        raise Invalid("The form has no image.", errors=[fault("views", "send the images in this field")])
    return [Image(sent.path, sent.file_name, sent.sha256, sent.size_bytes) for sent in images]


def whole(session: Session, principal: Principal, particle_id: str) -> ParticleOut:
    """A particle with all that is known of it."""
    row = records.get(session, ParticleRow, particle_id, principal)
    views = store.views_of(session, [row.id])[row.id]
    return particle_out(row, views, labels.book(session, principal.tenant))


@router.get("/particles", responses=problem_responses(404))
def list_particles(
    here: Here,
    principal: Reader,
    label_id: Annotated[RecordId | None, Query(description="as labels are now: those merged into it count")] = None,
    particle_status: Annotated[ParticleStatus | None, Query(alias="status")] = None,
    batch: Annotated[Batch | None, Query()] = None,
    process: Annotated[Line | None, Query()] = None,
    tool: Annotated[Line | None, Query()] = None,
    recipe: Annotated[Line | None, Query()] = None,
    lot: Annotated[Line | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ParticleSummary]:
    """The particles that you may see, newest first."""
    wanted = {"status": particle_status, "batch": batch, "process": process, "tool": tool, "recipe": recipe, "lot": lot}
    where: list[ColumnElement[bool]] = [getattr(ParticleRow, k) == v for k, v in wanted.items() if v is not None]
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
        if label_id is not None:
            where.append(ParticleRow.label_id.in_(book.meaning(label_id)))
        rows, following = records.page(session, ParticleRow, principal, *where, limit=limit, cursor=cursor)
    return Page[ParticleSummary](items=[summary_out(row, book) for row in rows], next_cursor=following)


@router.get("/particles/{particle_id}", responses=problem_responses(404))
def get_particle(particle_id: RecordId, response: Response, here: Here, principal: Reader) -> ParticleOut:
    """One particle, whole: views, decision, label set, nearest masters, size and shape."""
    with here.database.read() as session:
        answer = whole(session, principal, particle_id)
    response.headers["ETag"] = f'"{answer.version}"'
    return answer


@router.get("/particles/{particle_id}/decisions", responses=problem_responses(404))
def list_decisions(particle_id: RecordId, here: Here, principal: Reader) -> list[DecisionOut]:
    """Everything that was ever decided about a particle, oldest first: by which model and masters, or by whom."""
    with here.database.read() as session:
        records.get(session, ParticleRow, particle_id, principal)
        book = labels.book(session, principal.tenant)
        query = select(DecisionRow).where(DecisionRow.particle_id == particle_id).order_by(DecisionRow.id)
        return [decision_out(row, book) for row in session.scalars(query)]


@router.patch("/particles/{particle_id}", responses=problem_responses(404, 409))
def annotate_particle(
    particle_id: RecordId, body: Annotation, response: Response, if_match: IfMatch, here: Here, principal: Writer
) -> ParticleOut:
    """Change the note or the tags, which search reads. 409 when somebody else was quicker."""
    expected = expected_version(if_match)
    with here.database.transaction() as session:
        row = records.get(session, ParticleRow, particle_id, principal, lock=True)
        check_version(row, expected)
        particles.annotate(session, row, note=body.note, tags=body.tags)
        answer = whole(session, principal, particle_id)
    response.headers["ETag"] = f'"{answer.version}"'
    return answer


def check_version(row: ParticleRow, expected: int | None) -> None:
    """Raises: VersionConflict when the particle is not what the caller read."""
    if expected is not None and expected != row.version:
        raise VersionConflict(
            f"Particle {row.id} is at version {row.version}, not {expected}: read it again, then change it.",
            current_version=row.version,
        )


@router.post("/particles/{particle_id}/decide", responses=problem_responses(404, 409, 429))
async def decide_again(particle_id: RecordId, here: Here, principal: Writer) -> ParticleOut:
    """Decide a particle anew by the lane of today. No picture is read again; a reviewer's label stays."""
    return await here.classifying(lambda: _decide_again(here, principal, particle_id))


def _decide_again(here: Sem, principal: Principal, particle_id: str) -> ParticleOut:
    with here.database.read() as session:
        clearance = records.get(session, ParticleRow, particle_id, principal).clearance
    ready = here.lanes.ready(principal.tenant, clearance)
    with here.database.transaction() as session:
        if labels.held(session, principal.tenant).divided(ready.lane.labels):
            raise Conflict("A label was split at this moment: ask again.")
        row = records.get(session, ParticleRow, particle_id, principal, lock=True)
        if not particles.again(session, row, ready, actor=principal.subject):
            raise EncoderMismatch(
                f"The lane's encoder {ready.lane.encoder.kind} has not described particle {particle_id}: "
                "classify its batch, or run sem.reembed.",
                encoder=ready.lane.encoder.kind,
            )
        session.flush()
        return whole(session, principal, particle_id)


@router.delete("/particles/{particle_id}", responses=problem_responses(404, 409))
def delete_particle(particle_id: RecordId, here: Here, principal: Writer) -> Erased:
    """Erase a particle with its views and history. 409 while or after it stands for a label: sets name it for ever."""
    with here.database.transaction() as session:
        row = records.get(session, ParticleRow, particle_id, principal, lock=True)
        if session.scalar(select(MasterRow.id).where(MasterRow.particle_id == row.id).limit(1)) is not None:
            raise Conflict(f"Particle {particle_id} is or was a master; decisions name the sets that it is in.")
        artifacts = particles.erase(session, row)
        append_in(session, "sem.particle_erased", actor=principal.subject, subject=particle_id)
    here.likeness.forget(principal.tenant, particle_id)
    here.background.submit(here.sweep)
    return Erased(id=particle_id, artifacts=artifacts)


@router.get("/particles/{particle_id}/views/{position}/picture", response_class=Response, responses=_PICTURE)
def get_picture(particle_id: RecordId, position: Position, here: Here, principal: Reader) -> Response:
    """A small JPEG of a view."""
    with here.database.read() as session:
        view = _view(session, principal, particle_id, position)
    if view.picture_key is None:
        raise NotFound(f"View {position} of {particle_id} has not been looked at yet.")
    with here.artifacts.open(view.picture_key) as file:
        return Response(file.read(), media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"})


@router.get(
    "/particles/{particle_id}/views/{position}/image",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        **problem_responses(404),
    },
)
def get_image(particle_id: RecordId, position: Position, here: Here, principal: Reader) -> Response:
    """A view's file, byte for byte as it was sent."""
    with here.database.read() as session:
        view = _view(session, principal, particle_id, position)
    with here.artifacts.open(view.image_key) as file:
        body = file.read()
    headers = {"content-disposition": f'attachment; filename="{view.sha256[:16]}"', "x-content-type-options": "nosniff"}
    return Response(body, media_type="application/octet-stream", headers=headers)


def _view(session: Session, principal: Principal, particle_id: str, position: int) -> ViewRow:
    records.get(session, ParticleRow, particle_id, principal)
    view = session.get(ViewRow, (particle_id, position))
    if view is None:
        raise NotFound(f"Particle {particle_id} has no view {position}.")
    return view


@router.get("/batches", responses=problem_responses(404))
def list_batches(here: Here, principal: Reader, limit: Limit = 50) -> list[BatchOut]:
    """The newest batches and how far each is."""
    newest = func.max(ParticleRow.id).label("newest")
    mine = (records.visible(ParticleRow, principal), ParticleRow.batch.is_not(None))
    names = (
        select(ParticleRow.batch, newest).where(*mine).group_by(ParticleRow.batch).order_by(newest.desc()).limit(limit)
    )
    with here.database.read() as session:
        found: dict[str, dict[str, int]] = {str(row.batch): {} for row in session.execute(names)}
        counts = select(ParticleRow.batch, ParticleRow.status, func.count()).where(*mine, ParticleRow.batch.in_(found))
        for name, each, count in session.execute(counts.group_by(ParticleRow.batch, ParticleRow.status)):
            found[str(name)][each] = count
    return [BatchOut(batch=name, particles=sum(each.values()), by_status=each) for name, each in found.items()]


@router.post("/batches/{batch}/classify", status_code=status.HTTP_202_ACCEPTED, responses=problem_responses(404, 409))
def classify_batch(batch: Batch, key: IdempotencyKey, response: Response, here: Here, principal: Writer) -> JobOut:
    """Classify what waits in a batch, as a job. Killed and resumed as often as may be, none is lost and none doubled."""
    with here.database.read() as session:
        top = select(func.max(ParticleRow.clearance)).where(
            records.visible(ParticleRow, principal), ParticleRow.batch == batch
        )
        clearance = session.scalar(top)
    if clearance is None:
        raise NotFound(f"There is no batch {batch}.")
    job = here.jobs.submit(
        "sem.classify",
        {"batch": batch},
        principal=principal,
        idempotency_key=key,
        clearance=Clearance(clearance),
    )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_out(job)
