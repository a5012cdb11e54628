"""Everything that a list is made from, at one moment: the shelf, what is popular, the versions of the towers, the experiments.

A request takes one view and keeps it, so that no list mixes two versions or two catalogues. A change makes another view, and
one assignment puts it in place. Knows no table and no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from genba_recommend.catalogue import Shelf, Wanted
from genba_recommend.experiments import Experiment
from genba_recommend.index import Choice, Rows, highest, ranked
from genba_recommend.serving_model import Aligned

Float32s = npt.NDArray[np.float32]
Segment = tuple[str, str]
Bias = Literal["now", "lasting", "alike"]

CHOICES_KEPT: Final = 256
TOP_KEPT: Final = 1000


@dataclass(frozen=True)
class Tops:
    """A list that does not depend on the user, with its first places found already."""

    choice: Choice
    rows: Rows  # the best, the highest first
    scores: Float32s

    @classmethod
    def of(cls, choice: Choice) -> Tops:
        if choice.rows is not None:
            rows, scores = ranked(choice.rows, choice.bias[choice.rows], TOP_KEPT)
        else:
            rows = highest(choice.bias, TOP_KEPT)
            scores = choice.bias[rows]
        kept = scores > -np.inf
        return cls(choice, rows[kept], scores[kept])

    def best(self, without: npt.NDArray[np.integer], n: int) -> tuple[Rows, Float32s]:
        """Up to n rows that are not in ``without``."""
        left = ~np.isin(self.rows, without) if len(without) else np.ones(len(self.rows), np.bool_)
        if np.count_nonzero(left) >= n or len(self.rows) < TOP_KEPT:
            rows, scores = self.rows[left], self.scores[left]
            return rows[:n], scores[:n]
        bias = self.choice.bias.copy()
        bias[without] = -np.inf
        rows = highest(bias, n)
        kept = bias[rows] > -np.inf
        return rows[kept], bias[rows][kept]


@dataclass(frozen=True)
class View:
    """One moment. trending, popular: (N,), -inf where an item has no place on such a list.   segments: the same, made when asked."""

    shelf: Shelf
    trending: Float32s
    popular: Float32s
    segment: Callable[[Segment], Float32s | None]
    models: Mapping[int, Aligned] = field(default_factory=dict)
    champion: int | None = None
    experiments: tuple[Experiment, ...] = ()
    now_s: float = 0.0
    _choices: dict[object, Choice] = field(default_factory=dict, repr=False)
    _tops: dict[object, Tops | None] = field(default_factory=dict, repr=False)

    def choice(self, aligned: Aligned, wanted: Wanted, *, by: Bias = "now") -> Choice:
        """What may be listed under a version: by its prior, by what lasts as well, or with all items alike."""
        key = (aligned.model.number, wanted, by)
        found = self._choices.get(key)
        if found is None:
            allowed = self.shelf.allowed(wanted) & aligned.present
            bias = aligned.bias if by != "alike" else np.zeros(len(self.shelf), np.float32)
            if by == "lasting" and aligned.lasting is not None:
                bias = bias + aligned.lasting
            found = Choice.of(bias, allowed)
            _keep(self._choices, key, found)
        return found

    def tops(
        self, source: str, wanted: Wanted, *, segment: Segment | None = None, aligned: Aligned | None = None
    ) -> Tops | None:
        """The trending, popular or segment list under a filter; None for a segment of which too little is known.

        Args: aligned: a version whose own list for people without history it is.
        """
        key = (source, segment, wanted, None if aligned is None else aligned.model.number)
        if key in self._tops:
            return self._tops[key]
        scores = self.trending if source == "trending" else self.popular
        if aligned is not None and aligned.newcomers is not None:
            scores = aligned.newcomers
        if segment is not None:
            of_segment = self.segment(segment)
            if of_segment is None:
                return None
            scores = of_segment
        found = Tops.of(Choice.of(scores, self.shelf.allowed(wanted)))
        _keep(self._tops, key, found)
        return found


def _keep(
    memory: dict[object, object] | dict[object, Choice] | dict[object, Tops | None], key: object, found: object
) -> None:
    """Remember, and start afresh when too much is remembered: filters repeat, and a view lives for moments."""
    if len(memory) >= CHOICES_KEPT:
        memory.clear()
    memory[key] = found  # type: ignore[assignment]


def nobody_alike(_segment: Segment) -> Float32s | None:
    """A view without segments."""
    return None


EMPTY = View(Shelf(), np.zeros(0, np.float32), np.zeros(0, np.float32), nobody_alike)
