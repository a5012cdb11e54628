"""What the towers are compared with: each takes a training set and a seed, and returns a function that scores users.

Popularity, decayed popularity, ItemKNN and EASE are written here in a few lines; ALS and BPR are ``implicit``'s, LightFM
``lightfm-next``'s. Settings that matter are picked on the same validation slice on which the towers' prior is tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from genba_recommend.dataset import Dataset, split_by_time
from genba_recommend.metrics import Questions, Scores, ScoreUsers, quality, questions, rank
from genba_recommend.prior import Prior, everybody, tune_half_life
from genba_recommend.scoring import popularity_now, with_prior

HALF_LIVES_DAYS = (0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 14.0, 30.0)
MOST_EASE_ITEMS = 3_000  # its cost is cubic; rarer items score 0
Fit = Callable[[Dataset, int], ScoreUsers]


def matrix(dataset: Dataset) -> Any:
    """(U, N) CSR of ones where a user has a positive event."""
    events = dataset.interactions.positive
    shape = (len(dataset.users), len(dataset.catalogue))
    found = sp.csr_matrix((np.ones(len(events), np.float32), (events.user, events.item)), shape=shape)
    found.data[:] = 1.0
    return found


def popularity(dataset: Dataset, _seed: int) -> ScoreUsers:
    return everybody(np.asarray(matrix(dataset).sum(0), np.float32).ravel())


def decayed_popularity(dataset: Dataset, _seed: int) -> ScoreUsers:
    """With the half-life that is best on the newest tenth."""
    split, asked = validation(dataset)
    half_life_days, _ = tune_half_life(split.interactions, asked, HALF_LIVES_DAYS)
    return everybody(popularity_now(Prior(half_life_days), dataset.interactions, n_items=len(dataset.catalogue)))


def item_knn(dataset: Dataset, _seed: int) -> ScoreUsers:
    """Cosine over the 100 or 300 nearest, shrunk."""

    def fit(data: Dataset, n_neighbours: int) -> ScoreUsers:
        seen = matrix(data)
        together = (seen.T @ seen).tocsr()  # (N, N)
        norm = np.sqrt(together.diagonal())
        together.setdiag(0)
        together.eliminate_zeros()
        row = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr))
        together.data /= norm[row] * norm[together.indices] + 10.0
        for at in range(together.shape[0]):
            part = slice(together.indptr[at], together.indptr[at + 1])
            if part.stop - part.start > n_neighbours:
                values = together.data[part]
                values[values < np.partition(values, -n_neighbours)[-n_neighbours]] = 0
        return _linear(seen, together)

    return _best(dataset, fit, (100, 300))


def ease(dataset: Dataset, _seed: int) -> ScoreUsers:
    """Steck 2019, over the most popular items."""
    return _best(dataset, fit_ease, (100.0, 500.0))


def fit_ease(dataset: Dataset, penalty: float) -> ScoreUsers:
    seen = matrix(dataset)
    counts = np.asarray(seen.sum(0)).ravel()
    kept = np.sort(np.argsort(-counts, kind="stable")[: min(MOST_EASE_ITEMS, int((counts > 2).sum()))])
    gram = (seen[:, kept].T @ seen[:, kept]).toarray().astype(np.float32)
    gram[np.diag_indices_from(gram)] += penalty
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)

    def score(users: Any) -> Scores:
        out = np.zeros((len(users), seen.shape[1]), np.float32)
        out[:, kept] = seen[users][:, kept] @ weights
        return out

    return score


def als(dataset: Dataset, seed: int) -> ScoreUsers:
    from implicit.als import AlternatingLeastSquares

    def fit(data: Dataset, factors: int) -> ScoreUsers:
        model = AlternatingLeastSquares(
            factors=factors, regularization=0.05, alpha=2.0, iterations=15, num_threads=1, random_state=seed
        )
        return _factors(model, data)

    return _best(dataset, fit, (32, 64))


def bpr(dataset: Dataset, seed: int) -> ScoreUsers:
    from implicit.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        factors=64, learning_rate=0.05, regularization=0.01, iterations=100, num_threads=1, random_state=seed
    )
    return _factors(model, dataset)


def lightfm(dataset: Dataset, seed: int) -> ScoreUsers:
    """WARP, ids and genres as features of items."""
    from lightfm import LightFM

    items = dataset.catalogue.items
    genres = sorted({genre for item in items for genre in item.genre})
    rows = [(row, genres.index(genre)) for row, item in enumerate(items) for genre in item.genre]
    at = np.array(rows, np.int64).reshape(-1, 2)
    kinds = sp.csr_matrix((np.ones(len(at), np.float32), (at[:, 0], at[:, 1])), shape=(len(items), max(1, len(genres))))
    features = sp.hstack([sp.identity(len(items), dtype=np.float32), kinds]).tocsr()
    model = LightFM(no_components=64, loss="warp", learning_rate=0.05, random_state=seed)
    model.fit(matrix(dataset), item_features=features, epochs=15, num_threads=1)
    biases, vectors = model.get_item_representations(features)
    _, users = model.get_user_representations()
    return _scores(lambda rows: users[rows] @ vectors.T + biases)


def with_tuned_prior(fit: Callable[[Dataset], ScoreUsers], dataset: Dataset) -> ScoreUsers:
    """Any model's scores, standardised, plus decayed popularity; half-life and weight picked as for the towers."""
    earlier, asked = validation(dataset)

    def blend(data: Dataset, score: ScoreUsers, half_life_days: float, weight: float) -> ScoreUsers:
        popular = popularity_now(Prior(half_life_days), data.interactions, n_items=len(data.catalogue))
        return with_prior(_standard(score), popular, weight)

    before = fit(earlier)
    trials = [(days, weight) for days in (1.0, 2.0, 3.0, 7.0) for weight in (0.25, 0.5, 1.0, 2.0, 4.0)]
    best = max(trials, key=lambda trial: _ndcg(blend(earlier, before, *trial), asked))
    return blend(dataset, fit(dataset), *best)


