"""Recipes that tests submit to real workers: they work, train, fail, hang and count their effects on purpose."""

from __future__ import annotations

import ctypes
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file
from sqlalchemy import text
from sqlalchemy.orm import Session

from genba_shared.problems import Invalid
from genba_shared.recipe import Gate, Params, Recipe, Registration, Result, Run


class Steps(Params):
    """Work in small steps with a checkpoint after each, and one visible effect at the end."""

    steps: int = Field(default=4, ge=1, le=10_000)
    step_s: float = Field(default=0.05, ge=0, le=10)


def work(params: Steps, run: Run) -> Result:
    saved = run.checkpoint.load()
    done = saved.state["done"] if saved else 0
    run.note(f"starts at {done}")
    while done < params.steps:
        time.sleep(params.step_s)
        done += 1
        run.checkpoint.save({"done": done})
        run.log(done, loss=1.0 / done)
        run.progress(done / params.steps, f"step {done}")
    report = run.workdir / "report.txt"
    report.write_text(f"{done} steps", encoding="utf-8")

    def publish(session: Session) -> None:
        session.execute(text("INSERT INTO effects (job_id) VALUES (:id)"), {"id": run.job_id})

    return Result(value={"done": done}, metrics={"steps": done}, artifacts={"report": report}, publish=publish)


class Training(Params):
    """A classifier of points in eight dimensions, trained by minibatches."""

    epochs: int = Field(default=3, ge=1, le=1000)
    step_s: float = Field(default=0.0, ge=0, le=10, description="How long each minibatch lasts besides its arithmetic.")
    learning_rate: float = Field(default=0.5, ge=0, le=10)
    accuracy_at_least: float = Field(default=0.8, ge=0, le=1)
    spoil: bool = Field(default=False, description="Write weights that a loader must refuse.")


def train(params: Training, run: Run) -> Result:
    """Logistic regression with a checkpoint after each of the sixteen minibatches of an epoch."""
    saved = run.checkpoint.load()
    done, weights = 0, np.zeros(9)
    if saved:
        done, weights = saved.state["done"], load_file(saved.folder / "weights.safetensors")["weights"]
    run.note(f"starts at minibatch {done}")
    points, labels = _points(512, seed=7)
    while done < params.epochs * 16:
        time.sleep(params.step_s)
        batch = np.random.default_rng(1000 + done).permutation(512)[:32]  # (32,), the same in every attempt
        probs = 1.0 / (1.0 + np.exp(-points[batch] @ weights))  # (32,)
        weights = weights - params.learning_rate * points[batch].T @ (probs - labels[batch]) / 32  # (9,)
        done += 1
        run.checkpoint.save({"done": done}, partial(_save, weights))
        run.log(done, weight_norm=float(np.linalg.norm(weights)), loss=1.0 - accuracy(weights))
        run.progress(done / (params.epochs * 16), f"minibatch {done}")
    metrics = {"accuracy": accuracy(weights), "weight_norm": float(np.linalg.norm(weights))}
    champion = run.champion("test.points")
    theirs = None
    if champion is not None:
        theirs = {"accuracy": accuracy(load_file(champion.folder / "weights.safetensors")["weights"])}
    bundle = run.workdir / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text(json.dumps({"dimensions": 8, "metrics": metrics, "learned": params.epochs}))
    save_file({"spoiled" if params.spoil else "weights": weights}, bundle / "weights.safetensors")
    gate = Gate("accuracy", at_least=params.accuracy_at_least)
    registration = Registration(
        "test.points", bundle, metrics, data_hash="points-7", gates=(gate,), champion_metrics=theirs
    )
    return Result(value={"minibatches": done}, metrics=metrics, register=registration)


def _save(weights: Any, folder: Path) -> None:
    save_file({"weights": weights}, folder / "weights.safetensors")


def accuracy(weights: Any) -> float:
    """Share of 512 points that were not trained on whose side is found."""
    points, labels = _points(512, seed=8)
    return float(np.mean((points @ weights > 0) == labels))


def _points(count: int, *, seed: int) -> tuple[Any, Any]:
    """(count, 9) with a column of ones, and (count,) labels of 0 and 1, one in twenty of them wrong."""
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.normal(size=(count, 8)), np.ones((count, 1))], axis=1)
    side = points @ np.array([1.0, -2.0, 0.5, 0.0, 1.5, -1.0, 0.25, 0.75, 0.3]) > 0
    return points, (side ^ (rng.random(count) < 0.05)).astype(float)


class Nothing(Params):
    """No parameters."""


def fail_now_and_then(_: Nothing, run: Run) -> Result:
    """Fails until its third attempt."""
    if run.attempt < 3:
        raise RuntimeError("the disk hiccuped")
    return Result(value={"attempt": run.attempt})


def fail_always(_: Nothing, run: Run) -> Result:
    raise RuntimeError(f"attempt {run.attempt} failed")


def refuse(_: Nothing, _run: Run) -> Result:
    raise Invalid("Needs 200 likes to train, found 12.", needed=200, found=12)


def ignore_orders(_: Nothing, run: Run) -> Result:
    """Never asks whether it should stop."""
    Path(run.workdir / "half-done").touch()
    time.sleep(600)
    return Result()


def wedge_the_first_time(_: Nothing, run: Run) -> Result:
    """Native code that never gives the GIL back: no thread of this process can do anything any more."""
    if run.attempt == 1:
        ctypes.PyDLL(None).sleep(600)
    return Result()


RECIPES: dict[str, Recipe[Any]] = {
    recipe.name: recipe
    for recipe in (
        Recipe("test.work", Steps, work, max_attempts=20),
        Recipe("test.train", Training, train),
        Recipe("test.flaky", Nothing, fail_now_and_then),
        Recipe("test.hopeless", Nothing, fail_always, max_attempts=2),
        Recipe("test.refuse", Nothing, refuse),
        Recipe("test.deaf", Nothing, ignore_orders),
        Recipe("test.wedged", Nothing, wedge_the_first_time),
        Recipe("test.guarded", Nothing, fail_always, scope="models:write"),
        Recipe("test.inner", Nothing, fail_always, submitted_by="POST /v1/test/things"),
    )
}
