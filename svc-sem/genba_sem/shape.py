"""Size and shape of a particle from its outline (ISO 9276-6), and the sizes of many. Masks in, numbers out.

Circularity is the form factor 4πA/P², with Crofton's perimeter (plain pixel perimeters give perfect discs .91 to 1.12), clipped
at 1. Below ``LEAST_PX`` across no shape is given: a pixel more or less would change it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from genba_sem.perimeter import crofton_perimeter
from genba_sem.segment import Mask, Outline

LEAST_PX: Final = 20
_DIRECTIONS: Final = np.stack(
    [np.cos(np.deg2rad(np.arange(180))), np.sin(np.deg2rad(np.arange(180)))]
)  # a degree apart


@dataclass(frozen=True)
class Shape:
    """Lengths in pixels, or in µm after ``in_um``; ratios in [0, 1].

    feret_max, feret_min: largest and smallest distance between parallel tangents. equivalent_diameter: of the disc of the
    same area. circularity: 4πA/P² (form factor). aspect_ratio: feret_min / feret_max. solidity: area / convex area.
    """

    area: float
    perimeter: float
    equivalent_diameter: float
    feret_max: float
    feret_min: float
    circularity: float
    aspect_ratio: float
    solidity: float
    unit: str = "px"

    def in_um(self, pixel_size_nm: float) -> Shape:
        """The same in micrometres."""
        return replace(self.times(pixel_size_nm / 1000), unit="µm")

    def times(self, factor: float) -> Shape:
        """The same, so much larger."""
        return replace(
            self,
            area=self.area * factor * factor,
            perimeter=self.perimeter * factor,
            equivalent_diameter=self.equivalent_diameter * factor,
            feret_max=self.feret_max * factor,
            feret_min=self.feret_min * factor,
        )


@dataclass(frozen=True)
class Sizes:
    """D10, D50 and D90 by number of the particles counted, in the unit given; left_out: covered or cut, so not counted."""

    d10: float
    d50: float
    d90: float
    counted: int
    left_out: int


def measure(outline: Outline) -> Shape | None:
    """Measure an outline; None where none was found, it is cut by the border, or it is under ``LEAST_PX`` across."""
    return shape_of(outline.mask) if outline.complete else None


def shape_of(mask: Mask) -> Shape | None:
    """Measure a mask (H, W); None under ``LEAST_PX`` across."""
    area = float(mask.sum())
    if area == 0:
        return None
    hull = _hull(mask)
    longest, shortest = _feret(hull)
    if shortest < LEAST_PX:
        return None
    perimeter = crofton_perimeter(mask)
    return Shape(
        area,
        perimeter,
        2 * math.sqrt(area / math.pi),
        longest,
        shortest,
        min(1.0, 4 * math.pi * area / perimeter**2),
        shortest / longest,
        min(1.0, area / _convex_area(mask, hull)),
    )


def size_distribution(diameters: Sequence[float], covered: Sequence[bool]) -> Sizes | None:
    """Percentiles of whole particles; covered ones show a part only and would pull the median down (−14 % measured).

    None where nothing is left. Raises: ValueError for lists of different lengths.
    """
    if len(diameters) != len(covered):
        raise ValueError("There must be one flag for each diameter.")
    whole = [diameter for diameter, hidden in zip(diameters, covered, strict=True) if not hidden]
    if not whole:
        return None
    d10, d50, d90 = (float(value) for value in np.percentile(whole, (10, 50, 90)))
    return Sizes(d10, d50, d90, len(whole), len(diameters) - len(whole))


def _hull(mask: Mask) -> npt.NDArray[np.int32]:
    """(n, 1, 2) convex hull of the pixels' centres."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.convexHull(np.concatenate(contours)), np.int32)


def _convex_area(mask: Mask, hull: npt.NDArray[np.int32]) -> float:
    return float(cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), hull, 1).sum())


def _feret(hull: npt.NDArray[np.int32]) -> tuple[float, float]:
    """Largest and smallest extent over directions a degree apart; a pixel is one wide, so centres lack half at each end."""
    along = hull[:, 0].astype(np.float64) @ _DIRECTIONS  # (n, 180)
    extents = np.ptp(along, axis=0) + 1
    return float(extents.max()), float(extents.min())
