"""The door that serves: ``create_app``. Resources are opened in the lifespan, routes live in ``routes_*``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from genba_shared.service import create_service
from genba_sop import (
    routes_ask,
    routes_embed,
    routes_evaluations,
    routes_insight,
    routes_procedures,
    routes_transcripts,
    routes_videos,
)
from genba_sop.service import open_service
from genba_sop.settings import Settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """svc-sop: procedures, videos, evaluations, reviews, search, analytics."""
    settings = settings or Settings()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_service(settings, app.state.metrics) as sop:
            app.state.sop = sop
            app.state.readiness.add("database", sop.database_answers)
            yield

    app = create_service("sop", title="svc-sop", platform=settings.platform, lifespan=lifespan)
    app.include_router(routes_videos.router)
    app.include_router(routes_transcripts.router)
    app.include_router(routes_procedures.router)
    app.include_router(routes_evaluations.router)
    app.include_router(routes_insight.router)
    app.include_router(routes_ask.router)
    app.include_router(routes_embed.router)
    return app
