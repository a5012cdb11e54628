"""Which classifier to ship, chosen without the sources that it is judged on: ``gate_quality --leave-sources-out``.

Candidates are the champion, bundles beside it, and regressions on a share of the generated rows: on all of them, with other
penalties, without each module of the generator in turn, and without each part of one module (``--parts``). Each is judged on every source that may be used for
development: how often a dangerous row of one source ranks above a harmless row of another (AUC over pairs of sources of one language).
Sources of one kind form a group. A group is then left out: the candidate that is best on the others is chosen, a threshold is set on the
others (the most sources' rows decided rightly), and both are tried on the group. What wins on development sources need not win there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from benchmarks.gate_sources import DIRECT

from genba_llm.classifier import Classifier
from genba_llm.classifier_fit import L2, Row, balanced, fit_on
from genba_llm.features import FeatureConfig, matrix
from genba_llm.fusion import Fusion, signals_of
from genba_llm.gate_metrics import auroc
from genba_llm.normalise import normalise
from genba_llm.verdict import Decision

GROUPS = {
    "direct harm": DIRECT,
    "cyberseceval injections": ("cyberseceval_injection", "cyberseceval_injection_ja"),
    "xsafety crimes": ("xsafety_crimes_en", "xsafety_crimes_ja"),
    "xsafety ethics": ("xsafety_ethics_en", "xsafety_ethics_ja"),
    "cyberseceval harmless": ("cyberseceval_benign", "cyberseceval_benign_ja"),
}
_PENALTIES = (L2 / 3, L2 * 3)
_LANGUAGES = ("en", "ja")
Scores = Mapping[str, npt.NDArray[np.float64]]  # by source, (N,) each: 1 − P(ALLOW)


@dataclass(frozen=True)
class Source:
    """A public set as it is judged: all of its rows are of one kind and of one language."""

    name: str
    language: str
    dangerous: bool

    @property
    def group(self) -> str:
        return next((group for group, names in GROUPS.items() if self.name in names), self.name)


def sources_of(sets: Mapping[str, Sequence[Row]]) -> list[Source]:
    """The sets that have rows."""
    return [Source(name, rows[0].language, rows[0].decision > 0) for name, rows in sets.items() if rows]


def scored(sets: Mapping[str, Sequence[Row]], classifier: Classifier, fusion: Fusion) -> Scores:
    """Every row as the fused gate sees it."""

    def danger(row: Row) -> float:
        return 1.0 - float(fusion.of_text(signals_of(normalise(row.text), classifier))[Decision.ALLOW])

    return {name: np.array([danger(row) for row in rows]) for name, rows in sets.items() if rows}


def area_by_group(sources: Sequence[Source], scores: Scores) -> dict[str, float]:
    """For each group the mean AUC of its sources, each against every source of the other kind in its language."""
    areas: dict[str, list[float]] = {}
    for one in sources:
        for other in sources:
            if one.dangerous and not other.dangerous and one.language == other.language:
                truth = np.arange(len(scores[one.name]) + len(scores[other.name])) < len(scores[one.name])
                area = auroc(truth, np.concatenate([scores[one.name], scores[other.name]]))
                for each in (one, other):
                    areas.setdefault(each.group, []).append(area)
    return {group: float(np.mean(found)) for group, found in areas.items()}


def right_when_left_out(sources: Sequence[Source], scores: Scores) -> dict[str, float]:
    """For each group the share of its rows decided rightly, with the threshold of a language that is best on the other groups."""
    right: dict[str, list[float]] = {}
    for language in _LANGUAGES:
        some = [source for source in sources if source.language == language]
        for group in dict.fromkeys(source.group for source in some):
            others = [source for source in some if source.group != group]
            candidates = np.quantile(
                np.concatenate([scores[each.name] for each in others]), np.linspace(0.01, 0.99, 99)
            )
            means = [_balanced_right(others, scores, float(at)) for at in candidates]
            best = float(candidates[int(np.argmax(means))])
            left = [source for source in some if source.group == group]
            right.setdefault(group, []).extend(_share_right(source, scores, best) for source in left)
    return {group: float(np.mean(found)) for group, found in right.items()}


def _share_right(source: Source, scores: Scores, threshold: float) -> float:
    return float(((scores[source.name] >= threshold) == source.dangerous).mean())


def _balanced_right(sources: Sequence[Source], scores: Scores, threshold: float) -> float:
    """The mean over the dangerous sources and that over the harmless ones count alike."""
    kinds = [[_share_right(s, scores, threshold) for s in sources if s.dangerous is kind] for kind in (True, False)]
    return float(np.mean([np.mean(shares) for shares in kinds if shares]))


def report(sets: Mapping[str, Sequence[Row]], candidates: Mapping[str, tuple[Classifier, Fusion]]) -> None:
    """Mean and worst group of every candidate, and what the choice by the other groups brings on the one left out."""
    sources = sources_of(sets)
    areas, rights = {}, {}
    print(f"## Leave a group of sources out: {len(sources)} sources, {len({s.group for s in sources})} groups")
    print(
        "| candidate | AUC, mean | AUC, worst group | right with the others' threshold, mean | worst |\n|---|---|---|---|---|"
    )
    for name in ("all safe", "all unsafe"):
        constant = {source.name: np.zeros(len(sets[source.name])) for source in sources}
        decided = [float(source.dangerous is (name == "all unsafe")) for source in sources]
        print(
            f"| {name} | {np.mean(list(area_by_group(sources, constant).values())):.3f} | .500 | {np.mean(decided):.3f} | .000 |"
        )
    for name, pair in candidates.items():
        scores = scored(sets, *pair)
        areas[name], rights[name] = area_by_group(sources, scores), right_when_left_out(sources, scores)
        cells = [
            f"{np.mean(list(each.values())):.4f} | {min(each.values()):.3f}" for each in (areas[name], rights[name])
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if len(candidates) > 1:
        _report_choices(areas, rights, first=next(iter(candidates)))


def _report_choices(
    areas: Mapping[str, Mapping[str, float]], rights: Mapping[str, Mapping[str, float]], *, first: str
) -> None:
    """For each group left out: the candidate that is best on the others, beside the first one."""
    print(
        f"\n| left out | chosen by the others | its AUC here | {first} | its share right | {first} |\n|---|---|---|---|---|---|"
    )
    for group in areas[first]:
        chosen = max(areas, key=lambda name: np.mean([v for each, v in areas[name].items() if each != group]))
        print(
            f"| {group} | {chosen} | {areas[chosen][group]:.3f} | {areas[first][group]:.3f} | {rights[chosen][group]:.3f} | {rights[first][group]:.3f} |"
        )


def variants(rows: Sequence[Row], *, most: int, fusion: Fusion, module: str) -> dict[str, tuple[Classifier, Fusion]]:
    """Regressions on ``most`` of the rows: on all, with other penalties, without each module, and without each part of ``module``.

    Features are computed once.
    """
    config = FeatureConfig()
    kept = random.Random(0).sample(list(rows), min(most, len(rows)))
    found = matrix([row.text for row in kept], config)
    modules = np.array([row.source.removeprefix("genba-") for row in kept])
    parts = np.array([_part_of(row) for row in kept])

    def trained(is_in: npt.NDArray[np.bool_], l2: float) -> tuple[Classifier, Fusion]:
        some = balanced([row for row, keep in zip(kept, is_in, strict=True) if keep])
        return fit_on(some, found[is_in], config=config, l2=l2, version="variant"), fusion

    every = np.ones(len(kept), bool)
    made = {"all parts": trained(every, L2)}
    made |= {f"penalty {l2:.0e}": trained(every, l2) for l2 in _PENALTIES}
    made |= {f"without {each}": trained(modules != each, L2) for each in sorted(set(modules.tolist()))}
    some = sorted(set(parts[modules == module].tolist()))
    return made | {f"without {part}": trained(parts != part, L2) for part in some}


def _part_of(row: Row) -> str:
    """The part of the generator: its module and the kind of row there."""
    module, (first, *rest) = row.source.removeprefix("genba-"), row.family.split("/")[1:]
    return f"{module}/{rest[0] if first in {'long', 'life'} or module == 'workplace' else first}"
