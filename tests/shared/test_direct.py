"""Routes that are called past the framework answer as the framework would, and what is not understood is refused or left to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.testclient import TestClient

from genba_shared.dependencies import require
from genba_shared.principal import Principal
from genba_shared.problems import Conflict, Unavailable
from genba_shared.service import create_service
from genba_shared.settings import Platform

Headers = Callable[..., dict[str, str]]
Name = Annotated[str, Path(pattern="^[a-z0-9 é-]{1,20}$")]
Reader = Annotated[Principal, require("sop:read")]
router = APIRouter(prefix="/v1/sop")


async def _shelf(request: Request) -> str:
    return f"{request.app.title}, asked for {request.url.query or 'nothing'}"


async def _note(request: Request) -> None:
    request.state.noted = True


@router.get("/things/{name}", dependencies=[Depends(_note)])
async def read_thing(request: Request, name: Name, shelf: Annotated[str, Depends(_shelf)], caller: Reader) -> Response:
    if name == "busy":
        raise Conflict("The thing is busy.", thing=name)
    if name == "away":
        raise Unavailable("The shelf is away.", retry_after_s=2)
    said = f"{name} of {shelf} for {caller.subject}: {request.path_params} {request.state.noted}"
    return Response(said, 203, {"x-mine": "yes", "x-request-id": "of-the-route"})


@router.get("/things")
async def list_things(caller: Reader) -> Response:
    return Response(caller.subject)


@router.get("/broken")
async def read_broken() -> Response:
    raise RuntimeError("the password is hunter2")


@router.get("/counted")
async def read_counted(n: Annotated[int, Query()]) -> Response:
    return Response(str(n))


@router.get("/slow")
def read_slow() -> Response:
    return Response("slow")


@router.get("/things/{other}")
async def shadowed(other: str) -> Response:
    return Response(other)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


def build(platform: Platform, *direct: Callable[..., Any]) -> FastAPI:
    app = create_service("sop", title="Shelf", platform=platform, lifespan=lifespan)
    app.include_router(router)
    app.state.routes.direct(*direct)
    return app


REQUESTS = (
    ("GET", "/v1/sop/things/a"),
    ("GET", "/v1/sop/things/a?of=b&of=c"),
    ("GET", "/v1/sop/things/caf%C3%A9%20au%20lait"),
    ("GET", "/v1/sop/things/CAPITALS"),
    ("GET", "/v1/sop/things/a%2Fb"),
    ("GET", "/v1/sop/things/a/"),
    ("GET", "/v1/sop/things/"),
    ("GET", "/v1/sop/things/a%0A"),
    ("GET", "/v1/sop/things/busy"),
    ("GET", "/v1/sop/things/away"),
    ("HEAD", "/v1/sop/things/a"),
    ("POST", "/v1/sop/things/a"),
    ("OPTIONS", "/v1/sop/things"),
    ("GET", "/v1/sop/things"),
    ("GET", "/v1/sop/broken"),
    ("GET", "/v1/sop/nothing"),
)


@pytest.mark.parametrize(
    "who", [("viewer",), ("auditor",), None], ids=["reader", "without the scope", "without a principal"]
)
def test_an_answer_is_the_frameworks(platform: Platform, signed: Headers, who: tuple[str, ...] | None) -> None:
    answers = []
    for direct in ((), (read_thing, list_things, read_broken)):
        app = build(platform, *direct)
        with TestClient(app, raise_server_exceptions=False) as client:
            found = []
            for n, (method, path) in enumerate(REQUESTS):
                fields = {"x-request-id": f"request-{n}", **(signed(*who) if who else {})}
                answer = client.request(method, path, headers=fields)
                found.append((method, path, answer.status_code, sorted(answer.headers.multi_items()), answer.text))
            metrics = client.get("/metrics").text.splitlines()
        counted = [line for line in metrics if line.startswith("genba_sop_requests_total")]
        answers.append((found, counted))
    assert answers[0] == answers[1]
    assert len({status for _, _, status, _, _ in answers[0][0]}) > (3 if who else 0)


def test_a_direct_route_does_not_go_through_the_framework(
    platform: Platform, signed: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build(platform, list_things)

    async def no_router(*_: object) -> None:
        raise AssertionError

    with TestClient(app) as client:
        monkeypatch.setattr(app.router, "app", no_router)
        monkeypatch.setattr(app.router, "middleware_stack", no_router)
        assert client.get("/v1/sop/things", headers=signed("viewer", subject="key_7")).text == "key_7"


def test_where_a_dependency_is_overridden_the_framework_answers(platform: Platform, signed: Headers) -> None:
    async def another(request: Request) -> str:
        return "another shelf"

    app = build(platform, read_thing)
    app.dependency_overrides[_shelf] = another
    with TestClient(app) as client:
        assert "another shelf" in client.get("/v1/sop/things/a", headers=signed("viewer")).text


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        (read_counted, "asks for more"),
        (read_slow, "asks for more"),
        (shadowed, "Another route answers"),
        (_shelf, "is no route"),
    ],
)
def test_what_cannot_be_direct_keeps_a_service_from_starting(
    platform: Platform, endpoint: Callable[..., Any], said: str
) -> None:
    with pytest.raises(TypeError, match=said), TestClient(build(platform, endpoint)):
        pass


def test_dependencies_of_a_router_are_not_passed_over(platform: Platform) -> None:
    app = create_service("sop", title="Shelf", platform=platform, lifespan=lifespan)
    app.include_router(router, dependencies=[Depends(_note)])
    app.state.routes.direct(list_things)
    with pytest.raises(TypeError, match="included with dependencies"), TestClient(app):
        pass
