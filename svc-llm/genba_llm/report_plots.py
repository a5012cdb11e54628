"""Counts as one picture of bars, in SVG: what every browser shows and no library has to draw. Knows nothing of what is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _LABEL, _ROW, _GAP = 760, 240, 22, 46
_FONT = 'font-family="sans-serif" font-size="13"'


def bars(title: str, groups: Sequence[tuple[str, Mapping[str, int]]]) -> str:
    """One panel for each group with counts, its bars to the panel's own scale."""
    parts: list[str] = []
    y = 40
    for heading, counts in groups:
        if not counts:
            continue
        most = max(1, *counts.values())
        parts.append(f'<text x="12" y="{y + 16}" {_FONT} font-weight="bold">{escape(heading)}</text>')
        y += 28
        for name, n in counts.items():
            width = max(1.0, (_WIDTH - _LABEL - 110) * n / most) if n else 0.0
            parts.append(f'<text x="{_LABEL - 8}" y="{y + 15}" {_FONT} text-anchor="end">{escape(str(name))}</text>')
            parts.append(f'<rect x="{_LABEL}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}" fill="#3465a4"/>')
            parts.append(f'<text x="{_LABEL + width + 6:.1f}" y="{y + 15}" {_FONT}>{n:,}</text>')
            y += _ROW
        y += _GAP - _ROW
    head = f'<text x="12" y="24" font-family="sans-serif" font-size="17">{escape(title)}</text>'
    size = f'width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}"'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{ground}{head}{"".join(parts)}</svg>\n'
