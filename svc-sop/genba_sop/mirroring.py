"""A video as it would be had the camera not mirrored it, as front cameras do. Features in, features out, no pixels.

motion-hog-v1 is made of grids and directions, so its mirror image is the same numbers in other places. What another encoder would
have said cannot be known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from genba_sop.features import Features
from genba_sop.motion_hog import DIRECTIONS, ENCODER_ID, FLOW_GRID, HOG_GRID, ORIENTATIONS

Ints = npt.NDArray[np.int64]


def _turned(grid: tuple[int, int], channels: Ints) -> Ints:
    """(rows · columns · C,) where each number of a grid comes from: the other side, and ``channels`` within a cell."""
    rows, columns = grid
    at = np.arange(rows * columns * len(channels)).reshape(rows, columns, len(channels))
    return at[:, ::-1][..., channels].ravel()


_FLOW = np.r_[
    (DIRECTIONS // 2 - np.arange(DIRECTIONS)) % DIRECTIONS, DIRECTIONS
]  # half a turn less the direction; and the sum
_HOG = -np.arange(ORIENTATIONS) % ORIENTATIONS  # an edge has no sign
_LOCAL = np.r_[_HOG, ORIENTATIONS + np.arange(3)]  # and the colour
_VALUES = np.r_[_turned(FLOW_GRID, _FLOW), np.prod(FLOW_GRID) * (DIRECTIONS + 1) + _turned(HOG_GRID, _HOG)]


def mirrored(features: Features) -> Features | None:
    """The features of the video's mirror image; None of another encoder than motion-hog-v1."""
    if features.encoder != ENCODER_ID:
        return None
    count, cells, channels = features.local.shape
    local = features.local.reshape(count, cells * channels)[:, _turned(HOG_GRID, _LOCAL)]
    return replace(
        features,
        values=np.ascontiguousarray(features.values[:, _VALUES]),
        local=local.reshape(count, cells, channels),
        pictures=np.ascontiguousarray(features.pictures[:, :, ::-1]),
    )
