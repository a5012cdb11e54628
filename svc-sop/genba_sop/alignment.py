"""Align two sequences of frames: dynamic time warping, its soft form, and an alignment that may skip frames.

Knows nothing of video, steps or scores: cost matrices in, paths and totals out. Every function takes a matrix of any
float type and works in float64. A cost of +inf forbids a pair; nan and −inf are refused. Where several answers are
equally good, the docstring says which one comes, and it is the same one on every machine.

numba compiles the inner loops where it is installed; NumPy over anti-diagonals gives the same numbers without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from genba_sop.kernels import kernels_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Alignment:
    """A warping path: ``path`` (P, 2) of row and column, increasing; ``total`` the sum of costs on it."""

    path: Ints
    total: float


@dataclass(frozen=True)
class Subsequence:
    """The best match of all rows inside the columns ``start_j..end_j`` (both included).

    totals: (M,) cost of the best match that ends at each column.   starts: (M,) the column where that match begins.
    """

    start_j: int
    end_j: int
    total: float
    totals: Floats
    starts: Ints


@dataclass(frozen=True)
class SkipAlignment:
    """An alignment that may leave frames out on either side.

    pairs: (P, 2) gold and trainee index of each match, in order; a frame may stand in several pairs, or in none.
    pair_costs: (P,) cost of each pair.   skipped_gold: (N,) bool.   skipped_trainee: (M,) bool.
    total: pair costs + stretch penalties + gap penalties.
    """

    pairs: Ints
    pair_costs: Floats
    skipped_gold: Mask
    skipped_trainee: Mask
    total: float


class Kernels(Protocol):
    """The inner loops, in two modules that pass the same tests. They return nan as total for nan or −inf in the costs."""

    def dtw(self, cost: Floats) -> tuple[Ints, float]: ...
    def subsequence(self, cost: Floats) -> tuple[Floats, Ints]: ...
    def skip(self, cost: Floats, gap: float, gap_open: float, stretch: float) -> tuple[Ints, float]: ...
    def soft(self, cost: Floats, gamma: float) -> float: ...
    def soft_table(self, cost: Floats, gamma: float) -> Floats: ...


def kernels() -> Kernels:
    """The inner loops that this machine can run."""
    return cast("Kernels", kernels_of("alignment"))


def warm_up() -> None:
    """Load or compile every kernel now rather than in the first request: some tenths of a second, seconds if never compiled."""
    cost = np.zeros((2, 2))
    dtw(cost)
    subsequence_dtw(cost)
    skip_align(cost, gap=1.0, gap_open=1.0)
    expected_alignment(cost, gamma=1.0)
    soft_dtw(cost, gamma=1.0)


def cosine_cost(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Cosine distance between the rows of two sequences.

    The product is taken in the precision that the inputs have in common, so that float32 features cost half the time.

    Args:    a: (N, D) and b: (M, D), rows of unit length.
    Returns: (N, M) float64 in [0, 2].
    Raises:  ValueError for other shapes, empty sequences, nan or infinity.
    """
    x, y = _sequence(a, "a"), _sequence(b, "b")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"a has {x.shape[1]} features a row, b has {y.shape[1]}.")
    cost: Floats = np.subtract(1.0, x @ y.T, dtype=np.float64)
    return np.clip(cost, 0.0, 2.0, out=cost)


def dtw(cost: npt.ArrayLike) -> Alignment:
    """Hard dynamic time warping (Sakoe & Chiba 1978, symmetric steps of weight 1) with its path.

    Args:    cost: (N, M), +inf where a pair is forbidden.
    Returns: the path from (0, 0) to (N−1, M−1); of equal paths the one
             that, read backwards, prefers the diagonal, then a row step.
    Raises:  ValueError for another shape, an empty matrix, nan or −inf, or when +inf leaves no path.
    """
    path, total = kernels().dtw(_matrix(cost))
    return Alignment(path, _checked(total))


def soft_dtw(cost: npt.ArrayLike, *, gamma: float) -> float:
    """Soft-DTW (Cuturi & Blondel 2017): −γ·log Σ over all paths of e^(−cost of path / γ). May be negative.

    Args:    cost: (N, M), +inf where a pair is forbidden.   gamma: > 0; towards 0 it becomes hard DTW.
    Raises:  ValueError as ``dtw`` does, or for gamma ≤ 0.
    """
    _check_positive(gamma, "gamma")
    return _checked(kernels().soft(_matrix(cost), float(gamma)))


def soft_dtw_divergence(x: npt.ArrayLike, y: npt.ArrayLike, *, gamma: float) -> float:
    """Soft-DTW divergence under cosine cost (Blondel, Mensch & Vert 2021): sdtw(x, y) − ½ sdtw(x, x) − ½ sdtw(y, y).

    Args:    x: (N, D), y: (M, D), rows of unit length.   gamma: > 0.
    Returns: 0 for x = y, more otherwise; rounding below 0 is cut off.
    """
    return float(soft_dtw_divergences(x, [y], gamma=gamma)[0])


