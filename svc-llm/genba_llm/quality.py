"""How good were the decisions? Held against what people decided, and against each other.

``calibration`` fits the temperature with which the gate's probability of ALLOW would have agreed best with people.
``consistency`` is the share of paraphrases that got one and the same decision. Arrays in, numbers out; knows no database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genba_llm.sealed import distance

LEAST_ROWS = 30
SAME_BITS = 12  # sketches of 64 bits that differ in so few are of texts that share most of their trigrams
_BINS = 15


@dataclass(frozen=True)
class Calibration:
    """``temperature`` divides the log-odds of ALLOW; ``ece`` before and after, with equal-mass bins."""

    rows: int
    enough: bool
    allowed_share: float | None
    temperature: float | None
    ece_before: float | None
    ece_after: float | None


def calibration(probs: npt.NDArray[np.float64], allowed: npt.NDArray[np.bool_]) -> Calibration:
    """probs: (N,) the gate's probability of ALLOW.   allowed: (N,) what people decided."""
    count = len(probs)
    if count < LEAST_ROWS:
        return Calibration(count, enough=False, allowed_share=None, temperature=None, ece_before=None, ece_after=None)
    clipped = np.clip(probs, 1e-6, 1 - 1e-6)
    odds = np.log(clipped / (1 - clipped))
    grid = np.linspace(0.5, 3.0, 251)
    losses = [_log_loss(_sigmoid(odds / each), allowed) for each in grid]
    best = float(grid[int(np.argmin(losses))])
    return Calibration(
        count,
        enough=True,
        allowed_share=float(allowed.mean()),
        temperature=best,
        ece_before=expected_calibration_error(probs, allowed),
        ece_after=expected_calibration_error(_sigmoid(odds / best), allowed),
    )


def expected_calibration_error(probs: npt.NDArray[np.float64], happened: npt.NDArray[np.bool_]) -> float:
    """Mean distance of confidence and frequency over at most 15 bins of equal mass."""
    order = np.argsort(probs, kind="stable")
    bins = np.array_split(order, min(_BINS, len(order)))
    return float(
        sum(len(each) * abs(probs[each].mean() - happened[each].mean()) for each in bins if len(each)) / len(order)
    )


def _sigmoid(odds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-odds))


def _log_loss(probs: npt.NDArray[np.float64], allowed: npt.NDArray[np.bool_]) -> float:
    clipped = np.clip(probs, 1e-9, 1 - 1e-9)
    return float(-np.where(allowed, np.log(clipped), np.log(1 - clipped)).mean())


@dataclass(frozen=True)
class Consistency:
    """``score``: of the decisions that have a paraphrase, the share that agrees with its cluster's commonest decision."""

    decisions: int
    clusters: int
    clustered: int
    score: float | None


def consistency(sketches: Sequence[int], decisions: Sequence[int]) -> Consistency:
    """Cluster by near-equal sketches (single linkage to the cluster's first), and see whether they were decided alike."""
    leaders: list[int] = []
    members: list[Counter[int]] = []
    for sketch, decision in zip(sketches, decisions, strict=True):
        for at, leader in enumerate(leaders):
            if distance(sketch, leader) <= SAME_BITS:
                members[at][decision] += 1
                break
        else:
            leaders.append(sketch)
            members.append(Counter([decision]))
    shared = [each for each in members if each.total() > 1]
    clustered = sum(each.total() for each in shared)
    agreeing = sum(each.most_common(1)[0][1] for each in shared)
    return Consistency(len(sketches), len(shared), clustered, agreeing / clustered if clustered else None)
