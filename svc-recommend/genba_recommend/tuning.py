"""Pick the popularity prior, its half-life and its weight, by what users did in the newest slice of the training period."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genba_recommend.dataset import Interactions, Ints
from genba_recommend.metrics import Quality, Questions, Scores, ScoreUsers, quality, rank
from genba_recommend.prior import Prior, everybody
from genba_recommend.scoring import popularity_now, with_prior


@dataclass(frozen=True)
class TunedPrior:
    """The best prior, how good it is with and without the towers, and every trial."""

    prior: Prior
    blended: Quality
    alone: Quality  # popularity under its own best half-life
    trials: tuple[tuple[Prior, float], ...]  # NDCG@10


def sample_questions(asked: Questions, most: int, *, seed: int) -> Questions:
    """Return the questions of at most so many users, drawn at random."""
    if len(asked) <= most:
        return asked
    chosen = np.sort(np.random.default_rng(seed).choice(len(asked), most, replace=False))
    return asked.of(chosen)


def tune_prior(
    towers: ScoreUsers,
    interactions: Interactions,
    asked: Questions,
    *,
    half_lives_days: Sequence[float],
    weights: Sequence[float],
) -> TunedPrior:
    """Try every half-life with every weight; the best NDCG@10 wins, ties to the first.

    Args: towers: their scores before the questions.   interactions: what had happened by then.
    """
    n_items = len(asked.candidates)
    scores = _Kept(towers, asked.users)
    trials: list[tuple[Prior, float]] = []
    alone: list[Quality] = []
    for half_life_days in half_lives_days:
        popular = popularity_now(Prior(half_life_days), interactions, n_items=n_items)
        alone.append(quality(rank(everybody(popular), asked), asked))
        for weight in weights:
            found = quality(rank(with_prior(scores, popular, weight), asked, k=50), asked)
            trials.append((Prior(half_life_days, weight), float(found.ndcg_at_10.mean())))
    prior = max(trials, key=lambda trial: trial[1])[0]
    popular = popularity_now(prior, interactions, n_items=n_items)
    blended = quality(rank(with_prior(scores, popular, prior.weight), asked), asked)
    return TunedPrior(prior, blended, max(alone, key=lambda found: float(found.ndcg_at_10.mean())), tuple(trials))


class _Kept:
    """Scores that are asked for again and again, kept if they fit."""

    def __init__(self, score: ScoreUsers, users: Ints) -> None:
        self._score = score
        self._kept: dict[bytes, Scores] = {}
        self._room = 64_000_000 // max(1, len(users))

    def __call__(self, users: Ints) -> Scores:
        key = users.tobytes()
        if key not in self._kept:
            scores = self._score(users)
            if scores.shape[1] > self._room:
                return scores
            self._kept[key] = scores
        return self._kept[key]
