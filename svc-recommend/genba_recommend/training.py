"""The door that does long work: ``RECIPES``. A worker resolves it by name; nothing here knows of queues, leases or HTTP.

``recommend.two_tower`` trains from the database and registers a version; ``recommend.refresh`` embeds what is new or changed
under the version that serves; ``recommend.evaluate`` measures a version and what each feature is worth to it;
``recommend.federated`` learns the user tower further without events leaving their sites; ``recommend.pictures`` has pictures of
items embedded that are not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_recommend import data, store
from genba_recommend.bundle import LoadedModel, write_bundle
from genba_recommend.dataset import Dataset, split_by_time
from genba_recommend.evaluating import EvaluateParams, evaluate, ndcg_on_newest
from genba_recommend.federating_params import FederatedParams
from genba_recommend.picture_recipe import PicturesParams, pictures
from genba_recommend.refreshing import RefreshParams, refresh
from genba_recommend.serving_model import HASHES
from genba_recommend.shop import model_of
from genba_recommend.training_config import TrainingConfig, hinge_config
from genba_shared.problems import Conflict
from genba_shared.recipe import Gate, Params, Recipe, Registration, Result, Run, Saved
from genba_shared.registry_rows import VersionRow

if TYPE_CHECKING:
    from genba_recommend.training_loop import Trained

METRIC = "ndcg_at_10"
OVER_POPULARITY = "ndcg_at_10_over_popularity"


class NeedsMoreLikes(Conflict):
    """There is too little to learn from."""


class TwoTowerParams(Params):
    """How to train. The defaults are the recipe that was best on public ratings."""

    loss: Literal["sampled_softmax", "hinge"] = "sampled_softmax"
    max_epochs: Annotated[int, Field(ge=1, le=200)] = 20
    places_per_epoch: Annotated[int, Field(ge=1_000, le=10_000_000)] = 60_000
    dim: Annotated[int, Field(ge=8, le=256)] = 64
    history_len: Annotated[int, Field(ge=5, le=500)] = 50
    least_events: Annotated[
        int, Field(ge=50, description="Likes, views and clicks, one a user and item, that are needed at least.")
    ] = 200
    gate_over_popularity: Annotated[
        float | None,
        Field(ge=-1, le=1, description="Least NDCG@10 above that of decayed popularity; null for no such gate."),
    ] = 0.0
    gate_below_champion: Annotated[
        float | None, Field(ge=0, le=1, description="Most NDCG@10 below the champion's; null for no such gate.")
    ] = 0.01
    promote: Literal["when_gates_pass", "never"] = "when_gates_pass"
    device: Annotated[
        Literal["auto", "cpu", "cuda"], Field(description="`auto` takes a CUDA GPU where the worker has one.")
    ] = "auto"
    dry_run: Annotated[bool, Field(description="Say what would be learnt from, and train nothing.")] = False


def two_tower(params: TwoTowerParams, run: Run) -> Result:
    """Train, measure, register. A killed attempt goes on from its last checkpoint over the same events."""
    tenant, kept = run.principal.tenant, _Kept(run)
    run.progress(0.0, "reading the database")
    with run.database.read() as session:
        found = data.read(session, tenant, up_to_seq=kept.up_to_seq)
    kept.up_to_seq = found.up_to_seq
    dataset, events = found.dataset, len(found.dataset.interactions)
    sizes = {"items": len(dataset.catalogue), "users": len(dataset.users), "events": events}
    run.note(f"{events} events of {sizes['users']} users on {sizes['items']} items; left out: {_left_out(found)}")
    if events < params.least_events:
        raise NeedsMoreLikes(
            f"Training needs {params.least_events} likes, views or clicks, one a user and item; there are {events}.",
            needed=params.least_events,
            found=events,
        )
    if params.dry_run:
        return Result(value={**sizes, "dry_run": True})
    trained = _train(params, run, dataset, kept)
    bundle = write_bundle(trained, dataset, run.workdir / "bundle")
    (bundle / HASHES).write_text(json.dumps(found.content_hashes), "utf-8")
    model = model_of(tenant)
    metrics = _metrics(trained)
    registration = Registration(
        model,
        bundle,
        metrics,
        data_hash=dataset.data_hash,
        gates=_gates(params),
        champion_metrics=_champion_metrics(run, model, dataset, trained.config),
        promote=params.promote,
    )

    def publish(session: Session) -> None:
        """The version's number is known now, in the transaction that made it."""
        number = session.scalar(
            select(VersionRow.number).where(VersionRow.model == model, VersionRow.job_id == run.job_id)
        )
        if number is not None:
            store.add_model_version(
                session, model=model, version=number, tower="two_tower", path=f"models/{model}/{number}"
            )

    run.progress(1.0, "done")
    return Result(value=sizes, metrics=metrics, register=registration, publish=publish)


