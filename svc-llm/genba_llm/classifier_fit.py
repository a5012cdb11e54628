"""Fit the classifier's weights to labelled rows. Arrays and texts in, a Classifier out: no files, no jobs, no web."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from genba_llm.classifier import Classifier
from genba_llm.features import FeatureConfig, matrix
from genba_llm.verdict import Decision

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

CLASSES = len(Decision)
L2 = 3e-5  # chosen on the development sources, of 1e-5, 3e-5 and 1e-4


@dataclass(frozen=True)
class Row:
    """A labelled text. ``weight`` counts it; ``family`` (its template) and ``subject`` (what fills the template) are what
    must not be split between training and test.
    """

    text: str
    decision: Decision
    source: str = ""
    family: str = ""
    subject: str = ""
    language: str = ""
    weight: float = 1.0


def fit(
    rows: Sequence[Row],
    *,
    config: FeatureConfig | None = None,
    l2: float = L2,
    max_iterations: int = 45,
    version: str = "local",
    step: Callable[[int, float], None] | None = None,
) -> Classifier:
    """Multinomial logistic regression by L-BFGS. ``step(iteration, loss)`` is called along the way and may raise to stop.

    Raises: ValueError without rows of at least two decisions.
    """
    config = config or FeatureConfig()
    found = matrix([row.text for row in rows], config)
    return fit_on(rows, found, config=config, l2=l2, max_iterations=max_iterations, version=version, step=step)


def fit_on(
    rows: Sequence[Row],
    found: csr_matrix,
    *,
    config: FeatureConfig,
    l2: float = L2,
    max_iterations: int = 45,
    version: str = "local",
    step: Callable[[int, float], None] | None = None,
) -> Classifier:
    """The same for rows whose features are there already; ``found``: (N, D)."""
    labels = np.array([int(row.decision) for row in rows], np.int64)
    counts = np.array([row.weight for row in rows], np.float64)
    weights, bias = fit_logistic(found, labels, counts, l2=l2, max_iterations=max_iterations, step=step)
    return quantise(weights, bias, config=config, version=version)


def balanced(rows: Sequence[Row]) -> list[Row]:
    """The same rows with weights under which what is to be allowed and what is not count alike."""
    held_back = sum(row.weight for row in rows if row.decision)
    allowed = sum(row.weight for row in rows) - held_back
    factor = allowed / held_back if held_back else 1.0
    return [replace(row, weight=row.weight * factor) if row.decision else row for row in rows]


def fit_logistic(
    features: csr_matrix,
    labels: npt.NDArray[np.int64],
    counts: npt.NDArray[np.float64],
    *,
    l2: float,
    max_iterations: int = 45,
    step: Callable[[int, float], None] | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights (D, 4) and bias (4,) that minimise the weighted mean cross entropy + l2·‖weights‖²; features: (N, D).

    Raises: ValueError without rows of at least two decisions.
    """
    from scipy.optimize import minimize

    if len(np.unique(labels)) < 2:
        raise ValueError("Needs rows of at least two decisions.")

    size = features.shape[1]
    used = np.flatnonzero(np.diff(features.tocsc().indptr))  # hashed columns that occur; the others stay at 0
    dense = features[:, used].astype(np.float64).tocsr()
    transposed = dense.T.tocsr()
    target = np.eye(CLASSES)[labels]  # (N, 4)
    share = counts / counts.sum()
    calls = 0

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        nonlocal calls
        weights, bias = flat[:-CLASSES].reshape(-1, CLASSES), flat[-CLASSES:]
        logits = dense @ weights + bias
        logits -= logits.max(1, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        error = (np.exp(log_probs) - target) * share[:, None]
        value = -float(share @ (log_probs * target).sum(1)) + l2 * float((weights**2).sum())
        calls += 1
        if step is not None:
            step(calls, value)
        return value, np.concatenate(((transposed @ error + 2 * l2 * weights).ravel(), error.sum(0)))

    start = np.zeros(len(used) * CLASSES + CLASSES)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": max_iterations, "maxcor": 8}).x
    weights = np.zeros((size, CLASSES))
    weights[used] = found[:-CLASSES].reshape(-1, CLASSES)
    return weights, found[-CLASSES:]


def quantise(
    weights: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], *, config: FeatureConfig, version: str
) -> Classifier:
    """One byte a weight: each decision's largest weight becomes 127."""
    scale = np.maximum(np.abs(weights).max(0), 1e-9) / 127.0
    rounded = np.rint(weights / scale).astype(np.int8)
    return Classifier(rounded, scale.astype(np.float32), bias.astype(np.float32), config, version)


__all__ = ["CLASSES", "Row", "fit", "fit_logistic", "fit_on", "quantise"]
