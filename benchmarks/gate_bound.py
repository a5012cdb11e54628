"""Whether the gate allows no more dangerous requests than its conformal bound states, in each language.

The bound is owed for requests like the calibration rows, so that is what is tested: a classifier is trained without a fifth of
the subjects, its fusion is calibrated on half of those and measured on the other half, both mixed with new rows about known
subjects as the champion's calibration mixes them. Beside it stands the same fusion with one threshold for both languages.
Other sources are another question: ``gate_quality`` prints what comes through there.
Run: python -m benchmarks.gate_bound [--seeds N]
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from genba_llm.build_champion import calibration_rows, held_by_subject, mean_fit, split_by_subject, training_rows
from genba_llm.features import FeatureConfig, matrix
from genba_llm.fusion import signals_of
from genba_llm.fusion_fit import fit_fusion, partly_disguised
from genba_llm.normalise import normalise
from genba_llm.verdict import Decision


def measured(seed: int) -> list[tuple[str, bool, bool, float, float]]:
    """(language, dangerous, disguised, allowed as 0 or 1, allowed with one threshold for both languages) of each test row."""
    rows, config = training_rows(), FeatureConfig()
    held = np.array([held_by_subject(row, share=0.2, seed=seed) for row in rows])
    seen = [row for row, out in zip(rows, held, strict=True) if not out]
    found = matrix([row.text for row in seen], config)
    classifier = mean_fit(seen, found, config=config, version="held-out")
    unseen = [row for row, out in zip(rows, held, strict=True) if out]
    calibrate, test = split_by_subject(unseen, share=0.5, seed=seed + 1)
    fusion, _ = fit_fusion(calibration_rows(seen, calibrate, seed), classifier, seed=seed)
    one = replace(fusion, language_allow_from={})
    print(f"seed {seed}: ALLOW from {fusion.allow_from:.3f}, {dict(fusion.language_allow_from)}", flush=True)
    tested = calibration_rows(seen, test, seed + 100)
    made: list[tuple[str, bool, bool, float, float]] = []
    for row, text in zip(tested, partly_disguised(tested, seed + 100), strict=True):
        signals = signals_of(normalise(text), classifier)
        decided = [each.decide(signals).decision is Decision.ALLOW for each in (fusion, one)]
        made.append((signals.language or "", row.decision > 0, signals.disguised, float(decided[0]), float(decided[1])))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    found = [each for seed in range(1, parser.parse_args().seeds + 1) for each in measured(seed)]
    print(
        "| language | disguised | dangerous rows | allowed (stated ≤ .05) | with one threshold | harmless held | with one |"
    )
    print("|---|---|---|---|---|---|---|")
    for language in ("en", "ja"):
        for disguised in (False, True):
            some = [each for each in found if each[0] == language and each[2] == disguised]
            bad = np.array([each[3:] for each in some if each[1]])  # (N, 2)
            good = 1 - np.array([each[3:] for each in some if not each[1]])
            error = 1.96 * np.sqrt(bad.mean(0) * (1 - bad.mean(0)) / len(bad))
            print(
                f"| {language} | {'yes' if disguised else 'no'} | {len(bad)} | {bad[:, 0].mean():.3f} ± {error[0]:.3f}"
                f" | {bad[:, 1].mean():.3f} ± {error[1]:.3f} | {good[:, 0].mean():.3f} | {good[:, 1].mean():.3f} |"
            )


if __name__ == "__main__":
    main()
