"""Follow a trainee through a gold run: which gold frame is being done at each moment, or none.

One Viterbi pass per gold over (gold frame × trainee frame). It generalises the skip alignment of ``alignment``: next to
*match* and *skip trainee* (affine, the place in the gold is kept) it may leave a segment of the gold and enter any other,
so permuted, repeated and left-out steps are followed too, which no monotone alignment can do.
Knows nothing of steps' names, deviations or scores: normalised costs in, gold frame numbers out.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ELSEWHERE = -1  # the trainee does something that the gold does not show


@dataclass(frozen=True)
class Penalties:
    """What the moves cost, in normalised cost: 0 is a typical match, 1 a random pair of frames.

    hold, hurry: staying on a gold frame, and each gold frame passed over (at most ``reach`` − 1 at once).
    elsewhere, leave: one trainee frame that matches nothing, and the start of such a run.
    jump: entering another segment than the next one; ``jump_free`` where the order of the two does not bind.
    cut: leaving a segment at its start or entering it at its end; in proportion between.
    """

    hold: float = 0.04
    hurry: float = 0.04
    reach: int = 4
    elsewhere: float = 0.55
    leave: float = 0.8
    jump: float = 4.0
    jump_free: float = 1.0
    cut: float = 4.0


@dataclass(frozen=True)
class Chart:
    """The golds as one chain of frames for the decoder.

    gold: (N,) which gold each frame is of.   segment: (N,) contiguous segment number, counted through all golds.
    jump: (K, K) cost of entering segment k' after segment k, inf between golds; 0 for the next one of the gold.
    enter, finish: (K,) cost of starting the video in a segment, and of ending in it.
    """

    gold: Ints
    segment: Ints
    jump: Floats
    enter: Floats
    finish: Floats


@dataclass(frozen=True)
class Followed:
    """Where the trainee is in one gold: ``frame`` (M,) frame of that gold or ``ELSEWHERE``; ``total`` the path's cost."""

    frame: Ints
    total: float


def follow(cost: npt.ArrayLike, chart: Chart, penalties: Penalties) -> tuple[Followed, ...]:
    """Find the cheapest path of the trainee through each gold of ``chart``.

    Args:    cost: (N, M) finite, normalised; rows = the frames of all golds, columns = trainee.
    Returns: one ``Followed`` for each gold. O(N·M + K²·M) for all golds together.
    """
    columns = np.ascontiguousarray(np.asarray(cost, np.float64).T)  # (M, N)
    lattice = (lattice_class() or Lattice)(chart, penalties)
    match, extra = lattice.forwards(columns)
    return tuple(lattice.walk(columns, match, extra, gold=g) for g in range(int(chart.gold[-1]) + 1))


def warm_up() -> None:
    """Load or compile the inner loops now rather than in the first request."""
    one = np.zeros(2, np.int64)
    follow(np.zeros((2, 2)), Chart(one, one, np.zeros((1, 1)), np.zeros(1), np.zeros(1)), Penalties())


@cache
def lattice_class() -> type[Lattice] | None:
    """The compiled lattice, None where numba is missing or does not fit this NumPy."""
    try:
        kernels = importlib.import_module("genba_sop._decoding_numba")
    except ImportError:
        return None

    class Compiled(Lattice):
        """The same lattice in machine code."""

        def forwards(self, columns: Floats) -> tuple[Floats, Floats]:
            chart = self.chart
            return cast(
                "tuple[Floats, Floats]",
                kernels.forwards(
                    columns, chart.gold, chart.segment, chart.jump, self.first(), self.late, self.early, self.prices
                ),
            )

        def back(self, columns: Floats, match: Floats, extra: Floats, *, low: int, end: int) -> Ints:
            chart, matched = self.chart, bool(match[-1, end] <= extra[-1, end])
            return cast(
                "Ints",
                kernels.backwards(
                    columns, match, extra, chart.gold, chart.segment, chart.jump, self.early, self.prices, low, end,
                    matched=matched,
                ),
            )  # fmt: skip

    return Compiled


