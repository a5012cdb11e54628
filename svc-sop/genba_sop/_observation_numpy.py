"""The same as ``_observation_numba`` where numba is missing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def smoothed(likeness: Singles) -> tuple[Singles, Singles]:
    """As ``_observation_numba.smoothed``."""
    padded = np.pad(np.float32(1) - likeness, 1, mode="edge")
    smooth = np.asarray((padded[:-2, :-2] + padded[1:-1, 1:-1] + padded[2:, 2:]) / np.float32(3), np.float32)
    return smooth, smooth.min(axis=0)


def normalised(smooth: Singles, match: float, unit: float) -> Floats:
    """As ``_observation_numba.normalised``."""
    return np.asarray((smooth - np.float32(match)).astype(np.float64) / unit)


def cells(
    local: Singles,
    recent: Singles,
    gold_local: Singles,
    gold_recent: Singles,
    mine: Ints,
    theirs: Ints,
    step: Ints,
    steps: int,
) -> Floats:
    """As ``_observation_numba.cells``."""
    total = np.zeros((steps, local.shape[1]))
    near = np.minimum(_distances(local[mine], gold_local[theirs]), _distances(recent[mine], gold_recent[theirs]))
    np.add.at(total, step, near)
    return total


def _distances(a: Singles, b: Singles) -> Singles:
    """(n, 48) Euclidean distance of each cell."""
    gap = a - b
    return np.asarray(np.sqrt(np.einsum("tcl,tcl->tc", gap, gap)))
