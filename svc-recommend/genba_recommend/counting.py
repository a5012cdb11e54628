"""Follow events and count them: popular, trending, under each prior, by segment. Each event is read once.

Of what a user says of an item in a day the most counts: a player that tells every minute how far somebody is, or somebody who
likes a thing forty times, is no crowd.

Knows the rows and the shelf, and no model and no HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_recommend import store
from genba_recommend.arrivals import Arrivals, overlap_s, settled_before
from genba_recommend.catalogue import Shelf
from genba_recommend.evidence import DAY_S
from genba_recommend.popularity import Fading, Popularity, log_lasting, log_prior
from genba_recommend.prior import Prior
from genba_recommend.settings import Settings
from genba_recommend.store import Event
from genba_recommend.tables import UserRow

Float32s = npt.NDArray[np.float32]
Segment = tuple[str, str]

AT_ONCE = 20_000
HALF_LIVES_COUNTED = 10.0  # older events weigh less than a thousandth
SEGMENT_DAYS = 30
MOST_STRAYS = 100_000
LEAST_TRENDING = 0.05  # of an event: less than that is no trend


class _Said(NamedTuple):
    """What is new of what a user says of an item in a day. times: 1 where it is the first of it, else 0."""

    user_id: str
    item_id: str
    day: int
    weight: float
    times: int


class Counting:
    """The counts of one tenant. One writer at a time."""

    def __init__(self, tenant: str, settings: Settings) -> None:
        self._tenant, self._settings = tenant, settings
        self._popularity = self._fresh()
        self._counted = Arrivals()
        self._strays: set[str] = set()
        self.is_dirty = True

    def _fresh(self) -> Popularity:
        return Popularity.starting(
            day=int(time.time() // DAY_S),
            popular_half_life_days=self._settings.popular_half_life_days,
            trending_half_life_days=self._settings.trending_half_life_days,
        )

    def count_all(self, session: Session, shelf: Shelf) -> list[Event]:
        """Count from the rows, as if for the first time. Returns: the newest events, as ``take_news`` does."""
        half_lives = list(self._popularity.priors)
        self._popularity, self._strays = self._fresh(), set()
        self._counted = Arrivals(store.last_seq(session, before=settled_before(session)))
        for half_life in half_lives:
            self._popularity.priors[half_life] = Fading(half_life, int(time.time() // DAY_S))
        self._daily(session, shelf, self._popularity.add, max(self._settings.popular_half_life_days, *half_lives, 0.0))
        since_day = int(time.time() // DAY_S) - SEGMENT_DAYS
        found = store.segment_counts(session, self._tenant, since_day=since_day, up_to_seq=self._counted.low)
        for age, region, item_id, weight, events in found:
            if (row := shelf.row(item_id)) is not None and (age or region):
                self._popularity.add_to_segment((age or "", region or ""), [(row, weight)], events=events)
        self.is_dirty = True
        return self.take_news(session, shelf)

    def _daily(self, session: Session, shelf: Shelf, add: Callable[..., None], half_life_days: float) -> None:
        since_day = int(time.time() // DAY_S - HALF_LIVES_COUNTED * half_life_days)
        rows, days, weights = [], [], []
        counted = store.daily_counts(session, self._tenant, since_day=since_day, up_to_seq=self._counted.low)
        for item_id, day, weight in counted:
            row = shelf.row(item_id)
            if row is None:
                self._stray(item_id)
                continue
            rows.append(row)
            days.append(day)
            weights.append(weight)
        add(np.array(rows, np.int64), np.array(days, np.int64), np.array(weights, np.float64))

    def prior(self, session: Session, shelf: Shelf, half_life_days: float) -> None:
        """Count under one more half-life."""
        if half_life_days not in self._popularity.priors:
            counts = Fading(half_life_days, int(time.time() // DAY_S))
            self._daily(session, shelf, counts.add, half_life_days)
            if self._counted.taken:  # beyond what the rows were read up to: the other counts have these already
                later = store.events_after(session, self._tenant, self._counted.low, limit=AT_ONCE)
                taken = {seq: event for seq, event in later if seq in self._counted.taken}
                counts.add(*_columns(shelf, self._news_of(session, taken)))
            self._popularity.priors[half_life_days] = counts
            self.is_dirty = True

    def knows_strays(self, shelf: Shelf, before: int) -> bool:
        """Whether there were events of items that have come since the shelf had ``before``."""
        return not self._strays.isdisjoint(shelf.ids[before : len(shelf)])

    def take_news(self, session: Session, shelf: Shelf) -> list[Event]:
        """Count what has arrived since, each event once. Returns: those events."""
        new = self._counted.new(store.seqs_after(session, self._tenant, self._counted.low, limit=AT_ONCE))
        read: dict[int, Event] = {}
        if new:
            found = store.events_after(session, self._tenant, min(new) - 1, limit=AT_ONCE)
            read = {seq: event for seq, event in found if seq in new}
            self._counted.take(read)
        self._counted.settle(overlap_s(session))
        self._count(session, shelf, self._news_of(session, read))
        return list(read.values())

    def _news_of(self, session: Session, read: Mapping[int, Event]) -> list[_Said]:
        """Of events that speak for items, what each user says of an item in a day beyond what they had said already."""
        spoken = [event for event in read.values() if event.weight > 0]
        if not spoken:
            return []
        users, of_days = sorted({event.user_id for event in spoken}), [event.day for event in spoken]
        before: dict[tuple[str, str, int], float] = {}
        for seq, key, weight in store.said_on(session, self._tenant, users, (min(of_days), max(of_days))):
            if seq not in read and (seq <= self._counted.low or seq in self._counted.taken):
                before[key] = max(weight, before.get(key, 0.0))
        most: dict[tuple[str, str, int], float] = {}
        for event in spoken:
            key = (event.user_id, event.item_id, event.day)
            most[key] = max(event.weight, most.get(key, 0.0))
        return [
            _Said(*key, weight - before.get(key, 0.0), 0 if key in before else 1)
            for key, weight in most.items()
            if weight > before.get(key, 0.0)
        ]

    def _count(self, session: Session, shelf: Shelf, spoken: list[_Said]) -> None:
        known = [(row, said) for said in spoken if (row := shelf.row(said.item_id)) is not None]
        for said in spoken:
            if shelf.row(said.item_id) is None:
                self._stray(said.item_id)
        if not known:
            return
        self._popularity.add(*_columns(shelf, spoken))
        profiles = self._profiles(session, {said.user_id for _, said in known})
        oldest_day = int(time.time() // DAY_S) - SEGMENT_DAYS
        for row, said in known:
            if (segment := profiles.get(said.user_id)) is not None and said.day >= oldest_day:
                self._popularity.add_to_segment(segment, [(row, said.weight)], events=said.times)
        self.is_dirty = True

    def _profiles(self, session: Session, user_ids: set[str]) -> dict[str, Segment]:
        found: dict[str, Segment] = {}
        ids = sorted(user_ids)
        for at in range(0, len(ids), 500):
            query = select(UserRow.user_id, UserRow.age_range, UserRow.region).where(
                UserRow.tenant == self._tenant, UserRow.user_id.in_(ids[at : at + 500])
            )
            for user_id, age, region in session.execute(query):
                if age or region:
                    found[user_id] = (age or "", region or "")
        return found

    def _stray(self, item_id: str) -> None:
        if len(self._strays) < MOST_STRAYS:
            self._strays.add(item_id)

    # ---- scores ----

    def bias(self, prior: Prior, day: float, n: int, foreseen: Float32s | None = None) -> Float32s:
        """(N,) what a version's prior adds now; zeros until its half-life is counted.

        Args: foreseen: (N,) events a day of what nobody has touched.
        """
        counts = self._popularity.priors.get(prior.half_life_days)
        if counts is None:
            return np.zeros(n, np.float32)
        expected = None if foreseen is None else prior.counts_of(foreseen)
        return log_prior(counts.at(day, n), smoothing=prior.smoothing, weight=prior.weight, foreseen=expected)

    def lasting(self, prior: Prior, day: float, n: int) -> Float32s | None:
        """(N,) what places after the first get on top of ``bias``; None where nothing lasts, or until it is counted."""
        counts = self._popularity.priors.get(prior.half_life_days)
        ever = self._popularity.priors.get(prior.lasting_half_life_days)
        if not prior.lasting or counts is None or ever is None:
            return None
        return log_lasting(
            counts.at(day, n), ever.at(day, n),
            lasting=prior.lasting, smoothing=prior.smoothing, weight=prior.weight,
        )  # fmt: skip

    def trending(self, day: float, n: int) -> Float32s:
        """(N,) recent counts, -inf where there is no trend."""
        return _above_nothing(self._popularity.trending.at(day, n))

    def newcomers(self, prior: Prior, day: float, n: int) -> Float32s | None:
        """(N,) counts under a version's half-life for people without history, -inf as above; None where it has none."""
        counts = self._popularity.priors.get(prior.newcomer_half_life_days or 0.0)
        return None if counts is None else _above_nothing(counts.at(day, n))

    def popular(self, day: float, shelf: Shelf) -> Float32s:
        """(N,) counts; among items of which nothing is known the newest first, below one that anybody has touched."""
        counts = self._popularity.popular.at(day, len(shelf))
        order = np.empty(len(shelf), np.float32)
        order[np.argsort(shelf.published_s, kind="stable")] = np.arange(len(shelf), dtype=np.float32)
        return (counts + 1e-6 * order / max(1, len(shelf))).astype(np.float32)

    def segment_scores(self, n: int) -> Callable[[Segment], Float32s | None]:
        """The scores of a segment by its name, (N,), -inf where it has done nothing; None where too little is known."""
        popularity, least = self._popularity, self._settings.segment_min_events

        def scores(segment: Segment) -> Float32s | None:
            if popularity.segment_events.get(segment, 0.0) < least:
                return None
            out = np.full(n, -np.inf, np.float32)
            for row, weight in popularity.segments[segment].copy().items():
                if row < n:
                    out[row] = weight
            return out

        return scores


def _above_nothing(counts: Float32s) -> Float32s:
    return np.where(counts >= LEAST_TRENDING, counts, np.float32(-np.inf)).astype(np.float32)


def _columns(
    shelf: Shelf, spoken: Sequence[_Said]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Rows, days and weights, (n,) each, of what is said for items of the shelf."""
    known = [(row, each) for each in spoken if (row := shelf.row(each.item_id)) is not None]
    return (
        np.array([row for row, _ in known], np.int64),
        np.array([each.day for _, each in known], np.int64),
        np.array([each.weight for _, each in known], np.float64),
    )
