"""The report as PDF, for people who file and mail paper. Needs the extra ``pdf``."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Final

from genba_shared.pdf import FONT, MARGIN_MM, WIDTH_MM, Sheet
from genba_sop import report_words as words
from genba_sop.report import Evidence, Page, Shot, clock, p_text
from genba_sop.report_figures import WIDTH
from genba_sop.report_words import Words
from genba_sop.schemas import Language

_FRAME_MM: Final = 28.0
_LABEL_MM: Final = 3.5
_COLOURS: Final = (
    (59, 110, 165), (199, 127, 27), (47, 143, 131), (140, 91, 166), (112, 117, 125),
    (27, 79, 114), (160, 82, 45), (79, 155, 199), (107, 122, 31), (176, 85, 122),
)  # fmt: skip
_SEVERITY: Final = {"minor": (91, 102, 117), "major": (161, 92, 0), "critical": (179, 38, 30)}
_VERDICT: Final = {"pass": (26, 127, 90), "fail": (179, 38, 30), "needs_review": (161, 92, 0)}


def to_pdf(page: Page, *, language: Language) -> bytes:
    """The report as PDF in one language.

    Raises:  PdfNotInstalled without the extra ``pdf``; the HTML report prints to PDF from any browser.
    """
    return _Sheet(page, language).drawn()


class _Sheet:
    """One document being drawn, top to bottom."""

    def __init__(self, page: Page, language: Language) -> None:
        self._page, self._language = page, language
        self._sheet = Sheet(self._in(page.title), language=language, made_at=page.evaluation.created_at)
        self._pdf, self._text, self._heading = self._sheet.pdf, self._sheet.text, self._sheet.heading

    def drawn(self) -> bytes:
        """Draw everything."""
        self._head()
        self._timeline()
        self._deviations()
        self._steps()
        self._foot()
        return self._sheet.drawn()

    def _in(self, text: Words) -> str:
        return text.ja if self._language == "ja" else text.en

    def _ui(self, key: str) -> str:
        return self._in(words.UI[key])

    def _head(self) -> None:
        e = self._page.evaluation
        self._text(self._ui("report"), size_pt=8.5, colour=_SEVERITY["minor"])
        self._text(self._in(self._page.title), size_pt=17)
        verdict = e.reviewed_verdict or e.verdict
        self._text(f"{self._in(self._page.verdict)}   {e.score:.1f} / 100", size_pt=15, colour=_VERDICT[verdict])
        state = self._ui("calibrated" if e.interval.calibrated else "uncalibrated")
        interval = f"{e.interval.level:.0%} {self._ui('interval')} {e.interval.low:.0f}–{e.interval.high:.0f} ({state})"
        made = f"{self._ui('made')} {e.created_at:%Y-%m-%d %H:%M} UTC"
        who = f" · {self._ui('operator')} {e.operator}" if e.operator else ""
        self._text(f"{interval} · {made}{who}", size_pt=8.5, colour=_SEVERITY["minor"])
        for reason in self._page.reasons:
            self._text(f"• {self._in(reason)}", indent_mm=2)

    def _timeline(self) -> None:
        self._heading(self._ui("timeline"))
        pdf, figure = self._pdf, self._page.timeline
        top_mm, scale = pdf.get_y(), WIDTH_MM / WIDTH
        for row, bars in enumerate((figure.gold, figure.trainee)):
            for bar in bars:
                pdf.set_fill_color(*_COLOURS[bar.colour])
                pdf.rect(MARGIN_MM + bar.x * scale, top_mm + 14 * row, bar.width * scale, 6, style="F")
        for link in figure.links:
            pdf.set_draw_color(*_COLOURS[link.colour])
            pdf.line(MARGIN_MM + link.gold_x * scale, top_mm + 6, MARGIN_MM + link.trainee_x * scale, top_mm + 14)
        for mark in figure.marks:
            pdf.set_fill_color(*_SEVERITY[mark.severity])
            pdf.rect(MARGIN_MM + mark.x * scale, top_mm + 21, max(mark.width * scale, 0.6), 1.6, style="F")
        pdf.set_font(FONT, size=7)
        pdf.set_text_color(*_SEVERITY["minor"])
        for tick in figure.ticks:
            pdf.set_xy(MARGIN_MM + tick.at * scale - 6, top_mm + 24)
            pdf.cell(12, 3, clock(tick.time_s), align="C")
        pdf.set_xy(MARGIN_MM, top_mm + 28)
        self._text(f"{self._ui('gold')} / {self._ui('trainee')}", size_pt=7.5, colour=_SEVERITY["minor"])

    def _deviations(self) -> None:
        self._heading(f"{self._ui('deviations')} ({len(self._page.evidence)})")
        if not self._page.evidence:
            self._text(self._ui("no_deviations"))
        for number, item in enumerate(self._page.evidence, start=1):
            self._deviation(number, item)

    def _deviation(self, number: int, item: Evidence) -> None:
        strips_mm = max(_strip_mm(item.gold), _strip_mm(item.trainee))
        if self._pdf.will_page_break(16 + strips_mm):
            self._pdf.add_page()
        d = item.deviation
        step = f": {self._in(item.step)}" if item.step else ""
        self._text(f"{number}. {self._in(item.kind)}{step}", size_pt=10.5, colour=_SEVERITY[d.severity])
        times = f"{clock(d.start_s)}–{clock(d.end_s)}" if d.end_s > d.start_s else clock(d.start_s)
        chance = f" · {self._ui('chance')} {p_text(d.p_value)}" if d.p_value is not None else ""
        self._text(f"{self._in(item.severity)} · {times} · {self._in(item.measured)}{chance}", size_pt=8.5)
        if item.action:
            self._text(f"{self._ui('action')}: {self._in(item.action)}", size_pt=8.5)
        if self._pdf.will_page_break(1 + strips_mm):  # the words took more than their usual place
            self._pdf.add_page()
        top_mm = self._pdf.get_y() + 1
        self._strip(item.gold, self._ui("gold"), MARGIN_MM, top_mm)
        self._strip(item.trainee, self._ui("trainee"), MARGIN_MM + WIDTH_MM / 2 + 2, top_mm)
        self._pdf.set_xy(MARGIN_MM, top_mm + strips_mm + 3)

    def _strip(self, shots: Sequence[Shot], label: str, left_mm: float, top_mm: float) -> None:
        """Frames side by side."""
        if not shots:
            return
        self._pdf.set_font(FONT, size=7)
        self._pdf.set_text_color(*_SEVERITY["minor"])
        self._pdf.set_xy(left_mm, top_mm)
        self._pdf.cell(WIDTH_MM / 2, 3, f"{label} {', '.join(clock(shot.time_s) for shot in shots)}")
        for column, shot in enumerate(shots):
            x = left_mm + column * (_FRAME_MM + 1)
            self._pdf.image(_jpeg(shot), x=x, y=top_mm + _LABEL_MM, w=_FRAME_MM)

    def _steps(self) -> None:
        self._heading(self._ui("steps"))
        columns = ("step", "status", "quality", "where", "time", "gold_time")
        rows = []
        for number, step in enumerate(self._page.evaluation.steps, start=1):
            spans = ", ".join(f"{clock(span.start_s)}–{clock(span.end_s)}" for span in step.spans) or "–"
            name = self._in(self._page.names[step.step_id])
            status = self._in(words.STATUSES[step.status])
            took = f"{step.duration_s:.1f} s" if step.spans else "–"
            rows.append(
                [f"{number}. {name}", status, f"{step.quality:.0%}", spans, took, f"{step.gold_duration_s:.1f} s"]
            )
        self._sheet.table(
            [self._ui(column) for column in columns],
            rows,
            widths=(30, 14, 10, 22, 10, 12),
            align=("LEFT", "LEFT", "RIGHT", "LEFT", "RIGHT", "RIGHT"),
        )

    def _foot(self) -> None:
        e = self._page.evaluation
        for review in self._page.reviews:
            verdict = self._in(words.VERDICTS[review.verdict])
            self._text(
                f"{self._ui('reviewer')} {review.reviewer}, {review.created_at:%Y-%m-%d}: {verdict}. {review.reason}"
            )
        self._pdf.ln(3)
        votes = " · ".join(f"{gold.video_id} {gold.vote:.0%}" for gold in e.golds)
        said = f"{e.id} · {e.video_id} · {e.clearance} · {e.encoder} · {e.model_version}\n{self._ui('golds')}: {votes}"
        self._text(said, size_pt=7, colour=_SEVERITY["minor"])


def _jpeg(shot: Shot) -> io.BytesIO:
    return io.BytesIO(base64.b64decode(shot.data_uri.partition(",")[2]))


def _strip_mm(shots: Sequence[Shot]) -> float:
    """How high a strip is: its label, and the highest of its frames."""
    from PIL import Image  # comes with fpdf2

    sizes = [Image.open(_jpeg(shot)).size for shot in shots]
    return _LABEL_MM + max(_FRAME_MM * height / width for width, height in sizes) if sizes else 0.0
