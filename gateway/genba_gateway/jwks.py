"""JWT of one pinned OpenID Connect issuer, and its public keys. A token decides nothing about how it is checked.

Algorithms, issuer and audience come from the settings; exp is required, nbf is honoured. Keys come from a file or a url, are
kept while the issuer does not answer, and are fetched early when a token names a key that is not known yet. Knows nothing of
API keys, caches or HTTP requests to the gateway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from genba_gateway.settings import Jwt
from genba_shared.principal import ROLES, Clearance, Principal, scopes_of
from genba_shared.problems import Unauthorized, Unavailable
from genba_shared.telemetry import get_logger

log = get_logger(__name__)

_MAX_TOKEN_CHARS = 8192
_MAX_JWKS_BYTES = 1024 * 1024
_FETCH_S = 5.0
_EARLY_REFRESH_EVERY_S = 10.0


class Jwks:
    """The issuer's keys."""

    def __init__(self, source: str, *, refresh_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._refresh_s = refresh_s
        self._clock = clock
        self._keys: KeySet | None = None
        self._fetched_s = float("-inf")
        self._tried_s = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def keys(self, *, missing_kid: bool = False) -> KeySet:
        """The keys, fresh enough. ``missing_kid`` asks for a fetch now, which is granted every ten seconds.

        Raises: Unavailable if there never were any.
        """
        now_s = self._clock()
        is_stale = now_s - self._fetched_s > self._refresh_s
        may_try = now_s - self._tried_s > _EARLY_REFRESH_EVERY_S
        if may_try and (is_stale or missing_kid or self._keys is None):
            self._tried_s = now_s
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        if self._fetching is not None and (self._keys is None or missing_kid):
            await asyncio.shield(self._fetching)  # with keys at hand nobody waits for newer ones
        if self._keys is None:
            raise Unavailable("The issuer's keys cannot be had; tokens cannot be checked now.", retry_after_s=10)
        return self._keys

    async def _fetch(self) -> None:
        try:
            keys = _imported(orjson.loads(await self._read()))
        except (OSError, httpx.HTTPError, ValueError, TypeError, KeyError, JoseError) as error:
            log.warning("jwks_unavailable", source=self._source, reason=f"{type(error).__name__}: {error}")
            return
        self._keys, self._fetched_s = keys, self._clock()
        log.info("jwks_fetched", source=self._source, keys=len(keys.keys))

    async def _read(self) -> bytes:
        if not self._source.startswith(("http://", "https://")):
            return await asyncio.to_thread(Path(self._source).read_bytes)
        async with (
            httpx.AsyncClient(timeout=_FETCH_S, follow_redirects=False) as client,
            client.stream("GET", self._source, headers={"accept": "application/json"}) as answer,
        ):
            answer.raise_for_status()
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > _MAX_JWKS_BYTES:
                    raise ValueError("the JWKS is too large")
            return body


def _imported(document: Any) -> KeySet:
    """The keys that can be used. Others are left out, as RFC 7517 §5 asks: an issuer may publish kinds that are not known here."""
    found = []
    for each in document["keys"]:
        try:
            found += KeySet.import_key_set({"keys": [each]}).keys
        except (ValueError, TypeError, KeyError, AttributeError, JoseError) as error:
            log.warning("jwks_key_left_out", reason=f"{type(error).__name__}: {error}")
    if not found:
        raise ValueError("the JWKS holds no key that can be used")
    return KeySet(found)


class TokenVerifier:
    """Turns a token into a principal, or refuses it."""

    def __init__(self, settings: Jwt, jwks: Jwks | None = None) -> None:
        self._settings = settings
        self._jwks = jwks or Jwks(settings.jwks, refresh_s=settings.jwks_refresh_s)
        self._claims = jwt.JWTClaimsRegistry(
            leeway=settings.leeway_s,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.audience},
            exp={"essential": True},
            sub={"essential": True},
        )

    async def verify(self, token: str) -> tuple[Principal, float]:
        """The principal, and the time (epoch) until which the token is good. Raises: Unauthorized."""
        if len(token) > _MAX_TOKEN_CHARS:
            raise Unauthorized("The token is too long.")
        try:
            try:
                decoded = self._decode(token, await self._jwks.keys())
            except InvalidKeyIdError:
                decoded = self._decode(token, await self._jwks.keys(missing_kid=True))
            self._claims.validate(decoded.claims)
        except (JoseError, ValueError, TypeError) as error:
            reason = getattr(error, "error", "") or type(error).__name__
            raise Unauthorized(f"The token is refused: {reason}.") from error
        return self._principal(decoded.claims), float(decoded.claims["exp"]) + self._settings.leeway_s

    def _decode(self, token: str, keys: KeySet) -> jwt.Token:
        return jwt.decode(token, keys, algorithms=list(self._settings.algorithms))

    def _principal(self, claims: dict[str, Any]) -> Principal:
        settings = self._settings
        roles = tuple(role for role in _strings(_claim(claims, settings.roles_claim)) if role in ROLES)
        label = _claim(claims, settings.clearance_claim)
        try:
            clearance = Clearance.PUBLIC if label is None else Clearance.parse(str(label))
        except ValueError as error:
            raise Unauthorized(f"The token is refused: {error}") from None
        return Principal(
            subject=f"user:{claims['sub']}",
            roles=roles,
            scopes=scopes_of(roles),
            clearance=clearance,
            compartments=frozenset(_strings(_claim(claims, settings.compartments_claim))),
            tenant=str(_claim(claims, settings.tenant_claim) or "default"),
        )


def _claim(claims: dict[str, Any], name: str) -> Any:
    """``realm_access.roles`` reaches into objects, as Keycloak nests them; a claim with that whole name comes first."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
