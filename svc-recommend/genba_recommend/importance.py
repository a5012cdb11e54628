"""Which features a model leans on: how much worse its lists become when one of them is shuffled (Breiman 2001). Arrays in, drops out.

A feature is shuffled over rows, so that its distribution stays and its meaning goes. Item features are shuffled before the item
tower runs, so their drop includes what histories lose by them; user features before the user tower. Correlated features share
their importance: each looks less important than both together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from genba_recommend.dataset import Dataset
from genba_recommend.features import NUMBERS, PROFILE_NUMBERS, Encoders, ItemFeatures, UserFeatures, latest_windows
from genba_recommend.metrics import Questions, ScoreUsers, quality, rank
from genba_recommend.scoring import Float32s, tower_scores, with_prior

PRIOR = "popularity"
ITEM_LISTS = ("id", "genre", "maker", "performers", "tags")


@dataclass(frozen=True)
class Tower:
    """What importance needs of a model, trained here or loaded from a bundle.

    embed_items: features of N items -> (N, D).   embed_users: features of B users, (N, D) -> (B, D).   prior: (N,) scores.
    """

    encoders: Encoders
    items: ItemFeatures
    temperature: float
    prior: Float32s
    embed_items: Callable[[ItemFeatures], Float32s]
    embed_users: Callable[[UserFeatures, Float32s], Float32s]


@dataclass(frozen=True)
class Importance:
    """By how much NDCG@10 falls when a feature is shuffled: mean and spread over repeats. side: item, user or ranking."""

    feature: str
    side: str
    drop: float
    spread: float


def permutation_importance(
    tower: Tower, dataset: Dataset, asked: Questions, *, n_repeats: int = 3, seed: int = 0
) -> tuple[Importance, ...]:
    """Shuffle every feature in turn, the most important first.

    Args: dataset: what had happened before the questions.   n_repeats: shuffles of each feature.
    """
    seen = latest_windows(dataset.histories, asked.users, length=tower.encoders.config.history_len)
    users = tower.encoders.users([dataset.users[row] for row in asked.users], seen, tower.items)
    whole = _ndcg(tower, tower.items, users, asked)
    found = []
    for at, (side, feature) in enumerate(_features(tower.items)):
        drops = []
        for repeat in range(n_repeats):
            rng = np.random.default_rng([seed, at, repeat])
            if side == "item":
                measured = _ndcg(tower, _shuffled_item(tower.items, feature, rng), users, asked)
            elif side == "user":
                measured = _ndcg(tower, tower.items, _shuffled_user(users, feature, rng), asked)
            else:
                shuffled = replace(tower, prior=rng.permutation(tower.prior))
                measured = _ndcg(shuffled, tower.items, users, asked)
            drops.append(whole - measured)
        found.append(Importance(feature, side, float(np.mean(drops)), float(np.std(drops))))
    return tuple(sorted(found, key=lambda each: -each.drop))


def as_rows(found: tuple[Importance, ...]) -> list[dict[str, Any]]:
    """Data for a table or a bar chart, the most important first."""
    return [{"feature": it.feature, "side": it.side, "drop": it.drop, "spread": it.spread} for it in found]


def _features(items: ItemFeatures) -> list[tuple[str, str]]:
    embedding = [("item", "embedding")] if items.embedding.shape[1] else []
    item = [("item", name) for name in (*ITEM_LISTS, "text", *NUMBERS)]
    user = [("user", name) for name in ("history", "genre", "maker", "age_range", "region", *PROFILE_NUMBERS)]
    return [*item, *embedding, *user, ("ranking", PRIOR)]


def _shuffled_item(items: ItemFeatures, feature: str, rng: np.random.Generator) -> ItemFeatures:
    order = rng.permutation(len(items))
    if feature == "text":
        return replace(items, text=items.text[order], text_weight=items.text_weight[order])
    if feature in NUMBERS:
        at = NUMBERS.index(feature)
        return replace(
            items,
            number_bucket=_column(items.number_bucket, at, order),
            number=_column(items.number, at, order),
        )
    changed: Mapping[str, Any] = {feature: getattr(items, feature)[order]}
    return replace(items, **changed)


def _shuffled_user(users: UserFeatures, feature: str, rng: np.random.Generator) -> UserFeatures:
    order = rng.permutation(len(users))
    if feature == "history":
        return replace(users, history=users.history[order], weight=users.weight[order])
    if feature in PROFILE_NUMBERS:
        return replace(users, number=_column(users.number, PROFILE_NUMBERS.index(feature), order))
    changed: Mapping[str, Any] = {feature: getattr(users, feature)[order]}
    return replace(users, **changed)


def _column(values: npt.NDArray[Any], at: int, order: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    out = values.copy()
    out[:, at] = values[order, at]
    return out


def _ndcg(tower: Tower, items: ItemFeatures, users: UserFeatures, asked: Questions) -> float:
    vectors = tower.embed_items(items)
    place = np.zeros(int(asked.users.max(initial=0)) + 1, np.int64)
    place[asked.users] = np.arange(len(asked))
    embedded = tower.embed_users(users, vectors)
    score: ScoreUsers = tower_scores(embedded, vectors, temperature=tower.temperature)
    blended = with_prior(lambda rows: score(place[rows]), tower.prior, 1.0)
    return float(quality(rank(blended, asked), asked).ndcg_at_10.mean())
