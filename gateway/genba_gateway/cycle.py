"""One request and its answer on a client's connection: the ASGI server's half of ``receive`` and ``send``.

``listener`` reads the wire and makes these; here its pieces become messages, and the application's messages become bytes.
"""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING

from genba_gateway.headers import CR, LF, NUL
from genba_shared.problems import Internal
from genba_shared.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import Message, Scope

    from genba_gateway.listener import Listener

log = get_logger(__name__)

_HIGH_WATER_BYTES = 64 * 1024
_NO_BODY = frozenset({204, 304})
_CLOSE = (b"connection", b"close")


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}".encode()


STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}


class Cycle:
    """One request and its answer on a connection: the ASGI server's half of ``receive`` and ``send``."""

    __slots__ = (
        "_body",
        "_connection",
        "_ends_with_connection",
        "_expects_continue",
        "_head",
        "_is_bodiless",
        "_is_chunked",
        "_is_end_delivered",
        "_is_gone",
        "_left_bytes",
        "_more_body",
        "_status",
        "_waiter",
        "has_started",
        "is_complete",
        "keep_alive",
        "scope",
        "task",
    )

    def __init__(self, connection: Listener, scope: Scope, *, keep_alive: bool, expects_continue: bool) -> None:
        self._connection = connection
        self.scope = scope
        self.keep_alive = keep_alive
        self.task: asyncio.Task[None] | None = None
        self._expects_continue = expects_continue
        self._body = bytearray()
        self._more_body = True
        self._is_end_delivered = False
        self._is_gone = False
        self._waiter: asyncio.Future[None] | None = None
        self._is_bodiless = scope["method"] == "HEAD"
        self._head = b""
        self._status = 0
        self._left_bytes = 0
        self._is_chunked = False
        self._ends_with_connection = False
        self.has_started = False
        self.is_complete = False

    async def run(self) -> None:
        """Run the application. An answer without its end closes the connection, so that nobody takes it for whole."""
        connection = self._connection
        try:
            if not self._is_gone:
                await connection.app(self.scope, self.receive, self.send)
        except Exception:
            log.exception("application_failed")
        finally:
            if self.task is not None:
                connection.state.tasks.discard(self.task)
            if not self.is_complete and not self._is_gone:
                if self.has_started:
                    connection.transport.abort()
                else:
                    connection._tell(Internal("This is our fault; the log says more."))  # noqa: SLF001 - its other half

    # The connection's side.

    @property
    def is_body_owed(self) -> bool:
        """Whether the client may still be sending what nobody will read."""
        return self._more_body and not self._expects_continue

    def feed(self, body: bytes) -> None:
        """Body bytes came."""
        if self.is_complete or self._is_gone:
            return
        self._body += body
        if len(self._body) > _HIGH_WATER_BYTES:
            self._connection.pause_reading()
        self._wake()

    def end_of_body(self) -> None:
        """The body is whole."""
        self._more_body = False
        self._wake()

    def disconnect(self) -> None:
        """The client is gone."""
        self._is_gone = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # The application's side.

    async def receive(self) -> Message:
        """ASGI's receive: the body in pieces, then the client's leaving."""
        if self._expects_continue and self._more_body and not self.has_started:
            self._expects_continue = False
            if not self._connection.transport.is_closing():
                self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while (
            not (self._is_gone or self.is_complete) and not self._body and (self._more_body or self._is_end_delivered)
        ):
            self._connection.resume_reading()
            self._waiter = waiter = self._connection.loop.create_future()
            await waiter
        if self._is_gone or self.is_complete:
            return {"type": "http.disconnect"}
        body = bytes(self._body)
        self._body.clear()
        self._is_end_delivered = not self._more_body
        return {"type": "http.request", "body": body, "more_body": self._more_body}

    def send(self, message: Message) -> Awaitable[None]:
        """ASGI's send. The head waits for the first piece of the body, as the specification asks, and goes out with it."""
        connection = self._connection
        if connection.is_write_paused:
            return self._send_later(message)
        if not self._is_gone:
            self._put(message)
        return connection.nothing_to_wait_for

    async def _send_later(self, message: Message) -> None:
        await self._connection.drain()
        if not self._is_gone:
            self._put(message)

    def _put(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(message["status"], message["headers"])
            return
        connection = self._connection
        more_body = message.get("more_body", False)
        framed = self._frame(message.get("body", b""), more_body=more_body)
        if self._head:
            framed = self._head + framed
            self._head = b""
            self.has_started = True
        if framed:
            connection.transport.write(framed)
        if not more_body:
            self.is_complete = True
            self._wake()
            connection.answered(self)

    def _frame(self, body: bytes, *, more_body: bool) -> bytes:
        if self._is_chunked:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return framed if more_body else framed + b"0\r\n\r\n"
        if self._is_bodiless:
            return b""
        self._left_bytes -= len(body)
        if self._left_bytes < 0 or (self._left_bytes and not more_body and not self._ends_with_connection):
            raise RuntimeError("The answer's body and its Content-Length differ.")
        return body

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if self._head or self.has_started:
            raise RuntimeError("The answer has begun already.")
        lines = [STATUS_LINES[status], *[b": ".join(pair) for pair in headers]]
        has_length = False
        for name, value in headers:
            if name == b"content-length":
                self._left_bytes = int(value)
                has_length = True
                break
        if _CLOSE in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close")
        self._is_bodiless = self._is_bodiless or status in _NO_BODY
        if not has_length and not self._is_bodiless:
            if self.scope["http_version"] == "1.1":
                self._is_chunked = True
                lines.append(b"transfer-encoding: chunked")
            else:
                self.keep_alive = False
                self._left_bytes = sys.maxsize
                self._ends_with_connection = True
        said = b"".join(lines)
        if LF in said or CR in said or NUL in said:
            raise RuntimeError("A header field of the answer has characters that fields cannot have.")
        lines.append(self._connection.end_of_head())
        self._head = b"\r\n".join(lines)
