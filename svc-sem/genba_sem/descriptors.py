"""What a view looks like, as numbers without any learnt weights: gradients, outline, polar spectrum, LBP, GLCM and 49 shape figures.

The particle is cut out by its mask, scaled to one size and equalised, so that neither its place nor the exposure counts. Gradient
grids are split into a part that a mirror leaves alone and the size of the rest: a particle has no left and right. Pixels and mask
in, one raw row out; ``BLOCKS`` names its parts. What the row means is for ``encoders.py`` to fit.
"""

from __future__ import annotations

import functools
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from skimage.feature import graycomatrix

from genba_sem._patterns import uniform_patterns
from genba_sem.percentiles import percentiles
from genba_sem.perimeter import crofton_perimeter

Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Row = npt.NDArray[np.float32]

_CROP_PX: Final = 64
_MARGIN: Final = 1.12
_FINE: Final = (8, 9)  # pixels a cell, orientations
_COARSE: Final = (16, 12)
_POLAR_ANGLES: Final = 64
_POLAR_RADII: Final = 16
_POLAR_ORDERS: Final = 10
_LEVELS: Final = 16
_FOURIER: Final = 16
_LBP: Final = 10 + 18
_GLCM: Final = 5 * 3 * 2
_SHAPE: Final = 49


def _laid_out(*sizes: tuple[str, int]) -> dict[str, slice]:
    blocks, at = {}, 0
    for name, size in sizes:
        blocks[name] = slice(at, at + size)
        at += size
    return blocks


def _grid_size(cell_px: int, bins: int) -> int:
    return 2 * (_CROP_PX // cell_px) ** 2 * bins


BLOCKS: Final = _laid_out(
    ("fine", _grid_size(*_FINE)),
    ("coarse", _grid_size(*_COARSE)),
    ("outline", _grid_size(*_COARSE)),
    ("polar", 2 * _POLAR_RADII * _POLAR_ORDERS),
    ("lbp", _LBP),
    ("glcm", _GLCM),
    ("shape", _SHAPE),
)
DIM: Final = BLOCKS["shape"].stop


def describe(pixels: Pixels, mask: Mask) -> Row:
    """(DIM,) float32 of one view.

    pixels: (H, W) in [0, 1]; mask: (H, W), the whole picture is meant where it is empty.
    """
    if not mask.any():
        mask = np.ones_like(mask)
    crop, inside = cut_out(pixels, mask)
    masked = np.where(inside, crop, 0.0).astype(np.float32)
    grey = _gradients(masked)
    edge = _gradients(cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 1.0))
    parts = {
        "fine": _mirrored(_fine_grid(*grey)),
        "coarse": _mirrored(_coarse_grid(*grey)),
        "outline": _mirrored(_coarse_grid(*edge)),
        "polar": _polar(masked, inside),
        "lbp": _lbp(crop, inside),
        "glcm": _glcm(crop, inside),
        "shape": shape_row(mask),
    }
    return np.concatenate([parts[name] for name in BLOCKS]).astype(np.float32)


