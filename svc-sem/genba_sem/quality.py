"""How far a view can be trusted: numbers by image processing, a score and named reasons. Knows nothing of labels.

Measures are taken at one size, so that a picture's resolution does not pass for its focus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from genba_sem.micrograph import View
from genba_sem.percentiles import percentile, percentiles
from genba_sem.segment import Outline

Pixels = npt.NDArray[np.float32]

_SIDE_PX: Final = 256
_CHARGED_JUMP: Final = 0.03

#: reason → (measure, value at which the score is 1, value at which it is 0)
_RAMPS: Final = {
    "blurred": ("focus", 0.35, 0.08),
    "flat": ("contrast", 0.10, 0.02),
    "noisy": ("noise", 0.06, 0.25),
    "saturated": ("saturation", 0.05, 0.5),
    "charging": ("charging", 0.25, 0.9),
    "outline_cut": ("border_share", 0.03, 0.4),
    "banner_large": ("banner_share", 0.2, 0.6),
}
_FLOORS: Final = {"outline_cut": 0.35, "noisy": 0.3, "charging": 0.4, "saturated": 0.3, "banner_large": 0.5}
_EMPTY_STD: Final = 0.004


@dataclass(frozen=True)
class Quality:
    """score: [0, 1], 0 for a view without content. reasons: what lowers it, worst first.

    focus: share of the picture's detail that a blur takes away. contrast: 5th to 95th percentile. noise: standard deviation
    of the finest grain. saturation: share of pixels at either end. charging: bright streaks along the scan lines.
    """

    score: float
    reasons: tuple[str, ...]
    focus: float
    contrast: float
    noise: float
    saturation: float
    charging: float
    border_share: float
    banner_share: float


def judge(view: View, outline: Outline) -> Quality:
    """Judge a view by its pixels and its outline; an outline that was not found does not count against it."""
    small = _at_one_size(view.pixels)
    height, _ = view.file_size_px
    low, high = percentiles(small, 5, 95)
    measured = {
        "focus": _focus(small),
        "contrast": high - low,
        "noise": _noise(small),
        "saturation": float(((small <= 0.002) | (small >= 0.998)).mean()),
        "charging": _charging(small),
        "border_share": outline.border_share if outline.found else 0.0,
        "banner_share": view.banner_rows / max(1, height + view.banner_rows),
    }
    if float(small.std()) < _EMPTY_STD:
        return Quality(0.0, ("empty",), **measured)
    factors = {reason: _factor(reason, measured[name]) for reason, (name, _, _) in _RAMPS.items()}
    score = float(np.prod(list(factors.values())))
    reasons = sorted(
        (reason for reason, factor in factors.items() if factor < 0.75), key=lambda reason: factors[reason]
    )
    return Quality(score, tuple(reasons), **measured)


def _factor(reason: str, value: float) -> float:
    _, good, bad = _RAMPS[reason]
    share = float(np.clip((value - bad) / (good - bad), 0, 1))
    floor = _FLOORS.get(reason, 0.05)
    return floor + (1 - floor) * share


def _at_one_size(pixels: Pixels) -> Pixels:
    scale = _SIDE_PX / max(pixels.shape)
    if scale >= 1:
        return pixels
    size = (max(8, round(pixels.shape[1] * scale)), max(8, round(pixels.shape[0] * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.float32)


def _focus(pixels: Pixels) -> float:
    """Re-blur test (Crete et al. 2007): the share of neighbouring differences that a further blur destroys."""
    calm = cv2.GaussianBlur(pixels, (0, 0), 0.8)  # grain is no focus
    shares = []
    for axis in (0, 1):
        kernel = np.full((9, 1) if axis == 0 else (1, 9), 1 / 9, np.float32)
        sharp = np.abs(np.diff(calm, axis=axis))
        soft = np.abs(np.diff(cv2.filter2D(calm, -1, kernel), axis=axis))
        strong = sharp >= percentile(sharp, 90)  # edges decide; a large empty ground must not
        total = float(sharp[strong].sum())
        shares.append(float(np.maximum(sharp - soft, 0)[strong].sum()) / total if total > 0 else 0.0)
    return max(shares)


def _noise(pixels: Pixels) -> float:
    """Immerkær's estimate: a Laplacian difference that a plane and an edge do not answer to."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    answer = cv2.filter2D(pixels, -1, kernel)[1:-1, 1:-1]
    return float(np.median(np.abs(answer)) / 0.6745 / 6)


def _charging(pixels: Pixels) -> float:
    """Streaks along the scan: how much more whole rows jump than whole columns do, second differences of their means."""
    rows, columns = (np.abs(np.diff(pixels.mean(axis), n=2)) for axis in (1, 0))
    excess = percentile(rows, 80) - 1.5 * percentile(columns, 80)
    return float(np.clip(excess / _CHARGED_JUMP, 0, 1))
