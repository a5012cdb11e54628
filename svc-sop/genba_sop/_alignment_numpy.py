"""The kernels of ``alignment`` without a compiler: NumPy over anti-diagonals, whose cells do not wait for each other.

Same functions, same numbers, same ties as ``_alignment_numba``; soft-DTW agrees to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]

INF = math.inf


def dtw(cost: Floats) -> tuple[Ints, float]:
    if not _is_clean(cost):
        return np.empty((0, 2), np.int64), math.nan
    n, m = cost.shape
    came = np.empty((n + m - 1, n), np.uint8)
    before, last = _edge(n, corner=0.0), _edge(n)
    for d, costs in enumerate(_diagonals(cost)):
        now = _edge(n)
        best, up, left = before[:-1], last[:-1], last[1:]
        came[d] = np.where(left < np.minimum(best, up), 2, up < best)
        now[1:] = np.minimum(np.minimum(best, up), left) + costs
        before, last = last, now
    return _walk(came, n, m), float(last[n])


def _walk(came: Codes, n: int, m: int) -> Ints:
    path = []
    i, j = n - 1, m - 1
    while i >= 0 and j >= 0:
        path.append((i, j))
        code = came[i + j, i]
        i -= int(code != 2)
        j -= int(code != 1)
    return np.array(path[::-1], np.int64)


def subsequence(cost: Floats) -> tuple[Floats, Ints]:
    n, m = cost.shape
    if not _is_clean(cost):
        return np.full(m, math.nan), np.zeros(m, np.int64)
    totals, starts = np.empty(m), np.empty(m, np.int64)
    before, last = _edge(n), _edge(n)
    before_starts = last_starts = np.zeros(n + 1, np.int64)
    for d, costs in enumerate(_diagonals(cost)):
        now, now_starts = _edge(n), np.zeros(n + 1, np.int64)
        best, up, left = before[:-1], last[:-1], last[1:]
        now_starts[1:] = np.where(up < best, last_starts[:-1], before_starts[:-1])
        now_starts[1:] = np.where(left < np.minimum(best, up), last_starts[1:], now_starts[1:])
        now[1:] = np.minimum(np.minimum(best, up), left) + costs
        now[1], now_starts[1] = costs[0], d
        if d >= n - 1:
            totals[d - n + 1], starts[d - n + 1] = now[n], now_starts[n]
        before, before_starts, last, last_starts = last, last_starts, now, now_starts
    return totals, starts


def soft(cost: Floats, gamma: float) -> float:
    return float(soft_table(cost, gamma)[-1, -1])


def soft_table(cost: Floats, gamma: float) -> Floats:
    n, m = cost.shape
    if not _is_clean(cost):
        return np.full((n, m), math.nan)
    skewed = np.empty((n + m - 1, n))
    before, last = _edge(n, corner=0.0), _edge(n)
    for d, costs in enumerate(_diagonals(cost)):
        now = _edge(n)
        now[1:] = _softmin(before[:-1], last[:-1], last[1:], gamma) + costs
        skewed[d] = now[1:]
        before, last = last, now
    rows = np.arange(n)[:, None]
    return skewed[rows + np.arange(m), rows]  # type: ignore[no-any-return] # numpy's stubs lose the dtype here


def _softmin(x: Floats, y: Floats, z: Floats, gamma: float) -> Floats:
    best = np.minimum(np.minimum(x, y), z)
    offset = np.where(np.isinf(best), 0.0, best)  # where nothing leads to the cell: inf − 0, not inf − inf
    total = np.exp((offset - x) / gamma) + np.exp((offset - y) / gamma) + np.exp((offset - z) / gamma)
    with np.errstate(divide="ignore"):
        return np.asarray(offset - gamma * np.log(total))


def skip(cost: Floats, gap: float, gap_open: float, stretch: float) -> tuple[Ints, float]:
    """Codes as in ``_alignment_numba.skip``; entries 0 and d + 2 of a diagonal stand for the row and column −1."""
    if not _is_clean(cost):
        return np.empty((0, 2), np.int64), math.nan
    n, m = cost.shape
    codes = np.empty((n + m - 1, n), np.uint8)
    best_before = _edge(n, corner=0.0)
    best, match, gold, trainee = _edge(n), _edge(n), _edge(n), _edge(n)
    best[:2] = gap_open + gap
    for d, costs in enumerate(_diagonals(cost)):
        match_now, gold_now, trainee_now, best_now = _edge(n), _edge(n), _edge(n), _edge(n)
        entered = np.minimum(match[:-1], match[1:]) + stretch
        diagonal = best_before[:-1] <= entered
        code = np.where(diagonal, 0, np.where(match[:-1] <= match[1:], 4, 8))
        match_now[1:] = np.where(diagonal, best_before[:-1], entered) + costs

        opened = best[:-1] + gap_open
        code |= np.where(gold[:-1] < opened, 16, 0)
        gold_now[1:] = np.minimum(opened, gold[:-1]) + gap
        opened = best[1:] + gap_open
        code |= np.where(trainee[1:] < opened, 32, 0)
        trainee_now[1:] = np.minimum(opened, trainee[1:]) + gap

        skipped = np.minimum(match_now, gold_now)
        state = np.where(trainee_now < skipped, 2, gold_now < match_now)
        best_now[:] = np.minimum(skipped, trainee_now)
        codes[d] = code | state[1:]
        best_now[0] = gap_open + gap * (d + 2)
        if d + 2 <= n:
            best_now[d + 2] = gap_open + gap * (d + 2)
            match_now[d + 2] = gold_now[d + 2] = trainee_now[d + 2] = INF
        best_before, best, match, gold, trainee = best, best_now, match_now, gold_now, trainee_now
    return _walk_skips(codes, n, m), float(best[n])


def _walk_skips(codes: Codes, n: int, m: int) -> Ints:
    pairs = []
    i, j = n - 1, m - 1
    state = codes[i + j, i] & 3
    while i >= 0 and j >= 0:
        code = int(codes[i + j, i])
        if state == 0:
            pairs.append((i, j))
            entered = code >> 2 & 3
            stays = entered != 0
            i -= int(entered != 2)
            j -= int(entered != 1)
        else:
            stays = code & (16 if state == 1 else 32) != 0
            i -= int(state == 1)
            j -= int(state == 2)
        if not stays and i >= 0 and j >= 0:
            state = codes[i + j, i] & 3
    return np.array(pairs[::-1], np.int64).reshape(-1, 2)


def _diagonals(cost: Floats) -> Iterator[Floats]:
    """The anti-diagonals of the matrix, each (N,) by row, +inf where the diagonal lies outside."""
    n, m = cost.shape
    wide = np.full((n, n + m), INF)
    wide[:, :m] = cost
    # one column fewer shifts each row by one more than the row above it
    return iter(wide.ravel()[: n * (n + m - 1)].reshape(n, n + m - 1).T)


def _edge(n: int, *, corner: float = INF) -> Floats:
    """A diagonal of nothing: (N + 1,), row i at i + 1, ``corner`` above the first row."""
    edge = np.full(n + 1, INF)
    edge[0] = corner
    return edge


def _is_clean(cost: Floats) -> bool:
    return bool((cost > -INF).all())
