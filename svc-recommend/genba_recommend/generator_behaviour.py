"""What the people of a generated world do: sessions of impressions, and clicks, views, likes and dislikes that follow.

An impression comes from taste and what is popular that day (three in four) or from popularity alone. Whether it is
clicked falls with its place in the list and rises with the affinity of taste and item; so does how long it is watched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genba_recommend.generator_catalogue import DAY_S, START_S, Catalogue, Hidden, People
from genba_recommend.generator_words import STYLES

__all__ = ("KINDS", "Events", "behave", "click_probability", "popularity")

KINDS = ("impression", "click", "view", "like", "dislike")
IMPRESSION, CLICK, VIEW, LIKE, DISLIKE = range(5)
CANDIDATES = 4
CHUNK = 100_000
HOURS = np.array([4, 2, 1, 1, 1, 2, 4, 6, 6, 4, 4, 5, 8, 6, 4, 4, 5, 7, 9, 12, 14, 14, 11, 8], dtype=np.float64)
Progress = Callable[[float, str], None]  # share done in [0, 1], what is being made


@dataclass(frozen=True)
class Events:
    """Rows in the order of time. ``watched_s`` is nan for what is not a view; ``sessions`` number visits."""

    users: NDArray[np.int32]  # (E,)
    items: NDArray[np.int32]  # (E,)
    kinds: NDArray[np.int8]  # (E,) into KINDS
    at_s: NDArray[np.int64]  # (E,) seconds since 1970
    watched_s: NDArray[np.float32]  # (E,)
    sessions: NDArray[np.int32]  # (E,)

    def __len__(self) -> int:
        return len(self.users)

    def pick(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> Events:
        """The events of a mask or of row numbers."""
        parts = (self.users, self.items, self.kinds, self.at_s, self.watched_s, self.sessions)
        return Events(*(part[rows] for part in parts))  # type: ignore[arg-type]  # each keeps its dtype

    def of(self, kind: str) -> Events:
        """The events of one kind."""
        return self.pick(self.kinds == KINDS.index(kind))


@dataclass(frozen=True)
class _Sessions:
    users: NDArray[np.int64]  # (S,) in the order of time
    start_s: NDArray[np.int64]
    lengths: NDArray[np.int64]


def popularity(catalogue: Catalogue, hidden: Hidden, day: float) -> NDArray[np.float64]:
    """(N,) weight of each item on a day: quality, freshness, the style's trend; 0 before it is published."""
    age_days = day - (catalogue.published_s - START_S) / DAY_S
    fresh = np.where(age_days < 0, 0.0, 0.08 + np.exp(-np.maximum(age_days, 0) / 10.0))
    trend = hidden.trend[min(int(day), len(hidden.trend) - 1), catalogue.styles]
    return np.asarray(hidden.quality * fresh * trend, dtype=np.float64)


def click_probability(affinity: NDArray[np.floating], quality: NDArray[np.floating]) -> NDArray[np.float64]:
    """Of an impression at the head of the list; affinity is a cosine, and what is good pleases others too."""
    pull = 7.0 * (affinity - 0.6) + 0.6 * np.log(quality)
    return np.asarray(0.01 + 0.6 / (1.0 + np.exp(-pull)), dtype=np.float64)


def behave(
    catalogue: Catalogue, people: People, hidden: Hidden, centres: NDArray[np.float32], *, seed: int, progress: Progress
) -> Events:
    """The log of all days."""
    rng = np.random.default_rng([seed, 4])
    sessions = _sessions(rng, people, days=len(hidden.trend))
    progress(0.05, f"{len(sessions.users)} sessions")
    owner = np.repeat(np.arange(len(sessions.users)), sessions.lengths)  # (I,) the session of each impression
    days = (sessions.start_s - START_S) / DAY_S  # (S,)
    taste = hidden.taste(sessions.users, days)  # (S, DIMS)
    styles, by_taste = _styles(rng, catalogue, hidden, taste @ centres.T, days, owner)
    progress(0.2, f"{len(owner)} impressions")
    items, affinity = _items(rng, catalogue, hidden, taste, days, owner, styles, by_taste, progress)
    progress(0.85, "reactions")
    appeal = click_probability(affinity, hidden.quality[items])
    return _react(rng, catalogue, sessions, owner, items, affinity, appeal)


