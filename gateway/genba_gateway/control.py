"""The gateway's own service: keys, who am I, the API's document and its reader, the audit log, health, readiness, metrics.

An application like any other service's, mounted behind the same pipeline: nothing here checks a credential. The reader at
``/docs`` is one page from this package, because a closed network has no other place to load one from.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.resources import files
from typing import Annotated, Any, cast

from fastapi import APIRouter, FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from genba_gateway import console_routes
from genba_gateway.keys import COMPARTMENT, ApiKey, Keys
from genba_gateway.openapi import OpenApi
from genba_gateway.routes import CONTROL
from genba_shared.audit import AuditLog
from genba_shared.dependencies import require
from genba_shared.patterns import pattern
from genba_shared.principal import ROLES, Clearance, Principal
from genba_shared.problems import NotFound
from genba_shared.service import create_service, problem_responses
from genba_shared.settings import Platform
from genba_shared.wire import Moment, Real, Whole

_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_SHA256 = pattern("^[0-9a-f]{64}$", "must be 64 hex digits, lower case")
_ASSETS = {"docs.js": "text/javascript; charset=utf-8", "docs.css": "text/css; charset=utf-8"}

Admin = Annotated[Principal, require("keys:admin")]
Auditor = Annotated[Principal, require("audit:read")]
Anybody = Annotated[Principal, require("")]

router = APIRouter()


class Wire(BaseModel):
    """What travels: exact, and documented."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)


class NewKey(Wire):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=200, description="Who will use it.", examples=["line 3 tablet"])
    role: str = Field(default="viewer", description="What it may do.", json_schema_extra={"enum": [*ROLES]})
    scopes: list[str] | None = Field(default=None, max_length=50, description="Narrows what the role grants.")
    clearance: str = Field(
        default="internal",
        description="How far it may see.",
        json_schema_extra={"enum": [level.label for level in Clearance]},
    )
    compartments: list[Annotated[str, StringConstraints(pattern=COMPARTMENT)]] = Field(
        default_factory=list, max_length=50, description="Compartments that it may see into."
    )
    expires_at: Moment | None = Field(default=None, description="When it stops working; never, if left out.")
    rate_per_minute: Whole | None = Field(default=None, ge=1, le=10_000_000, description="Its own rate limit.")


class Rotation(Wire):
    """How a key is replaced."""

    overlap_s: Real = Field(default=86400, ge=0, le=90 * 86400, description="How long the old key still works.")


class KeyView(Wire):
    """A key without its secret."""

    id: str
    name: str
    role: str
    scopes: list[str] | None
    clearance: str
    compartments: list[str]
    tenant: str
    subject: str
    rate_per_minute: int | None
    state: str = Field(description="active, rotated, expired or revoked.")
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    successor: str | None
    last_used_at: datetime | None = Field(description="To the hour.")


class KeyWithSecret(KeyView):
    """A key just made. The secret is shown here, once, and kept nowhere."""

    key: str = Field(description="The whole key. It cannot be shown again.")


class KeyList(Wire):
    """Every key of the caller's tenant, newest first."""

    keys: list[KeyView]


class Whoami(Wire):
    """Who is asking, as services see it."""

    subject: str
    tenant: str
    roles: list[str]
    scopes: list[str]
    clearance: str
    compartments: list[str]


class AuditEntryView(Wire):
    """One entry of the audit log."""

    seq: int
    at: str
    event: str
    actor: str
    subject: str
    detail: dict[str, Any]
    hash: str


class AuditPage(Wire):
    """Entries, oldest first, and where to go on."""

    entries: list[AuditEntryView]
    next_after: int | None = Field(description="Give it as `after` for the next page; null at the end.")


class AuditVerdict(Wire):
    """Whether the chain holds."""

    intact: bool
    entries: int
    head: str = Field(description="Keep it elsewhere: a chain cut short is found only against it.")
    broken_at: int | None
    reason: str | None


@router.post("/v1/keys", status_code=201, response_model=KeyWithSecret)
def create_key(new: NewKey, admin: Admin, request: Request) -> Response:
    """Make an API key. Nobody can pass on more than they hold.

    Takes no Idempotency-Key: to answer a repeated request the same way, the secret would have to be kept. A key whose answer
    got lost is revoked and made again.
    """
    record, plaintext = _keys(request).create(
        new.name,
        role=new.role,
        scopes=new.scopes,
        clearance=new.clearance,
        compartments=new.compartments,
        expires_at=new.expires_at,
        rate_per_minute=new.rate_per_minute,
        grantor=admin,
    )
    return _with_secret(record, plaintext)


