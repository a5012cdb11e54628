"""A particle's row against the masters: cosine prototypes, nearest masters, a blend, and the logistic head that decides.

Trained in a blink on the lab's few masters; temperature and unknown threshold come from leaving each master out in turn.
Rows in, scores out: it knows label ids and nothing of their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from genba_sem.encoders import unit

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

_NEIGHBOURS: Final = 2
_HEAD_DECAY: Final = 0.02
_HEAD_SHARE: Final = 0.5
_COSINE_SCALE: Final = 12.0


class Classifier(Protocol):
    """Scores particles for every label."""

    @property
    def id(self) -> str: ...

    def logits(self, rows: Rows) -> Floats:
        """(N, C) from (N, D) unit rows; not yet tempered."""


class Prototypes:
    """Cosine to the mean of each label's masters."""

    id: Final = "prototypes-v1"

    def __init__(self, rows: Rows, labels: Labels, classes: int) -> None:
        self.rows = unit(np.stack([rows[labels == index].mean(0) for index in range(classes)]))  # (C, D)

    def logits(self, rows: Rows) -> Floats:
        """Cosines, times a scale that makes them logits."""
        return np.asarray(_COSINE_SCALE * (rows @ self.rows.T), np.float64)


class NearestMasters:
    """Mean cosine to the k nearest masters of each label."""

    id: Final = "nearest-v1"

    def __init__(self, rows: Rows, labels: Labels, classes: int, *, k: int = _NEIGHBOURS) -> None:
        self._groups = [rows[labels == index] for index in range(classes)]
        self._k = k

    def logits(self, rows: Rows) -> Floats:
        """Mean of the k largest cosines, scaled."""
        columns = [np.sort(rows @ group.T, axis=1)[:, -self._k :].mean(1) for group in self._groups]
        return np.asarray(_COSINE_SCALE * np.stack(columns, axis=1), np.float64)


class LogisticHead:
    """Multinomial logistic regression on unit rows, L2-regularised, full-batch L-BFGS: the same answer every time."""

    id: Final = "head-v1"

    def __init__(self, rows: Rows, labels: Labels, classes: int, *, decay: float = _HEAD_DECAY) -> None:
        from scipy.optimize import minimize  # slow to load, and only what fits needs it

        values = rows.astype(np.float64)
        span = np.linalg.svd(values, full_matrices=False)[2] if len(rows) < rows.shape[1] else np.eye(rows.shape[1])
        design = np.concatenate([values @ span.T, np.ones((len(rows), 1))], axis=1)  # (N, r + 1): the rest has weight 0
        truth = np.eye(classes)[labels]  # (N, C)
        each = (truth / np.maximum(truth.sum(0), 1)).sum(
            1
        ) / classes  # labels weigh alike, however many masters they have

        def loss(flat: Floats) -> tuple[float, Floats]:
            weights = flat.reshape(-1, classes)
            logits = design @ weights
            logits -= logits.max(1, keepdims=True)
            log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            penalty = decay * np.square(weights[:-1]).sum() / len(rows)
            slope = design.T @ ((np.exp(log_probs) - truth) * each[:, None])
            slope[:-1] += 2 * decay * weights[:-1] / len(rows)
            return float(-(each * (truth * log_probs).sum(1)).sum() + penalty), slope.ravel()

        start = np.zeros(design.shape[1] * classes)
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x.reshape(-1, classes)
        self.weights = np.concatenate([span.T @ found[:-1], found[-1:]])  # (D + 1, C)

    def logits(self, rows: Rows) -> Floats:
        """Linear scores."""
        return np.asarray(rows.astype(np.float64) @ self.weights[:-1] + self.weights[-1])


class Blend:
    """Prototypes and head, each with a say: the head knows what tells labels apart, prototypes what they look like."""

    id: Final = "blend-v1"

    def __init__(self, rows: Rows, labels: Labels, classes: int) -> None:
        self._prototypes = Prototypes(rows, labels, classes)
        self._head = LogisticHead(rows, labels, classes)

    def logits(self, rows: Rows) -> Floats:
        """Sum of standardised scores."""
        parts = (self._prototypes.logits(rows), self._head.logits(rows))
        return sum(
            (
                share * 4 * _standardised(part)
                for share, part in zip((1 - _HEAD_SHARE, _HEAD_SHARE), parts, strict=True)
            ),
            np.zeros((len(rows), 1)),
        )


CLASSIFIERS: Final = {kind.id: kind for kind in (Prototypes, NearestMasters, LogisticHead, Blend)}
DEFAULT: Final = LogisticHead.id  # as right as the blend, whose standardised scores forget by how far a label leads


@dataclass(frozen=True, eq=False)
class LeftOut:
    """What leaving masters out says. logits: (N, C); similarity: (N,) cosine to the nearest prototype of the others; labels: (N,)."""

    logits: Floats
    similarity: Floats
    labels: Labels


def folds_of(labels: Labels, classes: int, folds: int = 5) -> Labels:
    """(N,) the fold of each particle, every label dealt out in turn; −1 for one that is alone in its label."""
    counts, place = np.bincount(labels, minlength=classes), np.full(len(labels), -1, np.int64)
    for index in np.flatnonzero(counts > 1):
        place[labels == index] = np.arange(counts[index]) % folds
    return place


def leave_out(kind: str, rows: Rows, labels: Labels, classes: int, *, folds: int = 5) -> LeftOut:
    """Classify every master by the masters of the other folds; each fold takes its share of every label.

    Masters that are alone in their label are left out of the result: nothing is known of such a label without them.
    """
    place = folds_of(labels, classes, folds)
    usable = place >= 0
    logits, similarity = np.full((len(rows), classes), np.nan), np.zeros(len(rows))
    for fold in np.unique(place[usable]):
        out = (place == fold) & usable
        logits[out] = CLASSIFIERS[kind](rows[~out], labels[~out], classes).logits(rows[out])
        similarity[out] = greatest_cosine(rows[out], Prototypes(rows[~out], labels[~out], classes).rows)
    return LeftOut(logits[usable], similarity[usable], labels[usable])


def greatest_cosine(rows: Rows, prototypes: Rows) -> Floats:
    """(N,) cosine to the nearest label's prototype (C, D): how known a particle looks."""
    return np.asarray((rows @ prototypes.T).max(1), np.float64)


def fitted_temperature(logits: Floats, labels: Labels) -> float:
    """The temperature of least log loss (Guo et al. 2017) on logits (N, C) that have not seen their labels; 1 without any."""
    if len(labels) == 0:
        return 1.0
    grid = np.geomspace(0.05, 20, 121)
    losses = [-np.log(tempered(logits, value)[np.arange(len(labels)), labels] + 1e-12).mean() for value in grid]
    return float(grid[int(np.argmin(losses))])


def tempered(logits: Floats, temperature: float) -> Floats:
    """(N, C) probabilities."""
    scaled = logits / temperature
    exponent = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(exponent / exponent.sum(1, keepdims=True))


def _standardised(scores: Floats) -> Floats:
    centred = scores - scores.mean(1, keepdims=True)
    return np.asarray(centred / np.maximum(centred.std(1, keepdims=True), 1e-9))


def label_indices(label_ids: Sequence[str], labels: Sequence[str]) -> Labels:
    """(N,) positions of label ids among ``labels``."""
    where = {label: index for index, label in enumerate(labels)}
    return np.array([where[label] for label in label_ids], np.int64)
