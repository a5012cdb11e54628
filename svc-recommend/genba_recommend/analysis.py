"""What an experiment says: the difference of each arm from the control, with an interval that may be looked at every day.

The unit is the user, because users are what was put into arms: a rate such as clicks per item shown is a ratio of two sums over
users, and its variance comes by the delta method (Deng et al. 2018). Beside the usual 95 % interval, which holds for one look
planned in advance, stands one that holds at all looks together: a mixture sequential test (Johari, Pekelis & Walsh 2017).
Arrays in, numbers out. Knows no table and no HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, ndtr, ndtri

Floats = npt.NDArray[np.float64]
ALPHA: Final = 0.05
MIXING: Final = 0.1  # spread of the effects that are looked for, in standard deviations of a user's value
LEAST_USERS: Final = 30  # an arm; below it the normal approximation says nothing
Verdict = Literal["better", "worse", "undecided", "too_few_users"]


@dataclass(frozen=True)
class Sums:
    """One arm: numerator and denominator of a rate by user, (U,) each. For a mean the denominator is 1."""

    top: Floats
    bottom: Floats

    def __len__(self) -> int:
        return len(self.top)


@dataclass(frozen=True)
class Rate:
    """A rate with the variance of its estimate and the spread of one user's value."""

    value: float
    variance: float
    spread: float
    users: int


@dataclass(frozen=True)
class Difference:
    """An arm less the control. low, high: 95 % at one planned look.   always_low, always_high: 95 % at all looks together.

    p_value, always_p_value: of no difference, likewise.   verdict: by the interval that always holds.
    """

    control: float
    arm: float
    difference: float
    low: float
    high: float
    always_low: float
    always_high: float
    p_value: float
    always_p_value: float
    relative: float | None
    verdict: Verdict


def rate(sums: Sums) -> Rate:
    """Σ top / Σ bottom; nan without anything below the line."""
    n, below = len(sums), float(sums.bottom.sum())
    if n == 0 or below == 0:
        return Rate(math.nan, math.nan, math.nan, n)
    value = float(sums.top.sum()) / below
    influence = (sums.top - value * sums.bottom) / (below / n)  # (U,)
    variance = float(influence.var(ddof=1)) if n > 1 else math.nan
    return Rate(value, variance / n, math.sqrt(variance) if variance >= 0 else math.nan, n)


def difference(control: Sums, arm: Sums) -> Difference:
    """An arm against the control."""
    a, b = rate(control), rate(arm)
    delta, variance = b.value - a.value, a.variance + b.variance
    relative = delta / a.value if a.value else None
    if min(a.users, b.users) < LEAST_USERS or not variance > 0:
        nan = math.nan
        # Where enough users all did the same, nothing at all for one, more of them are not what is missing.
        said: Verdict = "undecided" if min(a.users, b.users) >= LEAST_USERS and variance == 0 else "too_few_users"
        return Difference(a.value, b.value, delta, nan, nan, nan, nan, nan, nan, relative, said)
    error = math.sqrt(variance)
    half = float(ndtri(1 - ALPHA / 2)) * error
    always = always_valid_half_width(variance, mixing_variance=(MIXING * a.spread) ** 2)
    verdict: Verdict = "better" if delta > always else "worse" if delta < -always else "undecided"
    return Difference(
        control=a.value,
        arm=b.value,
        difference=delta,
        low=delta - half,
        high=delta + half,
        always_low=delta - always,
        always_high=delta + always,
        p_value=float(2 * ndtr(-abs(delta) / error)),
        always_p_value=always_valid_p(delta, variance, mixing_variance=(MIXING * a.spread) ** 2),
        relative=relative,
        verdict=verdict,
    )


def always_valid_half_width(variance: float, *, mixing_variance: float, alpha: float = ALPHA) -> float:
    """Half the interval around a difference whose estimate has ``variance``, valid at any time of stopping."""
    total = variance + mixing_variance
    return math.sqrt(variance * total / mixing_variance * (2 * math.log(1 / alpha) + math.log(total / variance)))


def always_valid_p(delta: float, variance: float, *, mixing_variance: float) -> float:
    """One over the mixture likelihood ratio, at most 1."""
    total = variance + mixing_variance
    log_ratio = 0.5 * math.log(variance / total) + mixing_variance * delta**2 / (2 * variance * total)
    return min(1.0, math.exp(-min(log_ratio, 700.0)))


def sample_ratio_p(users: Sequence[int], weights: Sequence[float]) -> float:
    """P of the numbers of users in the arms under their weights; far below .01 something puts users into the wrong arm."""
    total, weight = sum(users), sum(weights)
    if total == 0:
        return 1.0
    expected = [total * each / weight for each in weights]
    statistic = sum((n - e) ** 2 / e for n, e in zip(users, expected, strict=True))
    return float(chdtrc(len(users) - 1, statistic))
