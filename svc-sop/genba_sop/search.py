"""Find clips by what is written of them, by how they look, or by both. Knows nothing of HTTP.

Text meets the steps' names, tools and actions and so the places where gold runs and evaluated videos show them, and what is
said in transcripts, both by BM25. A word that one text alone holds weighs the same in either, however many texts there are,
and they are mixed: transcript_alpha · said + (1 − transcript_alpha) · steps. What is said while a step is done speaks for its
other performances too, by half. A clip meets clips by their vectors; with text beside it, each brought to [0, 1]:
alpha · clip + (1 − alpha) · text.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from genba_shared import records
from genba_shared.lexical import Bm25
from genba_shared.principal import Principal
from genba_shared.problems import Invalid, fault
from genba_sop import spoken, store
from genba_sop.bundles import mean_vector
from genba_sop.clip_index import ClipHit, ClipIndex
from genba_sop.features import Array, Features
from genba_sop.procedure import Step, Text
from genba_sop.procedures import procedure_at
from genba_sop.spoken import Heard, Said
from genba_sop.tables import EvaluationRow, Gold, ProcedureRow, Video

Source = Literal["gold", "evaluation", "video"]

MOST_PROCEDURES: Final = 1000
MOST_EVALUATIONS: Final = 500
CANDIDATES: Final = 200  # clips taken from the vectors before they are mixed and thinned
SHARED_SPEECH: Final = 0.5  # of what is said in one performance of a step counts for the others
SAME_SHARE: Final = 0.5  # two clips of a video that overlap by so much of the shorter are one


@dataclass(frozen=True)
class Moment:
    """A place where something is known to happen, or just a clip."""

    video_id: str
    start_s: float
    end_s: float
    source: Source
    procedure_id: str | None = None
    step: Step | None = None

    def overlap_s(self, start_s: float, end_s: float) -> float:
        """Seconds shared with a stretch of the same video."""
        return min(self.end_s, end_s) - max(self.start_s, start_s)


@dataclass(frozen=True)
class Written:
    """How words meet a moment: its step's, the best cue in it, and both together."""

    score: float
    step: float = 0.0
    said: Said | None = None


@dataclass(frozen=True)
class Found:
    """A moment with its scores; ``text`` and ``clip`` are None when not asked for."""

    moment: Moment
    score: float
    text: Written | None = None
    clip: float | None = None


@dataclass(frozen=True)
class Query:
    """What is looked for. ``clip`` is (video id, start, end)."""

    text: str | None = None
    clip: tuple[str, float, float | None] | None = None
    alpha: float = 0.5
    transcript_alpha: float = 0.5
    k: int = 10
    procedure_id: str | None = None


def moments(session: Session, principal: Principal, procedure_id: str | None) -> list[Moment]:
    """Every place of a known step that the caller may see: in golds, and in the latest evaluation of each video."""
    wanted = records.visible(ProcedureRow, principal)
    if procedure_id is not None:
        wanted = and_(wanted, ProcedureRow.id == procedure_id)
    query = select(ProcedureRow).where(wanted).order_by(ProcedureRow.id.desc()).limit(MOST_PROCEDURES)
    found: list[Moment] = []
    for row in session.scalars(query):
        steps = {step.id: step for step in procedure_at(session, row.id, row.version).steps}
        for gold in store.golds_of(session, row.id, row.version):
            found += _moments(gold.video_id, gold.spans, "gold", row.id, steps)
        found += _evaluated(session, principal, row, steps)
    return found


def _evaluated(session: Session, principal: Principal, row: ProcedureRow, steps: dict[str, Step]) -> Iterable[Moment]:
    golds = select(Gold.video_id).where(Gold.procedure_id == row.id, Gold.version == row.version)
    where = (
        records.visible(EvaluationRow, principal),
        EvaluationRow.procedure_id == row.id,
        EvaluationRow.video_id.not_in(golds),
    )
    query = select(EvaluationRow.video_id, EvaluationRow.document["steps"]).where(*where)
    seen: set[str] = set()
    for video_id, table in session.execute(query.order_by(EvaluationRow.id.desc()).limit(MOST_EVALUATIONS)):
        if video_id not in seen:
            seen.add(video_id)
            spans = [span for step in table for span in step["spans"]]
            yield from _moments(video_id, spans, "evaluation", row.id, steps)


def _moments(
    video_id: str, spans: Iterable[dict[str, object]], source: Source, procedure_id: str, steps: dict[str, Step]
) -> list[Moment]:
    return [
        Moment(video_id, float(str(s["start_s"])), float(str(s["end_s"])), source, procedure_id, steps[str(s["id"])])
        for s in spans
        if s["id"] in steps
    ]


