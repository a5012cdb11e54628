"""What the gateway's tests build: a gateway on a real socket, services behind it on real sockets, and raw clients.

Services are ours and small: a ``Service`` answers with what a test hands it and remembers what it was sent, byte by byte.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import orjson

from genba_gateway.app import Gateway, create_app
from genba_gateway.server import Server, listen, server_for
from genba_gateway.settings import Settings
from genba_shared.db import Database
from genba_shared.settings import Platform

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n" + b'{"ok":true}'

Handler = Callable[["Received", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Answer:
    """What came back on a connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Received:
    """The head of a request as it reached a service."""

    line: str
    headers: dict[str, str]
    raw: bytes


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def answer_ok(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the whole body and say ok."""
    await read_body(received.headers, reader)
    writer.write(OK)


def answers(raw: bytes) -> Handler:
    """A handler that reads the body, then sends ``raw``."""

    async def handle(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_body(received.headers, reader)
        writer.write(raw)

    return handle


@dataclass
class Service:
    """A service on a real socket. ``handle`` answers each request; /ready is always answered."""

    handle: Handler = answer_ok
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    port: int = field(default_factory=free_port)
    open_writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_writers.append(writer)
        is_counted = False
        try:
            while True:
                raw = await reader.readuntil(b"\r\n\r\n")
                line, headers = parse_head(raw)
                received = Received(line, headers, raw)
                if line.split(" ")[1] == "/ready":
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
                    await writer.drain()
                    return
                self.connections += not is_counted
                is_counted = True
                self.requests.append(received)
                await self.handle(received, reader, writer)
                await writer.drain()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@dataclass
class Echo:
    """A mounted service: says ok to everything and keeps what it was asked."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        if scope["path"] != "/ready":
            self.requests.append(scope)
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        self.bodies.append(body)
        self.bodies = self.bodies[-1:]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def running(*services: Service) -> AsyncIterator[None]:
    """Serve ``services`` until the block ends."""
    servers = []
    for service in services:
        server = await asyncio.start_server(service.serve_connection, sock=_small(service.port), limit=2**16)
        servers.append(server)
    try:
        yield
    finally:
        for server in servers:
            server.close()
        for service in services:
            for writer in service.open_writers:
                writer.transport.abort()
        await asyncio.gather(*(server.wait_closed() for server in servers))
        for _ in range(3):  # the loop closes sockets in its next rounds
            await asyncio.sleep(0)


def _small(port: int) -> socket.socket:
    """A bound socket with a fixed small receive buffer: the kernel's own may grow to tens of megabytes and hide who buffers."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    bound.bind(("127.0.0.1", port))
    return bound


def parse_head(raw: bytes) -> tuple[str, dict[str, str]]:
    """The first line and the header fields; a field that stands twice is joined with ``|`` so that tests see it."""
    line, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers: dict[str, str] = {}
    for each in lines:
        name, _, value = each.partition(":")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}|{value}" if name in headers else value
    return line, headers


async def read_body(headers: Mapping[str, str], reader: asyncio.StreamReader) -> bytes:
    """The body that the headers announce."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            chunk = await reader.readexactly(size + 2)
            if not size:
                return body
            body += chunk[:-2]
    return await reader.readexactly(int(headers.get("content-length", "0")))


async def read_answer(reader: asyncio.StreamReader, *, method: str = "GET") -> Answer:
    """The next answer on a connection."""
    raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    line, headers = parse_head(raw)
    status = int(line.split(" ")[1])
    body = b""
    if method != "HEAD" and status not in {204, 304}:
        body = await asyncio.wait_for(read_body(headers, reader), 10)
    return Answer(status, headers, body)


def request_bytes(method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """A plain request."""
    fields = {"Host": "genba.test", **(headers or {})}
    if body:
        fields.setdefault("Content-Length", str(len(body)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


@dataclass
class Door:
    """A gateway that listens."""

    gateway: Gateway
    server: Server
    port: int
    key: str
    log: BytesIO
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    def auth(self, key: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {key or self.key}"}

    async def connect(self, *, limit: int = 2**22) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(0)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=client, limit=limit)
        self.clients.append(writer)
        return reader, writer

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        key: str | None = None,
        json: object = None,
    ) -> Answer:
        """One request on a connection of its own, as the admin if no other key is given; an empty key sends none."""
        fields = {**({} if key == "" else self.auth(key)), **(headers or {})}
        if json is not None:
            body = orjson.dumps(json)
            fields["Content-Type"] = "application/json"
        return await self.send(request_bytes(method, path, headers=fields, body=body), method=method)

    async def send(self, raw: bytes, *, method: str = "GET") -> Answer:
        """Raw bytes on a connection of their own; the first answer."""
        reader, writer = await self.connect()
        try:
            writer.write(raw)
            return await read_answer(reader, method=method)
        finally:
            writer.close()

    async def send_all(self, raw: bytes) -> bytes:
        """Raw bytes, then the end of what we send; everything that comes back until the gateway closes."""
        reader, writer = await self.connect()
        try:
            writer.write(raw)
            if writer.can_write_eof():
                writer.write_eof()
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()

    def new_key(self, role: str = "operator", **rights: Any) -> str:
        return self.gateway.keys.create(f"test {role}", role=role, **rights)[1]


def settings(platform: Platform, *services: Service, **changes: Any) -> Settings:
    """Settings with ``services`` behind the name sop."""
    upstreams = {"sop": tuple(service.url for service in services)} if services else {}
    return Settings.model_validate({"platform": platform, "upstreams": upstreams, **changes})


@asynccontextmanager
async def door(chosen: Settings, *, mounts: Mapping[str, Any] | None = None) -> AsyncIterator[Door]:
    """A gateway with a fresh database, listening on a free port, with an admin's key."""
    database = Database(chosen.platform.database_url)
    database.upgrade()
    database.close()
    log = BytesIO()
    gateway = create_app(chosen, mounts=mounts, access_log_stream=log)
    _, key = gateway.keys.create("admin", role="admin", clearance="secret")
    listening = listen("127.0.0.1", 0)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    server = server_for(gateway, host="127.0.0.1", port=0)
    task = asyncio.get_running_loop().create_task(server._serve([listening]))
    opened: Door | None = None
    try:
        await until(lambda: server.started or task.done())
        if task.done():
            listening.close()
            task.result()
        opened = Door(gateway, server, listening.getsockname()[1], key, log)
        yield opened
    finally:
        if opened is not None:
            for client in opened.clients:
                client.transport.abort()
        server.should_exit = True
        await task


async def until(condition: Callable[[], object], *, within_s: float = 10) -> None:
    """Wait for something that another task does. Raises: TimeoutError."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)
