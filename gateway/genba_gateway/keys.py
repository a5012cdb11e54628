"""API keys: made, shown once, kept as a hash, narrowed, rotated with an overlap, revoked. Every change is in the audit log.

A key reads ``gnb_<env>_<id>_<secret><crc>``: the environment so that a key of the test plant is refused by name at the
factory, the id to find its row, 256 random bits, and a checksum so that a mistyped key never costs a query (and secret
scanners can tell a key from noise). Knows nothing of HTTP: the command line uses it as the gateway does.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import JsonValue
from sqlalchemy import select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from genba_shared.audit import append_in
from genba_shared.db import Database, Json, Record, utc_now
from genba_shared.patterns import pattern
from genba_shared.principal import ROLES, Clearance, Principal, scopes_of
from genba_shared.problems import (
    ClearanceTooLow,
    Conflict,
    Invalid,
    NotFound,
    ScopeMissing,
    Unauthorized,
    Unavailable,
)
from genba_shared.telemetry import get_logger

log = get_logger(__name__)

PREFIX = "gnb"
COMPARTMENT = pattern(  # a comma parts them where they are kept
    r"^[^\s,\x00-\x1f\x7f]{1,64}$", "must be one word of at most 64 characters, without commas"
)

_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_CHARS, _SECRET_CHARS, _CRC_CHARS = 12, 43, 6  # 43 × log2(62) = 256 bits
_FORMAT = re.compile(
    rf"{PREFIX}_([a-z0-9]{{1,16}})_([{_ID_ALPHABET}]{{{_ID_CHARS}}})_[0-9A-Za-z]{{{_SECRET_CHARS + _CRC_CHARS}}}",
    re.ASCII,
)
_SCOPE_PATTERN = re.compile(r"\*|(?:\*|[a-z]+):(?:\*|[a-z]+)", re.ASCII)
_MAX_NAME_CHARS = 200
_TOUCH_AFTER = timedelta(hours=1)
_REFUSED = "The API key is not known, has expired or was revoked."


class ApiKeyRow(Record):
    """A key without its secret."""

    __tablename__ = "gateway_api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]  # sha256 of the whole key: 256 random bits need no slow hash
    name: Mapped[str]
    role: Mapped[str]
    scopes: Mapped[Any | None] = mapped_column(Json)
    clearance: Mapped[int]
    compartments: Mapped[Any] = mapped_column(Json)
    tenant: Mapped[str] = mapped_column(index=True)
    subject: Mapped[str]
    rate_per_minute: Mapped[int | None]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    successor: Mapped[str | None]
    last_used_at: Mapped[datetime | None]


def _keep_nowhere(_plaintext: str) -> None: ...


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key. ``subject`` outlives a rotation, so that records keep their owner."""

    id: str
    name: str
    role: str
    scopes: tuple[str, ...] | None
    clearance: str
    compartments: tuple[str, ...]
    tenant: str
    subject: str
    rate_per_minute: int | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    successor: str | None
    last_used_at: datetime | None

    @property
    def state(self) -> str:
        """``active``, ``rotated`` (its successor exists, it still works), ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= utc_now():
            return "expired"
        return "rotated" if self.successor else "active"

    @property
    def principal(self) -> Principal:
        """Who asks with this key: the role's scopes, or the narrower ones that the key was made with."""
        return Principal(
            subject=self.subject,
            roles=(self.role,),
            scopes=scopes_of([self.role]) if self.scopes is None else frozenset(self.scopes),
            clearance=Clearance.parse(self.clearance),
            compartments=frozenset(self.compartments),
            tenant=self.tenant,
        )


