"""Pictures of office documents with everything that stands on them: charts, contracts and reports, drawn from a seed.

A picture knows its own text and where each line is, so that what a reader of pictures should find is known to the pixel.
Every picture carries its safety level as a stamp. The same seed and number give the same bytes.
"""

from __future__ import annotations

import importlib.util
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from genba_llm.refused import Refused
from genba_llm.synthesise import work_names
from genba_llm.verdict import Domain, Language

PictureKind = Literal["chart", "contract", "report"]
LevelName = Literal["public", "internal", "confidential", "secret"]
KINDS: Final[tuple[PictureKind, ...]] = get_args(PictureKind)
LEVELS: Final[tuple[LevelName, ...]] = get_args(LevelName)
STAMPS: Final[dict[LevelName, dict[Language, str]]] = {
    "public": {"ja": "公開", "en": "PUBLIC"},
    "internal": {"ja": "社内限り", "en": "INTERNAL"},
    "confidential": {"ja": "秘", "en": "CONFIDENTIAL"},
    "secret": {"ja": "極秘", "en": "SECRET"},
}
WIDTH_PX, HEIGHT_PX = 640, 452
_MARGIN_PX = 28
_INK, _FAINT = (28, 30, 36), (150, 155, 165)
_COLOURS = ((42, 99, 160), (200, 110, 40), (70, 140, 90), (150, 70, 120))
_STAMP_COLOURS: dict[LevelName, tuple[int, int, int]] = {
    "public": (60, 120, 70),
    "internal": (60, 90, 150),
    "confidential": (190, 110, 20),
    "secret": (180, 30, 30),
}


class NoFont(Refused):
    """There is no font with Japanese glyphs on this worker."""


@dataclass(frozen=True)
class Line:
    """A line of text, and the box (left, top, right, bottom) in pixels that it was drawn into."""

    text: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Picture:
    """``png`` and what stands on it, top to bottom; ``about`` is what it deals with."""

    png: bytes
    kind: PictureKind
    level: LevelName
    language: Language
    about: str
    lines: tuple[Line, ...]

    @property
    def ocr_text(self) -> str:
        """What a perfect reader would give."""
        return "\n".join(line.text for line in self.lines)


@cache
def font_file() -> Path:
    """A font with Japanese and Latin glyphs, found without importing the package that brings it. Raises: NoFont."""
    package = importlib.util.find_spec("matplotlib_fontja")
    if package is None or package.origin is None:
        raise NoFont("Pictures need a Japanese font: install genba[so8t] on the worker.")
    return Path(package.origin).parent / "fonts" / "ipaexg.ttf"


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_file()), size_px)


