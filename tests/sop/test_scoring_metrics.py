"""The measures against definitions spelled out, brute force, and SciPy."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba_sop.evaluation import DeviationKind
from genba_sop.metrics import (
    Comparison,
    Tally,
    boundary_f1,
    compare,
    edit_score,
    frame_accuracy,
    segmental_f1,
    temporal_iou,
)
from genba_sop.procedure import Span


@dataclass(frozen=True)
class Range:
    kind: DeviationKind
    step_id: str | None
    start_s: float
    end_s: float


def test_iou_is_shared_time_by_covered_time() -> None:
    assert temporal_iou((0, 4), (2, 6)) == pytest.approx(2 / 6)
    assert temporal_iou((0, 4), (0, 4)) == 1
    assert temporal_iou((0, 4), (4, 6)) == 0
    assert temporal_iou((3, 3), (3, 3)) == 0


def test_a_deviation_counts_only_with_the_right_kind_step_and_time() -> None:
    planted = [Range("too_slow", "a", 0, 10)]
    for found in (
        Range("too_fast", "a", 0, 10),
        Range("too_slow", "b", 0, 10),
        Range("too_slow", "a", 8, 18),
    ):
        comparison = compare([found], planted)
        assert sum(t.true_positives for t in comparison.tallies.values()) == 0
        assert comparison.macro_f1 == 0
    right = compare([Range("too_slow", "a", 1, 10)], planted)
    assert right.tallies["too_slow"] == Tally(1, 0, 0)
    assert right.ious[0] == pytest.approx(0.9)


def test_a_missing_step_is_an_instant_that_may_lie_four_seconds_off() -> None:
    planted = [Range("missing", "a", 20, 20)]
    assert compare([Range("missing", "a", 23.9, 23.9)], planted).macro_f1 == 1
    assert compare([Range("missing", "a", 24.1, 24.1)], planted).macro_f1 == 0
    assert compare([Range("missing", "a", 20, 20)], planted).ious == ()


def test_two_finds_of_one_deviation_are_one_hit_and_one_false_alarm() -> None:
    planted = [Range("extra", None, 0, 10)]
    found = [Range("extra", None, 0, 6), Range("extra", None, 0, 10)]
    assert compare(found, planted).tallies["extra"] == Tally(1, 1, 0)
    assert compare(found, planted).ious == (1.0,)


ranges = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8)), max_size=4).map(
    lambda rows: [Range("extra", None, float(start), float(start + length)) for start, length in rows]
)


@given(ranges, ranges)
def test_matching_finds_as_many_pairs_as_any_assignment_could(found: list[Range], planted: list[Range]) -> None:
    few, many = sorted((found, planted), key=len)
    best = max(
        sum(temporal_iou((a.start_s, a.end_s), (b.start_s, b.end_s)) >= 0.5 for a, b in zip(few, chosen, strict=True))
        for chosen in itertools.permutations(many, len(few))
    )
    tally = compare(found, planted).tallies.get("extra", Tally())
    assert tally == Tally(best, len(found) - best, len(planted) - best)


def test_macro_f1_is_the_mean_over_kinds_and_sums_over_videos() -> None:
    first = compare([Range("idle", None, 0, 5)], [Range("idle", None, 0, 5), Range("extra", None, 9, 12)])
    second = compare([Range("extra", None, 0, 4)], [Range("extra", None, 0, 4)])
    both = first + second
    assert both.tallies["extra"] == Tally(1, 0, 1)
    assert both.macro_f1 == pytest.approx((1 + 2 / 3) / 2)
    assert math.isnan(Comparison().macro_f1)


def test_precision_and_recall_of_nothing_are_undefined() -> None:
    assert math.isnan(Tally().precision)
    assert Tally(0, 0, 2).recall == 0
    assert Tally(3, 1, 0).precision == 0.75


def test_frame_accuracy_wants_sequences_of_one_length() -> None:
    assert frame_accuracy([1, 1, 2], [1, 2, 2]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="cannot be compared"):
        frame_accuracy([1], [1, 2])


def levenshtein(a: str, b: str) -> int:
    """By the recursive definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(levenshtein(a[1:], b) + 1, levenshtein(a, b[1:]) + 1, levenshtein(a[1:], b[1:]) + (a[0] != b[0]))


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_the_edit_score_is_the_levenshtein_distance_by_the_longer_sequence(a: str, b: str) -> None:
    longest = max(len(a), len(b))
    expected = 100 * (1 - levenshtein(a, b) / longest) if longest else 100
    assert edit_score(a, b) == pytest.approx(expected)


def test_segmental_f1_gives_each_true_segment_to_one_find() -> None:
    truth = [Span("a", 0, 10), Span("b", 10, 20)]
    assert segmental_f1(truth, truth, least_iou=0.5) == 1
    over_segmented = [Span("a", 0, 4), Span("a", 4, 10), Span("b", 10, 20)]
    assert segmental_f1(over_segmented, truth, least_iou=0.5) == pytest.approx(2 * 2 / 5)


def test_boundaries_match_once_within_the_tolerance() -> None:
    assert boundary_f1([1.0, 5.5], [1.5, 9.0]) == pytest.approx(0.5)
    assert boundary_f1([1.0, 1.2], [1.1]) == pytest.approx(2 / 3)
    assert np.isnan(boundary_f1([], []))
