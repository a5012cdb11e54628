"""``recommend.federated``: the champion's user tower learnt further by sites that keep their people's events to themselves.

A simulation on this worker: users are dealt to sites, each site may be a process of its own, and what passes between them is what
would pass over a network (federated.py; under Flower's engine, flower.py). The newest slice of the log is asked before and after.
The version that comes out is the champion with another user tower; heads, which read the old one, are not taken over.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save
from torch import Tensor

from genba_recommend import data
from genba_recommend import export_onnx as onnx
from genba_recommend.bundle import CONFIG, MANIFEST, USER_TOWER, LoadedModel
from genba_recommend.dataset import Split, split_by_time
from genba_recommend.evaluating import ndcg_on_newest
from genba_recommend.federated import (
    FarSite,
    Federated,
    FederatedConfig,
    NearSite,
    Outset,
    Round,
    Site,
    federate,
    split_by_site,
)
from genba_recommend.federating_params import FederatedParams
from genba_recommend.flower import FlowerMissing, federate_with_flower, python_of
from genba_recommend.heads import FILE as HEADS
from genba_recommend.settings import Settings
from genba_recommend.shop import model_of
from genba_recommend.training_config import TrainingConfig
from genba_shared.problems import Conflict, NotFound
from genba_shared.recipe import Gate, Registration, Result, Run

METRIC, GAIN = "ndcg_at_10", "ndcg_at_10_gain"


def federated(params: FederatedParams, run: Run) -> Result:
    """Learn, ask before and after, register."""
    flower = _flower() if params.engine == "flwr" else None
    name = model_of(run.principal.tenant)
    champion = run.champion(name)
    if champion is None:
        raise NotFound("No version serves yet: train one with recommend.two_tower first.")
    run.progress(0.0, "reading the database")
    with run.database.read() as session:
        found = data.read(session, run.principal.tenant)
    loaded = LoadedModel.load(champion.folder)
    training = TrainingConfig.from_json((champion.folder / CONFIG).read_text("utf-8"))
    split = split_by_time(found.dataset, newest=training.validation)
    if loaded.trained_until_s > float(split.test.interactions.time_s.min()):
        run.note(
            f"Version {champion.number} has learnt from what is asked here: its own figure is an upper bound.",
            level="warning",
        )
    before = ndcg_on_newest(loaded, split, training)
    learnt = _learn(params, run, loaded, champion.folder, split, flower)
    bundle = _bundle(champion.folder, run.workdir / "bundle", learnt)
    after = ndcg_on_newest(LoadedModel.load(bundle), split, training)
    last = learnt.rounds[-1]
    metrics = {
        METRIC: after, f"{METRIC}_before": before, GAIN: after - before, "loss": last.loss,
        "sent_bytes": float(sum(each.sent_bytes for each in learnt.rounds)),
        "received_bytes": float(sum(each.received_bytes for each in learnt.rounds)),
    }  # fmt: skip
    metrics = {key: value for key, value in metrics.items() if np.isfinite(value)}
    _note_metrics(bundle, metrics)
    registration = Registration(
        name,
        bundle,
        metrics,
        data_hash=found.dataset.data_hash,
        gates=(Gate(GAIN, at_least=0.0),),
        promote=params.promote,
    )
    value: dict[str, Any] = {
        "from_version": champion.number, "sites": last.sites, "rounds": len(learnt.rounds), "engine": params.engine,
    }  # fmt: skip
    return Result(value=value, metrics=metrics, register=registration)


def _flower() -> Path:
    """Said before anything is read, and not tried again: it takes somebody who installs it."""
    try:
        return python_of(Settings().flower_python)
    except FlowerMissing as err:
        raise Conflict(str(err)) from err


def _learn(
    params: FederatedParams, run: Run, loaded: LoadedModel, folder: Path, split: Split, flower: Path | None
) -> Federated:
    weights, training = _weights(folder), TrainingConfig.from_json((folder / CONFIG).read_text("utf-8"))
    config = FederatedConfig(
        rounds=params.rounds, share=params.share, steps=params.steps, learning_rate=params.learning_rate,
        clip_norm=params.clip_norm, noise=params.noise, seed=run.seed,
    )  # fmt: skip
    outset = Outset(
        save(weights), loaded.encoders, replace(training, seed=run.seed), config, loaded.prior.half_life_days
    )
    parts = split_by_site(split.train, params.sites)
    if not parts:
        raise Conflict(f"None of {params.sites} sites has enough events to learn from.")
    tower = {name.removeprefix("user_tower."): x for name, x in weights.items() if name.startswith("user_tower.")}

    def on_round(each: Round) -> None:
        run.log(each.number, loss=each.loss, sites=float(each.sites), places=float(each.places))
        run.progress(0.1 + 0.8 * each.number / params.rounds, f"round {each.number} of {params.rounds}")
        run.raise_if_cancelled()

    if flower is not None:
        run.progress(0.1, "starting Flower")
        try:
            return federate_with_flower(
                tower, parts, outset, flower, run.workdir / "flower",
                processes=params.processes, on_round=on_round, look=run.raise_if_cancelled,
            )  # fmt: skip
        except FlowerMissing as err:
            raise Conflict(str(err)) from err
    with contextlib.ExitStack() as stack:
        sites: list[Site] = []
        for part in parts:
            site: Site = FarSite(part, outset) if params.processes else NearSite(part, outset)
            stack.callback(site.close)
            sites.append(site)
        return federate(tower, sites, config, on_round=on_round)


def _weights(folder: Path) -> dict[str, Tensor]:
    return load_tensors(folder / "user_tower.safetensors") | load_tensors(folder / "item_tower.safetensors")


def _bundle(champion: Path, folder: Path, learnt: Federated) -> Path:
    """The champion's bundle with another user tower."""
    shutil.copytree(champion, folder, ignore=shutil.ignore_patterns(HEADS))
    tower = {f"user_tower.{name}": np.ascontiguousarray(x.numpy()) for name, x in learnt.user_tower.items()}
    save_file(tower, folder / "user_tower.safetensors")
    onnx.save(onnx.user_tower(load_file(folder / "user_tower.safetensors")), folder / USER_TOWER)
    return folder


def _note_metrics(folder: Path, metrics: dict[str, float]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    manifest |= {"metrics": metrics, "heads": []}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), "utf-8")