def cut_out(pixels: Pixels, mask: Mask, *, side_px: int = _CROP_PX) -> tuple[Pixels, Mask]:
    """The particle in the middle of a square, (side, side) pixels and mask; its grey spread to mean .5, deviation .2."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    middle_y, middle_x = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
    side = max(rows[-1] - rows[0], columns[-1] - columns[0], 4) * _MARGIN
    scale = side_px / side
    move = np.array(
        [[scale, 0, side_px / 2 - 0.5 - middle_x * scale], [0, scale, side_px / 2 - 0.5 - middle_y * scale]], np.float32
    )
    calm = cv2.GaussianBlur(pixels, (0, 0), 0.4 / scale) if scale < 0.8 else pixels
    crop = cv2.warpAffine(calm, move, (side_px, side_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(mask.astype(np.float32), move, (side_px, side_px), flags=cv2.INTER_LINEAR) > 0.5
    if not inside.any():
        inside = np.ones_like(inside)
    values = crop[inside]
    return np.clip(0.5 + 0.2 * (crop - values.mean()) / max(float(values.std()), 1e-3), 0, 1).astype(np.float32), inside


def _gradients(crop: Pixels) -> tuple[Pixels, Pixels]:
    """Strength and direction in [0, π), each (side, side)."""
    across, down = cv2.Sobel(crop, cv2.CV_32F, 1, 0, ksize=1), cv2.Sobel(crop, cv2.CV_32F, 0, 1, ksize=1)
    return np.hypot(across, down), np.mod(np.arctan2(down, across), np.pi)


def _fine_grid(strength: Pixels, direction: Pixels) -> Row:
    """(8, 8, 9): histograms of oriented gradients, each cell normalised by its four neighbourhoods (Felzenszwalb et al. 2010)."""
    cell_px, bins = _FINE
    place = direction * (bins / np.pi) - 0.5
    low = np.floor(place).astype(np.int64)
    share = place - low
    side = strength.shape[0] // cell_px
    row = np.arange(strength.shape[0]) // cell_px
    cell, size = (row[:, None] * side + row) * bins, side * side * bins
    sums = np.bincount((cell + low % bins).ravel(), (strength * (1 - share)).ravel(), size)
    sums += np.bincount((cell + (low + 1) % bins).ravel(), (strength * share).ravel(), size)
    grid = sums.reshape(side, side, bins)
    energy = np.pad(np.square(grid).sum(-1), 1, mode="edge")
    around = energy[:-1, :-1] + energy[1:, :-1] + energy[:-1, 1:] + energy[1:, 1:]  # (side + 1, side + 1)
    corners = [around[dy : dy + side, dx : dx + side, None] for dy in (0, 1) for dx in (0, 1)]
    return np.asarray(
        np.mean([np.minimum(grid / np.sqrt(corner + 1e-2), 0.2) for corner in corners], axis=0), np.float32
    )


def _coarse_grid(strength: Pixels, direction: Pixels) -> Row:
    """(4, 4, 12): where gradients of each direction lie, blurred, so that parts may move; square root, unit length."""
    cell_px, bins = _COARSE
    size = strength.shape[0]
    which = np.floor(direction * (bins / np.pi)).astype(np.int64) % bins
    planes = np.zeros((bins, size * size), np.float32)
    planes[which.ravel(), np.arange(size * size)] = strength.ravel()
    pool = _blurred_cells(size, cell_px)  # (side, size)
    pooled = pool @ (planes.reshape(-1, size) @ pool.T).reshape(bins, size, -1)  # (bins, side, side)
    grid = np.sqrt(pooled.transpose(1, 2, 0))
    return np.asarray(grid / max(float(np.linalg.norm(grid)), 1e-6), np.float32)


@functools.lru_cache(maxsize=2)
def _blurred_cells(size: int, cell_px: int) -> Pixels:
    """(size / cell, size): blurs a column of pixels and takes the means of its cells."""
    spread = cv2.GaussianBlur(np.eye(size), (0, 0), cell_px / 2.5, sigmaY=1e-9)  # along the rows alone
    return np.asarray(spread.reshape(size, -1, cell_px).mean(2).T, np.float32)


def _mirrored(grid: Row) -> Row:
    """(2 · n,): the mean of a grid (side, side, bins) and its mirror image, and the size of their difference."""
    mirror = grid[:, ::-1, ::-1]  # a direction of angle a lies at π − a in the mirror
    return np.concatenate([((grid + mirror) / 2).ravel(), (np.abs(grid - mirror) / 2).ravel()])


def _polar(masked: Pixels, inside: Mask) -> Row:
    """(320,): spectra along the angle at every radius, of grey and of the outline: a turn changes nothing."""
    middle = (_CROP_PX - 1) / 2
    size, radius = (_POLAR_RADII, _POLAR_ANGLES), _CROP_PX * 0.53
    unrolled = [
        cv2.warpPolar(picture, size, (middle, middle), radius, cv2.WARP_POLAR_LINEAR)
        for picture in (masked, inside.astype(np.float32))
    ]
    spectrum = np.abs(np.fft.rfft(np.concatenate(unrolled, axis=1), axis=0))[:_POLAR_ORDERS]
    return np.asarray(np.log1p(spectrum).ravel(), np.float32)


def _lbp(crop: Pixels, inside: Mask) -> Row:
    """(28,) rotation-invariant uniform patterns at radius 1 (8 points) and 2 (16), inside the outline."""
    grey = (crop * 255).astype(np.uint8)
    parts = []
    for radius, points in ((1, 8), (2, 16)):
        codes = uniform_patterns(grey, points, radius)[inside]
        parts.append(np.sqrt(np.bincount(codes, minlength=points + 2) / max(1, codes.size)))
    return np.concatenate(parts).astype(np.float32)


def _glcm(crop: Pixels, inside: Mask) -> Row:
    """(30,) Haralick's properties at distances 1, 2, 4: mean and range over four directions, pairs inside the outline only."""
    levels = np.where(inside, np.minimum((crop * _LEVELS).astype(np.uint8), _LEVELS - 1) + 1, 0).astype(np.uint8)
    counts = graycomatrix(levels, [1, 2, 4], [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4], _LEVELS + 1, symmetric=True)
    pairs = counts[1:, 1:].reshape(_LEVELS**2, -1).astype(np.float64)  # (256, 12); level 0 is outside
    pairs /= np.maximum(pairs.sum(0), 1)
    weights, (first, second) = _pair_weights()
    contrast, dissimilarity, homogeneity = weights @ pairs
    off_first, off_second = first - first[:, 0] @ pairs, second - second[:, 0] @ pairs  # (256, 12)
    spreads = np.sqrt((pairs * off_first**2).sum(0)), np.sqrt((pairs * off_second**2).sum(0))
    one_level = (spreads[0] < 1e-15) | (spreads[1] < 1e-15)
    covariance = (pairs * off_first * off_second).sum(0)
    correlation = np.where(one_level, 1, covariance / np.where(one_level, 1, spreads[0] * spreads[1]))
    parts = []
    for values in (contrast, homogeneity, np.sqrt((pairs**2).sum(0)), correlation, dissimilarity):
        by_distance = values.reshape(3, 4)
        parts += [by_distance.mean(1), np.ptp(by_distance, axis=1)]
    return np.concatenate(parts).astype(np.float32)


