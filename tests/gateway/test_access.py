"""Who gets where: the whole matrix of routes, methods, roles and clearances, made from the route table and the roles themselves.

What is expected is computed here from the two tables by their definition, not by the code that the gateway runs.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.gateway.world import Echo, Service, door, request_bytes, running, settings

from genba_gateway.headers import BODY_BYTES
from genba_gateway.routes import METHODS, ROUTES, SAFE_METHODS, Route, RouteTable, is_ambiguous
from genba_shared.principal import PRINCIPAL_HEADER, ROLES, Clearance, verify
from genba_shared.settings import Platform

GUARDED = [route for route in ROUTES if route.read is not None]
PER_SERVICE = ("sop", "llm", "recommend", "sem", "training")


def grants(role: str, scope: str) -> bool:
    """By the words of the table: a scope itself, everything, a service's all, or a verb at every service but keys and audit."""
    if not scope:
        return True
    service, verb = scope.split(":")
    patterns = ROLES[role]
    if patterns & {"*", scope, f"{service}:*"}:
        return True
    return f"*:{verb}" in patterns and service not in {"audit", "keys"}


def expected(route: Route, method: str, role: str, clearance: Clearance) -> int:
    scope = route.read if method in SAFE_METHODS else route.write
    assert scope is not None
    return 200 if grants(role, scope) and clearance >= route.clearance else 403


def test_every_route_with_every_method_role_and_clearance_answers_as_the_tables_say(platform: Platform) -> None:
    async def story() -> None:
        echo = Echo()
        wrong: list[tuple[str, str, str, str, int, int]] = []
        cells = 0
        generous = settings(platform, rate_per_minute=6_000_000, rate_burst=1_000_000)
        async with door(generous, mounts=dict.fromkeys(PER_SERVICE, echo)) as gateway:
            gateway.gateway.pipeline._services["control"] = echo  # type: ignore[index]  # its own answers are tested elsewhere
            for role in ROLES:
                for clearance in Clearance:
                    key = gateway.new_key(role, clearance=clearance)
                    reader, writer = await gateway.connect()
                    for route in GUARDED:
                        for method in sorted(METHODS):
                            writer.write(request_bytes(method, f"{route.prefix}/thing", headers=gateway.auth(key)))
                            status = await _status(reader, method)
                            cells += 1
                            if status != expected(route, method, role, clearance):
                                wrong.append(
                                    (
                                        route.prefix,
                                        method,
                                        role,
                                        clearance.label,
                                        status,
                                        expected(route, method, role, clearance),
                                    )
                                )
                    writer.close()
        assert wrong == []
        assert cells == len(ROLES) * len(Clearance) * len(GUARDED) * len(METHODS)

    asyncio.run(story())


async def _status(reader: asyncio.StreamReader, method: str) -> int:
    from tests.gateway.world import read_answer

    return (await read_answer(reader, method=method)).status


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.prefix)
def test_nobody_gets_to_a_guarded_route_without_a_credential(route: Route, platform: Platform) -> None:
    async def story() -> None:
        echo = Echo()
        async with door(settings(platform), mounts=dict.fromkeys(PER_SERVICE, echo)) as gateway:
            for method in sorted(METHODS - {"HEAD"}):
                answer = await gateway.ask(method, route.prefix, key="")
                assert answer.status == 401
                assert answer.headers["www-authenticate"].startswith("Bearer")
            assert echo.requests == []

    asyncio.run(story())


def test_reviewing_needs_the_reviewers_scope_not_writing(platform: Platform) -> None:
    async def story() -> None:
        async with door(settings(platform), mounts={"sop": Echo()}) as gateway:
            path = "/v1/sop/evaluations/evl_1/review"
            statuses = {
                role: (await gateway.ask("POST", path, key=gateway.new_key(role))).status
                for role in ("operator", "reviewer")
            }
            assert statuses == {"operator": 403, "reviewer": 200}
            assert (await gateway.ask("POST", path + "/", key=gateway.new_key("operator"))).status == 403

    asyncio.run(story())


def test_reviewing_particles_needs_the_reviewers_scope_and_searching_them_only_reading(platform: Platform) -> None:
    async def story() -> None:
        async with door(settings(platform), mounts={"sem": Echo()}) as gateway:
            keys = {role: gateway.new_key(role) for role in ("viewer", "operator", "reviewer")}
            for below in ("", "/x", "/bundles/x", "/bundles/x/confirm"):
                path = f"/v1/sem/reviews{below}"
                statuses = {role: (await gateway.ask("POST", path, key=key)).status for role, key in keys.items()}
                assert statuses == {"viewer": 403, "operator": 403, "reviewer": 200}, path
            for path in ("/v1/sem/search", "/v1/sem/search/image"):
                assert (await gateway.ask("POST", path, key=keys["viewer"])).status == 200
            assert (await gateway.ask("POST", "/v1/sem/labels", key=keys["reviewer"])).status == 403

    asyncio.run(story())


def test_a_service_gets_the_principal_signed_and_a_refusal_names_the_scope(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service)) as gateway:
            key = gateway.new_key("operator", clearance="confidential", compartments=["line-3"], tenant="plant-2")
            assert (await gateway.ask("GET", "/v1/sop/x", key=key)).status == 200
            header = service.requests[0].headers[PRINCIPAL_HEADER]
            principal = verify(header, platform.load_principal_secret())
            assert principal.roles == ("operator",)
            assert (principal.clearance, principal.tenant) == (Clearance.CONFIDENTIAL, "plant-2")
            assert principal.compartments == {"line-3"}
            refused = await gateway.ask("GET", "/v1/keys", key=key)
            assert (refused.status, refused.json()["scope"]) == (403, "keys:admin")
            assert refused.json()["type"] == "urn:genba:problem:scope-missing"
            low = await gateway.ask("GET", "/v1/sop/x", key=gateway.new_key("operator", clearance="public"))
            assert (low.status, low.json()["clearance"]) == (403, "internal")

    asyncio.run(story())


