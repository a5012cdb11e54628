"""Which implicit events say nothing about taste: those of bots, of bursts, and views too short to mean anything.

Arrays in, masks and a report out; events are only marked, never dropped here. Knows no database and no model.

People differ by a factor of a hundred in how much they watch, so an amount alone is no sign. A bot is told by what people cannot
do: keep going round the clock, act at a fixed beat, or watch more seconds than have passed. A burst is an item that many
accounts turn to within an hour, far beyond its own rate, who do nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genba_recommend.dataset import Interactions, Kind

__all__ = ("Noise", "NoiseRules", "find_noise")

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
HOUR_S = 3600.0
ACTIONS = (Kind.LIKE, Kind.VIEW, Kind.CLICK, Kind.DISLIKE)  # an impression is the service's doing, not the user's


@dataclass(frozen=True)
class NoiseRules:
    """Where the lines are drawn. The defaults mark under 1 in 100 of the generated people."""

    min_actions: int = 50  # below it nothing is said of a user
    awake_hours: int = 20  # distinct hours with actions within one day
    beat_spread: float = 0.15  # spread over mean of the gaps inside visits; people's exceed 0.5
    watched_share: float = 1.5  # seconds watched over seconds passed within a day
    short_view_s: float = 3.0
    burst_actions: int = 30  # on one item within an hour
    burst_ratio: float = 20.0  # over the item's own mean rate an hour
    burst_single_share: float = 0.8  # of the accounts have hardly any other action


@dataclass(frozen=True)
class Noise:
    """Marks for each event, (n,), and who or what gave rise to them. An event may carry several."""

    bot: Bools
    burst: Bools
    short_view: Bools
    bots: npt.NDArray[np.int64]  # rows of users, ascending
    burst_items: npt.NDArray[np.int64]  # rows of items, ascending

    @property
    def any(self) -> Bools:
        """(n,) whether an event should not be learnt from."""
        return self.bot | self.burst | self.short_view

    def counts(self) -> dict[str, int]:
        """For a job's metrics."""
        return {
            "bots": len(self.bots),
            "bot_events": int(self.bot.sum()),
            "burst_items": len(self.burst_items),
            "burst_events": int(self.burst.sum()),
            "short_views": int(self.short_view.sum()),
        }


def find_noise(events: Interactions, rules: NoiseRules = NoiseRules()) -> Noise:
    """Mark events. The same events and rules give the same marks."""
    acted = np.isin(events.kind, ACTIONS)
    actions = events.take(acted)
    bots = _bots(actions, rules)
    in_burst, burst_items = _bursts(actions, bots, rules)
    burst = np.zeros(len(events), np.bool_)
    burst[np.flatnonzero(acted)[in_burst]] = True
    short = (events.kind == Kind.VIEW) & (events.watched_s < rules.short_view_s)  # False where nan
    return Noise(np.isin(events.user, bots), burst, short, bots, burst_items)


def _bots(actions: Interactions, rules: NoiseRules) -> npt.NDArray[np.int64]:
    """Rows of users who do what people cannot."""
    if not len(actions):
        return np.zeros(0, np.int64)
    n_users = int(actions.user.max()) + 1
    busy = np.bincount(actions.user, minlength=n_users) >= rules.min_actions
    marked = _awake(actions, n_users) >= rules.awake_hours
    marked |= _beat_spread(actions, n_users) < rules.beat_spread
    marked |= _watched_share(actions, n_users) > rules.watched_share
    return np.flatnonzero(busy & marked)


def _awake(actions: Interactions, n_users: int) -> Floats:
    """(U,) the most distinct hours of any one day in which a user acted."""
    hours = np.unique(np.stack([actions.user, actions.time_s // HOUR_S], 1).astype(np.int64), axis=0)  # (h, 2)
    days, counts = np.unique(np.stack([hours[:, 0], hours[:, 1] // 24], 1), axis=0, return_counts=True)
    most = np.zeros(n_users)
    np.maximum.at(most, days[:, 0], counts)
    return most


def _beat_spread(actions: Interactions, n_users: int) -> Floats:
    """(U,) spread over mean of the gaps between a user's actions, pauses of an hour and more left out; inf without gaps."""
    order = np.lexsort((actions.time_s, actions.user))
    user, time_s = actions.user[order], actions.time_s[order]
    gap = np.diff(time_s)
    inside = (user[1:] == user[:-1]) & (gap < HOUR_S) & (gap > 0)
    whose, gap = user[1:][inside], gap[inside]
    count = np.maximum(np.bincount(whose, minlength=n_users), 1)
    mean = np.bincount(whose, gap, minlength=n_users) / count
    square = np.bincount(whose, gap * gap, minlength=n_users) / count
    spread = np.sqrt(np.maximum(square - mean * mean, 0.0))
    return np.where((count >= 10) & (mean > 0), spread / np.maximum(mean, 1e-9), np.inf)


def _watched_share(actions: Interactions, n_users: int) -> Floats:
    """(U,) the greatest share of a day's seconds that a user claims to have watched."""
    views = actions.take((actions.kind == Kind.VIEW) & np.isfinite(actions.watched_s))
    if not len(views):
        return np.zeros(n_users)
    keys = np.stack([views.user, (views.time_s // (24 * HOUR_S)).astype(np.int64)], 1)
    days, place = np.unique(keys, axis=0, return_inverse=True)
    seconds = np.bincount(place.ravel(), views.watched_s.astype(np.float64))
    most = np.zeros(n_users)
    np.maximum.at(most, days[:, 0], seconds / (24 * HOUR_S))
    return most


def _bursts(
    actions: Interactions, bots: npt.NDArray[np.int64], rules: NoiseRules
) -> tuple[Bools, npt.NDArray[np.int64]]:
    """Which actions belong to a burst, (n,), and the rows of items that had one."""
    marked = np.zeros(len(actions), np.bool_)
    if not len(actions):
        return marked, np.zeros(0, np.int64)
    by_user = np.bincount(actions.user)
    hour = (actions.time_s // HOUR_S).astype(np.int64)
    span_h = max(int(hour.max() - hour.min()) + 1, 1)
    keys, place, counts = np.unique(np.stack([actions.item, hour], 1), axis=0, return_inverse=True, return_counts=True)
    place = place.ravel()
    # The item's usual rate is that of its other hours: a burst must not raise its own bar.
    usual = (np.bincount(actions.item)[keys[:, 0]] - counts) / span_h
    crowded = (counts >= rules.burst_actions) & (counts > rules.burst_ratio * np.maximum(usual, 0.1))
    idle = (by_user <= 5)[actions.user] | np.isin(actions.user, bots)
    bought = np.bincount(place, idle) / counts >= rules.burst_single_share
    marked = (crowded & bought)[place] & idle
    return marked, np.unique(actions.item[marked])
