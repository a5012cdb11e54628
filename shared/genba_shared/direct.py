"""Routes that are asked for so often that the framework's way to them costs as much as their answer: called from here instead.

FastAPI looks through its routers, enters three stacks and solves each dependency anew, a third of a millisecond a request.
A route named to ``RouteTable.direct`` is found by one expression and given what it asks for at once. It stays where it is declared, so
that documentation and checks have one source; what this does not understand about a route it refuses when the application starts to
serve, and what it does not understand about a request goes the framework's way. Knows no service.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from genba_shared.problems import Problem

AnswerProblem = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True)
class DirectRoute:
    """A route with all that is needed to call it."""

    route: APIRoute
    methods: frozenset[str]
    pattern: re.Pattern[str]
    call: Callable[..., Awaitable[Response]]
    request_name: str | None
    dependencies: tuple[
        tuple[str | None, Callable[..., Awaitable[Any]], str | None], ...
    ]  # name, call, its request's name
    path_fields: tuple[Any, ...]

    @classmethod
    def of(cls, found: RouteContext) -> DirectRoute:
        """Raises: TypeError for a route that wants more than the request, its path and what depends on the request alone."""
        route = found.original_route
        if not isinstance(route, APIRoute) or found.path is None or route.methods is None:
            raise TypeError(f"{found.path} is no route of FastAPI.")
        own = route.dependant
        pattern, _, convertors = compile_path(found.path)
        plain = all(type(each).__name__ == "StringConvertor" for each in convertors.values())
        fits = plain and not _wants_more(own) and inspect.iscoroutinefunction(route.endpoint)
        if not fits or not all(_is_simple(each) for each in own.dependencies) or route.body_field is not None:
            raise TypeError(f"{found.path} asks for more than can be given directly.")
        if len(own.dependencies) != len(found.dependant.dependencies):
            raise TypeError(f"{found.path} was included with dependencies, which would be passed over.")
        needed = tuple((each.name, each.call, each.request_param_name) for each in own.dependencies)
        return cls(
            route,
            frozenset(route.methods),
            pattern,
            route.endpoint,
            own.request_param_name,
            needed,  # type: ignore[arg-type]  # _is_simple has looked at the calls
            tuple(own.path_params),
        )

    async def answer(self, request: Request, found: re.Match[str]) -> Response:
        """Gather the arguments in the framework's order and call the route. Raises: what dependencies and the route raise."""
        values: dict[str, Any] = {}
        for name, call, request_name in self.dependencies:
            value = await call(**{request_name: request}) if request_name else await call()
            if name is not None:
                values[name] = value
        errors: list[Any] = []
        for field in self.path_fields:
            value, wrong = field.validate(found[field.alias], values, loc=("path", field.alias))
            if wrong:
                errors.extend(wrong)
            else:
                values[field.name] = value
        if errors:
            raise RequestValidationError(errors)
        if self.request_name is not None:
            values[self.request_name] = request
        return await self.call(**values)


def _wants_more(own: Dependant) -> bool:
    return bool(
        own.query_params
        or own.header_params
        or own.cookie_params
        or own.body_params
        or own.websocket_param_name
        or own.http_connection_param_name
        or own.response_param_name
        or own.background_tasks_param_name
        or own.security_scopes_param_name
    )


def _is_simple(needed: Dependant) -> bool:
    called = needed.call
    is_async = inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(getattr(called, "__call__", None))  # noqa: B004 - an instance that is called
    return is_async and not (_wants_more(needed) or needed.path_params or needed.dependencies)


def direct_routes(app: FastAPI, endpoints: Sequence[Callable[..., Any]]) -> list[DirectRoute]:
    """The routes of some endpoints. Raises: TypeError for one that is not among the routes, cannot be direct, or comes after another
    that would answer for it.
    """
    before: list[tuple[re.Pattern[str], frozenset[str]]] = []
    made: list[DirectRoute] = []
    for found in iter_route_contexts(app.routes):
        if found.path is None:
            continue
        pattern, methods = compile_path(found.path)[0], frozenset(found.methods or ())
        if found.endpoint in endpoints:
            example = re.sub(r"\{[^}]*\}", "x", found.path)
            if any(other.match(example) and methods & theirs for other, theirs in before):
                raise TypeError(f"Another route answers for {found.path}.")
            made.append(DirectRoute.of(found))
        before.append((pattern, methods))
    if len(made) != len(endpoints):
        raise TypeError("An endpoint that is to be direct is no route of this application, or is two.")
    return made


class Direct:
    """Innermost before the framework: answers what it knows and passes everything else on."""

    def __init__(
        self, app: ASGIApp, *, routes: Callable[[], Sequence[DirectRoute]], answer_problem: AnswerProblem
    ) -> None:
        self._app, self._routes, self._answer_problem = app, routes, answer_problem
        self._found: Sequence[DirectRoute] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self._found = (
                self._routes()
            )  # now every route is there; one that cannot be direct keeps the service from starting
        elif scope["type"] == "http" and not scope.get("root_path") and not scope["app"].dependency_overrides:
            method, path = scope["method"], scope["path"]
            for each in self._found:
                if method in each.methods and (match := each.pattern.match(path)) is not None:
                    await self._answer(each, match, scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _answer(
        self, each: DirectRoute, match: re.Match[str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        scope["route"], scope["endpoint"], scope["path_params"] = each.route, each.call, match.groupdict()
        request = Request(scope, receive, send)
        try:
            response = await each.answer(request, match)
        except (Problem, HTTPException, RequestValidationError) as error:
            response = await self._answer_problem(request, error)
        await response(scope, receive, send)
