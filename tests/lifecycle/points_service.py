"""A service as small as one can be: it serves the champion of ``test.points``. Runs under uvicorn, for the lifecycle's story."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field
from safetensors.numpy import load_file

from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.live import Live
from genba_shared.problems import Unavailable
from genba_shared.registry import Registry, Version
from genba_shared.service import create_service
from genba_shared.settings import Platform

MODEL = "test.points"


class Question(BaseModel):
    """A point in eight dimensions."""

    point: Annotated[list[float], Field(min_length=8, max_length=8)]


class Answer(BaseModel):
    """Which side the point lies on, how surely, and which version says so."""

    prob: float
    version: int


def load(folder: Path, _version: Version) -> Any:
    """(9,) weights. Raises: KeyError for a bundle without them."""
    return load_file(folder / "weights.safetensors")["weights"]


def create_app() -> FastAPI:
    platform = Platform()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(platform.database_url)
        registry = Registry(database, Artifacts(platform.artifacts_url))
        app.state.live = Live(registry, MODEL, load, cache=platform.home / "cache", refresh_s=0.1)
        app.state.readiness.add("model", app.state.live.unwell)
        app.state.live.start()
        try:
            yield
        finally:
            app.state.live.stop()
            database.close()

    app = create_service("points", title="points", platform=platform, lifespan=lifespan)

    @app.post("/v1/points/predict")
    async def predict(question: Question, request: Request) -> Answer:
        loaded = request.app.state.live.current
        if loaded is None:
            raise Unavailable("There is no model yet.", retry_after_s=1)
        logit = float(np.append(question.point, 1.0) @ loaded.value)
        return Answer(prob=1.0 / (1.0 + float(np.exp(-logit))), version=loaded.version.number)

    return app
