"""Compiled inner loops of ``evidence``: the same numbers as ``_evidence_numpy`` to the last bit. Knows nothing of steps' meaning."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from genba_sop._compiled import compiled

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]


@compiled
def own(colour: Singles, level: Singles, spread: Singles) -> Singles:
    """(n, P) length of each row of (colour − level) / spread, or of how it differs from the row before or after where that is less.

    Args: colour, level: (n, P, 3).   spread: (n, P).
    """
    n, pixels, _ = colour.shape
    length = np.empty((n, pixels), np.float32)
    for k in range(n):
        for p in range(pixels):
            x = (colour[k, p, 0] - level[k, p, 0]) / spread[k, p]
            y = (colour[k, p, 1] - level[k, p, 1]) / spread[k, p]
            z = (colour[k, p, 2] - level[k, p, 2]) / spread[k, p]
            length[k, p] = np.sqrt(x * x + y * y + z * z)
            if k:
                x -= (colour[k - 1, p, 0] - level[k - 1, p, 0]) / spread[k - 1, p]
                y -= (colour[k - 1, p, 1] - level[k - 1, p, 1]) / spread[k - 1, p]
                z -= (colour[k - 1, p, 2] - level[k - 1, p, 2]) / spread[k - 1, p]
                step = np.sqrt(x * x + y * y + z * z)
                length[k, p] = min(length[k, p], step)
                length[k - 1, p] = min(length[k - 1, p], step)
    return length


@compiled
def off(colour: Singles, level: Singles, spread: Singles, most: float) -> Singles:
    """(P,) by how many spreads the rows (n, P, 3) are from a level (P, 3) in all, each by at most ``most``."""
    n, pixels, _ = colour.shape
    total, limit = np.zeros(pixels, np.float32), np.float32(most)
    for k in range(n):
        for p in range(pixels):
            x = (colour[k, p, 0] - level[p, 0]) / spread[k, p]
            y = (colour[k, p, 1] - level[p, 1]) / spread[k, p]
            z = (colour[k, p, 2] - level[p, 2]) / spread[k, p]
            total[p] += min(limit, np.sqrt(x * x + y * y + z * z))
    return total


@compiled
def unlike(lately: Singles, moving: Singles, usual: Singles, seen: Singles, floor: float) -> Floats:
    """(n, S) by how much what covers the place lately and what moves is more than in any gold, or less than in every gold, in all.

    Args: lately, moving: (n, 2, P) as it is and widened.   usual: (4, S, P) most and least of both.   seen: (P,).
    """
    n, pixels = len(lately), len(seen)
    steps = usual.shape[1]
    found, off, least = np.empty((n, steps)), np.empty(pixels, np.float32), np.float32(floor)
    zero = np.float32(0)
    for k in range(n):
        for s in range(steps):
            most_covered, least_covered, most_moving, least_moving = usual[0, s], usual[1, s], usual[2, s], usual[3, s]
            covered, wide, moves, stirs = lately[k, 0], lately[k, 1], moving[k, 0], moving[k, 1]
            for p in range(pixels):
                more = max(zero, covered[p] - most_covered[p] - least) + max(zero, moves[p] - most_moving[p] - least)
                less = max(zero, least_covered[p] - wide[p] - least) + max(zero, least_moving[p] - stirs[p] - least)
                off[p] = (more + less) * seen[p]
            found[k, s] = off.sum()
    return found


@compiled
def split(colour: Singles, spread: Singles, most: float) -> tuple[Singles, Singles, Singles]:
    """What each pixel shows before and after each of S = n − 3 rows, and what explaining it by these two levels costs.

    Args:    colour: (n, 3, P), n > 3.   spread: (n, P).   most: spreads that a row may cost.
    Returns: (S, 3, P) medians of the rows before row s + 1, (S, 3, P) of those after it, (S, P) costs.
    """
    n, _, pixels = colour.shape
    before, after = np.empty((n - 3, 3, pixels), np.float32), np.empty((n - 3, 3, pixels), np.float32)
    ordered, spare = np.empty((n, 3, pixels), np.float32), np.empty((3, pixels), np.float32)
    for s in range(n - 3):
        _insert(ordered.reshape(n, -1), s, colour[s].ravel(), spare.ravel())
        _middle(ordered.reshape(n, -1), s + 1, before[s].ravel())
    _insert(ordered.reshape(n, -1), 0, colour[n - 1].ravel(), spare.ravel())
    for s in range(n - 4, -1, -1):
        _insert(ordered.reshape(n, -1), n - 3 - s, colour[s + 2].ravel(), spare.ravel())
        _middle(ordered.reshape(n, -1), n - 2 - s, after[s].ravel())
    cost, later = np.empty((n - 3, pixels), np.float32), np.empty(pixels, np.float32)
    for s in range(n - 3):
        _cost(colour[: s + 1], spread, before[s], np.float32(most), cost[s])
        _cost(colour[s + 2 :], spread[s + 2 :], after[s], np.float32(most), later)
        cost[s] += later
    return before, after, cost


@compiled
def _insert(ordered: Singles, count: int, row: Singles, spare: Singles) -> None:
    """Put each number of a row in its place among the first ``count`` rows, which are sorted in each column."""
    spare[:] = row
    for k in range(count - 1, -1, -1):
        here, above = ordered[k], ordered[k + 1]
        for i in range(len(row)):
            low, high = here[i], spare[i]
            above[i] = max(high, low)
            spare[i] = min(low, high)
    ordered[0] = spare


@compiled
def _middle(ordered: Singles, count: int, median: Singles) -> None:
    half = count // 2
    if count % 2:
        median[:] = ordered[half]
    else:
        median[:] = (ordered[half - 1] + ordered[half]) / np.float32(2)


@compiled
def _cost(colour: Singles, spread: Singles, level: Singles, most: np.float32, cost: Singles) -> None:
    """(P,) by how many spreads rows (k, 3, P) are from a level (3, P), each by at most ``most``."""
    cost[:] = 0
    x0, y0, z0 = level
    for k in range(len(colour)):
        x1, y1, z1 = colour[k]
        unit = spread[k]
        for p in range(len(cost)):
            x, y, z = (x1[p] - x0[p]) / unit[p], (y1[p] - y0[p]) / unit[p], (z1[p] - z0[p]) / unit[p]
            off = np.sqrt(x * x + y * y + z * z)
            cost[p] += min(most, off)
