"""A step that takes as long as two, and is two: done once more at once, or together with one that looks like it and seems missing.

Following frame by frame tells neither from a step done slowly, for nothing is between the two. But who does a step slowly goes
through it once: if two whole performances, one after the other, fit a stretch as well as a single one does, it shows two.
Knows nothing of pictures, p-values and scores: normalised costs and labels in, better labels out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from genba_sop.segmentation import EXTRA, Run, runs_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Price = Callable[[Run, int], float]  # mean normalised cost of doing the whole step in the run

LEAST, MOST = 1.5, 2.6  # times the usual time, in the run's own tempo, takes what may be two
PART = 0.6  # of it takes each of the two at least
WORSE = (
    0.01  # in normalised cost by row may two fit than one: a step done slowly fits .04 worse or more when cut in two
)
DEAREST = 0.4  # normalised cost of a row of either, at most
DEARER = 0.3  # by row may a missing step be there than the step once more
AS_LIVELY = 0.4  # of the movement of the one there must be in the other: who waits is not doing the step
GAP_S = 1.5  # in no step may be between the two
CUT_EVERY_S = 0.5


class Two(NamedTuple):
    """Two runs, each a whole performance of its label's step."""

    first: Run
    second: Run


def doubled(
    labels: Ints, usual: Mapping[int, float], price: Price, *, motion: Floats, frame_s: float
) -> tuple[Two, ...]:
    """The stretches that show two performances where the labels tell of one.

    Args: labels: (M,).   usual: rows of each step that golds show.   motion: (M,).
    """
    runs = runs_of(labels)
    ratios = [_rows(run) / usual[run.label] for run in runs if run.label in usual]
    tempo = float(np.median(ratios)) if ratios else 1.0
    missing = sorted(set(usual) - {run.label for run in runs})
    found: list[Two] = []
    for run in _stretches(runs, round(GAP_S / frame_s)):
        rows = usual.get(run.label, np.inf) * tempo
        if LEAST <= _rows(run) / rows <= MOST:
            two = _best(run, rows, price, max(1, round(CUT_EVERY_S / frame_s)))
            if two is not None and _as_lively(two, motion):
                two = _with_missing(two, missing, price)
                missing = [step for step in missing if step not in {two.first.label, two.second.label}]
                found.append(two)
    return tuple(found)


def _stretches(runs: tuple[Run, ...], longest: int) -> Iterator[Run]:
    """The runs, those of one step that only a moment in no step parts as one."""
    at = 0
    while at < len(runs):
        run = runs[at]
        while at + 2 < len(runs) and runs[at + 1].label == EXTRA and runs[at + 2].label == run.label >= 0:
            if _rows(runs[at + 1]) > longest:
                break
            at += 2
            run = Run(run.label, run.first, runs[at].last)
        yield run
        at += 1


def _best(run: Run, usual: float, price: Price, every: int) -> Two | None:
    """The cut of a run into two performances, where these fit as well as one."""
    part = max(2, round(PART * usual))
    ways = [_cut(run, at, price) for at in range(run.first + part, run.last + 2 - part, every)]
    likely = [(cost, two) for cost, dearer, two in ways if dearer <= DEAREST]
    cost, two = min(likely, default=(np.inf, None), key=lambda way: way[0])
    return two if cost <= price(run, run.label) + WORSE else None


def _as_lively(two: Two, motion: Floats) -> bool:
    moved = [float(motion[run.first : run.last + 1].mean()) for run in two]
    return min(moved) >= AS_LIVELY * max(moved)


def _cut(run: Run, at: int, price: Price) -> tuple[float, float, Two]:
    """Mean cost of a row of two performances with a cut between them, that of the dearer one, and the two."""
    two = Two(Run(run.label, run.first, at - 1), Run(run.label, at, run.last))
    costs = [price(half, run.label) for half in two]
    return sum(cost * _rows(half) for cost, half in zip(costs, two, strict=True)) / _rows(run), max(costs), two


def _with_missing(two: Two, missing: list[int], price: Price) -> Two:
    """The same, one of them named after a missing step where it looks nearly as much like that: one oddity instead of two."""
    ways = [(price(run, step) - price(run, run.label), at, step) for at, run in enumerate(two) for step in missing]
    dearer, at, step = min(ways, default=(np.inf, 0, 0))
    if dearer > DEARER:
        return two
    renamed = two[at]._replace(label=step)
    return Two(renamed, two.second) if at == 0 else Two(two.first, renamed)


def _rows(run: Run) -> int:
    return run.last - run.first + 1
