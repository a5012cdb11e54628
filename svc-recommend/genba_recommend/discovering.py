"""The last place of some lists for what is seldom shown: which items those are, which lists lose least by it, who keeps what.

Popular items fill most lists, because they are what most people turn to; the rest of a catalogue is never seen, and nothing is learnt
of it. So the last place of a share of the lists goes to the item that fits its user best by towers and neighbours, without the prior,
less what it has been shown already. The lists are those whose last item would be missed least: its score less the newcomer's fit.
Arrays in, rows out; knows no model, no table and no HTTP.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from genba_recommend.evidence import DAY_S
from genba_recommend.popularity import Fading

Float32s = npt.NDArray[np.float32]
When = Literal["never", "sometimes", "always"]  # sometimes: in the share of lists that lose least

HALF_LIFE_DAYS: Final = 7.0  # of having been shown
ORIGIN_DAY: Final = 20_000  # what processes tell each other is counted as if it had happened then (October 2024)
WEIGHT: Final = 4.0  # in logits, of log(1 + times shown): being shown once costs 2.8
JUST_SHOWN: Final = 0.4  # times: once, a half-life ago, and the hours of that day
LOSSES_KEPT: Final = 1000
LEAST_LOSSES: Final = 20  # until so many lists are known, the share is kept by turns
AFRESH_AFTER_S: Final = 60.0  # how often fading is looked at; what is shown counts at once
KEPT_FOR_S: Final = DAY_S  # a reload shows the same


class Seldom:
    """How often each of n items was shown lately, here and, as far as somebody tells, elsewhere. From any thread."""

    def __init__(self, share: float, *, now_s: float) -> None:
        """share: of the lists whose last place is given, 0 to 1."""
        self.share = share
        self._shown = Fading(HALF_LIFE_DAYS, int(now_s // DAY_S))
        self._untold: dict[int, float] = {}  # by row, as of ORIGIN_DAY
        self._lately = np.zeros(0, np.float32)  # times shown by item, as of _afresh_s
        self._costs = np.zeros(0, np.float32)  # what that takes from an item's fit
        self._usual = 0.0  # times that the average item was shown
        self._afresh_s = now_s
        self._losses: deque[float] = deque()
        self._in_order: list[float] = []  # the same, the least first
        self._changing = threading.Lock()

    def n_shown(self, *, now_s: float) -> int:
        """How many items were shown lately, half-forgotten ones included."""
        with self._changing:
            fade = np.exp2((self._shown.origin_day - now_s / DAY_S) / HALF_LIFE_DAYS)
            return int(np.count_nonzero(self._shown.scaled * fade >= JUST_SHOWN))

    def penalty(self, n: int, *, now_s: float) -> Float32s:
        """(n,) what is added to an item's fit: the less the seldomer it was shown, -inf above the average item."""
        with self._changing:
            if n != len(self._lately) or now_s - self._afresh_s > AFRESH_AFTER_S:
                self._lately, self._afresh_s = self._shown.at(now_s / DAY_S, n), now_s
                self._costs = np.float32(-WEIGHT) * np.log1p(self._lately)
                self._usual = float(self._lately.mean()) if n else 0.0
            return np.where(self._lately <= np.float32(self._usual), self._costs, np.float32(-np.inf))

    def note(self, rows: npt.NDArray[np.integer], *, now_s: float) -> None:
        """A list was shown, each item once."""
        day = int(now_s // DAY_S)
        with self._changing:
            self._shown.add(rows, np.full(len(rows), day), np.ones(len(rows)))
            known = rows[rows < len(self._lately)]
            self._lately[known] += 1.0
            self._usual += len(known) / max(1, len(self._lately))
            self._costs[known] = np.float32(-WEIGHT) * np.log1p(self._lately[known])
            self._owe(dict.fromkeys(rows.tolist(), 2.0 ** ((day - ORIGIN_DAY) / HALF_LIFE_DAYS)))

    def tell(self) -> dict[int, float]:
        """What was shown here since this was asked last, by row, as of ``ORIGIN_DAY``."""
        with self._changing:
            told, self._untold = self._untold, {}
        return told

    def untell(self, told: Mapping[int, float]) -> None:
        """What was told did not arrive."""
        with self._changing:
            self._owe(told)

    def learn(self, times: Mapping[int, float]) -> None:
        """How often items were shown, here (as far as it was told) and elsewhere, by row, as of ``ORIGIN_DAY``."""
        if not times:
            return
        with self._changing:
            self._shown.grow(max(times) + 1)
            rows = np.fromiter(times, np.int64, len(times))
            whole = np.array([by + self._untold.get(row, 0.0) for row, by in times.items()])
            self._shown.scaled[rows] = whole * np.exp2((ORIGIN_DAY - self._shown.origin_day) / HALF_LIFE_DAYS)
            self._afresh_s = -np.inf

    def _owe(self, times: Mapping[int, float]) -> None:
        for row, by in times.items():
            self._untold[row] = self._untold.get(row, 0.0) + by

    def gives(self, loss: float) -> bool:
        """Whether a list gives its last place away, by what that costs beside the latest lists."""
        with self._changing:
            ordered = self._in_order
            if len(ordered) == LOSSES_KEPT:
                del ordered[bisect_left(ordered, self._losses.popleft())]
            self._losses.append(loss)
            insort(ordered, loss)
            n = len(ordered)
            if n < LEAST_LOSSES:
                return int(n * self.share) > int((n - 1) * self.share)
            at = (n - 1) * self.share  # the quantile lies between two of them
            below, above = ordered[int(at)], ordered[min(int(at) + 1, n - 1)]
            return self.share > 0 and loss <= below + (at - int(at)) * (above - below)


Key = tuple[str, Hashable]  # whose list, and under which version and filters


@dataclass(frozen=True, slots=True)
class Given:
    """What the last place of somebody's list went to, until when; ``row`` is None where the list kept it."""

    row: int | None
    until_s: float


class Discovery:
    """``Seldom`` and what each user was given, so that a list does not change when it is looked at again."""

    def __init__(self, share: float, *, most: int, clock: Callable[[], float] = time.time) -> None:
        """most: lists that are remembered."""
        self.clock = clock
        self.seldom = Seldom(share, now_s=clock())
        self._most = most
        self._given: OrderedDict[Key, Given] = OrderedDict()

    def is_wanted(self, when: When) -> bool:
        """Whether any list has to be looked at."""
        return when == "always" or (when == "sometimes" and self.seldom.share > 0)

    def kept(self, key: Key) -> Given | None:
        """What a list was given, if that still holds."""
        found = self._given.get(key)
        return found if found is not None and found.until_s > self.clock() else None

    def give(self, key: Key, row: int | None, listed: npt.NDArray[np.integer]) -> None:
        """A list is shown: ``listed``, with ``row`` in the place that was given."""
        now_s = self.clock()
        self.seldom.note(listed, now_s=now_s)
        self._given[key] = Given(row, now_s + KEPT_FOR_S)
        self._given.move_to_end(key)
        if len(self._given) > self._most:
            self._given.popitem(last=False)

    def forget(self, user_id: str) -> None:
        """A user is gone. From any thread."""
        for key in [key for key in list(self._given) if key[0] == user_id]:
            self._given.pop(key, None)
