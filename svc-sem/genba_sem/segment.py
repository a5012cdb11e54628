"""Find the particle in a picture: which pixels are its own, and whether its outline is whole. Knows nothing of files or labels.

The border of a picture of one particle is mostly background. A pixel is the particle's where every path to the border crosses
a step in grey (minimum barrier distance, Zhang et al. 2015) and where its grey differs from a smooth background fitted to the
border; Otsu's threshold divides the two, GrabCut sharpens the edge, holes are filled. A user's click says which piece is meant.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from genba_sem._barrier import minimum_barrier
from genba_sem.percentiles import median, percentiles

Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_WORK_SIDE_PX: Final = 128  # finding is done small; measuring is done at the picture's own size
_MEASURE_SIDE_PX: Final = (
    1024  # larger masks get steps, which lengthen a perimeter by up to a seventh: micrograph gives none
)
_BORDER_PX: Final = 5
_BORDER_BAND: Final = np.ones((2 * _BORDER_PX - 1,) * 2, np.uint8)
_LEAST_SHARE: Final = 0.003
_CUT_GREY: Final = 25.0  # grey levels off the background, at least
_CUT_RANGE: Final = 0.6  # of the picture's range: a table's edge or a second ground is less
_CUT_RUN: Final = 0.08  # of the longer side
_MOST_CUT: Final = 0.4  # of the border
_CUT_SHARE: Final = 0.02  # of the outline on the picture's edge


@dataclass(frozen=True)
class Outline:
    """mask: (H, W), all False where nothing was found. border_share: share of the outline's pixels on the picture's edge.

    how: ``automatic``, ``click`` or ``given``.
    """

    mask: Mask
    border_share: float
    how: str

    @property
    def found(self) -> bool:
        return bool(self.mask.any())

    @property
    def complete(self) -> bool:
        """Whether the whole outline lies inside the picture."""
        return self.found and self.border_share <= _CUT_SHARE


def find_particle(pixels: Pixels, *, click: tuple[float, float] | None = None) -> Outline:
    """Find one particle.

    pixels: (H, W) in [0, 1]. click: (x, y) in pixels on the particle; without it the largest piece near the middle is taken.
    Raises: ValueError for a click outside the picture.
    """
    height, width = pixels.shape
    if click is not None and not (0 <= click[0] < width and 0 <= click[1] < height):
        raise ValueError(f"The click {click} lies outside the {width}×{height} picture.")
    scale = min(1.0, _WORK_SIDE_PX / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    seed = None if click is None else (click[0] * size[0] / width, click[1] * size[1] / height)
    mask = _piece(_sharpened(small, *_foreground(small)), seed)
    if scale < 1:
        mask = _refined(pixels, mask)
    return outline_of(mask, how="automatic" if click is None else "click")


def outline_of(mask: Mask, *, how: str = "given") -> Outline:
    """Wrap a mask; (H, W) bool."""
    edge = np.zeros_like(mask)
    edge[0], edge[-1], edge[:, 0], edge[:, -1] = True, True, True, True
    rim = mask & ~ndimage.binary_erosion(mask, border_value=0)
    return Outline(mask, float((rim & edge).sum() / max(1, rim.sum())), how)


def _foreground(small: Pixels) -> tuple[Pixels, Mask]:
    """(h, w) in [0, 255]: how far a pixel stands out from the border's background; (h, w): border pixels that are background."""
    smooth = cv2.GaussianBlur(small * 255, (0, 0), 1.0)
    ground = _ground_border(smooth)
    off_background = np.abs(smooth - _background(smooth, ground, terms=6))
    barrier = minimum_barrier(smooth, ground)
    standing_out = 2 * np.sqrt(np.minimum(off_background, 80) * np.minimum(barrier, 80))
    return np.asarray(np.clip(standing_out, 0, 255), np.float32), ground