def run(
    session: Session,
    principal: Principal,
    query: Query,
    *,
    clips: ClipIndex,
    features: Callable[[Video], Features],
) -> list[Found]:
    """The ``k`` best clips, best first, of videos that are there and that the caller may see.

    Raises:  NotFound for the clip's video or the procedure; EncoderMismatch; Invalid for an empty clip.
    """
    if query.procedure_id is not None:
        records.get(session, ProcedureRow, query.procedure_id, principal)
    known = moments(session, principal, query.procedure_id)
    near: list[ClipHit] = []
    if query.clip is not None:
        near = _near(session, principal, query, clips, features, known)
    said = Heard()
    if query.text is not None:
        said = heard(session, principal, query.text, known, query.procedure_id)
    found = _mixed(query, known, near, said)
    there = _there(session, principal, {each.moment.video_id for each in found})
    return _thinned([each for each in found if each.moment.video_id in there], query.k)


def _near(
    session: Session,
    principal: Principal,
    query: Query,
    clips: ClipIndex,
    features: Callable[[Video], Features],
    known: Sequence[Moment],
) -> list[ClipHit]:
    """The nearest clips, without the asked one itself."""
    if query.clip is None:
        return []
    video_id, start_s, end_s = query.clip
    video = records.get(session, Video, video_id, principal)
    until_s = video.duration_s if end_s is None else end_s
    vector = mean_vector(features(video), start_s, until_s)
    if vector is None:
        message = f"holds no frame of the video, which lasts {video.duration_s:.1f} s"
        raise Invalid(f"clip: {start_s:g}–{until_s:g} s {message}.", errors=[fault("clip.start_s", message)])
    videos = None if query.procedure_id is None else sorted({moment.video_id for moment in known})
    if videos == []:
        return []
    hits = _search(clips, vector, video.encoder, principal, videos)
    return [hit for hit in hits if hit.video_id != video_id or min(hit.end_s, until_s) - max(hit.start_s, start_s) <= 0]


def _search(
    clips: ClipIndex, vector: Array, encoder: str, principal: Principal, videos: list[str] | None
) -> list[ClipHit]:
    return clips.search(vector, encoder=encoder, principal=principal, k=CANDIDATES, videos=videos)


def heard(
    session: Session, principal: Principal, text: str, known: Sequence[Moment], procedure_id: str | None
) -> Heard:
    """What is said of a text, in the procedure's own videos if one is named."""
    videos = None if procedure_id is None else {moment.video_id for moment in known}
    return spoken.find(session, principal, text, videos=videos)


def _mixed(query: Query, known: Sequence[Moment], near: Sequence[ClipHit], heard: Heard) -> list[Found]:
    """Candidates with their scores, best first."""
    by_video: dict[str, list[Moment]] = {}
    for moment in known:
        by_video.setdefault(moment.video_id, []).append(moment)
    written = _written(query, known, by_video, heard)
    looks = [(hit, _best(by_video.get(hit.video_id, ()), hit) or _spoken_in(written, hit)) for hit in near]
    found = [
        _of_clip(hit, moment, None if query.text is None else (moment and written.get(moment)) or Written(0.0))
        for hit, moment in looks
    ]
    covered = {moment for _, moment in looks}
    found += [
        Found(moment, 0.0, text=words, clip=None if query.clip is None else 0.0)
        for moment, words in written.items()
        if moment not in covered
    ]
    alpha = query.alpha if query.text is not None and query.clip is not None else float(query.clip is not None)
    most_text = max((each.text.score for each in found if each.text), default=0.0) or 1.0
    most_clip = max((each.clip or 0.0 for each in found), default=0.0) or 1.0
    scored = [
        replace(
            each,
            score=alpha * max(each.clip or 0.0, 0.0) / most_clip
            + (1 - alpha) * (each.text.score if each.text else 0.0) / most_text,
        )
        for each in found
    ]
    rank = {"gold": 0, "evaluation": 1, "video": 2}
    return sorted(scored, key=lambda each: (-each.score, rank[each.moment.source], each.moment.video_id))


def _of_clip(hit: ClipHit, moment: Moment | None, words: Written | None) -> Found:
    place = Moment(hit.video_id, hit.start_s, hit.end_s, "video")
    if moment is not None:
        place = replace(place, source=moment.source, procedure_id=moment.procedure_id, step=moment.step)
    return Found(place, 0.0, text=words, clip=hit.similarity)


