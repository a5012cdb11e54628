"""A lab's folder for demonstrations: masters and a batch of particles whose kind is known, as files of an instrument.

What the pictures show is the generator's; this module only names, stores and lists them. The same seed draws the same files.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from genba_sem.generator import as_tiff, make_particle, six_views

SIDE_PX: Final = 192
KINDS: Final = ("sphere", "needle", "plate", "agglomerate")
STRANGE: Final = "dendrite"  # a kind that no master shows
NAMES: Final = {
    "sphere": ("Sphere", "球状"),
    "needle": ("Needle", "針状"),
    "plate": ("Plate", "板状"),
    "agglomerate": ("Agglomerate", "凝集体"),
}


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
        writer.writerow(["name", "views", "lot"])
        for each in batch:
            writer.writerow([each.name, ";".join(str(path.relative_to(folder)) for path in each.views), "demo"])


def _particle(folder: Path, name: str, kind: str, rng: np.random.Generator, views: int) -> Drawn:
    """One particle from ``views`` sides, each with its banner and the pixel size in its header."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    paths = []
    for k, taken in enumerate(six_views(make_particle(kind, rng), rng, side_px=SIDE_PX, count=views)):
        path = folder / name / f"view_{k}.tif"
        path.write_bytes(as_tiff(taken))
        paths.append(path)
    return Drawn(name, kind, tuple(paths))