def _ground_border(smooth: Pixels) -> Mask:
    """The border without the runs where a particle reaches it: long, well off a plane through the rest, not most of the border."""
    border = np.zeros(smooth.shape, bool)
    border[0], border[-1], border[:, 0], border[:, -1] = True, True, True, True
    off_plane = np.abs(smooth - _background(smooth, border, terms=3))
    low, high = percentiles(smooth, 1, 99)
    limit = max(_CUT_GREY, _CUT_RANGE * (high - low), 6 * 1.48 * median(off_plane[border]))
    pieces, count = ndimage.label(border & (off_plane > limit), np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    long_enough = sizes >= _CUT_RUN * max(smooth.shape)
    long_enough[0] = False
    taken = long_enough[pieces]
    return border & ~taken if taken.sum() <= _MOST_CUT * border.sum() else border


def _background(smooth: Pixels, ground: Mask, *, terms: int) -> Pixels:
    """(h, w): a plane (3 terms) or quadratic surface (6) through the ground's border, outliers weighed down."""
    height, width = smooth.shape
    basis = _surfaces(height, width, terms)
    band = cv2.dilate(ground.view(np.uint8), _BORDER_BAND) > 0
    band[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = False
    design, values = basis[band], smooth[band].astype(np.float64)
    surface = np.zeros(terms)
    surface[0] = median(values)
    for _ in range(5):
        residual = np.abs(values - design @ surface)
        weights = 1 / (1 + (residual / (2 * (1.48 * median(residual) + 1))) ** 2)
        weighted = design * np.square(weights)[:, None]
        surface = np.linalg.solve(weighted.T @ design + 1e-6 * np.eye(terms), weighted.T @ values)
    return np.asarray(basis @ surface, np.float32)


@functools.lru_cache(maxsize=16)  # a batch's pictures are of few sizes
def _surfaces(height: int, width: int, terms: int) -> npt.NDArray[np.float64]:
    """(h, w, terms): 1, x, y, xy, x², y² over [−1, 1]², the first of them."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.stack([np.ones_like(x), x, y, x * y, x * x, y * y][:terms], axis=-1)


def _sharpened(small: Pixels, standing_out: Pixels, ground: Mask) -> Mask:
    level, _ = cv2.threshold(standing_out.astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    rough = _piece(standing_out > level, None)
    core = cv2.erode(rough.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    if core.sum() < 10:
        return rough
    grey = (small * 255).astype(np.uint8)
    squares = cv2.GaussianBlur(np.square(small), (0, 0), 2) - np.square(cv2.GaussianBlur(small, (0, 0), 2))
    texture = np.clip(np.sqrt(np.maximum(squares, 0)) * 1500, 0, 255).astype(np.uint8)
    features = np.dstack([grey, texture, np.clip(1.5 * standing_out, 0, 255).astype(np.uint8)])
    labels = np.where(rough, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[cv2.dilate(ground.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0] = cv2.GC_BGD
    labels[core] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # GrabCut draws its mixtures' seeds
    try:
        cv2.grabCut(features, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # too few pixels of a kind for a mixture
        return rough
    return np.asarray((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))


def _piece(mask: Mask, seed: tuple[float, float] | None) -> Mask:
    """The filled piece at (x, y), or the one with most weight around the middle."""
    filled = ndimage.binary_fill_holes(mask)
    opened = cv2.morphologyEx(filled.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(opened)
    if count < 2:
        return np.zeros(mask.shape, bool)
    height, width = mask.shape
    if seed is not None:
        y, x = np.mgrid[:height, :width]
        distance = np.hypot(x - seed[0], y - seed[1])
        nearest = ndimage.minimum(distance, pieces, np.arange(1, count))
        return np.asarray(pieces == 1 + int(np.argmin(nearest)))
    best = 1 + int(np.bincount(pieces.ravel(), _in_the_middle(height, width).ravel())[1:].argmax())
    return (
        np.asarray(pieces == best)
        if stats[best, cv2.CC_STAT_AREA] >= _LEAST_SHARE * mask.size
        else np.zeros(mask.shape, bool)
    )


@functools.lru_cache(maxsize=4)
def _in_the_middle(height: int, width: int) -> npt.NDArray[np.float64]:
    """(h, w): 1 in the middle, falling off towards the border."""
    y, x = np.mgrid[:height, :width]
    return np.asarray(np.exp(-np.square((y - height / 2) / (height / 3)) - np.square((x - width / 2) / (width / 3))))


def _refined(pixels: Pixels, small: Mask) -> Mask:
    """The small mask at the picture's size, its edge moved to the grey level halfway between inside and outside."""
    height, width = pixels.shape
    scale = min(1.0, _MEASURE_SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = cv2.GaussianBlur(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), (0, 0), 1.0)
    rough = cv2.resize(small.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    band_px = 2 * max(2, round(max(size) / max(small.shape)))
    refined = rough
    for reach_px in (band_px, max(2, band_px // 2)):  # the second look starts from a better outline: thin parts need it
        refined = _at_half_height(picture, refined, reach_px)
    if not 0.5 < refined.sum() / max(1, rough.sum()) < 1.6:
        refined = rough
    return np.asarray(cv2.resize(refined.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0)


def _at_half_height(picture: Pixels, rough: Mask, band_px: int) -> Mask:
    """The outline where the grey is halfway between the local means inside and outside, within a band around the rough one."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * band_px + 1,) * 2)
    wide, core = cv2.dilate(rough.astype(np.uint8), kernel) > 0, cv2.erode(rough.astype(np.uint8), kernel) > 0
    inner, outer = rough & ~core, wide & ~rough
    if not inner.any() or not outer.any():
        return rough
    reach = (4 * band_px + 1,) * 2  # local means, so that shading along the outline does not bend it
    inside, outside = _local_mean(picture, inner, reach), _local_mean(picture, outer, reach)
    near_inside = np.abs(picture - inside) < np.abs(picture - outside)
    clear = np.abs(inside - outside) > 0.04
    refined = _piece(core | np.where(clear, wide & ~core & near_inside, rough), None)
    return refined if refined.any() else rough


def _local_mean(picture: Pixels, where: Mask, reach: tuple[int, int]) -> Pixels:
    weight = where.astype(np.float32)
    total, share = cv2.blur(picture * weight, reach), cv2.blur(weight, reach)
    return np.asarray(np.where(share > 1e-4, total / np.maximum(share, 1e-4), picture[where].mean()), np.float32)
