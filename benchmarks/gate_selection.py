"""Which classifier to ship, chosen without the sources that it is judged on: ``gate_quality --leave-sources-out``.

Candidates are the champion, bundles beside it, and regressions on a share of the generated rows: on all of them, with other
penalties, without each module of the generator in turn, and without each part of one module (``--parts``). Each is judged on every
source whose sums were ever looked at, in both languages, long passages among them: how often a dangerous row of one source ranks
above a harmless row of another (AUC over pairs of sources of one language). Sources of one origin and kind form a group. A group is
then left out: the candidate that is best on the others is chosen, a threshold is set on the others (the most rows decided
rightly, each group counting alike), and both are tried on the group. That nested figure is the honest estimate for a source
that nobody has seen; what wins on the sources it was chosen on need not win there.
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
    "direct harm": (*DIRECT, "refusal_direction_harmful_train", "refusal_direction_harmful_val"),
    "everyday instructions": ("refusal_direction_harmless", "refusal_direction_harmless_val"),
    "cyberseceval injections": ("cyberseceval_injection", "cyberseceval_injection_ja"),
    "cyberseceval harmless": ("cyberseceval_benign", "cyberseceval_benign_ja"),
    "mtbench ja": ("mtbench_ja", "mtbench_ja_second_turns"),
    "jcommonsenseqa": ("jcommonsenseqa", "jcommonsenseqa_train"),
}
_IN_BOTH = "xsafety_"  # a kind of these is one group, whatever its language
_PENALTIES = (L2 / 3, L2 * 3)
_LANGUAGES = ("en", "ja")
_DRAWS = 2000
Scores = Mapping[str, npt.NDArray[np.float64]]  # by source, (N,) each: 1 − P(ALLOW)
ByGroup = Mapping[str, float]


@dataclass(frozen=True)
class Source:
    """A public set as it is judged: all of its rows are of one kind and of one language."""

    name: str
    language: str
    dangerous: bool

    @property
    def group(self) -> str:
        kind = self.name.removesuffix(f"_{self.language}") if self.name.startswith(_IN_BOTH) else self.name
        return next((group for group, names in GROUPS.items() if self.name in names), kind).replace("_", " ")


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
    """The dangerous groups and the harmless ones count alike, and each group as much as the next of its kind."""
    found = []
    for kind in (True, False):
        groups: dict[str, list[float]] = {}
        for source in sources:
            if source.dangerous is kind:
                groups.setdefault(source.group, []).append(_share_right(source, scores, threshold))
        if groups:
            found.append(np.mean([np.mean(shares) for shares in groups.values()]))
    return float(np.mean(found))


def chosen_by_the_others(measured: Mapping[str, tuple[ByGroup, ByGroup]]) -> dict[str, str]:
    """For each group the candidate whose mean of AUC and share right is best on all the other groups."""

    def mean_without(name: str, group: str) -> float:
        return float(
            np.mean([[found[each] for found in measured[name]] for each in measured[name][0] if each != group])
        )

    groups = next(iter(measured.values()))[0]
    return {group: max(measured, key=lambda name: mean_without(name, group)) for group in groups}


def report(sets: Mapping[str, Sequence[Row]], candidates: Mapping[str, tuple[Classifier, Fusion]]) -> None:
    """Mean and worst group of every candidate, each group beside the first candidate, and what choosing by the others brings."""
    sources = sources_of(sets)
    groups = list(dict.fromkeys(source.group for source in sources))
    print(f"## Leave a group of sources out: {len(sources)} sources, {len(groups)} groups")
    print(
        "| candidate | AUC, mean | AUC, worst group | right with the others' threshold, mean | worst |\n|---|---|---|---|---|"
    )
    for name in ("all safe", "all unsafe"):
        right = [
            np.mean([s.dangerous is (name == "all unsafe") for s in sources if s.group == group]) for group in groups
        ]
        print(f"| {name} | .500 | .500 | {np.mean(right):.3f} | .000 |")
    measured: dict[str, tuple[ByGroup, ByGroup]] = {}
    for name, pair in candidates.items():
        scores = scored(sets, *pair)
        measured[name] = area_by_group(sources, scores), right_when_left_out(sources, scores)
        cells = [
            f"{np.mean(list(found.values())):.4f} | {min(found.values()):.3f} ({min(found, key=lambda group: found[group])})"
            for found in measured[name]
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if len(measured) > 1:
        _report_choices(measured, first=next(iter(measured)))
    _report_groups(measured)


def _report_choices(measured: Mapping[str, tuple[ByGroup, ByGroup]], *, first: str) -> None:
    """The nested figures: what is chosen without a group, tried on it; and each candidate's gain over the first one."""
    chosen = chosen_by_the_others(measured)
    print("\nChosen by the other groups, tried on the one left out (mean over groups):")
    for which, title in enumerate(("AUC", "right with the others' threshold")):
        nested = np.mean([measured[name][which][group] for group, name in chosen.items()])
        alone = np.mean(list(measured[first][which].values()))
        print(f"- {title}: {nested:.4f}; {first} {alone:.4f}")
    print(
        f"\n| gain over {first}, mean over groups (95 % over groups) | AUC | right | chosen without how many groups |"
    )
    print("|---|---|---|---|")
    for name in measured:
        cells = []
        for which in (0, 1):
            gains = np.array([measured[name][which][group] - measured[first][which][group] for group in chosen])
            drawn = gains[np.random.default_rng(0).integers(0, len(gains), (_DRAWS, len(gains)))].mean(1)
            low, high = np.quantile(drawn, (0.025, 0.975))
            cells.append(f"{gains.mean():+.4f} ({low:+.4f} to {high:+.4f})")
        print(f"| {name} | {' | '.join(cells)} | {list(chosen.values()).count(name)} |")


def _report_groups(measured: Mapping[str, tuple[ByGroup, ByGroup]]) -> None:
    print(f"\n| group: AUC, share right | {' | '.join(measured)} |\n|{'---|' * (1 + len(measured))}")
    for group in next(iter(measured.values()))[0]:
        cells = [f"{areas[group]:.3f}, {rights[group]:.3f}" for areas, rights in measured.values()]
        print(f"| {group} | {' | '.join(cells)} |")


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
