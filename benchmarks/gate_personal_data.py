"""Japanese personal data: precision and recall by kind, on numbers as they are written and as they are read aloud.

Beside each kind's own near-misses (wrong check digits, part numbers), so that "everything is personal data" would show.
Usage: python benchmarks/gate_personal_data.py [--rows 1000]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable

from genba_llm.personal_data import Kind, find_personal_data
from genba_llm.personal_data_samples import (
    MEASURED_KINDS,
    SPOKEN_KINDS,
    Sample,
    near_miss,
    sample,
    spoken_near_miss,
    spoken_sample,
)

Make = Callable[[Kind, random.Random], Sample]


def measure(kind: Kind, make: Make, miss: Make, rows: int) -> tuple[float, float, int]:
    """Precision, recall, and how many near-misses were taken for ``kind``, over ``rows`` of each."""
    rng = random.Random(f"personal data {kind}")
    hits = false = missed = 0
    for _ in range(rows):
        made = make(kind, rng)
        spans = [(each.start, each.end) for each in find_personal_data(made.text) if each.kind == kind]
        end = made.start + len(made.value)
        hits += any(start <= made.start and stop >= end for start, stop in spans)
        false += sum(stop <= made.start or start >= end for start, stop in spans)
        missed += any(each.kind == kind for each in find_personal_data(miss(kind, rng).text))
    found = hits + false + missed
    return (hits / found if found else 0.0), hits / rows, missed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1000)
    rows = parser.parse_args().rows
    print(f"{'kind':18}  written: precision  recall  near-misses   aloud: precision  recall  near-misses")
    for kind in MEASURED_KINDS:
        written = measure(kind, sample, near_miss, rows)
        line = f"{kind:18}  {written[0]:18.3f}  {written[1]:6.3f}  {written[2]:11d}"
        if kind in SPOKEN_KINDS:
            aloud = measure(kind, spoken_sample, spoken_near_miss, rows)
            line += f"   {aloud[0]:16.3f}  {aloud[1]:6.3f}  {aloud[2]:11d}"
        print(line)


if __name__ == "__main__":
    main()
