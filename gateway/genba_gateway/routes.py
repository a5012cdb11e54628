"""The route table: which service answers a path, and what a caller must hold to reach it. Data, and one lookup.

A service checks again, more finely; this table refuses early, the same way for every service, and is what the access matrix
tests. Paths are forwarded unchanged, so the table never rewrites one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from genba_shared.principal import Clearance

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})

CONTROL = "control"  # the gateway's own service, always mounted

# What two HTTP implementations may read differently: a dot segment, an empty one, an encoded slash, backslash or control
# character (to Starlette's routes "$" also ends a path before a line feed, to the rules here it does not).
_AMBIGUOUS = re.compile(rb"//|/(?:\.|%2e){1,2}(?:/|$)|\\|%2f|%5c|%[01][0-9a-f]|%7f|%(?![0-9a-f]{2})", re.IGNORECASE)
_PERCENT, _DOT, _BACKSLASH = b"%.\\"


@dataclass(frozen=True, slots=True)
class Rule:
    """An exception within a route: requests of ``methods`` whose path matches need ``scope`` instead."""

    methods: frozenset[str]
    path: re.Pattern[str]
    scope: str


@dataclass(frozen=True, slots=True)
class Route:
    """All paths at or below ``prefix``. ``read`` and ``write`` are scopes; a route without them is open to everybody."""

    prefix: str
    service: str
    read: str | None = None
    write: str | None = None
    clearance: Clearance = Clearance.PUBLIC
    rules: tuple[Rule, ...] = ()
    operations: bool = field(default=False, kw_only=True)

    def scope_for(self, method: str, path: str) -> str | None:
        """The scope that this request needs; None if the route is open."""
        for rule in self.rules:
            if method in rule.methods and rule.path.fullmatch(path):
                return rule.scope
        return self.read if method in SAFE_METHODS else self.write


def _rule(methods: str, path: str, scope: str) -> Rule:
    pattern = re.escape(path).replace(r"\*", "[^/]+") + "/?"
    return Rule(frozenset(methods.split()), re.compile(pattern), scope)


def _service(name: str, *rules: Rule, clearance: Clearance = Clearance.INTERNAL) -> Route:
    return Route(f"/v1/{name}", name, f"{name}:read", f"{name}:write", clearance, rules)


ROUTES: tuple[Route, ...] = (
    _service(
        "sop",
        _rule("POST PUT PATCH DELETE", "/v1/sop/evaluations/*/review", "sop:review"),
        _rule("POST", "/v1/sop/embed", "sop:read"),
    ),
    _service(
        "llm",
        _rule("POST PUT PATCH DELETE", "/v1/llm/escalations/*/assign", "llm:review"),
        _rule("POST PUT PATCH DELETE", "/v1/llm/escalations/*/decision", "llm:review"),
        _rule("POST PUT PATCH DELETE", "/v1/llm/policies", "llm:admin"),
        _rule("POST PUT PATCH DELETE", "/v1/llm/identities", "llm:admin"),
        *(
            _rule("GET HEAD OPTIONS", f"/v1/llm/{path}", "audit:read")
            for path in ("audit", "audit/*", "verify", "proof/*", "report", "host")
        ),
    ),
    _service("recommend"),
    _service(
        "sem",
        *(
            _rule("POST PUT PATCH DELETE", f"/v1/sem/reviews{below}", "sem:review")
            for below in ("", "/*", "/*/*", "/*/*/*")
        ),
        _rule("POST", "/v1/sem/search", "sem:read"),
        _rule("POST", "/v1/sem/search/image", "sem:read"),
        _rule("POST", "/v1/sem/label-studio/setup", "sem:read"),
        _rule("POST", "/v1/sem/label-studio/predict", "sem:read"),
        _rule("POST", "/v1/sem/label-studio/webhook", "sem:review"),
    ),
    Route("/v1/jobs", "training", "jobs:read", "jobs:write", Clearance.INTERNAL),
    Route("/v1/recipes", "training", "jobs:read", "jobs:write", Clearance.INTERNAL),
    Route("/v1/schedules", "training", "jobs:read", "jobs:write", Clearance.INTERNAL),
    Route("/v1/models", "training", "models:read", "models:write", Clearance.INTERNAL),
    Route("/v1/keys", CONTROL, "keys:admin", "keys:admin", Clearance.CONFIDENTIAL),
    Route("/v1/audit", CONTROL, "audit:read", "audit:read", Clearance.CONFIDENTIAL),
    Route("/v1/whoami", CONTROL, "", ""),  # the empty scope: any caller who is known
    Route("/v1/openapi.json", CONTROL),
    Route("/docs", CONTROL),
    Route("/console", CONTROL),
    Route("/health", CONTROL),
    Route("/ready", CONTROL, operations=True),
    Route("/metrics", CONTROL, operations=True),
)


class RouteTable:
    """Finds the route of a path by its first segment, or its first two below ``/v1``."""

    def __init__(self, routes: Iterable[Route] = ROUTES) -> None:
        self.routes = tuple(routes)
        self._by_prefix = {route.prefix: route for route in self.routes}

    def find(self, path: str) -> Route | None:
        """The route that ``path`` (decoded) belongs to."""
        cut = path.find("/", 4)  # after "/v1/", or after a first segment that is longer
        return self._by_prefix.get(path if cut < 0 else path[:cut])


def is_ambiguous(raw_path: bytes) -> bool:
    """Whether a service might resolve ``raw_path`` to something else than the table did."""
    # Most paths have none of these, and looking for single bytes costs a quarter of the expression.
    is_plain = not (_PERCENT in raw_path or _DOT in raw_path or _BACKSLASH in raw_path or raw_path.find(b"//") >= 0)
    return not is_plain and _AMBIGUOUS.search(raw_path) is not None