def test_a_path_that_only_begins_like_a_route_is_no_route(platform: Platform) -> None:
    table = RouteTable()
    for path in ("/v1/sopx", "/v1/sop2/a", "/v1", "/v1/", "/", "", "/v2/sop", "/V1/sop", "/healthy", "/metricsx", "*"):
        assert table.find(path) is None, path
    for path in ("/v1/sop", "/v1/sop/", "/v1/sop/a/b", "/health", "/docs/docs.js", "/v1/openapi.json"):
        assert table.find(path) is not None, path


@pytest.mark.parametrize(
    "raw", [b"/v1/sop/.hidden", b"/v1/sop/a.b", b"/v1/sop/...", b"/v1/sop/%E3%81%82", b"/v1/sop/a%20b", b"/v1/sop/"]
)
def test_ordinary_paths_are_not_ambiguous(raw: bytes) -> None:
    assert not is_ambiguous(raw)


def test_operations_can_be_kept_to_a_port_of_their_own(platform: Platform) -> None:
    async def story() -> None:
        async with door(settings(platform, operations_port=1)) as gateway:
            assert (await gateway.ask("GET", "/metrics", key="")).status == 404
            assert (await gateway.ask("GET", "/ready", key="")).status == 404
            assert (await gateway.ask("GET", "/health", key="")).status == 200

    asyncio.run(story())


def test_a_mounted_service_sees_what_a_proxied_one_sees(platform: Platform) -> None:
    """The seam: both get the same path, body and principal; both answers come back alike."""

    async def story() -> None:
        service, echo = Service(), Echo()
        async with running(service), door(settings(platform, service), mounts={"training": echo}) as gateway:
            proxied = await gateway.ask(
                "POST",
                "/v1/sop/a%20b?c=d",
                body=b"hello",
                headers={"X-Kept": "yes", "Connection": "x-hop", "X-Hop": "no"},
            )
            mounted = await gateway.ask(
                "POST",
                "/v1/jobs/a%20b?c=d",
                body=b"hello",
                headers={"X-Kept": "yes", "Connection": "x-hop", "X-Hop": "no"},
            )
            assert proxied.status == mounted.status == 200
            [scope] = echo.requests
            names = dict(scope["headers"])
            assert (scope["raw_path"], scope["query_string"], echo.bodies) == (b"/v1/jobs/a%20b", b"c=d", [b"hello"])
            assert scope[BODY_BYTES] == 5
            for name in ("x-kept", "content-length", PRINCIPAL_HEADER, "traceparent", "x-request-id"):
                assert name in service.requests[0].headers
                assert name.encode() in names
            assert "x-hop" not in service.requests[0].headers
            assert b"x-hop" not in names
            for answer in (proxied, mounted):
                assert {
                    "x-request-id",
                    "ratelimit",
                    "ratelimit-policy",
                    "x-content-type-options",
                } <= answer.headers.keys()

    asyncio.run(story())


def test_a_trace_goes_on_and_a_broken_one_is_begun_anew(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service)) as gateway:
            trace = "0af7651916cd43dd8448eb211c80319c"
            given = {
                "traceparent": f"00-{trace}-b7ad6b7169203331-01",
                "tracestate": "a=b",
                "X-Request-ID": "client-chosen-1",
            }
            answer = await gateway.ask("GET", "/v1/sop/x", headers=given)
            assert answer.headers["x-request-id"] == "client-chosen-1"
            await gateway.ask(
                "GET", "/v1/sop/x", headers={"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01", "X-Request-ID": "a b"}
            )
            first, second = (request.headers for request in service.requests)
            assert first["traceparent"].split("-")[1] == trace
            assert first["traceparent"].split("-")[2] != "b7ad6b7169203331"
            assert first["tracestate"] == "a=b"
            assert second["traceparent"].split("-")[1] not in {trace, "0" * 32}
            assert "tracestate" not in second
            assert second["x-request-id"].startswith("req_")

    asyncio.run(story())


def test_a_service_that_is_not_deployed_is_named_with_what_adds_it(platform: Platform) -> None:
    async def story() -> None:
        async with door(settings(platform)) as gateway:
            answer = await gateway.ask("GET", "/v1/recommend/popular", key=gateway.new_key("operator"))
            problem = answer.json()
            assert (answer.status, problem["type"]) == (404, "urn:genba:problem:service-not-deployed")
            assert problem["service"] == "recommend"
            assert "genba run recommend" in problem["detail"]
            assert "GENBA_GATEWAY_UPSTREAMS" in problem["detail"]
            unknown = await gateway.ask("GET", "/v1/nothing", key=gateway.new_key("operator"))
            assert unknown.json()["type"] == "urn:genba:problem:not-found"

    asyncio.run(story())


def test_a_service_that_is_deployed_and_away_is_named(platform: Platform) -> None:
    async def story() -> None:
        async with door(settings(platform, upstreams={"sem": ("http://127.0.0.1:9",)})) as gateway:
            problem = (await gateway.ask("GET", "/v1/sem/labels", key=gateway.new_key("operator"))).json()
            assert (problem["status"], problem["service"]) == (502, "sem")
            assert problem["detail"].startswith("The service sem does not accept connections")

    asyncio.run(story())
