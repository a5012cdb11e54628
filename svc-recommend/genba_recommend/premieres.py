"""What an item that nobody has touched yet will draw, foreseen from what is known of it.

Popularity says nothing of a premiere: until its first event it counts as less than one. So how much untouched items drew is learnt
from the log: at several moments of the past, what came to each of them in the days that followed, by its names (genres, maker,
performers, tags), how many it has, and its age; names count for themselves and again the more the newer the item is. A Poisson
regression; kept only where it foresees the newest days better than their average does.

Fitting needs scikit-learn, foreseeing numpy. Knows no torch, no database and no HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from scipy.special import xlogy

from genba_recommend.dataset import Dataset, Floats, Ints, Item
from genba_recommend.prior import DAY_S

Float32s = npt.NDArray[np.float32]
Name = tuple[str, str]  # a field and one of its values

FILE: Final = "premieres.npz"  # in a bundle
FRESH_DAYS: Final = (7.0, 30.0, 365.0)  # how fast newness goes; names count again by the last
N_AGES: Final = len(FRESH_DAYS) + 2  # and how old, and unknown
MOST_NAMES: Final = 96  # the most frequent ones
LEAST_ITEMS: Final = 5  # with a name that is learnt
MOMENTS: Final = 6  # of the past
LONGEST_DAYS: Final = 14.0  # between two of them
LOG_SHARE: Final = 0.6  # of the log may pass between the first of them and its end
LEAST_DRAWN: Final = 30.0  # events, by all untouched items together
MOST_ROWS: Final = 4_000  # items a moment, of those that drew something and of the others
PENALTY: Final = 100.0  # precision of a weight before anything is seen, in events
MOST_A_DAY: Final = 1e6  # whatever an odd item is foreseen


@dataclass(frozen=True)
class Premieres:
    """What was learnt: log(events a day) = bias + Σ names + newness · Σ names again + age.

    named, again: (K + 1,) weights of the K names, and of how many of them an item has.   ages: (N_AGES,).
    parts: (N, 2) the two sums over names, of each item of the catalogue that was learnt from.
    gain: share of the deviance about the average that it explained in the newest days, which it had not seen.
    """

    names: tuple[Name, ...]
    named: Floats
    again: Floats
    ages: Floats
    bias: float
    gain: float = 0.0
    parts: Float32s = field(default_factory=lambda: np.zeros((0, 2), np.float32))

    @classmethod
    def none(cls, n_items: int) -> Self:
        """Nothing is foreseen."""
        return cls((), np.zeros(1), np.zeros(1), np.zeros(N_AGES), -np.inf, parts=np.zeros((n_items, 2), np.float32))

    @property
    def is_empty(self) -> bool:
        return self.bias == -np.inf

    def __len__(self) -> int:
        return len(self.parts)

    def sums(self, items: Sequence[Item]) -> Float32s:
        """(N, 2) the two sums over names, of any items."""
        counted = _counted(items, self._column)
        return np.asarray(np.column_stack([counted @ self.named, counted @ self.again]), np.float32)

    def per_day(self, parts: Float32s, published_s: Floats, *, now_s: float) -> Float32s:
        """Events a day that items would draw if nobody had touched them, (N,).

        Args: parts: (N, 2), of ``sums``.   published_s: (N,), -inf where unknown.
        """
        age = _age(published_s, now_s=now_s)
        logs = self.bias + parts[:, 0] + age[:, len(FRESH_DAYS) - 1] * parts[:, 1] + age @ self.ages
        return np.asarray(np.exp(np.minimum(logs, np.log(MOST_A_DAY))), np.float32)

    def of(self, items: Sequence[Item], *, now_s: float) -> Float32s | None:
        """``per_day`` of any items, (N,); None where nothing is foreseen."""
        return None if self.is_empty else self.per_day(self.sums(items), published(items), now_s=now_s)

    @classmethod
    def read(cls, path: Path, n_items: int) -> Self:
        """What ``write`` has written; none where there is no such file. Raises: OSError, KeyError, ValueError."""
        if not path.is_file():
            return cls.none(n_items)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            names = tuple((str(kind), str(value)) for kind, value in data["names"].reshape(-1, 2).tolist())
            found = cls(
                names,
                data["named"],
                data["again"],
                data["ages"],
                float(data["bias"]),
                float(data["gain"]),
                data["parts"],
            )
        if {len(found.named), len(found.again)} != {len(names) + 1} or len(found.ages) != N_AGES:
            raise ValueError(f"{FILE} has weights of other names than it lists.")
        return found

    def write(self, path: Path) -> None:
        names = np.array(self.names, np.str_).reshape(-1, 2)
        np.savez(
            path, names=names, named=self.named, again=self.again, ages=self.ages,
            bias=self.bias, gain=self.gain, parts=self.parts,
        )  # fmt: skip

    @cached_property
    def _column(self) -> Mapping[Name, int]:
        return {name: at for at, name in enumerate(self.names)}


def fit(dataset: Dataset) -> Premieres:
    """Learn what untouched items draw from a log. Returns: none where that is too little to learn from or foresees no better."""
    items = dataset.catalogue.items
    nothing = Premieres.none(len(items))
    names = _frequent(items)
    moments = _moments(dataset, names)  # the newest first
    if len(moments) < 2 or sum(float(each.drawn.sum()) for each in moments) < LEAST_DRAWN:
        return nothing
    gain = _explained(_fitted(moments[1:]), moments[0])
    if gain <= 0:
        return nothing
    weights, bias = _fitted(moments)
    named, again, ages = np.split(weights, [len(names) + 1, 2 * len(names) + 2])
    found = Premieres(names, named, again, ages, bias, gain)
    return replace(found, parts=found.sums(items))


@dataclass(frozen=True)
class _Moment:
    """Untouched items at a moment. x: (M, F).   drawn: (M,) events until the next.   times: (M,) how many items a row stands for."""

    x: Floats
    drawn: Floats
    times: Floats
    days: float


def _moments(dataset: Dataset, names: Sequence[Name]) -> list[_Moment]:
    """The newest first."""
    events, items = dataset.interactions.positive, dataset.catalogue.items
    if not len(events):
        return []
    end_s, n = float(events.time_s[-1]), len(items)
    days = min(LONGEST_DAYS, LOG_SHARE * (end_s - float(events.time_s[0])) / DAY_S / MOMENTS)
    if days <= 0:
        return []
    published_s = published(items)
    first_s = np.full(n, np.inf)
    np.minimum.at(first_s, events.item, events.time_s)
    column = {name: at for at, name in enumerate(names)}
    rng, found = np.random.default_rng(0), []
    for k in range(1, MOMENTS + 1):
        now_s, next_s = end_s - k * days * DAY_S, end_s - (k - 1) * days * DAY_S
        then = (events.time_s > now_s) & (events.time_s <= next_s)
        drawn = np.bincount(events.item[then], events.weight[then], minlength=n).astype(np.float64)
        there = (first_s > now_s) & ((published_s <= next_s) | (drawn > 0))  # a date may be a year's middle
        rows, times = _sampled(there, drawn, rng)
        named, age = _counted([items[row] for row in rows.tolist()], column), _age(published_s[rows], now_s=now_s)
        x = np.column_stack([named, named * age[:, len(FRESH_DAYS) - 1 : len(FRESH_DAYS)], age])
        found.append(_Moment(x, drawn[rows], times, days))
    return found


def published(items: Sequence[Item]) -> Floats:
    """(N,) when, -inf where unknown."""
    return np.array([-np.inf if item.published_at_s is None else item.published_at_s for item in items], np.float64)


def _sampled(there: npt.NDArray[np.bool_], drawn: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Rows, and how many each stands for."""
    rows, times = [], []
    for kind in (there & (drawn > 0), there & (drawn == 0)):
        all_of_kind = np.flatnonzero(kind)
        kept = all_of_kind
        if len(kept) > MOST_ROWS:
            kept = np.sort(rng.choice(all_of_kind, MOST_ROWS, replace=False))
        rows.append(kept)
        times.append(np.full(len(kept), len(all_of_kind) / max(len(kept), 1)))
    return np.concatenate(rows), np.concatenate(times)


