"""Evaluate a trainee's run: from findings to a score, a verdict with reasons, and an interval.

The score is the weighted mean quality of the steps, less penalties for order and for what does not belong there, capped
where a critical step failed: a skipped critical step fails the run without hiding how well the rest was done. The less a video
shows of the procedure at all, the less of that is left.
Knows nothing of video files, models or HTTP: features in, ``Evaluation`` out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from genba_sop.conformal import Calibration
from genba_sop.decoding import ELSEWHERE
from genba_sop.deviations import Findings, find
from genba_sop.evaluation import Deviation, DeviationKind, Evaluation, StepResult, StepStatus, Trace, Verdict
from genba_sop.features import Features
from genba_sop.observation import Observation
from genba_sop.procedure import Span, Step
from genba_sop.reference import Reference

# The share of a step's quality that is left under each deviation of it, and points off the score for each of the others.
QUALITY: dict[DeviationKind, float] = {"wrong_tool": 0.4, "execution": 0.5, "too_fast": 0.7, "too_slow": 0.8}
POINTS: dict[DeviationKind, float] = {"moved": 12.0, "repeated": 3.0, "extra": 3.0, "idle": 2.0}
MOST_POINTS = 40.0
UNLIKE_REASON = (
    "unlike_the_golds"  # its low score is no fail: what does not show the procedure says nothing of a person
)


@dataclass(frozen=True)
class Policy:
    """What passes: at least ``pass_score``; under ``fail_score`` fails; between them a person looks."""

    pass_score: float = 80.0
    fail_score: float = 60.0
    coverage: float = 0.9
    calibration: Calibration = field(default_factory=Calibration)


def evaluate(reference: Reference, trainee: Features, *, policy: Policy | None = None) -> Evaluation:
    """Score a trainee's video against a procedure's golds.

    Raises: ValueError for features of another encoder than the golds', without frames, or with nan.
    """
    policy = policy or Policy()
    rows, seen = reference.observe(trainee)
    laid = reference.lay(trainee, rows)
    if (turned := reference.turned_back(trainee, rows, laid)) is not None:
        rows, seen = reference.observe(turned)
        laid = reference.lay(turned, rows)
    findings = find(reference, rows, seen, laid)
    steps = tuple(_step_result(reference, findings, seen, at) for at in range(len(reference.step_ids)))
    likeness = reference.likeness(seen, laid)
    computed = likeness * _score(reference, findings.deviations, steps, policy)
    calibration = policy.calibration
    score = min(calibration.score(computed), _cap(reference, findings.deviations, policy))
    found = {deviation.step_id for deviation in findings.deviations if deviation.kind == "missing"}
    unseen = [
        f"missing:{step.id}"  # as unlike the golds as that: not sure enough to be named, and too doubtful to pass
        for step, result in zip(reference.procedure.steps, steps, strict=True)
        if result.status == "missing" and not step.optional and step.id not in found
    ]
    noted = {**dict.fromkeys(unseen, True), UNLIKE_REASON: likeness < 1, "mirrored": turned is not None}
    doubts = [reason for reason, there in noted.items() if there]
    verdict, reasons = _verdict(reference, findings.deviations, doubts, score, policy)
    return Evaluation(
        score=score,
        raw_score=computed,
        verdict=verdict,
        reasons=reasons,
        interval=calibration.interval(reference.procedure.id, computed, coverage=policy.coverage),
        calibrated=calibration.calibrated,
        steps=steps,
        deviations=findings.deviations,
        trace=_trace(seen),
        encoder=reference.encoder,
        gold_votes=tuple(float(vote) for vote in seen.votes),
    )


def _step_result(reference: Reference, findings: Findings, seen: Observation, at: int) -> StepResult:
    """One row of the per-step table."""
    step_id = reference.step_ids[at]
    main = findings.main[at]
    kinds: list[DeviationKind] = [d.kind for d in findings.deviations if d.step_id == step_id]
    spans = tuple(Span(step_id, p.start_s, p.end_s) for p in findings.performances if p.step == at)
    status: StepStatus = "done"
    if main is None:
        status = "missing"
    elif "moved" in kinds:
        status = "moved"
    elif kinds:
        status = "deviates"
    more = float(np.nansum(seen.votes * seen.skipped[:, at]) - reference.usually_skipped[at])
    coverage = 1.0 - max(0.0, more)
    quality = 0.0 if main is None else coverage * float(np.prod([QUALITY.get(kind, 1.0) for kind in kinds]))
    return StepResult(
        step_id=step_id,
        status=status,
        quality=min(1.0, max(0.0, quality)),
        spans=() if main is None else spans,
        duration_s=0.0 if main is None else sum(span.end_s - span.start_s for span in spans),
        gold_duration_s=float(reference.mean_s[at]),
    )


def _score(reference: Reference, deviations: Sequence[Deviation], steps: Sequence[StepResult], policy: Policy) -> float:
    """Weighted step quality less penalties, capped; in [0, 100]. An optional step counts only when it was done."""
    counted = [
        (step.weight, result.quality)
        for step, result in zip(reference.procedure.steps, steps, strict=True)
        if not (step.optional and result.status == "missing")
    ]
    weight = sum(w for w, _ in counted)
    mean = sum(w * q for w, q in counted) / weight if weight else 0.0
    points = min(MOST_POINTS, sum(POINTS.get(deviation.kind, 0.0) for deviation in deviations))
    return min(max(0.0, 100.0 * mean - points), _cap(reference, deviations, policy))


def _cap(reference: Reference, deviations: Sequence[Deviation], policy: Policy) -> float:
    """The highest score that the failed critical steps and the order leave."""
    steps = {step.id: step for step in reference.procedure.steps}
    failed = any(_fails(deviation, steps) for deviation in deviations)
    return policy.pass_score - 1.0 if failed else 100.0


def _fails(deviation: Deviation, steps: dict[str, Step]) -> bool:
    """A wrong order, or a critical step that is missing or was done with the wrong object."""
    step = steps.get(deviation.step_id or "")
    critical = step is not None and step.critical
    return deviation.kind == "moved" or (critical and deviation.kind in {"missing", "wrong_tool"})


def _verdict(
    reference: Reference,
    deviations: Sequence[Deviation],
    noted: Sequence[str],
    score: float,
    policy: Policy,
) -> tuple[Verdict, tuple[str, ...]]:
    """Fail, needs review, or pass, each with every reason that there is for it; a pass has none."""
    steps = {step.id: step for step in reference.procedure.steps}
    fails, doubts = [], []
    for deviation in deviations:
        step = steps.get(deviation.step_id or "")
        if deviation.kind == "moved":
            fails.append(f"order:{deviation.step_id}")
        elif step is not None and _fails(deviation, steps):
            fails.append(f"critical_{deviation.kind}:{step.id}")
        elif step is not None and (deviation.kind in {"missing", "wrong_tool"} or step.critical):
            doubts.append(f"{deviation.kind}:{step.id}")
    if score < policy.fail_score and UNLIKE_REASON not in noted:
        fails.append("score_below_fail")
    elif score < policy.pass_score and not fails:
        doubts.append("score_below_pass")
    verdict: Verdict = "fail" if fails else "needs_review" if doubts or noted else "pass"
    return verdict, tuple(Counter([*fails, *doubts, *noted]))


def _trace(seen: Observation) -> Trace:
    """The path through the gold with the most weight."""
    gold = int(seen.votes.argmax())
    matched = np.flatnonzero(seen.frames[gold] != ELSEWHERE)
    return Trace(
        gold_index=gold,
        path=tuple(zip(seen.frames[gold, matched].tolist(), matched.tolist(), strict=True)),
        cost=tuple(seen.costs[gold, matched].tolist()),
    )
