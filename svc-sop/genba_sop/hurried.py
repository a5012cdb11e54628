"""A step done in so few moments that following it frame by frame leaves most of it out: it was done, and in a hurry.

A path rather leaves a step early than hastens through it, above all where the video ends right after. So where the little that
there is of a step looks as much like the whole of it, hastened through, as like the part that it was followed through, and clearly
like no other step, nothing of it is missing. A step that was broken off looks like its part.
Knows nothing of pictures, p-values and scores: labels and prices in, runs out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from genba_sop.explaining import Told
from genba_sop.segmentation import Run, runs_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Price = Callable[[Run, int], float]  # mean normalised cost of doing the whole step in the run

FASTEST = 5  # gold rows that one of the trainee's may pass over
LEFT_OUT = 0.5  # share of a step, from which on it would be missing
DEAREST = 0.35  # normalised cost of a row, at most
AS_WELL = 0.05  # dearer may the whole be than the part: broken off, a step fits its part by .1 to .2 better
CLEARLY = 1.5  # times as dear is any other step


def hurried(told: Told, price: Price, skipped: Floats) -> tuple[Run, ...]:
    """The runs that show a whole step of which most seems to be left out.

    Args: skipped: (S,) share of each step that the paths leave out.
    """
    runs = runs_of(told.labels)
    often = Counter(run.label for run in runs)
    likely = [run for run in runs if run.label >= 0 and often[run.label] == 1 and skipped[run.label] >= LEFT_OUT]
    return tuple(run for run in likely if _is_whole(run, told, price))


def _is_whole(run: Run, told: Told, price: Price) -> bool:
    whole = _hastened(run, told)
    part = float((told.votes @ told.path_costs[:, run.first : run.last + 1]).mean())
    steps = {int(step) for labels in told.gold_labels for step in np.unique(labels) if step >= 0} - {run.label}
    others = min((price(run, step) for step in steps), default=np.inf)
    return whole <= min(DEAREST, part + AS_WELL) and others >= CLEARLY * whole


def _hastened(run: Run, told: Told) -> float:
    """Mean cost of a row of going through the whole step at an even pace, by the votes of the golds that show it."""
    total = weight = 0.0
    for labels, cost, vote in zip(told.gold_labels, told.costs, told.votes, strict=True):
        rows, columns = evenly(run, labels == run.label)
        if rows.size:
            total += float(vote) * float(cost[rows, columns].mean())
            weight += float(vote)
    return total / weight


def evenly(run: Run, own: Mask) -> Ints:
    """(2, n) the last of a gold's own rows that each row of the run comes to at an even pace, and that row; none without own rows."""
    rows, columns = np.flatnonzero(own), np.arange(run.first, run.last + 1)
    if not rows.size:
        return np.zeros((2, 0), np.int64)
    return np.stack([rows[(np.arange(1, len(columns) + 1) * len(rows) - 1) // len(columns)], columns])
