"""How popular items are now: counts that fade with time. Stays outside of the towers and is added when ranking.

Taste moves in months, popularity in days: with the prior outside, yesterday's premiere rises today without training, and how
much the list leans on it is a dial. Half-life and weight are tuned on a temporal slice of the training period.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from genba_recommend.dataset import Interactions
from genba_recommend.metrics import Quality, Questions, ScoreUsers, quality, rank_alike
from genba_recommend.popularity import log_lasting, smoothed

DAY_S = 86_400.0
Counts = TypeVar("Counts", npt.NDArray[np.float64], npt.NDArray[np.float32])
LASTING_TIMES = 30.0  # the half-life of what lasts, in the prior's


def decayed_counts(
    interactions: Interactions, *, n_items: int, now_s: float, half_life_days: float
) -> npt.NDArray[np.float64]:
    """Sum of the weights of an item's positive events, each halved every half-life, (N,)."""
    events = interactions.positive
    age_days = np.maximum(now_s - events.time_s, 0.0) / DAY_S
    faded = events.weight * np.exp2(-age_days / half_life_days)
    return np.bincount(events.item, faded, minlength=n_items).astype(np.float64)


@dataclass(frozen=True)
class Prior:
    """weight 0 leaves ranking to the towers alone. smoothing is in events: what an item without any counts as.

    newcomer_half_life_days: for people without history, None where it was not tuned. Theirs must do best by itself; the other
    may lean on the towers.
    lasting: how much an event counts that fades ``LASTING_TIMES`` more slowly, in the places after the first (reranker.py).
    """

    half_life_days: float = 7.0
    weight: float = 1.0
    smoothing: float = 0.1
    newcomer_half_life_days: float | None = None
    lasting: float = 0.0

    @property
    def of_newcomers(self) -> Self:
        """What people without history get."""
        return replace(self, half_life_days=self.newcomer_half_life_days or self.half_life_days)

    def counts_of(self, per_day: Counts) -> Counts:
        """What events that keep coming add up to, (N,)."""
        return per_day * per_day.dtype.type(self.half_life_days / np.log(2.0))

    def log_popularity(
        self,
        interactions: Interactions,
        *,
        n_items: int,
        now_s: float,
        foreseen: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return log(count + smoothing), shifted so that its maximum is 0, (N,) float32.

        Args: foreseen: (N,) events a day of items that nobody has touched, see ``premieres``.
        """
        counts = decayed_counts(interactions, n_items=n_items, now_s=now_s, half_life_days=self.half_life_days)
        expected = None if foreseen is None else self.counts_of(foreseen.astype(np.float64))
        logs = np.log(smoothed(counts, self.smoothing, expected))
        return np.asarray(logs - logs.max(initial=-np.inf), np.float32) if n_items else np.zeros(0, np.float32)

    @property
    def lasting_half_life_days(self) -> float:
        return LASTING_TIMES * self.half_life_days

    def lasting_scores(
        self, interactions: Interactions, *, n_items: int, now_s: float
    ) -> npt.NDArray[np.float32] | None:
        """Return what the places after the first get on top of ``scores``, (N,) float32; None where nothing lasts."""
        if not self.lasting:
            return None
        now, ever = (
            decayed_counts(interactions, n_items=n_items, now_s=now_s, half_life_days=days).astype(np.float32)
            for days in (self.half_life_days, self.lasting_half_life_days)
        )
        return log_lasting(now, ever, lasting=self.lasting, smoothing=self.smoothing, weight=self.weight)

    def scores(
        self,
        interactions: Interactions,
        *,
        n_items: int,
        now_s: float,
        foreseen: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return what is added to dot product over temperature when ranking, (N,) float32."""
        logs = self.log_popularity(interactions, n_items=n_items, now_s=now_s, foreseen=foreseen)
        return np.float32(self.weight) * logs


def tune_half_life(
    interactions: Interactions, asked: Questions, half_lives_days: Sequence[float]
) -> tuple[float, Quality]:
    """Rank by decayed popularity alone, under each half-life. Returns: the one with the best NDCG@10 and its measures.

    Args: interactions: what had happened before the questions were asked.
    """
    now_s = float(interactions.time_s.max())
    found = []
    for half_life_days in half_lives_days:
        prior = Prior(half_life_days=half_life_days)
        scores = prior.log_popularity(interactions, n_items=len(asked.candidates), now_s=now_s)
        found.append((half_life_days, quality(rank_alike(scores, asked), asked)))
    return max(found, key=lambda pair: float(pair[1].ndcg_at_10.mean()))


def everybody(scores: npt.NDArray[np.float32]) -> ScoreUsers:
    """Return the same scores, (N,), for every user."""
    return lambda users: np.broadcast_to(scores, (len(users), len(scores)))
