"""Which moments training looks at, and which other items it compares with there. Arrays in, arrays out; seeded, no torch.

A *place* is a positive event in the histories: the user as they were just before it, and the item that they chose. Places are
drawn by recency and cut into batches that lie close together in time, because an item that nobody could have chosen yet teaches
nothing as a negative; how often each item is expected in such a batch is known exactly, which the logQ correction needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from genba_recommend.dataset import Floats, Histories, Ints
from genba_recommend.prior import DAY_S, Prior

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Places:
    """Every place that may be drawn, in order of time, with its chance.

    place: (n,) of the histories.   item, day: (n,).   chance: (n,), sums to 1.
    """

    place: Ints
    item: Ints
    day: Ints
    chance: Floats
    n_items: int

    def __len__(self) -> int:
        return len(self.place)

    @classmethod
    def of(cls, histories: Histories, *, n_items: int, half_life_days: float, skip_days: int) -> Places:
        """Only a user's first event with an item is a place: what they know already is never listed again.

        Args: half_life_days: of the chance to be drawn.   skip_days: at the start, while popularity is not known yet.
        """
        first, weight = _first_meetings(histories, n_items)
        order = first[np.argsort(histories.time_s[first], kind="stable")]
        day = day_of(histories)[order]
        late = day >= min(skip_days, int(day.max(initial=0)) // 4)
        order, day = order[late], day[late]
        chance = weight[order] * np.exp2((day - day.max(initial=0)) / half_life_days)
        return cls(order, histories.item[order], day, chance / chance.sum(), n_items)

    @cached_property
    def _reached(self) -> Floats:
        return np.cumsum(self.chance)

    def epoch(self, n_places: int, *, batch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Draw places with replacement and yield full batches of neighbours in time, in random order."""
        drawn = np.searchsorted(self._reached, rng.random(max(n_places, batch)) * self._reached[-1], side="right")
        drawn = np.sort(np.minimum(drawn, len(self) - 1))
        for at in rng.permutation(len(drawn) // batch) * batch:
            chosen = drawn[at : at + batch]
            between = slice(int(chosen[0]), int(chosen[-1]) + 1)
            share = np.bincount(self.item[between], self.chance[between], minlength=self.n_items)
            yield Batch(self.place[chosen], self.item[chosen], self.day[chosen], share / share.sum())


@dataclass(frozen=True)
class Batch:
    """place, item, day: (B,).   frequency: (N,), how often each item is a positive here; sums to 1."""

    place: Ints
    item: Ints
    day: Ints
    frequency: Floats


def _first_meetings(histories: Histories, n_items: int) -> tuple[Ints, Float32s]:
    """The first event of every user with every item, and by event the most that any of the pair's weighs, (n,)."""
    pair = histories.user * n_items + histories.item
    _, first, which = np.unique(pair, return_index=True, return_inverse=True)
    most = np.zeros(len(first), np.float32)
    np.maximum.at(most, which, histories.weight)
    return first, most[which]


def day_of(histories: Histories) -> Ints:
    """Days since the first event, (n,)."""
    if not len(histories.time_s):
        return np.zeros(0, np.int64)
    days: Ints = ((histories.time_s - histories.time_s.min()) / DAY_S).astype(np.int64)
    return days


@dataclass(frozen=True)
class PriorByDay:
    """What the prior said at the start of a day, from what had happened by then.

    log_popularity: (S, N) float32, one row for every ``days_each`` days; bounded, so that a long log of a large catalogue fits.
    """

    log_popularity: Float32s
    days_each: int

    @classmethod
    def of(cls, histories: Histories, prior: Prior, *, n_items: int, most_cells: int = 64_000_000) -> PriorByDay:
        """Args: most_cells: how many numbers may be held; longer logs get a row for several days."""
        order = np.argsort(histories.time_s, kind="stable")
        day, item, weight = day_of(histories)[order], histories.item[order], histories.weight[order]
        n_days = int(day.max(initial=0)) + 1
        days_each = max(1, -(-n_days * n_items // most_cells))
        counts = np.zeros(n_items)
        rows = []
        for start in range(0, n_days, days_each):
            logs = np.log(counts + prior.smoothing)
            rows.append((logs - logs.max(initial=-np.inf)).astype(np.float32))
            new = slice(*np.searchsorted(day, (start, start + days_each)))
            aged = np.exp2(-(start + days_each - day[new] - 0.5) / prior.half_life_days)
            counts *= np.exp2(-days_each / prior.half_life_days)
            counts += np.bincount(item[new], weight[new] * aged, minlength=n_items)
        return cls(np.stack(rows), days_each)

    def at(self, day: Ints, items: Ints) -> Float32s:
        """day: (B,); items: (M,). Returns: (B, M)."""
        return self.log_popularity[(day // self.days_each)[:, None], items[None, :]]
