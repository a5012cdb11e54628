"""Pictures as SVG text: no plotting library is needed where models are trained or served."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape


def importance_svg(worth: Mapping[str, tuple[float, float]]) -> str:
    """Bars with their spread. worth: by feature, its mean and standard deviation."""
    row, left, width = 26, 190, 420
    largest = max((abs(mean) + spread for mean, spread in worth.values()), default=0.0) or 1.0
    parts = []
    for at, (name, (mean, spread)) in enumerate(worth.items()):
        y, length = 40 + at * row, max(0.0, mean) / largest * width
        reach = spread / largest * width
        parts.append(
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="16" fill="#4c78a8"/>'
            f'<line x1="{left + max(0.0, length - reach):.1f}" x2="{left + length + reach:.1f}" y1="{y + 8}" y2="{y + 8}" stroke="#222"/>'
            f'<text x="{left + length + reach + 6:.1f}" y="{y + 13}">{mean:.4f}</text>'
        )
    height = 56 + row * len(worth)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{height}" font-family="sans-serif" font-size="13">'
        '<rect width="100%" height="100%" fill="white"/><text x="12" y="22">NDCG@10 lost when a feature is shuffled</text>'
    )
    return head + "".join(parts) + "</svg>\n"
