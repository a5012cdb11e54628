"""The client's side of the door: a uvicorn protocol class that parses strictly, answers in order and never waits for ever.

uvicorn's own takes headers of any size for any time, answers a malformed request before the ones ahead of it, loses the body of
a request that also offers an upgrade, lets trailers into the header list, and speaks of errors in plain text. This one does not.
It knows ASGI and bytes; what is asked for, and by whom, is the application's business.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools

from genba_gateway.cycle import STATUS_LINES, Cycle
from genba_gateway.headers import WebSocketRefused, new_request_id
from genba_gateway.settings import Settings
from genba_shared.problems import (
    BadRequest,
    HeadersTooLarge,
    MethodNotAllowed,
    Problem,
    RequestTimeout,
    render,
)
from genba_shared.telemetry import get_logger

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

log = get_logger(__name__)

_IDLE_AT_SHUTDOWN_S = 1.0
_LINGER_S, _LINGER_IDLE_S = 30.0, 5.0  # as nginx does: in all, and without a byte
_ABSOLUTE_FORM = re.compile(rb"https?://[^/?#]+", re.IGNORECASE)
_HASH = ord(b"#")


class Listener(asyncio.Protocol):
    """One client connection. ``listener_for`` makes the class with its limits."""

    _end_of_head: tuple[object, bytes] = (None, b"")
    max_headers = 100
    max_header_bytes = 32768
    header_s = 15.0
    keep_alive_s = 75.0
    stream_s = 120.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.app = config.loaded_app
        self.loop = _loop or asyncio.get_running_loop()
        self.state = server_state
        self.nothing_to_wait_for: asyncio.Future[None] = self.loop.create_future()  # done: costs less than a coroutine
        self.nothing_to_wait_for.set_result(None)
        self._scope: dict[str, Any] = {  # of every request; a copy costs a third of a new one
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "root_path": config.root_path,
            "state": app_state,
            **dict.fromkeys(("http_version", "method", "path", "raw_path", "query_string", "headers")),
        }
        self.parser: Any = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set when the connection is made
        self._active: Cycle | None = None  # whose answer is next on the wire
        self._receiving: Cycle | None = None  # whose body is being read
        self._queued: deque[Cycle] = deque()
        self._failure: Problem | None = None  # to be told once the answers ahead of it are out
        self._is_stopping = False
        self._is_reading_paused = False
        self._drained: asyncio.Future[None] | None = None
        self.is_write_paused = False
        self._deadline_s = 0.0  # of the headers or of the idle connection; 0 while the application works
        self._linger_until_s = 0.0  # what comes until then is passed over; 0 while it is not
        self._timer: asyncio.TimerHandle | None = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._is_in_headers = False
        self._is_head_awaited = False
        self._header_bytes = 0
        self._has_fed = False  # by the bytes that came last: the end of a head, or some of a body
        self._upgraded_body_bytes = 0

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.state.connections.add(self)  # type: ignore[arg-type]  # uvicorn lists its own classes
        self.transport = cast("asyncio.Transport", transport)  # the server listens for streams only
        self._scope |= {
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
            "client": _address(transport.get_extra_info("peername")),
            "server": _address(transport.get_extra_info("sockname")),
        }
        self._set_deadline(self.header_s)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the transport's signature
        self.state.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        for cycle in (self._active, self._receiving, *self._queued):
            if cycle is not None:
                cycle.disconnect()
        self.resume_writing()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.is_write_paused = True

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def drain(self) -> None:
        """Wait until the client takes more, or is gone. One that takes nothing for long is taken for gone."""
        while self.is_write_paused and not self.transport.is_closing():
            if self._drained is None or self._drained.done():
                self._drained = self.loop.create_future()
            left_bytes = self.transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(self.stream_s):
                    await asyncio.shield(self._drained)
            except TimeoutError:
                if self.transport.get_write_buffer_size() >= left_bytes:
                    if self._active is not None:
                        self._active.disconnect()
                    self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._failure is not None or self._is_passed_over():
            return
        if self._upgraded_body_bytes:
            data = self._take_upgraded_body(data)
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._take_upgraded_body(data[upgrade.args[0] :])
                continue
            except httptools.HttpParserError as error:
                cause = error.__context__
                self._fail(
                    cause if isinstance(cause, Problem) else BadRequest(f"This is not valid HTTP/1.1: {_said(error)}.")
                )
                return
            break
        if self._is_in_headers:
            if not self._is_head_awaited:  # most heads come whole, and need no deadline
                self._is_head_awaited = True
                if self._active is None:
                    self._set_deadline(self.header_s)
            self._note_framing(len(data))
        elif self._receiving is not None:  # in a body: the parser keeps a trailer until it is whole
            self._note_framing(0 if self._has_fed else len(data))
            self._has_fed = False

    def _note_framing(self, came_bytes: int) -> None:
        """What the parser holds and has not told of yet is bounded as well."""
        self._header_bytes = self._header_bytes + came_bytes if came_bytes else 0
        if self._header_bytes > self.max_header_bytes + 8192:  # the request line counts too
            self._fail(HeadersTooLarge(f"More than the {self.max_header_bytes} bytes of header fields that pass."))

    def _take_upgraded_body(self, data: bytes) -> bytes:
        """The parser leaves an upgrade's body to others; since upgrades are ignored, it is still a body. Returns the rest."""
        body, rest = data[: self._upgraded_body_bytes], data[self._upgraded_body_bytes :]
        if body:
            self._upgraded_body_bytes -= len(body)
            self.on_body(body)
            if not self._upgraded_body_bytes:
                self.on_message_complete()
        return rest

    # The parser's side. An exception here ends the connection.

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._header_bytes = 0
        self._is_in_headers = True
        self._is_head_awaited = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_headers:
            raise BadRequest("Trailers are not taken.")
        if len(self._headers) >= self.max_headers:
            raise HeadersTooLarge(f"More than the {self.max_headers} header fields that pass.")
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._is_in_headers = False
        self._has_fed = True
        parser = self.parser
        version: str = parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise BadRequest(f"HTTP/{version} is not spoken on this port.")
        method: str = parser.get_method().decode("ascii")
        raw_path, query = _target(self._url)
        expects_continue = False
        for name, value in self._headers:
            if name == b"expect":
                expects_continue = value.lower() == b"100-continue" and version == "1.1"
            elif name == b"transfer-encoding" and (version == "1.0" or value.lower() != b"chunked"):
                raise BadRequest("The only Transfer-Encoding taken here is chunked, in HTTP/1.1.")
        if parser.should_upgrade():
            self._ignore_upgrade(method)
        path = raw_path.decode("ascii")
        scope = self._scope.copy()
        scope["http_version"] = version
        scope["method"] = method
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        scope["headers"] = self._headers
        keep_alive = version == "1.1" and parser.should_keep_alive() and not self._is_stopping
        cycle = Cycle(self, scope, keep_alive=keep_alive, expects_continue=expects_continue)
        self._receiving = cycle
        if self._active is None:
            self._start(cycle)
        else:
            self._queued.append(cycle)
            self.pause_reading()

    def _ignore_upgrade(self, method: str) -> None:
        """An upgrade is an offer, which may be ignored (RFC 9110 §7.8): Java's client offers h2c with every first request."""
        if method == "CONNECT":
            raise MethodNotAllowed("This is not a proxy.")
        length = b"0"
        for name, value in self._headers:
            if name == b"upgrade" and value.lower() == b"websocket":
                raise WebSocketRefused("Use plain HTTP requests; long answers are streamed.")
            if name == b"transfer-encoding":
                raise BadRequest("A request that offers an upgrade must say its Content-Length.")
            if name == b"content-length":
                length = value
        self._upgraded_body_bytes = int(length)

    def on_body(self, body: bytes) -> None:
        cycle = self._receiving
        if cycle is not None:
            self._has_fed = True
            cycle.feed(body)

    def on_message_complete(self) -> None:
        cycle = self._receiving
        if cycle is not None and not self._upgraded_body_bytes:
            self._receiving = None
            cycle.end_of_body()

    # The cycles' side.

    def _start(self, cycle: Cycle) -> None:
        self._active = cycle
        self._deadline_s = 0.0
        cycle.task = task = self.loop.create_task(cycle.run())
        self.state.tasks.add(task)

    def answered(self, cycle: Cycle) -> None:
        """An answer is out: on to the next request, or to the end."""
        self.state.total_requests += 1
        self._active = None
        if self.transport.is_closing():
            return
        if not cycle.keep_alive:
            if cycle.is_body_owed:
                self._linger()
            else:
                self.transport.close()
        elif self._queued:
            self._start(self._queued.popleft())
        elif self._failure is not None:
            self._tell(self._failure)
        else:
            self._set_deadline(self.keep_alive_s if not self._is_stopping else _IDLE_AT_SHUTDOWN_S)
            self.resume_reading()

    def _linger(self) -> None:
        """Pass over what a client still sends that was refused early: to close on unread bytes resets the connection, and whoever
        reads nothing before all is sent would lose the answer with it.
        """
        self._linger_until_s = self.loop.time() + (_IDLE_AT_SHUTDOWN_S if self._is_stopping else _LINGER_S)
        self._receiving = None
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._set_deadline(_LINGER_IDLE_S)
        self.resume_reading()

    def _is_passed_over(self) -> bool:
        if self._linger_until_s:
            self._set_deadline(min(_LINGER_IDLE_S, self._linger_until_s - self.loop.time()))
        return self._linger_until_s > 0

    def pause_reading(self) -> None:
        """Take no more from the client for now."""
        if not self._is_reading_paused:
            self._is_reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more again, unless requests wait already."""
        if self._is_reading_paused and not self._queued and not self.transport.is_closing():
            self._is_reading_paused = False
            self.transport.resume_reading()

    def shutdown(self) -> None:
        """The server is stopping: end after the answer, or soon. An idle client may have a request on its way this very moment."""
        self._is_stopping = True
        if self._active is not None:
            self._active.keep_alive = bool(self._queued)
        else:
            self._linger_until_s = min(self._linger_until_s, self.loop.time() + _IDLE_AT_SHUTDOWN_S)
            self._set_deadline(_IDLE_AT_SHUTDOWN_S)

    def _fail(self, problem: Problem) -> None:
        """What came cannot be understood, so nothing after it can be: answer what is owed, say why, and close."""
        self._failure = problem
        broken, self._receiving = self._receiving, None
        if broken is not None:
            broken.disconnect()
            if broken in self._queued:
                self._queued.remove(broken)
        if self._active is None or (self._active is broken and not broken.has_started):
            self._tell(problem)
        elif self._active is broken:
            self.transport.close()  # its answer is under way: breaking off is all that is left to say
        else:
            self.pause_reading()

    def _tell(self, problem: Problem) -> None:
        rendered = render(problem, request_id=new_request_id().decode("ascii"))
        fields = [*rendered.headers, (b"connection", b"close")]
        head = b"\r\n".join([STATUS_LINES[rendered.status], *map(b": ".join, fields), self.end_of_head()])
        self.transport.write(head + rendered.body)
        self.transport.close()

    def end_of_head(self) -> bytes:
        """What ends every head: the server's own fields, written out once for each second, and the empty line."""
        current = self.state.default_headers
        written = Listener._end_of_head
        if written[0] is not current:
            ending = b"".join(b"%b: %b\r\n" % pair for pair in current) + b"\r\n"
            written = Listener._end_of_head = (current, ending)
        return written[1]

    # One timer for each connection, set anew only when it fires: most deadlines are met.

    def _set_deadline(self, after_s: float) -> None:
        self._deadline_s = self.loop.time() + after_s
        if self._timer is None or (self._timer.when() > self._deadline_s):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_at(self._deadline_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._deadline_s == 0.0 or self.transport.is_closing():
            return
        if self.loop.time() < self._deadline_s - 0.001:
            self._timer = self.loop.call_at(self._deadline_s, self._on_timer)
        elif self._is_in_headers:
            self._fail(RequestTimeout(f"The headers did not come within {self.header_s:g} s."))
        else:
            self.transport.close()


def listener_for(settings: Settings) -> type[Listener]:
    """The protocol class with the limits of ``settings``, for ``uvicorn.Config(http=…)``."""
    return type(
        "ConfiguredListener",
        (Listener,),
        {
            "max_headers": settings.max_headers,
            "max_header_bytes": settings.max_header_bytes,
            "header_s": settings.timeouts.header_s,
            "keep_alive_s": settings.timeouts.keep_alive_s,
            "stream_s": settings.timeouts.stream_s,
        },
    )


def _target(url: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target in origin or absolute form, or ``*``. Raises: BadRequest."""
    if not url.startswith(b"/"):
        absolute = _ABSOLUTE_FORM.match(url)
        if absolute is None and url != b"*":
            raise BadRequest("The request target must be a path or a http url.")
        url = url if absolute is None else url[absolute.end() :] or b"/"
    if _HASH in url:
        raise BadRequest("The request target must not have a fragment.")
    path, _, query = url.partition(b"?")
    if not url.isascii():
        raise BadRequest("The request target must be ASCII; percent-encode the rest.")
    return path, query


def _address(info: Any) -> tuple[str, int] | None:
    return (str(info[0]), int(info[1])) if isinstance(info, tuple) and len(info) >= 2 else None


def _said(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
