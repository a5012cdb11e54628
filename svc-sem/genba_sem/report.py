"""A batch as a report with its pictures in it: what was found, how large, what waits and why; here as one HTML page that prints well.

The page needs nothing from outside, runs no script, and speaks English or Japanese; ``report_pdf`` draws the same for paper.
Values in, text out: no HTTP, no database.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final, Literal

from jinja2 import Environment, StrictUndefined

from genba_sem import words
from genba_sem.labels import LabelBook
from genba_sem.shape import Sizes, size_distribution
from genba_sem.tables import ParticleRow, ViewRow

Language = Literal["en", "ja"]
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
MOST_PICTURED: Final = 200

_UI: Final[Mapping[str, words.Words]] = {
    "title": ("Particles of batch", "粒子レポート：バッチ"),
    "made": ("made", "作成"),
    "label": ("label", "ラベル"),
    "count": ("particles", "粒子数"),
    "confirmed": ("confirmed", "自動確定"),
    "reviewed": ("reviewed", "レビュー済み"),
    "waiting": ("wait for a reviewer", "レビュー待ち"),
    "size": ("equivalent diameter, µm", "円相当径 µm"),
    "left_out": ("outline cut or hidden, not measured", "輪郭が欠け、測定対象外"),
    "none": ("no label", "ラベルなし"),
    "particle": ("particle", "粒子"),
    "status": ("status", "状態"),
    "confidence": ("confidence", "確信度"),
    "why": ("why", "理由"),
    "shape": ("aspect ratio · circularity · solidity", "アスペクト比・円形度・凸度"),
    "decided": ("decided by", "判定に用いたもの"),
    "shown": ("shown with pictures", "画像付きで表示"),
    "of": ("of", "／"),
    "circularity": (
        "Circularity is 4πA/P² with Crofton's perimeter (ISO 9276-6).",
        "円形度は 4πA/P²（クロフトン周長、ISO 9276-6）。",
    ),
}


@dataclass(frozen=True)
class Row:
    """A label's line of the table."""

    label_id: str | None
    name: words.Words
    count: int
    confirmed: int
    reviewed: int
    waiting: int
    sizes: Sizes | None


def summary(rows: Sequence[ParticleRow], book: LabelBook) -> list[Row]:
    """A line for each label as labels are now, most particles first; sizes leave out what is covered or has no scale."""
    groups: dict[str | None, list[ParticleRow]] = {}
    for row in rows:
        label = book.now(row.label_id) if row.label_id else None
        groups.setdefault(label.id if label else None, []).append(row)
    return sorted((_line(label_id, group, book) for label_id, group in groups.items()), key=lambda each: -each.count)


def _line(label_id: str | None, group: Sequence[ParticleRow], book: LabelBook) -> Row:
    label = book.by_id.get(label_id or "")
    name = _UI["none"] if label is None else (label.words, label.name.get("ja") or label.words)
    statuses = Counter(row.status for row in group)
    waiting = sum(
        count for status, count in statuses.items() if status in {"needs_review", "unknown", "unreadable", "waiting"}
    )
    diameters = [row.diameter_um or 0.0 for row in group]
    hidden = [row.covered or row.diameter_um is None for row in group]
    return Row(
        label_id,
        name,
        len(group),
        statuses["confirmed"],
        statuses["reviewed"],
        waiting,
        size_distribution(diameters, hidden),
    )


@dataclass(frozen=True)
class Card:
    """A particle as it is shown, in words of one language; pictures: JPEG files."""

    name: str
    label: str
    status: str
    confidence: str
    why: str
    size: str
    shape: str
    decided: str
    pictures: tuple[bytes, ...]

    @property
    def title(self) -> str:
        return f"{self.name} — {self.label}"


@dataclass(frozen=True)
class Page:
    """A report, made up in one language. ui: its fixed words."""

    batch: str
    language: Language
    made_at: datetime
    total: int
    lines: tuple[Row, ...]
    cards: tuple[Card, ...]
    ui: Mapping[str, str]

    @property
    def at(self) -> int:
        """Which of a pair of words is meant."""
        return int(self.language == "ja")


