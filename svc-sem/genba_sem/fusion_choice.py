"""Which fusion of views decides best, by labelled particles that each candidate has not learnt from. Rows in, a kind out.

Learnt fusions seldom pay with few masters, and by chance one of three looks better nearly always: a richer one is taken only where
McNemar's test says that it is better than the simpler one. Knows no table and no job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba_sem.classifier import CLASSIFIERS, folds_of
from genba_sem.metrics import mcnemar_p
from genba_sem.set_models import KIND_NAMES, Kind, LearntFusion
from genba_sem.views import Fusion, QualityMean

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

FOLDS: Final = 5
LEAST_P: Final = 0.05
MEAN: Final = "quality-mean"  # the one to beat
CANDIDATES: Final[tuple[str, ...]] = (MEAN, *KIND_NAMES)  # the simplest first


@dataclass(frozen=True, eq=False)
class Taught:
    """Labelled particles. rows: (V, D) unit rows of each one's views; quality: (V,) of each; labels: (N,) in 0 … classes − 1."""

    rows: Sequence[Rows]
    quality: Sequence[Rows]
    labels: Labels
    classes: int

    def some(self, keep: Labels) -> Taught:
        """Those at some indices."""
        return Taught([self.rows[i] for i in keep], [self.quality[i] for i in keep], self.labels[keep], self.classes)


def fitted_fusion(name: str, taught: Taught, *, seed: int) -> Fusion:
    """A fusion by its name, trained if it can learn. Raises: ValueError where no label has two particles."""
    if name == MEAN:
        return QualityMean()
    from genba_sem.set_training import train  # torch

    kind: Kind = next(kind for kind in KIND_NAMES if kind == name)
    return train(kind, taught.rows, taught.quality, taught.labels, seed=seed)


def right_without(name: str, taught: Taught, fold: int, *, classifier: str, seed: int) -> list[bool]:
    """Whether each particle of one fold is recognised by a fusion and a classifier that learnt from the others."""
    place = folds_of(taught.labels, taught.classes, FOLDS)
    out, rest = np.flatnonzero(place == fold), taught.some(np.flatnonzero(place != fold))
    fusion = fitted_fusion(name, rest, seed=seed)
    teach, asked = fused(fusion, rest), fused(fusion, taught.some(out))
    logits = CLASSIFIERS[classifier](teach, rest.labels, taught.classes).logits(asked)
    return [bool(each) for each in logits.argmax(1) == taught.labels[out]]


def fused(fusion: Fusion, taught: Taught) -> Rows:
    """(N, D)."""
    return np.stack([fusion.fuse(rows, quality).row for rows, quality in zip(taught.rows, taught.quality, strict=True)])


def simplest_that_wins(right: Mapping[str, Sequence[bool]]) -> str:
    """Of candidates with what each got right on the same particles: the first, unless a later one is better by test."""
    best = next(name for name in CANDIDATES if name in right)
    for name in CANDIDATES:
        if name in right and name != best and mcnemar_p(right[name], right[best]) <= LEAST_P:
            best = name
    return best


def name_of(fusion: Fusion) -> str:
    """The candidate that a fusion is."""
    return fusion.kind if isinstance(fusion, LearntFusion) else MEAN
