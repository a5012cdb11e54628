"""Expected failures, as RFC 9457 problem documents: raise one, the edge renders it. Knows no web framework, no service.

    Problem
    ├── BadRequest 400 ─ IdempotencyKeyMissing
    ├── Unauthorized 401
    ├── Forbidden 403 ─ ScopeMissing · ClearanceTooLow
    ├── NotFound 404 ─ ServiceNotDeployed
    ├── MethodNotAllowed 405
    ├── RequestTimeout 408
    ├── Conflict 409 ─ EncoderMismatch · IdempotencyInFlight · VersionConflict · AlreadyExists · GateNotMet
    ├── Gone 410
    ├── LengthRequired 411
    ├── PayloadTooLarge 413
    ├── UnsupportedMedia 415
    ├── RangeNotSatisfiable 416
    ├── Invalid 422 ─ IdempotencyKeyReused
    ├── TooManyRequests 429
    ├── HeadersTooLarge 431
    ├── Internal 500
    ├── BadGateway 502 ─ UpstreamFailed
    ├── Unavailable 503 ─ Overloaded · Draining · DiskFull
    └── GatewayTimeout 504

A class's docstring is its title, its name in kebab case is its code, ``detail`` says what to do about this one.
A member ``retry_after_s`` also becomes the header ``Retry-After``. A domain may hang a kind of its own under one of these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, NamedTuple

import orjson
from pydantic import JsonValue

from genba_shared.patterns import message

MEDIA_TYPE = "application/problem+json"
_LIMITS: Final = ("min_length", "max_length", "ge", "gt", "le", "lt", "multiple_of", "expected")


class Problem(Exception):
    """The request failed."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "problem"
    title: ClassVar[str] = "The request failed."
    standing_headers: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()
        cls.title = (cls.__doc__ or cls.title).strip().splitlines()[0]

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None, **members: JsonValue) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members
        self.headers: dict[str, str] = {**self.standing_headers, **(headers or {})}
        retry_after_s = members.get("retry_after_s")
        if isinstance(retry_after_s, int | float):
            self.headers.setdefault("Retry-After", str(max(0, math.ceil(retry_after_s))))

    def document(self, *, request_id: str | None = None, instance: str | None = None) -> dict[str, JsonValue]:
        """The JSON object of RFC 9457; this problem's members stand beside the standard ones, never replace them."""
        document: dict[str, JsonValue] = dict(self.members)
        document |= {
            "type": f"urn:genba:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if instance is not None:
            document["instance"] = instance
        if request_id is not None:
            document["request_id"] = request_id
        return document


class BadRequest(Problem):
    """The request cannot be read."""

    status = 400


class IdempotencyKeyMissing(BadRequest):
    """This request needs an Idempotency-Key header."""


class Unauthorized(Problem):
    """Who is asking is not known."""

    status = 401
    standing_headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer realm="genba"'}


class Forbidden(Problem):
    """This is not allowed."""

    status = 403


class ScopeMissing(Forbidden):
    """The caller's roles do not grant this scope."""


class ClearanceTooLow(Forbidden):
    """The caller's clearance is below the label of what was asked for."""


class NotFound(Problem):
    """There is nothing here."""

    status = 404


class ServiceNotDeployed(NotFound):
    """This installation does not run the service that answers here."""


class MethodNotAllowed(Problem):
    """This address does not take that method."""

    status = 405


class RequestTimeout(Problem):
    """The request took too long to arrive."""

    status = 408


class Conflict(Problem):
    """The request contradicts the present state."""

    status = 409


class EncoderMismatch(Conflict):
    """Vectors of different encoders cannot be compared."""


class IdempotencyInFlight(Conflict):
    """The first request with this Idempotency-Key is still being worked on."""


class VersionConflict(Conflict):
    """Somebody else changed it in the meantime."""


class AlreadyExists(Conflict):
    """It exists already."""


class GateNotMet(Conflict):
    """The version misses a promotion gate."""


class Gone(Problem):
    """It was here and is no more."""

    status = 410


class LengthRequired(Problem):
    """The request must say how long its body is."""

    status = 411


class PayloadTooLarge(Problem):
    """The body is larger than allowed."""

    status = 413


class UnsupportedMedia(Problem):
    """The body is of a kind that is not taken here."""

    status = 415


class RangeNotSatisfiable(Problem):
    """The range lies outside of the content."""

    status = 416


class Invalid(Problem):
    """The payload does not validate."""

    status = 422


class IdempotencyKeyReused(Invalid):
    """This Idempotency-Key was used with another payload."""


class TooManyRequests(Problem):
    """The caller's rate limit is used up."""

    status = 429


class HeadersTooLarge(Problem):
    """The request's headers are larger than allowed."""

    status = 431


class Internal(Problem):
    """Something failed on our side."""

    status = 500


class BadGateway(Problem):
    """A service behind the gateway gave no usable answer."""

    status = 502


class UpstreamFailed(BadGateway):
    """The service behind the gateway could not be reached."""


class Unavailable(Problem):
    """Not ready to answer."""

    status = 503


class Overloaded(Unavailable):
    """Too much work is waiting already."""


class Draining(Unavailable):
    """This process is shutting down."""


class DiskFull(Unavailable):
    """There is no room to store this."""


class GatewayTimeout(Problem):
    """The service behind the gateway took too long."""

    status = 504


BY_STATUS: dict[int, type[Problem]] = {kind.status: kind for kind in Problem.__subclasses__()}


class Rendered(NamedTuple):
    """A problem as an answer: raw enough for a bare ASGI application."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def render(problem: Problem, *, request_id: str | None = None, instance: str | None = None) -> Rendered:
    """The one renderer: every problem that leaves Genba passes here, from the gateway and from each service."""
    body = orjson.dumps(problem.document(request_id=request_id, instance=instance))
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers.items()),
    ]
    return Rendered(problem.status, headers, body)


def invalid(found: Iterable[Mapping[str, Any]]) -> Invalid:
    """The problem for what pydantic found: ``errors`` names each field."""
    errors: list[JsonValue] = []
    named: dict[str, None] = {}
    for error in found:
        field = field_name(error["loc"])
        named[field] = None
        errors.append(fault_in(error, field))
    return Invalid(f"Mend {', '.join(named)}.", errors=errors)


def field_name(location: Iterable[int | str]) -> str:
    """``("body", "steps", 2, "after")`` → ``"steps[2].after"``; the place alone, or none → ``"body"``."""
    place, *path = [*location] or ["body"]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".") or str(place)


def fault(field: str, said: str) -> dict[str, JsonValue]:
    """One entry of ``Invalid``'s ``errors``: which field, and what to do."""
    return {"field": field, "message": said}


def fault_in(error: Mapping[str, Any], field: str) -> dict[str, JsonValue]:
    """One of pydantic's errors as such an entry: in words, and for programs by pydantic's code and the limits that it names."""
    limits = {name: value for name, value in error.get("ctx", {}).items() if name in _LIMITS}
    said = fault(field, message(error).removeprefix("Value error, ")) | {"code": error["type"]}
    return said | {name: value for name, value in limits.items() if isinstance(value, int | float | str)}
