"""Sort a request's header fields: what is for the gateway, what goes on to the service, what stops here, what is refused.

The gateway trusts no server in front of it to have done this: it works on the ASGI header list alone, so the same rules
hold on uvicorn, granian and in a test. Knows nothing of sockets, identities or routes.
"""

from __future__ import annotations

import random
import re
import secrets
from itertools import count

from genba_shared.principal import PRINCIPAL_HEADER
from genba_shared.problems import BadRequest, HeadersTooLarge

Header = tuple[bytes, bytes]

PRINCIPAL_FIELD = PRINCIPAL_HEADER.encode()
BODY_BYTES = "genba.body_bytes"  # scope key: the length of the request's body, or CHUNKED if it says none
CHUNKED = -1
LF, CR, NUL = b"\n\r\0"  # as numbers: looking for bytes of length one costs ten times as much

# RFC 9110 §7.6.1, and what only makes sense between two neighbours.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split()
)
# Claims about the client that only the gateway may make, and what it makes anew.
_REBUILT = frozenset(
    b"forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port x-real-ip expect".split()
)
_OURS = b"x-genba-"

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{8,128}")
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_FIELD_OVERHEAD_BYTES = 4  # ": " and CRLF

_FORWARD, _DROP, _READ = 0, 1, 2
_HARMLESS_TWICE = frozenset(b"tracestate x-request-id upgrade".split())  # the first counts
_MAX_KNOWN_NAMES = 4096
_kinds: dict[bytes, int] = {
    **dict.fromkeys(HOP_BY_HOP | _REBUILT, _DROP),
    **dict.fromkeys(
        b"host content-length transfer-encoding connection authorization x-api-key x-request-id traceparent tracestate "
        b"upgrade".split(),
        _READ,
    ),
}

_id_prefix = f"req_{secrets.token_hex(5)}".encode()
_ids = count(1)
_NOT_ZERO = 1 << 64 | 1  # neither the trace's id nor the span's may be zero
_random = random.Random(secrets.randbits(256))  # noqa: S311 - ids of spans: unique, not secret


class WebSocketRefused(BadRequest):
    """WebSockets are not taken here."""


class Fields:
    """What the header fields of one request say."""

    __slots__ = (
        "api_key",
        "authorization",
        "content_length",
        "forward",
        "host",
        "is_chunked",
        "request_id",
        "traceparent",
        "tracestate",
        "upgrade",
    )

    def __init__(self) -> None:
        self.forward: list[Header] = []
        self.authorization = self.api_key = b""
        self.content_length = 0
        self.is_chunked = False
        self.host: bytes | None = None
        self.request_id = self.traceparent = self.tracestate = self.upgrade = b""

    @property
    def has_body(self) -> bool:
        return self.is_chunked or self.content_length > 0


def sort(raw: list[Header], *, max_headers: int, max_header_bytes: int) -> Fields:
    """Sort ``raw`` (names in lower case, as ASGI has them).

    Raises: HeadersTooLarge over a cap; BadRequest for a field that two readers could understand in two ways.
    """
    if len(raw) > max_headers:
        raise HeadersTooLarge(f"{len(raw)} header fields are more than the {max_headers} that pass.")
    fields = Fields()
    forward = fields.forward
    known = _kinds.get
    read: dict[bytes, bytes] = {}
    size = len(raw) * _FIELD_OVERHEAD_BYTES
    for pair in raw:
        name, value = pair
        size += len(name) + len(value)
        kind = known(name)
        if kind is None:
            kind = _classify(name)
        if kind == _FORWARD:
            forward.append(pair)
        elif kind == _READ:
            read[name] = _again(name, read[name], value) if name in read else value
    if size > max_header_bytes:
        raise HeadersTooLarge(f"{size} bytes of header fields are more than the {max_header_bytes} that pass.")
    if read:
        _read(fields, read)
    return fields


def _classify(name: bytes) -> int:
    """Decide about a name that was not met before, and remember it."""
    if _TOKEN.fullmatch(name) is None:
        raise BadRequest("A header field's name has characters that names cannot have.")
    # Underscores: whoever maps names to variables, as CGI does, reads x_genba_principal as ours.
    kind = _DROP if name.replace(b"_", b"-").startswith(_OURS) or b"_" in name else _FORWARD
    if len(_kinds) < _MAX_KNOWN_NAMES:
        _kinds[name] = kind
    return kind


def _again(name: bytes, first: bytes, value: bytes) -> bytes:
    """What a field says that stands a second time. Raises: BadRequest where two readers might take different ones."""
    if name == b"connection":
        return first + b"," + value
    if name in _HARMLESS_TWICE:
        return first
    raise BadRequest(f"The header field {name.decode()} may stand once only.")


def _read(fields: Fields, read: dict[bytes, bytes]) -> None:
    connection = read.pop(b"connection", b"")
    for name, value in read.items():
        _READERS[name](fields, value)
    if fields.is_chunked and b"content-length" in read:
        raise BadRequest("Content-Length and Transfer-Encoding contradict each other.")
    if connection:
        _drop_named(fields, connection)


def _drop_named(fields: Fields, connection: bytes) -> None:
    """RFC 9110 §7.6.1: what Connection names is for this hop only. What it names of ours is added later, so survives."""
    tokens = {token.strip().lower() for token in connection.split(b",")} - {b"close", b"keep-alive", b"upgrade", b""}
    if tokens:
        fields.forward[:] = [pair for pair in fields.forward if pair[0] not in tokens]


def _host(fields: Fields, value: bytes) -> None:
    if _HOST.fullmatch(value) is None:
        raise BadRequest("The header field Host is malformed.")
    fields.host = value


def _content_length(fields: Fields, value: bytes) -> None:
    if not value.isdigit() or len(value) > 18:
        raise BadRequest("The header field Content-Length must be a plain number.")
    fields.content_length = int(value)


def _transfer_encoding(fields: Fields, value: bytes) -> None:
    if value.lower() != b"chunked":
        raise BadRequest("The only Transfer-Encoding taken here is chunked.")
    fields.is_chunked = True


def _authorization(fields: Fields, value: bytes) -> None:
    fields.authorization = value


def _api_key(fields: Fields, value: bytes) -> None:
    fields.api_key = value


def _request_id(fields: Fields, value: bytes) -> None:
    if _REQUEST_ID.fullmatch(value):
        fields.request_id = value


def _traceparent(fields: Fields, value: bytes) -> None:
    if _TRACEPARENT.fullmatch(value):
        fields.traceparent = value


def _tracestate(fields: Fields, value: bytes) -> None:
    fields.tracestate = value


def _upgrade(fields: Fields, value: bytes) -> None:
    fields.upgrade = value


_READERS = {
    b"host": _host,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"authorization": _authorization,
    b"x-api-key": _api_key,
    b"x-request-id": _request_id,
    b"traceparent": _traceparent,
    b"tracestate": _tracestate,
    b"upgrade": _upgrade,
}


def new_request_id() -> bytes:
    """Unique among all processes, cheap: a random prefix for this process and a counter."""
    return b"%b%08x" % (_id_prefix, next(_ids))


def child_traceparent(parent: bytes) -> bytes:
    """The W3C ``traceparent`` of the span that the gateway opens: below ``parent``, or of a new trace if there is none."""
    if parent:
        return b"00-%s-%016x-%s" % (parent[3:35], _random.getrandbits(64) | 1, parent[53:55])
    digits = (_random.getrandbits(192) | _NOT_ZERO).to_bytes(24).hex()
    return f"00-{digits[:32]}-{digits[32:]}-01".encode()
