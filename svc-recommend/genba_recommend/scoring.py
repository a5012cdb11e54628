"""From vectors to scores, and from scores to measures: full ranking of every candidate for every asked user, seen removed.

The served score is a line in blending.py: towers, neighbours and prior, each with its weight. Everything that tunes or judges a
model goes through here, so that what is measured is what is served. Arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from genba_recommend.blending import MOST_HISTORY, Blend
from genba_recommend.dataset import Dataset, Histories, Interactions, Ints, User
from genba_recommend.discovering import Seldom
from genba_recommend.features import Encoders, ItemFeatures, UserFeatures, latest_windows
from genba_recommend.metrics import (
    Comparison,
    Quality,
    Questions,
    ScoreUsers,
    open_scores,
    paired_bootstrap,
    quality,
    rank,
    top_k,
)
from genba_recommend.neighbours import Neighbours
from genba_recommend.prior import Prior
from genba_recommend.reranker import SHORTLIST, Reranker, head_first

Float32s = npt.NDArray[np.float32]
USERS_AT_ONCE = 512
EmbedUsers = Callable[[UserFeatures, Float32s], Float32s]  # features of B users, (N, D) item vectors -> (B, D)


def tower_scores(user_vectors: Float32s, vectors: Float32s, *, temperature: float) -> ScoreUsers:
    """Score by the towers alone. Args: user_vectors: (U, D) by row of the user.   vectors: (N, D)."""
    return lambda users: user_vectors[users] @ vectors.T / temperature


def blended(towers: ScoreUsers, neighbours: Neighbours, past: Histories, blend: Blend) -> ScoreUsers:
    """Weigh the towers' scores and add what each user's history speaks for; the prior comes on top."""

    def score(users: Ints) -> Float32s:
        window = latest_windows(past, users, length=MOST_HISTORY)
        scores = blend.towers_at(window.n_events)[:, None] * towers(users)
        if blend.neighbours:
            scores += neighbours.scores(window.history, blend.of_history(window.weight))
        return np.asarray(scores, np.float32)

    return score


class Terms(Protocol):
    """A model, as far as its scores are more than its towers'."""

    @property
    def prior(self) -> Prior: ...
    @property
    def blend(self) -> Blend: ...


def reranked(
    score: ScoreUsers, reranker: Reranker, weight: float, dataset: Dataset, lasting: Float32s | None = None
) -> ScoreUsers:
    """Put everybody's shortlist of unseen items in order at the end of a dataset; what is not on it is not listed (-inf).

    Whoever has no history keeps the first stage's order. Args: lasting: (N,) of the prior, for the places after the first.
    """
    if not weight or reranker.is_empty:
        return score
    past, now_s = dataset.histories, float(dataset.interactions.time_s.max())

    def scores(users: Ints) -> Float32s:
        out = np.array(score(users), np.float32)  # ours to change
        known = np.flatnonzero(np.diff(past.offsets)[users])
        first = out[known]
        if lasting is not None:
            first += lasting
        for row, user in zip(first, users[known].tolist(), strict=True):
            row[past.item[past.of(user)]] = -np.inf
        for row, scored, best, user in zip(known, first, top_k(first, SHORTLIST), users[known].tolist(), strict=True):
            near = best[best >= 0]
            gained = scored[near] + weight * reranker.gains(reranker.profile_in(past, user), near, now_s=now_s)
            if lasting is not None:
                order, gained = head_first(gained, lasting[near], len(near))
                near = near[order]
            out[row] = -np.inf
            out[row, near] = gained
        return out

    return scores


def served(
    towers: ScoreUsers,
    terms: Terms,
    neighbours: Neighbours,
    reranker: Reranker,
    dataset: Dataset,
    foreseen: Float32s | None = None,
) -> ScoreUsers:
    """What a model serves at the end of a dataset.

    Args: neighbours, reranker, foreseen: the model's, by row of the dataset's catalogue.
    """
    prior, past, n_items = terms.prior, dataset.histories, len(dataset.catalogue)
    popular = popularity_now(prior, dataset.interactions, n_items=n_items, foreseen=foreseen)
    newcomers = popularity_now(prior.of_newcomers, dataset.interactions, n_items=n_items)
    taste, is_known = blended(towers, neighbours, past, terms.blend), np.diff(past.offsets) > 0

    def score(users: Ints) -> Float32s:
        now = np.where(is_known[users][:, None], popular, newcomers)
        return np.asarray(taste(users) + np.float32(prior.weight) * now, np.float32)

    return reranked(score, reranker, terms.blend.reranker, dataset, lasting_now(prior, dataset))


