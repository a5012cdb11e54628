"""Whether a version may become champion: its metrics against its gates. Pure values; knows no table and no bundle."""

from __future__ import annotations

import math

from genba_shared.recipe import Gate, Registration
from genba_shared.registry_rows import GateResult


def judge(registration: Registration, champion: int | None) -> tuple[GateResult, ...]:
    """Every bound of every gate against the registration's metrics; ``champion`` is the number of the one that serves."""
    return tuple(
        _judge(gate, rule, bound, registration, champion)
        for gate in registration.gates
        for rule in ("at_least", "at_most", "not_below_champion_by")
        if (bound := getattr(gate, rule)) is not None
    )


def _judge(gate: Gate, rule: str, bound: float, registration: Registration, champion: int | None) -> GateResult:
    value = registration.metrics.get(gate.metric)
    if value is None or not math.isfinite(value):
        said = "was not measured" if value is None else "is not a number"
        return GateResult(gate.metric, rule, bound, None, passed=False, reason=f"{gate.metric} {said}.")
    if rule == "at_least":
        passed, reason = value >= bound, f"{gate.metric} is {value:.6g}, needs at least {bound:.6g}."
    elif rule == "at_most":
        passed, reason = value <= bound, f"{gate.metric} is {value:.6g}, may be at most {bound:.6g}."
    elif champion is None:
        passed, reason = True, "There is no champion to compare with."
    else:
        theirs = (registration.champion_metrics or {}).get(gate.metric)
        if theirs is None or not math.isfinite(theirs):
            passed, reason = (
                False,
                f"The champion, version {champion}, was not evaluated for {gate.metric} on this data.",
            )
        else:
            passed = value >= theirs - bound
            reason = f"{gate.metric} is {value:.6g}, needs {theirs:.6g} of version {champion} less {bound:.6g}."
    return GateResult(gate.metric, rule, bound, float(value), passed=passed, reason=reason)
