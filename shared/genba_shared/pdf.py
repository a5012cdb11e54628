"""PDF for people who file and mail paper: a sheet whose text shows on every machine. Needs the extra ``pdf``.

IPAexGothic (IPA Font License), which has Latin and Japanese, comes with ``matplotlib-fontja``; its glyphs are subset into each file.
The font is found without importing that package, which would load matplotlib. Knows nothing of what is reported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from genba_shared.problems import Unavailable

if TYPE_CHECKING:
    from fpdf import FPDF
    from fpdf.enums import WrapMode

FONT: Final = "ipaexg"
MARGIN_MM: Final = 14.0
WIDTH_MM: Final = 210.0 - 2 * MARGIN_MM
INK: Final = (28, 36, 48)
QUIET: Final = (91, 102, 117)


class PdfNotInstalled(Unavailable):
    """This installation cannot make PDF."""


@cache
def font_path() -> Path:
    """Where the Japanese font lies. Raises PdfNotInstalled."""
    package = importlib.util.find_spec("matplotlib_fontja")
    if package is None or package.origin is None or importlib.util.find_spec("fpdf") is None:
        raise PdfNotInstalled("Install genba[pdf] to make PDF here, or print the HTML report from a browser.")
    return Path(package.origin).parent / "fonts" / "ipaexg.ttf"


class Sheet:
    """An A4 document being drawn from top to bottom; ``pdf`` is what draws it, in mm and points."""

    def __init__(self, title: str, *, language: Literal["en", "ja"], made_at: datetime) -> None:
        """Raises: PdfNotInstalled without the extra ``pdf``."""
        font = font_path()
        from fpdf import FPDF
        from fpdf.enums import WrapMode

        self.wrap: WrapMode = WrapMode.CHAR if language == "ja" else WrapMode.WORD
        self.pdf: FPDF = FPDF(format="A4")
        self.pdf.set_margin(MARGIN_MM)
        self.pdf.set_auto_page_break(auto=True, margin=MARGIN_MM)
        self.pdf.add_font(FONT, fname=font)
        self.pdf.set_title(title)
        self.pdf.set_lang(language)
        self.pdf.set_creation_date(made_at)
        self.pdf.add_page()

    def text(self, text: str, *, size_pt: float = 9.5, colour: Sequence[int] = INK, indent_mm: float = 0.0) -> None:
        """A paragraph."""
        self.pdf.set_font(FONT, size=size_pt)
        self.pdf.set_text_color(*colour)
        self.pdf.set_x(MARGIN_MM + indent_mm)
        self.pdf.multi_cell(
            WIDTH_MM - indent_mm,
            size_pt * 0.5,
            text,
            align="L",
            new_x="LMARGIN",
            new_y="NEXT",
            wrapmode=self.wrap,
        )

    def heading(self, text: str) -> None:
        """The title of what follows."""
        self.pdf.ln(3)
        self.text(text, size_pt=12)
        self.pdf.ln(0.5)

    def table(
        self, heads: Sequence[str], rows: Sequence[Sequence[str]], *, widths: Sequence[int], align: Sequence[str]
    ) -> None:
        """Rows under quiet heads; it goes on over pages, and its heads are said again. align: LEFT or RIGHT of each column."""
        from fpdf.fonts import FontFace

        self.pdf.set_font(FONT, size=8)
        self.pdf.set_text_color(*INK)
        self.pdf.set_fill_color(255, 255, 255)
        self.pdf.set_draw_color(216, 222, 230)
        with self.pdf.table(
            col_widths=tuple(widths),
            text_align=tuple(align),
            borders_layout="HORIZONTAL_LINES",
            line_height=4.6,
            wrapmode=self.wrap,
            headings_style=FontFace(emphasis="", color=QUIET),
        ) as table:
            table.row(heads)
            for row in rows:
                table.row(row)

    def drawn(self) -> bytes:
        """The file."""
        return bytes(self.pdf.output())
