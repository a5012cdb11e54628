"""Compiled inner loop of ``sight``. Knows nothing of steps: contiguous pictures in, shares out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from genba_sop._compiled import compiled

Bytes = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]


@compiled
def covered(pictures: Bytes, place: Bytes, recent: Bytes, weight: Singles, floor: float, width: float) -> Singles:
    """(2, k, H, W) how clearly pixels differ from the place, 0 to 1; and the same of the place or ``recent``, whichever is nearer.

    Args: pictures, recent: (k, H, W, 4).   place: (H, W, 4).   weight: (3,) of a channel's squared difference.
    """
    count, pixels = len(pictures), place.size // 4
    mine, here, lately = pictures.reshape(count, pixels, 4), place.reshape(pixels, 4), recent.reshape(count, pixels, 4)
    light, red, blue = weight
    share = np.empty((2, count, pixels), np.float32)
    low, scale = np.float32(floor), np.float32(1 / width)
    nothing = low * low
    for k in range(count):
        for i in range(pixels):
            one, two, three = np.float32(mine[k, i, 0]), np.float32(mine[k, i, 1]), np.float32(mine[k, i, 2])
            x, y, z = one - np.float32(here[i, 0]), two - np.float32(here[i, 1]), three - np.float32(here[i, 2])
            whole = light * x * x + red * y * y + blue * z * z
            if whole <= nothing:  # most pixels show the place
                share[0, k, i] = share[1, k, i] = np.float32(0)
                continue
            x, y, z = (
                one - np.float32(lately[k, i, 0]),
                two - np.float32(lately[k, i, 1]),
                three - np.float32(lately[k, i, 2]),
            )
            near = min(whole, light * x * x + red * y * y + blue * z * z)
            share[0, k, i] = min(max((np.sqrt(whole) - low) * scale, np.float32(0)), np.float32(1))
            share[1, k, i] = min(max((np.sqrt(near) - low) * scale, np.float32(0)), np.float32(1))
    return share.reshape(2, *pictures.shape[:3])
