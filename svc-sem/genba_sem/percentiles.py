"""Percentiles and the median as NumPy gives them to the bit, without what it does around a partition: small pictures come by the million.

Numbers without nan in, numbers out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def percentile(values: npt.NDArray[Any], share: float) -> float:
    """``np.percentile(values, share)`` of an array of any shape: interpolated in its own type."""
    return float(_between(values, (share,))[0])


def percentiles(values: npt.NDArray[Any], *shares: float) -> list[float]:
    """``np.percentile(values, shares)``: interpolated in double precision."""
    return [float(each) for each in _between(values, [np.float64(share) for share in shares])]


def median(values: npt.NDArray[Any]) -> float:
    """``np.median(values)``."""
    flat = values.ravel()
    low, high = (flat.size - 1) // 2, flat.size // 2
    parted = np.partition(flat, (low, high))
    return float(parted[low] if low == high else (parted[low] + parted[high]) / 2)


def _between(values: npt.NDArray[Any], shares: Any) -> list[Any]:
    """A Python float among ``shares`` leaves the type of ``values``, NumPy's makes it double."""
    flat = values.ravel()
    last = flat.size - 1
    places = [share / 100 * last for share in shares]
    below = [int(place) for place in places]
    parted = np.partition(flat, sorted({at for low in below for at in (low, min(low + 1, last))}))
    found = []
    for place, low in zip(places, below, strict=True):
        lower, upper, along = parted[low], parted[min(low + 1, last)], place - low
        found.append(lower + (upper - lower) * along if along < 0.5 else upper - (upper - lower) * (1 - along))
    return found
