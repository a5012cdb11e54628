"""What svc-sem's numerics are worth: encoders × classifiers × fusions, unknowns, abstaining, spoilt views, few labels, sizes.

Five masters a label, several seeds, 95 % intervals; beside every score HOG + LBP + GLCM with a linear head and raw pixels with kNN.
Sets: ETH-80 (objects never shared by masters and tests), pollen and NEU (every picture its own particle; six pictures of a class
stand in for six views in the second figure), and the project's generator. Usage: python -m benchmarks.sem_quality [part ...] with parts
encoders, spoilt, unknown, beginning, confirm, few, bundles, sizes, cost; all of these without an argument; and onsite, which takes minutes
of a core for each split and needs torch and onnx. Data: GENBA_DATA or ../shared/data.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from benchmarks.sem_onsite import onsite
from benchmarks.sem_sets import (
    SEEDS,
    Embedding,
    Labels,
    Pictures,
    Rows,
    Split,
    as_particles,
    fused,
    hlg_shape,
    hlg_shape_plain,
    hog_lbp_glcm,
    interval,
    raw_pixels,
    sets_here,
    splits,
)
from benchmarks.sem_unknown import beginning, unknown
from scipy.stats import binom

from genba_sem import bundling, descriptors, generator
from genba_sem.active import choose
from genba_sem.classifier import (
    CLASSIFIERS,
    DEFAULT,
    LogisticHead,
    Prototypes,
    fitted_temperature,
    greatest_cosine,
    leave_out,
    tempered,
)
from genba_sem.deciding import Policy, Reviewed, calibrate, label_set, reviews_for
from genba_sem.encoders import HlgShape
from genba_sem.label_issues import label_quality
from genba_sem.metrics import (
    auroc,
    expected_calibration_error,
    risk_coverage,
    set_coverage,
)
from genba_sem.micrograph import View
from genba_sem.quality import judge
from genba_sem.segment import find_particle
from genba_sem.semi_supervised import Method, learn
from genba_sem.shape import shape_of, size_distribution
from genba_sem.views import PlainMean, QualityMean

_HALVINGS = 50  # of a split's particles into reviewed and fresh ones


def encoders(sets: list[Pictures]) -> None:
    print("\n## Accuracy, five masters a label: 1 view / 6 views\n")
    print("| set | encoder | classifier | 1 view | 6 views |\n|---|---|---|---|---|")
    ways: list[tuple[str, Embedding, str]] = [("hlg-shape-v1", hlg_shape, kind) for kind in CLASSIFIERS]
    ways += [("hlg-shape-v1, without particles", hlg_shape_plain, kind) for kind in ("prototypes-v1", DEFAULT)]
    ways += [("HOG + LBP + GLCM", hog_lbp_glcm, "head-v1"), ("raw pixels", raw_pixels, "nearest-v1")]
    for pictures in sets:
        results: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
        for split in splits(pictures):
            held: dict[str, Rows] = {}
            for name, embed, kind in ways:
                rows = held.setdefault(name, embed(pictures, split))
                teach = fused(rows, pictures.quality, split.masters, QualityMean(), 6)
                classifier = CLASSIFIERS[kind](teach, split.master_labels, int(pictures.label.max()) + 1)
                one, six = results.setdefault((name, kind), ([], []))
                for views, into in ((1, one), (6, six)):
                    asked = fused(rows, pictures.quality, split.tests, QualityMean(), views)
                    into.append(float((classifier.logits(asked).argmax(1) == split.test_labels).mean()))
        for (name, kind), (one, six) in results.items():
            print(f"| {pictures.name} | {name} | {kind} | {interval(one)} | {interval(six)} |")


def spoilt(_sets: list[Pictures]) -> None:
    print("\n## Spoilt views (generator): accuracy with k of 6 views cropped, blurred or black\n")
    print("| k | quality-weighted mean | plain mean | majority vote |\n|---|---|---|---|")
    rng = np.random.default_rng(4)
    each = 10
    clean: list[Any] = []
    bad: list[Any] = []
    quality: list[float] = []
    quality_bad: list[float] = []
    label: list[int] = []
    particle: list[int] = []
    names = ("cropped", "blurred", "black")
    for index, kind in enumerate(generator.KINDS):
        for number in range(each):
            solid = generator.make_particle(kind, rng)
            for view in range(6):
                good = generator.photograph(solid, rng, side_px=128, condition=generator.Condition(banner=False))
                worse = generator.SPOILT[names[view % 3]]
                ill = generator.photograph(
                    solid, rng, side_px=128, condition=generator.Condition(**{**vars(worse), "banner": False})
                )
                for shot, into, scores in ((good, clean, quality), (ill, bad, quality_bad)):
                    outline = find_particle(shot.pixels)
                    into.append(descriptors.describe(shot.pixels, outline.mask))
                    scores.append(judge(View(shot.pixels), outline).score)
                label.append(index)
                particle.append(index * 1000 + number)
    labels, ids = np.array(label), np.array(particle)
    pictures = Pictures(
        "spoilt",
        np.stack(clean),
        np.zeros((len(clean), 1), np.float32),
        np.zeros((len(clean), 2, 1, 1), np.uint8),
        np.array(quality, np.float32),
        labels,
        ids,
        grouped=True,
    )
    table: dict[int, tuple[list[float], list[float], list[float]]] = {k: ([], [], []) for k in range(6)}
    for split in splits(pictures):
        encoder = HlgShape.fit(pictures.raw[split.free], as_particles(pictures, split))
        rows, ill_rows = encoder.embed(pictures.raw), encoder.embed(np.stack(bad))
        teach = fused(rows, pictures.quality, split.masters, QualityMean(), 6)
        head = CLASSIFIERS[DEFAULT](teach, split.master_labels, len(generator.KINDS))
        for k, (weighted, plain, votes) in table.items():
            both = [np.where(np.arange(6) < k, 1, 0) for _ in split.tests]
            mixed = [np.where(b[:, None], ill_rows[t], rows[t]) for b, t in zip(both, split.tests, strict=True)]
            trust = [
                np.where(b, np.array(quality_bad, np.float32)[t], pictures.quality[t])
                for b, t in zip(both, split.tests, strict=True)
            ]
            for fusion, into in ((QualityMean(), weighted), (PlainMean(), plain)):
                asked = np.stack([fusion.fuse(m, q.astype(np.float32)).row for m, q in zip(mixed, trust, strict=True)])
                into.append(float((head.logits(asked).argmax(1) == split.test_labels).mean()))
            voted = [np.bincount(head.logits(m).argmax(1), minlength=8).argmax() for m in mixed]
            votes.append(float((np.array(voted) == split.test_labels).mean()))
    for k, columns in table.items():
        print(f"| {k} | " + " | ".join(interval(column) for column in columns) + " |")


def outcomes(pictures: Pictures, split: Split) -> tuple[npt.NDArray[np.float64], Labels, npt.NDArray[np.float64]]:
    """Tempered probabilities (n, C), labels and similarities of the tests under the default lane."""
    classes = int(pictures.label.max()) + 1
    rows = hlg_shape(pictures, split)
    teach = fused(rows, pictures.quality, split.masters, QualityMean(), 6)
    left = leave_out(DEFAULT, teach, split.master_labels, classes)
    temperature = fitted_temperature(left.logits, left.labels)
    asked = fused(rows, pictures.quality, split.tests, QualityMean(), 6)
    probabilities = tempered(CLASSIFIERS[DEFAULT](teach, split.master_labels, classes).logits(asked), temperature)
    return (
        probabilities,
        split.test_labels,
        greatest_cosine(asked, Prototypes(teach, split.master_labels, classes).rows),
    )


def confirm(sets: list[Pictures]) -> None:
    print("\n## Abstaining: calibration, label sets, auto-confirm\n")
    print(
        "| set | ECE | AURC | confirmed at 99 % by an oracle | sets at 90 %: coverage (due), size | at 95 % |\n|---|---|---|---|---|---|"
    )
    pools = []
    for pictures in sets:
        ece, aurc, oracle = [], [], []
        sets_at: dict[float, list[Any]] = {0.9: [], 0.95: []}
        for seed, split in enumerate(splits(pictures)):
            probabilities, truth, similar = outcomes(pictures, split)
            right = probabilities.argmax(1) == truth
            curve = risk_coverage(probabilities.max(1), right)
            ece.append(expected_calibration_error(probabilities.max(1), right))
            aurc.append(curve.area)
            oracle.append(curve.coverage_at(0.99))
            pools.append((pictures.name, probabilities, truth, similar))
            for level, found in sets_at.items():
                rng = np.random.default_rng(seed)
                halves = [np.array_split(rng.permutation(len(truth)), 2) for _ in range(_HALVINGS)]
                found.append(np.mean([_sets_held(level, pools[-1], *each) for each in halves], axis=0))
        cells = [
            f"{interval(held)} ({due.mean():.1%}), {size.mean():.2f}"
            for held, size, due in (np.transpose(found) for found in sets_at.values())
        ]
        print("|", " | ".join([pictures.name, *map(interval, (ece, aurc, oracle)), *cells]), "|")
    _deployments(pools)


def _sets_held(level: float, pool: Any, known: Any, fresh: Any) -> tuple[float, float, float]:
    """Of one halving: coverage, size, and the coverage that so few reviews are due by rank alone: ⌈(n + 1) level⌉ of n + 1."""
    _, probabilities, truth, similar = pool
    none, names = np.zeros(0), tuple(str(label) for label in range(probabilities.shape[1]))
    reviews = [_reviewed(probabilities, truth, similar, i) for i in known]
    calibration = calibrate(reviews, Policy(set_coverage=level), left_out_truth=none, left_out_similarity=none)
    members = [label_set(probabilities[i], names, calibration) for i in fresh]
    n = len(known) + 1
    return (*set_coverage(members, [str(truth[i]) for i in fresh]), float(np.ceil(n * level) / n))


def _reviewed(probabilities: Any, truth: Labels, similar: Any, index: int) -> Reviewed:
    row = probabilities[index]
    return Reviewed(
        float(row.max()), bool(row.argmax() == truth[index]), float(similar[index]), float(row[truth[index]])
    )


def _deployments(pools: list[Any]) -> None:
    """200 deployments: reviews drawn from a set's outcomes, the rest of the stream drawn likewise (with replacement)."""
    print("\n### 200 simulated deployments\n")
    print(
        "Each cell: promise broken; confirmed, of what an oracle would. Mistaken: so many right decisions are reviewed as wrong.\n"
    )
    print(
        "| set | promised | reviews | mistaken | served | one sequence from the strictest | empirical |\n|---|---|---|---|---|---|---|"
    )
    ways = (_served, _from_the_strictest, _empirical)
    for name in dict.fromkeys(pool[0] for pool in pools):
        own = [pool for pool in pools if pool[0] == name]
        confidence = np.concatenate([p.max(1) for _, p, _, _ in own])
        right = np.concatenate([p.argmax(1) == t for _, p, t, _ in own])
        for precision, count, mistaken in itertools.product((0.95, 0.99), (100, 300, 1000), (0.0, 0.01)):
            rng = np.random.default_rng(0)
            best = risk_coverage(confidence, right).coverage_at(precision)
            broken, shares = [0] * len(ways), [0.0] * len(ways)
            for _ in range(200):
                pick = rng.integers(len(right), size=count)
                seen = right[pick] & (rng.random(count) >= mistaken)
                for at, way in enumerate(ways):
                    taken = confidence >= way(confidence[pick], seen, precision)
                    broken[at] += bool(taken.any() and right[taken].mean() < precision)
                    shares[at] += float(taken.mean()) / 200
            cells = [
                f"{b / 200:.1%}; {s / best:.0%}" if best else f"{b / 200:.1%}; –"
                for b, s in zip(broken, shares, strict=True)
            ]
            print(f"| {name} | {precision:.0%} | {count} | {mistaken:.0%} | {' | '.join(cells)} |")


