"""The pictures that sem_quality.py asks about, how they are divided into masters and tests, and what stands for the encoders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from genba_sem import descriptors, generator
from genba_sem.encoders import HlgShape, unit
from genba_sem.micrograph import View
from genba_sem.onsite import Cuts, cut
from genba_sem.quality import judge
from genba_sem.segment import find_particle
from genba_sem.views import Fusion

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

MASTERS = 5
SEEDS = int(os.environ.get("SEM_SEEDS", "5"))
DATA = Path(os.environ.get("GENBA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "sem"
CACHE = os.environ.get("SEM_BENCH_CACHE")
MOST = int(os.environ.get("SEM_MOST", "35"))  # pictures of a pollen class; the other sets shrink with it
SETS = os.environ.get("SEM_SETS", "eth80,pollen,neu,generator").split(",")


@dataclass(frozen=True, eq=False)
class Pictures:
    """raw: (N, raw_dim); small: (N, 1024) pixels at 32×32; cuts: (N, 2, 64, 64) cut out; quality, label, particle: (N,)."""

    name: str
    raw: Rows
    small: Rows
    cuts: Cuts
    quality: Rows
    label: Labels
    particle: Labels
    grouped: bool  # views of one particle are known to belong together


@dataclass(frozen=True, eq=False)
class Split:
    """Particles as lists of picture indices, with their labels; free: pictures that may be used without labels."""

    masters: list[Labels]
    master_labels: Labels
    tests: list[Labels]
    test_labels: Labels
    free: Labels

    def one_by_one(self) -> Split:
        """Every picture asked about by itself."""
        tests = [test[at : at + 1] for test in self.tests for at in range(len(test))]
        return replace(self, tests=tests, test_labels=np.repeat(self.test_labels, [len(test) for test in self.tests]))


def looked_at(name: str, pixels: list[Any], label: Labels, particle: Labels, *, grouped: bool) -> Pictures:
    """Segment, judge and describe every picture; kept in SEM_BENCH_CACHE when that is set."""
    cache = Path(CACHE) / f"{name}.npz" if CACHE else None
    if cache is not None and cache.is_file():
        held = np.load(cache)
        return Pictures(name, held["raw"], held["small"], held["cuts"], held["quality"], label, particle, grouped)
    raw, small, cuts, quality = [], [], [], []
    for picture in pixels:
        outline = find_particle(picture)
        raw.append(descriptors.describe(picture, outline.mask))
        quality.append(judge(View(picture), outline).score)
        cuts.append(cut(picture, outline.mask))
        small.append(cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA).ravel())
    arrays = [np.asarray(part, np.float32) for part in (raw, small, quality)]
    if cache is not None:
        np.savez(cache, raw=arrays[0], small=arrays[1], cuts=np.array(cuts), quality=arrays[2])
    return Pictures(name, arrays[0], arrays[1], np.array(cuts), arrays[2], label, particle, grouped)


def grey(images: npt.NDArray[np.uint8]) -> list[Any]:
    return [image.astype(np.float32) / 255 for image in images]


def eth80() -> Pictures | None:
    file = DATA / "eth80" / "eth80_gray128_dev.npz"
    if not file.is_file():
        return None
    held = np.load(file)
    label = held["label"].astype(np.int64)
    return looked_at("eth80", grey(held["images"]), label, label * 100 + held["object"], grouped=True)


def singles(name: str, file: Path, *, most: int) -> Pictures | None:
    """Pictures that are particles by themselves."""
    if not file.is_file():
        return None
    held = np.load(file)
    label = held["label"].astype(np.int64)
    rng = np.random.default_rng(0)
    keep = np.concatenate([rng.permutation(np.flatnonzero(label == c))[:most] for c in np.unique(label)])
    return looked_at(name, grey(held["images"][keep]), label[keep], np.arange(len(keep)), grouped=False)


def generated(each: int = MOST * 14 // 35) -> Pictures:
    rng = np.random.default_rng(20)
    pixels, label, particle = [], [], []
    for index, kind in enumerate(generator.KINDS):
        for number in range(each):
            for shot in generator.six_views(generator.make_particle(kind, rng), rng, side_px=128):
                pixels.append(shot.pixels[: shot.pixels.shape[0] - shot.banner_rows])
                label.append(index)
                particle.append(index * 1000 + number)
    return looked_at("generator", pixels, np.array(label), np.array(particle), grouped=True)


def splits(pictures: Pictures, seeds: int = SEEDS, views: int = 6) -> Iterator[Split]:
    for seed in range(seeds):
        yield _split(pictures, np.random.default_rng(seed), seed, views)


def _split(pictures: Pictures, rng: np.random.Generator, seed: int, views: int) -> Split:
    masters, master_labels, tests, test_labels, held_out = [], [], [], [], []
    for label in np.unique(pictures.label):
        if pictures.grouped:
            ids = np.unique(pictures.particle[pictures.label == label])
            few = len(ids) <= MASTERS  # ETH-80: one object of five is tested, from many sides
            order = np.roll(ids, seed) if few else rng.permutation(ids)
            teach, ask = (order[1:], order[:1]) if few else (order[:MASTERS], order[MASTERS:])
            chosen = [*teach, *rng.choice(teach, MASTERS - len(teach), replace=False)] if few else list(teach)
            for one in chosen:
                own = np.flatnonzero(pictures.particle == one)
                masters.append(rng.choice(own, min(views, len(own)), replace=False))
            for one in ask:
                own = rng.permutation(np.flatnonzero(pictures.particle == one))
                groups = [own[i : i + views] for i in range(0, len(own) - views + 1, views)]
                tests += groups[:6]
                test_labels += [label] * len(groups[:6])
                held_out.append(own)
        else:
            order = rng.permutation(np.flatnonzero(pictures.label == label))
            masters += [order[i : i + 1] for i in range(MASTERS)]
            groups = [order[i : i + views] for i in range(MASTERS, len(order) - views + 1, views)]
            tests += groups
            test_labels += [label] * len(groups)
            held_out.append(order[MASTERS:])
        master_labels += [label] * MASTERS
    away = np.concatenate(held_out)
    free = (
        np.arange(len(pictures.label)) if not pictures.grouped else np.setdiff1d(np.arange(len(pictures.label)), away)
    )
    return Split(masters, np.array(master_labels), tests, np.array(test_labels), free)


def without_meeting(pictures: Pictures, split: Split, label: int, *, seed: int) -> Split:
    """The split as it is before a label appears: neither its pictures nor any that are asked about may be fitted to.

    Of pictures that are particles by themselves half of each label's groups stay in the fit and are not asked about; no master shows
    the label.
    """
    asked = np.ones(len(split.tests), np.bool_)
    if not pictures.grouped:
        rng = np.random.default_rng(seed)
        for each in np.unique(split.test_labels):
            own = rng.permutation(np.flatnonzero(split.test_labels == each))
            asked[own[: len(own) // 2]] = False
    tests = [test for test, keep in zip(split.tests, asked, strict=True) if keep]
    free = np.setdiff1d(split.free[pictures.label[split.free] != label], np.concatenate(tests))
    known = split.master_labels != label
    masters = [master for master, keep in zip(split.masters, known, strict=True) if keep]
    return Split(masters, split.master_labels[known], tests, split.test_labels[asked], free)


def as_particles(pictures: Pictures, split: Split) -> list[str]:
    """Whom each free picture shows, in groups of six from any side, as masters and tests are."""
    seen: dict[int, int] = {}
    names = [""] * len(split.free)
    for at in np.random.default_rng(0).permutation(len(split.free)):
        one = int(pictures.particle[split.free[at]])
        seen[one] = seen.get(one, -1) + 1
        names[at] = f"{one}-{seen[one] // 6}"
    return names


Embedding = Callable[[Pictures, Split], Rows]


def hlg_shape(pictures: Pictures, split: Split) -> Rows:
    names = as_particles(pictures, split) if pictures.grouped else None
    return HlgShape.fit(pictures.raw[split.free], names).embed(pictures.raw)


def hlg_shape_of_masters(pictures: Pictures, split: Split) -> Rows:
    names = [str(at) for at, master in enumerate(split.masters) for _ in master] if pictures.grouped else None
    return HlgShape.fit(pictures.raw[np.concatenate(split.masters)], names).embed(pictures.raw)


def hlg_shape_plain(pictures: Pictures, split: Split) -> Rows:
    return HlgShape.fit(pictures.raw[split.free]).embed(pictures.raw)


def hog_lbp_glcm(pictures: Pictures, split: Split) -> Rows:
    parts = [pictures.raw[:, descriptors.BLOCKS[name]] for name in ("fine", "lbp", "glcm")]
    values = np.concatenate(parts, axis=1)
    teach = values[np.concatenate(split.masters)]
    return unit((values - teach.mean(0)) / np.maximum(teach.std(0), 1e-3))


def raw_pixels(pictures: Pictures, _: Split) -> Rows:
    return unit(pictures.small - pictures.small.mean(1, keepdims=True))


def fused(rows: Rows, quality: Rows, particles: list[Labels], fusion: Fusion, views: int) -> Rows:
    return np.stack([fusion.fuse(rows[p[:views]], quality[p[:views]]).row for p in particles])


def interval(values: list[float]) -> str:
    """Mean ± half of the 95 % interval over seeds."""
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.3f} ± {half:.3f}"


def sets_here() -> list[Pictures]:
    """Those of SEM_SETS whose files are here."""
    makers: dict[str, Callable[[], Pictures | None]] = {
        "eth80": eth80,
        "pollen": lambda: singles("pollen", DATA / "pollen" / "pollen35x35_gray128_dev.npz", most=MOST),
        "neu": lambda: singles("neu", DATA / "neu" / "neu_gray128.npz", most=MOST * 65 // 35),
        "generator": generated,
    }
    made = [makers[name]() for name in SETS]
    found = [pictures for pictures in made if pictures is not None]
    if len(found) < len(made):
        print(f"Some sets are not here ({DATA}); set GENBA_DATA.")
    return found
