"""Compiled inner loop of ``medians``. Rows of numbers in, sorted rows out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from genba_sop._compiled import compiled

Rows = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

_BLOCK = 1024  # columns at once: a few dozen rows of them stay in the first cache


@compiled
def exchanged(rows: Rows, pairs: Ints, ranks: Ints) -> Rows:
    """(R, P) what is at these ranks of (n, P) rows, sorted in each column by a network of exchanges (E, 2)."""
    n, columns = rows.shape
    found, block = np.empty((len(ranks), columns), rows.dtype), np.empty((n, _BLOCK), rows.dtype)
    for start in range(0, columns, _BLOCK):
        width = min(_BLOCK, columns - start)
        block[:, :width] = rows[:, start : start + width]
        for e in range(len(pairs)):
            one, other = block[pairs[e, 0]], block[pairs[e, 1]]
            for p in range(width):
                low, high = one[p], other[p]
                one[p] = min(low, high)
                other[p] = max(low, high)
        for r in range(len(ranks)):
            found[r, start : start + width] = block[ranks[r], :width]
    return found
