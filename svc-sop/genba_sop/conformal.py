"""What reviewers teach: a calibrated score and an interval that holds its promise.

Split conformal prediction (Vovk, Gammerman & Shafer 2005), one group for each procedure ("Mondrian"), after an isotonic
calibration of the score to the reviewers'. Knows nothing of videos, steps or the database: scores in, scores and intervals out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WHOLE = (0.0, 100.0)
LEAST_REVIEWS = 30  # before, the score stays as computed and is called uncalibrated


@dataclass(frozen=True)
class Review:
    """A reviewer's score beside the computed one, both in [0, 100]."""

    procedure_id: str
    score: float
    reviewed: float


@dataclass(frozen=True)
class Calibration:
    """A calibration curve and the residuals of reviews that did not shape it.

    knots: (k,) computed scores, increasing; levels: (k,) reviewers' scores at them, not decreasing; both empty before
    ``LEAST_REVIEWS``. residuals: by procedure, |reviewed − calibrated|, sorted.
    """

    knots: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    residuals: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def calibrated(self) -> bool:
        """Whether there were enough reviews to calibrate."""
        return bool(self.knots)

    def score(self, computed: float) -> float:
        """Return the score on the reviewers' scale; unchanged while uncalibrated."""
        return float(np.interp(computed, self.knots, self.levels)) if self.knots else computed

    def interval(self, procedure_id: str, computed: float, *, coverage: float = 0.9) -> tuple[float, float]:
        """Return where the reviewer's score lies with probability ≥ ``coverage``, whatever the distribution.

        Holds for exchangeable reviews of this procedure. With fewer than ⌈1/(1 − coverage)⌉ − 1 of them (9 at 90 %) nothing
        can be promised and the interval is [0, 100].
        """
        radius = conformal_quantile(self.residuals.get(procedure_id, ()), coverage)
        if math.isinf(radius):
            return WHOLE
        centre = self.score(computed)
        return max(0.0, centre - radius), min(100.0, centre + radius)


def calibrate(reviews: Sequence[Review]) -> Calibration:
    """Learn from reviews, oldest first.

    From ``LEAST_REVIEWS`` on every other review shapes the isotonic curve and the rest gives the residuals, so the residuals
    stay honest; before, all reviews give residuals of the score as computed.

    Raises: ValueError for a score outside [0, 100].
    """
    for review in reviews:
        if not (0 <= review.score <= 100 and 0 <= review.reviewed <= 100):
            raise ValueError(f"A review has scores {review.score} and {review.reviewed}; both must lie in [0, 100].")
    shaping = reviews[::2] if len(reviews) >= LEAST_REVIEWS else ()
    testing = reviews[1::2] if shaping else reviews
    knots, levels = _isotonic(shaping) if shaping else ((), ())
    curve = Calibration(knots, levels)
    residuals: dict[str, list[float]] = {}
    for review in testing:
        residuals.setdefault(review.procedure_id, []).append(abs(review.reviewed - curve.score(review.score)))
    return Calibration(knots, levels, {procedure: tuple(sorted(rows)) for procedure, rows in residuals.items()})


def conformal_quantile(residuals: Sequence[float], coverage: float) -> float:
    """Return the ⌈(n + 1)·coverage⌉-th smallest residual, infinity when there are too few.

    Args:   residuals: n values.   coverage: in (0, 1).
    Raises: ValueError for another coverage.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1, not {coverage}.")
    rank = math.ceil((len(residuals) + 1) * coverage - 1e-9)
    return math.inf if rank > len(residuals) else float(sorted(residuals)[rank - 1])


def _isotonic(reviews: Sequence[Review]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Least-squares monotone curve through the reviews; equal computed scores are averaged first."""
    from scipy.optimize import isotonic_regression  # slow to load, and needed from 30 reviews on only

    scores = np.array([review.score for review in reviews])
    knots, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(place, [review.reviewed for review in reviews]) / count
    levels = isotonic_regression(means, weights=count.astype(np.float64)).x
    return tuple(map(float, knots)), tuple(map(float, levels))
