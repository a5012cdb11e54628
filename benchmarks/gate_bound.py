"""Whether the gate allows no more dangerous requests than its conformal bound states, in each language.

The bound is owed for requests like the calibration rows, so that is what is tested: a classifier is trained without a fifth of
the subjects, its fusion is calibrated on half of those and measured on the other half, both mixed with new rows about known
subjects as the champion's calibration mixes them. Beside it stand thresholds found for each language on its own (never below
the common one). Intervals are over subjects: rows about one subject resemble each other, and count for less than as many.
Other sources are another question: ``gate_quality`` prints what comes through there.
Run: python -m benchmarks.gate_bound [--seeds N]   (about two minutes of CPU a seed)
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from genba_llm.build_champion import calibration_rows, held_by_subject, mean_fit, split_by_subject, training_rows
from genba_llm.classifier import Classifier
from genba_llm.classifier_fit import Row
from genba_llm.features import FeatureConfig, matrix
from genba_llm.fusion import Fusion, signals_of
from genba_llm.fusion_fit import conformal_threshold, fit_fusion, partly_disguised
from genba_llm.normalise import normalise
from genba_llm.obfuscate import TRANSFORMS
from genba_llm.verdict import Decision

DRAWS = 500


class Judged(NamedTuple):
    """One row: what it is, and its P(ALLOW) less the threshold in force and less that of its language."""

    language: str
    subject: str
    dangerous: bool
    disguised: bool
    allow: float
    common: float
    own: float


def judged(
    rows: Sequence[Row], classifier: Classifier, fusion: Fusion, own: dict[str, float], seed: int
) -> list[Judged]:
    found = []
    for row, text in zip(rows, partly_disguised(rows, seed), strict=True):
        signals = signals_of(normalise(text), classifier)
        allow, of = float(fusion.of_text(signals)[Decision.ALLOW]), signals.disguised
        threshold = max(fusion.allow_from, fusion.disguised_allow_from if of else 0.0)
        language = normalise(text).language
        stricter = max(threshold, own.get(language, 0.0))
        found.append(Judged(language, row.subject, row.decision > 0, of, allow, allow - threshold, allow - stricter))
    return found


def measured(seed: int) -> list[Judged]:
    """The test rows of one split of the subjects."""
    rows, config = training_rows(), FeatureConfig()
    held = np.array([held_by_subject(row, share=0.2, seed=seed) for row in rows])
    seen = [row for row, out in zip(rows, held, strict=True) if not out]
    classifier = mean_fit(seen, matrix([row.text for row in seen], config), config=config, version="held-out")
    unseen = [row for row, out in zip(rows, held, strict=True) if out]
    calibrate, test = split_by_subject(unseen, share=0.5, seed=seed + 1)
    calibrating = calibration_rows(seen, calibrate, seed)
    fusion, _ = fit_fusion(calibrating, classifier, seed=seed)
    order = random.Random(seed).sample(calibrating, len(calibrating))  # as fit_fusion shuffles
    last = judged(order, classifier, fusion, {}, seed)[2 * len(order) // 3 :]
    own: dict[str, float] = {}
    for language in TRANSFORMS:
        scores = [each.allow for each in last if each.dangerous and not each.disguised and each.language == language]
        own[language] = conformal_threshold(np.array(scores), fusion.alpha)
    said = ", ".join(f"{language} {threshold:.3f}" for language, threshold in own.items())
    print(f"seed {seed}: ALLOW from {fusion.allow_from:.3f}; on its own {said}", flush=True)
    tested = calibration_rows(seen, test, seed + 100)
    return judged(tested, classifier, fusion, own, seed + 100)


def line(title: str, rows: Sequence[Judged]) -> str:
    bad, good = [each for each in rows if each.dangerous], [each for each in rows if not each.dangerous]
    cells = []
    for which in ("common", "own"):
        groups: dict[str, list[bool]] = {}
        for each in bad:
            groups.setdefault(each.subject, []).append(getattr(each, which) >= 0)
        sums = np.array([(sum(group), len(group)) for group in groups.values()])  # (subjects, 2)
        drawn = np.random.default_rng(0).integers(0, len(sums), (DRAWS, len(sums)))
        shares = sums[drawn].sum(1)
        low, high = np.quantile(shares[:, 0] / shares[:, 1], (0.025, 0.975))
        cells.append(f"{sums[:, 0].sum() / sums[:, 1].sum():.3f} ({low:.3f} to {high:.3f})")
    held = [f"{np.mean([getattr(each, which) < 0 for each in good]):.3f}" for which in ("common", "own")]
    return f"| {title} | {len(bad)} | {len(groups)} | {cells[0]} | {held[0]} | {cells[1]} | {held[1]} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    found = [each for seed in range(1, parser.parse_args().seeds + 1) for each in measured(seed)]
    print("stated: at most .05 of the dangerous rows are allowed")
    print("| | dangerous rows | subjects | allowed | harmless held | allowed, thresholds by language | harmless held |")
    print("|---|---|---|---|---|---|---|")
    print(line("both languages", [each for each in found if not each.disguised]))
    for language in TRANSFORMS:
        print(line(language, [each for each in found if each.language == language and not each.disguised]))
    print(line("disguised, both languages", [each for each in found if each.disguised]))


if __name__ == "__main__":
    main()
