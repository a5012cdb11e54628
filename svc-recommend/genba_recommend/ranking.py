"""From candidates to a list: spread out, some places left to chance, each chance written down. Arrays in, places out.

Knows no model, no catalogue and no HTTP: a candidate is a row with a score and, where there is one, a vector.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from genba_recommend.offpolicy import softmax_propensities

Float32s = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

POOL: Final = 4  # candidates a place, when they are to be spread or chance is to choose
LEAST_POOL: Final = 40
EXPLORE_TEMPERATURE: Final = 1.0  # of scores, which are logits
EXPLORE_FLOOR: Final = 0.2  # share of chance that is the same for every candidate, so that nothing is without one


@dataclass(frozen=True)
class Picked:
    """A list in order. rows, scores, propensities: (K,); ``explored`` says which places chance filled.

    among: (L,) the rows that chance chose among, those that it chose included.   newcomer: a place given to what is seldom shown.
    """

    rows: Rows
    scores: Float32s
    propensities: npt.NDArray[np.float64]
    explored: npt.NDArray[np.bool_]
    among: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    newcomer: int | None = None

    def giving(self, place: int, row: int, score: float) -> Picked:
        """The same list with another row in a place."""
        rows, scores = self.rows.copy(), self.scores.copy()
        rows[place], scores[place] = row, score
        return replace(self, rows=rows, scores=scores, newcomer=place)


def pool_size(k: int, *, diversity: float, explore: float) -> int:
    """How many candidates a list of k places wants."""
    return max(POOL * k, LEAST_POOL) if diversity > 0 or explore > 0 else k


def pick(
    rows: Rows,
    scores: Float32s,
    vectors: Float32s | None,
    k: int,
    *,
    diversity: float,
    explore: float,
    rng: np.random.Generator,
) -> Picked:
    """Choose k of M candidates, given the highest score first.

    Args: vectors: (M, D) of unit length; without them nothing is spread.   diversity: 0 by score alone, 1 by distance alone.
        explore: share of the places, the last ones, that chance fills among the candidates that are left.
    """
    k = min(k, len(rows))
    n_explored = min(round(k * explore), max(0, len(rows) - (k - round(k * explore)))) if explore > 0 else 0
    order = spread(scores, vectors, k - n_explored, diversity) if vectors is not None else np.arange(k - n_explored)
    chances, left = np.ones(k), np.zeros(0, np.int64)
    if n_explored:
        left = np.setdiff1d(np.arange(len(scores)), order)
        drawn, chances[k - n_explored :] = _explore(scores, left, n_explored, rng)
        order = np.concatenate([order, drawn])
    explored = np.arange(k) >= k - n_explored
    return Picked(rows[order], scores[order], chances, explored, rows[left])


def chances_of(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(B, L) chances with which an exploring list takes each of L candidates next."""
    return softmax_propensities(scores, temperature=EXPLORE_TEMPERATURE, floor=EXPLORE_FLOOR)


def spread(scores: Float32s, vectors: Float32s, k: int, diversity: float) -> npt.NDArray[np.int64]:
    """Places among M candidates by maximal marginal relevance (Carbonell & Goldstein 1998): (k,).

    The score is scaled to [0, 1] over the candidates; what resembles one already chosen loses ``diversity`` times its cosine.
    """
    if diversity <= 0 or len(scores) <= 1:
        return np.arange(min(k, len(scores)))
    low, high = float(scores.min()), float(scores.max())
    worth = (1 - diversity) * (scores - low) / (high - low or 1.0)  # (M,)
    alike = diversity * (vectors @ vectors.T)  # (M, M)
    nearest = np.zeros(len(scores), np.float32)  # the first choice resembles nothing
    chosen = np.empty(min(k, len(scores)), np.int64)
    for at in range(len(chosen)):
        best = int((worth - nearest).argmax())
        chosen[at] = best
        worth[best] = -np.inf
        nearest = alike[best] if at == 0 else np.maximum(nearest, alike[best])
    return chosen


def _explore(
    scores: Float32s, left: npt.NDArray[np.int64], n: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Draw n of the candidates that are left, one after the other. Returns: them, and the chance of each draw when it was made."""
    drawn, chances = [], np.empty(n)
    for at in range(n):
        odds = chances_of(scores[left].astype(np.float64)[None])[0]
        place = int(rng.choice(len(left), p=odds / odds.sum()))
        chances[at] = odds[place]
        drawn.append(int(left[place]))
        left = np.delete(left, place)
    return np.array(drawn, np.int64), chances


def intra_list_distance(vectors: Float32s) -> float | None:
    """Mean of 1 - cosine over the pairs of a list's (K, D) unit vectors; None with fewer than two."""
    k = len(vectors)
    if k < 2:
        return None
    total = float(np.square(vectors.sum(0)).sum()) - float(np.square(vectors).sum())
    return 1.0 - total / (k * (k - 1))