class Keys:
    """The keys of one installation. Each method is one transaction, together with its line in the audit log."""

    def __init__(self, database: Database, env: str) -> None:
        self._database = database
        self._env = env

    def create(
        self,
        name: str,
        *,
        role: str = "viewer",
        scopes: Iterable[str] | None = None,
        clearance: Clearance | str = Clearance.INTERNAL,
        compartments: Iterable[str] = (),
        tenant: str = "default",
        expires_at: datetime | None = None,
        rate_per_minute: int | None = None,
        grantor: Principal | None = None,
        keep: Callable[[str], object] = _keep_nowhere,
    ) -> tuple[ApiKey, str]:
        """Make a key; the plaintext is returned here and exists nowhere else, unless ``keep`` puts it somewhere.

        That is called before the commit: a key counts only once it is kept.

        ``scopes`` narrows what ``role`` grants. Nobody passes on more than they hold: with a ``grantor``, the key's scopes,
        clearance, compartments and tenant must be within theirs; without one (the command line) anything goes.

        Raises: Invalid, naming the field; ScopeMissing or ClearanceTooLow if the grantor holds less.
        """
        level = _checked_clearance(clearance)
        narrowed = None if scopes is None else tuple(scopes)
        _check(name=name, role=role, scopes=narrowed, expires_at=expires_at, rate_per_minute=rate_per_minute)
        row = ApiKeyRow(
            name=name,
            role=role,
            scopes=None if narrowed is None else sorted(set(narrowed)),
            clearance=int(level),
            compartments=sorted(set(compartments)),
            tenant=tenant if grantor is None else grantor.tenant,
            rate_per_minute=rate_per_minute,
            created_by=_actor(grantor),
            expires_at=expires_at,
        )
        if grantor is not None:
            _check_grant(grantor, row)
        return self._insert(row, event="key_created", subject=None, keep=keep)

    def list(self, *, tenant: str | None = None) -> list[ApiKey]:
        """Every key, newest first; of one tenant if given."""
        query = select(ApiKeyRow).order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id)
        if tenant is not None:
            query = query.where(ApiKeyRow.tenant == tenant)
        with self._database.read() as session:
            return [_record(row) for row in session.scalars(query)]

    def get(self, key_id: str, *, tenant: str | None = None) -> ApiKey:
        """Raises: NotFound, also for a key of another tenant."""
        with self._database.read() as session:
            row = session.get(ApiKeyRow, key_id)
            return _record(_found(row, key_id, tenant))

    def revoke(self, key_id: str, *, grantor: Principal | None = None) -> ApiKey:
        """Make a key worthless, at once here and within the token cache's time elsewhere. Doing it again changes nothing."""
        with self._database.transaction() as session:
            row = _found(session.get(ApiKeyRow, key_id), key_id, _tenant_of(grantor))
            if row.revoked_at is None:
                row.revoked_at = utc_now()
                _log(session, "key_revoked", row, actor=_actor(grantor))
            return _record(row)

    def rotate(
        self,
        key_id: str,
        *,
        overlap_s: float = 86400,
        grantor: Principal | None = None,
        keep: Callable[[str], object] = _keep_nowhere,
    ) -> tuple[ApiKey, str]:
        """Make a successor with the same rights and subject; the old key works on for ``overlap_s``. ``keep``: as above.

        Raises: NotFound; Conflict for a key that no longer works or has a successor already.
        """
        with self._database.read() as session:
            old = _record(_found(session.get(ApiKeyRow, key_id), key_id, _tenant_of(grantor)))
        if overlap_s < 0:
            raise Invalid("The overlap cannot be negative.", errors=[_error("overlap_s", "must be 0 or more")])
        _check_rotatable(old)
        row = ApiKeyRow(
            name=old.name,
            role=old.role,
            scopes=None if old.scopes is None else list(old.scopes),
            clearance=int(Clearance.parse(old.clearance)),
            compartments=list(old.compartments),
            tenant=old.tenant,
            rate_per_minute=old.rate_per_minute,
            created_by=_actor(grantor),
            expires_at=old.expires_at,
        )
        if grantor is not None:
            _check_grant(grantor, row)
        replaces = (old.id, overlap_s)
        return self._insert(row, event="key_rotated", subject=old.subject, keep=keep, replaces=replaces)

    def verify(self, token: str) -> ApiKey:
        """The key that ``token`` is.

        Raises: Unauthorized, with one wording for every reason that an attacker could learn from.
        """
        key_id = self.parse(token)
        with self._database.read() as session:
            row = session.get(ApiKeyRow, key_id)
            digest = row.digest if row is not None else "0" * 64
            same = hmac.compare_digest(digest, _digest(token))
            record = _record(row) if row is not None else None
        if record is None or not same or record.state in {"revoked", "expired"}:
            raise Unauthorized(_REFUSED)
        if record.last_used_at is None or utc_now() - record.last_used_at > _TOUCH_AFTER:
            self._touch(record.id)
        return record

    def parse(self, token: str) -> str:
        """The id in a well-formed key of this environment. No query is made. Raises: Unauthorized."""
        match = _FORMAT.fullmatch(token)
        if match is None or not hmac.compare_digest(_checksum(token[:-_CRC_CHARS]), token[-_CRC_CHARS:]):
            raise Unauthorized("The API key is malformed: copy it again, whole.")
        if match[1] != self._env:
            raise Unauthorized(f"This API key belongs to the environment {match[1]!r}, not {self._env!r}.")
        return match[2]

    def _insert(
        self,
        row: ApiKeyRow,
        *,
        event: str,
        subject: str | None,
        keep: Callable[[str], object],
        replaces: tuple[str, float] | None = None,
    ) -> tuple[ApiKey, str]:
        row.id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARS))
        row.subject = subject or f"key:{row.id}"
        row.created_at = utc_now()
        plaintext = _plaintext(self._env, row.id)
        row.digest = _digest(plaintext)
        with self._database.transaction() as session:
            if replaces is not None:
                old = _found(session.get(ApiKeyRow, replaces[0], with_for_update=True), replaces[0], None)
                _check_rotatable(_record(old))  # again, now that nobody else can rotate it
                ends_at = utc_now() + timedelta(seconds=replaces[1])
                old.successor = row.id
                old.expires_at = ends_at if old.expires_at is None else min(old.expires_at, ends_at)
            session.add(row)
            session.flush()
            _log(session, event, row, actor=row.created_by, replaces=replaces[0] if replaces else None)
            keep(plaintext)
            return _record(row), plaintext

    def _touch(self, key_id: str) -> None:
        """A database that takes no writes for a moment is no reason to refuse a good key."""
        try:
            with self._database.transaction() as session:
                session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(last_used_at=utc_now()))
        except Unavailable as error:
            log.warning("key_use_not_noted", key=key_id, error=type(error).__name__)


