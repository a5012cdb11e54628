"""The door that serves: ``create_app``. Resources are opened in the lifespan, routes live in ``routes_*``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from genba_llm import (
    routes_audit,
    routes_chat,
    routes_escalations,
    routes_gate,
    routes_office,
    routes_policies,
)
from genba_llm.generation import Backend
from genba_llm.mcp_endpoint import McpEndpoint
from genba_llm.service import open_service
from genba_llm.settings import Settings
from genba_shared.service import create_service


def create_app(settings: Settings | None = None, *, backend: Backend | None = None) -> FastAPI:
    """svc-llm: the gate, answers behind it, policies, documents, the queue for people, and the record of it all.

    ``backend``: instead of the one that the settings name, for who brings their own.
    """
    settings = settings or Settings()
    mcp = McpEndpoint()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_service(settings, app.state.metrics, backend=backend) as llm, mcp.running(llm):
            app.state.llm = llm
            app.state.readiness.add("database", llm.database_answers)
            app.state.readiness.add("model", llm.champion.unwell)
            app.state.readiness.add("backend", llm.backend_answers)
            yield

    app = create_service("llm", title="svc-llm", platform=settings.platform, lifespan=lifespan)
    for module in (routes_gate, routes_chat, routes_policies, routes_audit, routes_escalations, routes_office):
        app.include_router(module.router)
    mcp.mount(app)
    return app
