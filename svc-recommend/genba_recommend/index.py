"""The items that fit a vector best, among those that are allowed: every one scored, or a vector index asked first.

Scores are ``vectors @ query + bias + lift``: the query is the user's vector over the temperature, the bias the popularity prior,
and the lift what the neighbours of a history get, which is nothing for most rows.
Up to some 200,000 items all are scored: it is exact and takes a millisecond. Beyond, the index offers candidates by the query alone,
the most popular and what is lifted join them, and all are scored the same way. Knows no HTTP and no table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

GROUP: Final = 16
GATHER_BELOW: Final = 0.25  # of the items: so few allowed ones are gathered before they are scored


@dataclass(frozen=True)
class Choice:
    """What may be listed, with its prior: made once for a filter and used by many questions. Not to be written to.

    bias: (N,), -inf where an item may not be listed.   allowed: (N,).   rows: the allowed ones when they are few, else None.
    """

    bias: Float32s
    allowed: Bools
    rows: Rows | None
    n_allowed: int
    memory: dict[str, Rows] = field(default_factory=dict, repr=False)  # for whoever computes something of this choice

    @classmethod
    def of(cls, bias: Float32s, allowed: Bools) -> Choice:
        """bias, allowed: (N,)."""
        n_allowed = int(np.count_nonzero(allowed))
        # Few are gathered before they are scored: masks full of ties and a partition of them are what makes exact search slow.
        rows = np.flatnonzero(allowed) if n_allowed < GATHER_BELOW * len(allowed) else None
        return cls(np.where(allowed, bias, np.float32(-np.inf)), allowed, rows, n_allowed)

    def under(self, bias: Float32s) -> Choice:
        """The same items under another bias, (N,)."""
        if self.n_allowed == len(bias):
            return Choice(bias, self.allowed, self.rows, self.n_allowed)
        return Choice(np.where(self.allowed, bias, np.float32(-np.inf)), self.allowed, self.rows, self.n_allowed)


@dataclass(frozen=True)
class Lift:
    """What is added to the scores of a few rows. rows: (M,), increasing.   by: (M,)."""

    rows: Rows
    by: Float32s

    def __len__(self) -> int:
        return len(self.rows)


NO_LIFT: Final = Lift(np.zeros(0, np.int64), np.zeros(0, np.float32))


class Index(Protocol):
    """What both ways of searching answer."""

    name: str

    def best(
        self, query: Float32s, choice: Choice, without: npt.NDArray[np.integer], n: int, *, lift: Lift = NO_LIFT
    ) -> tuple[Rows, Float32s]:
        """Up to n allowed rows with the highest scores, the highest first, and the scores.

        Args: query: (D,), not to be written to afterwards.   without: rows to leave out.
        """


class ExactIndex:
    """Scores every allowed item. vectors: (N, D), zeros where there is none."""

    name = "exact"

    def __init__(self, vectors: Float32s) -> None:
        self._vectors = np.ascontiguousarray(vectors, np.float32)
        self._columns: Float32s | None = None  # (D, N), made at the first question about all
        self._latest: tuple[Float32s, Rows | None, Float32s] | None = None

    def _products(self, query: Float32s, rows: Rows | None) -> Float32s:
        """Of all or of some rows, not to be written to. The latest are kept: a list asks for its places, then for its discovery."""
        latest = self._latest
        if latest is None or latest[0] is not query or latest[1] is not rows:
            self._latest = latest = (query, rows, self._of_all(query) if rows is None else self._of_some(query, rows))
        return latest[2]

    def _of_all(self, query: Float32s) -> Float32s:
        # By columns: BLAS reads a table of few columns in two thirds of the time that it takes by rows (measured).
        if self._columns is None:
            self._columns = np.ascontiguousarray(self._vectors.T)
        return np.asarray(query @ self._columns)

    def _of_some(self, query: Float32s, rows: Rows) -> Float32s:
        return np.asarray(self._vectors.take(rows, axis=0) @ query)  # take() is three times as fast as indexing

    def best(
        self, query: Float32s, choice: Choice, without: npt.NDArray[np.integer], n: int, *, lift: Lift = NO_LIFT
    ) -> tuple[Rows, Float32s]:
        rows = choice.rows
        if rows is None:
            scores: Float32s = self._products(query, None) + choice.bias
            scores[lift.rows] += lift.by
            scores[without] = -np.inf
        else:
            scores = self._products(query, rows) + choice.bias.take(rows)
            raise_some(scores, rows, lift)
            scores[places_in(rows, without)] = -np.inf
        best = highest(scores, n)
        found = scores[best]
        kept = found > -np.inf
        return best[kept] if rows is None else rows[best[kept]], found[kept]


def raise_some(scores: Float32s, rows: Rows, lift: Lift) -> None:
    """Add a lift to the scores of increasing ``rows``, in place."""
    if len(lift) and len(rows):
        places = np.minimum(np.searchsorted(rows, lift.rows), len(rows) - 1)
        there = rows[places] == lift.rows
        scores[places[there]] += lift.by[there]


def places_in(rows: Rows, wanted: npt.NDArray[np.integer]) -> Rows:
    """Where the ``wanted`` that are there stand in increasing ``rows``; a search each, where ``isin`` would sort both."""
    if not len(rows):
        return np.zeros(0, np.int64)
    places: Rows = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    return np.asarray(places[rows[places] == wanted])


def highest(scores: Float32s, n: int) -> Rows:
    """Rows of the n highest of (N,) scores, the highest first.

    The maximum of each group comes first: the n best lie in the n groups with the highest, so that only those are partitioned.
    A group is every so-manieth row, so that the maxima of all groups are found by comparing whole stretches of memory.
    """
    size = len(scores)
    n = min(n, size)
    n_groups = size // GROUP
    if n_groups < 4 * n:
        return ranked(np.arange(size), scores, n)[0]
    whole = n_groups * GROUP
    tops = scores[:whole].reshape(GROUP, n_groups).max(0)
    chosen = np.argpartition(tops, n_groups - n)[n_groups - n :]
    rows = (np.arange(GROUP)[:, None] * n_groups + chosen).ravel()
    rows = np.concatenate([rows, np.arange(whole, size)])
    return ranked(rows, scores[rows], n)[0]


def ranked(rows: Rows, scores: Float32s, n: int) -> tuple[Rows, Float32s]:
    """The n highest of (M,) scores with their rows, the highest first, ties to the lower row."""
    if n < len(scores):
        # A score below the n-th cannot be among the n: everything from there on is kept, so that ties are told apart by row.
        chosen = np.flatnonzero(scores >= np.partition(scores, len(scores) - n)[len(scores) - n])
        rows, scores = rows[chosen], scores[chosen]
    order = np.lexsort((rows, -scores))[:n]
    return rows[order], scores[order]
