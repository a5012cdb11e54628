"""Steps that seem to be missing only because they were done elsewhere, in an order that the procedure permits.

Golds often show one order only of steps that may change places. In another order the picture is another one: a mask is put on before
the vest rather than over it, and then looks like nothing, like the step before once more, or like a part of it. So a step that seems
missing is looked for where it may be done: in what resembles no step, in a step done once more, and in one that takes as long as both.
Knows nothing of pictures, p-values and scores: normalised costs and labels in, better labels out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from genba_sop.segmentation import EXTRA, Run, runs_of

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Price = Callable[[Run, int], float]  # mean normalised cost of doing the whole step in the run

ABSENT, PARTIAL = (
    0.2,
    0.6,
)  # of the usual time, in the run's own tempo: a step that takes less is looked for, or for the rest of it
SHORT, LONG = 0.55, 1.8  # times the usual time may it take
BOTH = 1.6  # times as long as usual is a step that may be two
DEAREST = 0.6  # normalised cost of a row, at most
NOTHING = 0.55  # of a row that resembles no step so far
DEARER_AGAIN, DEARER_LONG = 0.2, 0.45  # than what a stretch was taken for: a step once more, and a part of one
SHORTEST_S = 1.0


class Found(NamedTuple):
    """A stretch that shows a step after all; ``left`` is what remains of the run that it is taken from."""

    step: int
    run: Run
    left: tuple[Run, ...]


def standing_in(labels: Ints, usual: Mapping[int, float], order: Mask, price: Price, *, frame_s: float) -> Found | None:
    """The stretch that most likely shows a step which seems to be missing; None where none does.

    Call it again after that is believed, for there may be more.

    Args: labels: (M,).   usual: rows of each step that golds show.   order: (S, S) must come before.
    """
    case = _Case(labels, usual, order, frame_s)
    best, least = None, np.inf
    for step in case.missing:
        for found, dearest in case.ways(step, price):
            cost = price(found.run, step)
            if cost <= dearest and cost < least:
                best, least = found, cost
    return best


class _Case:
    def __init__(self, labels: Ints, usual: Mapping[int, float], order: Mask, frame_s: float) -> None:
        self.order, self.frame_s = order, frame_s
        self.runs = runs_of(labels)
        ratios = [_rows(run) / usual[run.label] for run in self.runs if run.label in usual]
        tempo = float(np.median(ratios)) if ratios else 1.0
        self.usual = {step: rows * tempo for step, rows in usual.items()}
        shown = {step: sum(_rows(run) for run in self.runs if run.label == step) for step in usual}
        self.share = {step: shown[step] / self.usual[step] for step in usual}
        self.missing = [step for step in usual if self.share[step] < PARTIAL]
        self.main = {step: self._longest(step) for step in usual if shown[step]}

    def _longest(self, step: int) -> Run:
        return max((run for run in self.runs if run.label == step), key=_rows)

    def permitted(self, step: int, run: Run, taken_from: int) -> bool:
        """Whether nothing that must come before a step is done after a run, and nothing that must come after it before."""
        others = [(other, main) for other, main in self.main.items() if other not in {step, taken_from}]
        early = any(self.order[other, step] and main.first > run.last for other, main in others)
        late = any(self.order[step, other] and main.last < run.first for other, main in others)
        return not early and not late

    def fits(self, step: int, rows: int) -> bool:
        return SHORT <= rows / self.usual[step] <= LONG

    def ways(self, step: int, price: Price) -> Iterator[tuple[Found, float]]:
        """(where a step may be, what a row of it may cost there at most)."""
        for at, run in enumerate(self.runs):
            again = run.label in self.main and run != self.main[run.label] and run.label != step
            if (run.label == EXTRA or again) and _rows(run) * self.frame_s >= SHORTEST_S:
                for whole in self._with_fragment(step, at):
                    if self.fits(step, _rows(whole)) and self.permitted(step, whole, EXTRA):
                        so_far = price(run, run.label) + DEARER_AGAIN if again else NOTHING + DEARER_AGAIN
                        yield Found(step, whole, ()), min(DEAREST, so_far)
                if run.label == EXTRA and self.share[step] < ABSENT:
                    yield from ((found, DEAREST) for found in self._one_of_several(step, run))
            elif run.label in self.usual and self.share[step] < ABSENT and _rows(run) >= BOTH * self.usual[run.label]:
                yield from self._split(step, run, price)

    def _with_fragment(self, step: int, at: int) -> Iterator[Run]:
        """A run, and it together with the fragment of the step beside it."""
        run = self.runs[at]
        if self.share[step] < ABSENT:
            yield run
        for beside in (at - 1, at + 1):
            if 0 <= beside < len(self.runs) and self.runs[beside].label == step:
                other = self.runs[beside]
                yield Run(run.label, min(run.first, other.first), max(run.last, other.last))

    def _one_of_several(self, step: int, run: Run) -> Iterator[Found]:
        """The end or the beginning of a run that takes as long as several steps that are missing and may be there."""
        absent = [other for other in self.missing if self.share[other] < ABSENT and self.permitted(other, run, EXTRA)]
        whole = sum(self.usual[other] for other in absent)
        if step in absent and len(absent) > 1 and SHORT <= _rows(run) / whole <= LONG:
            part = round(_rows(run) * self.usual[step] / whole)
            for mine, left in _ends(run, part):
                if self.permitted(step, mine, EXTRA):
                    yield Found(step, mine, (left,))

    def _split(self, step: int, run: Run, price: Price) -> Iterator[tuple[Found, float]]:
        """The end or the beginning of a run that takes as long as both steps."""
        part = round(_rows(run) * self.usual[step] / (self.usual[step] + self.usual[run.label]))
        part = min(part, round(self.usual[step]))
        rest = _rows(run) - part
        if part < 2 or rest < SHORT * self.usual[run.label]:
            return
        for mine, left in _ends(run, part):
            moved = _order_allows(self.order, step, run.label, after=mine.first > left.first)
            if moved and self.permitted(step, mine, run.label):
                yield Found(step, mine, (left,)), min(DEAREST, price(mine, run.label) + DEARER_LONG)


def _order_allows(order: Mask, step: int, other: int, *, after: bool) -> bool:
    return not (order[step, other] if after else order[other, step])


def _ends(run: Run, part: int) -> Iterator[tuple[Run, Run]]:
    """The last and the first so many rows of a run, each with the rest."""
    yield Run(run.label, run.last - part + 1, run.last), Run(run.label, run.first, run.last - part)
    yield Run(run.label, run.first, run.first + part - 1), Run(run.label, run.first + part, run.last)


def _rows(run: Run) -> int:
    return run.last - run.first + 1
