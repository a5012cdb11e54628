"""Pictures of plain figures whose class is known, and the lane that learns them: enough of a world to test decisions in."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from genba_sem.encoders import HlgShape
from genba_sem.lane import SeenView, see
from genba_sem.masters import MasterParticle, MasterSet
from genba_sem.micrograph import View

Pixels = npt.NDArray[np.float32]

DATA = Path(os.environ.get("GENBA_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "sem"
KINDS = ("disc", "needle", "square")


def picture(kind: str, rng: np.random.Generator, *, side_px: int = 96) -> Pixels:
    """One bright figure on a dark ground, anywhere, at any angle, with grain."""
    pixels = np.full((side_px, side_px), 0.2, np.float32)
    middle = rng.uniform(0.42, 0.58, 2) * side_px
    size, angle = rng.uniform(0.5, 0.6) * side_px, rng.uniform(0, 180)
    if kind == "disc":
        cv2.circle(pixels, (int(middle[0]), int(middle[1])), int(size / 2), 0.8, -1)
    else:
        shape = (size, size / 6) if kind == "needle" else (size * 0.8, size * 0.8)
        box = cv2.boxPoints(((float(middle[0]), float(middle[1])), shape, angle))
        cv2.fillPoly(pixels, [box.round().astype(np.int32)], 0.8)
    return np.asarray(np.clip(pixels + rng.normal(0, 0.02, pixels.shape), 0, 1), np.float32)


def raw_views(kind: str, rng: np.random.Generator, count: int = 3) -> list[View]:
    return [View(picture(kind, rng)) for _ in range(count)]


def fitted_encoder(seed: int = 0) -> HlgShape:
    """Fit to unlabelled pictures of every kind."""
    rng = np.random.default_rng(seed)
    unfitted = HlgShape.fit(np.random.default_rng(1).random((8, HlgShape.raw_dim), np.float32))
    rows = [see(View(picture(kind, rng)), unfitted).raw for kind in KINDS for _ in range(16)]
    return HlgShape.fit(np.stack(rows), [f"{number // 2}" for number in range(len(rows))])


def seen(encoder: HlgShape, kind: str, rng: np.random.Generator, count: int = 3) -> list[SeenView]:
    return [see(view, encoder) for view in raw_views(kind, rng, count)]


def masters_of(encoder: HlgShape, kinds: tuple[str, ...] = KINDS, *, each: int = 4, seed: int = 3) -> MasterSet:
    rng = np.random.default_rng(seed)
    particles = []
    for kind in kinds:
        for number in range(each):
            views = seen(encoder, kind, rng)
            raw = np.stack([view.raw for view in views])
            quality = np.array([view.quality.score for view in views], np.float32)
            particles.append(MasterParticle(f"{kind}-{number}", f"lbl_{kind}", raw, quality))
    return MasterSet(tuple(particles), "1")
