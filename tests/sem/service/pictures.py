"""Small pictures of particles of three kinds, as an instrument would save them: discs, needles and squares on a dark ground."""

from __future__ import annotations

import cv2
import numpy as np

KINDS = ("disc", "needle", "square")


def picture(kind: str, *, seed: int, size_px: int = 128, blur: float = 0.0) -> bytes:
    """A PNG of one particle, turned and textured by the seed."""
    rng = np.random.default_rng([seed, *kind.encode()])
    ground = rng.normal(45, 4, (size_px, size_px))
    across = size_px * rng.uniform(0.44, 0.52)
    shape = {"disc": (across, across), "needle": (across * 1.55, across * 0.4), "square": (across, across)}[kind]
    mask = np.zeros((size_px, size_px), np.uint8)
    middle = (size_px / 2 + rng.uniform(-3, 3), size_px / 2 + rng.uniform(-3, 3))
    box = (middle, shape, float(rng.uniform(0, 180)))
    if kind == "square":
        cv2.fillPoly(mask, [cv2.boxPoints(box).astype(np.int32)], 1)
    else:
        cv2.ellipse(mask, box, 1, -1)
    grain = cv2.GaussianBlur(rng.normal(0, 40, (size_px, size_px)), (0, 0), 1.5)
    grey = np.where(mask > 0, 165 + grain, ground)
    grey = cv2.GaussianBlur(grey, (0, 0), 0.7 + blur)
    return bytes(cv2.imencode(".png", np.clip(grey, 0, 255).astype(np.uint8))[1].tobytes())


def views(kind: str, *, seed: int, count: int = 2, blur: float = 0.0) -> list[bytes]:
    """Several pictures of one particle."""
    return [picture(kind, seed=1000 * seed + k, blur=blur) for k in range(count)]
