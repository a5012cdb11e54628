"""What an evaluation says. Frozen values, in seconds of the trainee's video unless a name says gold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genba_sop.procedure import Severity, Span

DeviationKind = Literal[
    "missing", "extra", "repeated", "moved", "too_fast", "too_slow", "idle", "wrong_tool", "execution"
]
Verdict = Literal["pass", "fail", "needs_review"]
StepStatus = Literal["done", "missing", "moved", "deviates"]


@dataclass(frozen=True)
class Deviation:
    """One thing that differs from the gold runs.

    ``start_s``–``end_s`` lie in the trainee's video; a missing step has the moment where it should have been (start = end).
    ``gold_start_s``–``gold_end_s`` show the same place in the reference gold, when there is one.
    ``p_value`` is the share of gold–gold comparisons that look at least as bad (with add-one smoothing; beyond the worst of them
    continued by an exponential tail); None with a single gold.
    """

    kind: DeviationKind
    step_id: str | None
    start_s: float
    end_s: float
    gold_start_s: float | None
    gold_end_s: float | None
    severity: Severity
    p_value: float | None
    measure: (
        float  # what was measured: skipped share, seconds, duration ratio, residual; see docs/reference/deviations.md
    )
    expected: float | None  # the same measure on the golds


@dataclass(frozen=True)
class StepResult:
    """One row of the per-step table."""

    step_id: str
    status: StepStatus
    quality: float  # 0 to 1
    spans: tuple[Span, ...]  # where the trainee did it; empty when missing
    duration_s: float
    gold_duration_s: float


@dataclass(frozen=True)
class Trace:
    """Why: the alignment path and its cost, for the report's picture.

    path: (i, j) pairs of reference-gold frame and trainee frame that were matched; cost: the cost of each pair.
    """

    gold_index: int
    path: tuple[tuple[int, int], ...]
    cost: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """A trainee's run against a procedure. ``score``, ``raw_score`` (before calibration) and ``interval`` are in [0, 100]."""

    score: float
    raw_score: float
    verdict: Verdict
    reasons: tuple[str, ...]  # machine-readable: "critical_missing:torque", "order", "score_below_pass" …
    interval: tuple[float, float]
    calibrated: bool
    steps: tuple[StepResult, ...]
    deviations: tuple[Deviation, ...]
    trace: Trace
    encoder: str
    gold_votes: tuple[float, ...]  # weight of each gold in the vote, sums to 1