def _written(
    query: Query, known: Sequence[Moment], by_video: dict[str, list[Moment]], heard: Heard
) -> dict[Moment, Written]:
    """Every moment that the text meets, by its step or by what is said in it; a cue outside the steps is its own."""
    steps, rarest = _text_scores(known, query.text or "")
    if not heard.said:
        return {moment: Written(score, score) for moment, score in steps.items()}
    best: dict[Moment, Said] = {}
    for each in heard.said:  # best first
        cue = each.cue
        least = SAME_SHARE * (cue.end_s - cue.start_s)
        within = [m for m in by_video.get(each.video_id, ()) if m.overlap_s(cue.start_s, cue.end_s) >= least]
        for moment in within or [Moment(each.video_id, cue.start_s, cue.end_s, "video")]:
            best.setdefault(moment, each)
    shared: dict[tuple[str | None, str], float] = defaultdict(float)
    for moment, said in best.items():
        if moment.step is not None:
            key = (moment.procedure_id, moment.step.id)
            shared[key] = max(shared[key], SHARED_SPEECH * said.score)
    of_others = {m: shared[m.procedure_id, m.step.id] for m in known if m.step is not None} if shared else {}
    spoken_of = [moment for moment, score in of_others.items() if score > 0]
    alpha = query.transcript_alpha
    found: dict[Moment, Written] = {}
    for moment in dict.fromkeys([*steps, *best, *spoken_of]):
        step, own = steps.get(moment, 0.0), best.get(moment)
        words = max(own.score if own else 0.0, of_others.get(moment, 0.0))
        found[moment] = Written(alpha * words / heard.rarest + (1 - alpha) * step / rarest, step, own)
    return found


def _spoken_in(written: dict[Moment, Written], hit: ClipHit) -> Moment | None:
    """The cue outside every known step that is said in a clip, the best of several."""
    inside = [
        moment
        for moment in written
        if moment.step is None
        and moment.video_id == hit.video_id
        and moment.overlap_s(hit.start_s, hit.end_s) >= SAME_SHARE * (moment.end_s - moment.start_s)
    ]
    return max(inside, key=lambda moment: written[moment].score, default=None)


def _best(known: Sequence[Moment], hit: ClipHit) -> Moment | None:
    """The known moment that shares most with a clip, if any shares half of it."""
    best = max(known, key=lambda moment: moment.overlap_s(hit.start_s, hit.end_s), default=None)
    if best is None or best.overlap_s(hit.start_s, hit.end_s) < SAME_SHARE * (hit.end_s - hit.start_s):
        return None
    return best


def _text_scores(known: Sequence[Moment], text: str) -> tuple[dict[Moment, float], float]:
    """The score of each moment whose step's words meet the query, and what a word weighs that only one step has."""
    steps = list(dict.fromkeys(moment.step for moment in known if moment.step is not None))
    scores = dict(zip(steps, Bm25([_words(step) for step in steps]).scores(text), strict=True))
    rarest = math.log(1 + len(steps)) if steps else 1.0
    return {m: scores[m.step] for m in known if m.step is not None and scores[m.step] > 0}, rarest


def _words(step: Step) -> str:
    texts: tuple[Text, ...] = (step.name, step.action)
    return " ".join([*(f"{text.en} {text.ja}" for text in texts), step.tool or "", step.id.replace("_", " ")])


def there(session: Session, principal: Principal, known: Sequence[Moment]) -> list[Moment]:
    """The moments whose video is there and visible to the caller."""
    videos = _there(session, principal, {moment.video_id for moment in known})
    return [moment for moment in known if moment.video_id in videos]


def _there(session: Session, principal: Principal, video_ids: set[str]) -> set[str]:
    """Vectors and old evaluations may speak of videos that are gone; the records decide."""
    where = (records.visible(Video, principal), Video.id.in_(video_ids))
    return set(session.scalars(select(Video.id).where(*where)))


def _thinned(found: Sequence[Found], k: int) -> list[Found]:
    """The first ``k`` that do not mostly show what a better one shows already."""
    kept: list[Found] = []
    for each in found:
        place = each.moment
        shorter = place.end_s - place.start_s
        if each.score > 0 and not any(
            place.video_id == other.moment.video_id
            and other.moment.overlap_s(place.start_s, place.end_s)
            > SAME_SHARE * min(shorter, other.moment.end_s - other.moment.start_s)
            for other in kept
        ):
            kept.append(each)
        if len(kept) == k:
            break
    return kept