def _sessions(rng: np.random.Generator, people: People, *, days: int) -> _Sessions:
    end_s = START_S + days * DAY_S
    active_weeks = (end_s - people.joined_s) / DAY_S / 7
    users = np.repeat(np.arange(len(people)), rng.poisson(people.sessions_a_week * active_weeks))
    day = (rng.uniform(people.joined_s[users], end_s) - START_S) // DAY_S
    hour = rng.choice(24, size=len(users), p=HOURS / HOURS.sum())
    start = START_S + day * DAY_S + hour * 3600 + rng.integers(0, 3600, len(users))
    start = np.clip(start, people.joined_s[users], end_s - 3600)
    order = np.argsort(start, kind="stable")
    lengths = np.minimum(2 + rng.geometric(1 / 8, len(users)), 40)
    return _Sessions(users[order], start[order].astype(np.int64), lengths[order])


def _styles(
    rng: np.random.Generator,
    catalogue: Catalogue,
    hidden: Hidden,
    liking: NDArray[np.float32],
    days: NDArray[np.float64],
    owner: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(I,) the style that each impression shows, and whether taste chose it. Half of a session follows its mood."""
    mass = np.zeros((len(hidden.trend), len(STYLES)))  # (days, styles) weight of what is there
    for day in range(len(hidden.trend)):
        mass[day] = np.bincount(catalogue.styles, popularity(catalogue, hidden, day + 0.5), minlength=len(STYLES))
    today = mass[days.astype(np.int64)]  # (S, styles)
    by_taste = _cumulative(today * np.exp(hidden.affinity * liking))  # (S, styles)
    by_mass = _cumulative(today)
    mood = _draw(by_taste, rng.random(len(days)))  # (S,)
    taste_chose = rng.random(len(owner)) < 0.75
    styles = np.empty(len(owner), dtype=np.int64)
    for rows in _chunks(len(owner)):
        whose, points = owner[rows], rng.random(len(owner[rows]))
        free = np.where(rng.random(len(whose)) < 0.5, mood[whose], _draw(by_taste[whose], points))
        styles[rows] = np.where(taste_chose[rows], free, _draw(by_mass[whose], points))
    return styles, taste_chose


def _items(
    rng: np.random.Generator,
    catalogue: Catalogue,
    hidden: Hidden,
    taste: NDArray[np.float32],
    days: NDArray[np.float64],
    owner: NDArray[np.int64],
    styles: NDArray[np.int64],
    by_taste: NDArray[np.bool_],
    progress: Progress,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(I,) the item that each impression shows and its affinity: popular candidates of the style, the best fitting wins."""
    order = np.argsort(catalogue.styles, kind="stable")  # items, style after style
    edges = np.searchsorted(catalogue.styles[order], np.arange(len(STYLES) + 1))
    day_of = days.astype(np.int64)[owner]  # (I,) ascending, as sessions are
    candidates = np.empty((len(owner), CANDIDATES), dtype=np.int64)
    for day in range(len(hidden.trend)):
        rows = slice(*np.searchsorted(day_of, [day, day + 1]))
        total = np.concatenate([[0.0], np.cumsum(popularity(catalogue, hidden, day + 0.5)[order])])  # (N + 1,)
        low, high = total[edges[styles[rows]]], total[edges[styles[rows] + 1]]
        points = low[:, None] + rng.random((len(low), CANDIDATES)) * (high - low)[:, None]
        candidates[rows] = order[np.clip(np.searchsorted(total, points, side="right") - 1, 0, len(order) - 1)]
    chosen, affinity = np.empty(len(owner), dtype=np.int64), np.empty(len(owner), dtype=np.float32)
    for rows in _chunks(len(owner)):
        fit = np.einsum("id,icd->ic", taste[owner[rows]], hidden.item_vectors[candidates[rows]])  # (i, CANDIDATES)
        pull = np.where(by_taste[rows], hidden.affinity, 0.0)[:, None] * fit + rng.gumbel(size=fit.shape)
        best = pull.argmax(1)[:, None]
        chosen[rows] = np.take_along_axis(candidates[rows], best, 1)[:, 0]
        affinity[rows] = np.take_along_axis(fit, best, 1)[:, 0]
        progress(0.3 + 0.5 * min(rows.stop / len(owner), 1.0), "impressions")
    return chosen, affinity


def _react(
    rng: np.random.Generator,
    catalogue: Catalogue,
    sessions: _Sessions,
    owner: NDArray[np.int64],
    items: NDArray[np.int64],
    affinity: NDArray[np.float32],
    appeal: NDArray[np.float64],
) -> Events:
    first = np.searchsorted(owner, owner)  # (I,) where its session starts
    place = np.arange(len(owner)) - first
    pair = sessions.users[owner] * len(catalogue) + items
    clicked = _only_first(pair, rng.random(len(owner)) < appeal / (1.0 + 0.08 * place))
    completion = np.clip(rng.normal(0.1 + 0.75 * affinity, 0.25), 0.01, 1.0)
    seconds = np.maximum(np.round(completion * catalogue.durations_s[items], 1), 1.0)
    liked = clicked & (completion > 0.4) & (rng.random(len(owner)) < 0.9 / (1.0 + np.exp(-8.0 * (affinity - 0.6))))
    disliked = ~clicked & (rng.random(len(owner)) < np.where(affinity < 0.15, 0.03, 0.001))
    disliked = _only_first(pair, disliked)
    spent = np.cumsum(6.0 + np.where(clicked, seconds, 0.0))
    at = sessions.start_s[owner] + np.concatenate([[0.0], spent])[:-1] - np.concatenate([[0.0], spent])[first]

    def rows(kind: int, mask: NDArray[np.bool_], delay_s: NDArray[np.float64] | float) -> tuple[NDArray[np.int64], ...]:
        where = np.flatnonzero(mask)
        return where, np.full(len(where), kind), (at + delay_s)[where].astype(np.int64)

    parts = (
        rows(IMPRESSION, np.ones(len(owner), dtype=np.bool_), 0.0),
        rows(CLICK, clicked, 2.0),
        rows(VIEW, clicked, 2.0 + seconds),
        rows(LIKE, liked, 3.0 + seconds),
        rows(DISLIKE, disliked, 4.0),
    )
    where, kinds, at_s = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((kinds, at_s))
    where, kinds, at_s = where[order], kinds[order], at_s[order]
    return Events(
        users=sessions.users[owner[where]].astype(np.int32),
        items=items[where].astype(np.int32),
        kinds=kinds.astype(np.int8),
        at_s=at_s,
        watched_s=np.where(kinds == VIEW, seconds[where], np.nan).astype(np.float32),
        sessions=owner[where].astype(np.int32),
    )


def _only_first(keys: NDArray[np.int64], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask, true only for the first row of each key: nobody clicks or dislikes a thing twice."""
    rows = np.flatnonzero(mask)
    first = np.zeros_like(mask)
    first[rows[np.unique(keys[rows], return_index=True)[1]]] = True
    return first


def _cumulative(weights: NDArray[np.floating]) -> NDArray[np.float32]:
    total = np.cumsum(weights, axis=1)
    return (total / total[:, -1:]).astype(np.float32)


def _draw(cumulative: NDArray[np.float32], points: NDArray[np.float64]) -> NDArray[np.int64]:
    """(B,) column drawn from each row's cumulative shares; a column without weight is never drawn."""
    drawn = (cumulative <= points[:, None]).sum(1)
    return np.asarray(np.minimum(drawn, (cumulative < 1.0).sum(1)), dtype=np.int64)


def _chunks(rows: int) -> list[slice]:
    return [slice(low, low + CHUNK) for low in range(0, rows, CHUNK)]
