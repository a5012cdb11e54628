"""A client whose upload is refused learns why, on real sockets, and does not hold its connection."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from collections.abc import Awaitable, Callable

import pytest
from tests.gateway.world import Received, Service, door, read_answer, request_bytes, running, settings, until

from genba_gateway import listener
from genba_shared.settings import Platform


def told(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]  # a coroutine function, as each story here is


@pytest.mark.parametrize("refused_by", ["gateway", "service"])
def test_a_client_that_reads_nothing_before_all_is_sent_learns_why_it_was_refused(
    platform: Platform, refused_by: str
) -> None:
    """Closing on unread bytes would reset the connection, and the client would see no answer but an error."""

    async def refuse(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 415 Unsupported Media Type\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
        await writer.drain()

    def upload(port: int, headers: dict[str, str]) -> int:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(client):
            client.putrequest("POST", "/v1/sop/x")
            for name, value in headers.items():
                client.putheader(name, value)
            client.putheader("Content-Length", str(256 * 65536))
            client.endheaders()
            for _ in range(256):
                client.send(b"x" * 65536)
            return client.getresponse().status

    async def story() -> None:
        service = Service(refuse)
        async with running(service), door(settings(platform, service)) as gateway:
            headers = gateway.auth("gnb_nobody" if refused_by == "gateway" else None)
            status = await asyncio.to_thread(upload, gateway.port, headers)
            assert status == (401 if refused_by == "gateway" else 415)
            await until(lambda: not gateway.server.server_state.connections)

    told(story)


@pytest.mark.parametrize("then", ["stays", "sends for ever"])
def test_a_refused_client_does_not_hold_its_connection(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(listener, "_LINGER_IDLE_S", 0.1 if then == "stays" else 60.0)
    monkeypatch.setattr(listener, "_LINGER_S", 60.0 if then == "stays" else 0.1)

    async def send_for_ever(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service)) as gateway:
            reader, writer = await gateway.connect()
            head = {**gateway.auth(), "Content-Length": "100000000000"}
            writer.write(request_bytes("POST", "/v1/sop/x", headers=head))
            assert (await read_answer(reader)).status == 413
            if then == "sends for ever":
                with pytest.raises(ConnectionError):
                    await send_for_ever(writer)
            await until(lambda: not gateway.server.server_state.connections)

    told(story)
