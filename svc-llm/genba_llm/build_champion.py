"""Train the champion that ships: ``python -m genba_llm.build_champion [folder]``. From the project's own generator alone.

Nothing is downloaded and no data set is read, so that what ships carries nobody else's licence, and anybody can make it
again: the seed, the lexicons and this code decide every byte but for the last digits of the sums.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from genba_llm.classifier import CHAMPION
from genba_llm.classifier_fit import Row, fit
from genba_llm.contrast import generate

SEED = 20260101


def build(folder: Path, *, seed: int = SEED) -> None:
    """Write the bundle into ``folder``."""
    rows = generate(seed)
    found = fit(rows, version=f"champion-{data_hash(rows)[:12]}")
    found.save(
        folder, more={"data_hash": data_hash(rows), "rows": len(rows), "seed": seed, "source": "genba_llm.contrast"}
    )


def data_hash(rows: list[Row]) -> str:
    """SHA-256 over texts and labels, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{int(row.decision)}\t{row.text}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else CHAMPION)
