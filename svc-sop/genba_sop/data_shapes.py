"""Flat shapes in a world of 640 × 480 units, drawn through one camera. Knows nothing of procedures, hands or time.

A sprite is a tuple of shapes in its own frame: the origin is where a hand grips it, +x points to its working end.
Drawing goes through an affine map from the world to pixels, so a camera that is shifted, zoomed or tilted costs
nothing per frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Colour = tuple[int, int, int]  # blue, green, red: the order of OpenCV
Point = tuple[float, float]

WORLD_WIDTH, WORLD_HEIGHT = 640.0, 480.0
_SUBPIXEL_BITS = 4
_SUBPIXEL = 1 << _SUBPIXEL_BITS


@dataclass(frozen=True)
class Poly:
    """A filled polygon."""

    points: tuple[Point, ...]
    colour: Colour


@dataclass(frozen=True)
class Disc:
    """A filled ellipse, half axes ``rx`` and ``ry``."""

    centre: Point
    rx: float
    ry: float
    colour: Colour


@dataclass(frozen=True)
class Bar:
    """A thick stroke along a polyline."""

    points: tuple[Point, ...]
    width: float
    colour: Colour


Shape = Poly | Disc | Bar
Sprite = tuple[Shape, ...]

_CIRCLE = np.stack(
    [np.cos(np.linspace(0, 2 * np.pi, 20, endpoint=False)), np.sin(np.linspace(0, 2 * np.pi, 20, endpoint=False))], 1
)


def box(x: float, y: float, width: float, height: float, colour: Colour) -> Poly:
    """An upright rectangle whose corner of least x and y is (x, y)."""
    return Poly(((x, y), (x + width, y), (x + width, y + height), (x, y + height)), colour)


def shade(colour: Colour, factor: float) -> Colour:
    """A darker (< 1) or lighter (> 1) tone."""
    b, g, r = (min(255, max(0, round(c * factor))) for c in colour)
    return b, g, r


@dataclass(frozen=True)
class Pose:
    """Where a sprite lies in the world: position, rotation, scale."""

    x: float
    y: float
    angle_rad: float = 0.0
    scale: float = 1.0

    def matrix(self) -> Points:
        """(2, 3) from the sprite's frame to the world."""
        cos, sin = math.cos(self.angle_rad) * self.scale, math.sin(self.angle_rad) * self.scale
        return np.array(((cos, -sin, self.x), (sin, cos, self.y)))


@dataclass(frozen=True)
class Camera:
    """From the world to pixels: pan in world units, zoom ≥ 1 crops, tilt rotates about the middle of the world."""

    width: int
    height: int
    pan_x: float = 0.0
    pan_y: float = 0.0
    zoom: float = 1.0
    tilt_rad: float = 0.0

    def matrix(self) -> Points:
        """(2, 3) from the world to pixels. The picture is filled: the narrower side decides the scale."""
        scale = max(self.width / WORLD_WIDTH, self.height / WORLD_HEIGHT) * self.zoom
        cos, sin = math.cos(self.tilt_rad) * scale, math.sin(self.tilt_rad) * scale
        x, y = WORLD_WIDTH / 2 + self.pan_x, WORLD_HEIGHT / 2 + self.pan_y
        return np.array(
            ((cos, -sin, self.width / 2 - cos * x + sin * y), (sin, cos, self.height / 2 - sin * x - cos * y))
        )


class Canvas:
    """An image being drawn on through a camera."""

    def __init__(self, camera: Camera, image: Image | None = None) -> None:
        self.camera = camera
        self.image: Image = np.zeros((camera.height, camera.width, 3), np.uint8) if image is None else image
        self._matrix = camera.matrix()
        self._scale = float(np.hypot(self._matrix[0, 0], self._matrix[1, 0]))

    def over(self, image: Image) -> Canvas:
        """The same camera on a copy of ``image``."""
        copy = object.__new__(Canvas)
        copy.camera, copy._matrix, copy._scale = self.camera, self._matrix, self._scale
        copy.image = image.copy()
        return copy

    def _pixels(self, points: Points) -> npt.NDArray[np.int32]:
        return np.rint((points @ self._matrix[:, :2].T + self._matrix[:, 2]) * _SUBPIXEL).astype(np.int32)

    def polygon(self, points: Points, colour: Colour) -> None:
        """A filled polygon; points (n, 2) in the world."""
        cv2.fillPoly(self.image, [self._pixels(points)], colour, cv2.LINE_AA, _SUBPIXEL_BITS)

    def stroke(self, points: Points, width: float, colour: Colour) -> None:
        """A polyline ``width`` world units thick; points (n, 2) in the world."""
        thickness = max(1, round(width * self._scale))
        cv2.polylines(
            self.image,
            [self._pixels(points)],
            isClosed=False,
            color=colour,
            thickness=thickness,
            lineType=cv2.LINE_AA,
            shift=_SUBPIXEL_BITS,
        )

    def sprite(self, sprite: Iterable[Shape], pose: Pose) -> None:
        """Every shape of a sprite, in order."""
        matrix = pose.matrix()
        for shape in sprite:
            if isinstance(shape, Disc):
                local = _CIRCLE * (shape.rx, shape.ry) + shape.centre
                self.polygon(local @ matrix[:, :2].T + matrix[:, 2], shape.colour)
                continue
            world = np.asarray(shape.points) @ matrix[:, :2].T + matrix[:, 2]
            if isinstance(shape, Poly):
                self.polygon(world, shape.colour)
            else:
                self.stroke(world, shape.width * pose.scale, shape.colour)

    def shapes(self, shapes: Sequence[Shape]) -> None:
        """Shapes given in world units."""
        self.sprite(shapes, Pose(0.0, 0.0))