def validation(dataset: Dataset) -> tuple[Dataset, Questions]:
    """What lies before the newest tenth, and what that tenth asks (of 2,000 users at most)."""
    split = split_by_time(dataset, newest=0.1)
    asked = questions(split)
    if len(asked) > 2_000:
        asked = asked.of(np.sort(np.random.default_rng(0).choice(len(asked), 2_000, replace=False)))
    return split.train, asked


def _best(dataset: Dataset, fit: Callable[[Dataset, Any], ScoreUsers], settings: Sequence[Any]) -> ScoreUsers:
    earlier, asked = validation(dataset)
    return fit(dataset, max(settings, key=lambda setting: _ndcg(fit(earlier, setting), asked)))


def _ndcg(score: ScoreUsers, asked: Questions) -> float:
    return float(quality(rank(score, asked), asked).ndcg_at_10.mean())


def _standard(score: ScoreUsers) -> ScoreUsers:
    """Zero mean and unit spread over each user's items, so that one weight of a prior suits everybody."""

    def scores(users: Any) -> Scores:
        found = np.asarray(score(users), np.float32)
        return np.asarray((found - found.mean(1, keepdims=True)) / np.maximum(found.std(1, keepdims=True), 1e-9))

    return scores


def _linear(seen: Any, weights: Any) -> ScoreUsers:
    return lambda users: np.asarray((seen[users] @ weights).todense(), np.float32)


def _factors(model: Any, dataset: Dataset) -> ScoreUsers:
    model.fit(matrix(dataset), show_progress=False)
    users, items = np.asarray(model.user_factors), np.asarray(model.item_factors)
    return _scores(lambda rows: users[rows] @ items.T)


def _scores(found: Any) -> ScoreUsers:
    """What an untyped library computes, as scores."""
    score: ScoreUsers = found
    return score
