"""Who is asking and what they may do: roles, scopes, clearance, and the signed header that carries them to a service.

The gateway finds out who somebody is and signs it; a service checks the signature and believes nothing else.
Knows nothing of API keys, tokens or records.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from genba_shared.clearance import Clearance
from genba_shared.problems import Unauthorized

__all__ = [
    "PRINCIPAL_HEADER",
    "ROLES",
    "Clearance",
    "Principal",
    "Verifier",
    "scopes_of",
    "sign",
    "verify",
]

PRINCIPAL_HEADER = "x-genba-principal"

_CLOCK_SKEW_S = 5.0
_MAX_HEADER_CHARS = 8192


# The one table of roles. A pattern is a scope, "*" for every scope, "<service>:*" or "*:<verb>".
ROLES: dict[str, frozenset[str]] = {
    "viewer": frozenset({"*:read"}),
    "operator": frozenset({"*:read", "sop:write", "llm:write", "recommend:write", "sem:write", "jobs:write"}),
    "reviewer": frozenset({"*:read", "sop:review", "sem:review", "llm:review"}),
    "engineer": frozenset(
        {"*:read", "sop:*", "llm:*", "recommend:*", "sem:*", "jobs:write", "models:write", "training:write"}
    ),
    "auditor": frozenset({"audit:read"}),
    "admin": frozenset({"*"}),
}

# "*:read" is every service's reading, not that of the log of who did what nor of the keys.
_NEVER_BY_VERB = frozenset({"audit", "keys"})


def scopes_of(roles: Iterable[str]) -> frozenset[str]:
    """The scope patterns that ``roles`` grant together. An unknown role grants nothing."""
    return frozenset[str]().union(*(ROLES.get(role, frozenset()) for role in roles))


@dataclass(frozen=True)
class Principal:
    """Somebody, with all that they may do. ``scopes`` are patterns and already narrowed by the key or token used."""

    subject: str
    roles: tuple[str, ...]
    scopes: frozenset[str]
    clearance: Clearance
    compartments: frozenset[str] = frozenset()
    tenant: str = "default"

    def allows(self, scope: str) -> bool:
        """Whether one of the patterns grants ``scope`` (``"sop:read"``)."""
        service, _, verb = scope.partition(":")
        if not self.scopes.isdisjoint({scope, "*", f"{service}:*"}):
            return True
        return f"*:{verb}" in self.scopes and service not in _NEVER_BY_VERB

    def may_see(self, label: Clearance, compartments: Iterable[str] = ()) -> bool:
        """Whether this principal may see a record: clearance at least its label, and all its compartments."""
        return self.clearance >= label and self.compartments.issuperset(compartments)


def sign(principal: Principal, secret: bytes, *, now_s: float | None = None, ttl_s: float = 60) -> str:
    """The header value for one principal, good for ``ttl_s``: ``v1.<base64url json>.<base64url hmac-sha256>``."""
    issued_s = time.time() if now_s is None else now_s
    claims = {
        "sub": principal.subject,
        "roles": list(principal.roles),
        "scopes": sorted(principal.scopes),
        "clearance": int(principal.clearance),
        "compartments": sorted(principal.compartments),
        "tenant": principal.tenant,
        "iat": round(issued_s, 3),
        "exp": round(issued_s + ttl_s, 3),
    }
    signed = b"v1." + _encode(orjson.dumps(claims))
    return (signed + b"." + _encode(_mac(signed, secret))).decode("ascii")


def verify(header: str, secret: bytes, *, now_s: float | None = None) -> Principal:
    """The principal that ``sign`` put into ``header``.

    Raises: Unauthorized if it was not signed with ``secret``, is malformed, has expired, or comes from the future.
    """
    return _read(header, secret).at(time.time() if now_s is None else now_s)


class Verifier:
    """``verify`` for one secret that remembers what held: a gateway signs a caller anew every few seconds, not every request."""

    def __init__(self, secret: bytes, *, most: int = 1024) -> None:
        self._secret, self._most = secret, most
        self._held: dict[str, _Signed] = {}

    def verify(self, header: str, *, now_s: float | None = None) -> Principal:
        """As ``verify``. Whether it has expired is looked at each time."""
        signed = self._held.get(header)
        if signed is None:
            signed = _read(header, self._secret)
            if len(self._held) >= self._most:
                self._held.clear()
            self._held[header] = signed
        return signed.at(time.time() if now_s is None else now_s)


@dataclass(frozen=True)
class _Signed:
    """What a header says that was signed with the secret, at any moment."""

    principal: Principal
    issued_s: float
    expires_s: float

    def at(self, now_s: float) -> Principal:
        if now_s >= self.expires_s or self.issued_s > now_s + _CLOCK_SKEW_S:
            raise Unauthorized("The principal has expired, or the clocks of gateway and service disagree.")
        return self.principal


def _read(header: str, secret: bytes) -> _Signed:
    if len(header) > _MAX_HEADER_CHARS or not header.isascii():
        raise Unauthorized("The principal is malformed.")
    signed, _, mac = header.encode("ascii").rpartition(b".")
    if not hmac.compare_digest(_encode(_mac(signed, secret)), mac) or not signed.startswith(b"v1."):
        raise Unauthorized("The principal's signature does not hold.")
    try:
        claims = orjson.loads(_decode(signed.removeprefix(b"v1.")))
        principal = Principal(
            subject=claims["sub"],
            roles=tuple(claims["roles"]),
            scopes=frozenset(claims["scopes"]),
            clearance=Clearance(claims["clearance"]),
            compartments=frozenset(claims["compartments"]),
            tenant=claims["tenant"],
        )
        return _Signed(principal, float(claims["iat"]), float(claims["exp"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Unauthorized("The principal is malformed.") from error


def _mac(signed: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, signed, hashlib.sha256)


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
