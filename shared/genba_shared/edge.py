"""Between the server and the routes of a service: plain ASGI, so that a body is never read, buffered or logged here.

``Edge`` gives a request its id and trace, turns what escapes into a problem, and logs and measures it once.
``PrincipalCheck`` lets nobody to ``/v1`` whom the gateway did not sign. Knows no service.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genba_shared.direct import DirectRoute, direct_routes
from genba_shared.idempotency import HEADER as IDEMPOTENCY_HEADER
from genba_shared.idempotency import key_missing
from genba_shared.ids import new_id
from genba_shared.principal import PRINCIPAL_HEADER, Verifier
from genba_shared.problems import (
    BY_STATUS,
    BadRequest,
    DiskFull,
    Internal,
    MethodNotAllowed,
    NotFound,
    Problem,
    Unauthorized,
    invalid,
    render,
)
from genba_shared.telemetry import Metrics, TraceContext, get_logger
from genba_shared.tracing import Spans, request_span

REQUEST_ID_HEADER = "x-request-id"
CLIENT_CLOSED_REQUEST = 499  # nginx's number for it; there is nobody left to send it to

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{8,128}", re.ASCII)
_REQUEST_ID_NAME, _PRINCIPAL = REQUEST_ID_HEADER.encode(), PRINCIPAL_HEADER.encode()
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = get_logger(__name__)


class RouteTable:
    """The routes of an application by template, as FastAPI composes them from its routers.

    Looked through once, at the first request: routes are added after the application is made, not while it serves.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._direct: tuple[Callable[..., Any], ...] = ()

    def direct(self, *endpoints: Callable[..., Any]) -> None:
        """Name the endpoints that are to be called past the framework; see ``direct``."""
        self._direct += endpoints

    def direct_routes(self) -> Sequence[DirectRoute]:
        """Their routes. Raises: TypeError for one that cannot be called so."""
        return direct_routes(self._app, self._direct) if self._direct else ()

    @cached_property
    def _routes(self) -> list[tuple[int, str, re.Pattern[str], frozenset[str]]]:
        return [
            (id(found.original_route), found.path, compile_path(found.path)[0], frozenset(found.methods or ()))
            for found in iter_route_contexts(self._app.routes)
            if found.path is not None
        ]

    @cached_property
    def _templates(self) -> dict[int, str]:
        return {route: template for route, template, _, _ in self._routes}

    def template(self, scope: Scope) -> str:
        """The template that a request was routed to; never the address itself, which would be a label per record."""
        return self._templates.get(id(scope.get("route")), "unmatched")

    def methods(self, path: str) -> list[str]:
        """What ``path`` can be asked with, over all routes that share it."""
        allowed: set[str] = set()
        return sorted(allowed.union(*(methods for *_, pattern, methods in self._routes if pattern.match(path))))


def as_problem(error: Exception) -> Problem:
    """What an exception means to the caller. Anything unexpected is Internal, and says nothing of itself."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        if any(
            found["type"] == "missing" and found["loc"] == ("header", IDEMPOTENCY_HEADER) for found in error.errors()
        ):
            return key_missing()
        # For JSON that cannot be parsed the location goes on with a character's number, which is no field.
        return invalid(
            {**found, "loc": found["loc"][:1]} if found["type"] == "json_invalid" else found for found in error.errors()
        )
    if isinstance(error, HTTPException):
        return _of_framework(error)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull("A disk is full: its operator has to make room. Nothing was stored.", retry_after_s=60)
    return Internal("This is our fault. Tell the operator the request_id: the log says more under it.")


def _of_framework(error: HTTPException) -> Problem:
    """What Starlette and FastAPI raise of themselves: no such route, a body that cannot be parsed."""
    if error.status_code == HTTPStatus.NOT_FOUND and error.detail == HTTPStatus.NOT_FOUND.phrase:
        return NotFound("There is no such address; the gateway lists those there are at /v1/openapi.json.")
    fallback = Internal if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR else BadRequest
    return BY_STATUS.get(error.status_code, fallback)(str(error.detail), headers=error.headers)


async def answer_with_problem(request: Request, error: Exception) -> Response:
    """FastAPI's exception handler for what it knows to be expected."""
    problem = as_problem(error)
    if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(request.app.state.routes.methods(request.scope["path"]))
        problem = MethodNotAllowed(f"Use one of: {allowed}.", headers={"Allow": allowed})
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("problem", code=problem.code, detail=problem.detail, exc_info=error)
    return _response(problem, request.scope)


def _response(problem: Problem, scope: Scope) -> Response:
    rendered = render(problem, request_id=scope["state"].get("request_id"), instance=scope["path"])
    response = Response(rendered.body, rendered.status)
    response.raw_headers = rendered.headers
    return response


