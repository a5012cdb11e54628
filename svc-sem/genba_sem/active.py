"""Which particles to ask about next, so that few labels teach much. Rows and probabilities in, indices out.

While a label has few masters, typical particles of uncovered regions teach most (TypiClust, Hacohen et al. 2022); from about five
masters a label on, those between two labels do (smallest margin), spread out so that a batch does not ask one thing twenty times.
"""

from __future__ import annotations

import warnings
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Strategy = Literal["hybrid", "typical", "margin", "random"]

ENOUGH_PER_LABEL: Final = 5
_NEIGHBOURS: Final = 10
_MOST_CLUSTERS: Final = 200
_MANY_ROWS: Final = 4000
_SHORTLIST: Final = 4


def choose(
    rows: Rows,
    count: int,
    *,
    labelled: Rows,
    masters_per_label: float,
    probabilities: Floats | None = None,
    strategy: Strategy = "hybrid",
    seed: int = 0,
) -> list[int]:
    """Indices of the particles to ask about, most useful first.

    rows: (N, D) unit rows without a label; labelled: (M, D) of the masters; probabilities: (N, C) of the lane, needed for margins.
    Raises: ValueError for margins without probabilities.
    """
    count = min(count, len(rows))
    if strategy == "hybrid":
        strategy = "typical" if masters_per_label < ENOUGH_PER_LABEL or probabilities is None else "margin"
    if count == 0:
        return []
    if strategy == "random":
        return [int(index) for index in np.random.default_rng(seed).permutation(len(rows))[:count]]
    if strategy == "typical":
        return typical(rows, count, labelled=labelled, seed=seed)
    if probabilities is None:
        raise ValueError("Margins need the lane's probabilities.")
    return smallest_margin(rows, probabilities, count, seed=seed)


def typical(rows: Rows, count: int, *, labelled: Rows, seed: int = 0) -> list[int]:
    """The densest particle of each of the largest regions that hold no master yet."""
    every = np.concatenate([rows, labelled]) if len(labelled) else rows
    clusters = min(len(labelled) + count, _MOST_CLUSTERS, len(every))
    members = _clustered(every, clusters, seed)
    sizes = np.bincount(members[: len(rows)], minlength=clusters)
    masters = np.bincount(members[len(rows) :], minlength=clusters)
    chosen: list[int] = []
    while len(chosen) < count:
        order = np.lexsort((-sizes, masters))  # fewest masters first, then the largest
        best = next(cluster for cluster in order if sizes[cluster] > 0)
        inside = np.flatnonzero(members[: len(rows)] == best)
        left = inside[~np.isin(inside, chosen)]
        chosen.append(int(left[np.argmax(_typicality(rows[left]))]))
        sizes[best] -= 1
        masters[best] += 1
    return chosen


def smallest_margin(rows: Rows, probabilities: Floats, count: int, *, seed: int = 0) -> list[int]:
    """The least certain of every region among the shortlist of the least certain."""
    ranked = np.sort(probabilities, axis=1)
    margin = ranked[:, -1] - ranked[:, -2] if probabilities.shape[1] > 1 else ranked[:, -1]
    shortlist = np.argsort(margin, kind="stable")[: _SHORTLIST * count]
    members = _clustered(rows[shortlist], min(count, len(shortlist)), seed)
    firsts = [int(shortlist[np.flatnonzero(members == cluster)[0]]) for cluster in np.unique(members)]
    rest = [int(index) for index in shortlist if int(index) not in firsts]
    return (sorted(firsts, key=lambda index: margin[index]) + rest)[:count]


def _clustered(rows: Rows, clusters: int, seed: int) -> npt.NDArray[np.int64]:
    from sklearn.cluster import KMeans, MiniBatchKMeans  # loads pandas, which no answer needs before somebody labels
    from sklearn.exceptions import ConvergenceWarning

    kind = MiniBatchKMeans if len(rows) > _MANY_ROWS else KMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal rows leave clusters empty, and that is fine
        return np.asarray(kind(clusters, n_init=1, random_state=seed).fit_predict(rows), np.int64)


def _typicality(rows: Rows) -> Floats:
    """One over the mean distance to the nearest neighbours (N,)."""
    distances = np.sqrt(np.maximum(2 - 2 * rows @ rows.T, 0))
    near = np.sort(distances, axis=1)[:, 1 : _NEIGHBOURS + 1]
    return np.asarray(1 / (near.mean(1) + 1e-6) if near.shape[1] else np.ones(len(rows)), np.float64)
