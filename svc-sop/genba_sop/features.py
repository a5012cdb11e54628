"""What is kept of a video once its pixels are gone: one row of features per sampled frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from genba_sop.scene import CHANNELS, HEIGHT, WIDTH

Array = npt.NDArray[np.float32]


def no_pictures() -> npt.NDArray[np.uint8]:
    """(0, 60, 80, 4)."""
    return np.zeros((0, HEIGHT, WIDTH, CHANNELS), np.uint8)


@dataclass(frozen=True)
class Features:
    """The features of one video.

    times_s:  (T,) float64, presentation times of the sampled frames, increasing.
    values:   (T, D) float32, rows of unit length; compare only within one ``encoder``.
    local:    (T, 48, L) float32, a 6×8 grid of local appearance, rows of the last axis not normalised; the same for every encoder.
    motion:   (T,) float32, mean optical-flow magnitude in pixels of the 160×120 frame per sampling interval, ≥ 0.
    pictures: (P, 60, 80, 4) uint8, see ``scene.Album``, spread evenly over the T frames; none where nobody kept any.
    """

    encoder: str
    times_s: npt.NDArray[np.float64]
    values: Array
    local: Array
    motion: Array
    duration_s: float
    pictures: npt.NDArray[np.uint8] = field(default_factory=no_pictures)
