"""Compiled inner loops of ``alignment``: hard, subsequence and skip alignment.

Knows nothing of validation: matrices are contiguous float64 and not empty. +inf forbids a pair; a matrix that holds
nan or −inf gives a total of nan. ``_alignment_numpy`` offers the same functions with the same numbers.

Dynamic programming waits for its left neighbour, so a loop over one row is bound by latency. Here a strip of 32 rows
advances together, each row one column behind the row above it: the 32 cells of a step do not depend on each other.
They lie in eight registers of four; register k holds the rows k, 8 + k, 16 + k and 24 + k, so that what stands above
register k is register k − 1, and only register 0 needs a shift. Indices are unsigned where it matters, because numba
wraps signed ones around at a cost of two instructions each.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from genba_sop._compiled import compiled
from genba_sop._quad import Quad, lane, least, plus, pushed, quad
from genba_sop._soft_dtw_numba import is_clean, soft, soft_table

__all__ = ["dtw", "skip", "soft", "soft_table", "subsequence"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]
Index = int | np.int64 | np.uint64
Lanes = tuple[Quad, Quad, Quad, Quad, Quad, Quad, Quad, Quad]

INF = math.inf
ROWS = 32  # of a strip
LAST = ROWS - 1
CHUNK = 32  # steps between two marks from which a strip can be replayed
CACHED = 1 << 21  # costs that still lie in the cache, where reading 32 rows at once is no slower than reading one
U1 = np.uint64(1)


# --- hard DTW ---------------------------------------------------------------------------------------------------------


@compiled
def dtw(cost: Floats) -> tuple[Ints, float]:
    """Return the path (P, 2) and its total. Ties: diagonal, then a step in rows, then a step in columns.

    Of the accumulated costs only the last row of each strip is kept, and the registers every ``CHUNK`` steps: enough
    to replay what the path passes through, in half a byte a cell. The last strip is padded by a free diagonal.
    """
    n, m = cost.shape
    strips = (n + LAST) // ROWS
    width = m + strips * ROWS - n
    chunks = (width + LAST + CHUNK - 1) // CHUNK
    row_size, mark_size = width + 2 * ROWS, chunks * 2 * ROWS
    memory = np.empty((strips + 1) * row_size + strips * mark_size)  # one block: the allocator keeps it between calls
    rows = memory[: (strips + 1) * row_size].reshape(strips + 1, row_size)  # column j at j + 32
    marks = memory[(strips + 1) * row_size :].reshape(strips, mark_size)
    for j in range(row_size):
        rows[0, j] = INF
    rows[0, LAST] = 0.0
    spread = ((width + 7) // 8 | 1) * 8  # an odd number of cache lines: no two rows in the same set
    copy = np.empty(ROWS * spread)
    flat = cost.reshape(n * m)
    for s in range(strips):
        for j in range(m + ROWS, row_size):
            rows[s + 1, j] = INF
        if (s + 1) * ROWS <= n and m % 64 != 0 and flat.shape[0] <= CACHED:
            clean = _sweep(flat[s * ROWS * m :], m, m + LAST, rows[s], rows[s + 1], marks[s])
        else:
            _copy_strip(cost, s * ROWS, copy, spread)
            clean = _sweep(copy, spread, width + LAST, rows[s], rows[s + 1], marks[s])
        if not clean:
            return np.empty((0, 2), np.int64), math.nan
    return _trace(cost, rows, marks, copy, spread), rows[strips, width + LAST]


@compiled
def _copy_strip(cost: Floats, top: int, copy: Floats, spread: int) -> None:
    n, m = cost.shape
    for r in range(ROWS):
        row = copy[r * spread : (r + 1) * spread]
        filled = 0
        if top + r < n:
            filled = m
            for j in range(m):
                row[j] = cost[top + r, j]
        for j in range(filled, spread):
            row[j] = INF
        if top + r >= n:
            row[m + top + r - n] = 0.0


@compiled
def _sweep(strip: Floats, width: int, steps: int, above: Floats, below: Floats, marks: Floats) -> bool:
    """Accumulate one strip from the row above it; False when it holds nan or −inf.

    A row begins and ends outside of the matrix, in the neighbouring rows: in the columns before 0 everything is +inf,
    and what comes after the last column leads nowhere. nan and −inf spread to the right whatever they are compared
    with (``least`` keeps its second operand), so the last step shows them.
    """
    nothing = quad(INF, INF, INF, INF)
    a: Lanes = (nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing)
    # what stood above each row one step before
    b: Lanes = (quad(above[LAST], INF, INF, INF), nothing, nothing, nothing, nothing, nothing, nothing, nothing)
    tops, bottoms = above[ROWS:], below[1:]
    stride = np.uint64(width - 1)
    for start in range(0, steps, CHUNK):
        _store(marks[2 * ROWS * (start // CHUNK) :], a, b)
        for t in range(np.uint64(start), np.uint64(min(start + CHUNK, steps))):
            up = pushed(a[7], tops[t])
            new = _step(a, b, up, _costs(strip, t, stride))
            b = (up, a[0], a[1], a[2], a[3], a[4], a[5], a[6])
            a = new
            bottoms[t] = lane(new[7], 3)
    clean = True
    for k in range(8):
        for z in range(4):
            clean &= lane(a[k], z) > -INF
    return clean


@compiled
def _step(a: Lanes, b: Lanes, up: Quad, c: Lanes) -> Lanes:
    """Advance every row by one column: min(diagonal, above, left) + cost."""
    return (
        plus(least(least(b[0], up), a[0]), c[0]),
        plus(least(least(b[1], a[0]), a[1]), c[1]),
        plus(least(least(b[2], a[1]), a[2]), c[2]),
        plus(least(least(b[3], a[2]), a[3]), c[3]),
        plus(least(least(b[4], a[3]), a[4]), c[4]),
        plus(least(least(b[5], a[4]), a[5]), c[5]),
        plus(least(least(b[6], a[5]), a[6]), c[6]),
        plus(least(least(b[7], a[6]), a[7]), c[7]),
    )


@compiled
def _costs(strip: Floats, t: Index, stride: Index) -> Lanes:
    """Row r at column t − r. ``stride`` is one less than the width of a row."""
    s2, s4 = stride + stride, stride + stride + stride + stride
    return (
        _four(strip, t, stride),
        _four(strip, t + stride, stride),
        _four(strip, t + s2, stride),
        _four(strip, t + s2 + stride, stride),
        _four(strip, t + s4, stride),
        _four(strip, t + s4 + stride, stride),
        _four(strip, t + s4 + s2, stride),
        _four(strip, t + s4 + s2 + stride, stride),
    )


@compiled
def _four(strip: Floats, at: Index, stride: Index) -> Quad:
    s8 = stride * np.uint64(8)
    return quad(strip[at], strip[at + s8], strip[at + s8 + s8], strip[at + s8 + s8 + s8])


@compiled
def _store(mark: Floats, a: Lanes, b: Lanes) -> None:
    for k in range(8):
        for z in range(4):
            mark[4 * k + z] = lane(a[k], z)
            mark[ROWS + 4 * k + z] = lane(b[k], z)


@compiled
def _trace(cost: Floats, rows: Floats, marks: Floats, copy: Floats, spread: int) -> Ints:
    """Walk back from the corner, replaying each chunk of a strip that the path passes through.

    ``copy`` holds the last strip if that one was padded.
    """
    n, m = cost.shape
    path = np.empty((n + m, 2), np.int64)
    at = n + m
    table = np.empty((CHUNK + 2, ROWS))  # row u + 2 is the step u of the chunk, as in the registers
    i = marks.shape[0] * ROWS - 1
    j = m + i - n
    while i >= 0:
        s = i // ROWS
        r = i - s * ROWS
        q = (j + r) // CHUNK
        u = j + r - q * CHUNK
        above, mark = rows[s], marks[s, 2 * ROWS * q : 2 * ROWS * (q + 1)]
        if (s + 1) * ROWS <= n:
            _replay(cost.reshape(n * m)[s * ROWS * m :], m, q * CHUNK, u, above, mark, table)
        else:
            _replay(copy, spread, q * CHUNK, u, above, mark, table)
        while r >= 0 and u >= 0:
            if i < n:
                at -= 1
                path[at, 0] = i
                path[at, 1] = j
            here = _place(r)
            if r:
                diagonal, up = table[u, _place(r - 1)], table[u + 1, _place(r - 1)]
            else:
                diagonal, up = above[j + LAST], above[j + ROWS]
            across = table[u + 1, here] < min(diagonal, up)
            down = up < diagonal and not across
            if not across:
                i -= 1
                r -= 1
                u -= 1
            if not down:
                j -= 1
                u -= 1
    return path[at:].copy()


@compiled
def _place(r: int) -> int:
    """Where row r of a strip lies in the registers."""
    return 4 * (r % 8) + r // 8


@compiled
def _replay(strip: Floats, width: int, start: int, last: int, above: Floats, mark: Floats, table: Floats) -> None:
    """Repeat the steps start..start + last of a strip."""
    a, b = _load(mark), _load(mark[ROWS:])
    for r in range(1, ROWS):
        table[0, _place(r - 1)] = mark[ROWS + _place(r)]
    for p in range(ROWS):
        table[1, p] = mark[p]
    tops = above[ROWS + start :]
    stride, first = np.uint64(width - 1), np.uint64(start)
    for u in range(np.uint64(0), np.uint64(last + 1)):
        up = pushed(a[7], tops[u])
        new = _step(a, b, up, _costs(strip, first + u, stride))
        b = (up, a[0], a[1], a[2], a[3], a[4], a[5], a[6])
        a = new
        for k in range(8):
            for z in range(4):
                table[u + np.uint64(2), 4 * k + z] = lane(a[k], z)


@compiled
def _load(mark: Floats) -> Lanes:
    return (
        quad(mark[0], mark[1], mark[2], mark[3]),
        quad(mark[4], mark[5], mark[6], mark[7]),
        quad(mark[8], mark[9], mark[10], mark[11]),
        quad(mark[12], mark[13], mark[14], mark[15]),
        quad(mark[16], mark[17], mark[18], mark[19]),
        quad(mark[20], mark[21], mark[22], mark[23]),
        quad(mark[24], mark[25], mark[26], mark[27]),
        quad(mark[28], mark[29], mark[30], mark[31]),
    )


# --- subsequence DTW --------------------------------------------------------------------------------------------------


@compiled
def subsequence(cost: Floats) -> tuple[Floats, Ints]:
    """Return for each column the total of the best match that ends there (M,) and where that match starts (M,)."""
    n, m = cost.shape
    if not is_clean(cost):
        return np.full(m, math.nan), np.zeros(m, np.int64)
    row = cost[0].copy()
    starts = np.arange(m)
    for i in range(1, n):
        diagonal, diagonal_start = row[0], starts[0]
        left, left_start = row[0] + cost[i, 0], starts[0]
        row[0] = left
        for j in range(1, m):
            up, up_start = row[j], starts[j]
            best, start = diagonal, diagonal_start
            if up < best:
                best, start = up, up_start
            if left < best:
                best, start = left, left_start
            left, left_start = best + cost[i, j], start
            row[j] = left
            starts[j] = start
            diagonal, diagonal_start = up, up_start
    return row, starts


# --- skip alignment ---------------------------------------------------------------------------------------------------


@compiled
def skip(cost: Floats, gap: float, gap_open: float, stretch: float) -> tuple[Ints, float]:
    """Return the matched pairs (P, 2) and the total of the three-state alignment.

    The code of a cell, one byte: bits 0–1 the best state there (0 match, 1 skip gold, 2 skip trainee), bits 2–3 how
    match was entered (0 diagonal, 1 the gold side alone, 2 the trainee side alone), bits 4 and 5 whether skip gold
    and skip trainee went on rather than opened. An opened skip comes from the best state before it.
    """
    n, m = cost.shape
    if not is_clean(cost):
        return np.empty((0, 2), np.int64), math.nan
    codes = np.empty((n, m), np.uint8)
    match = np.full(m, INF)
    gold = np.full(m, INF)  # skip gold
    best = np.empty(m)
    for j in range(m):
        best[j] = gap_open + gap * (j + 1)
    corner, last = 0.0, INF
    for i in range(n):
        left_match, left_trainee = INF, INF
        left_best = gap_open + gap * (i + 1)
        diagonal = corner
        corner = left_best
        for j in range(m):
            up_match, up_gold, up_best = match[j], gold[j], best[j]
            entered = min(up_match, left_match) + stretch
            code = 4 if up_match <= left_match else 8
            if diagonal <= entered:
                entered, code = diagonal, 0
            left_match = entered + cost[i, j]

            opened = up_best + gap_open
            if up_gold < opened:
                opened = up_gold
                code |= 16
            skipped = opened + gap

            opened = left_best + gap_open
            if left_trainee < opened:
                opened = left_trainee
                code |= 32
            left_trainee = opened + gap

            left_best = left_match
            if skipped < left_best:
                left_best = skipped
                code |= 1
            if left_trainee < left_best:
                left_best = left_trainee
                code = code & ~3 | 2
            codes[i, j] = code
            diagonal = up_best
            match[j], gold[j], best[j] = left_match, skipped, left_best
        last = left_best
    return _walk_skips(codes), last


@compiled
def _walk_skips(codes: Codes) -> Ints:
    n, m = codes.shape
    pairs = np.empty((n + m, 2), np.int64)
    at = n + m
    i, j = n - 1, m - 1
    state = codes[i, j] & 3
    while i >= 0 and j >= 0:
        code = codes[i, j]
        stays = False
        if state == 0:
            at -= 1
            pairs[at, 0] = i
            pairs[at, 1] = j
            stays = code & 12 != 0
            if code & 12 != 8:
                i -= 1
            if code & 12 != 4:
                j -= 1
        elif state == 1:
            stays = code & 16 != 0
            i -= 1
        else:
            stays = code & 32 != 0
            j -= 1
        if not stays and i >= 0 and j >= 0:
            state = codes[i, j] & 3
    return pairs[at:].copy()
