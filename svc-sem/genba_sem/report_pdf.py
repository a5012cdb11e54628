"""A batch's report as PDF, for people who file and mail paper: the table, then each particle with its pictures. Needs the extra ``pdf``."""

from __future__ import annotations

import io
from typing import Final

import cv2
import numpy as np

from genba_sem.report import Card, Page, Row
from genba_shared.pdf import MARGIN_MM, QUIET, WIDTH_MM, Sheet

_ACROSS: Final = 6
_GAP_MM: Final = 1.5
_PICTURE_MM: Final = (WIDTH_MM - (_ACROSS - 1) * _GAP_MM) / _ACROSS
_PICTURE_PX: Final = 288  # 250 a printed inch


def to_pdf(page: Page) -> bytes:
    """The report as PDF. Raises: PdfNotInstalled without the extra ``pdf``."""
    ui = page.ui
    sheet = Sheet(f"{ui['title']} {page.batch}", language=page.language, made_at=page.made_at)
    sheet.text(f"{ui['title']} {page.batch}", size_pt=17)
    made = f"{ui['made']} {page.made_at:%Y-%m-%d %H:%M} UTC · {page.total} {ui['count']}"
    sheet.text(made, size_pt=8.5, colour=QUIET)
    sheet.pdf.ln(2)
    heads = [ui[name] for name in ("label", "count", "confirmed", "reviewed", "waiting")]
    sheet.table(
        [*heads, f"D10 / D50 / D90, {ui['size']}", ui["left_out"]],
        [_line(each, page.at) for each in page.lines],
        widths=(34, 14, 17, 17, 21, 44, 24),
        align=("LEFT", *["RIGHT"] * 6),
    )
    sheet.pdf.ln(1)
    sheet.text(ui["circularity"], size_pt=7.5, colour=QUIET)
    sheet.text(f"{len(page.cards)} {ui['of']} {page.total} {ui['shown']}", size_pt=7.5, colour=QUIET)
    for card in page.cards:
        _draw(sheet, page, card)
    return sheet.drawn()


def _line(row: Row, at: int) -> list[str]:
    sizes = row.sizes
    measured = "–" if sizes is None else f"{sizes.d10:.3g} / {sizes.d50:.3g} / {sizes.d90:.3g}"
    counts = [str(count) for count in (row.count, row.confirmed, row.reviewed, row.waiting)]
    return [row.name[at], *counts, measured, str(row.count if sizes is None else sizes.left_out)]


def _draw(sheet: Sheet, page: Page, card: Card) -> None:
    pdf, ui = sheet.pdf, page.ui
    small = [_smaller(jpeg) for jpeg in card.pictures]
    if pdf.will_page_break(24 + (_PICTURE_MM if small else 0)):
        pdf.add_page()
    pdf.ln(3)
    sheet.text(f"{card.title} ({card.status}, {ui['confidence']} {card.confidence})", size_pt=10.5)
    for start in range(0, len(small), _ACROSS):
        if pdf.will_page_break(_PICTURE_MM):
            pdf.add_page()
        top_mm = pdf.get_y() + 0.5
        for column, jpeg in enumerate(small[start : start + _ACROSS]):
            left_mm = MARGIN_MM + column * (_PICTURE_MM + _GAP_MM)
            pdf.image(
                io.BytesIO(jpeg), x=left_mm, y=top_mm, w=_PICTURE_MM, h=_PICTURE_MM, keep_aspect_ratio=True
            )  # square, so that a row of them is as high as it is known to be
        pdf.set_y(top_mm + _PICTURE_MM + 1)
    if card.why:
        sheet.text(f"{ui['why']}: {card.why}", size_pt=8.5)
    said = f"{card.size} · {ui['shape']}: {card.shape}"
    sheet.text(said + (f" · {ui['decided']}: {card.decided}" if card.decided else ""), size_pt=7.5, colour=QUIET)


def _smaller(jpeg: bytes) -> bytes:
    """As much of a picture as paper shows."""
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None or max(pixels.shape) <= _PICTURE_PX:
        return jpeg
    factor = _PICTURE_PX / max(pixels.shape)
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    _, small = cv2.imencode(
        ".jpg", cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), [cv2.IMWRITE_JPEG_QUALITY, 85]
    )
    return bytes(small.tobytes())
