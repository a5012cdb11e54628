"""Compiled inner loops of ``observation``: the same numbers as ``_observation_numpy``, but for the last bits. Costs in, costs out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from genba_sop._compiled import compiled

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@compiled
def smoothed(likeness: Singles) -> tuple[Singles, Singles]:
    """(N, M) 1 − likeness, averaged over three along the diagonal, the border repeated; and (M,) the least of each column."""
    n, m = likeness.shape
    smooth, least = np.empty((n, m), np.float32), np.full(m, np.inf, np.float32)
    one, three = np.float32(1), np.float32(3)
    for i in range(n):
        above, below = likeness[max(0, i - 1)], likeness[min(n - 1, i + 1)]
        here, out = likeness[i], smooth[i]
        out[0] = (one - above[0] + (one - here[0]) + (one - below[min(1, m - 1)])) / three
        for j in range(1, m - 1):
            out[j] = (one - above[j - 1] + (one - here[j]) + (one - below[j + 1])) / three
        if m > 1:
            out[m - 1] = (one - above[m - 2] + (one - here[m - 1]) + (one - below[m - 1])) / three
        for j in range(m):
            least[j] = min(least[j], out[j])
    return smooth, least


@compiled
def normalised(smooth: Singles, match: float, unit: float) -> Floats:
    """(N, M) how many units each cost is above a typical match."""
    n, m = smooth.shape
    cost, zero = np.empty((n, m)), np.float32(match)
    for i in range(n):
        for j in range(m):
            cost[i, j] = np.float64(smooth[i, j] - zero) / unit
    return cost


@compiled
def cells(
    local: Singles,
    recent: Singles,
    gold_local: Singles,
    gold_recent: Singles,
    mine: Ints,
    theirs: Ints,
    step: Ints,
    steps: int,
) -> Floats:
    """(S, C) sum over the pairs of rows of each step of how far each cell is from the gold's, by the kinder of two backgrounds.

    Args: local, recent: (M, C, L).   gold_local, gold_recent: (N, C, L).   mine, theirs, step: (n,) rows of either and their step.
    """
    _, count, channels = local.shape
    total = np.zeros((steps, count))
    for k in range(len(mine)):
        i, j, at = mine[k], theirs[k], step[k]
        for c in range(count):
            one, other = np.float32(0), np.float32(0)
            for x in range(channels):
                gap, late = local[i, c, x] - gold_local[j, c, x], recent[i, c, x] - gold_recent[j, c, x]
                one += gap * gap
                other += late * late
            total[at, c] += np.sqrt(min(one, other))
    return total
