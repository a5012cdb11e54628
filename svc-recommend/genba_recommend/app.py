"""The door that serves: ``create_app``. Resources are opened in the lifespan, routes live in ``routes_*``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from genba_recommend import routes_catalogue, routes_experiments, routes_lists, routes_models, routes_pictures
from genba_recommend.service import open_service
from genba_recommend.settings import Settings
from genba_shared.service import create_service


def create_app(settings: Settings | None = None) -> FastAPI:
    """svc-recommend: catalogue, events, lists, experiments."""
    settings = settings or Settings()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sop_app = getattr(app.state, "sop_app", None)
        async with open_service(settings, app.state.metrics, sop_app=sop_app) as recommender:
            app.state.recommend = recommender
            app.state.readiness.add("database", recommender.database_answers)
            app.state.readiness.add("model", recommender.model_unwell)
            app.state.readiness.add("follower", recommender.follow_unwell)
            yield

    app = create_service("recommend", title="svc-recommend", platform=settings.platform, lifespan=lifespan)
    app.include_router(routes_lists.router)  # first: routes are matched in turn, and lists are asked for the most
    app.include_router(routes_catalogue.router)
    app.include_router(routes_experiments.router)
    app.include_router(routes_models.router)
    app.include_router(routes_pictures.router)
    app.state.routes.direct(
        routes_lists.list_for_user, routes_lists.list_similar, routes_lists.list_popular, routes_lists.list_trending
    )
    return app
