"""One connection to a service, and the pool of them: HTTP/1.1 on ``asyncio.Protocol`` and httptools, nothing in between.

A connection carries one exchange at a time and is reused last in, first out, so that the pool stays warm and small. Answers
are parsed strictly: whatever could leave two readers of the connection in disagreement ends it. Both directions have
back-pressure: a slow reader pauses the socket, a full socket pauses the writer. Knows nothing of retries, routes or ASGI.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import httptools

from genba_gateway.headers import HOP_BY_HOP, Header
from genba_shared.problems import GatewayTimeout, Problem, UpstreamFailed

HIGH_WATER_BYTES = 256 * 1024  # of an answer that nobody took yet: reading pauses above it
_MAX_HEADERS = 100
_MAX_HEADER_BYTES = 64 * 1024
_NO_BODY = frozenset({204, 304})
_VERSIONS = frozenset({"1.1", "1.0"})
# Dropped from answers: what is for one hop, and what the server in front writes itself.
_OF_THE_HOP = HOP_BY_HOP | {b"date", b"server"}
_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})
_NEVER_NAMED = frozenset({b"close", b"keep-alive", b"content-length"})
_NONE: frozenset[bytes] = frozenset()


class ConnectFailed(UpstreamFailed):
    """No connection to the service could be opened."""


class ConnectionBroken(UpstreamFailed):
    """The service closed the connection before its answer began."""


class ClientGone(Exception):
    """The client went away; its exchange was given up."""


class Connection(asyncio.Protocol):
    """A connection to one address. ``begin`` an exchange, wait for the ``head``, ``read`` to the end, then give it back."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.loop = pool.loop
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._is_reading_paused = False
        self._is_write_paused = False
        self._is_informational = False
        self._is_head_request = False
        self._ends_with_connection = False
        self._says_its_end = False
        self._named: frozenset[bytes] = _NONE  # fields that Connection names
        self._header_bytes = 0
        self._buffered_bytes = 0
        self._chunks: list[bytes] = []
        self.in_use = False
        self.served = 0
        self.idle_since_s = 0.0
        self.deadline_s = 0.0
        self.timeout_detail = ""
        self.status = 0
        self.headers: list[Header] = []  # of the answer, without those of the hop
        self.has_head = False
        self.is_complete = False
        self.is_reusable = False
        self.error: Exception | None = None

    # What the proxy calls.

    def begin(self, data: bytes, *, is_head_request: bool) -> None:
        """Send the first bytes of a request."""
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self._chunks = []
        self._header_bytes = self._buffered_bytes = 0
        self.has_head = self.is_complete = self.is_reusable = self._ends_with_connection = False
        self._expect_head()
        self._is_head_request = is_head_request
        self.in_use = True
        self.write(data)

    def _expect_head(self) -> None:
        self.headers = []
        self._named = _NONE
        self._is_informational = self._says_its_end = False

    def write(self, data: bytes) -> None:
        """Send further bytes. Raises: what ended the connection."""
        if self.error is not None:
            raise self.error
        if self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the socket takes more. Raises: what ended the connection."""
        while self._is_write_paused and self.error is None:
            self._writable = self.loop.create_future()
            await self._writable
        if self.error is not None:
            raise self.error

    async def head(self) -> None:
        """Wait until ``status`` and ``headers`` are there. Raises: what ended the connection before."""
        while not self.has_head:
            await self.news()

    def news(self) -> asyncio.Future[None]:
        """Done when more of the answer is there, or no more will come. Raises: what ended the connection."""
        if self.error is not None:
            raise self.error
        self._waiter = waiter = self.loop.create_future()
        return waiter

    async def read(self) -> bytes:
        """The next piece of the answer's body; empty at its end. Raises: what broke it off."""
        while not self._chunks:
            if self.is_complete:
                return b""
            await self.news()
        return self.take()

    def take(self) -> bytes:
        """The body so far, without waiting."""
        chunks = self._chunks
        if not chunks:
            return b""
        self._chunks = []
        self._buffered_bytes = 0
        if self._is_reading_paused and self._transport is not None and not self._transport.is_closing():
            self._is_reading_paused = False
            self._transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def end(self, *, request_was_sent: bool) -> None:
        """Give the connection back, for the next exchange if both sides of this one are whole, else for good."""
        self.in_use = False
        if self.is_reusable and self.is_complete and request_was_sent and not self._is_write_paused:
            self._pool.give_back(self)
        else:
            self.close()

    def close(self) -> None:
        """Drop the connection, whatever is going on."""
        self._pool.forget(self)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    def fail(self, error: Exception) -> None:
        """End the exchange with ``error`` for whoever waits on it."""
        if self.error is None:
            self.error = error
        self.close()
        self._wake()

    @property
    def is_closing(self) -> bool:
        """Whether it cannot carry another exchange."""
        return self.error is not None or self._transport is None or self._transport.is_closing()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream transport, because it was asked for

    def data_received(self, data: bytes) -> None:
        if not self.in_use or self.is_complete:  # an answer to no question: whose would the next one be?
            self.fail(UpstreamFailed("The service sent more than its answer."))
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__
            self.fail(
                cause if isinstance(cause, Problem) else UpstreamFailed("The service's answer is not valid HTTP.")
            )
            return
        if self.has_head and self._waiter is not None:
            self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ends_with_connection and self.has_head and exc is None and self.error is None:
            self.is_complete = True
        elif self.error is None and not self.is_complete:
            self.error = (
                UpstreamFailed("The service broke off its answer.")
                if self.has_head
                else ConnectionBroken("The service closed the connection before it answered.")
            )
        self._pool.forget(self)
        self._wake()

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if self.error is not None and self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # What the parser calls. An exception here ends the connection.

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise UpstreamFailed("The service sent more than its answer.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self.has_head:
            return  # a trailer: it describes the hop, and is not passed on
        if len(self.headers) >= _MAX_HEADERS or self._header_bytes > _MAX_HEADER_BYTES:
            raise UpstreamFailed("The service's answer has too many or too large header fields.")
        name = name.lower()
        if name in _OF_THE_HOP:
            self._note(name, value)
            return
        if name == b"content-length":
            self._says_its_end = True
        self.headers.append((name, value))

    def _note(self, name: bytes, value: bytes) -> None:
        """A field that is for this hop only."""
        if name == b"transfer-encoding":
            self._says_its_end = True
            if value.lower() != b"chunked":
                raise UpstreamFailed("The service's answer is framed in a way that is not taken.")
        elif name == b"connection" and value not in _PLAIN_CONNECTION:
            self._named |= {token.strip().lower() for token in value.split(b",")} - _NEVER_NAMED

    def on_headers_complete(self) -> None:
        status: int = self._parser.get_status_code()
        if status < 200:
            if status == 101 or status < 100:
                raise UpstreamFailed("The service switched protocols, which nobody asked for.")
            self._is_informational = True
            return
        if self._parser.get_http_version() not in _VERSIONS:
            raise UpstreamFailed("The service's answer is framed in a way that is not taken.")
        if self._named:
            self.headers = [pair for pair in self.headers if pair[0] not in self._named]
        self.status = status
        self.has_head = True
        self.is_reusable = self._parser.should_keep_alive()
        if self._is_head_request:
            self.is_complete = True
            self._parser = None  # it waits for a body that a HEAD answer does not have
        elif not self._says_its_end and status not in _NO_BODY:
            self._ends_with_connection = True
            self.is_reusable = False

    def on_body(self, data: bytes) -> None:
        if self.is_complete:
            raise UpstreamFailed("The service sent a body where none may be.")
        self._chunks.append(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes > HIGH_WATER_BYTES and not self._is_reading_paused and self._transport is not None:
            self._is_reading_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._is_informational:
            self._expect_head()
            return
        self.is_complete = True


class Pool:
    """The connections to one address."""

    def __init__(self, url: str, *, connect_s: float, idle_s: float, max_idle: int = 128) -> None:
        scheme, _, netloc = url.rstrip("/").partition("://")
        host, port = _split(netloc, 443 if scheme == "https" else 80)
        self.url = url.rstrip("/")
        self.host_header = netloc.encode("ascii")
        self._host, self._port = host, port
        self._ssl = ssl.create_default_context() if scheme == "https" else None
        self._connect_s = connect_s
        self._idle_s = idle_s
        self._max_idle = max_idle
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self.loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]  # set when the first request comes

    @property
    def open_connections(self) -> int:
        """Connections that exist, idle or in use."""
        return len(self._open)

    def reuse(self) -> Connection | None:
        """The connection that was given back last and still lives."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.is_closing:
                return connection
        return None

    async def connect(self) -> Connection:
        """Open a connection. Raises: ConnectFailed."""
        self.loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await self.loop.create_connection(
                    lambda: Connection(self), self._host, self._port, ssl=self._ssl
                )
        except TimeoutError as error:
            raise ConnectFailed(f"The service did not accept a connection within {self._connect_s:g} s.") from error
        except OSError as error:
            raise ConnectFailed(
                "The service does not accept connections: it is not running, or still starting. Its log says more."
            ) from error
        self._open.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose exchange is over for the next one."""
        if connection.is_closing or len(self._idle) >= self._max_idle:
            connection.close()
            return
        connection.served += 1
        connection.idle_since_s = self.loop.time()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)

    def sweep(self, now_s: float) -> None:
        """Close what idles too long; end exchanges whose deadline has passed."""
        for connection in list(self._open):
            if connection.in_use:
                if 0 < connection.deadline_s < now_s:
                    connection.fail(GatewayTimeout(connection.timeout_detail))
            elif now_s - connection.idle_since_s > self._idle_s and connection in self._idle:
                self._idle.remove(connection)
                connection.close()

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._open):
            connection.close()
        self._idle.clear()


def _split(netloc: str, default_port: int) -> tuple[str, int]:
    if netloc.startswith("["):
        host, _, rest = netloc[1:].partition("]")
        return host, int(rest[1:]) if rest.startswith(":") else default_port
    host, colon, port = netloc.rpartition(":")
    return (host, int(port)) if colon else (netloc, default_port)
