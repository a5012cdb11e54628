"""How good lists are, against what users did afterwards. Knows nothing of the models that made them.

The protocol is full ranking: every candidate is scored for every user, what the user has already done is left out, and the
best k are compared with what came later. Sampled metrics (a positive among 100 random negatives) order models wrongly
(Krichene & Rendle 2020) and are not offered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from genba_recommend.dataset import Bools, Floats, Ints, Split

GROUP: Final = 16
Scores = npt.NDArray[np.floating]
ScoreUsers = Callable[[Ints], Scores]  # user rows (B,) -> scores (B, N)


@dataclass(frozen=True)
class Questions:
    """Users to recommend to, what would be right, and what must not appear.

    users: (U,) rows.   relevant, seen: for the u-th of them, rows ``[offsets[u], offsets[u + 1])`` of the items.
    candidates: (N,) bool, the items that may be listed; relevant ones outside are not asked for.
    """

    users: Ints
    relevant: Ints
    relevant_offsets: Ints
    seen: Ints
    seen_offsets: Ints
    candidates: Bools

    def __len__(self) -> int:
        return len(self.users)

    @property
    def n_relevant(self) -> Ints:
        return np.asarray(np.diff(self.relevant_offsets))

    def of(self, chosen: Ints) -> Self:
        """Return the questions of some of the users, by their place here, increasing."""
        relevant, relevant_offsets = _rows_of(self.relevant, self.relevant_offsets, chosen)
        seen, seen_offsets = _rows_of(self.seen, self.seen_offsets, chosen)
        return type(self)(self.users[chosen], relevant, relevant_offsets, seen, seen_offsets, self.candidates)


@dataclass(frozen=True)
class Quality:
    """Measures of one model on one set of questions; the arrays are per user, (U,)."""

    ndcg_at_10: Floats
    precision_at_10: Floats
    recall_at_50: Floats
    coverage_at_10: float
    entropy_at_10: float

    def summary(self) -> dict[str, float]:
        return {
            "ndcg_at_10": float(self.ndcg_at_10.mean()),
            "precision_at_10": float(self.precision_at_10.mean()),
            "recall_at_50": float(self.recall_at_50.mean()),
            "coverage_at_10": self.coverage_at_10,
            "entropy_at_10": self.entropy_at_10,
        }


def questions(split: Split) -> Questions:
    """Ask every user with events on both sides of the split for the items that they turn to later for the first time.

    Candidates are the items with at least one positive event in training: an item that nobody has touched cannot be told
    from one that did not exist yet, and a catalogue made from the ratings themselves would leak which of them will be.
    """
    before, after = split.train.histories, split.test.histories
    n_items = len(split.train.catalogue)
    candidates = np.bincount(before.item, minlength=n_items) > 0
    seen_pairs = np.unique(before.user * n_items + before.item)
    asked = after.user * n_items + after.item
    warm = np.diff(before.offsets) > 0
    asked = np.unique(asked[candidates[after.item] & warm[after.user]])
    asked = np.setdiff1d(asked, seen_pairs, assume_unique=True)
    users = np.unique(asked // n_items)
    seen_pairs = seen_pairs[np.isin(seen_pairs // n_items, users)]
    return Questions(
        users=users,
        relevant=asked % n_items,
        relevant_offsets=np.append(np.searchsorted(asked // n_items, users), len(asked)),
        seen=seen_pairs % n_items,
        seen_offsets=np.append(np.searchsorted(seen_pairs // n_items, users), len(seen_pairs)),
        candidates=candidates,
    )


def rank(score: ScoreUsers, asked: Questions, *, k: int = 50, batch: int = 512) -> Ints:
    """Return the k best candidates of every user, best first, (U, k); -1 where there are fewer."""
    lists = [_best(score, asked, slice(at, min(at + batch, len(asked))), k) for at in range(0, len(asked), batch)]
    return np.concatenate(lists) if lists else np.zeros((0, k), np.int64)


def rank_alike(scores: Scores, asked: Questions, *, k: int = 50) -> Ints:
    """Return what ``rank`` does where everybody's scores are the same, (N,): one order for all, less what each has seen.

    A pass over a few hundred columns instead of all items of every user.
    """
    candidates = np.flatnonzero(asked.candidates)
    order = candidates[np.argsort(-scores[candidates], kind="stable")]
    n_seen = np.diff(asked.seen_offsets)
    order = order[: k + int(n_seen.max(initial=0))]
    order = order[scores[order] > -np.inf]
    place = np.full(len(asked.candidates), -1)
    place[order] = np.arange(len(order))
    left = np.ones((len(asked), len(order)), np.bool_)
    seen = place[asked.seen]
    left[np.repeat(np.arange(len(asked)), n_seen)[seen >= 0], seen[seen >= 0]] = False
    at = left.cumsum(1)
    rows, columns = np.nonzero(left & (at <= k))
    lists = np.full((len(asked), k), -1, np.int64)
    lists[rows, at[rows, columns] - 1] = order[columns]
    return lists


def _best(score: ScoreUsers, asked: Questions, part: slice, k: int) -> Ints:
    return top_k(open_scores(score, asked, part), k)


def open_scores(score: ScoreUsers, asked: Questions, part: slice) -> Floats:
    """Return the scores of a stretch of the users, (b, N), -inf for what may not be listed."""
    scores = np.array(score(asked.users[part]), np.float64)  # ours to change
    scores[:, ~asked.candidates] = -np.inf
    offsets = asked.seen_offsets[part.start : part.stop + 1]
    rows = np.repeat(np.arange(len(scores)), np.diff(offsets))
    scores[rows, asked.seen[offsets[0] : offsets[-1]]] = -np.inf
    return scores


def top_k(scores: Scores, k: int) -> Ints:
    """Return the columns of the k highest scores of each row, highest first, ties to the smaller column; -1 for -inf.

    Args:   scores: (B, N).   k: any; with k > N the rest is -1.
    """
    width = min(k, scores.shape[1])
    best = _candidates(scores, width)
    best.sort(axis=1)
    found = np.take_along_axis(scores, best, 1)
    order = np.argsort(-found, axis=1, kind="stable")
    best = np.where(np.take_along_axis(found, order, 1) > -np.inf, np.take_along_axis(best, order, 1), -1)
    return np.pad(best, ((0, 0), (0, k - width)), constant_values=-1)


def _candidates(scores: Scores, n: int) -> Ints:
    """Columns of the n highest scores of each row, in any order, (B, n).

    They lie in the n groups with the highest maxima, so that only those are partitioned; a group is every so-manieth column.
    """
    size = scores.shape[1]
    n_groups = size // GROUP
    if n == 0:
        return np.zeros((len(scores), 0), np.int64)
    if n_groups < 4 * n:
        return np.asarray(np.argpartition(-scores, n - 1, axis=1)[:, :n])
    whole = n_groups * GROUP
    tops = scores[:, :whole].reshape(len(scores), GROUP, n_groups).max(1)
    chosen = np.argpartition(tops, n_groups - n, axis=1)[:, n_groups - n :]
    columns = (np.arange(GROUP)[None, :, None] * n_groups + chosen[:, None, :]).reshape(len(scores), GROUP * n)
    rest = np.broadcast_to(np.arange(whole, size), (len(scores), size - whole))
    columns = np.concatenate([columns, rest], 1)
    found = np.take_along_axis(scores, columns, 1)
    best = np.argpartition(found, found.shape[1] - n, axis=1)[:, found.shape[1] - n :]
    return np.asarray(np.take_along_axis(columns, best, 1))


def _rows_of(values: Ints, offsets: Ints, chosen: Ints) -> tuple[Ints, Ints]:
    lengths: Ints = np.diff(offsets)
    kept = np.isin(np.repeat(np.arange(len(lengths)), lengths), chosen)
    return values[kept], np.append(0, np.cumsum(lengths[chosen]))


def hits(lists: Ints, asked: Questions) -> Bools:
    """Return which listed items are relevant, (U, k)."""
    n_items = len(asked.candidates)
    user = np.arange(len(asked))
    right = np.repeat(user, asked.n_relevant) * n_items + asked.relevant
    return np.isin(user[:, None] * n_items + lists, right) & (lists >= 0)


def ndcg_at_k(hit: Bools, n_relevant: Ints, k: int) -> Floats:
    """Normalised discounted cumulative gain of binary relevance (Järvelin & Kekäläinen 2002).

    Args:    hit: (U, >= k) relevance by rank.   n_relevant: (U,) how many there are to find.
    Returns: (U,) in [0, 1]; nan for a user with nothing to find.
    """
    discount = 1.0 / np.log2(np.arange(k) + 2.0)  # (k,)
    ideal = np.append(0.0, np.cumsum(discount))[np.minimum(n_relevant, k)]
    return _share(hit[:, :k] @ discount, ideal)


def precision_at_k(hit: Bools, k: int) -> Floats:
    """Share of the k listed items that are relevant, (U,)."""
    return np.asarray(hit[:, :k].sum(1) / k)


def recall_at_k(hit: Bools, n_relevant: Ints, k: int) -> Floats:
    """Share of the relevant items that are among the first k, (U,); nan for a user with nothing to find."""
    return _share(hit[:, :k].sum(1), n_relevant)


def catalog_coverage(lists: Ints, n_candidates: int) -> float:
    """Share of the candidates that are in at least one list."""
    return len(np.unique(lists[lists >= 0])) / n_candidates if n_candidates else float("nan")


def entropy(lists: Ints) -> float:
    """Shannon entropy in bits of the listed items: log2 n when n items are listed equally often, 0 when it is always one."""
    _, counts = np.unique(lists[lists >= 0], return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def quality(lists: Ints, asked: Questions) -> Quality:
    """Args: lists: (U, >= 50) from ``rank``."""
    hit = hits(lists, asked)
    return Quality(
        ndcg_at_10=ndcg_at_k(hit, asked.n_relevant, 10),
        precision_at_10=precision_at_k(hit, 10),
        recall_at_50=recall_at_k(hit, asked.n_relevant, 50),
        coverage_at_10=catalog_coverage(lists[:, :10], int(asked.candidates.sum())),
        entropy_at_10=entropy(lists[:, :10]),
    )


@dataclass(frozen=True)
class Comparison:
    """By how much one model is better than another over the same users: mean difference, 95 % interval, one-sided p."""

    difference: float
    low: float
    high: float
    p: float


def paired_bootstrap(ours: Floats, theirs: Floats, *, seed: int, n_resamples: int = 10_000) -> Comparison:
    """Resample users with replacement (Sakai 2006).

    Args:    ours, theirs: (U,) of one measure for the same users.
    Returns: p is the share of resamples in which ours is not better, at least 1 / (n_resamples + 1).
    Raises:  ValueError for different users.
    """
    if ours.shape != theirs.shape or not len(ours):
        raise ValueError(f"Measures of {ours.shape} and {theirs.shape} users cannot be paired.")
    difference = ours - theirs
    rng = np.random.default_rng(seed)
    means = np.array([difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(n_resamples)])
    low, high = np.quantile(means, [0.025, 0.975])
    p = (1 + int((means <= 0).sum())) / (n_resamples + 1)
    return Comparison(float(difference.mean()), float(low), float(high), p)


def _share(part: npt.NDArray[np.generic], whole: npt.NDArray[np.generic]) -> Floats:
    there = whole.astype(np.float64)
    share: Floats = np.divide(part, there, out=np.full(len(there), np.nan), where=there > 0)
    return share
