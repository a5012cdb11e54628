"""Ask for what training knows nothing of: users without history, and items that nobody had touched. Arrays in, questions out.

The main protocol (``metrics.questions``) leaves both out; a service meets them every day.
"""

from __future__ import annotations

import numpy as np

from genba_recommend.dataset import Bools, Ints, Split
from genba_recommend.metrics import Questions


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
