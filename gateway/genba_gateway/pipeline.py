"""What happens to every request, in order: id → limits of size → identity → scope and clearance → rate → turn → route → measure.

One pass over the header fields, one object per request, nothing awaited that need not be. A body is never parsed and never
held. Everything refused is refused here, in the same words for every service. Knows nothing of what services do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from genba_gateway.access_log import AccessLog
from genba_gateway.admission import Admission
from genba_gateway.auth import Authenticator, Caller, credential_of
from genba_gateway.headers import (
    BODY_BYTES,
    CHUNKED,
    PRINCIPAL_FIELD,
    Fields,
    Header,
    WebSocketRefused,
    child_traceparent,
    new_request_id,
    sort,
)
from genba_gateway.http1 import ClientGone
from genba_gateway.limits import Decision, Limiter, MemoryLimiter, Policy
from genba_gateway.metrics import RequestMetrics
from genba_gateway.routes import METHODS, Route, RouteTable, is_ambiguous
from genba_gateway.settings import Settings
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import (
    BadRequest,
    ClearanceTooLow,
    HeadersTooLarge,
    Internal,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    Problem,
    RequestTimeout,
    ScopeMissing,
    ServiceNotDeployed,
    TooManyRequests,
    render,
)
from genba_shared.telemetry import TraceContext, get_logger
from genba_shared.tracing import Spans, request_span

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = get_logger(__name__)

CLIENT_CLOSED_REQUEST = 499  # nginx's number for it
_CLOSE: Header = (b"connection", b"close")
_NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
_DISCARD_BYTES = 64 * 1024  # of an unread body that the server discards by itself to keep the connection
_SAFE_PATH_BYTES = 8192


class Exchange:
    """One request and its answer, as the pipeline sees them pass."""

    __slots__ = (
        "_body_cap_bytes",
        "_body_s",
        "_receive",
        "_send",
        "added_headers",
        "body_seen_bytes",
        "broken_off_with",
        "caller",
        "fields",
        "is_body_complete",
        "is_finished",
        "refusal",
        "request_id",
        "route",
        "status",
        "traceparent",
    )

    def __init__(self, receive: Receive, send: Send, body_cap_bytes: int, body_s: float) -> None:
        self._receive = receive
        self._send = send
        self._body_cap_bytes = body_cap_bytes
        self._body_s = body_s
        self.fields: Fields | None = None
        self.route: Route | None = None
        self.caller: Caller | None = None
        self.request_id = self.traceparent = b""
        self.added_headers: list[Header] = []
        self.status = 0
        self.broken_off_with = 0  # the status that would have been sent, had the answer not begun
        self.is_finished = False
        self.is_body_complete = True
        self.body_seen_bytes = 0
        self.refusal: Problem | None = None

    async def receive(self) -> Message:
        """The client's next piece, while it comes in time and the whole stays under the cap. Raises: the refusal."""
        if self.is_body_complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._body_s):
                message = await self._receive()
        except TimeoutError:
            self.refusal = RequestTimeout(f"The next piece of the body did not come within {self._body_s:g} s.")
            raise self.refusal from None
        if message["type"] != "http.request":
            return message
        self.body_seen_bytes += len(message.get("body", b""))
        self.is_body_complete = not message.get("more_body", False)
        if self.body_seen_bytes > self._body_cap_bytes:
            self.refusal = too_large(self._body_cap_bytes)
            raise self.refusal
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Pass the answer on with the gateway's own fields; once a refusal stands, nothing else begins."""
        if message["type"] == "http.response.start":
            if self.refusal is not None:
                return _nothing()
            self.status = message["status"]
            headers: list[Header] = [pair for pair in message.get("headers", ()) if pair[0] not in _OURS_ALONE]
            headers += self.added_headers
            if not self.is_body_complete and self._must_close:
                headers.append(_CLOSE)
            message = {"type": "http.response.start", "status": self.status, "headers": headers}
        elif self.status == 0:
            return _nothing()
        elif not message.get("more_body", False):
            self.is_finished = True
        return self._send(message)

    @property
    def _must_close(self) -> bool:
        """Whether so much of the body may be left that reading it to keep the connection is not worth it."""
        fields = self.fields
        return fields is None or fields.is_chunked or fields.content_length > _DISCARD_BYTES

    async def refuse(self, problem: Problem, path: str) -> None:
        """Answer with ``problem``, unless another answer has begun: then only breaking off tells the truth."""
        if self.status:
            self.broken_off_with = problem.status
            raise problem
        self.refusal = None
        rendered = render(problem, request_id=self.request_id.decode("ascii"), instance=path)
        headers = [*rendered.headers, *self.added_headers]
        if not self.is_body_complete and self._must_close:
            headers.append(_CLOSE)
        self.status = rendered.status
        await self._send({"type": "http.response.start", "status": rendered.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": rendered.body, "more_body": False})
        self.is_finished = True


async def _nothing() -> None:
    """What is left of a message that is not passed on."""


_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
_OURS_ALONE = frozenset({b"x-request-id", PRINCIPAL_FIELD})


class Pipeline:
    """The gateway's way of a request, over the services it was given."""

    def __init__(
        self,
        *,
        settings: Settings,
        table: RouteTable,
        services: Mapping[str, ASGIApp],
        authenticator: Authenticator,
        limiter: Limiter,
        admission: Admission,
        metrics: RequestMetrics,
        access_log: AccessLog,
        secret: bytes,
        spans: Spans | None = None,
    ) -> None:
        self._table = table
        self._spans = spans
        self._services = services
        self._authenticator = authenticator
        self._limiter = limiter
        self._memory = limiter if isinstance(limiter, MemoryLimiter) else None
        self._admission = admission
        self._metrics = metrics
        self._access_log = access_log
        self._secret = secret
        self._max_headers = settings.max_headers
        self._max_header_bytes = settings.max_header_bytes
        self._body_cap_bytes = settings.body_cap_bytes
        self._body_s = settings.timeouts.body_s
        self._principal_ttl_s = settings.principal_ttl_s
        self._per_caller = settings.max_concurrency_per_caller
        self._in_work: dict[str, int] = {}  # by caller, waiting ones included; credentials are verified anew meanwhile
        self._operations_port = settings.operations_port
        hsts_s = 0 if settings.tls is None else settings.tls.hsts_max_age_s
        self._standing_headers: tuple[Header, ...] = (
            (_NOSNIFF, (b"strict-transport-security", b"max-age=%d" % hsts_s)) if hsts_s else (_NOSNIFF,)
        )
        # Whoever asks an open route: a service checks that the gateway sent the request, also then.
        self._anonymous = Caller(
            Principal("anonymous", (), frozenset(), Clearance.PUBLIC),
            policy=Policy("anonymous", 1, 1),
            believed_until_s=0,
        )
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        started_s = perf_counter()
        exchange = Exchange(receive, send, self._body_cap_bytes, self._body_s)
        try:
            await self._answer(scope, exchange)
        except Problem as problem:
            await self._refuse(exchange, exchange.refusal or problem, scope)
        except ClientGone:
            pass  # nobody is there to answer; the log line says 499
        except Exception as error:
            if exchange.refusal is None:
                log.exception("request_failed", request_id=exchange.request_id.decode(), error=type(error).__name__)
            await self._refuse(
                exchange,
                exchange.refusal or Internal("This is our fault; the log says more under the request_id."),
                scope,
            )
        else:
            if exchange.refusal is not None:
                await self._refuse(exchange, exchange.refusal, scope)
        finally:
            self._record(exchange, scope["method"], perf_counter() - started_s)

    async def _answer(self, scope: Scope, exchange: Exchange) -> None:
        """All that stands between a request and its service. Raises: what refuses it."""
        fields = self._read_head(scope, exchange)
        exchange.traceparent = child_traceparent(fields.traceparent)
        method: str = scope["method"]
        exchange.route = route = self._find_route(scope, method)
        if route.read is None:
            await self._forward(scope, exchange, route, fields, self._anonymous)
            return
        credential = credential_of(fields)
        exchange.caller = caller = self._authenticator.known(credential) or await self._verify(credential, scope)
        self._authorize(caller, route, method, scope["path"])
        if self._memory is not None:
            decision = self._memory.take_now(caller.limit_key, caller.policy)
        else:
            decision = await self._limiter.take(caller.limit_key, caller.policy)
        self._limit(caller, decision, exchange)
        in_work, key = self._in_work, caller.limit_key
        in_work[key] = in_work.get(key, 0) + 1
        try:
            if not self._admission.enter_now():
                await self._admission.enter()
            try:
                await self._forward(scope, exchange, route, fields, caller)
            finally:
                self._admission.leave()
        finally:
            if in_work[key] > 1:
                in_work[key] -= 1
            else:
                del in_work[key]

    def _record(self, exchange: Exchange, method: str, seconds: float) -> None:
        """Count an answered request, write its line, trace it."""
        status = exchange.status if exchange.is_finished else exchange.broken_off_with or CLIENT_CLOSED_REQUEST
        route, caller = exchange.route, exchange.caller
        prefix = route.prefix if route is not None else "unmatched"
        if method not in METHODS:
            method = "other"
        self._metrics.observe(prefix, method, status, seconds)
        self._access_log.write(
            method=method,
            route=prefix,
            status=status,
            seconds=seconds,
            request_id=exchange.request_id,
            trace_id=exchange.traceparent[3:35],
            subject=caller.principal.subject if caller is not None else None,
        )
        if self._spans is not None and caller is not None:
            self._trace(self._spans, exchange, method, prefix, status, seconds)

    def _trace(self, spans: Spans, exchange: Exchange, method: str, route: str, status: int, seconds: float) -> None:
        """Whoever is known is traced; who knocks without a key could otherwise fill the collector."""
        trace = TraceContext.parse(exchange.traceparent.decode("ascii"))
        if trace is None:
            return
        above = exchange.fields.traceparent if exchange.fields is not None else b""
        request_span(
            spans,
            trace,
            parent=above[36:52].decode("ascii") or None,
            method=method,
            route=route,
            status=status,
            duration_s=seconds,
            request_id=exchange.request_id.decode("ascii"),
        )

    def _read_head(self, scope: Scope, exchange: Exchange) -> Fields:
        if self.is_draining:
            exchange.added_headers.append(_CLOSE)
        try:
            fields = sort(scope["headers"], max_headers=self._max_headers, max_header_bytes=self._max_header_bytes)
        except (BadRequest, HeadersTooLarge):
            exchange.request_id = new_request_id()
            exchange.is_body_complete = False  # its framing is not to be trusted: close after the answer
            raise
        exchange.fields = fields
        exchange.request_id = request_id = fields.request_id or new_request_id()
        exchange.added_headers += ((b"x-request-id", request_id), *self._standing_headers)
        if scope["http_version"] == "2" and scope["method"] in _BODY_METHODS and not fields.content_length:
            fields.is_chunked = True  # HTTP/2 frames say where a body ends, so it need not say its length
        if fields.is_chunked or fields.content_length:
            exchange.is_body_complete = False
            if fields.content_length > self._body_cap_bytes:
                raise too_large(self._body_cap_bytes)
        if fields.host is None and scope["http_version"] == "1.1":
            raise BadRequest("HTTP/1.1 requires the header field Host.")
        return fields

    def _find_route(self, scope: Scope, method: str) -> Route:
        raw_path: bytes = scope["raw_path"]
        if is_ambiguous(raw_path) or len(raw_path) > _SAFE_PATH_BYTES:
            raise BadRequest(
                "The path is too long, or has parts that could be read in two ways: //, /./, /../, %2F, %5C or a control character."
            )
        route = self._table.find(scope["path"])
        if route is None:
            raise NotFound("There is no such address; /v1/openapi.json lists those there are.")
        if route.service not in self._services:
            raise ServiceNotDeployed(
                f"The service {route.service} is not part of this installation. Its operator adds it: start"
                f" `genba run {route.service}` and name its address in the gateway's GENBA_GATEWAY_UPSTREAMS.",
                service=route.service,
            )
        if route.operations and self._operations_port is not None and scope["server"][1] != self._operations_port:
            raise NotFound("Metrics and readiness are served on the operations port.")
        if method not in METHODS:
            allowed = ", ".join(sorted(METHODS))
            raise MethodNotAllowed(f"Use one of: {allowed}.", headers={"Allow": allowed})
        return route

    async def _verify(self, credential: bytes, scope: Scope) -> Caller:
        client = scope.get("client")
        return await self._authenticator.verify(credential, client[0] if client else "unknown")

    def _authorize(self, caller: Caller, route: Route, method: str, path: str) -> None:
        scope = route.scope_for(method, path)
        if scope is None:
            return
        if not caller.may(scope):
            raise ScopeMissing(f"This needs the scope {scope}.", scope=scope)
        if caller.principal.clearance < route.clearance:
            label = route.clearance.label
            raise ClearanceTooLow(f"This needs the clearance {label}.", clearance=label)

    def _limit(self, caller: Caller, decision: Decision, exchange: Exchange) -> None:
        policy = caller.policy
        exchange.added_headers += ((b"ratelimit-policy", policy.header), (b"ratelimit", decision.header(policy)))
        if not decision.is_allowed:
            self._metrics.limited += 1
            raise TooManyRequests(
                f"More than {policy.per_minute} requests a minute, or {policy.burst} at once.",
                retry_after_s=round(decision.retry_after_s, 3),
                per_minute=policy.per_minute,
                burst=policy.burst,
            )
        if self._in_work.get(caller.limit_key, 0) >= self._per_caller:
            self._admission.refuse_caller(self._per_caller)

    def _forward(
        self, scope: Scope, exchange: Exchange, route: Route, fields: Fields, caller: Caller
    ) -> Awaitable[None]:
        """Hand the request to the service that answers it, with the fields that only the gateway may set."""
        headers = fields.forward
        headers.append((b"x-request-id", exchange.request_id))
        headers.append((b"traceparent", exchange.traceparent))
        if fields.tracestate and fields.traceparent:
            headers.append((b"tracestate", fields.tracestate))
        headers.append((PRINCIPAL_FIELD, caller.signed(self._secret, self._principal_ttl_s, monotonic())))
        if fields.host is not None:
            headers.append((b"host", fields.host))
        scope["headers"] = headers  # the scope is this request's own: the server made it, nobody reads it after us
        scope[BODY_BYTES] = CHUNKED if fields.is_chunked else fields.content_length
        return self._services[route.service](scope, exchange.receive, exchange.send)

    async def _refuse(self, exchange: Exchange, problem: Problem, scope: Scope) -> None:
        try:
            await exchange.refuse(problem, scope["path"])
        except Problem:
            # The answer had begun. Leaving without its end makes the server close the connection, so nobody takes it for whole.
            log.warning("answer_broken_off", request_id=exchange.request_id.decode(), detail=problem.detail)


def too_large(cap_bytes: int) -> PayloadTooLarge:
    """The one wording for a body over the cap."""
    return PayloadTooLarge(f"A request body may have {cap_bytes} bytes at most.", max_body_bytes=cap_bytes)


async def refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Say clearly that WebSockets are not taken, where the server can pass an answer on; else close the handshake."""
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": WebSocketRefused.title})
        return
    problem = WebSocketRefused("Use plain HTTP requests; long answers are streamed.")
    rendered = render(problem, request_id=new_request_id().decode("ascii"), instance=scope["path"])
    await send({"type": "websocket.http.response.start", "status": rendered.status, "headers": rendered.headers})
    await send({"type": "websocket.http.response.body", "body": rendered.body})