def assemble(
    batch: str,
    rows: Sequence[ParticleRow],
    views: Mapping[str, Sequence[ViewRow]],
    book: LabelBook,
    *,
    picture: Callable[[str], bytes | None],
    language: Language,
    made_at: datetime,
) -> Page:
    """The report of particles, the first ``MOST_PICTURED`` with pictures.

    picture: called with an artifact's key, gives a JPEG or None where it has gone.
    """
    at = int(language == "ja")
    cards = tuple(_card(row, views.get(row.id, ()), book, picture, at) for row in rows[:MOST_PICTURED])
    ui = {name: pair[at] for name, pair in _UI.items()}
    return Page(batch, language, made_at, len(rows), tuple(summary(rows, book)), cards, ui)


def to_html(page: Page) -> str:
    """The page."""
    rendered: str = _template().render(
        page=page, ui=page.ui, pictures=lambda card: [base64.b64encode(jpeg).decode("ascii") for jpeg in card.pictures]
    )
    return rendered


def _card(
    row: ParticleRow, views: Sequence[ViewRow], book: LabelBook, picture: Callable[[str], bytes | None], at: int
) -> Card:
    label = book.now(row.label_id) if row.label_id else None
    names = _UI["none"] if label is None else (label.words, label.name.get("ja") or label.words)
    jpegs = [jpeg for view in views if view.picture_key and (jpeg := picture(view.picture_key)) is not None]
    ratios = (row.aspect_ratio, row.circularity, row.solidity)
    return Card(
        name=row.name,
        label=names[at],
        status=words.said(words.STATUSES, row.status)[at],
        confidence="–" if row.confidence is None else f"{row.confidence:.2f}",
        why="; ".join(words.said(words.REASONS, code)[at] for code in row.reasons),
        size="–" if row.diameter_um is None else f"{row.diameter_um:.3g} µm",
        shape=" · ".join("–" if value is None else f"{value:.2f}" for value in ratios),
        decided=" · ".join(str(row.decision[key]) for key in ("model", "master_set", "encoder") if key in row.decision),
        pictures=tuple(jpegs),
    )


@cache
def _template() -> Any:
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        _PAGE
    )


_PAGE: Final = """<!doctype html>
<html lang="{{ page.language }}"><head><meta charset="utf-8"><title>{{ ui.title }} {{ page.batch }}</title>
<style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; color: #1c2430; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #d5dae1; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
article { border: 1px solid #d5dae1; border-radius: .4rem; padding: .7rem 1rem; margin: .8rem 0; break-inside: avoid; }
article h3 { margin: 0 0 .3rem; font-size: 1rem; } article img { height: 7rem; margin-right: .4rem; border-radius: .2rem; }
.quiet { color: #5b6675; }
</style></head><body>
<h1>{{ ui.title }} {{ page.batch }}</h1>
<p class="quiet">{{ ui.made }} {{ page.made_at.strftime("%Y-%m-%d %H:%M UTC") }} · {{ page.total }} {{ ui.count }}</p>
<table><thead><tr><th>{{ ui.label }}</th><th>{{ ui.count }}</th><th>{{ ui.confirmed }}</th><th>{{ ui.reviewed }}</th>
<th>{{ ui.waiting }}</th><th>D10 / D50 / D90, {{ ui.size }}</th><th>{{ ui.left_out }}</th></tr></thead><tbody>
{% for line in page.lines %}
{% set sizes = line.sizes %}
<tr><td>{{ line.name[page.at] }}</td><td class="n">{{ line.count }}</td><td class="n">{{ line.confirmed }}</td>
<td class="n">{{ line.reviewed }}</td><td class="n">{{ line.waiting }}</td>
<td class="n">{% if sizes %}{{ "%.3g / %.3g / %.3g"|format(sizes.d10, sizes.d50, sizes.d90) }}{% else %}–{% endif %}</td>
<td class="n">{% if sizes %}{{ sizes.left_out }}{% else %}{{ line.count }}{% endif %}</td></tr>
{% endfor %}
</tbody></table>
<p class="quiet">{{ ui.circularity }}</p>
<p class="quiet">{{ page.cards|length }} {{ ui.of }} {{ page.total }} {{ ui.shown }}</p>
{% for card in page.cards %}
<article><h3>{{ card.title }} ({{ card.status }}, {{ ui.confidence }} {{ card.confidence }})</h3>
<div>{% for picture in pictures(card) %}<img alt="" src="data:image/jpeg;base64,{{ picture }}">{% endfor %}</div>
{% if card.why %}<p>{{ ui.why }}: {{ card.why }}</p>{% endif %}
<p class="quiet">{{ card.size }} · {{ ui.shape }}: {{ card.shape }}
{% if card.decided %} · {{ ui.decided }}: {{ card.decided }}{% endif %}</p></article>
{% endfor %}
</body></html>
"""
