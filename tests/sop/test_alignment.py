"""The alignments against exhaustive enumeration, over both kernels, and the laws that they must keep."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genba_sop import alignment
from genba_sop.kernels import kernels_of

Cell = tuple[int, int]
Floats = npt.NDArray[np.float64]

KERNELS = ("genba_sop._alignment_numba", "genba_sop._alignment_numpy")
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=KERNELS, autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> alignment.Kernels:
    chosen: alignment.Kernels = importlib.import_module(request.param)
    monkeypatch.setattr(alignment, "kernels", lambda: chosen)
    return chosen


def costs(*, largest: int = 4, whole_numbers: bool = False) -> st.SearchStrategy[Floats]:
    shape = st.tuples(st.integers(1, largest), st.integers(1, largest))
    # halves make ties, which is where two implementations part
    values = st.integers(0, 4).map(lambda i: i / 2) if whole_numbers else st.floats(0, 2)
    return shape.flatmap(lambda s: arrays(np.float64, s, elements=values))


def penalties() -> st.SearchStrategy[float]:
    return st.integers(0, 4).map(lambda i: i / 4)


def unit_rows(rng: np.random.Generator, frames: int, *, features: int = 8) -> Floats:
    walk = rng.normal(size=(frames, features)).cumsum(axis=0)
    return np.asarray(walk / np.linalg.norm(walk, axis=1, keepdims=True))


def warping_paths(n: int, m: int) -> Iterator[list[Cell]]:
    if (n, m) == (1, 1):
        yield [(0, 0)]
        return
    for rows, columns in ((n - 1, m - 1), (n - 1, m), (n, m - 1)):
        if rows and columns:
            for path in warping_paths(rows, columns):
                yield [*path, (n - 1, m - 1)]


def path_totals(cost: Floats) -> list[float]:
    return [sum(cost[cell] for cell in path) for path in warping_paths(*cost.shape)]


def skip_totals(cost: Floats, *, gap: float, gap_open: float, stretch: float) -> Iterator[float]:
    """Every alignment that the definition allows, by recursion over what is done next."""
    n, m = cost.shape

    def onwards(i: int, j: int, state: str, total: float) -> Iterator[float]:
        if (i, j) == (n, m):
            yield total
        if i < n and j < m:
            yield from onwards(i + 1, j + 1, "match", total + cost[i, j])
        if i < n and state == "match":
            yield from onwards(i + 1, j, "match", total + cost[i, j - 1] + stretch)
        if j < m and state == "match":
            yield from onwards(i, j + 1, "match", total + cost[i - 1, j] + stretch)
        if i < n:
            yield from onwards(i + 1, j, "gold", total + gap + gap_open * (state != "gold"))
        if j < m:
            yield from onwards(i, j + 1, "trainee", total + gap + gap_open * (state != "trainee"))

    yield from onwards(0, 0, "start", 0.0)


def priced(result: alignment.SkipAlignment, *, gap: float, gap_open: float, stretch: float) -> float:
    """What an answer costs by its own account: pairs, stretches, and the runs between its pairs."""
    pairs = [tuple(pair) for pair in result.pairs.tolist()]
    total = float(result.pair_costs.sum())
    ends = [(-1, -1), *pairs, (len(result.skipped_gold), len(result.skipped_trainee))]
    for (i, j), (next_i, next_j) in itertools.pairwise(ends):
        if next_i == i or next_j == j:
            total += stretch
        total += sum(gap_open + gap * skipped for skipped in (next_i - i - 1, next_j - j - 1) if skipped > 0)
    return total


# --- hard DTW


@quick
@given(costs())
def test_dtw_finds_the_cheapest_of_all_warping_paths(cost: Floats) -> None:
    result = alignment.dtw(cost)
    assert result.total == pytest.approx(min(path_totals(cost)), abs=1e-12)
    assert sum(cost[i, j] for i, j in result.path) == pytest.approx(result.total, abs=1e-12)


@quick
@given(costs(largest=40, whole_numbers=True))
def test_the_path_runs_from_corner_to_corner_in_steps_of_one(cost: Floats) -> None:
    path = alignment.dtw(cost).path
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [cost.shape[0] - 1, cost.shape[1] - 1]
    assert {tuple(step) for step in np.diff(path, axis=0)} <= {(1, 1), (1, 0), (0, 1)}


def test_of_equal_paths_the_diagonal_comes_first() -> None:
    assert alignment.dtw(np.zeros((3, 3))).path.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert alignment.dtw(np.zeros((3, 2))).path.tolist() == [[0, 0], [1, 0], [2, 1]]


@quick
@given(costs(largest=12))
def test_dtw_does_not_care_which_sequence_comes_first(cost: Floats) -> None:
    assert alignment.dtw(cost).total == pytest.approx(alignment.dtw(cost.T).total, abs=1e-12)


def test_a_band_of_forbidden_pairs_is_kept_out_of_the_path() -> None:
    cost = np.random.default_rng(0).random((30, 40))
    i, j = np.indices(cost.shape)
    cost[np.abs(i / 30 - j / 40) > 0.2] = np.inf
    result = alignment.dtw(cost)
    assert np.isfinite(cost[result.path[:, 0], result.path[:, 1]]).all()


# --- soft-DTW


@quick
@given(costs(), st.sampled_from([0.02, 0.1, 0.7, 3.0]))
def test_soft_dtw_sums_over_all_warping_paths(cost: Floats, gamma: float) -> None:
    totals = path_totals(cost)
    best = min(totals)
    expected = best - gamma * math.log(sum(math.exp((best - total) / gamma) for total in totals))
    assert alignment.soft_dtw(cost, gamma=gamma) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.004, 0.02, 0.05, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(150, 150), (7, 200), (200, 9), (64, 129)])
def test_the_exponential_domain_agrees_with_the_log_domain(
    shape: Cell, gamma: float, kernels: alignment.Kernels
) -> None:
    rng = np.random.default_rng(3)
    for cost in (rng.random(shape), 2 * rng.random(shape), alignment.cosine_cost(*scenes(rng, *shape))):
        log_domain = kernels.soft_table(np.ascontiguousarray(cost), gamma)[-1, -1]
        assert alignment.soft_dtw(cost, gamma=gamma) == pytest.approx(log_domain, abs=1e-10)


def scenes(rng: np.random.Generator, n: int, m: int) -> tuple[Floats, Floats]:
    """Two runs through the same scenes: neighbouring cells differ by hundreds of orders of magnitude at each cut."""
    looks = unit_rows(rng, 5, features=16)

    def run(frames: int) -> Floats:
        rows = looks[np.arange(frames) * len(looks) // frames] + 0.02 * rng.normal(size=(frames, 16))
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    return run(n), run(m)


@quick
@given(costs(largest=20), st.sampled_from([0.05, 1.0]))
def test_soft_dtw_lies_below_hard_dtw_and_nears_it_as_gamma_falls(cost: Floats, gamma: float) -> None:
    hard = alignment.dtw(cost).total
    assert alignment.soft_dtw(cost, gamma=gamma) <= hard + 1e-12
    assert alignment.soft_dtw(cost, gamma=1e-4) == pytest.approx(hard, abs=1e-4 * 50)


def test_costs_far_beyond_the_range_of_a_float_fall_back_to_the_log_domain() -> None:
    cost = np.random.default_rng(4).random((20, 30)) * 1e6
    assert alignment.soft_dtw(cost, gamma=1e-3) == pytest.approx(alignment.dtw(cost).total, rel=1e-9)


def test_negative_costs_are_costs_too() -> None:
    cost = np.random.default_rng(5).normal(size=(4, 4))
    total = -0.1 * math.log(sum(math.exp(-total / 0.1) for total in path_totals(cost)))
    assert alignment.soft_dtw(cost, gamma=0.1) == pytest.approx(total, abs=1e-10)


@pytest.mark.parametrize("gamma", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_divergence_is_zero_for_equals_positive_otherwise_and_symmetric(seed: int, gamma: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = unit_rows(rng, 20), unit_rows(rng, 25)
    assert alignment.soft_dtw_divergence(x, x, gamma=gamma) == pytest.approx(0, abs=1e-12)
    there, back = alignment.soft_dtw_divergence(x, y, gamma=gamma), alignment.soft_dtw_divergence(y, x, gamma=gamma)
    assert there > 0
    assert there == pytest.approx(back, abs=1e-12)


def test_divergences_to_several_golds_are_those_to_each() -> None:
    rng = np.random.default_rng(6)
    x, golds = unit_rows(rng, 12), [unit_rows(rng, frames) for frames in (9, 12, 20)]
    together = alignment.soft_dtw_divergences(x, golds, gamma=0.1)
    assert together.tolist() == [alignment.soft_dtw_divergence(x, gold, gamma=0.1) for gold in golds]


@quick
@given(costs(), st.sampled_from([0.1, 1.0]))
def test_the_expected_alignment_weighs_each_pair_by_the_paths_through_it(cost: Floats, gamma: float) -> None:
    weights = np.zeros(cost.shape)
    best = min(path_totals(cost))
    for path, total in zip(warping_paths(*cost.shape), path_totals(cost), strict=True):
        for cell in path:
            weights[cell] += math.exp((best - total) / gamma)
    expected = weights / weights[0, 0]
    assert alignment.expected_alignment(cost, gamma=gamma) == pytest.approx(expected, abs=1e-10)


def test_the_expected_alignment_is_the_gradient_of_soft_dtw() -> None:
    cost = np.random.default_rng(7).random((6, 5))
    step = 1e-6
    numeric = np.zeros(cost.shape)
    for cell in np.ndindex(cost.shape):
        nudge = np.zeros(cost.shape)
        nudge[cell] = step
        rise = alignment.soft_dtw(cost + nudge, gamma=0.2) - alignment.soft_dtw(cost - nudge, gamma=0.2)
        numeric[cell] = rise / (2 * step)
    assert alignment.expected_alignment(cost, gamma=0.2) == pytest.approx(numeric, abs=1e-7)


# --- subsequence DTW


@quick
@given(costs(largest=5))
def test_a_subsequence_is_the_best_match_over_all_ends_and_starts(cost: Floats) -> None:
    result = alignment.subsequence_dtw(cost)
    n, m = cost.shape
    for end in range(m):
        # one cell of the first row: a match that lingers there would rather start later
        totals = [
            sum(cost[i, start + j] for i, j in path)
            for start in range(end + 1)
            for path in warping_paths(n, end - start + 1)
            if n == 1 or path[1][0] == 1
        ]
        assert result.totals[end] == pytest.approx(min(totals), abs=1e-12)
    assert result.total == result.totals.min()
    assert result.starts[result.end_j] == result.start_j <= result.end_j


def test_a_query_is_found_where_it_was_cut_out() -> None:
    rng = np.random.default_rng(8)
    sequence = unit_rows(rng, 60)
    found = alignment.subsequence_dtw(alignment.cosine_cost(sequence[17:31], sequence))
    assert (found.start_j, found.end_j) == (17, 30)
    assert found.total == pytest.approx(0, abs=1e-12)


# --- skip alignment


@quick
@given(costs(), penalties(), penalties(), penalties())
def test_skip_align_finds_the_cheapest_of_all_alignments(
    cost: Floats, gap: float, gap_open: float, stretch: float
) -> None:
    result = alignment.skip_align(cost, gap=gap, gap_open=gap_open, stretch=stretch)
    best = min(skip_totals(cost, gap=gap, gap_open=gap_open, stretch=stretch))
    assert result.total == pytest.approx(best, abs=1e-12)


@quick
@given(costs(largest=30, whole_numbers=True), penalties(), penalties(), penalties())
def test_what_skip_align_returns_adds_up_to_its_total(
    cost: Floats, gap: float, gap_open: float, stretch: float
) -> None:
    result = alignment.skip_align(cost, gap=gap, gap_open=gap_open, stretch=stretch)
    assert priced(result, gap=gap, gap_open=gap_open, stretch=stretch) == pytest.approx(result.total, abs=1e-12)
    matched_gold, matched_trainee = set(result.pairs[:, 0].tolist()), set(result.pairs[:, 1].tolist())
    assert set(np.flatnonzero(~result.skipped_gold).tolist()) == matched_gold
    assert set(np.flatnonzero(~result.skipped_trainee).tolist()) == matched_trainee
    assert (np.diff(result.pairs, axis=0) >= 0).all()


@quick
@given(costs(largest=12), penalties(), penalties(), penalties())
def test_gold_and_trainee_may_change_places(cost: Floats, gap: float, gap_open: float, stretch: float) -> None:
    there = alignment.skip_align(cost, gap=gap, gap_open=gap_open, stretch=stretch).total
    back = alignment.skip_align(cost.T, gap=gap, gap_open=gap_open, stretch=stretch).total
    assert there == pytest.approx(back, abs=1e-12)


def test_skip_align_leaves_out_what_only_one_side_shows() -> None:
    cost = np.ones((6, 6))
    for gold, trainee in ((0, 0), (1, 1), (4, 2), (5, 5)):
        cost[gold, trainee] = 0.0
    result = alignment.skip_align(cost, gap=0.1, gap_open=0.2)
    assert result.pairs.tolist() == [[0, 0], [1, 1], [4, 2], [5, 5]]
    assert result.skipped_gold.tolist() == [False, False, True, True, False, False]
    assert result.skipped_trainee.tolist() == [False, False, False, True, True, False]
    assert result.total == pytest.approx(0.8)


def test_a_dear_gap_leaves_plain_dtw() -> None:
    cost = np.random.default_rng(9).random((20, 30))
    result = alignment.skip_align(cost, gap=1e6, gap_open=0.0)
    assert result.total == pytest.approx(alignment.dtw(cost).total, abs=1e-9)
    assert not result.skipped_gold.any()


def test_forbidding_every_pair_skips_every_frame() -> None:
    result = alignment.skip_align(np.full((3, 4), np.inf), gap=0.5, gap_open=1.0)
    assert result.total == pytest.approx(2 * 1.0 + 7 * 0.5)
    assert result.pairs.shape == (0, 2)
    assert result.skipped_gold.all()
    assert result.skipped_trainee.all()


def test_the_gap_is_half_the_median_of_the_cheapest_matches() -> None:
    assert alignment.gap_penalty([[1.0, 0.2], [0.6, 0.4], [0.8, 0.9]]) == pytest.approx(0.2)


# --- both kernels, one answer


@quick
@given(costs(largest=40, whole_numbers=True), penalties(), penalties(), penalties(), st.floats(0, 0.5), st.integers(0))
def test_compiled_and_plain_kernels_give_the_same_numbers_and_the_same_ties(
    cost: Floats, gap: float, gap_open: float, stretch: float, forbidden: float, seed: int
) -> None:
    cost = np.where(np.random.default_rng(seed).random(cost.shape) < forbidden, np.inf, cost)
    compiled, plain = (importlib.import_module(name) for name in KERNELS)
    (path, total), (plain_path, plain_total) = compiled.dtw(cost), plain.dtw(cost)
    assert total == plain_total
    if math.isfinite(total):
        assert path.tolist() == plain_path.tolist()
    totals, starts = compiled.subsequence(cost)
    plain_totals, plain_starts = plain.subsequence(cost)
    reached = np.isfinite(totals)
    assert totals.tolist() == plain_totals.tolist()
    assert starts[reached].tolist() == plain_starts[reached].tolist()
    (pairs, total), (plain_pairs, plain_total) = (
        kernels.skip(cost, gap, gap_open, stretch) for kernels in (compiled, plain)
    )
    assert (pairs.tolist(), total) == (plain_pairs.tolist(), plain_total)
    assert compiled.soft(cost, 0.05) == pytest.approx(plain.soft(cost, 0.05), abs=1e-10)


def test_without_numba_numpy_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("genba_sop._alignment_numba", "genba_sop._soft_dtw_numba", "genba_sop._compiled"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    kernels_of.cache_clear()
    try:
        assert alignment.kernels() is importlib.import_module("genba_sop._alignment_numpy")
    finally:
        kernels_of.cache_clear()


def test_warming_up_runs_every_kernel() -> None:
    alignment.warm_up()


# --- input


def test_cosine_cost_is_one_minus_the_cosine_within_its_range() -> None:
    rows = unit_rows(np.random.default_rng(10), 7)
    cost = alignment.cosine_cost(rows, -rows)
    assert cost.dtype == np.float64
    assert np.diag(cost) == pytest.approx(2.0)
    assert cost == pytest.approx(1 + rows @ rows.T, abs=1e-12)
    assert alignment.cosine_cost(rows, rows).min() >= 0


def test_single_precision_features_give_double_precision_costs_nearby() -> None:
    x, y = (unit_rows(np.random.default_rng(seed), 30) for seed in (11, 12))
    single = alignment.cosine_cost(x.astype(np.float32), y.astype(np.float32))
    assert single.dtype == np.float64
    assert single == pytest.approx(alignment.cosine_cost(x, y), abs=1e-6)


def test_any_float_type_and_memory_order_is_taken() -> None:
    cost = np.random.default_rng(13).random((9, 11)).astype(np.float32)
    expected = alignment.dtw(cost.astype(np.float64)).total
    assert alignment.dtw(cost).total == expected
    assert alignment.dtw(np.asfortranarray(cost)).total == expected
    assert alignment.dtw(cost.tolist()).total == expected
    assert alignment.dtw(np.repeat(cost, 2, axis=1)[:, ::2]).total == expected


ALIGNERS: dict[str, Callable[[npt.ArrayLike], object]] = {
    "dtw": alignment.dtw,
    "soft_dtw": lambda cost: alignment.soft_dtw(cost, gamma=0.1),
    "expected_alignment": lambda cost: alignment.expected_alignment(cost, gamma=0.1),
    "subsequence_dtw": alignment.subsequence_dtw,
    "skip_align": lambda cost: alignment.skip_align(cost, gap=0.1, gap_open=0.1),
    "gap_penalty": alignment.gap_penalty,
}


@pytest.mark.parametrize("name", ALIGNERS)
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("cell", [(0, 0), (12, 3), (19, 24)])
def test_nan_and_minus_infinity_are_refused_wherever_they_stand(name: str, bad: float, cell: Cell) -> None:
    cost = np.ones((20, 25))
    cost[cell] = bad
    with pytest.raises(ValueError, match="nan or −inf"):
        ALIGNERS[name](cost)


@pytest.mark.parametrize("name", sorted(set(ALIGNERS) - {"skip_align"}))
def test_forbidding_every_pair_leaves_no_path(name: str) -> None:
    with pytest.raises(ValueError, match="no path"):
        ALIGNERS[name](np.full((10, 9), np.inf))


@pytest.mark.parametrize("name", ALIGNERS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (4,), (2, 2, 2)])
def test_anything_but_a_matrix_with_rows_and_columns_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cost must be a matrix"):
        ALIGNERS[name](np.zeros(shape))


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.nan, math.inf])
def test_gamma_must_be_positive_and_finite(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma"):
        alignment.soft_dtw(np.ones((2, 2)), gamma=gamma)


@pytest.mark.parametrize("name", ["gap", "gap_open", "stretch"])
def test_penalties_must_not_be_negative(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        alignment.skip_align(np.ones((2, 2)), **{"gap": 0.1, "gap_open": 0.1, "stretch": 0.0, name: -0.1})


def test_sequences_of_other_features_or_none_are_refused() -> None:
    with pytest.raises(ValueError, match="3 features a row, b has 4"):
        alignment.cosine_cost(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="b must be a matrix"):
        alignment.cosine_cost(np.ones((2, 3)), np.ones((0, 3)))
    with pytest.raises(ValueError, match="a holds nan"):
        alignment.cosine_cost(np.full((2, 3), np.nan), np.ones((2, 3)))
