"""The same as ``_sight_numba`` where numba is missing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def covered(
    share: Singles,
    pictures: Bytes,
    which: Ints,
    place: Bytes,
    recent: Bytes,
    around: Ints,
    weight: Singles,
    floor: float,
    width: float,
) -> None:
    """As ``_sight_numba.covered``."""
    whole, near = (
        np.square(np.subtract(pictures[which], other, dtype=np.float32)[..., :3]) @ weight
        for other in (place, recent[around])
    )
    distance = np.sqrt(np.stack([whole, np.minimum(whole, near)]))
    share[:, which] = np.clip((distance - floor) / width, 0, 1)


def averaged(share: Singles, which: Ints) -> Singles:
    """As ``_sight_numba.averaged``."""
    return np.asarray(share[:, which].mean(axis=1), np.float32)
