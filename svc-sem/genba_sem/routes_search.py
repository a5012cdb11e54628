"""``POST /v1/sem/search``: particles by words in English or Japanese, by a particle, or by a picture."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from genba_sem import labels, pictured, search
from genba_sem.dependencies import Reader
from genba_sem.labels import LabelBook
from genba_sem.lanes import vectors_of
from genba_sem.looking import File, Hints, look
from genba_sem.schemas_particles import Batch, LabelRef, ParticleStatus, ParticleSummary, ref, summary_out
from genba_sem.search import Found
from genba_sem.service import Here, Sem
from genba_sem.tables import ParticleRow
from genba_sem.upload import Form, check, receive
from genba_shared import records
from genba_shared.principal import Principal
from genba_shared.problems import EncoderMismatch
from genba_shared.service import problem_responses
from genba_shared.wire import Real, Whole
from genba_shared.wire_records import Asked, RecordId, Wire

router = APIRouter(prefix="/v1/sem/search", tags=["sem search"])

_FORM: Final = {
    "type": "object",
    "required": ["views"],
    "properties": {
        "views": {"type": "array", "minItems": 1, "maxItems": 12, "items": {"type": "string", "format": "binary"}}
    },
}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
}
Text = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]+$")]


class SearchIn(Asked):
    """Find particles by text, by a particle, or by both (``alpha`` weighs the particle)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "針状の粒子"}, {"text": "needle-like", "k": 5}]})

    text: Text | None = None
    particle_id: RecordId | None = None
    alpha: Annotated[Real, Field(ge=0, le=1)] = 0.5
    k: Annotated[Whole, Field(ge=1, le=200)] = 20
    label_id: RecordId | None = None
    status: ParticleStatus | None = None
    batch: Batch | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> SearchIn:
        if self.text is None and self.particle_id is None:
            raise ValueError("give text, particle_id or both")
        return self


class HitOut(Wire):
    """A particle that fits. Scores are of this query only."""

    particle: ParticleSummary
    score: float
    matched: list[str] = Field(description="label:…, shape:…, written, picture: what met the query.")


class ConceptOut(Wire):
    """A shape word that was understood, and what it was taken to mean."""

    concept: str
    conditions: list[str]


class SearchOut(Wire):
    """What was found, and how the query was understood."""

    hits: list[HitOut]
    labels: list[LabelRef]
    shapes: list[ConceptOut]
    encoder: str | None = Field(description="Whose vectors were compared; null when only words were.")
    notice: str | None


@router.post("", responses=problem_responses(404, 409, 429))
async def search_particles(body: SearchIn, here: Here, principal: Reader) -> SearchOut:
    """Find particles by text, by a particle, or by both; grouped by particle, each hit with what matched."""
    return await here.classifying(lambda: _search(here, principal, body))


def _search(here: Sem, principal: Principal, body: SearchIn) -> SearchOut:
    lane = None if body.particle_id is None else here.lanes.lane_or_none(principal.tenant, int(principal.clearance))
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
        where = _narrowed(book, body)
        by_text: list[Found] = []
        query, looks, notice = None, None, None
        if body.text is not None:
            query = search.understand(session, principal, book, body.text)
            clip = here.text_encoder.for_search()
            fits = {} if clip is None else pictured.fits(session, principal, clip, _said(book, query), where)
            looks = None if clip is None else clip.id
            by_text = search.by_text(session, principal, book, query, where, pictured=fits)
            notice = search.NOTICE if looks is None else search.PICTURED.format(encoder=looks, count=len(fits))
        if body.particle_id is None:
            return _out(session, book, by_text[: body.k], query, encoder=looks, notice=notice)
        like = records.get(session, ParticleRow, body.particle_id, principal)
        own = vectors_of(session, [like.id])  # compares with those of its time; a master has none
        seen = (own or vectors_of(session, [like.id], lane)).get(like.id)
        if seen is None:
            raise EncoderMismatch(f"Particle {like.id} has no vector yet: classify its batch first.")
        space, vector = seen
        among = [each.particle_id for each in by_text] if body.text is not None else None
        others = [*where, ParticleRow.id != like.id]
        near = None
        if among is None:
            kept = _kept(book, body)
            here.lanes.model_now(principal.tenant)  # from now on the sweeper follows this tenant
            near = here.likeness.nearest(session, principal, vector, space=space, k=body.k, where=others, kept=kept)
        if near is None:
            near = search.by_vector(session, principal, vector, encoder=space, where=others, candidates=among)
        found = _mixed(by_text, near, body.alpha) if body.text is not None else near
        return _out(session, book, found[: body.k], query, encoder=space, notice=notice)


