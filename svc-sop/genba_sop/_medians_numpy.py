"""The same as ``_medians_numba`` where numba is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


def exchanged(rows: Rows, pairs: Ints, ranks: Ints) -> Rows:
    """As ``_medians_numba.exchanged``."""
    sorting = list(rows.copy())
    spare = np.empty_like(sorting[0])
    for low, high in pairs.tolist():
        one, other = sorting[low], sorting[high]
        np.minimum(one, other, out=spare)
        np.maximum(one, other, out=other)
        sorting[low], spare = spare, one
    return np.stack([sorting[rank] for rank in ranks])
