"""A head that also learns from particles without a label: FixMatch, FreeMatch and SoftMatch on rows.

The pictures stay where they are: the weak look at a particle is the mean of all its views, the strong look the mean of a random few
with noise. What the head says of the weak look is the pseudo-label for the strong one. Each round reports how many pseudo-labels
counted; promotion is another's business (a head that is worse on held-out masters is dropped there).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from genba_sem.encoders import unit

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Method = Literal["fixmatch", "freematch", "softmatch"]

_STEPS: Final = 300
_BATCH: Final = 128
_RATE: Final = 0.05
_SCALE: Final = 12.0
_FIXED: Final = 0.95
_MEMORY: Final = 0.98
_NOISE: Final = 0.05
_DECAY: Final = 1e-4


@dataclass(frozen=True)
class Round:
    """One tenth of the training. taken: share of unlabelled looks whose pseudo-label counted; threshold: mean threshold then."""

    taken: float
    threshold: float


@dataclass(frozen=True, eq=False)
class Learnt:
    """weights: (D, C) of a cosine head; rounds: what happened; pseudo: (N,) last pseudo-label of each unlabelled particle, −1 where
    none was taken.
    """

    weights: Floats
    rounds: tuple[Round, ...]
    pseudo: Labels

    def logits(self, rows: Rows) -> Floats:
        """(N, C) of fused unit rows."""
        return cosine_logits(self.weights, rows)

    def pseudo_label_precision(self, truth: Labels) -> float:
        """Share of the pseudo-labels taken that are right, where the truth is known after all; nan without any."""
        taken = self.pseudo >= 0
        return float((self.pseudo[taken] == truth[taken]).mean()) if taken.any() else float("nan")


def cosine_logits(weights: Floats, rows: Rows) -> Floats:
    """(N, C) of unit rows (N, D) and the weights (D, C) of a cosine head."""
    return np.asarray(_SCALE * rows.astype(np.float64) @ _columns(weights))


def learn(
    labelled: Sequence[Rows],
    labels: Labels,
    unlabelled: Sequence[Rows],
    classes: int,
    *,
    method: Method = "softmatch",
    seed: int = 0,
) -> Learnt:
    """Train.

    labelled, unlabelled: particles as (V, D) unit rows of their views; labels: (M,) of the labelled.
    Raises: ValueError without labelled particles.
    """
    if not len(labelled):
        raise ValueError("Nothing can be learnt without a labelled particle.")
    rng = np.random.default_rng(seed)
    weak_known, weak_unknown = _means(labelled), _means(unlabelled)
    known, unknown = _Views.of(labelled), _Views.of(unlabelled)
    start = np.stack(
        [
            weak_known[labels == label].mean(0) if (labels == label).any() else 0 * weak_known[0]
            for label in range(classes)
        ]
    )
    weights = unit(start).T.astype(np.float64)  # (D, C): prototypes
    momentum = np.zeros_like(weights)
    threshold = _Threshold(method, classes)
    pseudo, rounds, taken, levels = np.full(len(unlabelled), -1, np.int64), [], [], []
    for step in range(_STEPS):
        pick = rng.integers(len(labelled), size=min(_BATCH, 4 * len(labelled)))
        slope = _slope(weights, known.strong(pick, rng), np.eye(classes)[labels[pick]])
        if len(unlabelled):
            some = rng.integers(len(unlabelled), size=_BATCH)
            probs = _softmax(_SCALE * weak_unknown[some] @ _columns(weights))
            share = threshold.weigh(probs)
            target = np.eye(classes)[probs.argmax(1)] * share[:, None]
            slope += _slope(weights, unknown.strong(some, rng), target, share)
            pseudo[some] = np.where(share > 0.5, probs.argmax(1), -1)
            taken.append(float(share.mean()))
            levels.append(threshold.level)
        momentum = 0.9 * momentum - _RATE * (slope + _DECAY * weights)
        weights = weights + momentum * 0.5 * (1 + np.cos(np.pi * step / _STEPS))
        if (step + 1) % (_STEPS // 10) == 0:
            rounds.append(Round(float(np.mean(taken or [0.0])), float(np.mean(levels or [0.0]))))
            taken, levels = [], []
    return Learnt(weights, tuple(rounds), pseudo)


class _Threshold:
    """How much a pseudo-label counts: all or nothing over a fixed (FixMatch) or a learnt level (FreeMatch), or softly (SoftMatch)."""

    def __init__(self, method: Method, classes: int) -> None:
        self._method = method
        self.level = _FIXED if method == "fixmatch" else 1 / classes
        self._spread = 1.0
        self._by_label = np.full(classes, 1 / classes)

    def weigh(self, probs: Floats) -> Floats:
        """(B,) in [0, 1] from (B, C)."""
        sure = probs.max(1)
        if self._method == "fixmatch":
            return np.asarray(sure >= _FIXED, np.float64)
        self.level = _MEMORY * self.level + (1 - _MEMORY) * float(sure.mean())
        self._by_label = _MEMORY * self._by_label + (1 - _MEMORY) * probs.mean(0)
        if self._method == "freematch":
            own = self.level * self._by_label / self._by_label.max()
            return np.asarray(sure >= own[probs.argmax(1)], np.float64)
        self._spread = _MEMORY * self._spread + (1 - _MEMORY) * float(sure.var())
        return np.asarray(np.exp(-np.square(np.minimum(sure - self.level, 0)) / (2 * self._spread / 4 + 1e-9)))


def _means(particles: Sequence[Rows]) -> Rows:
    return unit(np.stack([views.mean(0) for views in particles])) if len(particles) else np.zeros((0, 1), np.float32)


@dataclass(frozen=True, eq=False)
class _Views:
    """Particles side by side. rows: (N, V, D), zeros where a particle has fewer views than the most; counts: (N,)."""

    rows: Rows
    counts: Labels

    @classmethod
    def of(cls, particles: Sequence[Rows]) -> _Views:
        counts = np.array([len(views) for views in particles], np.int64)
        rows = np.zeros(
            (len(particles), int(counts.max(initial=0)), particles[0].shape[1] if particles else 1), np.float32
        )
        for index, views in enumerate(particles):
            rows[index, : len(views)] = views
        return cls(rows, counts)

    def strong(self, pick: Labels, rng: np.random.Generator) -> Rows:
        """A random few views of each picked particle, with noise: (B, D)."""
        rows, counts = self.rows[pick], self.counts[pick]
        draw = rng.random(rows.shape[:2])
        draw[np.arange(rows.shape[1]) >= counts[:, None]] = np.inf
        taken = draw.argsort(1).argsort(1) < rng.integers(1, counts + 1)[:, None]  # (B, V)
        means = unit(np.einsum("bv,bvd->bd", taken.astype(np.float32), rows))
        return unit(means + _NOISE * rng.normal(size=means.shape))


def _slope(weights: Floats, rows: Rows, target: Floats, share: Floats | None = None) -> Floats:
    """Of the cross-entropy of the cosine head towards ``target`` (B, C)."""
    probs = _softmax(_SCALE * rows @ _columns(weights))
    mass = np.ones(len(rows)) if share is None else share
    by_column = _SCALE * rows.T @ (probs * mass[:, None] - target) / len(rows)  # (D, C), of the unit columns
    columns = _columns(weights)
    along = (by_column * columns).sum(0, keepdims=True)
    return np.asarray((by_column - columns * along) / np.linalg.norm(weights, axis=0, keepdims=True))


def _columns(weights: Floats) -> Floats:
    return np.asarray(weights / np.maximum(np.linalg.norm(weights, axis=0, keepdims=True), 1e-9))


def _softmax(logits: Floats) -> Floats:
    exponent = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(exponent / exponent.sum(1, keepdims=True))