def covers(held: frozenset[str], wanted: str) -> bool:
    """Whether whoever holds the patterns ``held`` holds everything that the pattern ``wanted`` grants."""
    if "*" in held or wanted in held:
        return True
    service, _, verb = wanted.partition(":")
    if "*" in {service, verb}:
        return verb == "*" and service != "*" and f"{service}:*" in held
    return Principal("", (), held, Clearance.PUBLIC).allows(wanted)


def _check(
    *, name: str, role: str, scopes: tuple[str, ...] | None, expires_at: datetime | None, rate_per_minute: int | None
) -> None:
    errors: list[JsonValue] = []
    if not 0 < len(name.strip()) <= _MAX_NAME_CHARS or not name.isprintable():
        errors.append(_error("name", f"must be 1 to {_MAX_NAME_CHARS} printable characters"))
    if role not in ROLES:
        errors.append(_error("role", f"must be one of {', '.join(ROLES)}"))
    for index, scope in enumerate(scopes or ()):
        if _SCOPE_PATTERN.fullmatch(scope) is None:
            errors.append(_error(f"scopes[{index}]", f"{scope!r} is no scope, such as sop:read"))
        elif role in ROLES and not covers(ROLES[role], scope):
            errors.append(_error(f"scopes[{index}]", f"the role {role} does not grant {scope}"))
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= utc_now()):
        errors.append(_error("expires_at", "must be in the future, with a time zone"))
    if rate_per_minute is not None and rate_per_minute < 1:
        errors.append(_error("rate_per_minute", "must be at least 1"))
    if errors:
        named = ", ".join(str(error["field"]) for error in errors if isinstance(error, dict))
        raise Invalid(f"Mend what `errors` says of: {named}.", errors=errors)


def _check_grant(grantor: Principal, row: ApiKeyRow) -> None:
    scopes = scopes_of([row.role]) if row.scopes is None else row.scopes
    for scope in sorted(scopes):
        if not covers(grantor.scopes, scope):
            raise ScopeMissing(f"You cannot pass on {scope}: you do not hold it.", scope=scope)
    if row.clearance > grantor.clearance or not grantor.compartments.issuperset(row.compartments):
        raise ClearanceTooLow("You cannot pass on a clearance or a compartment that you do not hold.")


def _check_rotatable(key: ApiKey) -> None:
    if key.state != "active":
        raise Conflict(f"The key {key.id} is {key.state}; only an active key can be rotated.", state=key.state)


def _checked_clearance(clearance: Clearance | str) -> Clearance:
    if isinstance(clearance, Clearance):
        return clearance
    try:
        return Clearance.parse(clearance)
    except ValueError as error:
        raise Invalid(str(error), errors=[_error("clearance", str(error))]) from None


def _found(row: ApiKeyRow | None, key_id: str, tenant: str | None) -> ApiKeyRow:
    if row is None or (tenant is not None and row.tenant != tenant):
        raise NotFound(f"There is no key {key_id}.")
    return row


def _record(row: ApiKeyRow) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        role=row.role,
        scopes=None if row.scopes is None else tuple(row.scopes),
        clearance=Clearance(row.clearance).label,
        compartments=tuple(row.compartments),
        tenant=row.tenant,
        subject=row.subject,
        rate_per_minute=row.rate_per_minute,
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        successor=row.successor,
        last_used_at=row.last_used_at,
    )


def _plaintext(env: str, key_id: str) -> str:
    secret = "".join(secrets.choice(_BASE62) for _ in range(_SECRET_CHARS))
    body = f"{PREFIX}_{env}_{key_id}_{secret}"
    return body + _checksum(body)


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CRC_CHARS):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _log(session: Session, event: str, row: ApiKeyRow, *, actor: str, replaces: str | None = None) -> None:
    detail: dict[str, JsonValue] = {
        "name": row.name,
        "role": row.role,
        "clearance": Clearance(row.clearance).label,
        "tenant": row.tenant,
    }
    if replaces is not None:
        detail["replaces"] = replaces
    append_in(session, event, actor=actor, subject=row.id, detail=detail)


def _tenant_of(grantor: Principal | None) -> str | None:
    return None if grantor is None else grantor.tenant


def _actor(principal: Principal | None) -> str:
    return "command line" if principal is None else principal.subject


def _error(field: str, message: str) -> dict[str, JsonValue]:
    return {"field": field, "message": message}
