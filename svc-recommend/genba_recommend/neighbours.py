"""Which items go with which, learnt from who chose both: the second term of a score, beside the towers and the prior.

Towers say what fits a taste; where a few thousand users have chosen from the same shelf for months, plain co-choice says more, and
on other data less. So both are learnt, and how much each counts is tuned (blending.py). Three ways of learning it, the best of which
is kept: cosine of co-choice, shrunk (ItemKNN), the linear autoencoder with a closed form (EASE, Steck 2019), and the few directions
of taste that explain most (PureSVD). Of each only the strongest neighbours of an item are kept, so that a list costs a few thousand
additions at any size of catalogue.
Arrays in, arrays out; knows no torch, no database and no HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy import linalg
from scipy.sparse.linalg import svds

from genba_recommend.dataset import Interactions, Ints

Float32s = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]

FILE = "neighbours.npz"  # in a bundle
MOST_EASE_ITEMS = 3_000  # its cost is cubic; what is rarer than the most popular so many has no neighbours there
MOST_CHOICES = 500  # of a user, the newest: a machine that has touched everything would fill the whole matrix
MOST_KEPT, LEAST_KEPT = 128, 16  # neighbours an item
MOST_PAIRS = 6_400_000  # of all items together: 50 MB while they serve


@dataclass(frozen=True)
class Neighbours:
    """What each of N items speaks for, by row.

    item: (N, K) int32 rows.   weight: (N, K) float32, how much; 0 where there are fewer than K.
    """

    item: Int32s
    weight: Float32s

    def __len__(self) -> int:
        return len(self.item)

    @classmethod
    def none(cls, n_items: int) -> Neighbours:
        return cls(np.zeros((n_items, 0), np.int32), np.zeros((n_items, 0), np.float32))

    @classmethod
    def read(cls, path: Path, n_items: int) -> Neighbours:
        """What ``write`` has written; none where there is no such file. Raises: OSError, KeyError, ValueError."""
        if not path.is_file():
            return cls.none(n_items)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return cls(data["item"].astype(np.int32), data["weight"].astype(np.float32))

    def write(self, path: Path) -> None:
        np.savez(path, item=self.item, weight=self.weight)

    @property
    def is_empty(self) -> bool:
        return not self.item.size

    def onto(self, rows: npt.NDArray[np.integer], n_items: int) -> Neighbours:
        """The same over another catalogue. Args: rows: (N,) where each item stands there, -1 for one that is gone."""
        if self.is_empty:
            return Neighbours.none(n_items)
        item, weight = (
            np.zeros((n_items, self.item.shape[1]), np.int32),
            np.zeros((n_items, self.item.shape[1]), np.float32),
        )
        here = rows >= 0
        found = rows[self.item[here]]
        item[rows[here]] = np.maximum(found, 0)
        weight[rows[here]] = np.where(found >= 0, self.weight[here], 0.0)
        return Neighbours(item, weight)

    def spoken_for(self, rows: npt.NDArray[np.integer], weight: Float32s) -> tuple[Ints, Float32s]:
        """What one history speaks for. Args: rows, weight: (T,). Returns: rows, increasing, and their sums, (M,) each."""
        value = (self.weight[rows] * weight[:, None]).ravel()
        total = np.bincount(self.item[rows].ravel(), value, minlength=len(self))
        found = np.flatnonzero(total)
        return found, total[found].astype(np.float32)

    def scores(self, history: Int32s, weight: Float32s) -> Float32s:
        """Args: history: (B, T) rows + 1, 0 for nothing.   weight: (B, T), 0 there. Returns: (B, N)."""
        n = len(self)
        user, place = np.nonzero(history)
        chosen = sp.csr_matrix((weight[user, place], (user, history[user, place] - 1)), shape=(len(history), n))
        return np.asarray((chosen @ self._sparse()).toarray(), np.float32)

    def _sparse(self) -> Any:
        n, k = self.item.shape
        return sp.csr_matrix((self.weight.ravel(), self.item.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))


def choices(events: Interactions, *, n_users: int, n_items: int) -> Any:
    """(U, N) CSR of ones where a user has a positive event, of everybody's newest ``MOST_CHOICES``."""
    positive = events.positive
    order = np.lexsort((-positive.time_s, positive.user))
    user = positive.user[order]
    start = np.searchsorted(user, user)
    kept = order[np.arange(len(order)) - start < MOST_CHOICES]
    ones = np.ones(len(kept), np.float32)
    found = sp.csr_matrix((ones, (positive.user[kept], positive.item[kept])), shape=(n_users, n_items))
    found.data[:] = 1.0
    return found


