"""NumPy's own medians to the last bit, several times as fast: it asks a slow path for two ranks and for nan at once.

For finite numbers only, at least one of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def median(values: npt.NDArray[Any]) -> float:
    """Median of all numbers of an array of floats, as ``numpy.median`` says it."""
    flat = values.ravel()
    half = len(flat) // 2
    parted = np.partition(flat, half)
    middle = parted[half] if len(flat) % 2 else (parted[:half].max() + parted[half]) / 2
    return float(middle)


def medians(rows: npt.NDArray[Any], *, axis: int) -> npt.NDArray[Any]:
    """Medians along one axis of an array of floats, as ``numpy.median`` says them."""
    ordered = np.moveaxis(np.sort(rows, axis=axis), axis, 0)
    half = len(ordered) // 2
    middle = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    return np.asarray(middle, rows.dtype)