class Lattice:
    """The moves between two trainee frames, forwards (all states at once) and backwards (one state)."""

    def __init__(self, chart: Chart, penalties: Penalties) -> None:
        self.chart, self.penalties = chart, penalties
        segment = chart.segment
        self.starts = np.flatnonzero(np.r_[True, segment[1:] != segment[:-1]])  # (K,)
        lengths = np.diff(np.r_[self.starts, len(segment)])
        within = np.arange(len(segment)) - self.starts[segment]
        span = np.maximum(lengths[segment] - 1, 1)
        self.late = penalties.cut * within / span  # entering this late in the segment
        self.early = penalties.cut * (lengths[segment] - 1 - within) / span  # leaving this early
        self.moves = [(k, penalties.hurry * (k - 1)) for k in range(1, penalties.reach + 1)]
        p = penalties
        self.prices = (p.hold, p.hurry, p.reach, p.elsewhere, p.leave)
        self.border = {k: np.where(chart.gold[k:] == chart.gold[:-k], 0.0, np.inf) for k, _ in self.moves}

    def forwards(self, columns: Floats) -> tuple[Floats, Floats]:
        """(M, N) cheapest cost of being at each gold frame, matched and not, after each trainee frame."""
        match, extra, penalties = np.empty_like(columns), np.empty_like(columns), self.penalties
        match[0] = columns[0] + self.first()
        extra[0] = self.first() + penalties.leave + penalties.elsewhere
        for j in range(1, len(columns)):
            match[j] = columns[j] + self.best(match[j - 1], extra[j - 1])
            extra[j] = np.minimum(extra[j - 1], match[j - 1] + penalties.leave) + penalties.elsewhere
        return match, extra

    def first(self) -> Floats:
        """(N,) cost of starting the video at each gold frame."""
        entered: Floats = self.chart.enter[self.chart.segment] + self.late
        return entered

    def best(self, match: Floats, extra: Floats) -> Floats:
        """Return the cheapest way into each gold frame, (N,)."""
        best = np.minimum(match + self.penalties.hold, extra)
        for k, price in self.moves:
            if k < len(best):
                np.minimum(best[k:], match[:-k] + (self.border[k] + price), out=best[k:])
        np.minimum(best[1:], extra[:-1] + self.border[1], out=best[1:])
        left = np.minimum.reduceat(np.minimum(match, extra) + self.early, self.starts)  # (K,)
        entered = (left[:, None] + self.chart.jump).min(axis=0)  # (K,)
        np.minimum(best, entered[self.chart.segment] + self.late, out=best)
        return best

    def walk(self, columns: Floats, match: Floats, extra: Floats, *, gold: int) -> Followed:
        """Walk back from the cheapest end of one gold; the moves are found again instead of stored."""
        low, high = np.searchsorted(self.chart.gold, [gold, gold + 1])
        ends = np.minimum(match[-1], extra[-1]) + self.chart.finish[self.chart.segment] + self.early
        end = int(low + ends[low:high].argmin())
        return Followed(self.back(columns, match, extra, low=int(low), end=end), float(ends[end]))

    def back(self, columns: Floats, match: Floats, extra: Floats, *, low: int, end: int) -> Ints:
        """(M,) the frames of the gold that begins at ``low`` on the way that ends at ``end``."""
        at, matched = end, bool(match[-1, end] <= extra[-1, end])
        frame = np.full(len(columns), ELSEWHERE, np.int64)
        for j in range(len(columns) - 1, -1, -1):
            if matched:
                frame[j] = at - low
                if j:
                    at, matched = self._came_from(at, match[j - 1], extra[j - 1], float(match[j, at] - columns[j, at]))
            elif j:
                matched = bool(match[j - 1, at] + self.penalties.leave < extra[j - 1, at])
        return frame

    def _came_from(self, at: int, match: Floats, extra: Floats, entered: float) -> tuple[int, bool]:
        """The state before ``at`` by which its cost ``entered`` came about; only when no near one explains it, a jump."""
        gold = self.chart.gold
        ways = [(match[at] + self.penalties.hold, at, True), (extra[at], at, False)]
        for k, price in self.moves:
            if at >= k and gold[at - k] == gold[at]:
                ways.append((match[at - k] + price, at - k, True))
        if at and gold[at - 1] == gold[at]:
            ways.append((extra[at - 1], at - 1, False))
        cost, source, matched = min(ways, key=lambda way: way[0])
        if cost <= entered + 1e-9 * (1 + abs(entered)):
            return source, matched
        either = np.minimum(match, extra) + self.early
        left = np.minimum.reduceat(either, self.starts) + self.chart.jump[:, self.chart.segment[at]]
        k = int(left.argmin())
        start = int(self.starts[k])
        stop = int(self.starts[k + 1]) if k + 1 < len(self.starts) else len(either)
        source = start + int(either[start:stop].argmin())
        return source, bool(match[source] <= extra[source])
