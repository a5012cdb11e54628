"""Which steps are out of order, missing, extra or repeated, given only the ids of the steps as they were performed.

Works on the procedure's partial order; knows nothing of video, time or scores.

A pair of steps is inverted when the procedure binds a before b and b was performed first. The relation "inverted" is
the intersection of two partial orders, hence itself one; the fewest steps that explain all inversions are the
complement of its largest antichain (Dilworth 1950, found by König's theorem). For a procedure without freedom this is n
- LIS, for a free one it is never more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from genba_sop.procedure import Procedure

Precedence = Mapping[str, Collection[str]]  # step → the steps that must be finished before it


@dataclass(frozen=True)
class OrderViolation:
    """One step that stands in the wrong place.

    index: where it stands in the performed sequence.   early: it was done before ``unmet``, its preconditions.
    late: it was done after ``blocked``, the steps that had to wait for it.   Both can hold at once; ``moved`` names
    the heavier side.
    """

    step_id: str
    index: int
    moved: Literal["early", "late"]
    unmet: tuple[str, ...]
    blocked: tuple[str, ...]


@dataclass(frozen=True)
class SequenceDeviations:
    """Everything that a sequence of ids shows. ``extra`` and ``repeated`` are indexes into the performed sequence."""

    missing: tuple[str, ...]
    extra: tuple[int, ...]
    repeated: tuple[int, ...]
    moved: tuple[OrderViolation, ...]


def preconditions(procedure: Procedure) -> dict[str, frozenset[str]]:
    """Every step's direct and indirect preconditions.

    Raises: ValueError when a step waits for itself or for a step that does not exist.
    """
    return transitive_closure({step.id: step.after for step in procedure.steps})


def transitive_closure(after: Precedence) -> dict[str, frozenset[str]]:
    """All ancestors of every step.

    Raises: ValueError on a cycle or an unknown step.
    """
    closed: dict[str, frozenset[str]] = {}
    open_steps: set[str] = set()

    def visit(step: str) -> frozenset[str]:
        if step in closed:
            return closed[step]
        if step in open_steps:
            message = f"step {step!r} waits for itself"
            raise ValueError(message)
        if step not in after:
            message = f"step {step!r} is not part of the procedure"
            raise ValueError(message)
        open_steps.add(step)
        ancestors: set[str] = set()
        for parent in after[step]:
            ancestors |= {parent, *visit(parent)}
        open_steps.discard(step)
        closed[step] = frozenset(ancestors)
        return closed[step]

    for step in after:
        visit(step)
    return closed


def transitive_reduction(after: Precedence) -> dict[str, frozenset[str]]:
    """The fewest direct preconditions with the same closure: what a person wants to read."""
    closed = transitive_closure(after)
    return {
        step: frozenset(parent for parent in ancestors if not any(parent in closed[other] for other in ancestors))
        for step, ancestors in closed.items()
    }


def violations(procedure: Procedure, sequence: Sequence[str]) -> tuple[OrderViolation, ...]:
    """The fewest steps whose place explains every broken precondition, in performed order.

    Only the first performance of a step counts, steps that the procedure does not know are passed over, and a
    precondition that was never performed is missing, not out of order. Of two equally short explanations the step that
    ran ahead of its precondition is named.
    """
    return moved_steps(preconditions(procedure), sequence)


def moved_steps(closed: Mapping[str, Collection[str]], sequence: Sequence[str]) -> tuple[OrderViolation, ...]:
    """``violations`` for preconditions that are already closed (see ``transitive_closure``)."""
    first = _first_performances(closed, sequence)
    unmet = {step: tuple(s for s in first if s in closed[step] and first[s] > at) for step, at in first.items()}
    blocked = {step: tuple(s for s in first if step in unmet[s]) for step in first}
    moved = _fewest(unmet, sorted(first, key=lambda s: (-len(unmet[s]) - len(blocked[s]), -len(unmet[s]), first[s])))
    return tuple(
        OrderViolation(
            step, first[step], "early" if len(unmet[step]) >= len(blocked[step]) else "late", unmet[step], blocked[step]
        )
        for step in sorted(moved, key=first.__getitem__)
    )


def misplaced_steps(closed: Mapping[str, Collection[str]], sequence: Sequence[str]) -> frozenset[str]:
    """Both sides of every inverted pair: what ran ahead of a precondition, and the precondition that came too late.

    This is how people mark order errors (CaptainCook4D: 97 % of its marked steps); ``moved_steps`` is the shorter
    story for a report.
    """
    first = _first_performances(closed, sequence)
    return frozenset(
        step for b, at in first.items() for a in closed[b] if a in first and first[a] > at for step in (a, b)
    )


def binding(closed: Mapping[str, Collection[str]], runs: Iterable[Sequence[str]], *, against: int) -> Precedence:
    """The preconditions that accepted runs respect: a pair that ``against`` or more of them invert does not bind.

    Raises: ValueError when ``against`` < 1.
    """
    if against < 1:
        message = f"against is {against}, needs at least 1"
        raise ValueError(message)
    inverted = Counter[tuple[str, str]]()
    for run in runs:
        first = _first_performances(closed, run)
        inverted.update((a, b) for b, at in first.items() for a in closed[b] if a in first and first[a] > at)
    return {b: frozenset(a for a in ancestors if inverted[a, b] < against) for b, ancestors in closed.items()}


def early_steps(
    closed: Mapping[str, Collection[str]], sequence: Sequence[str], *, skipped: bool = False
) -> tuple[str, ...]:
    """The plain check: every step that starts before one of its preconditions was done.

    ``skipped`` counts preconditions that are never done at all as well.
    """
    first = _first_performances(closed, sequence)
    never = len(sequence) if skipped else -1
    return tuple(step for step, at in first.items() if any(first.get(parent, never) > at for parent in closed[step]))


def compare(procedure: Procedure, sequence: Sequence[str]) -> SequenceDeviations:
    """All deviations of a performed sequence. A missing optional step is none."""
    known = {step.id for step in procedure.steps}
    performed, extra, repeated = set[str](), [], []
    for index, step in enumerate(sequence):
        if step not in known:
            extra.append(index)
        elif step in performed:
            repeated.append(index)
        performed.add(step)
    missing = tuple(step.id for step in procedure.steps if step.id not in performed and not step.optional)
    return SequenceDeviations(missing, tuple(extra), tuple(repeated), violations(procedure, sequence))


def _first_performances(known: Collection[str], sequence: Iterable[str]) -> dict[str, int]:
    first: dict[str, int] = {}
    for index, step in enumerate(sequence):
        if step in known:
            first.setdefault(step, index)
    return first


def _fewest(inverted: Mapping[str, Collection[str]], preferred: Sequence[str]) -> set[str]:
    """A smallest set of steps that touches every inverted pair; earlier names in ``preferred`` win ties."""
    left: set[str] = set(inverted)
    size = _maximum_matching(inverted, left)
    chosen: set[str] = set()
    for step in preferred:
        if size == 0:
            break
        smaller = _maximum_matching(inverted, left - {step})
        if smaller < size:
            chosen.add(step)
            left.discard(step)
            size = smaller
    return chosen


def _maximum_matching(inverted: Mapping[str, Collection[str]], present: Collection[str]) -> int:
    """Size of the largest matching of the split graph of a partial order = fewest elements that touch all its pairs
    (König).
    """
    partner: dict[str, str] = {}

    def augment(step: str, seen: set[str]) -> bool:
        for other in inverted[step]:
            if other in present and other not in seen:
                seen.add(other)
                if other not in partner or augment(partner[other], seen):
                    partner[other] = step
                    return True
        return False

    return sum(augment(step, set()) for step in present)