def _fitted(moments: Sequence[_Moment]) -> tuple[Floats, float]:
    """Weights, (F,), and what is added to them."""
    from sklearn.linear_model import PoissonRegressor

    x = np.concatenate([each.x for each in moments])
    rate = np.concatenate([each.drawn / each.days for each in moments])
    weight = np.concatenate([each.times * each.days for each in moments])
    if not rate.any():
        return np.zeros(x.shape[1]), -np.inf
    mean, spread = np.average(x, axis=0, weights=weight), x.std(0)
    spread[spread < 1e-9] = np.inf  # what never differs says nothing
    model = PoissonRegressor(alpha=PENALTY / weight.sum(), solver="newton-cholesky").fit(
        (x - mean) / spread, rate, sample_weight=weight
    )
    weights = np.asarray(model.coef_ / spread, np.float64)
    return weights, float(model.intercept_ - weights @ mean)


def _explained(fitted: tuple[Floats, float], moment: _Moment) -> float:
    """Share of a moment's deviance about its average that is explained; 0 where nothing was drawn."""
    average = np.average(moment.drawn, weights=moment.times) if moment.times.any() else 0.0
    weights, bias = fitted
    if average <= 0 or bias == -np.inf:
        return 0.0
    said = np.exp(np.minimum(moment.x @ weights + bias, np.log(MOST_A_DAY))) * moment.days
    return 1.0 - _deviance(moment, said) / _deviance(moment, np.full(len(said), average))


def _deviance(moment: _Moment, said: Floats) -> float:
    rises = xlogy(moment.drawn, moment.drawn / np.maximum(said, 1e-12))
    return float(2.0 * (moment.times * (rises - moment.drawn + said)).sum())


def _age(published_s: Floats, *, now_s: float) -> Floats:
    """(N, N_AGES) newness at each speed, log(1 + days), whether it is unknown. What is to be published is new."""
    unknown = ~np.isfinite(published_s)
    days = np.maximum((now_s - np.where(unknown, now_s, published_s)) / DAY_S, 0.0)
    fresh = [np.where(unknown, 0.0, np.exp(-days / speed)) for speed in FRESH_DAYS]
    return np.column_stack([*fresh, np.log1p(days), unknown])


def _counted(items: Sequence[Item], column: Mapping[Name, int]) -> Floats:
    """(N, K + 1) which of the names an item has, and how many of them."""
    out = np.zeros((len(items), len(column) + 1))
    for row, item in enumerate(items):
        for name in _names(item):
            if (at := column.get(name)) is not None:
                out[row, at] = 1.0
    out[:, -1] = out.sum(1)
    return out


def _names(item: Item) -> Iterator[Name]:
    """What may tell how much an item draws."""
    for kind, values in (("genre", item.genre), ("performers", item.performers), ("tags", item.tags)):
        for value in values:
            yield kind, value
    if item.maker:
        yield "maker", item.maker


def _frequent(items: Sequence[Item]) -> tuple[Name, ...]:
    found = Counter(name for item in items for name in set(_names(item)))
    kept = sorted((-n, name) for name, n in found.items() if n >= LEAST_ITEMS)[:MOST_NAMES]
    return tuple(name for _, name in kept)
