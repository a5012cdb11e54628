"""What places left to chance would have earned under a version that did not fill them: from rows to ``offpolicy``'s estimates.

A list made with ``explore`` logs what chance chose among, and with which chances. Another version is asked what it would have made
of the same candidates for the same user at that moment: with the history and the popularity until then, and the vectors that it
has. Lists from before the version was made are left out: it may have learnt from what came of them.
Knows the rows and no HTTP.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_recommend import store
from genba_recommend.catalogue import Shelf
from genba_recommend.dataset import Kind, User
from genba_recommend.evidence import DAY_S
from genba_recommend.index import raise_some
from genba_recommend.measuring import ATTRIBUTED_WITHIN_S
from genba_recommend.offpolicy import Estimate, Log, doubly_robust, gain, ips, snips
from genba_recommend.people import Did, Person
from genba_recommend.popularity import log_prior
from genba_recommend.ranking import chances_of
from genba_recommend.serving_model import Aligned
from genba_recommend.shop import did_of
from genba_recommend.tables import EventRow, ExposureRow, UserRow
from genba_shared.problems import Conflict

Floats = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Outcome = Literal["click", "like"]
Policy = Literal["drawn", "best"]  # a place filled as an exploring list draws, or by the version's best candidate

MOST_LISTS: Final = 10_000  # the newest
MOST_CELLS: Final = 5_000_000  # places times candidates; 40 MB a table
USERS_AT_ONCE: Final = 500
HALF_LIVES_COUNTED: Final = 10.0
SHRINK: Final = 10.0  # places' worth of the average outcome in what is foreseen of an item
LEAST_USERS: Final = 10  # their places are not independent: of one user there is no interval at all
LEAST_EFFECTIVE: Final = 50.0  # places of the version's own; below it a normal interval means nothing
COUNTS: Final[dict[Outcome, frozenset[Kind]]] = {
    "click": frozenset({Kind.CLICK, Kind.VIEW, Kind.LIKE}),
    "like": frozenset({Kind.LIKE}),
}


class NothingToJudgeBy(Conflict):
    """No list with places left to chance says anything of this version."""


class TooLittleOverlap(Conflict):
    """Chance has shown too little of what this version would show."""


@dataclass(frozen=True)
class DrawnList:
    """A list with places that chance filled. chosen, chances: by such place, in the order of the draws."""

    user_id: str
    at_s: float
    candidates: tuple[str, ...]
    chosen: tuple[str, ...]
    chances: tuple[float, ...]


@dataclass(frozen=True)
class Judged:
    """What a place would have earned under a version, beside what it earned.

    older, unknown: lists left out, of before the version, or of users or items that it knows nothing of.
    gain: the doubly robust value less what was earned, over the same places.
    """

    lists: int
    users: int
    places: int
    older: int
    unknown: int
    shown: Estimate
    ips: Estimate
    snips: Estimate
    doubly_robust: Estimate
    gain: Estimate


@dataclass(frozen=True)
class _Places:
    """n places with L candidates each. items: (n, L) rows, -1 for none.   policy: (n, L) chances under the version.

    action: (n,) which candidate was shown.   propensity, reward: (n,).   unit: (n,) whose list it was.
    """

    items: Ints
    policy: Floats
    action: Ints
    propensity: Floats
    reward: Floats
    unit: Ints


def drawn_lists(session: Session, tenant: str, *, since: datetime) -> list[DrawnList]:
    """The newest lists with places that chance filled."""
    row = ExposureRow
    columns = (row.user_id, row.at, row.items, row.propensities, row.candidates)
    query = select(*columns).where(row.tenant == tenant, row.at >= since).order_by(row.id.desc())
    found: list[DrawnList] = []
    cells = 0
    for user_id, at, items, chances, candidates in session.execute(query).yield_per(2000):
        if not candidates or not chances:  # of JSON, whose null is not SQL's
            continue
        among = frozenset(candidates)
        drawn = [(item, chance) for item, chance in zip(items, chances, strict=True) if item in among]
        cells += len(drawn) * len(among)
        if len(found) >= MOST_LISTS or cells > MOST_CELLS:
            break
        chosen, odds = zip(*drawn, strict=True)
        found.append(DrawnList(user_id, at.timestamp(), tuple(candidates), chosen, odds))
    return found


def judge(
    session: Session,
    tenant: str,
    aligned: Aligned,
    shelf: Shelf,
    lists: Sequence[DrawnList],
    *,
    made_at: datetime,
    outcome: Outcome,
    policy: Policy,
) -> Judged:
    """Judge a version by lists that others made. Raises: NothingToJudgeBy, TooLittleOverlap."""
    newer = [each for each in lists if each.at_s >= made_at.timestamp()]
    biases = _Biases(session, tenant, shelf, aligned, newer)
    parts: list[_Places] = []
    for unit, (before, shown, rewards) in _moments(session, tenant, shelf, newer, outcome):
        scores = _scores(aligned, shelf, before, shown, biases.at(shown.at_s))
        if np.isfinite(scores).any():
            parts.append(_places(shelf, scores, shown, rewards, policy, unit))
    older, unknown = len(lists) - len(newer), len(newer) - len(parts)
    if not parts:
        detail = "Ask for lists with `explore`, and wait until some are newer than the version."
        raise NothingToJudgeBy(detail, lists=len(lists), older=older, unknown=unknown)
    return _judged(_joined(parts), lists=len(parts), older=older, unknown=unknown)


def _judged(places: _Places, *, lists: int, older: int, unknown: int) -> Judged:
    log = Log(places.action, places.reward, places.propensity, places.unit)
    plain = ips(log, places.policy)
    if plain.effective_n < LEAST_EFFECTIVE:
        raise TooLittleOverlap(
            f"{len(log)} places say as much of it as {plain.effective_n:.0f} of its own would; {LEAST_EFFECTIVE:.0f} are needed.",
            places=len(log), effective=round(plain.effective_n, 1), needed=LEAST_EFFECTIVE,
        )  # fmt: skip
    users = len(np.unique(places.unit))
    if users < LEAST_USERS:
        raise NothingToJudgeBy(
            f"There are lists of {users} users; {LEAST_USERS} are needed.", lists=lists, older=older, unknown=unknown,
        )  # fmt: skip
    foreseen = _foreseen(places)
    itself = np.zeros_like(places.policy)
    itself[np.arange(len(log)), places.action] = 1.0
    return Judged(
        lists=lists,
        users=users,
        places=len(log),
        older=older,
        unknown=unknown,
        shown=ips(Log(log.action, log.reward, np.ones(len(log)), log.unit), itself),
        ips=plain,
        snips=snips(log, places.policy),
        doubly_robust=doubly_robust(log, places.policy, foreseen),
        gain=gain(log, places.policy, foreseen),
    )


def _foreseen(places: _Places) -> Floats:
    """(n, L) what an item earned with the other half of the users, drawn to the average where it was shown seldom."""
    out = np.empty(places.items.shape)
    fold, shown = places.unit % 2, places.items[np.arange(len(places.action)), places.action]
    size = int(places.items.max()) + 2
    for half in (0, 1):
        known = fold != half
        usual = float(places.reward[known].mean()) if known.any() else float(places.reward.mean())
        # One more row for what is none: -1 reads it.
        times = np.bincount(shown[known], minlength=size)
        earned = np.bincount(shown[known], places.reward[known], minlength=size)
        out[~known] = ((earned + SHRINK * usual) / (times + SHRINK))[places.items[~known]]
    return out


def _places(shelf: Shelf, scores: Floats, shown: DrawnList, rewards: Floats, policy: Policy, unit: int) -> _Places:
    """The places of one list: what was drawn before is no candidate any more."""
    n, size = len(shown.chosen), len(scores)
    at = {item: place for place, item in enumerate(shown.candidates)}
    action = np.array([at[item] for item in shown.chosen])
    chances = np.zeros((n, size))
    left = np.isfinite(scores)
    for place, drawn in enumerate(action.tolist()):
        if left.any():
            among = np.flatnonzero(left)
            if policy == "best":
                chances[place, among[scores[among].argmax()]] = 1.0
            else:
                chances[place, among] = chances_of(scores[among][None])[0]
        left[drawn] = False
    rows = np.array([-1 if (row := shelf.row(item)) is None else row for item in shown.candidates])
    kept = chances.sum(1) > 0  # of the last places nothing may be left that the version knows
    return _Places(
        np.tile(rows, (n, 1))[kept], chances[kept], action[kept], np.array(shown.chances)[kept], rewards[kept],
        np.full(int(kept.sum()), unit),
    )  # fmt: skip


def _joined(parts: Sequence[_Places]) -> _Places:
    width = max(part.items.shape[1] for part in parts)

    def wide(table: npt.NDArray[np.generic], nothing: float) -> npt.NDArray[np.generic]:
        return np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=nothing)

    return _Places(
        items=np.concatenate([wide(part.items, -1) for part in parts]).astype(np.int64),
        policy=np.concatenate([wide(part.policy, 0.0) for part in parts]).astype(np.float64),
        action=np.concatenate([part.action for part in parts]),
        propensity=np.concatenate([part.propensity for part in parts]),
        reward=np.concatenate([part.reward for part in parts]),
        unit=np.concatenate([part.unit for part in parts]),
    )


def _scores(aligned: Aligned, shelf: Shelf, before: Person, shown: DrawnList, bias: Float32s) -> Floats:
    """(L,) what the version makes of the candidates, -inf for those without a vector; of a user without history, nothing."""
    out = np.full(len(shown.candidates), -np.inf)
    taste = aligned.taste(before)
    rows = np.array([-1 if (row := shelf.row(item)) is None else row for item in shown.candidates])
    places = np.flatnonzero((rows >= 0) & aligned.present[rows])
    if not len(taste.rows) or not len(places):
        return out
    known = np.sort(rows[places])
    scores = aligned.vectors[known] @ taste.query + bias[known]
    raise_some(scores, known, taste.lift)
    scores += aligned.gains(taste, known, now_s=shown.at_s)
    out[places[np.argsort(rows[places])]] = scores
    return out


class _Biases:
    """A version's prior as it was at a moment: from the days before, and the events of that day until then."""

    def __init__(
        self, session: Session, tenant: str, shelf: Shelf, aligned: Aligned, lists: Sequence[DrawnList]
    ) -> None:
        prior = self._prior = aligned.model.prior
        self._foreseen = None if aligned.foreseen is None else prior.counts_of(aligned.foreseen)
        self._n = len(shelf)
        days = {int(each.at_s // DAY_S) for each in lists}
        since_day = int(min(days, default=0) - HALF_LIVES_COUNTED * prior.half_life_days)
        counts = store.daily_counts(session, tenant, since_day=since_day, up_to_seq=store.last_seq(session))
        self._daily = _columns(shelf, counts)
        row = EventRow
        columns = (row.user_id, row.item_id, row.day, row.at, row.weight)
        query = select(*columns).where(row.tenant == tenant, row.day.in_(days), row.weight > 0).order_by(row.at)
        self._events = _columns(shelf, _beyond_before(session.execute(query).yield_per(10_000)))
        self._by_day: dict[int, Floats] = {}

    def at(self, at_s: float) -> Float32s:
        """(N,) what it added then."""
        day = int(at_s // DAY_S)
        if day not in self._by_day:
            of_days, days, daily = self._daily
            past = days < day
            faded = daily[past] * np.exp2((days[past] - day) / self._prior.half_life_days)
            counted = np.bincount(of_days[past].astype(np.int64), faded, minlength=self._n)
            self._by_day[day] = counted.astype(np.float64)
        of_events, times, weights = self._events
        first, last = np.searchsorted(times, (day * DAY_S, at_s)).tolist()
        counts = self._by_day[day] + np.bincount(
            of_events[first:last].astype(np.int64), weights[first:last], minlength=self._n
        )
        counts *= np.exp2((day - at_s / DAY_S) / self._prior.half_life_days)
        smoothing, weight = self._prior.smoothing, self._prior.weight
        return log_prior(counts.astype(np.float32), smoothing=smoothing, weight=weight, foreseen=self._foreseen)


def _beyond_before(found: Iterable[Any]) -> Iterator[tuple[str, float, float]]:
    """(item, time, weight) of events in their order: what each says beyond what its user said of the item that day."""
    said: dict[tuple[str, str, int], float] = {}
    for user_id, item_id, day, at, weight in found:
        key = (user_id, item_id, day)
        if (more := weight - said.get(key, 0.0)) > 0:
            said[key] = weight
            yield item_id, at.timestamp(), more


def _columns(shelf: Shelf, found: Iterable[tuple[str, float, float]]) -> Floats:
    """(3, n) from item, time and weight: rows of the shelf instead of items."""
    known = [(row, when, weight) for item, when, weight in found if (row := shelf.row(item)) is not None]
    return np.array(known, np.float64).reshape(-1, 3).T


def _moments(
    session: Session, tenant: str, shelf: Shelf, lists: Sequence[DrawnList], outcome: Outcome
) -> Iterator[tuple[int, tuple[Person, DrawnList, Floats]]]:
    """Each list with the number of its user, the user as of that moment, and what came of each place, (n,)."""
    of_user: dict[str, list[DrawnList]] = defaultdict(list)
    for each in lists:
        of_user[each.user_id].append(each)
    ids = sorted(of_user)
    for at in range(0, len(ids), USERS_AT_ONCE):
        part = ids[at : at + USERS_AT_ONCE]
        profiles, done = _profiles(session, tenant, part), _done(session, tenant, part)
        for unit, user_id in enumerate(part, at):
            shown = sorted(of_user[user_id], key=lambda each: each.at_s)
            rewards = _rewards(shown, done[user_id], outcome)
            did: dict[int, Did] = {}
            events = iter(done[user_id])
            event = next(events, None)
            for each, reward in zip(shown, rewards, strict=True):
                while event is not None and event.at.timestamp() < each.at_s:
                    if (row := shelf.row(event.item_id)) is not None and (new := did_of(event)) is not None:
                        did[row] = did[row].and_then(new) if row in did else new
                    event = next(events, None)
                yield unit, (Person(profiles.get(user_id, User(user_id)), dict(did)), each, reward)


def _rewards(shown: Sequence[DrawnList], done: Sequence[store.Event], outcome: Outcome) -> list[Floats]:
    """Whether each place had the outcome within a day; it counts for the newest list that showed the item. shown: by time."""
    rewards = [np.zeros(len(each.chosen)) for each in shown]
    when: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
    for number, each in enumerate(shown):
        for place, item in enumerate(each.chosen):
            when[item].append((each.at_s, number, place))
    for event in done:
        at_s = event.at.timestamp()
        if event.kind in COUNTS[outcome]:
            before = [found for found in when[event.item_id] if 0 <= at_s - found[0] <= ATTRIBUTED_WITHIN_S]
            if before:
                _, number, place = max(before)
                rewards[number][place] = 1.0
    return rewards


def _profiles(session: Session, tenant: str, ids: Sequence[str]) -> dict[str, User]:
    columns = (UserRow.user_id, UserRow.age_range, UserRow.region, UserRow.sessions_per_week)
    query = select(*columns).where(UserRow.tenant == tenant, UserRow.user_id.in_(ids))
    return {row[0]: User(*row) for row in session.execute(query)}


def _done(session: Session, tenant: str, ids: Sequence[str]) -> dict[str, list[store.Event]]:
    """What some users did, the oldest first."""
    row = EventRow
    columns = (row.event_id, row.user_id, row.item_id, row.kind, row.at, row.day, row.weight, row.watched_s)
    query = select(*columns).where(row.tenant == tenant, row.user_id.in_(ids), row.kind != int(Kind.IMPRESSION))
    found: dict[str, list[store.Event]] = defaultdict(list)
    for event_id, user_id, item_id, kind, at, day, weight, watched_s in session.execute(
        query.order_by(row.at, row.seq)
    ):
        found[user_id].append(store.Event(event_id, user_id, item_id, Kind(kind), at, day, weight, watched_s))
    return found
