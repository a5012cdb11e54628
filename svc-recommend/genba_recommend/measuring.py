"""Measure an experiment from shown lists and events: what each user was shown, and what they then did with it.

An event counts for an item when it happened within a day after that user was shown it, once a kind; what was done with items
that were not shown says nothing about the lists. Knows the rows and no HTTP.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from genba_recommend.analysis import Difference, Sums, difference, sample_ratio_p
from genba_recommend.dataset import Kind
from genba_recommend.evidence import day_of
from genba_recommend.experiments import Experiment
from genba_recommend.tables import EventRow, ExposureRow

ATTRIBUTED_WITHIN = timedelta(days=1)
ATTRIBUTED_WITHIN_S = ATTRIBUTED_WITHIN.total_seconds()
METRICS = ("click_through_rate", "like_rate", "session_seconds", "diversity")


@dataclass
class _Shown:
    """One user in one arm."""

    arm: str
    first_s: float
    lists: int = 0
    items: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # when each was shown
    distances: list[float] = field(default_factory=list)
    clicked: set[str] = field(default_factory=set)
    liked: set[str] = field(default_factory=set)
    watched_s: float = 0.0
    sessions: set[str] = field(default_factory=set)

    def was_shown(self, item_id: str, at_s: float) -> bool:
        return any(0 <= at_s - shown_s <= ATTRIBUTED_WITHIN_S for shown_s in self.items.get(item_id, ()))


@dataclass(frozen=True)
class ArmFigures:
    """What happened in one arm."""

    name: str
    users: int
    lists: int
    items_shown: int
    values: dict[str, float]


@dataclass(frozen=True)
class Measured:
    """All arms, and each but the first against the first, by metric."""

    arms: list[ArmFigures]
    against_control: dict[str, dict[str, Difference]]
    sample_ratio_p: float


def measure(session: Session, tenant: str, experiment: Experiment) -> Measured:
    """Read what an experiment has shown and what came of it, and analyse it."""
    people = _shown(session, experiment)
    _done(session, tenant, experiment, people)
    by_arm: dict[str, list[_Shown]] = {arm.name: [] for arm in experiment.arms}
    for person in people.values():
        if person.arm in by_arm:
            by_arm[person.arm].append(person)
    sums = {name: {metric: _sums(found, metric) for metric in METRICS} for name, found in by_arm.items()}
    figures = [
        ArmFigures(
            name=name,
            users=len(found),
            lists=sum(each.lists for each in found),
            items_shown=sum(len(each.items) for each in found),
            values={
                metric: float(s.top.sum() / s.bottom.sum()) for metric, s in sums[name].items() if s.bottom.sum() > 0
            },
        )
        for name, found in by_arm.items()
    ]
    control = experiment.arms[0].name
    against = {
        arm.name: {metric: difference(sums[control][metric], sums[arm.name][metric]) for metric in METRICS}
        for arm in experiment.arms[1:]
    }
    ratio = sample_ratio_p([each.users for each in figures], [arm.weight for arm in experiment.arms])
    return Measured(figures, against, ratio)


def _shown(session: Session, experiment: Experiment) -> dict[str, _Shown]:
    columns = (ExposureRow.user_id, ExposureRow.arm, ExposureRow.at, ExposureRow.items, ExposureRow.diversity)
    query = select(*columns).where(ExposureRow.experiment_id == experiment.id).order_by(ExposureRow.id)
    people: dict[str, _Shown] = {}
    for user_id, arm, at, items, distance in session.execute(query).yield_per(2000):
        at_s = at.timestamp()
        person = people.setdefault(user_id, _Shown(arm, at_s))
        person.lists += 1
        if distance is not None:
            person.distances.append(distance)
        for item_id in items:
            person.items[item_id].append(at_s)
    return people


def done_between(
    tenant: str, since: datetime, until: datetime | None
) -> Select[str, str, int, datetime, float | None, str | None]:
    """What users did, but for impressions. The days are asked for because events are found by them."""
    row = EventRow
    columns = (row.user_id, row.item_id, row.kind, row.at, row.watched_s, row.session_id)
    query = select(*columns).where(row.tenant == tenant, row.day >= day_of(since), row.at >= since)
    if until is not None:
        query = query.where(row.day <= day_of(until), row.at <= until)
    return query.where(row.kind != int(Kind.IMPRESSION))


def _done(session: Session, tenant: str, experiment: Experiment, people: dict[str, _Shown]) -> None:
    until = None if experiment.stopped_at is None else experiment.stopped_at + ATTRIBUTED_WITHIN
    query = done_between(tenant, experiment.started_at, until)
    for user_id, item_id, kind, at, watched_s, session_id in session.execute(query).yield_per(5000):
        person = people.get(user_id)
        at_s = at.timestamp()
        if person is None or at_s < person.first_s:
            continue
        if kind == Kind.VIEW and watched_s:
            person.watched_s += watched_s
            person.sessions.add(session_id or f"day {int(at_s // 86_400)}")
        if kind in {Kind.CLICK, Kind.VIEW, Kind.LIKE} and person.was_shown(item_id, at_s):
            person.clicked.add(item_id)
            if kind == Kind.LIKE:
                person.liked.add(item_id)


def _sums(people: list[_Shown], metric: str) -> Sums:
    """A metric's numerator and denominator by user."""
    pairs: list[tuple[float, float]]
    if metric == "click_through_rate":
        pairs = [(len(each.clicked), len(each.items)) for each in people]
    elif metric == "like_rate":
        pairs = [(len(each.liked), len(each.items)) for each in people]
    elif metric == "session_seconds":
        pairs = [(each.watched_s, len(each.sessions)) for each in people]
    else:
        pairs = [(sum(each.distances), len(each.distances)) for each in people]
    columns = np.array(pairs, np.float64).reshape(-1, 2)
    return Sums(columns[:, 0], columns[:, 1])
