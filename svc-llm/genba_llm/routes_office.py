"""``/v1/llm/documents`` and ``/v1/llm/office``: the company's documents, and the work that rests on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, status
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from genba_llm import office, store
from genba_llm.assistant import Written, whole
from genba_llm.backend_extractive import Extractive
from genba_llm.decisions import Asked, Recorded
from genba_llm.document_child import extract
from genba_llm.generation import Backend, Message, Options
from genba_llm.routes_audit import Cursor, Limit
from genba_llm.routes_gate import Reader, Writer, asked_of
from genba_llm.schemas import (
    Compartment,
    DocumentOut,
    DraftMailIn,
    DraftMailOut,
    SearchIn,
    SearchOut,
    SummarizeIn,
    SummarizeOut,
    SummaryLine,
)
from genba_llm.service import Here, Llm
from genba_llm.tables import ChunkRow, DocumentRow
from genba_llm.wire_out import citations, decision_out, document_out
from genba_shared import records
from genba_shared.clearance import Clearance
from genba_shared.principal import Principal
from genba_shared.problems import Invalid, PayloadTooLarge
from genba_shared.service import problem_responses
from genba_shared.wire_records import ClearanceLabel, Page, RecordId

router = APIRouter(prefix="/v1/llm", tags=["llm office"])
_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_KINDS: Final = (
    "text/plain",
    "text/markdown",
    "text/html",
    "application/pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/octet-stream",
)
_BODY: Final[dict[str, Any]] = {"requestBody": {"required": True, "content": dict.fromkeys(_KINDS, _BINARY)}}


@router.post(
    "/documents",
    status_code=status.HTTP_201_CREATED,
    responses=problem_responses(409, 413, 415),
    openapi_extra=_BODY,
)
async def add_document(
    request: Request,
    here: Here,
    principal: Writer,
    title: Annotated[str | None, Query(min_length=1, max_length=300)] = None,
    name: Annotated[
        str | None, Query(max_length=300, description="The file's name; its ending helps to tell Markdown.")
    ] = None,
    clearance: ClearanceLabel | None = None,
    compartments: Annotated[list[Compartment] | None, Query(max_length=16)] = None,
) -> DocumentOut:
    """Take in a document: text, Markdown, HTML, PDF or Word. Its label is internal when none is given."""
    data = await _body(request, here.settings.max_document_bytes)
    label = records.label_for(principal, clearance)

    def add() -> DocumentRow:
        found = extract(data, content_type=request.headers.get("content-type"), name=name)
        return here.library.add(
            principal, found, title=title, clearance=label, compartments=frozenset(compartments or [])
        )

    return document_out(await run_in_threadpool(add))


async def _body(request: Request, limit: int) -> bytes:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > limit:
            raise PayloadTooLarge(f"A document may have {limit} bytes.", limit=limit)
    if not data:
        raise Invalid("The body is empty.", errors=[{"field": "body", "message": "is empty"}])
    return bytes(data)


@router.get("/documents")
def list_documents(here: Here, principal: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[DocumentOut]:
    """The documents that you may see, newest first."""
    with here.database.read() as session:
        rows, following = store.page(session, DocumentRow, principal, limit=limit, cursor=cursor)
        return Page[DocumentOut](items=[document_out(row) for row in rows], next_cursor=following)


@router.get("/documents/{document_id}", responses=problem_responses(404))
def read_document(document_id: RecordId, here: Here, principal: Reader) -> DocumentOut:
    """One document, without its text."""
    with here.database.read() as session:
        return document_out(store.get(session, DocumentRow, document_id, principal))


@router.delete("/documents/{document_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problem_responses(404))
def delete_document(document_id: RecordId, here: Here, principal: Writer) -> None:
    """Delete a document with its passages."""
    here.library.remove(principal, document_id)


@router.post("/office/search", responses=problem_responses(413))
def search_documents(body: SearchIn, here: Here, principal: Writer) -> SearchOut:
    """Passages of the documents that you may see, best first. The question passes the gate like any other."""
    recorded = here.decisions.decide(principal, asked_of(body, body.query, route="office_search", action="search"))
    hits = here.library.search(principal, body.query, limit=body.limit) if recorded.allowed else []
    return SearchOut(decision=decision_out(recorded), hits=citations(hits))


@router.post("/office/summarize", responses=problem_responses(404, 413, 502))
def summarize(body: SummarizeIn, here: Here, principal: Writer) -> SummarizeOut:
    """Summarise a text or a document; each line names the sentences that it rests on."""
    text, least, boxes = _text_of(body, here, principal)
    asked = asked_of(body, text, route="office_summarize", action="summarize")
    if least is not None:
        given = least if asked.classification is None else max(asked.classification, least)
        asked = replace(asked, classification=given, compartments=asked.compartments.union(boxes))
    recorded = here.decisions.decide(principal, asked)
    backend = here.assistant.speakers.choose(documents=True)
    model = backend.model
    if not recorded.allowed:
        return SummarizeOut(decision=decision_out(recorded), model=model, lines=[], finish=None)
    if isinstance(backend, Extractive):
        lines = office.select_summary(text, lines=body.lines)
        here.decisions.note_answer(
            principal,
            recorded,
            answer="\n".join(each.text for each in lines),
            hidden="",
            facts={"model": model, "finish": "stop"},
        )
        written = Written()
    else:
        prompt = office.summary_prompt(text, lines=body.lines, language=recorded.verdict.language)
        said, written = _write(here, principal, recorded, prompt, asked, backend)
        lines = office.cite(said, text)[: body.lines]
    out = [SummaryLine(text=each.text, sources=list(each.sources)) for each in lines]
    return SummarizeOut(decision=decision_out(recorded), model=model, lines=out, finish=written.finish)


def _text_of(body: SummarizeIn, here: Llm, principal: Principal) -> tuple[str, Clearance | None, Sequence[str]]:
    """The text to summarise, and of a document the least classification that it has, and its compartments."""
    if (body.text is None) == (body.document_id is None):
        message = "give either text or document_id"
        raise Invalid(f"Mend text: {message}.", errors=[{"field": "text", "message": message}])
    if body.text is not None:
        return body.text, None, ()
    with here.database.read() as session:
        row = store.get(session, DocumentRow, str(body.document_id), principal)
        pieces = select(ChunkRow.text).where(ChunkRow.document_id == row.id).order_by(ChunkRow.number)
        text = "\n".join(session.scalars(pieces))
        return text[: here.settings.max_prompt_chars], Clearance(row.clearance), row.compartments


@router.post("/office/draft-mail", responses=problem_responses(413, 502))
def draft_mail(body: DraftMailIn, here: Here, principal: Writer) -> DraftMailOut:
    """Draft a mail from points. Nothing is sent."""
    given = "\n".join([body.purpose, *body.points])
    asked = asked_of(body, given, route="office_draft_mail", action="draft_mail")
    asked = replace(asked, earlier=(body.recipient, body.sender))
    recorded = here.decisions.decide(principal, asked)
    backend = here.assistant.speakers.choose(documents=True)
    model = backend.model
    if not recorded.allowed:
        return DraftMailOut(decision=decision_out(recorded), model=model, subject=None, body=None, finish=None)
    language = recorded.verdict.language
    if isinstance(backend, Extractive):
        subject, text = office.compose_mail(
            body.recipient, body.purpose, body.points, sender=body.sender, language=language
        )
        here.decisions.note_answer(
            principal, recorded, answer=text, hidden="", facts={"model": model, "finish": "stop"}
        )
        written = Written()
    else:
        prompt = office.mail_prompt(body.recipient, body.purpose, body.points, sender=body.sender, language=language)
        said, written = _write(here, principal, recorded, prompt, asked, backend)
        subject, text = office.split_mail(said, body.purpose)
    return DraftMailOut(decision=decision_out(recorded), model=model, subject=subject, body=text, finish=written.finish)


def _write(
    here: Llm, principal: Principal, recorded: Recorded, prompt: list[Message], asked: Asked, backend: Backend
) -> tuple[str, Written]:
    options = Options(max_tokens=here.settings.max_answer_tokens)
    released, written = here.assistant.answer(
        principal, recorded, prompt, options, mode="strip", asked=asked, backend=backend
    )
    text, _ = whole(released, written)
    return text, written
