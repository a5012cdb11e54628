"""What the proxy does between a client and a service, on real sockets: framing, streams, back-pressure, time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.gateway.world import (
    OK,
    Echo,
    Received,
    Service,
    answers,
    door,
    read_answer,
    read_body,
    request_bytes,
    running,
    settings,
    until,
)

from genba_gateway.http1 import HIGH_WATER_BYTES, Connection, Pool
from genba_gateway.proxy import _request_head
from genba_shared.problems import BadRequest
from genba_shared.settings import Platform

MEBI = 1024 * 1024


def told(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]  # a coroutine function, as each story here is


def test_a_small_answer_comes_back_as_the_service_sent_it(platform: Platform) -> None:
    async def story() -> None:
        service = Service(
            answers(
                b"HTTP/1.1 418 Teapot\r\nx-a: b\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 2\r\n\r\nhi"
            )
        )
        async with running(service), door(settings(platform, service)) as gateway:
            answer = await gateway.ask("GET", "/v1/sop/x")
            assert (answer.status, answer.body, answer.headers["x-a"]) == (418, b"hi", "b")
            assert answer.headers["set-cookie"] == "a=1|b=2"
            assert answer.headers["content-length"] == "2"

    told(story)


@pytest.mark.parametrize(
    ("method", "raw", "status", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 4711\r\n\r\n", 200, "4711"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\netag: x\r\ncontent-length: 12\r\n\r\n", 304, "12"),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" + OK, 200, "11"),
    ],
)
def test_answers_without_a_body_and_answers_after_hints_keep_both_connections(
    platform: Platform, method: str, raw: bytes, status: int, length: str | None
) -> None:
    async def story() -> None:
        service = Service(answers(raw))
        async with running(service), door(settings(platform, service)) as gateway:
            reader, writer = await gateway.connect()
            for _ in range(3):
                writer.write(request_bytes(method, "/v1/sop/x", headers=gateway.auth()))
                answer = await read_answer(reader, method=method)
                assert (answer.status, answer.headers.get("content-length")) == (status, length)
                assert "x" not in answer.headers
            writer.close()
            assert (len(service.requests), service.connections) == (3, 1)

    told(story)


HOSTILE_ANSWERS = {
    "no HTTP": b"hello\r\n\r\n",
    "both lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
    "an unknown coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc",
    "a folded field": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    "a NUL in a field": b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 0\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "a status that is none": b"HTTP/1.1 2OO OK\r\ncontent-length: 0\r\n\r\n",
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"content-length: 0\r\n\r\n",
    "too large fields": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\ncontent-length: 0\r\n\r\n",
    "an answer to HTTP/2": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
}


def test_an_answer_that_is_not_strict_http_becomes_502(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        quiet = settings(platform, service, resilience={"eject_after": 1000, "retries": 0})
        wrong = {}
        async with running(service), door(quiet) as gateway:
            for name, raw in HOSTILE_ANSWERS.items():
                service.handle = answers(raw)
                answer = await gateway.ask("POST", "/v1/sop/x", body=b"x")
                if answer.status != 502 or answer.json()["status"] != 502:
                    wrong[name] = answer
        assert wrong == {}

    told(story)


def test_bytes_behind_an_answer_are_never_taken_for_the_next_one(platform: Platform) -> None:
    async def story() -> None:
        service = Service(answers(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"))
        async with running(service), door(settings(platform, service)) as gateway:
            for _ in range(5):
                answer = await gateway.ask("GET", "/v1/sop/x")
                assert (answer.status, answer.body) in {(200, b'{"ok":true}'), (502, answer.body)}
                assert b"poison" not in answer.body

    told(story)


def test_an_answer_that_breaks_off_is_not_taken_for_whole(platform: Platform) -> None:
    async def story() -> None:
        async def break_off(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await writer.drain()
            writer.close()

        service = Service(break_off)
        async with running(service), door(settings(platform, service)) as gateway:
            reader, writer = await gateway.connect()
            writer.write(request_bytes("GET", "/v1/sop/x", headers=gateway.auth()))
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await read_answer(reader)
            writer.close()
            metrics = (await gateway.ask("GET", "/metrics")).body.decode()
            failed = 'genba_gateway_requests_total{method="GET",route="/v1/sop",status="502"} 1.0'
            assert failed in metrics, "the service failed, and not the client"

    told(story)


def test_an_upload_streams_with_back_pressure_and_arrives_whole(platform: Platform) -> None:
    """The service reads nothing until told; meanwhile the client must be stopped, not the gateway filled."""

    async def story() -> None:
        go_on = asyncio.Event()
        arrived = 0

        async def slow(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal arrived
            await go_on.wait()
            arrived = len(await read_body(received.headers, reader))
            writer.write(OK)

        service = Service(slow)
        async with running(service), door(settings(platform, service)) as gateway:
            reader, writer = await gateway.connect()
            size = 64 * MEBI
            writer.write(request_bytes("PUT", "/v1/sop/x", headers={**gateway.auth(), "Content-Length": str(size)}))
            sent = 0
            piece = b"x" * 65536
            with contextlib.suppress(TimeoutError):  # the pipe is full: the client has to wait
                while sent < size:
                    writer.write(piece)
                    sent += len(piece)
                    await asyncio.wait_for(writer.drain(), 0.5)
            assert sent < 32 * MEBI, "the gateway took in what nobody reads"
            go_on.set()
            while sent < size:
                writer.write(piece)
                sent += len(piece)
                await writer.drain()
            assert (await read_answer(reader)).status == 200
            writer.close()
            assert arrived == size

    told(story)


def test_a_chunked_upload_is_framed_anew(platform: Platform) -> None:
    async def story() -> None:
        bodies = []

        async def keep(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            bodies.append(await read_body(received.headers, reader))
            writer.write(OK)

        service = Service(keep)
        async with running(service), door(settings(platform, service)) as gateway:
            head = request_bytes("POST", "/v1/sop/x", headers={**gateway.auth(), "Transfer-Encoding": "chunked"})
            answer = await gateway.send(head + b"3;name=value\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            assert answer.status == 200
            assert bodies == [b"abcde"]
            assert service.requests[0].headers["transfer-encoding"] == "chunked"
            assert "content-length" not in service.requests[0].headers

    told(story)


def test_a_download_streams_with_back_pressure(platform: Platform) -> None:
    """The client reads nothing at first; the gateway then holds a little, and the service has to wait."""

    async def story() -> None:
        sent = 0
        size = 64 * MEBI

        async def pour(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            while sent < size:
                writer.write(b"x" * 65536)
                sent += 65536
                await writer.drain()

        service = Service(pour)
        async with running(service), door(settings(platform, service)) as gateway:
            reader, writer = await gateway.connect(limit=65536)
            writer.write(request_bytes("GET", "/v1/sop/x", headers=gateway.auth()))
            seen = -1
            while not sent or seen != sent:  # until nothing moves any more
                seen = sent
                await asyncio.sleep(0.3)
            assert HIGH_WATER_BYTES < sent < 32 * MEBI
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"content-length: %d" % size in head
            left = size
            while left:
                left -= len(await reader.read(2**20))
            writer.close()

    told(story)


def test_pieces_of_an_answer_reach_the_client_one_by_one(platform: Platform) -> None:
    async def story() -> None:
        go_on = asyncio.Event()

        async def events(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"
            )
            await go_on.wait()
            writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

        service = Service(events)
        async with running(service), door(settings(platform, service)) as gateway:
            reader, writer = await gateway.connect()
            writer.write(request_bytes("GET", "/v1/sop/x", headers=gateway.auth()))
            await reader.readuntil(b"3\r\none\r\n")
            go_on.set()
            await reader.readuntil(b"3\r\ntwo\r\n0\r\n\r\n")
            writer.close()

    told(story)


def test_a_body_over_the_cap_is_refused_before_it_is_read(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service, max_body_bytes=1000)) as gateway:
            head = request_bytes("POST", "/v1/sop/x", headers={**gateway.auth(), "Content-Length": "1001"})
            answer = await gateway.send(head)
            assert answer.status == 413
            assert answer.json()["max_body_bytes"] == 1000
            polite = request_bytes(
                "POST", "/v1/sop/x", headers={**gateway.auth(), "Content-Length": "1001", "Expect": "100-continue"}
            )
            assert (await gateway.send(polite)).status == 413, "no 100 Continue before it"
            assert service.requests == []

    told(story)


def test_a_chunked_body_over_the_cap_is_refused_while_it_streams(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service, max_body_bytes=100_000)) as gateway:
            head = request_bytes("POST", "/v1/sop/x", headers={**gateway.auth(), "Transfer-Encoding": "chunked"})
            answer = await gateway.send(head + b"10000\r\n" + b"x" * 65536 + b"\r\n10000\r\n" + b"x" * 65536 + b"\r\n")
            assert answer.status == 413
            assert answer.headers["connection"] == "close"

    told(story)


def test_100_continue_is_sent_when_the_body_is_wanted(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service)) as gateway:
            reader, writer = await gateway.connect()
            writer.write(
                request_bytes(
                    "POST", "/v1/sop/x", headers={**gateway.auth(), "Content-Length": "2", "Expect": "100-continue"}
                )
            )
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hi")
            assert (await read_answer(reader)).status == 200
            writer.close()
            assert "expect" not in service.requests[0].headers

    told(story)


def test_an_early_answer_to_an_upload_is_passed_on(platform: Platform) -> None:
    async def story() -> None:
        async def refuse(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 415 Unsupported Media Type\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
            await writer.drain()

        service = Service(refuse)
        async with running(service), door(settings(platform, service)) as gateway:
            reader, writer = await gateway.connect()
            writer.write(request_bytes("POST", "/v1/sop/x", headers={**gateway.auth(), "Content-Length": "10000000"}))
            writer.write(b"x" * 100_000)
            answer = await read_answer(reader)
            assert (answer.status, answer.body) == (415, b"no")
            assert answer.headers["connection"] == "close"
            writer.close()

    told(story)


def test_a_client_that_leaves_takes_its_request_to_the_service_with_it(platform: Platform) -> None:
    async def story() -> None:
        gone = asyncio.Event()

        async def wait(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.read() == b""
            gone.set()

        service = Service(wait)
        async with running(service), door(settings(platform, service)) as gateway:
            _, writer = await gateway.connect()
            writer.write(request_bytes("GET", "/v1/sop/x", headers=gateway.auth()))
            await until(lambda: service.requests)
            writer.close()
            await asyncio.wait_for(gone.wait(), 60)
            await until(lambda: gateway.gateway.admission.in_work == 0)
            gateway.gateway.access_log.flush()
            assert b" 499 " in gateway.log.getvalue()

    told(story)


def test_a_client_that_leaves_before_there_is_a_connection_asks_the_service_for_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        service, may_connect, connect = Service(), asyncio.Event(), Pool.connect

        async def connect_late(pool: Pool) -> Connection:
            await may_connect.wait()
            return await connect(pool)

        async with running(service), door(settings(platform, service)) as gateway:
            monkeypatch.setattr(Pool, "connect", connect_late)
            [proxy] = gateway.gateway.proxies
            _, writer = await gateway.connect()
            writer.write(request_bytes("GET", "/v1/sop/x", headers=gateway.auth()))
            await until(lambda: proxy._exchanges)
            [exchange] = proxy._exchanges
            writer.close()
            await until(lambda: exchange.is_abandoned)
            may_connect.set()
            await until(lambda: gateway.gateway.admission.in_work == 0)
            assert service.requests == []

    told(story)


def test_a_service_that_does_not_answer_in_time_is_504_and_is_asked_once(platform: Platform) -> None:
    async def story() -> None:
        async def never(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        service = Service(never)
        async with running(service), door(settings(platform, service, timeouts={"response_s": 0.2})) as gateway:
            answer = await gateway.ask("GET", "/v1/sop/x")
            assert answer.status == 504
            assert len(service.requests) == 1

    told(story)


def test_a_service_that_stops_taking_a_body_is_504_and_holds_no_slot(platform: Platform) -> None:
    async def story() -> None:
        async def take_nothing(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.Event().wait()

        service = Service(take_nothing)
        hasty = settings(platform, service, timeouts={"stream_s": 0.2})
        async with running(service), door(hasty) as gateway:
            reader, writer = await gateway.connect()
            writer.write(request_bytes("PUT", "/v1/sop/x", headers=gateway.auth(), body=bytes(8 * 2**20)))
            assert (await read_answer(reader)).status == 504
            assert len(service.requests) == 1
            await until(lambda: gateway.gateway.admission.in_work == 0)
            writer.close()

    told(story)


def test_a_client_that_takes_nothing_of_its_answer_is_taken_for_gone(platform: Platform) -> None:
    async def story() -> None:
        service = Service(answers(b"HTTP/1.1 200 OK\r\ncontent-length: 33554432\r\n\r\n" + bytes(2**25)))
        hasty = settings(platform, service, timeouts={"stream_s": 0.2})
        async with running(service), door(hasty) as gateway:
            _, writer = await gateway.connect()
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that also reads
            writer.write(request_bytes("GET", "/v1/sop/x", headers=gateway.auth()))
            await until(lambda: service.requests)
            await until(lambda: gateway.gateway.admission.in_work == 0)
            metrics = (await gateway.ask("GET", "/metrics")).body.decode()
            assert 'genba_gateway_requests_total{method="GET",route="/v1/sop",status="499"} 1.0' in metrics

    told(story)


def test_a_trailer_without_end_is_not_kept(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service)) as gateway:
            reader, writer = await gateway.connect()
            fields = {**gateway.auth(), "Transfer-Encoding": "chunked"}
            writer.write(request_bytes("POST", "/v1/sop/x", headers=fields) + b"5\r\nhello\r\n0\r\nx-a: ")
            await until(lambda: service.requests)
            writer.write(b"a" * 100_000)
            assert (await read_answer(reader)).status == 431
            writer.close()

    told(story)


def test_a_client_that_stops_sending_its_body_gets_408(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service, timeouts={"body_s": 0.2})) as gateway:
            answer = await gateway.send(
                request_bytes("POST", "/v1/sop/x", headers={**gateway.auth(), "Content-Length": "5"}) + b"ab"
            )
            assert answer.status == 408
            assert service.requests == [], "a small body is read whole before a connection is taken for it"

    told(story)


def test_a_client_that_stops_sending_its_headers_gets_408(platform: Platform) -> None:
    async def story() -> None:
        async with door(settings(platform, timeouts={"header_s": 0.2})) as gateway:
            answer = await gateway.send(b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nX-Slow")
            assert answer.status == 408
            assert answer.headers["connection"] == "close"

    told(story)


def test_the_headers_of_a_second_request_have_as_long_as_those_of_the_first(platform: Platform) -> None:
    async def story() -> None:
        echo, slow = Echo(), {"header_s": 0.2, "keep_alive_s": 60}
        async with door(settings(platform, timeouts=slow), mounts={"sop": echo}) as gateway:
            reader, writer = await gateway.connect()
            writer.write(request_bytes("GET", "/v1/sop/x", headers=gateway.auth()))
            assert (await read_answer(reader)).status == 200
            writer.write(b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nX-Slow")
            assert (await asyncio.wait_for(read_answer(reader), 10)).status == 408
            writer.close()

    told(story)


def test_what_an_answer_says_of_its_hop_stays_there(platform: Platform) -> None:
    raw = (
        b"HTTP/1.1 200 OK\r\nserver: s\r\ndate: d\r\nkeep-alive: timeout=5\r\nx-hop: 1\r\nx-kept: 2\r\n"
        b"connection: keep-alive, X-Hop, Content-Length\r\ncontent-length: 2\r\n\r\nhi"
    )

    async def story() -> None:
        service = Service(answers(raw))
        async with running(service), door(settings(platform, service)) as gateway:
            for _ in range(2):
                answer = await gateway.ask("GET", "/v1/sop/x")
                assert (answer.body, answer.headers["x-kept"], answer.headers["content-length"]) == (b"hi", "2", "2")
                assert answer.headers.keys().isdisjoint({"x-hop", "keep-alive", "connection", "server"})
                assert answer.headers["date"] != "d"

    told(story)


@pytest.mark.parametrize("value", [b"a\nb", b"a\rb", b"a\r\nx-injected: 1", b"a\0b"])
def test_a_line_break_in_a_value_goes_out_on_neither_side(platform: Platform, value: bytes) -> None:
    """Parsers let none through; this is for servers and applications that do."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope["path"] == "/ready":
            await Echo()(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", value)]})
        await send({"type": "http.response.body", "body": b""})

    scope = {"method": "GET", "raw_path": b"/", "query_string": b"", "headers": [(b"x-a", value)]}
    with pytest.raises(BadRequest):
        _request_head(scope, b"service", 0)

    async def story() -> None:
        async with door(settings(platform), mounts={"sop": app}) as gateway:
            answer = await gateway.ask("GET", "/v1/sop/x")
            assert (answer.status, "x-a" in answer.headers, "x-injected" in answer.headers) == (500, False, False)

    told(story)


def test_a_mounted_service_streams_both_ways_with_back_pressure_too(platform: Platform) -> None:
    async def story() -> None:
        go_on = asyncio.Event()
        size = 32 * MEBI
        arrived = sent_back = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal arrived, sent_back
            if scope["type"] == "lifespan" or scope["path"] == "/ready":
                await Echo()(scope, receive, send)
                return
            await go_on.wait()
            more_body = True
            while more_body:
                message = await receive()
                arrived += len(message["body"])
                more_body = message["more_body"]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while sent_back < size:
                sent_back += 65536
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": sent_back < size})

        async with door(settings(platform), mounts={"sop": app}) as gateway:
            reader, writer = await gateway.connect(limit=65536)
            writer.write(request_bytes("PUT", "/v1/sop/x", headers={**gateway.auth(), "Content-Length": str(size)}))
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < size:
                    writer.write(b"x" * 65536)
                    sent += 65536
                    await asyncio.wait_for(writer.drain(), 0.5)
            assert sent < 16 * MEBI, "the gateway took in what nobody reads"
            go_on.set()
            while sent < size:
                writer.write(b"x" * 65536)
                sent += 65536
                await writer.drain()
            await reader.readuntil(b"\r\n\r\n")
            seen = -1
            while seen != sent_back:  # until nothing moves any more
                seen = sent_back
                await asyncio.sleep(0.3)
            assert arrived == size
            assert sent_back < 16 * MEBI, "the gateway took in what nobody reads"

    told(story)
