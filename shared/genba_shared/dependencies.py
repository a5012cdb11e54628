"""What routes ask FastAPI for: who is asking, the right to ask, and the headers that every service reads alike.

Apart from the nouns that it hands out, so that a worker or a command that knows principals and jobs loads no web framework.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Request, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from pydantic import WithJsonSchema

from genba_shared.idempotency import HEADER, read_key
from genba_shared.principal import Principal
from genba_shared.problems import ScopeMissing, Unauthorized


def current_principal(request: Request) -> Principal:
    """Dependency: who is asking. Put there by the service's principal check, which runs before any route."""
    principal = getattr(request.state, "principal", None)
    if not isinstance(principal, Principal):
        raise Unauthorized("This request carries no principal: it did not come through the gateway.")
    return principal


class _Require(SecurityBase):
    """A dependency that OpenAPI shows as what the public sends: a bearer token whose owner has the scope."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.model = HTTPBearer(description="An API key (`gnb_…`) or a JWT of the configured issuer.")
        self.scheme_name = "bearer"

    async def __call__(self, request: Request) -> Principal:  # async: a plain function would cost a thread's turn
        principal = current_principal(request)
        if self.scope and not principal.allows(self.scope):
            raise ScopeMissing(f"This needs the scope {self.scope}.", scope=self.scope)
        return principal


def require(scope: str) -> Any:
    """Dependency: who is asking, refused unless they have ``scope``; the empty scope lets everybody in who is known.

    ``def route(principal: Annotated[Principal, require("sop:read")]) -> …``
    """
    return Security(_Require(scope), scopes=[scope] if scope else [])


_KEY_SCHEMA = WithJsonSchema({"type": "string", "pattern": '^([!#-~]([ !#-~]{0,253}[!#-~])?|"[ !#-~]{1,253}")$'})
_KEY_HEADER = Header(alias=HEADER, description="Fresh for each submission, such as a UUID; the same one for a retry.")


def _key_of(key: Annotated[str, _KEY_HEADER, _KEY_SCHEMA]) -> str:
    return read_key(key)


def _key_if_sent(key: Annotated[str | None, _KEY_HEADER, _KEY_SCHEMA] = None) -> str | None:
    return None if key is None else read_key(key)


IdempotencyKey = Annotated[str, Depends(_key_of)]
"""Dependency of a route that has an effect: ``def submit(key: IdempotencyKey, …)``."""

OptionalIdempotencyKey = Annotated[str | None, Depends(_key_if_sent)]
"""Dependency of a route that can do without; None when the caller sent none."""

_ETAG_SCHEMA = WithJsonSchema({"type": "string", "pattern": r'^((W/)?"[0-9]{1,9}"|[0-9]{1,9}|\*)$'})
IfMatch = Annotated[str, Header(description='the version that you read, as its ETag: "3"; * for any'), _ETAG_SCHEMA]
"""The header of a route that changes one version of a record; ``wire_records.expected_version`` reads it."""
