"""Order, missing, extra and repeated steps from ids alone."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba_sop.order import (
    binding,
    compare,
    early_steps,
    misplaced_steps,
    moved_steps,
    transitive_closure,
    transitive_reduction,
    violations,
)
from genba_sop.procedure import Procedure, Step, Text

CHAIN = {"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "e": ["d"]}


def procedure(after: dict[str, list[str]], *, optional: frozenset[str] = frozenset()) -> Procedure:
    steps = tuple(Step(s, Text(s), after=tuple(parents), optional=s in optional) for s, parents in after.items())
    return Procedure("p", 1, Text("p"), steps)


@st.composite
def orders(draw: st.DrawFn, largest: int = 7) -> tuple[dict[str, list[str]], list[str]]:
    """A partial order over up to ``largest`` steps and a performed sequence of some of them."""
    names = [f"s{i}" for i in range(draw(st.integers(1, largest)))]
    after = {name: draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else [] for i, name in enumerate(names)}
    performed = draw(st.permutations(names))
    return after, list(performed[: draw(st.integers(0, len(names)))])


def inverted_pairs(after: dict[str, list[str]], sequence: list[str]) -> list[tuple[str, str]]:
    closed = transitive_closure(after)
    return [(a, b) for b, a in itertools.combinations(sequence, 2) if a in closed[b]]


def test_a_run_in_the_procedures_order_has_no_violation() -> None:
    assert violations(procedure(CHAIN), "abcde") == ()


def test_a_step_done_too_early_is_named_with_the_preconditions_it_ran_ahead_of() -> None:
    (violation,) = violations(procedure(CHAIN), "adbce")
    assert (violation.step_id, violation.index, violation.moved, violation.unmet) == ("d", 1, "early", ("b", "c"))


def test_a_step_done_too_late_is_named_instead_of_the_steps_that_did_not_wait() -> None:
    (violation,) = violations(procedure(CHAIN), "bcade")
    assert (violation.step_id, violation.moved, violation.blocked) == ("a", "late", ("b", "c"))


def test_of_two_neighbours_that_swapped_the_one_without_its_precondition_is_named() -> None:
    assert [v.step_id for v in violations(procedure(CHAIN), "bacde")] == ["b"]


def test_steps_that_may_be_done_in_any_order_never_violate() -> None:
    free: dict[str, list[str]] = {"a": [], "b": [], "c": [], "d": ["a", "b", "c"]}
    for sequence in itertools.permutations("abc"):
        assert violations(procedure(free), [*sequence, "d"]) == ()


def test_a_skipped_precondition_is_missing_and_not_out_of_order() -> None:
    found = compare(procedure(CHAIN), "acde")
    assert found.missing == ("b",)
    assert found.moved == ()


def test_precedence_binds_through_a_skipped_step() -> None:
    assert [v.step_id for v in violations(procedure(CHAIN), "adeb")] == ["b"]
    assert [v.step_id for v in violations(procedure(CHAIN), "cade")] == ["c"]


def test_extra_and_repeated_steps_are_found_by_their_index_and_optional_steps_may_be_left_out() -> None:
    found = compare(procedure(CHAIN, optional=frozenset("e")), ["a", "b", "phone", "c", "b", "d"])
    assert (found.extra, found.repeated, found.missing, found.moved) == ((2,), (4,), (), ())


def test_only_the_first_performance_of_a_repeated_step_counts_for_the_order() -> None:
    assert violations(procedure(CHAIN), ["a", "b", "c", "a", "d", "e"]) == ()


def test_a_cycle_or_an_unknown_precondition_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'a' waits for itself"):
        transitive_closure({"a": ["b"], "b": ["a"]})
    with pytest.raises(ValueError, match="'z' is not part"):
        transitive_closure({"a": ["z"]})


def test_a_pair_that_accepted_runs_invert_stops_binding() -> None:
    closed = transitive_closure({"a": [], "b": ["a"], "c": ["b"]})
    learnt = binding(closed, ["bac", "abc"], against=1)
    assert moved_steps(learnt, "bac") == ()
    assert [v.step_id for v in moved_steps(learnt, "acb")] == ["c"]
    assert [v.step_id for v in moved_steps(binding(closed, ["bac"], against=2), "bac")] == ["b"]
    with pytest.raises(ValueError, match="at least 1"):
        binding(closed, [], against=0)


@given(orders())
@settings(deadline=None, max_examples=200)
def test_the_named_steps_are_a_smallest_set_that_explains_every_inverted_pair(
    case: tuple[dict[str, list[str]], list[str]],
) -> None:
    after, sequence = case
    pairs = inverted_pairs(after, sequence)
    named = {v.step_id for v in violations(procedure(after), sequence)}
    assert all(a in named or b in named for a, b in pairs)
    smallest = next(
        size
        for size in range(len(sequence) + 1)
        if any(all(a in some or b in some for a, b in pairs) for some in itertools.combinations(sequence, size))
    )
    assert len(named) == smallest


@given(st.permutations(list("abcdefgh")))
def test_for_a_procedure_without_freedom_the_count_is_n_minus_the_longest_increasing_subsequence(
    sequence: list[str],
) -> None:
    chain = {s: list("abcdefgh"[:i][-1:]) for i, s in enumerate("abcdefgh")}
    longest: list[int] = []
    for index, step in enumerate(sequence):
        longest.append(1 + max((longest[i] for i in range(index) if sequence[i] < step), default=0))
    assert len(violations(procedure(chain), sequence)) == len(sequence) - max(longest)


@given(orders(9))
def test_early_and_misplaced_steps_agree_with_the_inverted_pairs(case: tuple[dict[str, list[str]], list[str]]) -> None:
    after, sequence = case
    closed, pairs = transitive_closure(after), inverted_pairs(after, sequence)
    assert set(early_steps(closed, sequence)) == {b for _, b in pairs}
    assert misplaced_steps(closed, sequence) == {step for pair in pairs for step in pair}
    assert {v.step_id for v in moved_steps(closed, sequence)} <= misplaced_steps(closed, sequence)


@given(orders(9))
def test_the_transitive_reduction_has_the_same_closure_and_nothing_to_spare(
    case: tuple[dict[str, list[str]], list[str]],
) -> None:
    after, _ = case
    closed, reduced = transitive_closure(after), transitive_reduction(after)
    assert transitive_closure(reduced) == closed
    for step, parents in reduced.items():
        for parent in parents:
            thinner = {**reduced, step: parents - {parent}}
            assert transitive_closure(thinner) != closed


def _benchmark() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "sop_order.py"
    spec = importlib.util.spec_from_file_location("benchmark_sop_order", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_captaincook4d_order_errors_and_missing_steps_are_found_from_step_ids() -> None:
    benchmark = _benchmark()
    folder = benchmark.data_folder()
    if not (folder / "error_annotations.json").is_file():
        pytest.skip("CaptainCook4D annotations are not here (GENBA_DATA or ../shared/data, sop/captaincook4d)")
    recordings = benchmark.load(folder)
    test = [r for r in recordings if r.split == "test"]
    assert len(recordings) == 384
    assert len(test) == 109
    assert benchmark.order_f1(recordings, benchmark.naive).f1 == pytest.approx(0.384, abs=0.001)
    assert benchmark.naive_missing_f1(recordings).f1 == pytest.approx(0.975, abs=0.003)
    assert benchmark.order_f1(test, benchmark.both_sides).f1 >= 0.88
    optional = benchmark.optional_nodes([r for r in recordings if r.split == "train"])
    assert benchmark.missing_f1(test, optional=optional).f1 >= 0.98
