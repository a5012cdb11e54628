"""Train the champion that ships: ``python -m genba_llm.build_champion [folder]``. From the project's own generator alone.

Nothing is downloaded and no data set is read, so that what ships carries nobody else's licence, and anybody can make it
again: the seed, the lexicons and this code decide it. The weights are the mean of two regressions, on all rows and on the
short ones: on sources that neither saw, the mean errs less than each. The fusion is calibrated with a classifier that did
not see a fifth of the subjects (acts, things, people), on rows about those and on new rows about the others; then the
classifier is trained on all.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from genba_llm.classifier import CHAMPION, Classifier
from genba_llm.classifier_fit import L2, Row, balanced, fit_logistic, quantise
from genba_llm.compositions import SOURCE as LONG
from genba_llm.compositions import Amounts, compose
from genba_llm.contrast import Recipe, generate
from genba_llm.features import FeatureConfig, matrix, reading
from genba_llm.fusion import FUSION, Fusion
from genba_llm.fusion_fit import Calibration, fit_fusion
from genba_llm.kana import hiragana_of
from genba_llm.verdict import Decision
from genba_llm.workplace import Amounts as WorkAmounts
from genba_llm.workplace import work_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SEED = 20260101
CALIBRATION_ROWS = 6000
HELD_SHARE = 0.2
_KANA_SHARE = 0.2
_LONGEST_IN_KANA = 80
_SHARE_OF_SHORT = 0.3  # of the mean; chosen on the development sources, of 0, .25, .4, .5 and 1


@dataclass(frozen=True)
class Built:
    """A classifier with its fusion, and what is known of the rows that made them."""

    classifier: Classifier
    fusion: Fusion
    calibration: Calibration
    rows: int
    data_hash: str

    def save(self, folder: Path, **more: object) -> None:
        """Write both into ``folder``, one bundle."""
        known = {"data_hash": self.data_hash, "rows": self.rows, "calibration": vars(self.calibration)}
        save_bundle(folder, self.classifier, self.fusion, **known, **more)


def build(
    rows: Sequence[Row],
    *,
    name: str = "champion",
    seed: int = SEED,
    config: FeatureConfig | None = None,
    step: Callable[[int, float], None] | None = None,
) -> Built:
    """Train and calibrate on ``rows``. Raises: ValueError with too few decisions or too few dangerous rows."""
    digest = data_hash(rows)
    version = f"{name}-{digest[:12]}"
    config = config or FeatureConfig()
    found = matrix([row.text for row in rows], config)
    is_held = np.array([held_by_subject(row, share=HELD_SHARE, seed=seed) for row in rows])
    seen = [row for row, held in zip(rows, is_held, strict=True) if not held]
    unseen = [row for row, held in zip(rows, is_held, strict=True) if held]
    first = mean_fit(seen, found[~is_held], config=config, version=version, step=step)
    fusion, calibration = fit_fusion(calibration_rows(seen, unseen, seed), first, seed=seed)
    whole = mean_fit(rows, found, config=config, version=version, step=step)
    return Built(whole, fusion, calibration, len(rows), digest)


def mean_fit(
    rows: Sequence[Row],
    found: csr_matrix,
    *,
    config: FeatureConfig,
    version: str,
    step: Callable[[int, float], None] | None = None,
) -> Classifier:
    """The mean of two regressions, on all rows and without the long ones; ``found``: (N, D) the rows' features.

    Raises: ValueError without rows of at least two decisions.
    """
    weights, bias = np.zeros((config.size, len(Decision))), np.zeros(len(Decision))
    is_short = np.array([row.source != LONG for row in rows])
    for share, kept in ((1 - _SHARE_OF_SHORT, np.ones_like(is_short)), (_SHARE_OF_SHORT, is_short)):
        some = balanced([row for row, is_in in zip(rows, kept, strict=True) if is_in])
        labels = np.array([int(row.decision) for row in some], np.int64)
        counts = np.array([row.weight for row in some])
        one = fit_logistic(found[kept], labels, counts, l2=L2, step=step)
        weights, bias = weights + share * one[0], bias + share * one[1]
    return quantise(weights, bias, config=config, version=version)


def calibration_rows(seen: Sequence[Row], unseen: Sequence[Row], seed: int, *, more: Sequence[Row] = ()) -> list[Row]:
    """What the fusion is calibrated on: two thirds rows about subjects that the classifier did not see, one third rows about
    subjects that it did, made with another seed; none of their texts was trained on. ``more``: fresh rows of other generators.
    """
    rng = random.Random(seed)  # noqa: S311
    new = rng.sample(unseen, min(2 * CALIBRATION_ROWS // 3, len(unseen)))
    texts, subjects = {row.text for row in seen}, {row.subject for row in seen}
    short = generate(seed + 1, Recipe(2, 2, 1, 1, 2, 2, 800, 60)) + work_rows(seed + 1, WorkAmounts().scaled(0.1))
    fresh = short + compose(seed + 1, Amounts().scaled(0.1)) + list(more)
    known = [row for row in fresh if row.subject in subjects and row.text not in texts]
    return new + rng.sample(known, min(len(new) // 2, len(known)))


def save_bundle(folder: Path, classifier: Classifier, fusion: Fusion, **more: object) -> None:
    """Write both into ``folder``; ``more`` goes into the manifest."""
    classifier.save(folder, more=more)
    (folder / FUSION).write_text(json.dumps(fusion.to_json(), indent=1) + "\n", "utf-8")


def training_rows(seed: int = SEED, *, more: Sequence[Row] = ()) -> list[Row]:
    """The generators' rows, short, long and of work, and those of others; a share of the Japanese ones that are not too long
    once more in kana alone.
    """
    rows = [*generate(seed), *compose(seed), *work_rows(seed), *more]
    rng = random.Random(seed)  # noqa: S311
    short = [row for row in rows if row.language == "ja" and len(row.text) <= _LONGEST_IN_KANA]
    kana = [
        Row(hiragana_of(reading(row.text)), row.decision, row.source, row.family, row.subject, "ja")
        for row in short
        if rng.random() < _KANA_SHARE
    ]
    found = [*rows, *kana]
    rng.shuffle(found)
    return found


def split_by_subject(rows: Sequence[Row], *, share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows of most subjects, and rows of a ``share`` of them; no subject is in both."""
    held = [held_by_subject(row, share=share, seed=seed) for row in rows]
    return [r for r, h in zip(rows, held, strict=True) if not h], [r for r, h in zip(rows, held, strict=True) if h]


def held_by_subject(row: Row, *, share: float, seed: int) -> bool:
    """Whether the row's subject is one of the ``share`` that is held out."""
    digest = hashlib.sha256(f"{seed}\t{row.subject or row.text}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def data_hash(rows: Sequence[Row]) -> str:
    """SHA-256 over texts and labels, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{int(row.decision)}\t{row.text}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


if __name__ == "__main__":
    made = build(training_rows())
    made.save(
        Path(sys.argv[1]) if len(sys.argv) > 1 else CHAMPION,
        source="genba_llm.contrast, genba_llm.compositions, genba_llm.workplace",
        seed=SEED,
    )
    sys.stdout.write(
        f"{made.classifier.version}: {made.rows} rows, {made.calibration}, {Decision.ALLOW.name} from {made.fusion.allow_from:.3f}\n"
    )