def kept_of(n_items: int) -> int:
    """How many neighbours an item keeps in a catalogue of a size."""
    return min(MOST_KEPT, max(LEAST_KEPT, MOST_PAIRS // max(1, n_items)))


def item_knn(seen: Any, *, shrink: float = 10.0) -> Neighbours:
    """Cosine of co-choice, lowered where few chose both. Args: seen: (U, N) as ``choices`` gives it."""
    together = (seen.T @ seen).tocsr()  # (N, N)
    norm = np.sqrt(together.diagonal())
    together.setdiag(0)
    together.eliminate_zeros()
    row = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr))
    together.data /= norm[row] * norm[together.indices] + shrink
    return _strongest(together, kept_of(seen.shape[1]))


def ease(seen: Any, *, penalty: float, most_items: int = MOST_EASE_ITEMS) -> Neighbours:
    """The item-item weights that best give back what was chosen, each item left out of its own (Steck 2019)."""
    known = _known(seen, most_items)
    gram = (seen[:, known].T @ seen[:, known]).toarray()
    gram[np.diag_indices_from(gram)] += penalty
    inverse = linalg.inv(gram, assume_a="pos")
    return _of_dense(-inverse / np.diag(inverse), known, seen.shape[1])


def low_rank(seen: Any, *, rank: int, most_items: int = MOST_EASE_ITEMS) -> Neighbours:
    """Items that lie alike in the few directions that explain most of what was chosen (PureSVD, Cremonesi et al. 2010)."""
    known = _known(seen, most_items)
    chosen = seen[:, known].astype(np.float64)
    rank = min(rank, min(chosen.shape) - 1)
    if rank < 1:
        return Neighbours.none(seen.shape[1])
    _, _, directions = svds(chosen, k=rank, v0=np.ones(min(chosen.shape)))  # (rank, M); a start of its own each time
    return _of_dense((directions.T @ directions).astype(np.float32), known, seen.shape[1])


def _known(seen: Any, most: int) -> Ints:
    """The most popular items that more than two chose, increasing."""
    counts = np.asarray(seen.sum(0)).ravel()
    return np.sort(np.argsort(-counts, kind="stable")[: min(most, int((counts > 2).sum()))])


def _of_dense(weights: Float32s, known: Ints, n_items: int) -> Neighbours:
    """The strongest of each row of (M, M) weights between ``known`` items, by their size, without an item's own."""
    if len(known) < 2:
        return Neighbours.none(n_items)
    np.fill_diagonal(weights, 0.0)
    width = min(kept_of(n_items), len(known) - 1)
    best = np.argpartition(-np.abs(weights), width - 1, axis=1)[:, :width]
    item, weight = np.zeros((n_items, width), np.int32), np.zeros((n_items, width), np.float32)
    item[known], weight[known] = known[best], np.take_along_axis(weights, best, 1)
    return Neighbours(item, weight)


def _strongest(weights: Any, kept: int) -> Neighbours:
    """The ``kept`` largest of each row of a (N, N) CSR, the largest first, ties to the smaller column."""
    counts = np.diff(weights.indptr)
    width = min(kept, int(counts.max(initial=0)))
    item, weight = np.zeros((len(counts), width), np.int32), np.zeros((len(counts), width), np.float32)
    for row, (start, count) in enumerate(zip(weights.indptr[:-1].tolist(), counts.tolist(), strict=True)):
        columns, values = weights.indices[start : start + count], weights.data[start : start + count]
        if count > kept:
            least = np.partition(values, count - kept)[count - kept]
            near = np.flatnonzero(values >= least)  # more than so many where some are equal
            columns, values = columns[near], values[near]
        order = np.lexsort((columns, -values))[:kept]
        item[row, : len(order)], weight[row, : len(order)] = columns[order], values[order]
    return Neighbours(item, weight)
