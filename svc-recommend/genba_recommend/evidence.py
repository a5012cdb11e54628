"""How much an event says for its item: one rule for what is learnt from, what is popular and what a history weighs.

A like is the measure, 1. A view counts by the share that was watched, a click says little, and an impression says nothing.
Knows no table and no model.
"""

from __future__ import annotations

from datetime import datetime

from genba_recommend.dataset import Kind

LIKE, CLICK = 1.0, 0.2
VIEW_LEAST, VIEW_MOST, VIEW_UNKNOWN = 0.05, 0.8, 0.4
DAY_S = 86_400


def weight_of(kind: Kind, *, watched_s: float | None = None, duration_s: float | None = None) -> float:
    """Return the weight of an event in [0, 1]; 0 for what does not speak for an item."""
    if kind is Kind.LIKE:
        return LIKE
    if kind is Kind.CLICK:
        return CLICK
    if kind is not Kind.VIEW:
        return 0.0
    if watched_s is None or not duration_s:
        return VIEW_UNKNOWN
    return min(max(VIEW_MOST * watched_s / duration_s, VIEW_LEAST), VIEW_MOST)


def day_of(at: datetime) -> int:
    """Return the day since 1970, in UTC."""
    return int(at.timestamp() // DAY_S)
