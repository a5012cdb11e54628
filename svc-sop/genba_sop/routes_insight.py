"""``/v1/sop/search`` and ``/v1/sop/analytics``: what many videos and evaluations tell together."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from genba_shared import records
from genba_shared.principal import Principal
from genba_shared.problems import Invalid, fault
from genba_shared.service import problem_responses
from genba_shared.wire import Moment
from genba_shared.wire_records import RecordId
from genba_sop import analytics, search
from genba_sop.routes_videos import Reader
from genba_sop.schemas import (
    AnalyticsOut,
    CueOut,
    Operator,
    OperatorTrend,
    SearchHit,
    SearchIn,
    SearchOut,
    StepTimes,
    TextOut,
    TimeSaved,
)
from genba_sop.service import Here, Sop
from genba_sop.tables import EvaluationRow, ProcedureRow, Video

router = APIRouter(prefix="/v1/sop", tags=["sop insight"])

MOST_ROWS: Final = 5000
Minutes = Annotated[float | None, Query(ge=0, le=10_000)]
_COLUMNS: Final = ("id", "procedure_id", "operator", "created_at", "score", "verdict", "reviewed_verdict", "timings_ms")


@router.post("/search", responses=problem_responses(404, 409, 429))
async def search_clips(body: SearchIn, here: Here, principal: Reader) -> SearchOut:
    """Find clips by text, by clip, or by both. 409 when the clip was embedded by another encoder than the
    collection.
    """
    return await here.evaluating(lambda: _search(here, principal, body))


def _search(here: Sop, principal: Principal, body: SearchIn) -> SearchOut:
    if body.clip is not None:
        if body.clip.end_s is not None and body.clip.end_s <= body.clip.start_s:
            raise Invalid("clip.end_s must be greater than start_s.", errors=[fault("clip.end_s", "not after start_s")])
        here.clips.index_pending()
    query = search.Query(
        text=body.text,
        clip=(body.clip.video_id, body.clip.start_s, body.clip.end_s) if body.clip else None,
        alpha=body.alpha,
        transcript_alpha=body.transcript_alpha,
        k=body.k,
        procedure_id=body.procedure_id,
    )
    with here.database.read() as session:
        found = search.run(session, principal, query, clips=here.clips, features=here.evaluations.features)
        ids = {each.moment.video_id for each in found}
        rows = session.execute(select(Video.id, Video.title).where(Video.id.in_(ids)))
        titles = {video_id: title for video_id, title in rows}  # noqa: C416 (dict() of rows does not type)
    mixed = body.text is not None and body.clip is not None
    return SearchOut(
        hits=[_hit(each, titles.get(each.moment.video_id, "")) for each in found],
        encoder=here.clips.encoder if body.clip else None,
        collection_version=here.clips.version if body.clip else None,
        fusion="convex" if mixed else "none",
        alpha=body.alpha if mixed else None,
        transcript_alpha=body.transcript_alpha if any(each.text and each.text.said for each in found) else None,
    )


def _hit(found: search.Found, title: str) -> SearchHit:
    moment = found.moment
    said = found.text.said if found.text else None
    return SearchHit(
        video_id=moment.video_id,
        video_title=title,
        start_s=moment.start_s,
        end_s=moment.end_s,
        score=found.score,
        text_score=found.text.step if found.text else None,
        transcript_score=said.score if said else None,
        transcript=CueOut(**asdict(said.cue)) if said else None,
        clip_score=found.clip,
        procedure_id=moment.procedure_id,
        step_id=moment.step.id if moment.step else None,
        step_name=TextOut.model_validate(moment.step.name) if moment.step else None,
        source=moment.source,
    )


@router.get("/analytics", responses=problem_responses(404))
def get_analytics(
    here: Here,
    principal: Reader,
    procedure_id: RecordId | None = None,
    operator: Annotated[Operator | None, Query()] = None,
    since: Annotated[Moment | None, Query(description="with a time zone")] = None,
    until: Annotated[Moment | None, Query(description="with a time zone")] = None,
    manual_minutes: Annotated[Minutes, Query(description="your figure: minutes to judge one run by hand")] = None,
    review_minutes: Annotated[Minutes, Query(description="your figure: minutes for one review")] = None,
    hourly_cost: Annotated[float | None, Query(ge=0, le=1e9, description="your figure, in your currency")] = None,
) -> AnalyticsOut:
    """Step times, operators' trends and, from your own figures, time saved, over the newest 5,000 evaluations asked
    for.
    """
    equal = {EvaluationRow.procedure_id: procedure_id, EvaluationRow.operator: operator}
    where: list[ColumnElement[bool]] = [column == value for column, value in equal.items() if value is not None]
    if since is not None:
        where.append(EvaluationRow.created_at >= since)
    if until is not None:
        where.append(EvaluationRow.created_at < until)
    with here.database.read() as session:
        if procedure_id is not None:
            records.get(session, ProcedureRow, procedure_id, principal)
        rows = _read(session, principal, where)
    scored, truncated = rows[:MOST_ROWS], len(rows) > MOST_ROWS
    saved = None
    if manual_minutes is not None:
        figures = analytics.Figures(manual_minutes, review_minutes or 0.0, hourly_cost)
        saved = TimeSaved.model_validate(analytics.time_saved(scored, figures))
    return AnalyticsOut(
        evaluations=len(scored),
        truncated=truncated,
        verdicts=dict(Counter(each.verdict for each in scored)),
        deviations=dict(Counter(d["kind"] for each in scored for d in each.deviations)),
        steps=[StepTimes.model_validate(asdict(row)) for row in analytics.step_figures(scored)],
        operators=[OperatorTrend.model_validate(asdict(trend)) for trend in analytics.trends(scored)],
        time_saved=saved,
    )


def _read(session: Session, principal: Principal, where: list[ColumnElement[bool]]) -> list[analytics.Scored]:
    """The newest evaluations, one more than are used; of their documents only the tables."""
    columns: list[Any] = [getattr(EvaluationRow, name) for name in _COLUMNS]
    columns += [EvaluationRow.document["steps"], EvaluationRow.document["deviations"]]
    query = select(*columns).where(records.visible(EvaluationRow, principal), *where)
    rows = session.execute(query.order_by(EvaluationRow.id.desc()).limit(MOST_ROWS + 1)).all()
    return [_scored(*row) for row in rows]


def _scored(
    row_id: str,
    procedure_id: str,
    operator: str | None,
    created_at: datetime,
    score: float,
    verdict: str,
    reviewed_verdict: str | None,
    timings_ms: dict[str, float],
    steps: list[dict[str, Any]],
    deviations: list[dict[str, Any]],
) -> analytics.Scored:
    return analytics.Scored(
        id=row_id,
        procedure_id=procedure_id,
        operator=operator,
        created_at=created_at,
        score=score,
        verdict=reviewed_verdict or verdict,
        reviewed=reviewed_verdict is not None,
        compute_s=timings_ms.get("total_ms", 0.0) / 1000,
        steps=steps,
        deviations=deviations,
    )