def with_prior(score: ScoreUsers, log_popularity: Float32s, weight: float) -> ScoreUsers:
    """Add the prior. Args: log_popularity: (N,)."""
    return lambda users: score(users) + np.float32(weight) * log_popularity


def latest_vectors(
    embed: EmbedUsers,
    encoders: Encoders,
    items: ItemFeatures,
    vectors: Float32s,
    dataset: Dataset,
    users: Ints,
    *,
    batch: int = 2048,
) -> Float32s:
    """Embed some users as they are at the end of a dataset. Returns: (U, D) by row, zeros for users not asked for."""
    out = np.zeros((len(dataset.users), vectors.shape[1]), np.float32)
    for at in range(0, len(users), batch):
        rows = users[at : at + batch]
        seen = latest_windows(dataset.histories, rows, length=encoders.config.history_len)
        out[rows] = embed(encoders.users([dataset.users[row] for row in rows], seen, items), vectors)
    return out


@dataclass(frozen=True)
class Judged:
    """Measures of several models over the same questions, and how the first compares with each other one by NDCG@10."""

    measures: Mapping[str, Quality]
    against: Mapping[str, Comparison]

    def summary(self) -> dict[str, dict[str, float]]:
        return {name: found.summary() for name, found in self.measures.items()}


def judge(models: Mapping[str, ScoreUsers], asked: Questions, *, seed: int = 0) -> Judged:
    """Rank with every model and compare the first with the others by paired bootstrap over users."""
    measures = {name: quality(rank(score, asked), asked) for name, score in models.items()}
    first, *others = measures
    ours = measures[first].ndcg_at_10
    against = {name: paired_bootstrap(ours, measures[name].ndcg_at_10, seed=seed) for name in others}
    return Judged(measures, against)


def popularity_now(
    prior: Prior, interactions: Interactions, *, n_items: int, foreseen: Float32s | None = None
) -> Float32s:
    """Return log-popularity at the newest event, (N,). Args: foreseen: (N,) events a day of what nobody has touched."""
    now_s = float(interactions.time_s.max()) if len(interactions) else 0.0
    return prior.log_popularity(interactions, n_items=n_items, now_s=now_s, foreseen=foreseen)


def lasting_now(prior: Prior, dataset: Dataset) -> Float32s | None:
    """Return what lasts at the newest event, (N,); None where the prior has none."""
    events = dataset.interactions
    now_s = float(events.time_s.max()) if len(events) else 0.0
    return prior.lasting_scores(events, n_items=len(dataset.catalogue), now_s=now_s)


def strangers(users: tuple[User, ...], n: int) -> tuple[User, ...]:
    """Return n users without any profile, as a service sees somebody for the first time."""
    return tuple(User(f"stranger {len(users) + row}") for row in range(n))


def with_discovery(score: ScoreUsers, fit: ScoreUsers, asked: Questions, *, share: float, k: int = 10) -> Ints:
    """Rank as a service does that gives the last of k places to what is seldom shown, user after user.

    Args:    fit: what a newcomer is chosen by, the score without its prior.   share: of the lists that give their place.
    Returns: (U, 50); what was pushed out follows after the k-th place.
    """
    seldom, out = Seldom(share, now_s=0.0), rank(score, asked)
    for at in range(0, len(asked), USERS_AT_ONCE):
        part = slice(at, min(at + USERS_AT_ONCE, len(asked)))
        scores, fits = open_scores(score, asked, part), open_scores(fit, asked, part)
        for listed, scored, fitting in zip(out[part], scores, fits, strict=True):
            last, room = listed[k - 1], fitting + seldom.penalty(len(fitting), now_s=0.0)
            room[listed[:k]] = -np.inf
            newcomer = int(room.argmax())
            if last >= 0 and room[newcomer] > -np.inf and seldom.gives(float(scored[last] - fitting[newcomer])):
                rest = listed[k - 1 :][listed[k - 1 :] != newcomer]
                listed[k - 1 :] = np.concatenate([[newcomer], rest])[: len(listed) - k + 1]
            seldom.note(listed[:k][listed[:k] >= 0], now_s=0.0)
    return out
