"""Inner loops of ``explaining``: compiled where numba is installed, plain Python with the same numbers where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

if TYPE_CHECKING:
    from genba_sop._compiled import compiled
else:
    try:
        from genba_sop._compiled import compiled
    except ImportError:

        def compiled(kernel: Kernel) -> Kernel:
            return kernel


Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@compiled
def segment_costs(block: Floats, longest: int) -> Floats:
    """(M + 1, M + 1) mean cost on the warping path of all rows through the columns from one border to another; inf elsewhere.

    Args: block: (N, M) costs.   longest: columns that a stretch may have.
    """
    n, m = block.shape
    table = np.full((m + 1, m + 1), np.inf)
    total, steps = np.empty(n), np.empty(n)
    for start in range(m):
        for j in range(start, min(m, start + longest)):
            corner, corner_steps = 0.0 if j == start else np.inf, 0.0
            left, left_steps = np.inf, 0.0
            for i in range(n):
                up = np.inf if j == start else total[i]
                up_steps = 0.0 if j == start else steps[i]
                best, count = corner, corner_steps
                if up < best:
                    best, count = up, up_steps
                if left < best:
                    best, count = left, left_steps
                corner, corner_steps = up, up_steps
                left, left_steps = best + block[i, j], count + 1.0
                total[i], steps[i] = left, left_steps
            table[start, j + 1] = total[n - 1] / steps[n - 1]
    return table


@compiled
def cheapest(
    table: Floats, none: Floats, again: Floats, left: Floats, most: float = np.inf
) -> tuple[float, Ints, Ints]:
    """The cheapest way to cut a stretch into steps, or stretches of none, one after the other.

    Args:
        table: (B, B, K) cost of a step from border to border.   none: (B, B) of no step.   again: (2^K, K) price of a step after
            those of a set.   left: (2^K,) of having done only those.   most: dearer beginnings are given up.

    Returns: the cost, infinite where everything was given up, the borders (P + 1,), and between them the steps (P,), −1 for none.

    """
    borders, _, steps = table.shape
    sets = 1 << steps
    best = np.full((borders, sets, 2), np.inf)  # last: was the piece before none?
    came = np.full((borders, sets, 2, 4), -1, np.int64)  # border, set, last, step
    best[0, 0, 0] = 0.0
    for b in range(1, borders):
        for a in range(b):
            for done in range(sets):
                for last in range(2):
                    if best[a, done, last] < np.inf and best[a, done, last] <= most:
                        _extend(best, came, table, none, again, a, b, done, last)
    lowest, at, last = np.inf, 0, 0
    for done in range(sets):
        for kind in range(2):
            if best[borders - 1, done, kind] + left[done] < lowest:
                lowest, at, last = best[borders - 1, done, kind] + left[done], done, kind
    cuts, pieces = [borders - 1], [0][:0]
    b = borders - 1
    while b > 0 and lowest < np.inf:
        pieces.append(came[b, at, last, 3] if last == 0 else -1)
        b, at, last = came[b, at, last, 0], came[b, at, last, 1], came[b, at, last, 2]
        cuts.append(b)
    return lowest, np.array(cuts[::-1]), np.array(pieces[::-1])


@compiled
def _extend(
    best: Floats, came: Ints, table: Floats, none: Floats, again: Floats, a: int, b: int, done: int, last: int
) -> None:
    """Add each piece from border ``a`` to ``b`` to the best story so far; two pieces of no step never touch."""
    before = best[a, done, last]
    if last == 0 and before + none[a, b] < best[b, done, 1]:
        best[b, done, 1] = before + none[a, b]
        came[b, done, 1, 0], came[b, done, 1, 1], came[b, done, 1, 2] = a, done, last
    for k in range(table.shape[2]):
        cost = before + table[a, b, k] + again[done, k]
        now = done | (1 << k)
        if cost < best[b, now, 0]:
            best[b, now, 0] = cost
            came[b, now, 0, 0], came[b, now, 0, 1], came[b, now, 0, 2], came[b, now, 0, 3] = a, done, last, k
