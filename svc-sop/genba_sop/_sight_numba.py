"""Compiled inner loop of ``sight``. Knows nothing of steps: contiguous pictures in, shares out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from genba_sop._compiled import compiled

Bytes = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@compiled
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
    """Write for ``which`` (k,) of the pictures how clearly pixels differ from the place, 0 to 1; and the same of the place or the
    recent one ``around`` (k,), whichever is nearer.

    Args: share: (2, P, H, W) to be written.   pictures: (P, H, W, 4).   place: (H, W, 4).   recent: (R, H, W, 4).
        weight: (3,) of a channel's squared difference.
    """
    count, pixels = len(pictures), place.size // 4
    mine, here, lately = pictures.reshape(count, -1), place.ravel(), recent.reshape(len(recent), -1)
    found = share.reshape(2, count, pixels)
    light, red, blue = weight
    low, scale = np.float32(floor), np.float32(1 / width)
    for k in range(len(which)):
        n, r = which[k], around[k]
        for i in range(pixels):  # without branches, and by one index: only then are several pixels done at once
            at = 4 * i
            one, two, three = np.float32(mine[n, at]), np.float32(mine[n, at + 1]), np.float32(mine[n, at + 2])
            x, y, z = one - np.float32(here[at]), two - np.float32(here[at + 1]), three - np.float32(here[at + 2])
            whole = light * x * x + red * y * y + blue * z * z
            x, y, z = (
                one - np.float32(lately[r, at]),
                two - np.float32(lately[r, at + 1]),
                three - np.float32(lately[r, at + 2]),
            )
            near = light * x * x + red * y * y + blue * z * z
            found[0, n, i] = _clipped((np.sqrt(whole) - low) * scale)
            found[1, n, i] = _clipped((np.sqrt(min(near, whole)) - low) * scale)


@compiled
def averaged(share: Singles, which: Ints) -> Singles:
    """(2, H, W) mean over some of the pictures, ``which`` (k,), of (2, P, H, W)."""
    kinds, count, height, width = share.shape
    rows, total = share.reshape(kinds, count, height * width), np.zeros((kinds, height * width), np.float32)
    for kind in range(kinds):
        out = total[kind]
        for n in which:
            row = rows[kind, n]
            for p in range(len(out)):
                out[p] += row[p]
        out /= np.float32(len(which))
    return total.reshape(kinds, height, width)


@compiled
def _clipped(share: np.float32) -> np.float32:
    above = max(np.float32(0), share)
    return min(np.float32(1), above)
