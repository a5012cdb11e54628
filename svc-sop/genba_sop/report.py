"""Turn a stored evaluation into a report: a page of HTML with its pictures in it, or CSV. Knows nothing of HTTP or
the database.

The page needs nothing from outside, runs no script, and holds both languages; the switch is two radio buttons and CSS.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from genba_sop import report_words as words
from genba_sop.bundles import Thumbnails
from genba_sop.report_figures import AlignmentFigure, Timeline, alignment_figure, timeline
from genba_sop.report_words import Words
from genba_sop.schemas import DeviationOut, EvaluationOut, Language, ReviewOut, SpanOut, TextOut

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
MOST_PICTURED: Final = 40  # deviations with frames; a page stays under a few megabytes
FRAMES_EACH: Final = 3


@dataclass(frozen=True)
class Extra:
    """What the report draws beyond what the wire shows."""

    gold_spans: tuple[SpanOut, ...]
    gold_duration_s: float
    trainee_duration_s: float
    path_s: tuple[tuple[float, float], ...]  # (gold, trainee) seconds of the trace's pairs


@dataclass(frozen=True)
class Shot:
    """A frame as evidence."""

    data_uri: str
    time_s: float


@dataclass(frozen=True)
class Evidence:
    """One deviation as the report shows it."""

    deviation: DeviationOut
    kind: Words
    severity: Words
    step: Words | None
    measured: Words
    action: Words | None
    gold: tuple[Shot, ...]
    trainee: tuple[Shot, ...]
    confirmed: bool | None


@dataclass(frozen=True)
class Page:
    """Everything that the template prints."""

    evaluation: EvaluationOut
    title: Words
    verdict: Words
    machine_verdict: Words
    reasons: tuple[Words, ...]
    evidence: tuple[Evidence, ...]
    timeline: Timeline
    alignment: AlignmentFigure | None
    reviews: tuple[ReviewOut, ...]
    erased: bool
    names: Mapping[str, Words] = field(default_factory=dict)


class Pictures:
    """The kept frames of the videos that an evaluation speaks of; none for a video that has been erased."""

    def __init__(self, load: Callable[[str], Thumbnails | None]) -> None:
        self._load = cache(load)

    def has(self, video_id: str) -> bool:
        """Whether the video's frames are still there."""
        return self._load(video_id) is not None

    def between(self, video_id: str, start_s: float, end_s: float) -> tuple[Shot, ...]:
        """Up to ``FRAMES_EACH`` different frames, spread over the time; one for a moment."""
        thumbnails = self._load(video_id)
        if thumbnails is None or not thumbnails.jpegs:
            return ()
        count = FRAMES_EACH if end_s - start_s >= 1.0 else 1
        asked = [start_s + (end_s - start_s) * (k + 0.5) / count for k in range(count)]
        chosen = sorted({int(abs(thumbnails.times_s - time_s).argmin()) for time_s in asked})
        return tuple(_shot(thumbnails.jpegs[at], float(thumbnails.times_s[at])) for at in chosen)


def _shot(jpeg: bytes, time_s: float) -> Shot:
    return Shot("data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii"), time_s)


def extra_of(document: Mapping[str, Any]) -> Extra:
    """The parts of a stored document that only the report uses."""
    return Extra(
        gold_spans=tuple(SpanOut.model_validate(span) for span in document["gold_spans"]),
        gold_duration_s=float(document["gold_duration_s"]),
        trainee_duration_s=float(document["trainee_duration_s"]),
        path_s=tuple((float(gold_s), float(trainee_s)) for gold_s, trainee_s in document["path_s"]),
    )


def assemble(evaluation: EvaluationOut, extra: Extra, *, reviews: Sequence[ReviewOut], pictures: Pictures) -> Page:
    """Everything that the page shows."""
    names = {step.step_id: both(step.name, step.step_id) for step in evaluation.steps}
    said = {item.index: item.confirmed for each in reviews for item in each.deviations}
    evidence = tuple(_evidence(each, evaluation, pictures, said) for each in evaluation.deviations)
    return Page(
        evaluation=evaluation,
        title=both(evaluation.procedure_title, evaluation.procedure_id),
        verdict=words.VERDICTS[evaluation.reviewed_verdict or evaluation.verdict],
        machine_verdict=words.VERDICTS[evaluation.verdict],
        reasons=tuple(words.reason(code, names) for code in evaluation.reasons),
        evidence=evidence,
        timeline=timeline(
            [(span.id, span.start_s, span.end_s) for span in extra.gold_spans],
            [(span.id, span.start_s, span.end_s) for step in evaluation.steps for span in step.spans],
            [(each.kind, each.severity, each.start_s, each.end_s) for each in evaluation.deviations],
            order=list(names),
            gold_s=extra.gold_duration_s,
            trainee_s=extra.trainee_duration_s,
        ),
        alignment=alignment_figure(
            extra.path_s,
            evaluation.trace.cost,
            [(span.id, span.start_s, span.end_s) for span in extra.gold_spans],
            gold_s=extra.gold_duration_s,
            trainee_s=extra.trainee_duration_s,
        ),
        reviews=tuple(reviews),
        erased=not pictures.has(evaluation.video_id),
        names=names,
    )


