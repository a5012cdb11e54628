"""The decoder against exhaustive search, p-values against their definition, false discoveries against their rate, labels."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from genba_sop import decoding, explaining, observation
from genba_sop.decoding import ELSEWHERE, Chart, Lattice, Penalties, follow, lattice_class
from genba_sop.medians import median, medians, quantiles
from genba_sop.nulls import discoveries, fit_null, tail_p
from genba_sop.procedure import Span
from genba_sop.segmentation import BETWEEN, Run, absorb_short, edges_s, labels_of, runs_of, spans_of

INF = float("inf")


def chart(segments: list[int], *, jump: float) -> Chart:
    """One gold whose frames lie in these segments."""
    count = max(segments) + 1
    jumps = np.full((count, count), jump)
    jumps[np.arange(count - 1), np.arange(1, count)] = 0.0
    enter, finish = np.full(count, jump), np.full(count, jump)
    enter[0] = finish[-1] = 0.0
    return Chart(np.zeros(len(segments), np.int64), np.array(segments), jumps, enter, finish)


def price(states: tuple[tuple[int, bool], ...], cost: np.ndarray, one: Chart, p: Penalties) -> float:
    """What a sequence of (gold frame, matched) costs, by the definition of the moves."""
    segment = one.segment.tolist()
    first = {s: segment.index(s) for s in segment}
    last = {s: len(segment) - 1 - segment[::-1].index(s) for s in segment}

    def late(i: int) -> float:
        return float(p.cut * (i - first[segment[i]]) / max(last[segment[i]] - first[segment[i]], 1))

    def early(i: int) -> float:
        return float(p.cut * (last[segment[i]] - i) / max(last[segment[i]] - first[segment[i]], 1))

    i, matched = states[0]
    total = one.enter[segment[i]] + late(i) + (cost[i, 0] if matched else p.leave + p.elsewhere)
    for j, ((before, was), (i, matched)) in enumerate(itertools.pairwise(states), 1):
        if not matched:
            if i != before:
                return INF
            total += p.elsewhere + (p.leave if was else 0.0)
            continue
        ways = [early(before) + one.jump[segment[before], segment[i]] + late(i)]
        if was and i == before:
            ways.append(p.hold)
        if was and 1 <= i - before <= p.reach:
            ways.append(p.hurry * (i - before - 1))
        if not was and i - before in {0, 1}:
            ways.append(0.0)
        total += min(ways) + cost[i, j]
    return float(total + one.finish[segment[states[-1][0]]] + early(states[-1][0]))


@pytest.mark.parametrize("seed", range(6))
def test_the_decoder_finds_the_cheapest_of_all_paths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = chart([0, 0, 1, 2], jump=0.7)
    cost = rng.uniform(0, 1.5, (4, 4))
    penalties = Penalties(leave=0.3, elsewhere=0.5, jump=0.7, cut=0.4)
    states = [(i, matched) for i in range(4) for matched in (True, False)]
    best = min(price(path, cost, one, penalties) for path in itertools.product(states, repeat=4))
    (found,) = follow(cost, one, penalties)
    assert found.total == pytest.approx(best, abs=1e-12)


def test_golds_side_by_side_are_followed_as_each_alone() -> None:
    rng = np.random.default_rng(7)
    first, second = rng.random((6, 9)), rng.random((5, 9))
    one, two = chart([0, 0, 1, 1, 2, 2], jump=2.0), chart([0, 1, 1, 2, 2], jump=2.0)
    jumps = np.full((6, 6), INF)
    jumps[:3, :3], jumps[3:, 3:] = one.jump, two.jump
    both = Chart(
        np.repeat([0, 1], [6, 5]),
        np.r_[one.segment, two.segment + 3],
        jumps,
        np.r_[one.enter, two.enter],
        np.r_[one.finish, two.finish],
    )
    together = follow(np.concatenate([first, second]), both, Penalties())
    for joint, (cost, alone) in zip(together, [(first, one), (second, two)], strict=True):
        (single,) = follow(cost, alone, Penalties())
        assert joint.total == pytest.approx(single.total)
        assert joint.frame.tolist() == single.frame.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_the_compiled_decoder_walks_exactly_as_the_one_in_numpy(seed: int) -> None:
    compiled = lattice_class()
    if compiled is None:
        pytest.skip("numba is not installed")
    rng = np.random.default_rng(seed)
    segment = np.repeat(np.arange(9), rng.integers(1, 9, 9))
    gold = np.repeat([0, 1], [int((segment < 5).sum()), int((segment >= 5).sum())])
    jump = np.where(np.equal.outer(np.arange(9) < 5, np.arange(9) < 5), rng.choice([0.0, 2.0, 4.0], (9, 9)), INF)
    both = Chart(gold, segment, jump, rng.choice([0.0, 4.0], 9), rng.choice([0.0, 4.0], 9))
    columns = np.ascontiguousarray(rng.choice([0.1, 0.4, 0.9, 1.6], (60, len(segment))))
    ours, theirs = (lattice(both, Penalties()) for lattice in (compiled, Lattice))
    match, extra = ours.forwards(columns)
    for mine, other in zip((match, extra), theirs.forwards(columns), strict=True):
        assert np.array_equal(mine, other)
    for number in (0, 1):
        walked = [lattice.walk(columns, match, extra, gold=number) for lattice in (ours, theirs)]
        assert walked[0].frame.tolist() == walked[1].frame.tolist()
        assert walked[0].total == walked[1].total


def test_frames_that_match_nothing_are_left_out_and_the_place_is_kept() -> None:
    cost = np.full((6, 10), 2.0)
    for i, j in [(0, 0), (1, 1), (2, 2), (3, 7), (4, 8), (5, 9)]:
        cost[i, j] = 0.0
    (found,) = follow(cost, chart([0, 0, 0, 1, 1, 1], jump=4.0), Penalties())
    assert found.frame.tolist() == [0, 1, 2, *[ELSEWHERE] * 4, 3, 4, 5]


def test_inside_the_pool_the_p_value_is_a_share_with_add_one_smoothing() -> None:
    pool = np.arange(1.0, 100.0)
    assert tail_p(pool, 50.0, least_scale=0.1) == pytest.approx(51 / 100)
    assert tail_p(pool, 99.0, least_scale=0.1) == pytest.approx(2 / 100)


def test_beyond_the_pool_the_p_value_goes_on_falling() -> None:
    pool = np.random.default_rng(1).exponential(size=200)
    values = [tail_p(pool, pool.max() + beyond, least_scale=0.1) for beyond in (0.5, 4.0, 8.0)]
    assert values[0] > values[1] > values[2] > 0
    assert values[1] == pytest.approx(
        values[2] * np.exp(4 / np.mean(pool[pool > np.quantile(pool, 0.75)] - np.quantile(pool, 0.75)))
    )


def test_p_values_of_the_null_are_small_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    null = fit_null(rng.normal(size=(20, 10)), least_spread=0.01)
    assert null is not None
    fresh = [null.p(float(z)) for z in null.z(rng.normal(size=(300, 10))).ravel()]
    for level in (0.01, 0.05, 0.2):
        assert np.mean(np.array(fresh) <= level) <= 2.5 * level


def test_a_null_needs_two_comparisons() -> None:
    assert fit_null(np.zeros((0, 4)), least_spread=0.1) is None
    assert fit_null(np.ones((1, 4)), least_spread=0.1) is None


def test_rejections_are_those_of_benjamini_and_hochberg() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        p = np.r_[rng.uniform(size=12), rng.uniform(0, 0.01, size=4)]
        expected = false_discovery_control(p, method="bh") <= 0.1
        assert discoveries(p.tolist(), tests=len(p), rate=0.1) == tuple(bool(e) for e in expected)


def test_hypotheses_that_were_no_candidates_count_as_tests() -> None:
    assert discoveries([0.02], tests=1, rate=0.1) == (True,)
    assert discoveries([0.02], tests=10, rate=0.1) == (False,)
    assert discoveries([], tests=10, rate=0.1) == ()


def test_labels_and_spans_are_each_others_inverse() -> None:
    times = np.arange(20) / 4
    edges = edges_s(times, 5.0)
    spans = (Span("a", 0.0, 1.125), Span("b", 2.125, 5.0))
    labels = labels_of(spans, ["a", "b"], (edges[1:] + edges[:-1]) / 2)
    assert [run.label for run in runs_of(labels)] == [0, BETWEEN, 1]
    assert spans_of(labels, ["a", "b"], edges) == spans


def test_short_runs_go_to_their_longer_neighbour() -> None:
    labels = np.array([0] * 6 + [1] * 2 + [2] * 4)
    assert absorb_short(labels, shortest=3).tolist() == [0] * 8 + [2] * 4
    assert runs_of(np.zeros(3)) == (Run(0, 0, 2),)
    assert runs_of([]) == ()


def test_warming_up_leaves_the_kernels_ready() -> None:
    decoding.warm_up()
    explaining.warm_up()
    observation.warm_up()
    (found,) = follow(np.zeros((3, 3)), chart([0, 0, 0], jump=1.0), Penalties())
    assert found.frame.tolist() == [0, 1, 2]


@pytest.mark.parametrize("shape", [(1,), (2,), (7, 30), (8, 30), (5, 4, 3)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_quick_medians_are_numpys_to_the_last_bit(shape: tuple[int, ...], kind: type[np.floating]) -> None:
    numbers = np.random.default_rng(len(shape)).normal(size=shape).astype(kind)
    assert median(numbers) == float(np.median(numbers))
    for axis in range(len(shape)):
        found = medians(numbers, axis=axis)
        assert found.dtype == kind
        assert np.array_equal(found, np.median(numbers, axis=axis))


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_quick_quantiles_are_numpys(count: int) -> None:
    numbers, shares = np.random.default_rng(count).normal(size=count), (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    np.testing.assert_allclose(quantiles(numbers, *shares), np.quantile(numbers, shares), rtol=1e-14)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (6, 2), (9, 13)])
def test_costs_of_a_pair_are_the_same_compiled_and_plain(shape: tuple[int, int]) -> None:
    likeness = np.random.default_rng(shape[1]).uniform(-1, 1, shape).astype(np.float32)
    kernels = [importlib.import_module(f"genba_sop._observation_{form}") for form in ("numba", "numpy")]
    (smooth, least), (plain, plain_least) = (each.smoothed(likeness) for each in kernels)
    np.testing.assert_array_equal(smooth, plain)
    np.testing.assert_array_equal(least, plain_least)
    costs = [each.normalised(smooth, 0.25, 0.5) for each in kernels]
    np.testing.assert_array_equal(costs[0], costs[1])
    i, j = shape[0] // 2, shape[1] // 2
    rows, columns = (np.clip([at - 1, at, at + 1], 0, size - 1) for at, size in ((i, shape[0]), (j, shape[1])))
    np.testing.assert_allclose(costs[0][i, j], ((1 - likeness[rows, columns]).mean() - 0.25) / 0.5, rtol=1e-5)


def test_distances_of_cells_are_the_same_compiled_and_plain() -> None:
    rng = np.random.default_rng(3)
    local, recent, gold_local, gold_recent = rng.normal(size=(4, 9, 5, 3)).astype(np.float32)
    mine, theirs, step = *rng.integers(0, 9, (2, 12)), rng.integers(0, 2, 12)
    asked = (local, recent, gold_local, gold_recent, mine, theirs, step, 3)
    found = [importlib.import_module(f"genba_sop._observation_{form}").cells(*asked) for form in ("numba", "numpy")]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    pairs = [(i, j) for i, j, at in zip(mine, theirs, step, strict=True) if at == 1]
    near = [
        np.minimum(np.linalg.norm(local[i] - gold_local[j], axis=1), np.linalg.norm(recent[i] - gold_recent[j], axis=1))
        for i, j in pairs
    ]
    np.testing.assert_allclose(found[0][1], np.sum(near, axis=0), rtol=1e-5)
    assert not found[0][2].any()
