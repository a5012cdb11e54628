"""Ask for what training knows nothing of: users without history, and items that nobody had touched. Arrays in, questions out.

The main protocol (``metrics.questions``) leaves both out; a service meets them every day. ``release_prior`` is what popularity
is for an item that has none yet: how much interest items of its age found when they were new to everybody.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from genba_recommend.dataset import Bools, Dataset, Ints, Split
from genba_recommend.metrics import Questions
from genba_recommend.prior import DAY_S

AGE_EDGES_DAYS = np.array([0, 30, 90, 180, 365, 730, 1_460, 3_650, 7_300, 14_600], np.float64)


def new_users(split: Split) -> Questions:
    """Ask users without any event in training for what they choose, among the items with events there."""
    before, after = split.train.histories, split.test.histories
    candidates = np.bincount(before.item, minlength=len(split.train.catalogue)) > 0
    new = np.diff(before.offsets) == 0
    return _ask(after.user, after.item, new[after.user] & candidates[after.item], candidates)


def new_items(split: Split) -> Questions:
    """Ask users with history for what they choose among the items that appear in the test and never did before."""
    before, after = split.train.histories, split.test.histories
    n_items = len(split.train.catalogue)
    known = np.bincount(before.item, minlength=n_items) > 0
    candidates = (np.bincount(after.item, minlength=n_items) > 0) & ~known
    warm = np.diff(before.offsets) > 0
    return _ask(after.user, after.item, warm[after.user] & candidates[after.item], candidates)


def release_prior(dataset: Dataset, *, window_days: float = 60.0) -> npt.NDArray[np.float32]:
    """Return log of the events that an untouched item of the same age drew in the newest window of the log, (N,), at most 0.

    Ages are those at the end of the log; an item whose publication is unknown is an age of its own.
    """
    events = dataset.interactions.positive
    n_items = len(dataset.catalogue)
    if not len(events):
        return np.zeros(n_items, np.float32)
    end_s = float(events.time_s[-1])
    late = events.time_s >= end_s - window_days * DAY_S
    touched = np.bincount(events.item[~late], minlength=n_items) > 0
    age, then = (_age_bucket(dataset, moment_s) for moment_s in (end_s, end_s - window_days * DAY_S))
    n_ages = len(AGE_EDGES_DAYS) + 2
    drawn = np.bincount(then[events.item[late & ~touched[events.item]]], minlength=n_ages)
    waiting = np.bincount(then[~touched], minlength=n_ages)
    rate = (drawn + 0.5) / (waiting + 1.0)  # half an event of doubt, so that an empty age has no infinity
    logs = np.log(rate[age])
    return np.asarray(logs - logs.max(), np.float32)


def _age_bucket(dataset: Dataset, moment_s: float) -> Ints:
    """(N,) 0 for unknown, 1 for not published yet."""
    published_s = np.array([item.published_at_s for item in dataset.catalogue.items], np.float64)  # None becomes nan
    age_days = (moment_s - published_s) / DAY_S
    return np.asarray(np.where(np.isnan(age_days), 0, 1 + np.searchsorted(AGE_EDGES_DAYS, age_days, side="right")))


def _ask(user: Ints, item: Ints, wanted: Bools, candidates: Bools) -> Questions:
    pairs = np.unique(user[wanted] * len(candidates) + item[wanted])
    users = np.unique(pairs // len(candidates))
    return Questions(
        users=users,
        relevant=pairs % len(candidates),
        relevant_offsets=np.append(np.searchsorted(pairs // len(candidates), users), len(pairs)),
        seen=np.zeros(0, np.int64),
        seen_offsets=np.zeros(len(users) + 1, np.int64),
        candidates=candidates,
    )
