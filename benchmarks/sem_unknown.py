"""What svc-sem calls unknown: a label left out, and a lab that begins with two or three labels. Parts of ``sem_quality``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from benchmarks.sem_onsite import similarities
from benchmarks.sem_sets import (
    Embedding,
    Labels,
    Pictures,
    Split,
    fused,
    hlg_shape,
    hlg_shape_of_masters,
    hog_lbp_glcm,
    interval,
    raw_pixels,
    splits,
    without_meeting,
)

from genba_sem.classifier import DEFAULT, Prototypes, greatest_cosine, leave_out
from genba_sem.deciding import Policy, calibrate
from genba_sem.metrics import auroc, fpr_at_recall
from genba_sem.views import QualityMean


def unknown(sets: list[Pictures]) -> None:
    print("\n## A label left out: is it seen as unknown? Greatest prototype cosine\n")
    print(
        "Met: its pictures are among those that the encoder was fitted to, without a label. Not met: neither they nor the known ones "
        "asked about are; of sets without particles half of the pictures stay in the fit and half are asked about.\n"
    )
    print("| set | encoder | met: AUROC | FPR95 | not met, 6 views: AUROC | 1 view |\n|---|---|---|---|---|---|")
    ways: list[tuple[str, Embedding]] = [
        ("hlg-shape-v1", hlg_shape),
        ("hlg-shape-v1, fitted to masters alone", hlg_shape_of_masters),
        ("HOG + LBP + GLCM", hog_lbp_glcm),
        ("raw pixels", raw_pixels),
    ]
    beside = []
    for pictures in sets:
        classes = np.unique(pictures.label)
        found: dict[str, tuple[list[float], ...]] = {}
        for name, embed in ways:
            areas, rates, six, one = found[name] = ([], [], [], [])
            for seed, split in enumerate(splits(pictures)):
                rows = embed(pictures, split)
                left_out = np.random.default_rng(seed).permutation(classes)[:8]
                for label in left_out:
                    known, strange = similarities(rows, pictures, split, label)
                    areas.append(auroc(known, strange))
                    rates.append(fpr_at_recall(known, strange))
                for label in left_out:
                    apart = without_meeting(pictures, split, label, seed=seed)
                    rows = embed(pictures, apart)
                    six.append(auroc(*similarities(rows, pictures, apart, label)))
                    one.append(auroc(*similarities(rows, pictures, apart.one_by_one(), label)))
            print(
                f"| {pictures.name} | {name} | {interval(areas)} | {interval(rates)} | {interval(six)} | {interval(one)} |"
            )
        for baseline in ("HOG + LBP + GLCM", "raw pixels"):
            both = [zip(found["hlg-shape-v1"][at], found[baseline][at], strict=True) for at in (0, 2, 3)]
            gains = [interval([ours - theirs for ours, theirs in each]) for each in both]
            beside.append(f"| {pictures.name} | {baseline} | {' | '.join(gains)} |")
    print("\nhlg-shape-v1 less a baseline, by the same labels left out of the same splits:\n")
    print("| set | baseline | met: AUROC | not met, 6 views | 1 view |\n|---|---|---|---|---|")
    print("\n".join(beside))


def beginning(sets: list[Pictures]) -> None:
    print("\n## A lab that begins: two or three labels of five masters, and particles of all kinds\n")
    print(
        "Called unknown, of what is none of the labels and of what is one; mean of eight draws in each split, and the worst.\n"
    )
    print("| set | labels | none of them | one of them | worst |\n|---|---|---|---|---|")
    for pictures in sets:
        for count in (2, 3):
            shares = []
            for seed, split in enumerate(splits(pictures)):
                rng = np.random.default_rng(seed)
                for _ in range(8):
                    chosen = rng.choice(np.unique(pictures.label), count, replace=False)
                    shares.append(_called_unknown(pictures, split, chosen))
            strange, known = np.mean(shares, axis=0)
            print(f"| {pictures.name} | {count} | {strange:.3f} | {known:.3f} | {np.max(shares, axis=0)[1]:.3f} |")


def _called_unknown(pictures: Pictures, split: Split, chosen: Labels) -> tuple[float, float]:
    """The share called unknown of particles that show none of the chosen labels, and of those that show one."""
    keep = np.isin(split.master_labels, chosen)
    masters = [each for each, kept in zip(split.masters, keep, strict=True) if kept]
    compact: Labels = np.unique(split.master_labels[keep], return_inverse=True)[1]
    few = replace(split, masters=masters, master_labels=split.master_labels[keep])
    rows = hlg_shape_of_masters(pictures, few)
    teachers = fused(rows, pictures.quality, masters, QualityMean(), 6)
    left = leave_out(DEFAULT, teachers, compact, len(chosen))
    none = np.zeros(0)
    below = calibrate([], Policy(), left_out_truth=none, left_out_similarity=left.similarity).unknown_below
    asked = fused(rows, pictures.quality, split.tests, QualityMean(), 6)
    strange = greatest_cosine(asked, Prototypes(teachers, compact, len(chosen)).rows) < below
    known = np.isin(split.test_labels, chosen)
    return float(strange[~known].mean()), float(strange[known].mean())
