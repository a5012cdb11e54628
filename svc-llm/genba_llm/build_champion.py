"""Train the champion that ships: ``python -m genba_llm.build_champion [folder]``. From the project's own generator alone.

Nothing is downloaded and no data set is read, so that what ships carries nobody else's licence, and anybody can make it
again: the seed, the lexicons and this code decide it. The fusion is calibrated with a classifier that did not see a fifth of
the subjects (acts, things, people), on rows about those and on new rows about the others; then the classifier is trained on all.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from genba_llm.classifier import CHAMPION, Classifier
from genba_llm.classifier_fit import Row, balanced, fit
from genba_llm.compositions import Amounts, compose
from genba_llm.contrast import Recipe, generate
from genba_llm.features import FeatureConfig, reading
from genba_llm.fusion import FUSION, Fusion
from genba_llm.fusion_fit import Calibration, fit_fusion
from genba_llm.kana import hiragana_of
from genba_llm.verdict import Decision

SEED = 20260101
CALIBRATION_ROWS = 6000
_HELD_SHARE = 0.2
_KANA_SHARE = 0.2
_LONGEST_IN_KANA = 80


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
    seen, unseen = split_by_subject(rows, share=_HELD_SHARE, seed=seed)
    first = fit(balanced(seen), config=config, version=version, step=step)
    held = calibration_rows(seen, unseen, seed)
    fusion, calibration = fit_fusion(held, first, version=f"fusion-{digest[:12]}", seed=seed)
    return Built(fit(balanced(rows), config=config, version=version, step=step), fusion, calibration, len(rows), digest)


def calibration_rows(seen: Sequence[Row], unseen: Sequence[Row], seed: int) -> list[Row]:
    """What the fusion is calibrated on: two thirds rows about subjects that the classifier did not see, one third rows about
    subjects that it did, made with another seed; none of their texts was trained on.
    """
    rng = random.Random(seed)  # noqa: S311
    new = rng.sample(unseen, min(2 * CALIBRATION_ROWS // 3, len(unseen)))
    texts, subjects = {row.text for row in seen}, {row.subject for row in seen}
    fresh = generate(seed + 1, Recipe(2, 2, 1, 1, 2, 2, 800, 60)) + compose(seed + 1, Amounts().scaled(0.1))
    known = [row for row in fresh if row.subject in subjects and row.text not in texts]
    return new + rng.sample(known, min(len(new) // 2, len(known)))


def save_bundle(folder: Path, classifier: Classifier, fusion: Fusion, **more: object) -> None:
    """Write both into ``folder``; ``more`` goes into the manifest."""
    classifier.save(folder, more=more)
    (folder / FUSION).write_text(json.dumps(fusion.to_json(), indent=1) + "\n", "utf-8")


def training_rows(seed: int = SEED) -> list[Row]:
    """The generators' rows, short and long, and a share of the Japanese ones that are not too long once more in kana alone."""
    rows = [*generate(seed), *compose(seed)]
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

    def is_held(row: Row) -> bool:
        digest = hashlib.sha256(f"{seed}\t{row.subject or row.text}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:4], "big") < share * 2**32

    held = [is_held(row) for row in rows]
    return [r for r, h in zip(rows, held, strict=True) if not h], [r for r, h in zip(rows, held, strict=True) if h]


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
        source="genba_llm.contrast, genba_llm.compositions",
        seed=SEED,
    )
    sys.stdout.write(
        f"{made.classifier.version}: {made.rows} rows, {made.calibration}, {Decision.ALLOW.name} from {made.fusion.allow_from:.3f}\n"
    )
