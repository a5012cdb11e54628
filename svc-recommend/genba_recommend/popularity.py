"""How much is done with each item, fading with time: counts that follow every event at once. Arrays; knows no table and no model.

A count is kept as if all of it had happened on one day far back (forward decay, Cormode et al. 2009): an event of day d adds
weight · 2^(d / half-life), so that nothing has to be touched as time goes by and any moment's count is a shift of the exponent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]
FloatsOfAnyKind = TypeVar("FloatsOfAnyKind", Floats, Float32s)
MAX_EXPONENT = 400.0  # of 2; float64 ends at 1023
UNTOUCHED = 1e-30  # a count below it is none, or is forgotten


@dataclass
class Fading:
    """Counts of n items under one half-life. Days are whole; one writer at a time."""

    half_life_days: float
    origin_day: int
    scaled: Floats = field(default_factory=lambda: np.zeros(0))

    def grow(self, n: int) -> None:
        """Make room for items up to row n."""
        if n > len(self.scaled):
            self.scaled = np.concatenate([self.scaled, np.zeros(n - len(self.scaled))])

    def add(self, rows: npt.NDArray[np.integer], days: npt.NDArray[np.integer], weights: Floats) -> None:
        """rows, days, weights: (n,). An item may stand several times."""
        if not len(rows):
            return
        self.grow(int(rows.max()) + 1)
        newest = int(days.max())
        if (newest - self.origin_day) / self.half_life_days > MAX_EXPONENT:
            self.scaled *= np.exp2((self.origin_day - newest) / self.half_life_days)
            self.origin_day = newest
        np.add.at(self.scaled, rows, weights * np.exp2((days - self.origin_day) / self.half_life_days))

    def at(self, day: float, n: int) -> Float32s:
        """(n,) counts as of a day."""
        self.grow(n)
        return np.asarray(self.scaled[:n] * np.exp2((self.origin_day - day) / self.half_life_days), np.float32)


@dataclass
class Popularity:
    """The counts that lists are made from: popular, trending, under each model's prior, and of each segment."""

    popular: Fading
    trending: Fading
    priors: dict[float, Fading] = field(default_factory=dict)  # by half-life
    segments: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)  # weights by row
    segment_events: dict[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def starting(cls, *, day: int, popular_half_life_days: float, trending_half_life_days: float) -> Popularity:
        return cls(Fading(popular_half_life_days, day), Fading(trending_half_life_days, day))

    def add(self, rows: npt.NDArray[np.integer], days: npt.NDArray[np.integer], weights: Floats) -> None:
        """Count events everywhere but in segments."""
        for counts in (self.popular, self.trending, *self.priors.values()):
            counts.add(rows, days, weights)

    def add_to_segment(self, segment: tuple[str, str], pairs: Iterable[tuple[int, float]], *, events: float) -> None:
        """Count weights by row in a segment; only recent events are offered, so these do not fade."""
        counts = self.segments.setdefault(segment, {})
        for row, weight in pairs:
            counts[row] = counts.get(row, 0.0) + weight
        self.segment_events[segment] = self.segment_events.get(segment, 0.0) + events


def smoothed(counts: FloatsOfAnyKind, smoothing: float, foreseen: FloatsOfAnyKind | None) -> FloatsOfAnyKind:
    """(n,) counts + smoothing. Args: foreseen: (n,) what an item would count that nobody has touched, where that is more."""
    if foreseen is None:
        return counts + counts.dtype.type(smoothing)
    return counts + np.where(counts < UNTOUCHED, np.maximum(foreseen, smoothing), smoothing).astype(counts.dtype)


def log_prior(counts: Float32s, *, smoothing: float, weight: float, foreseen: Float32s | None = None) -> Float32s:
    """What a prior adds to every item's score, (n,): weight · log of what is ``smoothed``, 0 for the most popular. See ``prior.Prior``."""
    if not len(counts) or weight == 0.0:
        return np.zeros(len(counts), np.float32)
    logs = np.log(smoothed(counts, smoothing, foreseen))
    return np.asarray(weight * (logs - logs.max()), np.float32)


def log_lasting(counts: Float32s, ever: Float32s, *, lasting: float, smoothing: float, weight: float) -> Float32s:
    """What a prior adds on top where ``lasting`` of the slow counts are counted, too, (n,), at least 0. See ``prior.Prior``."""
    now = counts + np.float32(smoothing)
    return np.asarray(np.float32(weight) * np.log1p(np.float32(lasting) * ever / now), np.float32)