def soft_dtw_divergences(x: npt.ArrayLike, others: Sequence[npt.ArrayLike], *, gamma: float) -> Floats:
    """``soft_dtw_divergence`` of one sequence to each of several, the own term of ``x`` computed once: (len(others),)."""
    own = soft_dtw(cosine_cost(x, x), gamma=gamma)
    divergences = [
        soft_dtw(cosine_cost(x, y), gamma=gamma) - (own + soft_dtw(cosine_cost(y, y), gamma=gamma)) / 2 for y in others
    ]
    return np.maximum(0.0, np.array(divergences, np.float64))


def expected_alignment(cost: npt.ArrayLike, *, gamma: float) -> Floats:
    """Probability of each pair when paths are drawn with weight e^(−cost of path / γ).

    It is the gradient of ``soft_dtw`` by the costs. The soft totals up to a pair and from it on share the pair's cost.

    Args:    as for ``soft_dtw``.
    Returns: (N, M) float64 in [0, 1]; 1 at both corners.
    Raises:  ValueError as ``soft_dtw`` does.
    """
    _check_positive(gamma, "gamma")
    matrix = _matrix(cost)
    until = kernels().soft_table(matrix, float(gamma))
    total = _checked(until[-1, -1])
    since = kernels().soft_table(np.ascontiguousarray(matrix[::-1, ::-1]), float(gamma))[::-1, ::-1]
    reachable = np.isfinite(until) & np.isfinite(since)
    expected = np.zeros(matrix.shape)
    expected[reachable] = np.exp((total - until[reachable] - since[reachable] + matrix[reachable]) / gamma)
    return np.minimum(expected, 1.0, out=expected)


def subsequence_dtw(cost: npt.ArrayLike) -> Subsequence:
    """Find the columns that match all rows best: DTW with a free start and a free end in the columns.

    Args:    cost: (N, M); rows = the query, columns = the longer sequence; +inf where a pair is forbidden.
    Returns: the earliest of equally good ends.
    Raises:  ValueError as ``dtw`` does.
    """
    totals, starts = kernels().subsequence(_matrix(cost))
    end = int(totals.argmin())
    return Subsequence(int(starts[end]), end, _checked(totals[end]), totals, starts)


def skip_align(cost: npt.ArrayLike, *, gap: float, gap_open: float, stretch: float = 0.0) -> SkipAlignment:
    """Align globally with leave to skip frames on either side, under affine gaps (Gotoh 1982).

    Three states. In *match*, a step of one gold and one trainee frame costs the pair's cost; a step of only one side
    (the other frame is matched again) costs ``stretch`` more. *Skip gold* and *skip trainee* cost ``gap`` a frame and
    ``gap_open`` once for every run; after a skip, matching goes on with the next frame of both.

    Args:    cost: (N, M), rows = gold, columns = trainee, +inf where a pair is forbidden.
             gap, gap_open, stretch: ≥ 0.
    Returns: of equally good alignments the one that, read backwards, prefers a match to a gold skip to a trainee skip;
             within a match the diagonal, then the gold side alone; and a new run to a longer one.
    Raises:  ValueError as ``dtw`` does, or for a negative penalty.
    """
    for value, name in ((gap, "gap"), (gap_open, "gap_open"), (stretch, "stretch")):
        _check_not_negative(value, name)
    matrix = _matrix(cost)
    pairs, total = kernels().skip(matrix, float(gap), float(gap_open), float(stretch))
    skipped_gold, skipped_trainee = np.ones(matrix.shape[0], np.bool_), np.ones(matrix.shape[1], np.bool_)
    skipped_gold[pairs[:, 0]] = False
    skipped_trainee[pairs[:, 1]] = False
    return SkipAlignment(pairs, matrix[pairs[:, 0], pairs[:, 1]], skipped_gold, skipped_trainee, _checked(total))


def gap_penalty(cost: npt.ArrayLike) -> float:
    """Return a gap for ``skip_align``: half the median, over gold frames (rows), of the cheapest match."""
    matrix = _matrix(cost)
    if not (matrix > -math.inf).all():
        raise ValueError("cost holds nan or −inf.")
    return 0.5 * _checked(float(np.median(matrix.min(axis=1))))


def _matrix(cost: npt.ArrayLike) -> Floats:
    matrix = np.ascontiguousarray(cost, np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"cost must be a matrix with at least one row and one column, not of shape {matrix.shape}.")
    return matrix


def _checked(total: float) -> float:
    if math.isnan(total) or total == -math.inf:
        raise ValueError("cost holds nan or −inf.")
    if math.isinf(total):
        raise ValueError("+inf in cost leaves no path.")
    return float(total)


def _sequence(rows: npt.ArrayLike, name: str) -> npt.NDArray[np.floating]:
    sequence = np.asarray(rows)
    if sequence.dtype not in (np.float32, np.float64):
        sequence = sequence.astype(np.float64)
    if sequence.ndim != 2 or not sequence.size:
        raise ValueError(
            f"{name} must be a matrix with at least one frame and one feature, not of shape {sequence.shape}."
        )
    if not np.isfinite(sequence).all():
        raise ValueError(f"{name} holds nan or infinity.")
    return sequence


def _check_positive(value: float, name: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, not {value}.")


def _check_not_negative(value: float, name: str) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0, not {value}.")