class PrincipalCheck:
    """Nobody gets to /v1 without a principal signed by the gateway and still fresh."""

    def __init__(self, app: ASGIApp, *, secret: bytes) -> None:
        self._app = app
        self._verifier = Verifier(secret)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and _is_public(scope):
            header = _first(scope, _PRINCIPAL)
            if header is None:
                raise Unauthorized("This request carries no principal: it did not come through the gateway.")
            scope.setdefault("state", {})["principal"] = self._verifier.verify(header)
        await self._app(scope, receive, send)


def _first(scope: Scope, name: bytes) -> str | None:
    """The first header field of that name, in lower case as ASGI has names."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def _is_public(scope: Scope) -> bool:
    """Whether a request is for /v1, seen from outside or from within whatever prefix the service is mounted under."""
    path: str = scope["path"]
    if path.startswith("/v1/"):
        return True
    seen = (path, path.removeprefix(scope.get("root_path", "")))
    return any(part == "/v1" or part.startswith("/v1/") for part in seen)


class Edge:
    """Outermost: gives a request its id and trace, turns what escapes into a problem, logs and measures it once."""

    def __init__(
        self, app: ASGIApp, *, service: str, metrics: Metrics, routes: RouteTable, spans: Spans | None = None
    ) -> None:
        self._app = app
        self._routes = routes
        self._spans = spans
        self._service = service
        labels = ("method", "route", "status")
        self._requests = metrics.counter("requests", "Requests answered, by route template and status.", labels)
        self._seconds = metrics.histogram("request_seconds", "From request line to last byte.", ("method", "route"))
        self._in_flight = metrics.gauge("requests_in_flight", "Requests being answered now.")
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = _first(scope, _REQUEST_ID_NAME) or ""
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id("req")
        above = TraceContext.parse(_first(scope, b"traceparent"))
        trace = TraceContext.start() if above is None else above if self._spans is None else above.child()
        scope.setdefault("state", {}).update(request_id=request_id, trace=trace)
        exchange = _Exchange(send, request_id)
        started_s = time.perf_counter()
        self._in_flight.inc()
        try:
            bound = structlog.contextvars.bind_contextvars(request_id=request_id, trace_id=trace.trace_id)
            try:
                await self._answer(scope, receive, exchange)
            finally:
                self._record(scope, exchange, above, time.perf_counter() - started_s)
                structlog.contextvars.reset_contextvars(**bound)
        finally:
            self._in_flight.dec()

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        try:
            await self._app(scope, receive, exchange.send)
        except ClientDisconnect:
            return  # nobody is listening; the log line says 499
        except Exception as error:
            if not isinstance(error, Problem):
                log.exception("request_failed", service=self._service)
            if exchange.status is not None:
                exchange.broken_off = True
                raise  # the answer has begun: only the server can still break it off, so that nobody takes it for whole
            await _response(as_problem(error), scope)(scope, receive, exchange.send)

    def _record(self, scope: Scope, exchange: _Exchange, above: TraceContext | None, duration_s: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = self._routes.template(scope)
        status = exchange.outcome
        series = self._series.get((method, route, status))
        if series is None:
            series = self._requests.labels(method, route, str(status)), self._seconds.labels(method, route)
            self._series[method, route, status] = series
        series[0].inc()
        series[1].observe(duration_s)
        principal = scope["state"].get("principal")
        is_probe = status < HTTPStatus.BAD_REQUEST and not _is_public(scope)  # every few seconds, for ever
        (log.debug if is_probe else log.info)(
            "request",
            service=self._service,
            method=method,
            route=route,
            status=status,
            duration_ms=round(duration_s * 1000, 3),
            body_bytes=exchange.body_bytes,
            subject=principal.subject if principal else None,
        )
        if self._spans is not None and not is_probe:
            request_span(
                self._spans,
                scope["state"]["trace"],
                parent=None if above is None else above.span_id,
                method=method,
                route=route,
                status=status,
                duration_s=duration_s,
                request_id=scope["state"]["request_id"],
            )


class _Exchange:
    """Watches an answer go out: its status, its size, whether it was finished; adds the request id."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status: int | None = None
        self.body_bytes = 0
        self.finished = False
        self.broken_off = False

    @property
    def outcome(self) -> int:
        """The status to count: what was sent, unless the answer never got to its end."""
        if self.broken_off:
            return int(HTTPStatus.INTERNAL_SERVER_ERROR)
        return self.status if self.status is not None and self.finished else CLIENT_CLOSED_REQUEST

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            fields = [pair for pair in message.get("headers", ()) if pair[0] != _REQUEST_ID_NAME]
            message["headers"] = [*fields, (_REQUEST_ID_NAME, self._request_id.encode("ascii"))]
        elif message["type"] == "http.response.body":
            self.body_bytes += len(message.get("body", b""))
            self.finished = not message.get("more_body", False)
        await self._send(message)
