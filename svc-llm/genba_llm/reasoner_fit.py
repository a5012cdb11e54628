"""Fit how a language model's judgement joins the gate's: its weight, a temperature, and the threshold that keeps the bound.

Labelled answers in, a ``Joined`` out. A model whose answers are noise gets weight 0, whatever it claims to know.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from genba_llm.fusion import Joined, pool
from genba_llm.fusion_fit import conformal_threshold
from genba_llm.verdict import Decision

_WEIGHTS = np.linspace(0.0, 1.0, 41)
_TEMPERATURES = np.linspace(1.0, 3.0, 21)  # never sharper: what makes the gate surer must come from the model


class Judged(NamedTuple):
    """One row as the gate and as the model judged it, (4,) probabilities each, and what is right."""

    alone: npt.NDArray[np.float64]
    reasoned: npt.NDArray[np.float64]
    truth: Decision


@dataclass(frozen=True)
class Fitted:
    """``joined``, and on the last third of the rows, which chose nothing but the threshold: losses in nats without and with the
    model; at the threshold of each, the shares of dangerous rows allowed and of harmless ones held back.
    """

    joined: Joined
    dangerous: int
    loss_alone: float
    loss_joined: float
    false_allow_rate: float
    over_refusal_rate: float
    over_refusal_rate_alone: float


def fit_joined(rows: Sequence[Judged], reasoner: str, *, alpha: float, least_allow: float, seed: int = 0) -> Fitted:
    """Weight and temperature on the first third, the conformal threshold on the second, the measures on the last.

    ``least_allow`` is the gate's threshold without the model: the one with it is never lower, since these rows may be easier
    than those on which it was found.

    Raises: ValueError where the second third has fewer than 1/alpha − 1 dangerous rows, or a third has no harmless one.
    """
    order = random.Random(seed).sample(list(rows), len(rows))  # noqa: S311  # a shuffle, no secret
    alone, reasoned = (np.stack([each[part] for each in order]) for part in (0, 1))  # (N, 4) each
    truth = np.array([int(each.truth) for each in order])
    fit, calibrate, measure = np.array_split(np.arange(len(order)), 3)
    if any((truth[part] > 0).all() for part in (fit, calibrate, measure)):
        raise ValueError("There are too few harmless rows.")
    weight, temperature = _best(alone[fit], reasoned[fit], truth[fit])
    mixed = pool(alone, reasoned, weight=weight, temperature=temperature)

    def threshold(probs: npt.NDArray[np.float64]) -> float:
        return max(least_allow, conformal_threshold(probs[calibrate][truth[calibrate] > 0, Decision.ALLOW], alpha))

    def held(probs: npt.NDArray[np.float64], *, dangerous: bool) -> float:
        which = measure[(truth[measure] > 0) == dangerous]
        return float((probs[which, Decision.ALLOW] < threshold(probs)).mean()) if len(which) else 0.0

    return Fitted(
        Joined(reasoner, weight, temperature, threshold(mixed)),
        int((truth[measure] > 0).sum()),
        _loss(alone[measure], truth[measure]),
        _loss(mixed[measure], truth[measure]),
        1.0 - held(mixed, dangerous=True),
        held(mixed, dangerous=False),
        held(alone, dangerous=False),
    )


def _best(
    alone: npt.NDArray[np.float64], reasoned: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """(weight, temperature) of least loss; without the model where it does not help by two standard errors."""
    weight, temperature = min(
        ((float(w), float(t)) for w in _WEIGHTS for t in _TEMPERATURES),
        key=lambda each: _loss(pool(alone, reasoned, weight=each[0], temperature=each[1]), truth),
    )
    gain = _losses(alone, truth) - _losses(pool(alone, reasoned, weight=weight, temperature=temperature), truth)
    return (weight, temperature) if gain.mean() > 2 * gain.std() / len(gain) ** 0.5 else (0.0, 1.0)


def _losses(probs: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.asarray(-np.log(probs[np.arange(len(truth)), truth] + 1e-12))


def _loss(probs: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> float:
    return float(_losses(probs, truth).mean())
