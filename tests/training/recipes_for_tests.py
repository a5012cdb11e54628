"""Recipes that tests submit to real workers: they work, fail, hang and count their effects on purpose."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

from pydantic import Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from genba_shared.problems import Invalid
from genba_shared.recipe import Params, Recipe, Result, Run


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
        Recipe("test.flaky", Nothing, fail_now_and_then),
        Recipe("test.hopeless", Nothing, fail_always, max_attempts=2),
        Recipe("test.refuse", Nothing, refuse),
        Recipe("test.deaf", Nothing, ignore_orders),
        Recipe("test.wedged", Nothing, wedge_the_first_time),
        Recipe("test.guarded", Nothing, fail_always, scope="models:write"),
    )
}
