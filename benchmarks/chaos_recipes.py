"""The recipe that jobs_chaos.py submits: a few steps with a checkpoint after each, and one effect that can be counted."""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from genba_shared.recipe import Params, Recipe, Result, Run


class Steps(Params):
    """How long a job lasts."""

    number: int = Field(ge=0)
    steps: int = Field(default=8, ge=1, le=1000)
    step_s: float = Field(default=0.1, ge=0, le=10)


def work(params: Steps, run: Run) -> Result:
    saved = run.checkpoint.load()
    done = saved.state["done"] if saved else 0
    resumed = done
    while done < params.steps:
        time.sleep(params.step_s)
        done += 1
        run.checkpoint.save({"done": done})
        run.progress(done / params.steps)

    def publish(session: Session) -> None:
        """No constraint keeps a second effect out: whoever counts them sees what the queue did."""
        session.execute(text("INSERT INTO effects (number) VALUES (:number)"), {"number": params.number})

    return Result(value={"resumed": resumed}, publish=publish)


RECIPES: dict[str, Recipe[Any]] = {"chaos.work": Recipe("chaos.work", Steps, work, max_attempts=50)}
