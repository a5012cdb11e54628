"""Learn the second stage: what each moment looked like before it came, and which of a shortlist was chosen after it.

A conditional logit over shortlists at five moments of the log, popularity given: its weights say how much being unlike the crowd
counts. Five moments, because at any one of them a few premieres decide, and those of next month are others. Shortlists end where
popularity does (``TOP``): what counts is the order of what could be listed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import ArpackError, svds

from genba_recommend.dataset import Dataset, Floats, Interactions, Split
from genba_recommend.features import ItemFeatures
from genba_recommend.metrics import Questions, questions
from genba_recommend.neighbours import choices
from genba_recommend.prior import DAY_S, Prior
from genba_recommend.reranker import FEATURES, N_AGES, Float32s, Int32s, Reranker, age_of
from genba_recommend.scoring import popularity_now
from genba_recommend.tuning import sample_questions

RANK: Final = 24  # directions of taste
SMALL: Final = 256  # users or items: so small a matrix is taken apart whole
MOST_ITEMS: Final = 20_000  # the most popular, in which directions are sought
LATELY_DAYS, EVER_DAYS = 7.0, 60.0  # half-lives of who chose an item
CROWD_DAYS: Final = 60.0  # of the crowd's shares of genres and ages
LEAST_CROWD: Final = 5.0  # choices: with so few an item's people are half the crowd
MOMENTS: Final = (0.5, 0.6, 0.7, 0.8, 0.9)  # of the log, at which is asked
HORIZON: Final = 0.1  # of the log, that is asked for
MOST_USERS: Final = 1_500  # a moment
LEAST_USERS: Final = 100  # in all; fewer teach nothing
TOP: Final = 50
RIDGE: Final = 1e-3
STEPS: Final = 12  # of Newton; it is convex and ends after five


def fit_reranker(dataset: Dataset, items: ItemFeatures, *, n_genres: int, half_life_days: float, seed: int) -> Reranker:
    """As of the end of a dataset.

    Args: items: of its catalogue.   n_genres: codes that there are.   half_life_days: of popularity, which is taken for given.

    Returns: none where too little can be asked.
    """
    n_events = len(dataset.interactions)
    parts = []
    for moment in MOMENTS:
        first, last = round(n_events * moment), round(n_events * (moment + HORIZON))
        split = Split(_stretch(dataset, 0, first), _stretch(dataset, first, last))
        asked = sample_questions(questions(split), MOST_USERS, seed=seed)
        if len(asked):
            parts.append(_moment(split.train, asked, items, n_genres, half_life_days))
    if sum(len(part.given) for part in parts) < LEAST_USERS:
        return Reranker.none(len(dataset.catalogue))
    weights = conditional_logit(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.given for part in parts]),
        np.concatenate([part.chosen for part in parts]),
    )
    return replace(look(dataset, items, n_genres=n_genres), weights=weights)


def look(dataset: Dataset, items: ItemFeatures, *, n_genres: int) -> Reranker:
    """What the features are made from as of the newest event, without weights."""
    n_users, n_items = len(dataset.users), len(dataset.catalogue)
    events = dataset.interactions.positive
    published_s = np.array([item.published_at_s for item in dataset.catalogue.items], np.float64)  # None becomes nan
    direction = _directions(choices(events, n_users=n_users, n_items=n_items))
    said = sp.csr_matrix((events.weight, (events.user, events.item)), shape=(n_users, n_items))
    points = np.asarray(said @ direction)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
    recent = events.take(events.time_s >= events.time_s.max(initial=0.0) - CROWD_DAYS * DAY_S)
    return Reranker(
        genre=items.genre,
        published_s=published_s,
        direction=direction,
        lately=_people_of(events, points, n_items, LATELY_DAYS),
        ever=_people_of(events, points, n_items, EVER_DAYS),
        genre_share=_genre_share(items.genre, recent, n_genres),
        age_share=_share(np.bincount(age_of(published_s[recent.item], recent.time_s), recent.weight, N_AGES)),
        weights=np.zeros(len(FEATURES), np.float32),
    )


def conditional_logit(features: Float32s, given: Float32s, chosen: npt.NDArray[np.bool_]) -> Float32s:
    """Weights under which what was chosen is most likely, every user counting the same.

    Args: features: (U, M, F).   given: (U, M), added to the scores as it is; -inf for no item.   chosen: (U, M), one at least.
    Returns: (F,), a little drawn to nought.
    """
    spread = np.maximum(features[np.isfinite(given)].std(0), 1e-6)
    x = np.where(np.isfinite(given)[..., None], features / spread, 0.0)
    wanted = chosen / chosen.sum(1, keepdims=True)
    weights = np.zeros(features.shape[-1])
    for _ in range(STEPS):
        scores = given + x @ weights
        likely = np.exp(scores - scores.max(1, keepdims=True))
        likely /= likely.sum(1, keepdims=True)
        mean = np.einsum("um,umf->uf", likely, x)
        slope = np.einsum("um,umf->f", wanted - likely, x) / len(x) - RIDGE * weights
        bend = (np.einsum("um,umf,umg->fg", likely, x, x) - mean.T @ mean) / len(x) + RIDGE * np.eye(len(weights))
        weights += np.linalg.solve(bend, slope)
    return np.asarray(weights / spread, np.float32)


@dataclass(frozen=True)
class _Moment:
    """Shortlists of U users. features: (U, TOP, F).   given: (U, TOP) log-popularity, -inf for no item.   chosen: (U, TOP)."""

    features: Float32s
    given: Float32s
    chosen: npt.NDArray[np.bool_]


def _moment(dataset: Dataset, asked: Questions, items: ItemFeatures, n_genres: int, half_life_days: float) -> _Moment:
    """What was known at the end of a dataset, and what came. Users who chose nothing of their shortlist are left out."""
    known, past = look(dataset, items, n_genres=n_genres), dataset.histories
    now_s = float(dataset.interactions.time_s.max())
    popular = popularity_now(Prior(half_life_days), dataset.interactions, n_items=len(items))
    candidates = np.flatnonzero(asked.candidates)
    order = candidates[np.argsort(-popular[candidates], kind="stable")]
    shape = (len(asked), TOP)
    features, given = np.zeros((*shape, len(FEATURES)), np.float32), np.full(shape, -np.inf, np.float32)
    chosen = np.zeros(shape, np.bool_)
    for at, user in enumerate(asked.users.tolist()):
        seen = asked.seen[asked.seen_offsets[at] : asked.seen_offsets[at + 1]]
        near = order[: TOP + len(seen)]
        rows = near[~np.isin(near, seen)][:TOP]
        features[at, : len(rows)] = known.features(known.profile_in(past, user), rows, now_s=now_s)
        given[at, : len(rows)] = popular[rows]
        right = asked.relevant[asked.relevant_offsets[at] : asked.relevant_offsets[at + 1]]
        chosen[at, : len(rows)] = np.isin(rows, right)
    teaches = chosen.any(1)
    return _Moment(features[teaches], given[teaches], chosen[teaches])


def _stretch(dataset: Dataset, first: int, last: int) -> Dataset:
    return dataset.with_interactions(dataset.interactions.take(slice(first, last)))


def _directions(seen: Any) -> Float32s:
    """(N, R) of the items that are known: the few directions that explain most of what was chosen, rare items counting for more."""
    n_users, n_items = seen.shape
    counts = np.asarray(seen.sum(0)).ravel()
    known = np.sort(np.argsort(-counts, kind="stable")[: min(MOST_ITEMS, int((counts > 0).sum()))])
    rank = min(RANK, n_users - 1, len(known) - 1)
    out = np.zeros((n_items, max(rank, 0)), np.float32)
    if rank > 0:
        rarity = np.maximum(np.log(n_users / (counts[known] + 5.0)), 0.0)
        weighed = (seen[:, known] @ sp.diags(rarity)).astype(np.float64)
        out[known] = (_leading(weighed, rank) * rarity).T
    return out


def _leading(matrix: Any, rank: int) -> Floats:
    """(rank, M) right singular vectors; zeros where a large matrix has too few of them for Lanczos to find."""
    if min(matrix.shape) <= SMALL:
        return np.asarray(np.linalg.svd(matrix.toarray(), full_matrices=False)[2][:rank])
    try:
        return np.asarray(svds(matrix, k=rank, v0=np.ones(min(matrix.shape)))[2])  # a start of its own each time
    except ArpackError:
        return np.zeros((rank, matrix.shape[1]))


def _people_of(events: Interactions, points: Float32s, n_items: int, half_life_days: float) -> Float32s:
    """(N, R) how those who chose an item lie from everybody who chose anything, the latest counting most."""
    now_s = events.time_s.max(initial=0.0)
    faded = events.weight * np.exp2((events.time_s - now_s) / (DAY_S * half_life_days))
    chose = sp.csr_matrix((faded, (events.item, events.user)), shape=(n_items, len(points)))
    total, count = np.asarray(chose @ points), np.asarray(chose.sum(1))  # (N, R), (N, 1)
    crowd = total.sum(0) / max(float(count.sum()), 1e-9)
    return np.asarray((total - count * crowd) / (count + LEAST_CROWD), np.float32)


def _genre_share(genre: Int32s, events: Interactions, n_genres: int) -> Floats:
    codes = genre[events.item]  # (E, L)
    each = events.weight[:, None] / np.maximum((codes > 0).sum(1), 1)[:, None] * (codes > 0)
    return _share(np.bincount(codes.ravel(), each.ravel(), n_genres))


def _share(counts: npt.NDArray[Any]) -> Floats:
    """What is not known has none, what never came a little."""
    counts[0] = 0
    share: Floats = counts / max(float(counts.sum()), 1e-9) + 1e-4
    share[0] = 1.0
    return share
