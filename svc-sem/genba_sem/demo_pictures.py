"""Draw micrographs of particles whose kind is known, for demonstrations: several views each, with grain, blur, a banner now and then.

A kind is a shape in its own frame; a view turns, shades and cuts it as another condition of the instrument would. The same seed
draws the same files.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32]

SIDE_PX: Final = 160
PIXEL_SIZE_NM: Final = 12.5
KINDS: Final = ("sphere", "needle", "plate", "agglomerate")
STRANGE: Final = "star"  # a kind that no master shows
NAMES: Final = {
    "sphere": ("Sphere", "球状"),
    "needle": ("Needle", "針状"),
    "plate": ("Plate", "板状"),
    "agglomerate": ("Agglomerate", "凝集体"),
}
_BANNER_ROWS: Final = 16


@dataclass(frozen=True)
class Drawn:
    """A particle's files and what it is."""

    name: str
    kind: str
    views: tuple[Path, ...]


def draw_set(
    folder: Path, *, seed: int, masters: int, samples: int, views: int, strange: int = 2
) -> tuple[list[Drawn], list[Drawn]]:
    """Masters of every kind, and samples of which ``strange`` are of no kind that a master shows; truth.json beside them."""
    rng = np.random.default_rng(seed)
    made = [_particle(folder / "masters", f"{kind}-{k}", kind, rng, views) for kind in KINDS for k in range(masters)]
    kinds = [KINDS[k % len(KINDS)] for k in range(samples - strange)] + [STRANGE] * strange
    order = rng.permutation(len(kinds))
    batch = [_particle(folder / "batch", f"p-{n:04d}", kinds[k], rng, views) for n, k in enumerate(order)]
    truth = {each.name: each.kind for each in (*made, *batch)}
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    _manifest(folder / "batch", batch)
    return made, batch


def _manifest(folder: Path, batch: Sequence[Drawn]) -> None:
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "views", "lot", "pixel_size_nm"])
        for each in batch:
            names = ";".join(str(path.relative_to(folder)) for path in each.views)
            writer.writerow([each.name, names, "demo", PIXEL_SIZE_NM])


def _particle(folder: Path, name: str, kind: str, rng: np.random.Generator, views: int) -> Drawn:
    """One particle: a shape of its own, seen ``views`` times."""
    own = int(rng.integers(2**31))
    paths = []
    (folder / name).mkdir(parents=True, exist_ok=True)
    for k in range(views):
        path = folder / name / f"view_{k}.png"
        cv2.imwrite(str(path), _shot(kind, own, rng))
        paths.append(path)
    return Drawn(name, kind, tuple(paths))


def _shot(kind: str, own: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One view as an instrument would save it."""
    height = _shape(kind, np.random.default_rng(own), angle=float(rng.uniform(0, 360)))
    light = cv2.GaussianBlur(height, (0, 0), 1.2)
    relief = 0.5 * (np.roll(light, 2, axis=1) - np.roll(light, -2, axis=1))
    grey = 0.18 + 0.5 * (height > 0.05) + 0.6 * relief
    grain = cv2.GaussianBlur(rng.normal(0, 1, grey.shape), (0, 0), 1.1)
    grey = grey + np.where(height > 0.05, 0.09, 0.03) * grain
    grey = cv2.GaussianBlur(grey, (0, 0), float(rng.uniform(0.5, 1.1))) * rng.uniform(0.85, 1.1)
    if rng.random() < 0.3:
        grey[-_BANNER_ROWS:] = 0.0
        cv2.line(grey, (20, SIDE_PX - 8), (60, SIDE_PX - 8), 1.0, 2)
    return np.asarray(np.clip(grey * 255, 0, 255), np.uint8)


def _shape(kind: str, rng: np.random.Generator, *, angle: float) -> Picture:
    """Height over the ground, (SIDE_PX, SIDE_PX) in [0, 1]; the shape's own numbers come from ``rng``."""
    draw: Callable[[Any, np.random.Generator, float], None] = {
        "sphere": _sphere, "needle": _needle, "plate": _plate, "agglomerate": _agglomerate, STRANGE: _star,
    }[kind]  # fmt: skip
    canvas = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    draw(canvas, rng, angle)
    return canvas


def _middle(rng: np.random.Generator) -> tuple[int, int]:
    x, y = SIDE_PX / 2 + rng.uniform(-6, 6, 2)
    return int(x), int(y - _BANNER_ROWS / 3)


def _dome(canvas: Picture, centre: tuple[float, float], radius: float) -> None:
    y, x = np.mgrid[: canvas.shape[0], : canvas.shape[1]]
    inside = 1 - ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / radius**2
    np.maximum(canvas, np.sqrt(np.clip(inside, 0, 1)), out=canvas)


def _sphere(canvas: Picture, rng: np.random.Generator, angle: float) -> None:
    del angle
    _dome(canvas, _middle(rng), float(rng.uniform(30, 42)))


def _needle(canvas: Picture, rng: np.random.Generator, angle: float) -> None:
    size = (float(rng.uniform(95, 115)), float(rng.uniform(22, 28)))
    cv2.fillPoly(canvas, [cv2.boxPoints((_middle(rng), size, angle)).astype(np.int32)], 0.7)


def _plate(canvas: Picture, rng: np.random.Generator, angle: float) -> None:
    corners = 6
    radius = float(rng.uniform(36, 46))
    turns = np.deg2rad(angle) + 2 * np.pi * np.arange(corners) / corners
    cx, cy = _middle(rng)
    points = np.stack([cx + radius * np.cos(turns), cy + 0.72 * radius * np.sin(turns)], axis=1)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 0.45)


def _agglomerate(canvas: Picture, rng: np.random.Generator, angle: float) -> None:
    cx, cy = _middle(rng)
    turn = np.deg2rad(angle)
    for k in range(int(rng.integers(6, 9))):
        away, where = rng.uniform(12, 34), turn + 2.4 * k
        _dome(canvas, (cx + away * np.cos(where), cy + away * np.sin(where)), float(rng.uniform(11, 16)))


def _star(canvas: Picture, rng: np.random.Generator, angle: float) -> None:
    cx, cy = _middle(rng)
    turns = np.deg2rad(angle) + np.pi * np.arange(10) / 5
    radii = np.where(np.arange(10) % 2 == 0, rng.uniform(50, 58), rng.uniform(16, 20))
    points = np.stack([cx + radii * np.cos(turns), cy + radii * np.sin(turns)], axis=1)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 0.8)