@router.get("/v1/keys")
def list_keys(admin: Admin, request: Request) -> KeyList:
    """List the keys of your tenant, without their secrets."""
    return KeyList(keys=[_view(key) for key in _keys(request).list(tenant=admin.tenant)])


@router.get("/v1/keys/{key_id}", responses=problem_responses(404))
def read_key(key_id: str, admin: Admin, request: Request) -> KeyView:
    """Read one key."""
    return _view(_keys(request).get(key_id, tenant=admin.tenant))


@router.delete("/v1/keys/{key_id}", responses=problem_responses(404))
async def revoke_key(key_id: str, admin: Admin, request: Request) -> KeyView:
    """Revoke a key: at once at this gateway, within the token cache's time at others. Doing it again changes nothing."""
    record = await asyncio.to_thread(_keys(request).revoke, key_id, grantor=admin)
    request.app.state.on_keys_changed()
    return _view(record)


@router.post(
    "/v1/keys/{key_id}/rotate", status_code=201, response_model=KeyWithSecret, responses=problem_responses(404, 409)
)
async def rotate_key(key_id: str, admin: Admin, request: Request, rotation: Rotation | None = None) -> Response:
    """Make a successor with the same rights and subject; the old key works on for the overlap."""
    overlap_s = (rotation or Rotation()).overlap_s
    record, plaintext = await asyncio.to_thread(_keys(request).rotate, key_id, overlap_s=overlap_s, grantor=admin)
    request.app.state.on_keys_changed()
    return _with_secret(record, plaintext)


@router.get("/v1/whoami")
def whoami(caller: Anybody) -> Whoami:
    """Who you are to this installation, and what you may do."""
    return Whoami(
        subject=caller.subject,
        tenant=caller.tenant,
        roles=list(caller.roles),
        scopes=sorted(caller.scopes),
        clearance=Clearance(caller.clearance).label,
        compartments=sorted(caller.compartments),
    )


@router.get("/v1/audit")
def read_audit(
    _auditor: Auditor,
    request: Request,
    after: Annotated[int, Query(ge=0, le=2**53, description="Sequence number to go on after.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AuditPage:
    """Read the audit log, oldest first."""
    entries = _audit(request).entries(after_seq=after, limit=limit)
    views = [AuditEntryView.model_validate(entry) for entry in entries]
    return AuditPage(entries=views, next_after=views[-1].seq if len(views) == limit else None)


@router.get("/v1/audit/verification")
def verify_audit(
    _auditor: Auditor,
    request: Request,
    head: Annotated[str | None, Query(pattern=_SHA256, description="A head seen earlier.")] = None,
) -> AuditVerdict:
    """Walk the whole chain and say whether it holds."""
    return AuditVerdict.model_validate(_audit(request).verify(expected_head=head))


documents = APIRouter(include_in_schema=False)


@documents.get("/docs")
def docs() -> Response:
    """The reader of the API's document."""
    return Response(_asset("docs.html"), media_type="text/html; charset=utf-8", headers=_PAGE_HEADERS)


@documents.get("/docs/{name}")
def docs_asset(name: str) -> Response:
    """What the reader's page loads."""
    if name not in _ASSETS:
        raise NotFound(f"There is no {name} here.")
    return Response(_asset(name), media_type=_ASSETS[name], headers=_PAGE_HEADERS)


def create_control(
    platform: Platform,
    *,
    keys: Keys,
    audit: AuditLog,
    on_keys_changed: Callable[[], None],
) -> FastAPI:
    """The control plane. ``app.state.openapi`` is set by whoever knows all services."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_service(CONTROL, title="Gateway: keys, identity, audit", platform=platform, lifespan=lifespan)
    app.state.keys = keys
    app.state.audit = audit
    app.state.on_keys_changed = on_keys_changed
    app.include_router(router)
    app.include_router(documents)
    app.include_router(console_routes.router)

    @app.get("/v1/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        document: OpenApi = request.app.state.openapi
        return Response(await document.json(), media_type="application/json", headers={"cache-control": "no-cache"})

    return app


def _keys(request: Request) -> Keys:
    return cast("Keys", request.app.state.keys)


def _audit(request: Request) -> AuditLog:
    return cast("AuditLog", request.app.state.audit)


def _view(key: ApiKey) -> KeyView:
    return KeyView.model_validate(key)


def _with_secret(key: ApiKey, plaintext: str) -> Response:
    body = KeyWithSecret(**_view(key).model_dump(), key=plaintext).model_dump_json()
    return Response(
        body,
        201,
        headers={"cache-control": "no-store", "location": f"/v1/keys/{key.id}"},
        media_type="application/json",
    )


def _asset(name: str) -> bytes:
    return (files("genba_gateway") / "docs" / name).read_bytes()
