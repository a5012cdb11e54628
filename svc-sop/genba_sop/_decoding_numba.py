"""Compiled ``decoding``: the same moves, numbers and ties as its NumPy lattice, thirty times as fast.

Knows nothing of validation, golds' meaning or dataclasses: contiguous float64 and int64 arrays in, gold frames out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from genba_sop._compiled import compiled

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Moves = tuple[float, float, int, float, float]  # hold, hurry, reach, elsewhere, leave


@compiled
def forwards(columns: Floats, gold: Ints, segment: Ints, jump: Floats, first: Floats, late: Floats, early: Floats,
             moves: Moves) -> tuple[Floats, Floats]:  # fmt: skip
    """(M, N) cheapest cost of being at each gold frame, matched and not, after each trainee frame.

    Args: columns: (M, N) costs.   gold, segment: (N,).   jump: (K, K).   first, late, early: (N,), see ``decoding``.
    """
    hold, hurry, reach, elsewhere, leave = moves
    m, n = columns.shape
    segments = jump.shape[0]
    match, extra = np.empty((m, n)), np.empty((m, n))
    best, left, entered = np.empty(n), np.empty(segments), np.empty(segments)
    for i in range(n):
        match[0, i] = columns[0, i] + first[i]
        extra[0, i] = first[i] + leave + elsewhere
    for j in range(1, m):
        matched, other = match[j - 1], extra[j - 1]
        _onwards(matched, other, gold, hold, hurry, reach, best)
        _leave(matched, other, segment, early, left)
        entered[:] = np.inf
        for k in range(segments):
            for onwards in range(segments):
                entered[onwards] = min(entered[onwards], left[k] + jump[k, onwards])
        for i in range(n):
            match[j, i] = columns[j, i] + min(best[i], entered[segment[i]] + late[i])
            extra[j, i] = min(other[i], matched[i] + leave) + elsewhere
    return match, extra


@compiled
def _onwards(matched: Floats, other: Floats, gold: Ints, hold: float, hurry: float, reach: int, best: Floats) -> None:
    """(N,) the cheapest way into each frame from itself and the few before it."""
    n = len(best)
    for i in range(n):
        best[i] = min(matched[i] + hold, other[i])
    for k in range(1, min(reach, n - 1) + 1):
        price = hurry * (k - 1)
        for i in range(k, n):
            if gold[i] == gold[i - k]:
                best[i] = min(best[i], matched[i - k] + price)
    for i in range(1, n):
        if gold[i] == gold[i - 1]:
            best[i] = min(best[i], other[i - 1])


@compiled
def _leave(matched: Floats, other: Floats, segment: Ints, early: Floats, left: Floats) -> None:
    """(K,) the cheapest way out of each segment."""
    left[:] = np.inf
    for i in range(len(segment)):
        k = segment[i]
        left[k] = min(left[k], min(matched[i], other[i]) + early[i])


@compiled
def backwards(columns: Floats, match: Floats, extra: Floats, gold: Ints, segment: Ints, jump: Floats, early: Floats,
              moves: Moves, low: int, end: int, *, matched: bool) -> Ints:  # fmt: skip
    """(M,) the frame of the gold that begins at ``low``, or −1, on the way that ends at ``end``."""
    hold, hurry, reach, _, leave = moves
    frame = np.full(len(columns), -1, np.int64)
    at = end
    for j in range(len(columns) - 1, -1, -1):
        if not matched:
            if j:
                matched = match[j - 1, at] + leave < extra[j - 1, at]
            continue
        frame[j] = at - low
        if not j:
            break
        before, other = match[j - 1], extra[j - 1]
        entered = match[j, at] - columns[j, at]
        cost, source, matched = before[at] + hold, at, True
        if other[at] < cost:
            cost, source, matched = other[at], at, False
        for k in range(1, reach + 1):
            if at >= k and gold[at - k] == gold[at] and before[at - k] + hurry * (k - 1) < cost:
                cost, source, matched = before[at - k] + hurry * (k - 1), at - k, True
        if at and gold[at - 1] == gold[at] and other[at - 1] < cost:
            cost, source, matched = other[at - 1], at - 1, False
        if cost > entered + 1e-9 * (1 + abs(entered)):
            source = _jumped(before, other, segment, jump, early, at)
            matched = before[source] <= other[source]
        at = source
    return frame


@compiled
def _jumped(match: Floats, extra: Floats, segment: Ints, jump: Floats, early: Floats, at: int) -> int:
    """The frame from which entering the segment of ``at`` is cheapest; of equal ones the first."""
    cheapest, source = np.inf, 0
    for i in range(len(match)):
        cost = min(match[i], extra[i]) + early[i] + jump[segment[i], segment[at]]
        if cost < cheapest:
            cheapest, source = cost, i
    return source
