"""Compiled soft-DTW: the exponential domain with an exponent per row and block, the log domain where that cannot do.

With k = e^(−cost/γ) the recursion is G = k · (G diagonal + G above + G left): no logarithm, three operations a cell.
G leaves the range of a float after some dozen cells, so each lane carries a power of two that is settled every few
columns. Where one block spans more than a float can hold (γ small against the costs), ``soft`` starts again in the
log domain; it never returns a value from which anything was lost. The wave of eight lanes is that of
``_alignment_numba``.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from genba_sop._compiled import compiled, compiled_fused

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Lanes = tuple[float, float, float, float, float, float, float, float]
Index = int | np.int64 | np.uint64

INF = math.inf
LN2 = math.log(2.0)
LANES = 8
PERIOD = 16  # steps between two looks at the exponents
U1, U2, U3, U4, U5, U6, U7, U8 = (np.uint64(k) for k in range(1, 9))

INF_BITS = 0x7FF0_0000_0000_0000
MAGNITUDE = 0x7FFF_FFFF_FFFF_FFFF
NOTHING = -(1 << 40)  # the exponent of zero

MAX_EXPONENT = 300.0  # cost/γ of a period; with the bounds below no lane can underflow before it is looked at again
COMFORT = 2.0**400
HUGE = 2.0**900
POWERS = np.concatenate([np.ldexp(1.0, np.arange(-1100, 1001)), [INF]])

# exp on |r| ≤ ln2/2, Chebyshev interpolation of degree 11, relative error 4e-18
EXP = (1.0, 1.0, 0.5000000000000019, 0.1666666666666668, 0.0416666666664881, 0.008333333333319601)
EXP_HIGH = (
    0.0013888888952314775,
    0.00019841269890047113,
    2.4801485482328494e-05,
    2.755724091857897e-06,
    2.763263963904103e-07,
    2.5110037605963777e-08,
)
LOG2E = 1.0 / LN2
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
ROUNDING = 1.5 * 2.0**52  # adding it leaves the nearest whole number in the low bits


@compiled
def soft(cost: Floats, gamma: float) -> float:
    """Soft-DTW; nan when the matrix holds nan or −inf, inf when +inf leaves no path."""
    total = _soft_exp(cost, gamma)
    if math.isnan(total) and is_clean(cost):
        total = soft_log(cost, gamma)
    return total


@compiled
def is_clean(cost: Floats) -> bool:
    """Whether the matrix is free of nan and −inf."""
    peak = 0
    for i in range(cost.shape[0]):
        peak = max(peak, _peak(cost[i].view(np.int64)))
    return peak < INF_BITS


@compiled
def _peak(bits: Ints) -> int:
    """Largest magnitude as the bits of a float; +inf left out, nan and −inf above all."""
    peak = 0
    for j in range(bits.shape[0]):
        peak = max(peak, 0 if bits[j] == INF_BITS else bits[j] & MAGNITUDE)
    return peak


# --- log domain -------------------------------------------------------------------------------------------------------


@compiled
def soft_log(cost: Floats, gamma: float) -> float:
    """Soft-DTW by log-sum-exp at every cell: slower, right for every gamma > 0."""
    n, m = cost.shape
    row = np.full(m, INF)
    corner, left = 0.0, INF
    for i in range(n):
        diagonal, corner, left = corner, INF, INF
        for j in range(m):
            up = row[j]
            left = _softmin(diagonal, up, left, gamma) + cost[i, j]
            row[j] = left
            diagonal = up
    return left


@compiled
def soft_table(cost: Floats, gamma: float) -> Floats:
    """Soft-DTW of every prefix: (N, M), in the log domain; the last is nan when the matrix holds nan or −inf."""
    n, m = cost.shape
    table = np.full((n + 1, m + 1), INF)
    if not is_clean(cost):
        table[n, m] = math.nan
        return table[1:, 1:].copy()
    table[0, 0] = 0.0
    for i in range(n):
        for j in range(m):
            table[i + 1, j + 1] = _softmin(table[i, j], table[i, j + 1], table[i + 1, j], gamma) + cost[i, j]
    return table[1:, 1:].copy()


@compiled
def _softmin(x: float, y: float, z: float, gamma: float) -> float:
    best = min(x, y, z)
    if best == INF:
        return INF
    total = _weight((best - x) / gamma) + _weight((best - y) / gamma) + _weight((best - z) / gamma)
    return best if total == 1.0 else best - gamma * math.log(total)


@compiled
def _weight(x: float) -> float:
    if x == 0.0:
        return 1.0
    return math.exp(x) if x > -40.0 else 0.0  # e^-40 no longer moves a sum that is at least 1


# --- exponential domain -----------------------------------------------------------------------------------------------


@compiled
def _soft_exp(cost: Floats, gamma: float) -> float:
    """Soft-DTW, or nan when e^(−cost/γ) does not fit."""
    n, m = cost.shape
    strips = (n + LANES - 1) // LANES
    width = m + strips * LANES - n  # the lower right corner is padded by a free diagonal
    kernel = np.zeros((LANES, width + 14))  # row k of the strip, column j at j + 7
    whole = np.empty(m)
    values = np.zeros((2, width + 15))  # last row of the strip above and of this one, column j at j + 8 …
    exponents = np.full((2, width + 15), NOTHING)  # … times 2 to the power of these
    values[0, 7] = 1.0
    exponents[0, 7] = 0
    peak = np.zeros(1, np.int64)
    for s in range(strips):
        peak[0] = _load(cost, s * LANES, gamma, kernel, whole)
        steepest = peak.view(np.float64)[0] / gamma
        if not steepest <= MAX_EXPONENT:
            return math.nan
        here, there = s % 2, 1 - s % 2
        _sweep(kernel, steepest, values[here], exponents[here], values[there], exponents[there])
    last = values[strips % 2, width + 7]
    if last == 0.0:
        return INF
    return float(-gamma * (math.log(last) + exponents[strips % 2, width + 7] * LN2))


@compiled
def _load(cost: Floats, top: int, gamma: float, kernel: Floats, whole: Floats) -> int:
    """Fill the strip with e^(−cost/γ); return the bits of the largest |cost|."""
    n, m = cost.shape
    peak = 0
    for lane in range(LANES):
        i = top + lane
        row = kernel[lane, 7 : 7 + m]
        if i < n:
            bits = cost[i].view(np.int64)
            peak = max(peak, _peak(bits))
            _exp_fraction(cost[i], -1.0 / gamma, row, whole)
            _exp_scale(bits, row.view(np.int64), whole.view(np.int64))
        else:
            for j in range(m):
                row[j] = 0.0
            kernel[lane, 7 + m + i - n] = 1.0
    return peak


@compiled_fused
def _exp_fraction(row: Floats, rate: float, out: Floats, whole: Floats) -> None:
    """Split e^(row · rate) = out · 2^whole; ``whole`` stays in the low bits of its floats."""
    for j in range(row.shape[0]):
        x = row[j] * rate
        rounded = x * LOG2E + ROUNDING
        whole[j] = rounded
        rounded -= ROUNDING
        r = (x - rounded * LN2_HIGH) - rounded * LN2_LOW
        p = ((((EXP_HIGH[5] * r + EXP_HIGH[4]) * r + EXP_HIGH[3]) * r + EXP_HIGH[2]) * r + EXP_HIGH[1]) * r + EXP_HIGH[
            0
        ]
        out[j] = (((((p * r + EXP[5]) * r + EXP[4]) * r + EXP[3]) * r + EXP[2]) * r + EXP[1]) * r + EXP[0]


@compiled
def _exp_scale(cost_bits: Ints, out_bits: Ints, whole_bits: Ints) -> None:
    """Multiply by 2^whole in the exponent field; +inf becomes 0."""
    for j in range(cost_bits.shape[0]):
        scaled = out_bits[j] + (whole_bits[j] << 52)
        out_bits[j] = 0 if cost_bits[j] == INF_BITS else scaled


@compiled
def _sweep(
    kernel: Floats, steepest: float, above: Floats, above_exponents: Ints, below: Floats, below_exponents: Ints
) -> None:
    """Take one strip from the row above to its last row.

    ``lanes``: row 0 is a, the last step of each lane; row 1 is b, what stood above it one step before.
    """
    steps = above.shape[0] - 8
    period = PERIOD if steepest * PERIOD <= MAX_EXPONENT else int(MAX_EXPONENT / steepest)
    floor = 2.0 ** (steepest * period / LN2 - 1000.0)  # from here no lane underflows within a period
    lanes = np.zeros((2, LANES))
    exponents = np.full((2, LANES), NOTHING)
    lanes[1, 0], exponents[1, 0] = above[7], above_exponents[7]
    settled, scales, factors = np.empty((2, LANES)), np.empty(LANES, np.int64), np.ones(LANES)
    together = False
    t = np.int64(0)  # typed, or numba compiles for the literal as well
    while t < steps:
        stop = min(t + period, steps)
        if not (together and _is_comfortable(settled[0])):
            if together:
                _keep(settled, scales, lanes, exponents)
            together = _settle(lanes, exponents, above[t + 8], above_exponents[t + 8], floor, settled, scales, factors)
        if not (
            together
            and _advance(kernel, settled, scales, factors, above, above_exponents, below, below_exponents, t, stop)
        ):
            if together:
                _keep(settled, scales, lanes, exponents)
            together = False
            _advance_apart(kernel, lanes, exponents, above, above_exponents, below, below_exponents, t, stop)
        t = stop


@compiled
def _is_comfortable(a: Floats) -> bool:
    comfortable = True
    for k in range(LANES):
        comfortable &= 1.0 / COMFORT <= a[k] <= COMFORT
    return comfortable


@compiled
def _keep(settled: Floats, scales: Ints, lanes: Floats, exponents: Ints) -> None:
    for k in range(LANES):
        lanes[0, k], exponents[0, k] = settled[0, k], scales[k]
        lanes[1, k], exponents[1, k] = settled[1, k], scales[max(k - 1, 0)]


@compiled
def _settle(
    lanes: Floats,
    exponents: Ints,
    up: float,
    up_exponent: int,
    floor: float,
    settled: Floats,
    scales: Ints,
    factors: Floats,
) -> bool:
    """Give each lane the scale of the largest of the numbers that its next step adds; False if one is too small for it.

    What stood above a lane is kept in the scale of the lane above; ``factors`` lead from there to its own.
    """
    a, b = lanes[0], lanes[1]
    for k in range(LANES):
        over, over_exponent = (up, up_exponent) if k == 0 else (a[k - 1], exponents[0, k - 1])
        scale = max(_exponent(a[k], exponents[0, k]), _exponent(over, over_exponent), _exponent(b[k], exponents[1, k]))
        if scale == NOTHING and k < LANES - 1:
            scale = _exponent(b[k + 1], exponents[1, k + 1])
        if scale == NOTHING and k:
            scale = scales[k - 1]
        before = scale if k == 0 else scales[k - 1]
        scales[k] = scale
        settled[0, k] = _scaled(a[k], exponents[0, k] - scale)
        settled[1, k] = _scaled(b[k], exponents[1, k] - before)
        factors[k] = _power(before - scale)
        if (a[k] > 0.0 and settled[0, k] < floor) or before - scale > 900:
            return False
    return True


@compiled
def _exponent(value: float, exponent: int) -> int:
    return NOTHING if value == 0.0 else math.frexp(value)[1] + exponent


@compiled
def _scaled(value: float, exponent: int) -> float:
    return 0.0 if value == 0.0 else value * _power(exponent)  # 0 · 2^exponent is 0 even past the table


@compiled
def _power(exponent: int) -> float:
    """2^exponent; 0 and inf outside of the table."""
    return POWERS[min(max(exponent, -1100), 1001) + 1100]  # type: ignore[no-any-return]


@compiled
def _advance(
    kernel: Floats,
    lanes: Floats,
    scales: Ints,
    factors: Floats,
    above: Floats,
    above_exponents: Ints,
    below: Floats,
    below_exponents: Ints,
    start: Index,
    stop: Index,
) -> bool:
    """Run the steps start..stop, each lane in its scale; False, and nothing changed, when one overflowed."""
    a, b = _read(lanes[0]), _read(lanes[1])
    f = _read(factors)
    first, last = scales[0], scales[7]
    for t in range(np.uint64(start), np.uint64(stop)):
        up = _scaled(above[t + U8], above_exponents[t + U8] - first)
        new = _step(a, b, up, f, _row(kernel, t))
        b = (up, a[0], a[1], a[2], a[3], a[4], a[5], a[6])
        a = new
        below[t + U1] = new[7]
        below_exponents[t + U1] = last
    for k in range(LANES):
        if not a[k] <= HUGE:
            return False
    for k in range(LANES):
        lanes[0, k] = a[k]
        lanes[1, k] = b[k]
    return True


@compiled
def _advance_apart(
    kernel: Floats,
    lanes: Floats,
    exponents: Ints,
    above: Floats,
    above_exponents: Ints,
    below: Floats,
    below_exponents: Ints,
    start: Index,
    stop: Index,
) -> None:
    """Run the steps start..stop where neighbours differ by more than a float can hold: every number with its exponent."""
    a, b, a_exponents, b_exponents = lanes[0], lanes[1], exponents[0], exponents[1]
    for t in range(start, stop):
        over, over_exponent = above[t + 8], above_exponents[t + 8]
        for k in range(LANES):
            left, left_exponent = a[k], a_exponents[k]
            top = max(_exponent(left, left_exponent), _exponent(over, over_exponent), _exponent(b[k], b_exponents[k]))
            total = _scaled(b[k], b_exponents[k] - top) + _scaled(over, over_exponent - top)
            fraction, exponent = math.frexp((total + _scaled(left, left_exponent - top)) * kernel[k, 7 - k + t])
            a[k], a_exponents[k] = fraction, top + exponent if fraction else NOTHING
            b[k], b_exponents[k] = over, over_exponent
            over, over_exponent = left, left_exponent
        below[t + 1], below_exponents[t + 1] = a[7], a_exponents[7]


@compiled
def _read(row: Floats) -> Lanes:
    return (row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7])


@compiled
def _row(kernel: Floats, t: Index) -> Lanes:
    return (
        kernel[0, t + U7],
        kernel[1, t + U6],
        kernel[2, t + U5],
        kernel[3, t + U4],
        kernel[4, t + U3],
        kernel[5, t + U2],
        kernel[6, t + U1],
        kernel[7, t],
    )


@compiled_fused
def _step(a: Lanes, b: Lanes, up: float, f: Lanes, k: Lanes) -> Lanes:
    return (
        ((b[0] + up) + a[0]) * k[0],
        ((b[1] + a[0]) * f[1] + a[1]) * k[1],
        ((b[2] + a[1]) * f[2] + a[2]) * k[2],
        ((b[3] + a[2]) * f[3] + a[3]) * k[3],
        ((b[4] + a[3]) * f[4] + a[4]) * k[4],
        ((b[5] + a[4]) * f[5] + a[5]) * k[5],
        ((b[6] + a[5]) * f[6] + a[6]) * k[6],
        ((b[7] + a[6]) * f[7] + a[7]) * k[7],
    )
