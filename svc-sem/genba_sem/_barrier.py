"""The minimum barrier distance from the border, compiled: four raster passes are enough for pictures of one particle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit


def _python_sweep(grey: Any, distance: Any, highest: Any, lowest: Any, step: int) -> None:
    height, width = grey.shape
    for row in range(height):
        y = row if step > 0 else height - 1 - row
        for column in range(width):
            x = column if step > 0 else width - 1 - column
            for side in range(2):
                other_y, other_x = (y - step, x) if side == 0 else (y, x - step)
                if not (0 <= other_y < height and 0 <= other_x < width):
                    continue
                high = max(highest[other_y, other_x], grey[y, x])
                low = min(lowest[other_y, other_x], grey[y, x])
                if high - low < distance[y, x]:
                    distance[y, x], highest[y, x], lowest[y, x] = high - low, high, low


_sweep: Callable[..., None] = njit(cache=True, nogil=True)(_python_sweep)


def minimum_barrier(
    grey: npt.NDArray[np.float32], ground: npt.NDArray[np.bool_], *, passes: int = 4
) -> npt.NDArray[np.float32]:
    """(h, w): the least range of grey on any path from a pixel to the ground (approximated by raster passes)."""
    distance = np.full(grey.shape, np.inf, np.float32)
    distance[ground] = 0
    highest, lowest = grey.copy(), grey.copy()
    for index in range(passes):
        _sweep(grey, distance, highest, lowest, 1 if index % 2 == 0 else -1)
    return distance
