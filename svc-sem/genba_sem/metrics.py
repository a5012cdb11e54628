"""The field's figures for classifiers that may abstain: AUROC, FPR95, risk–coverage, calibration error, conformal coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc

Floats = npt.NDArray[np.float64]


def auroc(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """Probability that a positive scores above a negative, ties counted half; nan when either is empty."""
    from scipy.stats import rankdata  # slow to load, and no service ranks

    high, low = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    if not len(high) or not len(low):
        return float("nan")
    ranks = rankdata(np.concatenate([high, low]))
    return float((ranks[: len(high)].sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))


def fpr_at_recall(positive: npt.ArrayLike, negative: npt.ArrayLike, *, recall: float = 0.95) -> float:
    """Share of negatives above the score that keeps ``recall`` of the positives (FPR95); nan when either is empty."""
    high, low = np.sort(np.asarray(positive, np.float64)), np.asarray(negative, np.float64)
    if not len(high) or not len(low):
        return float("nan")
    threshold = high[len(high) - int(np.ceil(recall * len(high)))]
    return float((low >= threshold).mean())


@dataclass(frozen=True)
class RiskCoverage:
    """coverage, risk: (n,) as the confidence threshold falls; area: AURC (Geifman & El-Yaniv 2017)."""

    coverage: Floats
    risk: Floats
    area: float

    def coverage_at(self, precision: float) -> float:
        """The largest share that could be confirmed at this precision by someone who knew the truth."""
        met = np.flatnonzero(1 - self.risk >= precision - 1e-12)
        return float(self.coverage[met[-1]]) if len(met) else 0.0


def risk_coverage(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> RiskCoverage:
    """Risk among the most confident, for every coverage. Raises: ValueError for empty or unequal input."""
    scores, right = np.asarray(confidence, np.float64), np.asarray(correct, bool)
    if len(scores) == 0 or len(scores) != len(right):
        raise ValueError("Confidences and outcomes must be equally many and at least one.")
    order = np.argsort(-scores, kind="stable")
    count = np.arange(1, len(scores) + 1)
    risk = np.cumsum(~right[order]) / count
    return RiskCoverage(count / len(scores), risk, float(risk.mean()))


def expected_calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, *, bins: int = 15) -> float:
    """ECE with equal-width bins (Guo et al. 2017)."""
    scores, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    which = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = [abs(scores[which == b].mean() - right[which == b].mean()) * (which == b).mean() for b in np.unique(which)]
    return float(sum(gaps))


def set_coverage(sets: Sequence[Sequence[str]], truth: Sequence[str]) -> tuple[float, float]:
    """Share of label sets that hold the truth, and their mean size. Raises: ValueError for unequal or empty input."""
    if not truth or len(sets) != len(truth):
        raise ValueError("Sets and truths must be equally many and at least one.")
    held = [label in members for members, label in zip(sets, truth, strict=True)]
    return float(np.mean(held)), float(np.mean([len(members) for members in sets]))


def mcnemar_p(right: npt.ArrayLike, right_before: npt.ArrayLike) -> float:
    """One-sided exact p (McNemar 1947) of being no better than before, on the same particles; 1 where nothing differs.

    Raises: ValueError for unequal input.
    """
    now, before = np.asarray(right, bool), np.asarray(right_before, bool)
    if now.shape != before.shape:
        raise ValueError("Both must have judged the same particles.")
    won, differing = int((now & ~before).sum()), int((now != before).sum())
    return float(bdtrc(won - 1, differing, 0.5)) if differing else 1.0
