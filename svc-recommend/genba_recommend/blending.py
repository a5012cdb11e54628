"""How the terms of a score are weighed, which is learnt from the data and not taken for granted.

    score(user, item) = towers(n) · cosine / temperature  +  prior  +  Σ over the history of what its items speak for

A second stage (reranker.py) may put the best of them in order.

The cosine is the towers' (two_tower.py), the prior is popularity now (prior.py), the sum is the neighbours' (neighbours.py); n is
how many items are in the user's history. A user of whom little is known is read with doubt, so the less is known the more the
prior decides. Every weight may be 0. Numbers and arrays only; what tunes them is tuning.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]

MOST_HISTORY: Final = 500  # items of a history that speak for their neighbours, the newest


@dataclass(frozen=True)
class Blend:
    """towers: weight of what the towers say.   doubt: in items; towers count n / (n + doubt) of their weight.

    stranger: weight of the towers for somebody without history.   neighbours: weight of the history's neighbours, 0 without.
    fade: of an item of the history, for each place that it lies further back.   kind: which neighbours, of ``tuning.KINDS``.
    reranker: weight of what the second stage adds to a shortlist, 0 without.
    """

    towers: float = 1.0
    doubt: float = 0.0
    stranger: float = 0.0
    neighbours: float = 0.0
    fade: float = 1.0
    kind: str = "item_knn"
    reranker: float = 0.0

    def towers_at(self, n_items: npt.NDArray[np.integer]) -> Float32s:
        """Weight of the towers. n_items: (B,) in each history. Returns: (B,)."""
        n = np.asarray(n_items, np.float64)
        trusted = self.towers * n / np.maximum(n + self.doubt, 1e-9)
        return np.where(n > 0, trusted, self.stranger).astype(np.float32)

    def of_history(self, weight: Float32s) -> Float32s:
        """How much each place of a history speaks for its neighbours.

        Args:    weight: (..., T) of the events, newest first, 0 for nothing.
        Returns: (..., T); a longer history speaks louder, by the square root of what it weighs.
        """
        faded = weight * np.float32(self.fade) ** np.arange(weight.shape[-1], dtype=np.float32)
        total = np.sqrt(np.maximum(faded.sum(-1, keepdims=True), 1e-6))
        return np.asarray(np.float32(self.neighbours) * faded / total, np.float32)