def _said(book: LabelBook, query: search.Query) -> list[str]:
    """The text, and the names of the labels that it speaks of."""
    named = [book.by_id[each].words for each, fit in query.labels.items() if fit > 0.5]
    return [query.text, *named]


def _narrowed(book: LabelBook, body: SearchIn) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    if body.label_id is not None:
        where.append(ParticleRow.label_id.in_(book.meaning(body.label_id)))
    if body.status is not None:
        where.append(ParticleRow.status == body.status)
    if body.batch is not None:
        where.append(ParticleRow.batch == body.batch)
    return where


def _kept(book: LabelBook, body: SearchIn) -> dict[str, str | list[str]]:
    """The same, as the vector store is asked."""
    said: dict[str, str | list[str] | None] = {
        "label_id": None if body.label_id is None else list(book.meaning(body.label_id)),
        "status": body.status,
        "batch": body.batch,
    }
    return {name: value for name, value in said.items() if value is not None}


def _mixed(by_text: list[Found], near: list[Found], alpha: float) -> list[Found]:
    likeness = {each.particle_id: each.score for each in near}
    mixed = [
        Found(
            each.particle_id,
            round((1 - alpha) * each.score + alpha * likeness[each.particle_id], 6),
            (*each.matched, "picture"),
        )
        for each in by_text
        if each.particle_id in likeness
    ]
    return sorted(mixed, key=lambda each: (-each.score, each.particle_id))


@router.post("/image", openapi_extra=_BODY, responses=problem_responses(404, 408, 409, 411, 413, 415, 429))
async def search_by_image(
    request: Request, here: Here, principal: Reader, k: Annotated[int, Query(ge=1, le=200)] = 20
) -> SearchOut:
    """Find the particles that look like the views sent; nothing of them is kept. Needs masters, whose lane compares."""
    check(request, cap_bytes=here.settings.body_cap_bytes)
    with here.classifying.place():
        cap = {"cap_bytes": here.settings.body_cap_bytes, "cap_file_bytes": here.settings.max_image_bytes}
        async with receive(request, here.spool, **cap) as form:
            return await here.classifying.run(lambda: _search_image(here, principal, form, k))


def _search_image(here: Sem, principal: Principal, form: Form, k: int) -> SearchOut:
    ready = here.lanes.ready(principal.tenant, int(principal.clearance))
    files = [File(sent.path, sent.file_name) for sent in form.files][: here.settings.max_views]
    looks = look(files, ready.lane.encoder, hints=Hints(), limits=here.limits, least=1, read=here.pictures.read_view)
    row = ready.decide([each.seen for each in looks.views], "").row
    encoder = ready.lane.space
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
        near = here.likeness.nearest(session, principal, row, space=encoder, k=k)
        if near is None:
            near = search.by_vector(session, principal, row, encoder=encoder, where=[])
        return _out(session, book, near[:k], None, encoder=encoder)


def _out(
    session: Session,
    book: LabelBook,
    found: list[Found],
    query: search.Query | None,
    *,
    encoder: str | None,
    notice: str | None = None,
) -> SearchOut:
    ids = [each.particle_id for each in found]
    rows = {row.id: row for row in session.scalars(select(ParticleRow).where(ParticleRow.id.in_(ids)))}
    hits = [
        HitOut(particle=summary_out(rows[each.particle_id], book), score=each.score, matched=list(each.matched))
        for each in found
        if each.particle_id in rows
    ]
    concepts = query.concepts if query else ()
    return SearchOut(
        hits=hits,
        labels=[label for each in (query.labels if query else {}) if (label := ref(book, each)) is not None],
        shapes=[ConceptOut(concept=c.name, conditions=[each.words() for each in c.conditions]) for c in concepts],
        encoder=encoder,
        notice=notice,
    )
