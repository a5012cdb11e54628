"""Learn how the numbers of ``genba_sop.evidence`` weigh, and say how well that holds for a procedure that was not learnt from.

Protocol. Generated runs of two procedures (oil change and brake pad, the tuning and validation seeds of
``sop_deviations.py``), against three and five golds; every step that was done is one row. A multinomial logistic regression
with an L2 penalty is fitted on one procedure and tried on the other, then fitted on both: those weights stand in
``evidence.WEIGHTS``. The third procedure (PPE) and the test seeds are not touched.

Run: python benchmarks/sop_manner.py [--cache FOLDER]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from genba_sop import data, evidence
from genba_sop.deviations import numbers_of
from genba_sop.reference import Gold, Reference, fit

if TYPE_CHECKING:
    from benchmarks.sop_deviations import TUNING, VALIDATION, Corpus, Sample, make
else:  # beside this script
    from sop_deviations import TUNING, VALIDATION, Corpus, Sample, make

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PROCEDURES = ("oil_change", "brake_pad")
LEARNT = ("wrong_tool", "execution")
PENALTY = 2.0


@dataclass(frozen=True)
class Rows:
    """One row for each step done. given: (n, 16) as ``evidence.numbers``.   truth: (n,) 0 as always, 1 object, 2 manner."""

    given: Floats
    truth: Ints


def rows_of(reference: Reference, samples: list[Sample]) -> Rows:
    """The rows of these runs; steps with another deviation are left out."""
    given, truth = [], []
    for sample in samples:
        planted = {t.step_id: t.kind for t in sample.truth if t.step_id}
        found = numbers_of(reference, sample.features)
        for step_id, row in found.items():
            kind = planted.get(step_id)
            if kind is None or kind in LEARNT:
                given.append(row)
                truth.append(0 if kind is None else 1 + LEARNT.index(kind))
    return Rows(np.array(given), np.array(truth))


def learn(rows: Rows) -> Floats:
    """(16, 2) weights of the two kinds against neither."""
    classes, width = 3, rows.given.shape[1]
    wanted = np.eye(classes)[rows.truth]

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(width, classes)
        probs = _probs(rows.given @ weights)
        slope = rows.given.T @ (probs - wanted)
        slope[:-1] += PENALTY * weights[:-1]
        likelihood = float(np.log(probs[np.arange(len(wanted)), rows.truth] + 1e-12).sum())
        return 0.5 * PENALTY * float(np.square(weights[:-1]).sum()) - likelihood, slope.ravel()

    found = minimize(loss, np.zeros(width * classes), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    weights: Floats = found.x.reshape(width, classes)
    return weights[:, 1:] - weights[:, :1]


def _probs(odds: Floats) -> Floats:
    lifted = np.exp(odds - odds.max(axis=1, keepdims=True))
    probs: Floats = lifted / lifted.sum(axis=1, keepdims=True)
    return probs


def f1(rows: Rows, weights: Floats) -> list[float]:
    """F1 of each kind, a step counting when its kind is likelier than neither and than the other."""
    odds = np.column_stack([np.zeros(len(rows.given)), rows.given @ weights])
    probs = _probs(odds)
    guess = np.where(probs[:, 0] > 0.5, 0, 1 + probs[:, 1:].argmax(axis=1))
    found = []
    for kind in (1, 2):
        right = int(((guess == kind) & (rows.truth == kind)).sum())
        found.append(2 * right / max(1, int((guess == kind).sum() + (rows.truth == kind).sum())))
    return found


def main() -> None:
    """Print what was learnt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=None, help="where videos and features are kept")
    default = Path(os.environ.get("XDG_CACHE_HOME", tempfile.gettempdir())) / "genba-sop-deviations"
    folder = parser.parse_args().cache or default
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[Rows]] = {kind: [] for kind in PROCEDURES}
    for golds in (3, 5):
        for kind in PROCEDURES:
            parts = []
            for seed in (TUNING, VALIDATION):
                corpus = Corpus(folder, seed)
                samples = make(corpus, [kind], 70, golds=golds)
                shown = [Gold(s.features, s.spans) for s in corpus.golds(kind, golds)]
                parts.append(rows_of(fit(data.procedure(kind), shown), samples))
            rows[kind].append(_joined(parts))
    joined = {kind: _joined(rows[kind]) for kind in PROCEDURES}
    print(f"{'learnt from':<14}{'tried on':<14}{'wrong object F1':>16}{'manner F1':>12}")
    for kind, other in (PROCEDURES, PROCEDURES[::-1]):
        for golds, part in zip((3, 5), rows[other], strict=True):
            scores = f1(part, learn(joined[kind]))
            print(f"{kind:<14}{other + f', {golds}':<14}{scores[0]:>16.3f}{scores[1]:>12.3f}")
    weights = learn(_joined(list(joined.values())))
    print("\nWEIGHTS, of both procedures")
    for name, (item, action) in zip((*evidence.NAMES, "constant"), weights, strict=True):
        print(f"    ({item:.2f}, {action:.2f}),  # {name}")


def _joined(parts: list[Rows]) -> Rows:
    return Rows(np.concatenate([p.given for p in parts]), np.concatenate([p.truth for p in parts]))


if __name__ == "__main__":
    main()
