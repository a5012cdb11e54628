"""A video as the numerics use it: not too many rows, with what stays where it was taken off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genba_sop.features import Features
from genba_sop.medians import medians
from genba_sop.segmentation import edges_s

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

MAX_FRAMES = 2400  # ten minutes at 4 a second; longer videos are averaged down to it


@dataclass(frozen=True)
class Rows:
    """A video as the numerics use it, at most ``MAX_FRAMES`` rows.

    values: (T, D) unit rows.   local, recent: (T, 48, L) the grid with its median over the video taken off, and that over
    the last and next few steps: what was moved for good differs in the one, what is held for long in the other.
    motion: (T,).   edges: (T + 1,) seconds, borders of the rows.
    """

    values: Singles
    local: Singles
    recent: Singles
    motion: Singles
    edges: Floats

    @property
    def frame_s(self) -> float:
        """Seconds a row stands for, on average."""
        return float(self.edges[-1] - self.edges[0]) / max(1, len(self.values))


@dataclass(frozen=True)
class Grid:
    """How a procedure's local grids are prepared: (L,) spread of each channel, and the seconds that count as recent."""

    spread: Floats
    recent_s: float


def rows_of(features: Features, grid: Grid) -> Rows:
    """Prepare a video's features.

    Raises: ValueError for a video without frames, or for nan or infinity.
    """
    count = len(features.times_s)
    if not count:
        raise ValueError("The video has no frames.")
    if not (
        np.isfinite(features.values).all() and np.isfinite(features.local).all() and np.isfinite(features.motion).all()
    ):
        raise ValueError("The features hold nan or infinity.")
    edges = edges_of(features)
    values, local, motion = features.values, features.local, features.motion
    if len(edges) <= count:
        starts = _starts(count)
        sizes = np.diff(np.r_[starts, count]).astype(np.float32)
        values = np.add.reduceat(values, starts, axis=0)
        values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
        local = np.add.reduceat(local, starts, axis=0) / sizes[:, None, None]
        motion = np.add.reduceat(motion, starts) / sizes
    scaled = np.asarray(local / grid.spread, np.float32)
    reach = max(2, round(grid.recent_s / 2 * len(values) / max(float(edges[-1] - edges[0]), 1e-6)))
    return Rows(
        np.ascontiguousarray(values, np.float32),
        scaled - _thin_median(scaled),
        scaled - _recent_median(scaled, reach),
        np.ascontiguousarray(motion, np.float32),
        edges,
    )


def edges_of(features: Features) -> Floats:
    """(T + 1,) seconds, borders of a video's rows."""
    edges = edges_s(features.times_s, features.duration_s)
    return np.asarray(np.r_[edges[_starts(len(features.times_s))], edges[-1]], np.float64)


def moments_s(features: Features) -> Floats:
    """(T,) the middle of each of a video's rows, in seconds."""
    edges = edges_of(features)
    return (edges[1:] + edges[:-1]) / 2


def _starts(count: int) -> Ints:
    """The frames with which rows begin."""
    return np.arange(0, count, max(1, -(-count // MAX_FRAMES)))


def _thin_median(rows: Singles) -> Singles:
    """Median over time, of at most about 64 rows spread evenly."""
    return medians(rows[:: max(1, len(rows) // 64)], axis=0)


def _recent_median(rows: Singles, reach: int) -> Singles:
    """(T, …) median over the rows up to ``reach`` away, found every ``reach`` / 2 rows and interpolated."""
    centres = np.unique(np.minimum(np.arange(0, len(rows) + reach // 2, max(1, reach // 2)), len(rows) - 1))
    stride = max(1, reach // 10)
    known = np.stack([medians(rows[max(0, c - reach) : c + reach + 1 : stride], axis=0) for c in centres])
    at = np.arange(len(rows))
    low = np.clip(np.searchsorted(centres, at, side="right") - 1, 0, max(0, len(centres) - 2))
    high = np.minimum(low + 1, len(centres) - 1)
    share = ((at - centres[low]) / np.maximum(1, centres[high] - centres[low])).astype(np.float32)[:, None, None]
    return np.asarray((1 - share) * known[low] + share * known[high], np.float32)


def local_spread(golds: Sequence[Features]) -> Floats:
    """(L,) how much each channel of the grid varies over time, so that colours weigh as much as edges do."""
    spread = [np.sqrt(np.mean(np.square(g.local - np.median(g.local, axis=0)), axis=(0, 1))) for g in golds]
    return np.asarray(np.maximum(np.mean(spread, axis=0), 1e-3), np.float64)
