"""Fit the fusion on rows that the classifier has not seen: the stacked logistic, the temperature, the conformal threshold.

Takes labelled texts and a classifier, gives a Fusion. The bound it states holds for requests like the calibration rows;
whoever has rows of their own calibrates on those (recipe ``llm.gate_classifier``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from genba_llm.classifier import Classifier, softmax
from genba_llm.classifier_fit import CLASSES, Row
from genba_llm.fusion import READINGS, Fusion, inputs_of, signals_of
from genba_llm.normalise import normalise
from genba_llm.obfuscate import TRANSFORMS
from genba_llm.verdict import Decision

ALPHA = 0.05
_TEMPERATURES = np.linspace(0.5, 3.0, 51)


@dataclass(frozen=True)
class Calibration:
    """What a fit reports beside the Fusion: on how many dangerous rows the bound stands, and the loss before and after."""

    dangerous: int
    nll_before: float
    nll_after: float
    temperature_grid: float
    temperature_lbfgs: float


def fit_fusion(
    rows: Sequence[Row],
    classifier: Classifier,
    *,
    alpha: float = ALPHA,
    least_allow: float = 0.5,
    l2: float = 1e-3,
    seed: int = 0,
) -> tuple[Fusion, Calibration]:
    """A Fusion for ``classifier``: the first two thirds of the (shuffled) rows fit the weights, the last the rest.

    A share of the rows is hidden or padded first, so that the weights of views and sentences have something to learn.
    Raises: ValueError with fewer than ``1/alpha`` undisguised dangerous rows in the last third: no threshold could keep the
    bound.
    """
    order = random.Random(seed).sample(list(rows), len(rows))  # noqa: S311  # a shuffle, no secret
    signals = [signals_of(normalise(text), classifier) for text in partly_disguised(order, seed)]
    inputs = np.stack([inputs_of(each) for each in signals])  # (N, 12)
    labels = np.array([int(row.decision) for row in order])
    cut = 2 * len(order) // 3
    weights, bias = _stack(inputs[:cut], labels[:cut], l2=l2)
    logits = inputs[cut:] @ weights + bias
    held = labels[cut:]
    grid, exact = fit_temperature(logits, held)
    fused = softmax(logits / exact)
    fusion = Fusion(weights, bias, exact, least_allow, alpha)
    # As it will decide, sentences that speak for their text included; each group has a threshold of its own.
    allow = np.array([fusion.of_text(each)[Decision.ALLOW] for each in signals[cut:]])
    undone = np.array([each.disguised for each in signals[cut:]])
    threshold = conformal_threshold(allow[(held > 0) & ~undone], alpha)
    stricter = _threshold_of(allow[(held > 0) & undone], alpha)
    fusion = replace(fusion, allow_from=max(threshold, least_allow), disguised_allow_from=stricter).named()
    before = softmax(np.stack([np.log(each.classifier_probs) for each in signals[cut:]]))
    return fusion, Calibration(int((held > 0).sum()), _nll(before, held), _nll(fused, held), grid, exact)


def _threshold_of(allow_of_dangerous: npt.NDArray[np.float64], alpha: float) -> float:
    """The threshold of a group on its own (Mondrian conformal prediction, Vovk 2003); 0 where it is too small for one."""
    few = len(allow_of_dangerous) < math.ceil(1 / alpha) - 1
    return 0.0 if few else conformal_threshold(allow_of_dangerous, alpha)


def conformal_threshold(allow_of_dangerous: npt.NDArray[np.float64], alpha: float) -> float:
    """The least P(ALLOW) to answer, so that a dangerous request like these is answered with probability ≤ ``alpha``.

    Split conformal: of n exchangeable scores, the ⌈(n+1)(1−alpha)⌉-th smallest is exceeded by a new one with probability
    at most alpha (Vovk et al. 2005; Angelopoulos & Bates 2023). Raises: ValueError if n is too small for that rank.
    """
    n = len(allow_of_dangerous)
    rank = math.ceil((n + 1) * (1 - alpha))
    if rank > n:
        raise ValueError(f"A bound of {alpha:g} needs at least {math.ceil(1 / alpha) - 1} dangerous rows, found {n}.")
    return float(np.nextafter(np.sort(allow_of_dangerous)[rank - 1], 2.0))


def fit_temperature(logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The temperature of least loss, on the grid 0.5 to 3.0 and by L-BFGS on its logarithm; logits: (N, 4)."""
    from scipy.optimize import minimize

    grid = float(min(_TEMPERATURES, key=lambda t: _nll(softmax(logits / t), labels)))
    found = minimize(
        lambda x: _nll(softmax(logits / math.exp(float(x[0]))), labels), [math.log(grid)], method="L-BFGS-B"
    )
    return grid, float(np.clip(math.exp(float(found.x[0])), 0.2, 10.0))


def _stack(
    inputs: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], *, l2: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Multinomial logistic regression with one weight for each of the three readings and a bias for each decision.

    Seven numbers and not 52: with a weight for every pair of decisions, recall of direct harm on sources that it had not seen
    fell from .95 to .91 at a false positive rate of .05.
    """
    from scipy.optimize import minimize

    readings = inputs.reshape(len(inputs), READINGS, CLASSES)  # (N, 3, 4)
    target = np.eye(CLASSES)[labels]
    start = np.full(READINGS, 1 / READINGS)

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights, bias = flat[:READINGS], flat[READINGS:]
        probs = softmax(np.einsum("nrc,r->nc", readings, weights) + bias)
        error = (probs - target) / len(labels)
        pull = weights - start
        value = _nll(probs, labels) + l2 * float((pull**2).sum())
        return value, np.concatenate((np.einsum("nc,nrc->r", error, readings) + 2 * l2 * pull, error.sum(0)))

    bounds = [(0.0, None)] * READINGS + [(None, None)] * CLASSES  # non-negative, as Breiman (1996) found stacks must be
    first = np.concatenate((start, np.zeros(CLASSES)))
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds).x
    return np.kron(found[:READINGS, None], np.eye(CLASSES)), found[READINGS:]


def _nll(probs: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    return float(-np.log(probs[np.arange(len(labels)), labels] + 1e-12).mean())


def partly_disguised(rows: Sequence[Row], seed: int) -> list[str]:
    """Each text as it is, or (one in five) hidden in one of the twelve ways."""
    rng = random.Random(seed)  # noqa: S311
    texts = []
    for row in rows:
        ways = TRANSFORMS["en" if row.language == "en" else "ja"]
        texts.append(rng.choice(list(ways.values()))(row.text, rng) if rng.random() < 0.2 else row.text)
    return texts
