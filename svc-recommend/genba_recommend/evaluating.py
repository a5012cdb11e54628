"""``recommend.evaluate``: a version on the newest events, beside decayed popularity, and what each feature is worth to it.

A feature's worth is what NDCG@10 loses when its column is shuffled among items or among users (permutation importance,
Breiman 2001), for everything that reads it: towers, and neighbours and the second stage where they do.
Full ranking, what was seen removed, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from genba_recommend import data
from genba_recommend.bundle import LoadedModel
from genba_recommend.dataset import Dataset, Split, split_by_time
from genba_recommend.features import ItemFeatures, UserFeatures, latest_windows
from genba_recommend.metrics import Quality, Questions, quality, questions, rank
from genba_recommend.plots import importance_svg
from genba_recommend.prior import tune_half_life
from genba_recommend.reranker import Reranker
from genba_recommend.scoring import served, tower_scores
from genba_recommend.shop import model_of
from genba_recommend.tables import FeatureImportance
from genba_recommend.training_config import TrainingConfig
from genba_recommend.tuning import sample_questions
from genba_shared.problems import Conflict, NotFound
from genba_shared.recipe import Params, Result, Run
from genba_shared.registry import Registry

Float32s = npt.NDArray[np.float32]
METRIC = "ndcg_at_10"
ITEM_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "item id": ("id",),
    "item genre": ("genre",),
    "item maker": ("maker",),
    "item performers": ("performers",),
    "item tags": ("tags",),
    "item text": ("text", "text_weight"),
    "item price, duration, age": ("number_bucket", "number"),
    "item embedding": ("embedding",),
}
HISTORY = "user history"
USER_COLUMNS: Mapping[str, tuple[str, ...]] = {
    HISTORY: ("history", "weight"),
    "user top genres": ("genre",),
    "user top makers": ("maker",),
    "user age range": ("age_range",),
    "user region": ("region",),
    "user activity": ("number",),
}


class EvaluateParams(Params):
    """What to measure, on what."""

    version: Annotated[int, Field(ge=1)] | None = Field(default=None, description="The one that serves when absent.")
    newest: Annotated[float, Field(gt=0, lt=1, description="Share of the events that is asked for.")] = 0.1
    users: Annotated[int, Field(ge=10, le=100_000, description="Users asked, at most.")] = 1000
    repeats: Annotated[int, Field(ge=1, le=20, description="Shuffles of each feature.")] = 2


class _World:
    """A version over the questions of one split."""

    def __init__(self, model: LoadedModel, split: Split, asked: Questions) -> None:
        self.model, self.split, self.asked = model, split, asked
        self.items = model.encoders.items(split.train.catalogue)
        self.vectors = model.embed_item_features(self.items)
        seen = latest_windows(split.train.histories, asked.users, length=model.encoders.config.history_len)
        users = [split.train.users[row] for row in asked.users]
        self.users = model.encoders.users(users, seen, self.items)
        catalogue = split.train.catalogue
        self.rows = np.array([catalogue.row_by_id.get(item_id, -1) for item_id in model.ids], np.int64)
        self.neighbours = model.neighbours.onto(self.rows, len(catalogue))
        self.published_s = np.array([item.published_at_s for item in catalogue.items], np.float64)
        self.reranker = model.reranker.onto(self.rows, self.items.genre, self.published_s)
        self.foreseen = model.premieres.of(catalogue.items, now_s=float(split.train.interactions.time_s.max()))

    def quality(
        self,
        *,
        users: UserFeatures | None = None,
        items: ItemFeatures | None = None,
        reranker: Reranker | None = None,
        past: Dataset | None = None,
    ) -> Quality:
        """Measures, with other than the true features where given. past: whose histories neighbours and reranker read."""
        vectors = self.vectors if items is None else self.model.embed_item_features(items)
        wanted = self.users if users is None else users
        found = np.zeros((len(self.split.train.users), vectors.shape[1]), np.float32)
        for at in range(0, len(wanted), 1024):
            part = slice(at, at + 1024)
            found[self.asked.users[part]] = self.model.embed_features(wanted.take(part), vectors)
        towers = tower_scores(found, vectors, temperature=self.model.temperature)
        train = past or self.split.train
        score = served(towers, self.model, self.neighbours, reranker or self.reranker, train, self.foreseen)
        return quality(rank(score, self.asked), self.asked)

    def quality_by_other_items(self, columns: tuple[str, ...], rng: np.random.Generator) -> Quality:
        """Measures, with some features shuffled among the items, for towers and reranker alike."""
        order = rng.permutation(len(self.items))
        items = replace(self.items, **{name: getattr(self.items, name)[order] for name in columns})
        published_s = self.published_s[order] if "number" in columns else self.published_s
        return self.quality(items=items, reranker=self.model.reranker.onto(self.rows, items.genre, published_s))

    def quality_by_others_histories(self, rng: np.random.Generator) -> Quality:
        """Measures, with the histories shuffled among those who are asked, for everything that reads them."""
        order = rng.permutation(len(self.asked.users))
        columns = {name: getattr(self.users, name)[order] for name in USER_COLUMNS[HISTORY]}
        train = self.split.train
        owner = np.arange(len(train.users))
        owner[self.asked.users[order]] = self.asked.users
        events = replace(train.interactions, user=owner[train.interactions.user])
        return self.quality(users=replace(self.users, **columns), past=replace(train, interactions=events))


def ndcg_on_newest(model: LoadedModel, split: Split, config: TrainingConfig) -> float:
    """NDCG@10 of a version on the questions that training with ``config`` validates on; nan where nobody can be asked."""
    asked = sample_questions(questions(split), config.validation_users, seed=config.seed)
    return float(_World(model, split, asked).quality().ndcg_at_10.mean()) if len(asked) else float("nan")


def evaluate(params: EvaluateParams, run: Run) -> Result:
    """Measure, shuffle, measure again; keep the importances with the version."""
    tenant, name = run.principal.tenant, model_of(run.principal.tenant)
    registry = Registry(run.database, run.artifacts)
    version = registry.current(name) if params.version is None else registry.get(name, params.version)
    if version is None:
        raise NotFound("No version serves yet: train one with recommend.two_tower, or name one.")
    model = LoadedModel.load(registry.fetch(version, run.workdir / "model"))
    run.progress(0.0, "reading the database")
    with run.database.read() as session:
        dataset = data.read(session, tenant).dataset
    split = split_by_time(dataset, newest=params.newest)
    asked = sample_questions(questions(split), params.users, seed=run.seed)
    if len(asked) < 10:
        raise Conflict(f"Only {len(asked)} users can be asked; at least 10 with new events are needed.")
    world = _World(model, split, asked)
    base = world.quality()
    half_life_days, popularity = tune_half_life(split.train.interactions, asked, (1.0, 2.0, 3.0, 5.0, 7.0, 14.0, 30.0))
    run.log(0, **base.summary(), **{f"popularity_{key}": value for key, value in popularity.summary().items()})
    if model.trained_until_s > float(split.test.interactions.time_s.min()):
        run.note(
            "The version has learnt from a part of what it is asked: read its figures as an upper bound.",
            level="warning",
        )
    worth = _importances(world, base, params.repeats, run)
    rows = [
        {"model": name, "version": version.number, "feature": f, "metric": METRIC, "importance": mean, "spread": spread}
        for f, (mean, spread) in worth.items()
    ]
    plot = run.workdir / "importance.svg"
    plot.write_text(importance_svg(worth), encoding="utf-8")

    def publish(session: Session) -> None:
        mine = (FeatureImportance.model == name, FeatureImportance.version == version.number)
        session.execute(delete(FeatureImportance).where(*mine))
        session.execute(insert(FeatureImportance), rows)

    value: dict[str, Any] = {
        "version": version.number,
        "users": len(asked),
        "popularity_half_life_days": half_life_days,
    }
    metrics = {**base.summary(), **{f"popularity_{key}": each for key, each in popularity.summary().items()}}
    return Result(value=value, metrics=metrics, artifacts={"importance.svg": plot}, publish=publish)


def _importances(world: _World, base: Quality, repeats: int, run: Run) -> dict[str, tuple[float, float]]:
    """By feature: mean loss of NDCG@10 over the shuffles, and their standard deviation."""
    rng = np.random.default_rng(run.seed)
    truth = float(base.ndcg_at_10.mean())
    jobs: list[tuple[str, Callable[[], Quality]]] = []
    for name, columns in ITEM_COLUMNS.items():
        if getattr(world.items, columns[0]).size:
            jobs.append((name, lambda columns=columns: world.quality_by_other_items(columns, rng)))  # type: ignore[misc]
    jobs.append((HISTORY, lambda: world.quality_by_others_histories(rng)))
    for name, columns in USER_COLUMNS.items():
        if name != HISTORY:  # which is read by more than the towers
            jobs.append((name, lambda columns=columns: world.quality(users=_shuffled(world.users, columns, rng))))  # type: ignore[misc]
    found = {}
    for at, (name, measure) in enumerate(jobs):
        losses = [truth - float(measure().ndcg_at_10.mean()) for _ in range(repeats)]
        found[name] = (float(np.mean(losses)), float(np.std(losses)))
        run.progress(0.1 + 0.85 * (at + 1) / len(jobs), f"without {name}")
    return dict(sorted(found.items(), key=lambda pair: -pair[1][0]))


def _shuffled(features: UserFeatures, columns: tuple[str, ...], rng: np.random.Generator) -> UserFeatures:
    """The same rows, some columns of which belong to others now."""
    order = rng.permutation(len(features))
    return replace(features, **{name: getattr(features, name)[order] for name in columns})