def _evidence(
    deviation: DeviationOut, evaluation: EvaluationOut, pictures: Pictures, said: Mapping[int, bool]
) -> Evidence:
    shown = deviation.index < MOST_PICTURED
    gold_video_id = evaluation.trace.gold_video_id
    gold: tuple[Shot, ...] = ()
    if shown and deviation.gold_start_s is not None and deviation.gold_end_s is not None:
        gold = pictures.between(gold_video_id, deviation.gold_start_s, deviation.gold_end_s)
    action = deviation.action
    return Evidence(
        deviation=deviation,
        kind=words.KINDS[deviation.kind],
        severity=words.SEVERITIES[deviation.severity],
        step=both(deviation.step_name, deviation.step_id or "") if deviation.step_name else None,
        measured=words.measured(deviation.kind, deviation.measure),
        action=both(action, "") if action.en or action.ja else None,
        gold=gold,
        trainee=pictures.between(evaluation.video_id, deviation.start_s, deviation.end_s) if shown else (),
        confirmed=said.get(deviation.index),
    )


def both(text: TextOut, fallback: str) -> Words:
    """A text for both languages: what one lacks is taken from the other."""
    en = text.en or text.ja or fallback
    return Words(en, text.ja or en)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("genba_sop", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(clock=clock, p_text=p_text)
    environment.globals.update(ui=words.UI, statuses=words.STATUSES, verdicts=words.VERDICTS)
    return environment


def clock(time_s: float) -> str:
    """75.34 → 1:15.3."""
    minutes, seconds = divmod(round(time_s, 1), 60)
    return f"{int(minutes)}:{seconds:04.1f}"


def p_text(p_value: float) -> str:
    """0.0234 → = 0.023; 1e-9 → < 0.001."""
    return f"= {p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def to_html(page: Page, *, language: Language = "en") -> str:
    """One self-contained page, ``language`` first."""
    return _environment().get_template("report.html.j2").render(page=page, e=page.evaluation, language=language)


_CSV_COLUMNS: Final = (
    "record", "index", "step_id", "name_en", "name_ja", "status_or_kind", "severity", "start_s", "end_s",
    "gold_start_s", "gold_end_s", "duration_s", "gold_duration_s", "quality", "p_value", "measure", "expected",
)  # fmt: skip


def to_csv(evaluation: EvaluationOut) -> str:
    """A table for a spreadsheet: the evaluation, its steps, its deviations. Starts with a byte-order mark, which
    Excel needs.
    """
    buffer = io.StringIO()
    buffer.write("\ufeff")
    writer = csv.DictWriter(buffer, _CSV_COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    title = evaluation.procedure_title
    writer.writerow(
        _row("evaluation", evaluation.id, title, status_or_kind=evaluation.verdict, quality=evaluation.score / 100)
    )
    if evaluation.reviewed_verdict is not None:
        writer.writerow(_row("review", evaluation.id, title, status_or_kind=evaluation.reviewed_verdict))
    for step in evaluation.steps:
        facts: dict[str, Any] = {
            "status_or_kind": step.status,
            "quality": step.quality,
            "gold_duration_s": step.gold_duration_s,
        }
        if step.spans:
            facts |= {"start_s": step.spans[0].start_s, "end_s": step.spans[-1].end_s, "duration_s": step.duration_s}
        writer.writerow(_row("step", step.step_id, step.name, **facts))
    for deviation in evaluation.deviations:
        facts = deviation.model_dump(exclude={"kind", "step_id", "step_name", "action"})
        facts["status_or_kind"] = deviation.kind
        writer.writerow(
            _row("deviation", deviation.step_id or "", deviation.step_name or TextOut(en="", ja=""), **facts)
        )
    return buffer.getvalue()


def _row(record: str, step_id: str, name: TextOut, **facts: Any) -> dict[str, Any]:
    row = {"record": record, "step_id": step_id, "name_en": name.en, "name_ja": name.ja, **facts}
    return {key: _cell(value) for key, value in row.items()}


def _cell(value: Any) -> Any:
    """A spreadsheet must not take an author's text for a formula."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")):
        return "'" + value
    return value