class _Sheet:
    """A page that remembers what was written on it."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), (252, 251, 247))
        self.draw = ImageDraw.Draw(self.image)
        self.lines: list[Line] = []

    def write(
        self,
        x: float,
        y: float,
        text: str,
        size_px: int = 16,
        *,
        colour: tuple[int, int, int] = _INK,
        right: bool = False,
    ) -> None:
        """Put a line at its upper left corner (upper right with ``right``)."""
        font = _font(size_px)
        if right:
            x -= font.getlength(text)
        self.draw.text((x, y), text, font=font, fill=colour)
        left, top, end, bottom = self.draw.textbbox((x, y), text, font=font)
        self.lines.append(Line(text, (round(left), round(top), round(end), round(bottom))))


def draw(kind: PictureKind, domain: Domain, level: LevelName, language: Language, rng: random.Random) -> Picture:
    """A picture of a kind. Everything that varies comes from ``rng``. Raises: NoFont."""
    sheet = _Sheet()
    about = rng.choice(work_names(domain, language))
    _DRAWN[kind](sheet, about, language, rng)
    _stamp(sheet, level, language)
    pixels = np.asarray(sheet.image).astype(np.float32)
    grain = np.random.default_rng(rng.getrandbits(63)).normal(0.0, 3.0, pixels.shape[:2])  # a scanner's
    scanned = Image.fromarray((pixels + grain[..., None]).clip(0, 255).astype(np.uint8))
    out = io.BytesIO()
    scanned.quantize(64).save(out, "PNG")
    lines = tuple(sorted(sheet.lines, key=lambda line: (line.box[1], line.box[0])))
    return Picture(out.getvalue(), kind, level, language, about, lines)


def _chart(sheet: _Sheet, about: str, language: Language, rng: random.Random) -> None:
    title = {"ja": f"図{rng.randint(1, 20)} {about}の推移", "en": f"Figure {rng.randint(1, 20)}: {about}"}[language]
    sheet.write(_MARGIN_PX, 20, title, 19)
    unit = rng.choice({"ja": ["件", "万円", "時間", "%"], "en": ["cases", "kEUR", "hours", "%"]}[language])
    sheet.write(_MARGIN_PX, 54, {"ja": f"単位: {unit}", "en": f"Unit: {unit}"}[language], 13, colour=_FAINT)
    values = [rng.randint(12, 98) for _ in range(rng.randint(4, 7))]
    floor, ceiling, step = HEIGHT_PX - 62, 96, (WIDTH_PX - 2 * _MARGIN_PX) / len(values)
    sheet.draw.line((_MARGIN_PX, floor, WIDTH_PX - _MARGIN_PX, floor), fill=_INK, width=2)
    colour, first = rng.choice(_COLOURS), rng.randint(1, 12)
    for number, value in enumerate(values):
        left = _MARGIN_PX + number * step + step * 0.18
        top = floor - (floor - ceiling) * value / 100
        sheet.draw.rectangle((left, top, left + step * 0.64, floor), fill=colour)
        sheet.write(left + step * 0.18, top - 18, str(value), 13)
        month = (first + number - 1) % 12 + 1
        sheet.write(left + step * 0.1, floor + 8, {"ja": f"{month}月", "en": f"M{month}"}[language], 13)


def _contract(sheet: _Sheet, about: str, language: Language, rng: random.Random) -> None:
    japanese = language == "ja"
    sheet.write(_MARGIN_PX, 22, "業務委託契約書" if japanese else "Service agreement", 22)
    sheet.write(
        _MARGIN_PX, 58, f"契約番号 K-{rng.randint(1000, 9999)}" if japanese else f"No. K-{rng.randint(1000, 9999)}", 13
    )
    fee, days, month = rng.randint(10, 900) * 10_000, rng.choice((14, 30, 45, 60)), rng.randint(1, 12)
    clauses = (
        [
            f"第1条 甲は乙に{about}に関する業務を委託する。",
            f"第2条 委託料は月額{fee:,}円とする。",
            f"第3条 支払は請求書の受領から{days}日以内とする。",
            "第4条 乙は知り得た秘密を第三者に開示しない。",
            f"第5条 契約期間は{month}月1日から一年間とする。",
        ]
        if japanese
        else [
            f"1. The work concerns {about}.",
            f"2. The fee is JPY {fee:,} a month.",
            f"3. Invoices are paid within {days} days.",
            "4. What is learnt is not disclosed to third parties.",
            f"5. The term is one year from the first of month {month}.",
        ]
    )
    for number, clause in enumerate(clauses):
        sheet.write(_MARGIN_PX, 96 + number * 38, clause, 15)
    y = HEIGHT_PX - 92
    for x, party in ((_MARGIN_PX, "甲" if japanese else "Client"), (WIDTH_PX / 2, "乙" if japanese else "Contractor")):
        sheet.write(x, y, f"{party}:", 15)
        sheet.draw.line((x + 86, y + 22, x + 226, y + 22), fill=_FAINT, width=1)
        sheet.draw.ellipse((x + 190, y - 18, x + 230, y + 22), outline=(190, 40, 40), width=2)


def _report(sheet: _Sheet, about: str, language: Language, rng: random.Random) -> None:
    japanese = language == "ja"
    sheet.write(_MARGIN_PX, 22, f"{about} 月次報告" if japanese else f"Monthly report: {about}", 19)
    number = rng.randint(1, 999)
    sheet.write(_MARGIN_PX, 54, f"報告番号 R-{number:03d}" if japanese else f"Report R-{number:03d}", 13)
    heads = ("項目", "計画", "実績") if japanese else ("item", "planned", "actual")
    names = ("点検", "是正", "教育", "監査") if japanese else ("checks", "repairs", "training", "audits")
    columns = (_MARGIN_PX, 300, 440)
    for x, head in zip(columns, heads, strict=True):
        sheet.write(x, 92, head, 14, colour=_FAINT)
    behind = 0
    for row, name in enumerate(rng.sample(names, 3)):
        planned = rng.randint(10, 60)
        actual = planned + rng.randint(-9, 6)
        behind += actual < planned
        y = 124 + row * 36
        sheet.draw.line((_MARGIN_PX, y - 6, WIDTH_PX - _MARGIN_PX, y - 6), fill=_FAINT, width=1)
        for x, text in zip(columns, (name, str(planned), str(actual)), strict=True):
            sheet.write(x, y, text, 16)
    said = f"所見: {behind}項目が計画を下回った。" if japanese else f"Remarks: {behind} items are behind plan."
    sheet.write(_MARGIN_PX, 260, said, 15)


def _stamp(sheet: _Sheet, level: LevelName, language: Language) -> None:
    text, colour = STAMPS[level][language], _STAMP_COLOURS[level]
    x = WIDTH_PX - _MARGIN_PX
    sheet.write(x, HEIGHT_PX - 32, text, 17, colour=colour, right=True)
    box = sheet.lines[-1].box
    sheet.draw.rectangle((box[0] - 8, box[1] - 5, box[2] + 8, box[3] + 5), outline=colour, width=2)


_DRAWN: dict[PictureKind, Callable[[_Sheet, str, Language, random.Random], None]] = {
    "chart": _chart,
    "contract": _contract,
    "report": _report,
}
