"""What every service of Genba is, before it has a route: ``create_service``.

Health, readiness and metrics; problems instead of tracebacks; a request id, one log line and one measurement per
request; and nobody gets to ``/v1`` without a principal that the gateway signed. Knows no domain and no gateway.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, Field
from pydantic.warnings import UnsupportedFieldAttributeWarning
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from genba_shared.direct import Direct
from genba_shared.edge import Edge, PrincipalCheck, RouteTable, answer_with_problem
from genba_shared.problems import BY_STATUS, MEDIA_TYPE, Problem, Unavailable
from genba_shared.readiness import Degraded, Readiness, ReadinessCollector
from genba_shared.settings import Platform
from genba_shared.telemetry import Metrics, configure_logging
from genba_shared.tracing import spans_for

__version__ = importlib.metadata.version("genba")

# FastAPI silences this warning where it builds a parameter, but not safely: filters are the process's, and another thread restores them.
warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)

_ALWAYS_DOCUMENTED = (400, 401, 403, 422, 500, 503)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class Health(BaseModel):
    """The process is alive."""

    status: str = "ok"
    service: str
    version: str


class Ready(BaseModel):
    """No check keeps this service from working; ``degraded`` says, by check, what works less well than it should."""

    status: str = "ready"
    checks: list[str]
    degraded: dict[str, str] = Field(default_factory=dict)


def create_service(
    name: str,
    *,
    title: str,
    platform: Platform,
    lifespan: Lifespan,
    version: str = __version__,
) -> FastAPI:
    """A FastAPI application with all that the house expects; the caller adds routes with their full public path.

    ``app.state`` then holds ``platform``, ``readiness`` (add checks) and ``metrics`` (make more of them).
    """
    configure_logging(level=platform.log_level, log_format=platform.log_format)
    app = FastAPI(
        title=title,
        version=version,
        lifespan=lifespan,
        openapi_url=None,  # ours is among the probes
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=problem_responses(*_ALWAYS_DOCUMENTED),
        generate_unique_id_function=lambda route: f"{name}_{route.name}",
    )
    app.state.platform = platform
    app.state.readiness = Readiness()
    app.state.metrics = Metrics(name)
    app.state.metrics.registry.register(ReadinessCollector(app.state.metrics.prefix, app.state.readiness))
    app.state.routes = RouteTable(app)
    spans = spans_for(name, platform)
    for kind in (Problem, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer_with_problem)
    _add_probes(app, name, version)
    app.add_middleware(Direct, routes=app.state.routes.direct_routes, answer_problem=answer_with_problem)
    app.add_middleware(PrincipalCheck, secret=platform.load_principal_secret())
    app.add_middleware(Edge, service=name, metrics=app.state.metrics, routes=app.state.routes, spans=spans)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to change it
    return app


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For ``responses=`` of a route: the problems that it answers with."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": BY_STATUS[status].title if status in BY_STATUS else HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def _add_probes(app: FastAPI, name: str, version: str) -> None:
    """The addresses for whoever runs the service. They are outside /v1: the gateway does not forward them."""

    @app.get("/health", include_in_schema=False)
    async def health() -> Health:  # async: it answers also while every worker thread is busy
        return Health(service=name, version=version)

    @app.get("/ready", include_in_schema=False)
    def ready(request: Request) -> Ready:
        readiness: Readiness = request.app.state.readiness
        said = readiness.said()
        degraded = {check: reason for check, reason in said.items() if isinstance(reason, Degraded)}
        if reasons := {check: reason for check, reason in said.items() if check not in degraded}:
            why = "; ".join(f"{check} {reason}".rstrip(".") for check, reason in reasons.items())
            raise Unavailable(f"Not ready: {why}.", reasons=dict(reasons))
        return Ready(checks=readiness.names, degraded=degraded)

    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> JSONResponse:  # for the gateway; not async: describing hundreds of models takes seconds
        return JSONResponse(app.openapi())

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        registry = request.app.state.metrics.registry  # some collectors ask the database, which may take its time
        return Response(await asyncio.to_thread(encode, registry), media_type=content_type)


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, routes=app.routes, separate_input_output_schemas=False
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = PROBLEM_SCHEMA
        app.openapi_schema = document
    return app.openapi_schema


PROBLEM_SCHEMA: Mapping[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457: what failed, and what to do about it. A kind of problem may have further members.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:genba:problem:not-found"]},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {
                    "field": {"type": "string"},
                    "message": {"type": "string"},
                    "code": {"type": "string", "description": "What kind of fault; the limits that it names follow."},
                },
            },
        },
    },
    "additionalProperties": True,
}