def _left_out(found: data.Found) -> str:
    noise = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in found.noise.items())
    return f"{noise}, {found.strays} events of unknown items"


def _train(params: TwoTowerParams, run: Run, dataset: Dataset, kept: _Kept) -> Trained:
    from genba_recommend.training_loop import Hooks, NoGpu, TooFewEvents, train

    base = TrainingConfig(
        max_epochs=params.max_epochs,
        places_per_epoch=params.places_per_epoch,
        least_events=params.least_events,
        seed=run.seed,
    ).with_history_len(params.history_len)
    config = replace(base, towers=replace(base.towers, dim=params.dim))
    if params.loss == "hinge":
        config = hinge_config(config)

    def log(step: int, values: Mapping[str, float]) -> None:
        run.log(step, **values)

    hooks = Hooks(progress=lambda share, what: run.progress(0.02 + 0.9 * share, what), log=log, checkpoint=kept)
    try:
        return train(dataset, config, hooks, device=params.device)
    except NoGpu as err:
        raise Conflict(str(err)) from err
    except TooFewEvents as err:
        raise NeedsMoreLikes(str(err), needed=err.needed, found=err.found) from err


def _metrics(trained: Trained) -> dict[str, float]:
    """What was measured on the newest slice, before the last pass over everything saw it."""
    metrics = {name: float(value) for name, value in trained.metrics.items()}
    if METRIC in metrics:
        metrics[OVER_POPULARITY] = metrics[METRIC] - metrics[f"popularity_{METRIC}"]
    return {**metrics, "cpu_seconds": trained.cpu_seconds, "epochs": float(len(trained.epochs))}


def _gates(params: TwoTowerParams) -> tuple[Gate, ...]:
    gates = []
    if params.gate_over_popularity is not None:
        gates.append(Gate(OVER_POPULARITY, at_least=params.gate_over_popularity))
    if params.gate_below_champion is not None:
        gates.append(Gate(METRIC, not_below_champion_by=params.gate_below_champion))
    return tuple(gates)


def _champion_metrics(run: Run, model: str, dataset: Dataset, config: TrainingConfig) -> Mapping[str, float] | None:
    """The champion on the same questions, if it has not learnt from their answers.

    If it has, its last pass over everything knows them by heart (measured: .29 instead of .22); then it is compared by what was
    measured of it on its own newest slice, before that pass, as the new version is.
    """
    champion = run.champion(model)
    if champion is None:
        return None
    loaded = LoadedModel.load(champion.folder)
    split = split_by_time(dataset, newest=config.validation)
    if loaded.trained_until_s > float(split.test.interactions.time_s.min()):
        run.note(f"Version {champion.number} has learnt from what is asked here; compared by its own newest slice.")
        return loaded.metrics
    run.progress(0.94, f"measuring version {champion.number} on the same data")
    return {METRIC: ndcg_on_newest(loaded, split, config)}


class _Kept:
    """The job's checkpoints, each with the place up to which events were read, so that a resumed job reads the same."""

    def __init__(self, run: Run) -> None:
        self._checkpoint = run.checkpoint
        saved = self._checkpoint.load()
        self.up_to_seq: int | None = None if saved is None else int(saved.state["up_to_seq"])

    def load(self) -> Saved | None:
        return self._checkpoint.load()

    def save(self, state: Mapping[str, Any], fill: Callable[[Path], None] | None = None) -> None:
        self._checkpoint.save({**state, "up_to_seq": self.up_to_seq}, fill)


def federated(params: FederatedParams, run: Run) -> Result:
    """federating.py, which loads torch: whoever only lists recipes does without."""
    from genba_recommend import federating

    return federating.federated(params, run)


RECIPES: dict[str, Recipe[Any]] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "recommend.two_tower",
            TwoTowerParams,
            two_tower,
            summary="Train the recommender from catalogue, users and events.",
            scope="recommend:train",
            max_running=1,
        ),
        Recipe(
            "recommend.refresh",
            RefreshParams,
            refresh,
            summary="Embed new and changed items and users under the version that serves.",
            scope="recommend:write",
            max_running=1,
        ),
        Recipe(
            "recommend.evaluate",
            EvaluateParams,
            evaluate,
            summary="Measure a version on the newest events, and what each feature is worth to it.",
            scope="recommend:write",
        ),
        Recipe(
            "recommend.federated",
            FederatedParams,
            federated,
            summary="Learn the champion's user tower further at sites that keep their events to themselves.",
            scope="recommend:train",
            max_running=1,
        ),
        Recipe(
            "recommend.pictures",
            PicturesParams,
            pictures,
            summary="Embed pictures of items that wait, or all anew after svc-sop's encoder has changed.",
            scope="recommend:write",
            max_running=1,
        ),
    )
}
