"""Who may do what at svc-llm: every route by role. A route that is added without a row here fails."""

from __future__ import annotations

from typing import Any

import pytest

Service = Any
PERIOD = "start=2026-01-01T00:00:00Z&end=2026-02-01T00:00:00Z"
READS = [
    *("models", "models/m", "policies", "policies/1", "identities", "identities/1"),
    *("quality", "escalations", "documents", "documents/doc_0"),
]
AUDITS = ["audit", "audit/dec_0", "verify", "proof/dec_0", f"report?{PERIOD}", "host"]
CHAT = {"messages": [{"role": "user", "content": "Hello"}]}
MAIL = {"recipient": "a", "sender": "b", "purpose": "c", "points": ["d"]}
WRITES: list[tuple[str, str, Any]] = [
    ("POST", "triage", {"text": "Hello"}),
    ("POST", "think", {"text": "Hello"}),
    ("POST", "chat/completions", CHAT),
    ("POST", "moderations", {"input": "Hello"}),
    ("POST", "guardrail", {"texts": ["Hello"]}),
    ("POST", "guardrail/beta/litellm_basic_guardrail_api", {"texts": ["Hello"]}),
    ("POST", "office/search", {"query": "Hello"}),
    ("POST", "office/summarize", {"text": "Hello."}),
    ("POST", "office/draft-mail", MAIL),
    ("POST", "documents", None),
    ("DELETE", "documents/doc_0", None),
]
REVIEWS: list[tuple[str, str, Any]] = [
    ("GET", "escalations/esc_0", None),
    ("POST", "escalations/esc_0/assign", {}),
    ("POST", "escalations/esc_0/decision", {"outcome": "ALLOW", "reason": "looked at it"}),
]
PUBLISHES: list[tuple[str, str, Any]] = [
    ("POST", "policies", {"document": {}, "note": "n"}),
    ("POST", "identities", {"document": {}, "note": "n"}),
]
EVERYTHING = [*(("GET", path, None) for path in [*READS, *AUDITS]), *WRITES, *REVIEWS, *PUBLISHES]


def status(service: Service, method: str, path: str, body: Any, headers: dict[str, str]) -> int:
    return int(service.client.request(method, f"/v1/llm/{path}", json=body, headers=headers).status_code)


def _template(path: str) -> str:
    parts = path.partition("?")[0].removeprefix("/v1/llm/").split("/")
    return "/".join("*" if "{" in part or part.endswith("_0") or part in {"m", "1"} else part for part in parts)


def test_every_route_of_the_service_stands_in_this_matrix(sqlite_service: Service) -> None:
    paths = sqlite_service.client.app.openapi()["paths"]
    there = {(method.upper(), _template(path)) for path, found in paths.items() for method in found}
    assert there == {(method, _template(path)) for method, path, _ in EVERYTHING}


def test_nobody_gets_in_without_a_signed_principal(sqlite_service: Service) -> None:
    for method, path, body in EVERYTHING:
        assert status(sqlite_service, method, path, body, {}) == 401, path
    assert status(sqlite_service, "POST", "mcp", {}, {}) == 401


@pytest.mark.parametrize(
    ("role", "reads", "writes", "reviews", "audits", "publishes"),
    [
        ("viewer", True, False, False, False, False),
        ("operator", True, True, False, False, False),
        ("reviewer", True, False, True, False, False),
        ("engineer", True, True, True, False, True),
        ("auditor", False, False, False, True, False),
        ("admin", True, True, True, True, True),
    ],
)
def test_a_role_may_do_what_the_table_says(
    sqlite_service: Service, *, role: str, reads: bool, writes: bool, reviews: bool, audits: bool, publishes: bool
) -> None:
    headers = sqlite_service.signed(role)
    rows = [
        *(("GET", path, None, reads) for path in READS),
        *(("GET", path, None, audits) for path in AUDITS),
        *((*row, writes) for row in WRITES),
        *((*row, reviews) for row in REVIEWS),
        *((*row, publishes) for row in PUBLISHES),
    ]
    for method, path, body, may in rows:
        assert (status(sqlite_service, method, path, body, headers) != 403) == may, (method, path)


def test_the_gateways_table_asks_for_no_less_than_the_routes(sqlite_service: Service) -> None:
    """The door refuses early what the service would refuse: auditors' and reviewers' routes are told apart there too."""
    from genba_gateway.routes import RouteTable

    route = RouteTable().find("/v1/llm/audit")
    assert route is not None
    wanted = {
        ("GET", "/v1/llm/audit"): "audit:read",
        ("GET", "/v1/llm/audit/dec_0"): "audit:read",
        ("GET", "/v1/llm/verify"): "audit:read",
        ("GET", "/v1/llm/proof/dec_0"): "audit:read",
        ("GET", "/v1/llm/report"): "audit:read",
        ("GET", "/v1/llm/host"): "audit:read",
        ("POST", "/v1/llm/escalations/esc_0/assign"): "llm:review",
        ("POST", "/v1/llm/escalations/esc_0/decision"): "llm:review",
        ("POST", "/v1/llm/policies"): "llm:admin",
        ("POST", "/v1/llm/identities"): "llm:admin",
        ("POST", "/v1/llm/triage"): "llm:write",
        ("POST", "/v1/llm/mcp"): "llm:write",
        ("GET", "/v1/llm/models"): "llm:read",
    }
    assert {key: route.scope_for(*key) for key in wanted} == wanted
