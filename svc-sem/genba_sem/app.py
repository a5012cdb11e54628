"""The door that serves: ``create_app``. Resources are opened in the lifespan, routes live in ``routes_*``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from genba_sem import (
    routes_audits,
    routes_bundles,
    routes_export,
    routes_label_studio,
    routes_labels,
    routes_masters,
    routes_particles,
    routes_policy,
    routes_reviews,
    routes_search,
)
from genba_sem.service import open_service
from genba_sem.settings import Settings
from genba_shared.service import create_service


def create_app(settings: Settings | None = None) -> FastAPI:
    """svc-sem: labels, masters, particles, reviews, search, audits, exports."""
    settings = settings or Settings()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_service(settings, app.state.metrics) as sem:
            app.state.sem = sem
            app.state.readiness.add("database", sem.database_answers)
            app.state.readiness.add("champion", sem.lanes.unwell)
            yield

    app = create_service("sem", title="svc-sem", platform=settings.platform, lifespan=lifespan)
    app.include_router(routes_labels.router)
    app.include_router(routes_masters.router)
    app.include_router(routes_particles.router)
    app.include_router(routes_bundles.router)
    app.include_router(routes_reviews.router)
    app.include_router(routes_policy.router)
    app.include_router(routes_search.router)
    app.include_router(routes_label_studio.router)
    app.include_router(routes_audits.router)
    app.include_router(routes_export.router)
    return app
