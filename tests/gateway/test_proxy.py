"""What the proxy does between a client and a service, on real sockets: framing, streams, back-pressure, time, retries, ejection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.gateway.world import (
    OK,
    Door,
    Echo,
    Received,
    Service,
    answer_ok,
    answers,
    door,
    read_answer,
    read_body,
    request_bytes,
    running,
    settings,
    until,
)

from genba_gateway.http1 import HIGH_WATER_BYTES
from genba_shared.settings import Platform

MEBI = 1024 * 1024
QUICK = {"eject_s": 0.2, "max_eject_s": 0.2}


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
            while seen != sent:  # until nothing moves any more
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


def test_a_large_refused_body_does_not_cost_the_client_its_answer(platform: Platform) -> None:
    """Closing on unread bytes would reset the connection, and the client would see no 413 but an error."""

    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service, max_body_bytes=1000)) as gateway:
            for _ in range(5):
                answer = await gateway.ask("POST", "/v1/sop/x", body=b"x" * 800_000)
                assert answer.status == 413

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
            await asyncio.wait_for(gone.wait(), 5)
            await until(lambda: gateway.gateway.admission.in_work == 0)
            gateway.gateway.access_log.flush()
            assert b" 499 " in gateway.log.getvalue()

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


def test_a_kept_alive_connection_that_ended_is_replaced_without_the_client_noticing(platform: Platform) -> None:
    async def story() -> None:
        async def once(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await answer_ok(received, reader, writer)
            if len(service.requests) % 2:  # the next request on this connection finds it closed
                await writer.drain()
                writer.transport.abort()

        service = Service(once)
        async with running(service), door(settings(platform, service)) as gateway:
            for _ in range(6):
                assert (await gateway.ask("GET", "/v1/sop/x")).status == 200
            [address] = gateway.gateway.proxies[0].addresses
            assert not address.is_ejected

    told(story)


async def hang_up(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.mark.parametrize(("method", "attempts"), [("GET", 3), ("PUT", 3), ("DELETE", 3), ("POST", 1), ("PATCH", 1)])
def test_only_idempotent_requests_are_tried_again(platform: Platform, method: str, attempts: int) -> None:
    async def story() -> None:
        service = Service(hang_up)
        patient = settings(platform, service, resilience={"eject_after": 100, "retries": 2})
        async with running(service), door(patient) as gateway:
            body = b"{}" if method in {"POST", "PUT", "PATCH"} else b""
            answer = await gateway.ask(method, "/v1/sop/x", body=body)
            assert answer.status == 502
            assert len(service.requests) == attempts

    told(story)


def test_what_was_never_sent_may_go_elsewhere_whatever_its_method(platform: Platform) -> None:
    async def story() -> None:
        absent, present = Service(), Service()
        async with running(present), door(settings(platform, absent, present)) as gateway:
            answers_seen = {(await gateway.ask("POST", "/v1/sop/x", body=b"{}")).status for _ in range(12)}
            assert answers_seen == {200}
            assert len(present.requests) == 12

    told(story)


def test_a_503_of_one_instance_is_tried_at_another(platform: Platform) -> None:
    async def story() -> None:
        draining = Service(answers(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"))
        healthy = Service()
        async with running(draining, healthy), door(settings(platform, draining, healthy)) as gateway:
            statuses = {(await gateway.ask("GET", "/v1/sop/x")).status for _ in range(20)}
            assert statuses == {200}
            assert len(draining.requests) <= 6, "and then it is left alone"

    told(story)


def test_retries_stay_within_their_budget(platform: Platform) -> None:
    async def story() -> None:
        service = Service(hang_up)
        frugal = settings(
            platform, service, resilience={"eject_after": 1000, "retries": 2, "retry_ratio": 0.1, "retry_reserve": 3}
        )
        async with running(service), door(frugal) as gateway:
            for _ in range(20):
                await gateway.ask("GET", "/v1/sop/x")
            assert 20 + 3 <= len(service.requests) <= 20 + 3 + 2

    told(story)


def test_an_address_that_keeps_failing_is_left_alone_then_tried_by_one_request(platform: Platform) -> None:
    async def story() -> None:
        service = Service(hang_up)
        quick = settings(platform, service, resilience={"eject_after": 3, "retries": 0, **QUICK})
        async with running(service), door(quick) as gateway:
            for _ in range(3):
                assert (await gateway.ask("GET", "/v1/sop/x")).status == 502
            answer = await gateway.ask("GET", "/v1/sop/x")
            assert answer.status == 503
            assert answer.json()["type"] == "urn:genba:problem:service-unavailable"
            assert int(answer.headers["retry-after"]) >= 1
            assert len(service.requests) == 3, "nothing went there"
            [address] = gateway.gateway.proxies[0].addresses
            await until(lambda: not address.is_ejected)
            service.handle = answer_ok
            assert (await gateway.ask("GET", "/v1/sop/x")).status == 200
            assert (await gateway.ask("GET", "/v1/sop/x")).status == 200
            assert not address.is_ejected

    told(story)


def test_the_failing_one_of_two_instances_is_ejected_and_clients_see_nothing(platform: Platform) -> None:
    async def story() -> None:
        failing, healthy = Service(hang_up), Service()
        chosen = settings(platform, failing, healthy, resilience={"eject_after": 3, "eject_s": 30})
        async with running(failing, healthy), door(chosen) as gateway:
            statuses = [(await gateway.ask("GET", "/v1/sop/x")).status for _ in range(40)]
            assert set(statuses) == {200}
            assert len(failing.requests) == 3
            metrics = (await gateway.ask("GET", "/metrics")).body.decode()
            assert f'genba_gateway_upstream_ejected{{instance="{failing.url}",service="sop"}} 1.0' in metrics

    told(story)


def test_an_instance_that_says_it_is_not_ready_gets_no_new_work(platform: Platform) -> None:
    async def story() -> None:
        draining, ready = Service(), Service()
        async with running(draining, ready), door(settings(platform, draining, ready)) as gateway:
            gateway.gateway.proxies[0].addresses[0].is_ready = False
            for _ in range(10):
                assert (await gateway.ask("GET", "/v1/sop/x")).status == 200
            assert draining.requests == []

    told(story)


def test_connections_are_reused_last_in_first_out(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service)) as gateway:
            await asyncio.gather(*(gateway.ask("GET", "/v1/sop/x") for _ in range(8)))
            opened = service.connections
            for _ in range(20):
                await gateway.ask("GET", "/v1/sop/x")
            assert service.connections == opened <= 8

    told(story)


async def open_and_ask(gateway: Door, count: int) -> list[int]:
    return [answer.status for answer in await asyncio.gather(*(gateway.ask("GET", "/v1/sop/x") for _ in range(count)))]


def test_work_beyond_the_cap_waits_its_turn_and_beyond_the_queue_is_turned_away(platform: Platform) -> None:
    async def story() -> None:
        go_on = asyncio.Event()
        at_once = most_at_once = 0

        async def hold(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal at_once, most_at_once
            at_once += 1
            most_at_once = max(most_at_once, at_once)
            await go_on.wait()
            at_once -= 1
            writer.write(OK)

        service = Service(hold)
        small = settings(platform, service, resilience={"max_concurrency": 3, "max_waiting": 4, "queue_s": 5})
        async with running(service), door(small) as gateway:
            asking = asyncio.create_task(open_and_ask(gateway, 10))
            admission = gateway.gateway.admission
            await until(lambda: (at_once, admission.waiting, admission.shed["queue_full"]) == (3, 4, 3))
            go_on.set()
            statuses = await asking
            assert sorted(statuses) == [200] * 7 + [503] * 3
            assert most_at_once == 3
            assert admission.in_work == 0

    told(story)


def test_work_that_would_wait_too_long_is_turned_away_with_retry_after(platform: Platform) -> None:
    async def story() -> None:
        async def hold(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        service = Service(hold)
        small = settings(platform, service, resilience={"max_concurrency": 1, "queue_s": 0.3})
        async with running(service), door(small) as gateway:
            _, holder = await gateway.connect()
            holder.write(request_bytes("GET", "/v1/sop/x", headers=gateway.auth()))
            await until(lambda: service.requests)
            answer = await gateway.ask("GET", "/v1/sop/x")
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["reason"] == "queue_time"
            assert (await gateway.ask("GET", "/health")).status == 200, "probes never wait"
            holder.close()

    told(story)


def test_one_caller_cannot_take_every_slot(platform: Platform) -> None:
    async def story() -> None:
        async def hold(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if received.line.startswith("GET /v1/sop/hold"):
                await reader.read()
            writer.write(OK)

        service = Service(hold)
        async with running(service), door(settings(platform, service, max_concurrency_per_caller=2)) as gateway:
            greedy, other = gateway.new_key("operator"), gateway.new_key("operator")
            holders = []
            for _ in range(2):
                _, writer = await gateway.connect()
                writer.write(request_bytes("GET", "/v1/sop/hold", headers=gateway.auth(greedy)))
                holders.append(writer)
            await until(lambda: len(service.requests) == 2)
            assert (await gateway.ask("GET", "/v1/sop/x", key=greedy)).json()["reason"] == "caller_concurrency"
            assert (await gateway.ask("GET", "/v1/sop/x", key=other)).status == 200
            for writer in holders:
                writer.close()

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
