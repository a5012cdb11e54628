"""What a policy that was never shown would have earned, from the log of one that was: IPS, SNIPS and doubly robust estimates.

Arrays in, an estimate with its confidence interval out. Each logged choice carries the propensity with which the logging policy
made it; without a chance for every choice that the new policy makes, no estimator can say anything (``support`` shows it).

IPS: Horvitz and Thompson 1952. SNIPS: Swaminathan and Joachims 2015. Doubly robust: Dudík, Langford and Li 2011.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ("Estimate", "Log", "doubly_robust", "gain", "ips", "snips", "softmax_propensities")

Floats = npt.NDArray[np.float64]
Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Log:
    """n logged choices. action: (n,) int in [0, A).   reward, propensity: (n,) float, propensity in (0, 1].

    unit: (n,) whose choice it was; choices of one unit are not taken to be independent. Each its own when absent.

    Raises: ValueError for columns of different lengths, or a propensity outside (0, 1].
    """

    action: npt.NDArray[np.int64]
    reward: Floats
    propensity: Floats
    unit: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError, see above."""
        columns = (self.action, self.reward, self.propensity, *(() if self.unit is None else (self.unit,)))
        shapes = {np.shape(column) for column in columns}
        if len(shapes) != 1 or len(self.action) == 0:
            message = f"The log's columns have shapes {sorted(map(str, shapes))}; they must be one, and not empty"
            raise ValueError(message)
        if not ((self.propensity > 0) & (self.propensity <= 1)).all():
            message = "A propensity lies outside (0, 1]; what is logged must have had a chance"
            raise ValueError(message)

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True)
class Estimate:
    """Mean reward a choice, with a normal 95 % interval.

    effective_n: how many choices of the new policy itself would say as much (Kish).   support: mean importance weight; far
    from 1 means that the log has no chance for a part of what the policy does.
    """

    value: float
    low: float
    high: float
    effective_n: float
    support: float


def ips(log: Log, policy: Floats, *, clip: float | None = None) -> Estimate:
    """Inverse propensity score. policy: (n, A), each row sums to 1. Unbiased without ``clip``; ``clip`` bounds the weights."""
    weight = _weights(log, policy, clip)
    return _estimate(weight * log.reward, weight, log.unit)


def snips(log: Log, policy: Floats, *, clip: float | None = None) -> Estimate:
    """Self-normalised: the weights' mean divides, so that a shift of all rewards shifts the estimate by just that.

    Raises: ValueError when the policy never does what was logged.
    """
    weight = _weights(log, policy, clip)
    mean = float(weight.mean())
    if mean == 0.0:
        message = "The policy gives no chance to any logged choice"
        raise ValueError(message)
    value = float((weight * log.reward).mean() / mean)
    influence = value + weight * (log.reward - value) / mean  # delta method
    return _estimate(influence, weight, log.unit)


def doubly_robust(log: Log, policy: Floats, predicted: Floats, *, clip: float | None = None) -> Estimate:
    """A reward model, corrected where the log knows better. predicted: (n, A).

    Unbiased when either the propensities or the model are right; narrower than IPS when the model is any good.
    """
    weight = _weights(log, policy, clip)
    return _estimate(_robust(log, policy, predicted, weight), weight, log.unit)


def gain(log: Log, policy: Floats, predicted: Floats, *, clip: float | None = None) -> Estimate:
    """What the policy earns more than was earned, a choice: doubly robust less the reward itself. predicted: (n, A)."""
    weight = _weights(log, policy, clip)
    return _estimate(_robust(log, policy, predicted, weight) - log.reward, weight, log.unit)


def softmax_propensities(scores: Floats, *, temperature: float, floor: float = 0.0) -> Floats:
    """(n, A) chances of an exploring policy. floor: share of choices spread evenly, so that nothing is without a chance.

    Raises: ValueError for a temperature that is not positive or a floor outside [0, 1].
    """
    if temperature <= 0 or not 0 <= floor <= 1:
        message = f"temperature is {temperature} (needs > 0) and floor {floor} (needs 0 to 1)"
        raise ValueError(message)
    shifted = np.exp((scores - scores.max(1, keepdims=True)) / temperature)
    return np.asarray((1 - floor) * shifted / shifted.sum(1, keepdims=True) + floor / scores.shape[1], np.float64)


def _weights(log: Log, policy: Floats, clip: float | None) -> Floats:
    """(n,) chance under the policy over chance under the log."""
    if policy.ndim != 2 or len(policy) != len(log) or log.action.min() < 0 or log.action.max() >= policy.shape[1]:
        message = (
            f"The policy has shape {policy.shape}; it needs a row for each of {len(log)} choices, a column an action"
        )
        raise ValueError(message)
    if (policy < 0).any() or not np.allclose(policy.sum(1), 1.0, atol=1e-6):
        message = "Each row of a policy must hold chances that sum to 1"
        raise ValueError(message)
    weight = np.take_along_axis(policy, log.action[:, None], 1)[:, 0] / log.propensity
    return weight if clip is None else np.minimum(weight, clip)


def _robust(log: Log, policy: Floats, predicted: Floats, weight: Floats) -> Floats:
    if np.shape(predicted) != np.shape(policy):
        message = f"predicted has shape {np.shape(predicted)}, policy {np.shape(policy)}"
        raise ValueError(message)
    chosen = np.take_along_axis(predicted, log.action[:, None], 1)[:, 0]
    return np.asarray((policy * predicted).sum(1) + weight * (log.reward - chosen))


def _estimate(terms: Floats, weight: Floats, unit: npt.NDArray[np.int64] | None) -> Estimate:
    value = float(terms.mean())
    off = terms - value if unit is None else np.bincount(unit, terms - value)[np.unique(unit)]  # (units,)
    n = len(off)
    error = float(np.sqrt(n / (n - 1) * (off**2).sum()) / len(terms)) if n > 1 else float("inf")
    squares = float((weight**2).sum())
    effective = float(weight.sum() ** 2 / squares) if squares else 0.0
    return Estimate(value, value - Z_95 * error, value + Z_95 * error, effective, float(weight.mean()))
