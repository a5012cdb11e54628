"""Who is asking: an API key or a token becomes a ``Caller``, verified once and then believed for at most a minute.

The cache knows credentials only by their sha256. Checking a new one is bounded in number at once, and addresses that keep
bringing bad ones are told to wait. Knows nothing of routes: what a caller may do is asked elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from hashlib import sha256

from genba_gateway.headers import Fields
from genba_gateway.jwks import TokenVerifier
from genba_gateway.keys import PREFIX, Keys
from genba_gateway.limits import MemoryLimiter, Policy
from genba_gateway.settings import Settings
from genba_shared.principal import Principal, sign
from genba_shared.problems import BadRequest, TooManyRequests, Unauthorized

_MAX_CACHED = 20_000
_MAX_CHECKS_AT_ONCE = 8
_RESIGN_AFTER_S = 5.0
_NO_CREDENTIALS = "Send an API key or a token: Authorization: Bearer …"


class Caller:
    """Somebody whose credential was verified, with what is worth keeping between their requests."""

    __slots__ = (
        "_granted",
        "_signed",
        "_signed_until_s",
        "believed_until_s",
        "limit_key",
        "policy",
        "principal",
    )

    def __init__(self, principal: Principal, *, policy: Policy, believed_until_s: float) -> None:
        self.principal = principal
        self.policy = policy
        self.believed_until_s = believed_until_s
        self.limit_key = f"{principal.tenant}/{principal.subject}"
        self._granted: dict[str, bool] = {}
        self._signed = b""
        self._signed_until_s = 0.0

    def may(self, scope: str) -> bool:
        """Whether the caller holds ``scope``; the empty scope is held by everybody who is known."""
        granted = self._granted.get(scope)
        if granted is None:
            granted = self._granted[scope] = not scope or self.principal.allows(scope)
        return granted

    def signed(self, secret: bytes, ttl_s: float, now_s: float) -> bytes:
        """The principal header, signed anew every few seconds rather than for every request."""
        if now_s >= self._signed_until_s:
            self._signed = sign(self.principal, secret, ttl_s=ttl_s).encode("ascii")
            self._signed_until_s = now_s + min(_RESIGN_AFTER_S, ttl_s / 4)
        return self._signed


class Authenticator:
    """Knows callers by their credentials."""

    def __init__(
        self,
        keys: Keys,
        settings: Settings,
        *,
        tokens: TokenVerifier | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._clock = clock
        self._cache_s = settings.token_cache_s
        self._policy = Policy("default", settings.rate_per_minute, settings.rate_burst)
        self._failure_policy = Policy("failures", settings.failures_per_minute, settings.failures_per_minute)
        self._failures = MemoryLimiter(clock)
        self._cached: dict[bytes, Caller] = {}
        self._proven: dict[bytes, None] = {}
        self._checking: dict[bytes, asyncio.Task[Caller]] = {}
        self._slots = asyncio.Semaphore(_MAX_CHECKS_AT_ONCE)
        self._forgotten = 0  # how often; what was looked up before is not believed after
        self.refused = 0

    def known(self, credential: bytes) -> Caller | None:
        """The caller with this credential, if it was verified a short while ago."""
        caller = self._cached.get(sha256(credential).digest())
        return caller if caller is not None and self._clock() < caller.believed_until_s else None

    async def verify(self, credential: bytes, client_address: str) -> Caller:
        """Check a credential. Raises: Unauthorized; TooManyRequests for an address that brought too many bad ones."""
        digest = sha256(credential).digest()
        is_throttled = digest not in self._proven and self._failures.is_used_up(client_address, self._failure_policy)
        if is_throttled:
            raise TooManyRequests(
                "Too many refused credentials came from your address; wait a moment.", retry_after_s=60
            )
        check = self._checking.get(digest)
        if check is None:  # the same credential on many connections at once is checked once
            check = asyncio.get_running_loop().create_task(self._check(credential.decode("latin-1"), digest))
            self._checking[digest] = check
            check.add_done_callback(lambda done: self._checking.get(digest) is done and self._checking.pop(digest))
        try:
            return await asyncio.shield(check)
        except Unauthorized:
            self.refused += 1
            self._failures.take_now(client_address, self._failure_policy)
            raise

    def forget(self) -> None:
        """Believe nobody any longer: keys have changed. A check under way may have seen them as they were."""
        self._forgotten += 1
        self._cached.clear()
        self._checking.clear()

    async def _check(self, token: str, digest: bytes) -> Caller:
        async with self._slots:
            forgotten = self._forgotten
            if token.startswith(f"{PREFIX}_"):
                caller = await self._check_key(token)
            elif self._tokens is not None and token.count(".") == 2:
                principal, good_until = await self._tokens.verify(token)
                caller = Caller(principal, policy=self._policy, believed_until_s=self._until(good_until))
            else:
                raise Unauthorized("This is neither an API key nor a token of the configured issuer.")
        if forgotten == self._forgotten:
            self._remember(digest, caller)
        return caller

    async def _check_key(self, token: str) -> Caller:
        self._keys.parse(token)  # a malformed key costs no thread and no query
        key = await asyncio.to_thread(self._keys.verify, token)
        policy = self._policy
        if key.rate_per_minute is not None:
            burst = max(1, round(policy.burst * key.rate_per_minute / policy.per_minute))
            policy = Policy("key", key.rate_per_minute, burst)
        expires = key.expires_at.timestamp() if key.expires_at is not None else None
        return Caller(key.principal, policy=policy, believed_until_s=self._until(expires))

    def _until(self, good_until_epoch_s: float | None) -> float:
        """When to check again: after the cache's time, or when the credential itself ends."""
        left_s = self._cache_s if good_until_epoch_s is None else min(self._cache_s, good_until_epoch_s - time.time())
        return self._clock() + left_s

    def _remember(self, digest: bytes, caller: Caller) -> None:
        if len(self._cached) >= _MAX_CACHED:
            now_s = self._clock()
            self._cached = {key: kept for key, kept in self._cached.items() if kept.believed_until_s > now_s}
            if len(self._cached) >= _MAX_CACHED:
                self._cached.clear()
        self._cached[digest] = caller
        if len(self._proven) >= _MAX_CACHED:
            self._proven.clear()
        self._proven[digest] = None


def credential_of(fields: Fields) -> bytes:
    """The one credential in a request. Raises: Unauthorized without one, BadRequest with two."""
    authorization, api_key = fields.authorization, fields.api_key
    if authorization:
        if api_key:
            raise BadRequest("Send Authorization or X-API-Key, not both.")
        if authorization.startswith(b"Bearer "):
            return authorization[7:].strip()
        if authorization[:6].lower() == b"basic ":
            return _password_of(authorization[6:].strip())
        if authorization[:7].lower() != b"bearer ":
            raise Unauthorized(
                "The authorization schemes taken here are Bearer, and Basic with an API key as password."
            )
        return authorization[7:].strip()
    if api_key:
        return api_key
    raise Unauthorized(_NO_CREDENTIALS)


def _password_of(encoded: bytes) -> bytes:
    """The password of basic authentication, for programs that know no other scheme (Label Studio). The user's name is ignored."""
    try:
        password = base64.b64decode(encoded, validate=True).partition(b":")[2]
    except ValueError as error:
        raise Unauthorized("The basic credentials are not base64.") from error
    if not password:
        raise Unauthorized("With basic authentication the password is an API key.")
    return password
