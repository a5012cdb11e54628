"""Several views into one particle row: the quality-weighted mean, and what each view contributes. Any number, any order.

A view of quality 0 (black, empty) has no weight; views that repeat each other share one view's weight, so that sending a picture twice
changes nothing. Learnt set models are in ``set_models.py`` and stand behind the same call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from genba_sem.encoders import unit

Rows = npt.NDArray[np.float32]

_SAME: Final = 0.9999  # cosine above which two views are one picture
_LEAST_QUALITY: Final = 0.02


@dataclass(frozen=True, eq=False)
class Fused:
    """row: (D,) unit length, zeros when no view counts; weights: (V,) that sum to 1, or all 0."""

    row: Rows
    weights: Rows


class Fusion(Protocol):
    """Turns the unit rows of one particle's views into one."""

    @property
    def id(self) -> str: ...

    def fuse(self, rows: Rows, quality: Rows) -> Fused:
        """rows: (V, D) unit; quality: (V,) in [0, 1]."""


class QualityMean:
    """The mean of the views, weighed by quality: with nothing to learn, the one to beat."""

    id: Final = "quality-mean-v1"

    def fuse(self, rows: Rows, quality: Rows) -> Fused:
        """Return the weighted mean, unit length."""
        weights = view_weights(rows, quality)
        return Fused(unit(weights @ rows), weights)


class PlainMean:
    """Every view alike, whatever its quality: the baseline of the tables."""

    id: Final = "plain-mean-v1"

    def fuse(self, rows: Rows, quality: Rows) -> Fused:  # noqa: ARG002 (one call for all fusions)
        """Return the mean, unit length."""
        weights = np.full(len(rows), 1 / len(rows), np.float32)
        return Fused(unit(weights @ rows), weights)


def view_weights(rows: Rows, quality: Rows) -> Rows:
    """(V,) that sum to 1: quality over the number of views that show the same picture; 0 for what shows nothing."""
    if len(rows) != len(quality):
        raise ValueError(f"{len(rows)} rows have {len(quality)} qualities.")
    alike = (rows @ rows.T > _SAME).sum(1)
    raw = np.where(quality > _LEAST_QUALITY, quality, 0.0) / np.maximum(alike, 1)
    total = float(raw.sum())
    return np.asarray(raw / total if total > 0 else raw, np.float32)
