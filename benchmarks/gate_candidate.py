"""A champion that was not taken, built and measured as though it shipped: rows of everyday life and passages, and 18 concepts more.

    python -m benchmarks.gate_candidate FOLDER [--sentences .5] [--stands-out 2] [--undone-from 0] [options of gate_quality]

Builds the bundle where FOLDER holds none (four CPU minutes), then asks ``gate_quality`` of it. What it learns is written by
``gate_everyday`` from ``gate_candidate_words``. docs/explanation/gate.md says what came out and why it does not ship.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from benchmarks import gate_quality
from benchmarks.gate_everyday import Amounts, life_rows

from genba_llm import build_champion as champion
from genba_llm import concepts, contrast, fusion
from genba_llm.classifier import Classifier
from genba_llm.classifier_fit import balanced, fit_on
from genba_llm.features import FeatureConfig, matrix
from genba_llm.fusion import FUSION, load_fusion
from genba_llm.fusion_fit import fit_fusion

_WORDS = Path(__file__).parent / "gate_candidate_words"


def lay_over(folder: Path) -> None:
    """The shipped lexicons in ``folder``, with the candidate's beside them and its concepts at the end of theirs."""
    for path in contrast.LEXICON.glob("*.yaml"):
        (folder / path.name).write_text(path.read_text("utf-8"), "utf-8")
    for path in _WORDS.glob("*.yaml"):
        with (folder / path.name).open("a", encoding="utf-8") as file:
            file.write(path.read_text("utf-8"))


def build(folder: Path) -> None:
    """Train on all rows in one regression, calibrate as the champion is calibrated, and write the bundle."""
    seed, config = champion.SEED, FeatureConfig()
    rows = champion.training_rows(more=life_rows(seed))
    version = f"candidate-{champion.data_hash(rows)[:12]}"
    found = matrix([row.text for row in rows], config)
    is_held = np.array([champion.held_by_subject(row, share=champion.HELD_SHARE, seed=seed) for row in rows])
    seen = [row for row, held in zip(rows, is_held, strict=True) if not held]
    unseen = [row for row, held in zip(rows, is_held, strict=True) if held]
    first = fit_on(balanced(seen), found[~is_held], config=config, version=version)
    fresh = life_rows(seed + 1, Amounts().scaled(0.1))
    fitted, _ = fit_fusion(champion.calibration_rows(seen, unseen, seed, more=fresh), first, seed=seed)
    whole = fit_on(balanced(rows), found, config=config, version=version)
    champion.save_bundle(folder, whole, fitted, source="gate_candidate", seed=seed, rows=len(rows))


def main() -> int:
    """Build where nothing is, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--sentences", type=float, default=0.5, help="the odds of the worst of n sentences rise by n to this"
    )
    parser.add_argument("--stands-out", type=float, default=2.0, help="how many times as dangerous as the next")
    parser.add_argument("--undone-from", type=float, default=0.0, help="least P(ALLOW) where a disguise was undone")
    args, others = parser.parse_known_args()
    fusion.SENTENCE_SHARE, fusion.STANDS_OUT = args.sentences, args.stands_out
    with tempfile.TemporaryDirectory() as words:
        lay_over(Path(words))
        with mock.patch.object(contrast, "LEXICON", Path(words)), mock.patch.object(concepts, "_LEXICON", Path(words)):
            if not (args.folder / FUSION).exists():
                build(args.folder)
            fitted = load_fusion(args.folder)
            fitted = replace(fitted, disguised_allow_from=max(fitted.disguised_allow_from, args.undone_from)).named()
            bundle = Classifier.load(args.folder)
            sys.argv = [sys.argv[0], *others]
            with mock.patch.multiple(gate_quality, champion=lambda: bundle, default_fusion=lambda: fitted):
                return gate_quality.main()


if __name__ == "__main__":
    sys.exit(main())