def _served(confidence: npt.NDArray[np.float64], right: Any, precision: float) -> float:
    reviews = [Reviewed(float(c), bool(r), 0.5, 0.5) for c, r in zip(confidence, right, strict=True)]
    none = np.zeros(0)
    at = calibrate(reviews, Policy(precision=precision), left_out_truth=none, left_out_similarity=none).confirm_at
    return np.inf if at is None else at


def _from_the_strictest(confidence: npt.NDArray[np.float64], right: Any, precision: float) -> float:
    """Clopper–Pearson at the fewest reviews that can do, then at more and more until one fails: what was served before."""
    order, least, found = np.argsort(-confidence, kind="stable"), reviews_for(precision), np.inf
    for count in range(least, len(order) + 1, max(1, least // 10)):
        wrong = int((~right[order[:count]]).sum())
        if binom.cdf(wrong, count, 1 - precision) > Policy().risk:
            break
        found = float(confidence[order[count - 1]])
    return found


def _empirical(confidence: npt.NDArray[np.float64], right: Any, precision: float) -> float:
    order = np.argsort(-confidence, kind="stable")
    good = np.flatnonzero(np.cumsum(right[order]) / np.arange(1, len(order) + 1) >= precision)
    return float(confidence[order[good[-1]]]) if len(good) else np.inf


def few(sets: list[Pictures]) -> None:
    print("\n## Few labels: accuracy after n labels asked for (6 views where particles have them)\n")
    print("| set | strategy | 1 a label | 2 | 4 | 8 |\n|---|---|---|---|---|---|")
    for pictures in sets:
        classes = int(pictures.label.max()) + 1
        for strategy in ("random", "typical", "margin", "hybrid"):
            curve: dict[int, list[float]] = {1: [], 2: [], 4: [], 8: []}
            for seed, split in enumerate(splits(pictures)):
                pool, labels, tests = _pool(pictures, split, seed)
                have = list(
                    choose(
                        pool,
                        classes,
                        labelled=pool[:0],
                        masters_per_label=0,
                        strategy=("random" if strategy in {"random", "margin"} else "typical"),
                        seed=seed,
                    )
                )
                for goal, into in curve.items():
                    while len(have) < goal * classes:
                        known, present = labels[have], np.unique(labels[have])
                        compact = np.searchsorted(present, known)
                        taught = LogisticHead(pool[have], compact, len(present)) if len(present) > 1 else None
                        rest = np.setdiff1d(np.arange(len(pool)), have)
                        probabilities = None if taught is None else tempered(taught.logits(pool[rest]), 1.0)
                        asked = choose(
                            pool[rest],
                            min(classes, goal * classes - len(have)),
                            labelled=pool[have],
                            masters_per_label=len(have) / classes,
                            probabilities=probabilities,
                            strategy=strategy,
                            seed=seed,
                        )
                        have += [int(rest[i]) for i in asked]
                    present = np.unique(labels[have])
                    head = CLASSIFIERS[DEFAULT](pool[have], np.searchsorted(present, labels[have]), len(present))
                    into.append(float((present[head.logits(tests[0]).argmax(1)] == tests[1]).mean()))
            print(
                f"| {pictures.name} | {strategy} | " + " | ".join(interval(values) for values in curve.values()) + " |"
            )
    _semi(sets)
    _label_errors(sets)


def _pool(pictures: Pictures, split: Split, seed: int) -> tuple[Rows, Labels, tuple[Rows, Labels]]:
    """Particles that may be asked about, and the tests."""
    rows = hlg_shape(pictures, split)
    if pictures.grouped:
        names = np.array(as_particles(pictures, split))
        groups = [split.free[names == name] for name in np.unique(names)]
    else:
        spare = np.setdiff1d(split.free, np.concatenate(split.tests))
        groups = [spare[i : i + 1] for i in range(len(spare))]
        half = np.random.default_rng(seed).permutation(len(split.tests))
        groups += [split.tests[i][j : j + 1] for i in half[::2] for j in range(6)]
        tests = [split.tests[i] for i in half[1::2]]
        asked = fused(rows, pictures.quality, tests, QualityMean(), 6)
        pool = fused(rows, pictures.quality, groups, QualityMean(), 6)
        return pool, pictures.label[[g[0] for g in groups]], (asked, split.test_labels[half[1::2]])
    pool = fused(rows, pictures.quality, groups, QualityMean(), 6)
    return (
        pool,
        pictures.label[[g[0] for g in groups]],
        (fused(rows, pictures.quality, split.tests, QualityMean(), 6), split.test_labels),
    )


def _semi(sets: list[Pictures]) -> None:
    print("\n### Semi-supervised: five masters a label and the unlabelled rest\n")
    print(
        "| set | method | accuracy | supervised head | pseudo-labels taken | right among them |\n|---|---|---|---|---|---|"
    )
    methods: tuple[Method, ...] = ("fixmatch", "freematch", "softmatch")
    for pictures in sets:
        classes = int(pictures.label.max()) + 1
        for method in methods:
            gains, plain, taken, right = [], [], [], []
            for seed, split in enumerate(splits(pictures, min(SEEDS, 3))):
                rows = hlg_shape(pictures, split)
                asked = fused(rows, pictures.quality, split.tests, QualityMean(), 6)
                if pictures.grouped:
                    names = np.array(as_particles(pictures, split))
                    groups = [split.free[names == name] for name in np.unique(names)]
                else:
                    groups = [np.array([i]) for i in np.setdiff1d(split.free, np.concatenate(split.masters))]
                learnt = learn(
                    [rows[m] for m in split.masters],
                    split.master_labels,
                    [rows[g] for g in groups],
                    classes,
                    method=method,
                    seed=seed,
                )
                teach = fused(rows, pictures.quality, split.masters, QualityMean(), 6)
                plain.append(
                    float(
                        (
                            LogisticHead(teach, split.master_labels, classes).logits(asked).argmax(1)
                            == split.test_labels
                        ).mean()
                    )
                )
                gains.append(float((learnt.logits(asked).argmax(1) == split.test_labels).mean()))
                taken.append(learnt.rounds[-1].taken)
                right.append(learnt.pseudo_label_precision(pictures.label[[g[0] for g in groups]]))
            print(
                f"| {pictures.name} | {method} | {interval(gains)} | {interval(plain)} | {np.mean(taken):.2f} | {np.mean(right):.3f} |"
            )


_ONE_S, _BUNDLE_S, _GLANCE_S = (
    6.0,
    8.0,
    0.7,
)  # to decide one particle; to decide a bundle, and to glance at each member of it


def bundles(sets: list[Pictures]) -> None:
    print("\n## Review by bundles: particles that lie together and are held for one label are decided at once\n")
    print(
        f"A person takes {_ONE_S:g} s a particle alone; {_BUNDLE_S:g} s a bundle and {_GLANCE_S:g} s for each member, and {_ONE_S:g} s "
        "for each stranger, who is taken out and decided alone. Purity: members of the bundle's commonest kind.\n"
    )
    print(
        "| set | how | particles a decision | purity | right if nobody took strangers out | time saved |\n|---|---|---|---|---|---|"
    )
    for pictures in sets:
        found: dict[str, tuple[list[float], ...]] = {}
        for split in splits(pictures):
            rows = hlg_shape(pictures, split)
            views = 6 if pictures.grouped else 1
            asked = split if pictures.grouped else split.one_by_one()
            teach = fused(rows, pictures.quality, split.masters, QualityMean(), 6)
            vectors = fused(rows, pictures.quality, asked.tests, QualityMean(), views)
            held = CLASSIFIERS[DEFAULT](teach, split.master_labels, int(pictures.label.max()) + 1).logits(vectors)
            for name, grouping in BUNDLINGS.items():
                columns = found.setdefault(name, ([], [], [], []))
                for value, into in zip(
                    _bundled(vectors, held.argmax(1), asked.test_labels, grouping), columns, strict=True
                ):
                    into.append(value)
        for name, columns in found.items():
            print(f"| {pictures.name} | {name} | " + " | ".join(interval(column) for column in columns) + " |")


def _hdbscan(vectors: Rows, *, choosing: str = "leaf") -> list[list[int]]:
    from sklearn.cluster import HDBSCAN

    if len(vectors) < 4:
        return []
    whole = choosing == "eom"  # members of one label may well be one cluster
    clusters = HDBSCAN(
        min_cluster_size=2, min_samples=1, cluster_selection_method=choosing, allow_single_cluster=whole, copy=True
    )
    labels = clusters.fit_predict(vectors)
    return [np.flatnonzero(labels == label).tolist() for label in range(int(labels.max()) + 1)]


BUNDLINGS: dict[str, Callable[[Rows], list[list[int]]]] = {
    "average linkage (what is served)": bundling.groups,
    "HDBSCAN, leaves": _hdbscan,
    "HDBSCAN, excess of mass": partial(_hdbscan, choosing="eom"),
}


def _bundled(
    vectors: Rows, held: Labels, truth: Labels, grouping: Callable[[Rows], list[list[int]]]
) -> tuple[float, float, float, float]:
    decisions, pure, bundled, spent_s = 0, 0, 0, 0.0
    for label in np.unique(held):
        own = np.flatnonzero(held == label)
        groups = grouping(vectors[own])
        for group in groups:
            commonest = int(np.bincount(truth[own[group]]).max())
            decisions, pure, bundled = decisions + 1, pure + commonest, bundled + len(group)
            spent_s += _BUNDLE_S + _GLANCE_S * len(group) + _ONE_S * (len(group) - commonest)
        alone = len(own) - sum(map(len, groups))
        decisions, spent_s = decisions + alone, spent_s + _ONE_S * alone
    count = len(truth)
    purity = pure / bundled if bundled else 1.0
    return count / decisions, purity, (pure + count - bundled) / count, 1 - spent_s / (_ONE_S * count)


def _label_errors(sets: list[Pictures]) -> None:
    print("\n### Planted label errors: ranking by label quality\n")
    print(
        "| set | flipped | AUROC | precision and recall when as many are looked at as were flipped | by chance |\n|---|---|---|---|---|"
    )
    for pictures in sets:
        classes = int(pictures.label.max()) + 1
        for share in (0.05, 0.1, 0.2):
            areas, found = [], []
            for seed, split in enumerate(splits(pictures, min(SEEDS, 3))):
                pool, labels, _ = _pool(pictures, split, seed)
                rng = np.random.default_rng(seed)
                wrong = rng.permutation(len(labels))[: max(1, round(share * len(labels)))]
                given = labels.copy()
                given[wrong] = (given[wrong] + rng.integers(1, classes, len(wrong))) % classes
                left = leave_out("head-v1", pool, given, classes)
                usable = np.flatnonzero(np.bincount(given, minlength=classes)[given] > 1)
                quality = label_quality(
                    tempered(left.logits, fitted_temperature(left.logits, left.labels)), left.labels
                )
                planted = np.isin(usable, wrong)
                areas.append(auroc(-quality[planted], -quality[~planted]))
                found.append(float(planted[np.argsort(quality, kind="stable")[: planted.sum()]].mean()))
            print(f"| {pictures.name} | {share:.0%} | {interval(areas)} | {interval(found)} | {share:.2f} |")


def sizes(_sets: list[Pictures]) -> None:
    print("\n## Sizes against the generator's truth\n")
    print("| kind | equivalent diameter, mean error | mean absolute error | outlines found whole |\n|---|---|---|---|")
    rng = np.random.default_rng(9)
    for kind in generator.KINDS:
        errors, whole = [], 0
        for _ in range(12):
            shot = generator.photograph(
                generator.make_particle(kind, rng), rng, side_px=512, condition=generator.Condition(banner=False)
            )
            outline = find_particle(shot.pixels)
            found, true = shape_of(outline.mask), shape_of(shot.mask)
            if outline.complete and found is not None and true is not None:
                errors.append(found.equivalent_diameter / true.equivalent_diameter - 1)
                whole += 1
        print(f"| {kind} | {np.mean(errors):+.2%} | {np.mean(np.abs(errors)):.2%} | {whole}/12 |")
    counted, left_out = [], []
    for _ in range(8):
        _, parts, covered, diameters = generator.field_of_particles(rng)
        seen = 2 * np.sqrt(np.bincount(parts.ravel(), minlength=len(diameters) + 1)[1:] / np.pi)
        here = seen > 0
        everyone = size_distribution(list(seen[here]), [False] * int(here.sum()))
        whole_ones = size_distribution(list(seen[here]), list(covered[here]))
        assert everyone is not None
        assert whole_ones is not None
        counted.append(everyone.d50 / float(np.median(diameters)) - 1)
        left_out.append(whole_ones.d50 / float(np.median(diameters)) - 1)
    print(f"\nMedian size, covered particles counted: {np.mean(counted):+.1%}; left out: {np.mean(left_out):+.1%}.")


def cost(_sets: list[Pictures]) -> None:
    rng = np.random.default_rng(2)
    shots = [
        s for kind in generator.KINDS for s in generator.six_views(generator.make_particle(kind, rng), rng, side_px=256)
    ]
    encoder_free = [s.pixels[: s.pixels.shape[0] - s.banner_rows] for s in shots]
    find_particle(encoder_free[0])
    start = time.process_time()
    for pixels in encoder_free:
        outline = find_particle(pixels)
        judge(View(pixels), outline)
        descriptors.describe(pixels, outline.mask)
    spent = (time.process_time() - start) / len(shots) * 6
    print(
        f"\n## Cost\n\n{spent:.3f} CPU-s for a particle of six views of 256×256 px (segment, judge, describe), one thread."
    )


PARTS: dict[str, Callable[[list[Pictures]], None]] = {
    part.__name__: part for part in (encoders, unknown, beginning, spoilt, confirm, few, bundles, sizes, cost, onsite)
}
ON_DEMAND = {"onsite"}  # minutes of a core for each split


def main() -> None:
    wanted = sys.argv[1:] or [part for part in PARTS if part not in ON_DEMAND]
    needs_sets = {"encoders", "unknown", "beginning", "confirm", "few", "bundles", "onsite"} & set(wanted)
    sets = sets_here() if needs_sets else []
    for part in wanted:
        PARTS[part](sets)


if __name__ == "__main__":
    main()