@functools.cache
def _pair_weights() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(3, 256) what contrast, dissimilarity and homogeneity make of a pair of levels; (2, 256, 1) the pair's levels."""
    levels = np.indices((_LEVELS, _LEVELS)).reshape(2, -1, 1).astype(np.float64)
    apart = np.abs(levels[0, :, 0] - levels[1, :, 0])
    return np.stack([apart**2, apart, 1 / (1 + apart**2)]), levels


def shape_row(mask: Mask) -> Row:
    """(49,) of an outline: 10 ratios, 7 Hu moments, 16 Fourier and 8 radial figures, 8 of holes, hull and symmetry."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=len)
    if len(outline) < 8:
        return np.zeros(_SHAPE, np.float32)
    row = np.concatenate([_ratios(mask, outline), _moments(mask), _fourier(outline), _radial(outline), _symmetry(mask)])
    return np.asarray(np.nan_to_num(row), np.float32)


def _ratios(mask: Mask, outline: npt.NDArray[np.int32]) -> Row:
    area = float(mask.sum())
    hull = cv2.convexHull(outline)
    hull_area = max(cv2.contourArea(hull), 1.0)
    (_, (width, height), _), (_, radius) = cv2.minAreaRect(outline), cv2.minEnclosingCircle(outline)
    long_side, short_side = max(width, height, 1.0), max(min(width, height), 1.0)
    perimeter = max(crofton_perimeter(mask), 1.0)
    hull_perimeter = cv2.arcLength(hull, closed=True)
    inner = float(cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5).max())
    _, axes, _ = cv2.fitEllipse(outline)
    return np.array(
        [
            short_side / long_side,
            min(axes) / max(*axes, 1e-6),
            min(1.0, area / hull_area),
            min(1.0, 4 * np.pi * area / perimeter**2),
            hull_perimeter / perimeter,
            area / (long_side * short_side),
            area / (np.pi * radius**2),
            inner / max(radius, 1.0),
            2 * np.sqrt(area / np.pi) / long_side,
            np.pi * inner**2 / area,
        ]
    )


def _moments(mask: Mask) -> Row:
    values = cv2.HuMoments(cv2.moments(mask.astype(np.uint8), binaryImage=True)).ravel()
    return np.asarray(-np.sign(values) * np.log10(np.abs(values) + 1e-12) / 10)


def _fourier(outline: npt.NDArray[np.int32]) -> Row:
    """Magnitudes of the elliptic Fourier descriptors, scaled by the first: neither turn nor starting point counts."""
    points = outline[:, 0].astype(np.float64)
    at = np.linspace(0, len(points), 128, endpoint=False)
    z = np.interp(at, np.arange(len(points)), points[:, 0]) + 1j * np.interp(at, np.arange(len(points)), points[:, 1])
    spectrum = np.abs(np.fft.fft(z - z.mean()))
    scale = max(spectrum[1], spectrum[-1], 1e-9)
    half = _FOURIER // 2
    return np.asarray(np.sqrt(np.concatenate([spectrum[2 : 2 + half], spectrum[-1 : -1 - half : -1]]) / scale))


def _radial(outline: npt.NDArray[np.int32]) -> Row:
    points = outline[:, 0].astype(np.float64)
    radius = np.hypot(*(points - points.mean(0)).T)
    radius /= max(radius.mean(), 1e-9)
    steps = np.abs(np.diff(np.concatenate([radius, radius[:1]])))
    quantiles = percentiles(radius, 5, 25, 50, 75, 95)
    return np.concatenate([quantiles, [radius.std(), steps.mean(), ((radius[1:] > 1) != (radius[:-1] > 1)).sum() / 20]])


def _symmetry(mask: Mask) -> Row:
    """(8,): overlap with the mirror images and the half turn in the principal frame, hull defects, skewness."""
    crop, _ = _principal(mask)
    size = max(1.0, float(crop.sum()))
    overlaps = [float((crop & other).sum()) / size for other in (crop[::-1], crop[:, ::-1], crop[::-1, ::-1])]
    widths = crop.sum(1) / max(1, crop.shape[1])
    thirds = [float(part.mean()) for part in np.array_split(widths, 3)]
    return np.array([*overlaps, *thirds, abs(thirds[0] - thirds[2]), float(widths.std())])


def _principal(mask: Mask, side_px: int = 48) -> tuple[Mask, float]:
    """The mask turned so that its long axis is upright; (48, 48), and the angle in degrees."""
    moments = cv2.moments(mask.astype(np.uint8), binaryImage=True)
    x, y = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    angle = 0.5 * np.degrees(np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"]))
    points = np.argwhere(mask)
    reach = max(float(np.hypot(points[:, 0] - y, points[:, 1] - x).max()), 1.0)
    turn = cv2.getRotationMatrix2D((x, y), angle - 90, side_px / (2.1 * reach))
    turn[:, 2] += side_px / 2 - np.array([x, y])
    turned = cv2.warpAffine(mask.astype(np.float32), turn, (side_px, side_px)) > 0.5
    return turned, float(angle)
