"""Learn how the numbers of ``genba_sop.evidence`` weigh, and say how well that holds for a procedure that was not learnt from.

Protocol. Generated runs of four procedures (not the kit packing, on which nothing is chosen), of the tuning seeds: those of
``sop_deviations.py``, and others in which a third of the steps is done with another object or in another manner, for these are
rare there. Every step that was done is one row. There are two sets of weights: against three and five golds, and against one (each
of three in turn) and two. A multinomial logistic regression with an L2 penalty is fitted on all procedures but one and tried on
that one, then fitted on all. Those against few golds stand in ``evidence.WEIGHTS_OF_FEW``. ``WEIGHTS``, against many, are older (of
oil change and brake pad, 70 runs each of the tuning and validation seeds): what is learnt here was no better in its place. Only the
weight of ``for_good`` there is of these rows, the others held: of 0, 4, 6, 8, 10 … the one that finds most at few false alarms.
The test seeds are not touched.

Run: python benchmarks/sop_manner.py [--cache FOLDER]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from genba_sop import data, evidence
from genba_sop.data_plan import Plan, Planted, sample_conditions
from genba_sop.deviations import numbers_of
from genba_sop.evaluation import DeviationKind
from genba_sop.reference import Gold, Reference, fit

if TYPE_CHECKING:
    from benchmarks.sop_deviations import TUNING, Corpus, Sample, Wanted, fill
else:  # beside this script
    from sop_deviations import TUNING, Corpus, Sample, Wanted, fill

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PROCEDURES = ("oil_change", "brake_pad", "hand_wash", "ppe")
GOLDS = {"few": ((0,), (1,), (2,), (0, 1)), "many": ((0, 1, 2), (0, 1, 2, 3, 4))}  # which golds are shown
PLANNED, ALTERED = 36, 20  # runs of a procedure
LEARNT = ("wrong_tool", "execution")
PENALTY = 2.0
OBJECTS = 0.7  # of the altered steps that a tool can be swapped in


def altered_plans(kind: str, count: int, seed: int) -> list[Plan]:
    """Runs in which a third of the steps is done with another object or in another manner, no two of them neighbours."""
    acts = data.KINDS[kind].acts
    rng = np.random.default_rng((seed, 13))
    plans = []
    for _ in range(count):
        free, planted = set(range(len(acts))), list[Planted]()
        for at in sorted(rng.permutation(len(acts)).tolist(), key=lambda at: not acts[at].swaps):
            wanted: DeviationKind = "wrong_tool" if acts[at].swaps and rng.random() < OBJECTS else "execution"
            if at in free and len(planted) < len(acts) // 3 and (wanted == "wrong_tool" or acts[at].spoilable()):
                planted.append(Planted(wanted, acts[at].id, float(rng.choice([-1.0, 1.0]))))
                free -= {at - 1, at, at + 1}
        run_seed = int(rng.integers(1, 2**31))
        plans.append(Plan(run_seed, tuple(planted), sample_conditions(np.random.default_rng((run_seed, 2)))))
    return plans


def runs_of(corpus: Corpus, kind: str) -> list[Sample]:
    """The runs of one procedure that are learnt from."""
    altered = enumerate(altered_plans(kind, ALTERED, TUNING))
    wanted: list[Wanted] = [(kind, plan, f"altered{TUNING}_{n}") for n, plan in altered]
    return fill(corpus, corpus.wanted(kind, golds=0, variants=PLANNED) + wanted)


@dataclass(frozen=True)
class Rows:
    """One row for each step done. given: (n, 17) as ``evidence.numbers``.   truth: (n,) 0 as always, 1 object, 2 manner."""

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
    """(17, 2) weights of the two kinds against neither."""
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
    corpus = Corpus(parser.parse_args().cache or default, TUNING)
    corpus.folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Rows]] = {name: {} for name in GOLDS}
    for kind in PROCEDURES:
        samples, golds = runs_of(corpus, kind), [Gold(s.features, s.spans) for s in corpus.golds(kind, 5)]
        for name, choices in GOLDS.items():
            shown = [fit(data.procedure(kind), [golds[n] for n in chosen]) for chosen in choices]
            rows[name][kind] = _joined([rows_of(reference, samples) for reference in shown])
    print(f"{'golds':<8}{'learnt from the others, tried on':<36}{'wrong object F1':>16}{'manner F1':>12}")
    for name, known in rows.items():
        for kind in PROCEDURES:
            others = _joined([known[other] for other in PROCEDURES if other != kind])
            scores = f1(known[kind], learn(others))
            print(f"{name:<8}{kind:<36}{scores[0]:>16.3f}{scores[1]:>12.3f}")
    for name, known in rows.items():
        print(f"\nWeights, of all four procedures, {name} golds")
        for number, (item, action) in zip(
            (*evidence.NAMES, "constant"), learn(_joined(list(known.values()))), strict=True
        ):
            print(f"    ({item:.2f}, {action:.2f}),  # {number}")


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(np.concatenate([p.given for p in parts]), np.concatenate([p.truth for p in parts]))


if __name__ == "__main__":
    main()
