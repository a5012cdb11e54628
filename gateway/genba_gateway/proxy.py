"""A service in another process, as an ASGI application: what ``mounted`` is for a service in this one.

Framing is rebuilt from nothing in both directions: of what the client sent, only method, path, fields that the gateway let
through and body bytes get to the service. Small bodies are read whole first, so that a slow client holds no connection and
a retry can replay them; larger ones stream. Knows nothing of identities, routes or limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genba_gateway.headers import BODY_BYTES, CHUNKED, CR, LF, NUL
from genba_gateway.http1 import ClientGone, ConnectFailed, Connection, ConnectionBroken, Pool
from genba_gateway.settings import Resilience, Timeouts
from genba_gateway.upstreams import Address, Balancer, RetryBudget
from genba_shared.problems import BadGateway, BadRequest, Problem, UpstreamFailed
from genba_shared.telemetry import get_logger

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

log = get_logger(__name__)


_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_FAILURE_KINDS: dict[type[Problem], str] = {
    ConnectFailed: "connect",
    ConnectionBroken: "broken",
    UpstreamFailed: "invalid",
}
_BUFFER_BYTES = 64 * 1024
_TICK_S = 0.1
_WATCH_AFTER_S = 0.2
READY_S = 2.0  # for a service to say whether it is ready
_READY_STATUS = frozenset({200, 404})  # a service that does not know /ready has nothing against work
_RETRYABLE_STATUS = frozenset({502, 503, 504})
_BODY_FORBIDDEN = frozenset({204, 304})


class _Exchange:
    """A request on its way, as the watch sees it."""

    __slots__ = ("connection", "is_abandoned", "is_body_read", "receive", "started_s", "watcher")

    def __init__(self, receive: Receive, is_body_read: bool, started_s: float) -> None:  # noqa: FBT001 - made for every request
        self.connection: Connection | None = None
        self.receive = receive
        self.is_abandoned = False  # its client has left
        self.is_body_read = is_body_read
        self.started_s = started_s
        self.watcher: asyncio.Task[None] | None = None


class ReverseProxy:
    """One service behind its addresses."""

    def __init__(self, service: str, urls: Sequence[str], *, timeouts: Timeouts, resilience: Resilience) -> None:
        self.service = service
        self._timeouts = timeouts
        self._resilience = resilience
        pools = [Pool(url, connect_s=timeouts.connect_s, idle_s=timeouts.pool_idle_s) for url in urls]
        self.addresses = tuple(Address(pool, resilience) for pool in pools)
        self._balancer = Balancer(service, self.addresses)
        self._budget = RetryBudget(ratio=resilience.retry_ratio, reserve=resilience.retry_reserve)
        self._exchanges: set[_Exchange] = set()
        self._no_answer = f"The service {service} did not answer within {timeouts.response_s:g} s."
        self._no_more = f"The service {service} stopped sending."
        self._takes_no_more = f"The service {service} stopped taking the body."
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tick: asyncio.TimerHandle | None = None
        self.attempts: dict[str, int] = {"ok": 0, "connect": 0, "broken": 0, "timeout": 0, "invalid": 0, "status": 0}
        self.retries = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises: a Problem for whoever renders it; ClientGone when nobody is there to answer."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
            self._sweep()
        length: int = scope[BODY_BYTES]
        is_small = 0 <= length <= _BUFFER_BYTES
        body = await _read_whole(receive) if length and is_small else b""
        exchange = _Exchange(receive, is_small, loop.time())
        self._exchanges.add(exchange)
        self._budget.earn()
        try:
            connection = await self._attempt_until_answered(scope, exchange, body)
            await self._answer(connection, exchange, send)
        except UpstreamFailed as failure:  # a connection does not know whose it is
            failure.detail = failure.detail.replace("The service", f"The service {self.service}", 1)
            failure.members["service"] = self.service
            raise
        finally:
            self._exchanges.discard(exchange)
            if exchange.watcher is not None:
                exchange.watcher.cancel()

    async def _attempt_until_answered(self, scope: Scope, exchange: _Exchange, body: bytes) -> Connection:
        method: str = scope["method"]
        can_replay = exchange.is_body_read
        tried: list[Address] = []
        while True:
            address = self._balancer.pick(tried)
            tried.append(address)
            address.start()
            try:
                connection = await self._send_request(address, scope, exchange, body, is_first=len(tried) == 1)
            except UpstreamFailed as failure:
                self._count_failure(address, exchange, failure)
                unsent = isinstance(failure, ConnectFailed)
                replayable = unsent or (can_replay and isinstance(failure, ConnectionBroken) and method in _IDEMPOTENT)
                if not (replayable and self._may_retry(tried)):
                    raise
                await self._pause_before_retry(tried)
                continue
            except Problem as failure:  # it took too long: a retry would double the load of what is too slow
                self._count_failure(address, exchange, failure)
                raise
            except BaseException:
                address.give_up()
                raise
            if connection.status in _RETRYABLE_STATUS:
                self.attempts["status"] += 1
                address.fail()
                if can_replay and method in _IDEMPOTENT and self._balancer.has_other(tried) and self._may_retry(tried):
                    connection.close()
                    continue
            else:
                self.attempts["ok"] += 1
                address.succeed()
            return connection

    async def _send_request(
        self, address: Address, scope: Scope, exchange: _Exchange, body: bytes, *, is_first: bool
    ) -> Connection:
        """Send one attempt and wait for the head of its answer. On any exception the connection is gone."""
        connection = address.pool.reuse() if is_first else None
        if connection is None:
            connection = await address.pool.connect()
        if exchange.is_abandoned:  # while there was no connection to end
            connection.close()
            raise ClientGone
        exchange.connection = connection
        length: int = scope[BODY_BYTES]
        try:
            head = _request_head(scope, address.pool.host_header, length)
            connection.begin(head + body if body else head, is_head_request=scope["method"] == "HEAD")
            if not exchange.is_body_read:
                await self._upload(connection, exchange, is_chunked=length == CHUNKED)
            if not connection.has_head:
                connection.timeout_detail = self._no_answer
                connection.deadline_s = connection.loop.time() + self._timeouts.response_s
                await connection.head()
                connection.deadline_s = 0.0
        except BaseException:
            connection.close()
            raise
        return connection

    async def _upload(self, connection: Connection, exchange: _Exchange, *, is_chunked: bool) -> None:
        """Stream the body until it is sent, or the service answers without waiting for all of it."""
        upload = asyncio.ensure_future(self._copy_body(connection, exchange, is_chunked=is_chunked))
        head = asyncio.ensure_future(connection.head())
        try:
            await asyncio.wait({upload, head}, return_when=asyncio.FIRST_COMPLETED)
            if upload.done() and upload.exception() is not None:
                await _prefer_answer(head, connection, upload)
        finally:
            for task in (upload, head):
                if not task.done():
                    task.cancel()
            await asyncio.gather(upload, head, return_exceptions=True)
        if connection.error is not None and not connection.has_head:
            raise connection.error

    async def _copy_body(self, connection: Connection, exchange: _Exchange, *, is_chunked: bool) -> None:
        more_body = True
        while more_body:
            message: Message = await exchange.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body = message.get("body", b"")
            more_body = message.get("more_body", False)
            if is_chunked:
                framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
                connection.write(framed if more_body else framed + b"0\r\n\r\n")
            elif body:
                connection.write(body)
            connection.timeout_detail = self._takes_no_more
            connection.deadline_s = connection.loop.time() + self._timeouts.stream_s
            try:
                await connection.drain()
            finally:
                connection.deadline_s = 0.0
        exchange.is_body_read = True

    async def _answer(self, connection: Connection, exchange: _Exchange, send: Send) -> None:
        """Pass the answer on, piece by piece, as fast as the client takes it."""
        try:
            await send({"type": "http.response.start", "status": connection.status, "headers": connection.headers})
            body = connection.take()
            while not connection.is_complete:
                if body:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                connection.timeout_detail = self._no_more
                connection.deadline_s = connection.loop.time() + self._timeouts.stream_s
                body = await connection.read()
                connection.deadline_s = 0.0
            rest = connection.take()
            await send({"type": "http.response.body", "body": body + rest if rest else body, "more_body": False})
        except BaseException:
            connection.close()
            raise
        connection.end(request_was_sent=exchange.is_body_read)

    async def check_ready(self) -> str | None:
        """Ask each instance; those that are not ready get no work while others are. None if one is, else what they say."""
        reasons = await asyncio.gather(*(self._ask_ready(address) for address in self.addresses))
        return (
            None if None in reasons else "; ".join(f"{a.url} {r}" for a, r in zip(self.addresses, reasons, strict=True))
        )

    async def _ask_ready(self, address: Address) -> str | None:
        reason = None
        try:
            async with asyncio.timeout(READY_S):
                connection = await address.pool.connect()
                try:
                    head = b"GET /ready HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n" % address.pool.host_header
                    connection.begin(head, is_head_request=False)
                    await connection.head()
                    if connection.status not in _READY_STATUS:
                        said = (await connection.read())[:300].decode(errors="replace")
                        reason = f"answers {connection.status}: {said}"
                finally:
                    connection.close()
        except TimeoutError:
            reason = "does not answer in time"
        except UpstreamFailed as failure:
            reason = f"cannot be reached: {failure.detail}"
        address.is_ready = reason is None
        return reason

    def _count_failure(self, address: Address, exchange: _Exchange, failure: Problem) -> None:
        if type(failure) is ConnectionBroken and exchange.connection is not None and exchange.connection.served:
            address.give_up()  # a kept-alive connection that ended between two requests tells nothing about the service
        else:
            address.fail()
        kind = _FAILURE_KINDS.get(type(failure), "timeout")
        self.attempts[kind] += 1
        if kind != "broken":
            log.warning("upstream_failed", service=self.service, url=address.url, kind=kind, detail=failure.detail)

    def _may_retry(self, tried: list[Address]) -> bool:
        if len(tried) > self._resilience.retries or not self._budget.spend():
            return False
        self.retries += 1
        return True

    async def _pause_before_retry(self, tried: list[Address]) -> None:
        """At once to another address or on a fresh connection; a little later to one that was tried twice."""
        if not self._balancer.has_other(tried) and len(tried) > 1:
            await asyncio.sleep(0.02 * len(tried))

    def _sweep(self) -> None:
        """Every tick: end what is too late, close what idles, and watch the clients of exchanges that take longer."""
        if self._loop is None:
            return
        now_s = self._loop.time()
        for address in self.addresses:
            address.pool.sweep(now_s)
        for exchange in self._exchanges:
            if exchange.watcher is None and exchange.is_body_read and now_s - exchange.started_s > _WATCH_AFTER_S:
                exchange.watcher = self._loop.create_task(_watch(exchange))
        self._tick = self._loop.call_later(_TICK_S, self._sweep)

    def close(self) -> None:
        """Close every connection; exchanges that still run fail."""
        if self._tick is not None:
            self._tick.cancel()
        for address in self.addresses:
            address.pool.close()


async def _watch(exchange: _Exchange) -> None:
    """Wait for the client to leave, then end its exchange: nobody needs the answer, so nobody should work on it."""
    message = await exchange.receive()
    if message["type"] == "http.request":  # the empty body of a request that has none
        message = await exchange.receive()
    if message["type"] == "http.disconnect":
        exchange.is_abandoned = True
        if exchange.connection is not None and exchange.connection.in_use:
            exchange.connection.fail(ClientGone())


async def _read_whole(receive: Receive) -> bytes:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    pieces = [body]
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message.get("body", b""))
    return b"".join(pieces)


async def _prefer_answer(head: asyncio.Future[None], connection: Connection, upload: asyncio.Future[None]) -> None:
    """When the service stops reading, its answer says why, if there is one; the failed upload says less."""
    failure = upload.exception()
    if failure is connection.error and connection.has_head and head.done():
        return
    raise failure if failure is not None else BadGateway("The upload broke off.")


def _request_head(scope: Scope, host: bytes, length: int) -> bytes:
    method: str = scope["method"]
    query: bytes = scope["query_string"]
    path: bytes = scope["raw_path"]
    client = scope.get("client")
    target = path + b"?" + query if query else path
    lines = [b"%b %b HTTP/1.1" % (method.encode("ascii"), target), b"host: " + host]
    lines += [b": ".join(pair) for pair in scope["headers"] if pair[0] != b"host"]
    if client:
        lines.append(b"x-forwarded-for: " + client[0].encode())
        lines.append(b"x-forwarded-proto: " + scope["scheme"].encode())
    if length == CHUNKED:
        lines.append(b"transfer-encoding: chunked")
    elif length or method in _NEEDS_LENGTH:
        lines.append(b"content-length: %d" % length)
    # The last guard against a line that some server let through inside a value.
    said = b"".join(lines)
    if LF in said or CR in said or NUL in said:
        raise BadRequest("A header field's value has characters that values cannot have.")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


_NEEDS_LENGTH = frozenset({"POST", "PUT", "PATCH"})
