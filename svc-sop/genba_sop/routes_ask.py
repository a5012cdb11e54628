"""``/v1/sop/ask``: answers that cite the clips they rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_shared import records
from genba_shared.principal import Clearance, Principal
from genba_shared.service import problem_responses
from genba_sop import passages, search, spoken
from genba_sop.answering import NotWritten
from genba_sop.passages import Language, Passage, Ranked
from genba_sop.routes_videos import Reader
from genba_sop.schemas import AskIn, AskOut, CitationOut, TextOut
from genba_sop.service import Here, Sop
from genba_sop.tables import ProcedureRow, Video

router = APIRouter(prefix="/v1/sop", tags=["sop insight"])

_NOTHING: Final[dict[Language, str]] = {
    "en": "Nothing was found that answers this.",
    "ja": "この質問に答えるものは見つかりませんでした。",
}


@dataclass(frozen=True)
class _Evidence:
    """What was found, and how secret the most secret of it is."""

    citations: list[CitationOut]
    clearance: int


@router.post("/ask", responses=problem_responses(404, 429))
async def ask(body: AskIn, here: Here, principal: Reader) -> AskOut:
    """Answer a question from steps and transcripts that you may see, with the places in videos that say so. The best passages
    answer, or a language model from them where one is set (``GENBA_SOP_LLM_URL``).
    """
    found = await here.evaluating(lambda: _evidence(here, principal, body))
    citations = found.citations
    if not citations:
        nothing = _NOTHING[passages.language_of(body.question)]
        return AskOut(answer=nothing, found=False, written_by="passages", model=None, note=None, citations=[])
    if here.writer is None:
        return _of_passages(citations, note=None)
    if found.clearance > Clearance.parse(here.settings.llm_clearance):
        return _of_passages(citations, note="above_model_clearance")
    try:
        answer, cited = await here.writer.write(body.question, [each.words for each in citations])
    except NotWritten as failure:
        return _of_passages(citations, note=failure.reason)
    kept = [each for each in citations if each.n in cited]
    return AskOut(answer=answer, found=True, written_by="model", model=here.writer.model, note=None, citations=kept)


def _of_passages(citations: list[CitationOut], *, note: str | None) -> AskOut:
    answer = "\n".join(f"{each.words} [{each.n}]" for each in citations)
    return AskOut.model_validate(
        {"answer": answer, "found": True, "written_by": "passages", "model": None, "note": note, "citations": citations}
    )


def _evidence(here: Sop, principal: Principal, body: AskIn) -> _Evidence:
    with here.database.read() as session:
        if body.procedure_id is not None:
            records.get(session, ProcedureRow, body.procedure_id, principal)
        ranked = passages.best(body.question, _passages(session, principal, body), k=body.k)
        of_videos = select(Video.id, Video.title, Video.clearance).where(
            records.visible(Video, principal), Video.id.in_({each.passage.video_id for each in ranked})
        )
        videos = {video_id: (title, clearance) for video_id, title, clearance in session.execute(of_videos)}
        of_procedures = select(ProcedureRow.clearance).where(
            ProcedureRow.id.in_({each.passage.procedure_id for each in ranked if each.passage.procedure_id})
        )
        labels = [*session.scalars(of_procedures), *(clearance for _, clearance in videos.values())]
    there = [each for each in ranked if each.passage.video_id in videos]  # one may have been erased just now
    citations = [_citation(n, each, videos[each.passage.video_id][0]) for n, each in enumerate(there, start=1)]
    return _Evidence(citations, max(labels, default=0))


def _passages(session: Session, principal: Principal, body: AskIn) -> list[Passage]:
    """One passage for each step, at the first place that shows it, and what is said in videos."""
    known = search.there(session, principal, search.moments(session, principal, body.procedure_id))
    language = passages.language_of(body.question)
    steps: dict[tuple[str | None, str], Passage] = {}
    for moment in known:  # golds come first
        if moment.step is not None:
            words = passages.words_of(moment.step, language)
            steps.setdefault(
                (moment.procedure_id, moment.step.id),
                Passage(words, moment.video_id, moment.start_s, moment.end_s, moment.procedure_id, moment.step),
            )
    heard = search.heard(session, principal, body.question, known, body.procedure_id)
    return [*steps.values(), *passages.joined(spoken.around(session, heard))]


def _citation(n: int, ranked: Ranked, title: str) -> CitationOut:
    passage, step = ranked.passage, ranked.passage.step
    return CitationOut(
        n=n,
        video_id=passage.video_id,
        video_title=title,
        start_s=passage.start_s,
        end_s=passage.end_s,
        words=passage.words,
        kind="transcript" if passage.said else "step",
        procedure_id=passage.procedure_id,
        step_id=step.id if step else None,
        step_name=TextOut.model_validate(step.name) if step else None,
        score=ranked.score,
    )
