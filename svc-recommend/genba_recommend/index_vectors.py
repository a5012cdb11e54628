"""The vector index for catalogues of which scoring every item takes too long: it proposes candidates, and they are scored exactly.

A collection belongs to one version of the towers and holds the vectors of its bundle, so it never changes and is built once.
Items that were embedded later are few and are always candidates, and so are the most popular ones, which a prior may lift above
all that lies near, and the neighbours of the history. Knows no HTTP and no table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from genba_recommend.index import NO_LIFT, Choice, ExactIndex, Float32s, Lift, Rows, highest, raise_some, ranked
from genba_shared.vectors import BATCH_POINTS, Point, Vectors

OVERFETCH = 4  # candidates a place: some are seen, or not allowed
LEAST_CANDIDATES = 200
POPULAR_CANDIDATES = 5000  # a prior lifts them above what is near; scoring them costs a third of a millisecond


class VectorIndex:
    """Asks a collection first. vectors: (N, D) by row.   later: rows that the collection does not have, or has as they were."""

    name = "vector"

    def __init__(
        self,
        store: Vectors,
        collection: str,
        encoder: str,
        vectors: Float32s,
        *,
        row_of: Callable[[str], int | None],
        later: npt.NDArray[np.int64],
    ) -> None:
        self._store, self._collection, self._encoder = store, collection, encoder
        self._vectors, self._row_of, self._later = vectors, row_of, later
        self._exact = ExactIndex(vectors)

    def best(
        self, query: Float32s, choice: Choice, without: npt.NDArray[np.integer], n: int, *, lift: Lift = NO_LIFT
    ) -> tuple[Rows, Float32s]:
        """As ``Index.best``; falls back to scoring everything where filters leave too few candidates."""
        if choice.rows is not None:
            return self._exact.best(query, choice, without, n, lift=lift)
        rows = self.candidates(query, choice, OVERFETCH * n + len(without))
        if len(lift):
            rows = np.union1d(rows, lift.rows[choice.bias[lift.rows] > -np.inf])
        if len(without):
            rows = rows[~np.isin(rows, without)]
        if len(rows) < min(n, choice.n_allowed - len(without)):
            return self._exact.best(query, choice, without, n, lift=lift)
        scores = self._vectors[rows] @ query + choice.bias[rows]
        raise_some(scores, rows, lift)
        return ranked(rows, scores, n)

    def candidates(self, query: Float32s, choice: Choice, n: int) -> Rows:
        """Allowed rows near the query, the most popular ones, and all that came later; sorted."""
        length = float(np.linalg.norm(query))
        k = max(n, LEAST_CANDIDATES)
        # A blend in which the towers count nothing has no direction to look in.
        hits = self._store.search(self._collection, query / length, k=k, encoder=self._encoder) if length else []
        near = [row for hit in hits if (row := self._row_of(hit.id)) is not None]
        rows: Rows = np.unique(np.concatenate([np.array(near, np.int64), popular_of(choice), self._later]))
        allowed: Rows = rows[choice.bias[rows] > -np.inf]
        return allowed


def popular_of(choice: Choice) -> Rows:
    """The rows with the highest bias, found once for a choice."""
    if "popular" not in choice.memory:
        choice.memory["popular"] = highest(choice.bias, POPULAR_CANDIDATES)
    return choice.memory["popular"]


def collection_of(tenant: str, number: int) -> str:
    """The name of the collection of a version."""
    return f"recommend-{hashlib.sha256(tenant.encode()).hexdigest()[:8]}-v{number}"


def build(
    store: Vectors,
    collection: str,
    encoder: str,
    ids: Sequence[str],
    vectors: Float32s,
    *,
    builder: str,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Build and publish a collection, unless it is there. Returns: whether it can be searched now.

    Processes that share a server build each under its own name, ``builder``, and the first to end is searched; what one left
    half built is begun anew when it comes back.
    """
    if store.current(collection) is not None:
        return True
    store.drop(collection, builder)
    store.create(collection, builder, dim=int(vectors.shape[1]), encoder=encoder)
    size = 10 * BATCH_POINTS
    for at in range(0, len(ids), size):
        if stop():
            return False
        part = zip(ids[at : at + size], vectors[at : at + size], strict=True)
        store.upsert(collection, builder, [Point(item_id, vector) for item_id, vector in part])
    if store.current(collection) is not None:
        store.drop(collection, builder)
    else:
        store.publish(collection, builder)
    return True
