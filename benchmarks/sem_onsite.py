"""Part ``onsite`` of sem_quality.py: what an encoder that taught itself brings, on the lab's own pictures and on another lab's.

Each split teaches a network on the pictures that may be used without labels (``SEM_STEPS``, 400 by default, as the job does), and asks
the masters as the part ``encoders`` does. *Another's*: the network of the set before, in the same place. Needs torch and onnx.
"""

from __future__ import annotations

import os
import time

import numpy as np
import numpy.typing as npt
from benchmarks.sem_sets import (
    Labels,
    Pictures,
    Rows,
    Split,
    as_particles,
    fused,
    hlg_shape,
    hog_lbp_glcm,
    interval,
    raw_pixels,
    splits,
)

from genba_sem.classifier import CLASSIFIERS, DEFAULT, Prototypes, greatest_cosine
from genba_sem.encoders import unit
from genba_sem.metrics import auroc
from genba_sem.onsite import OnsiteEncoder
from genba_sem.onsite_training import teach
from genba_sem.views import QualityMean

STEPS = int(os.environ.get("SEM_STEPS", "400"))
WAYS = (
    ("hlg-shape-v1 (the default)", DEFAULT),
    ("onsite-v1: default and network", DEFAULT),
    ("network alone", DEFAULT),
    ("default and another's network", DEFAULT),
    ("HOG + LBP + GLCM", "head-v1"),
    ("raw pixels", "nearest-v1"),
)


def onsite(sets: list[Pictures]) -> None:
    print(f"\n## An encoder that teaches itself ({STEPS} steps), five masters a label\n")
    taught: list[list[OnsiteEncoder]] = []
    for at, pictures in enumerate(sets):
        started_s = time.process_time()
        taught.append([_taught(pictures, split, seed) for seed, split in enumerate(splits(pictures))])
        each_s = (time.process_time() - started_s) / len(taught[-1])
        print(f"\n{pictures.name}: {each_s:.0f} CPU-seconds to teach a network.\n", flush=True)
        if at:
            _compare(pictures, taught[at], sets[at - 1].name, taught[at - 1])
    _compare(sets[0], taught[0], sets[-1].name, taught[-1])


def _taught(pictures: Pictures, split: Split, seed: int) -> OnsiteEncoder:
    names = as_particles(pictures, split) if pictures.grouped else [str(each) for each in split.free]
    return teach(pictures.cuts[split.free], names, steps=STEPS, seed=seed)


def _compare(pictures: Pictures, own: list[OnsiteEncoder], other: str, others: list[OnsiteEncoder]) -> None:
    print("| set | encoder | 1 view | 6 views | a label left out, met: AUROC |\n|---|---|---|---|---|")
    results: dict[str, tuple[list[float], list[float], list[float]]] = {}
    for seed, split in enumerate(splits(pictures)):
        default = hlg_shape(pictures, split)
        network, foreign = _rows(own[seed], pictures), _rows(others[seed], pictures)
        held = (
            default,
            _beside(default, network),
            network,
            _beside(default, foreign),
            hog_lbp_glcm(pictures, split),
            raw_pixels(pictures, split),
        )
        for (name, kind), rows in zip(WAYS, held, strict=True):
            one, six, unknown = results.setdefault(name, ([], [], []))
            one.append(_accuracy(rows, pictures, split, kind, views=1))
            six.append(_accuracy(rows, pictures, split, kind, views=6))
            unknown.append(_unknown(rows, pictures, split, seed))
    for name, columns in results.items():
        cells = " | ".join(interval(column) for column in columns)
        print(f"| {pictures.name} | {name.replace('another', other)} | {cells} |", flush=True)


def _rows(network: OnsiteEncoder, pictures: Pictures) -> Rows:
    return unit(np.stack([network.taught(one) for one in pictures.cuts]))


def _beside(default: Rows, taught: Rows) -> Rows:
    """As ``OnsiteEncoder.embed``."""
    return unit(np.concatenate([default, taught], axis=1))


def _accuracy(rows: Rows, pictures: Pictures, split: Split, kind: str, *, views: int) -> float:
    teachers = fused(rows, pictures.quality, split.masters, QualityMean(), 6)
    classifier = CLASSIFIERS[kind](teachers, split.master_labels, int(pictures.label.max()) + 1)
    asked = fused(rows, pictures.quality, split.tests, QualityMean(), views)
    return float((classifier.logits(asked).argmax(1) == split.test_labels).mean())


def _unknown(rows: Rows, pictures: Pictures, split: Split, seed: int) -> float:
    """Mean over up to eight labels left out in turn."""
    left_out = np.random.default_rng(seed).permutation(np.unique(pictures.label))[:8]
    return float(np.mean([auroc(*similarities(rows, pictures, split, label)) for label in left_out]))


def similarities(
    rows: Rows, pictures: Pictures, split: Split, label: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Greatest cosine to the prototypes of the other labels: of the tests that show those, and of those that show ``label``."""
    keep = split.master_labels != label
    teachers = fused(
        rows, pictures.quality, [m for m, k in zip(split.masters, keep, strict=True) if k], QualityMean(), 6
    )
    compact: Labels = np.unique(split.master_labels[keep], return_inverse=True)[1]
    prototypes = Prototypes(teachers, compact, int(compact.max()) + 1).rows
    similar = greatest_cosine(fused(rows, pictures.quality, split.tests, QualityMean(), 6), prototypes)
    return similar[split.test_labels != label], similar[split.test_labels == label]
