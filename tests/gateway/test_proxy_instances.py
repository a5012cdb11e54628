"""How the proxy chooses among a service's instances, on real sockets: retries, ejection, pools, waiting, turning away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.gateway.world import (
    OK,
    Door,
    Received,
    Service,
    answer_ok,
    answers,
    door,
    request_bytes,
    running,
    settings,
    until,
)

from genba_gateway.http1 import Pool
from genba_gateway.settings import Resilience
from genba_gateway.upstreams import Address
from genba_shared.settings import Platform

QUICK = {"eject_s": 0.2, "max_eject_s": 0.2}


def told(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]  # a coroutine function, as each story here is


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


def test_a_large_upload_goes_elsewhere_too_when_nothing_of_it_was_sent(platform: Platform) -> None:
    async def story() -> None:
        absent, present = Service(), Service()
        chosen = settings(platform, absent, present, resilience={"eject_after": 100})
        async with running(present), door(chosen) as gateway:
            body = bytes(100_000)  # more than is read before a connection is made
            for _ in range(8):
                for address in gateway.gateway.proxies[0].addresses:
                    address.is_ready = True  # as before the first look at one that has just gone
                assert (await gateway.ask("POST", "/v1/sop/x", body=body)).status == 200
            assert len(present.requests) == 8

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
            seconds = int(answer.headers["retry-after"])
            assert seconds >= 1
            assert answer.json()["detail"].endswith(f"try again in {seconds} s.")
            assert len(service.requests) == 3, "nothing went there"
            [address] = gateway.gateway.proxies[0].addresses
            await until(lambda: not address.is_ejected)
            service.handle = answer_ok
            assert (await gateway.ask("GET", "/v1/sop/x")).status == 200
            assert (await gateway.ask("GET", "/v1/sop/x")).status == 200
            assert not address.is_ejected

    told(story)


def test_many_requests_that_fail_in_one_moment_eject_an_address_once(platform: Platform) -> None:
    """What a process takes along that dies in the middle of its work is one failure: it may be back in a second."""

    async def story() -> None:
        async def die_together(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await until(lambda: len(service.requests) == 40)
            writer.transport.abort()

        service = Service(die_together)
        chosen = settings(platform, service, resilience={"retries": 0, "eject_s": 2, "max_eject_s": 1000})
        async with running(service), door(chosen) as gateway:
            refused = await asyncio.gather(*(gateway.ask("GET", "/v1/sop/x") for _ in range(40)))
            assert {answer.status for answer in refused} == {502}
            [address] = gateway.gateway.proxies[0].addresses
            assert address.is_ejected
            assert address.retry_after_s <= 2 * 1.2

    told(story)


def test_a_trial_that_takes_long_does_not_keep_everybody_else_out() -> None:
    now_s = 100.0
    pool = Pool("http://127.0.0.1:1", connect_s=1, idle_s=1)
    address = Address(pool, Resilience(eject_after=1, eject_s=2), clock=lambda: now_s)
    address.start()
    address.fail()
    assert address.is_ejected
    now_s += 2 * 1.2
    assert not address.is_ejected
    address.start()  # a long upload, say
    assert address.is_ejected, "one request tries it"
    now_s += 2
    assert not address.is_ejected, "and after a while another"
    address.start()
    address.succeed()
    assert not address.is_ejected
    address.give_up()
    assert not address.is_ejected


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


@pytest.mark.parametrize("verified_anew", [{}, {"token_cache_s": 0}])
def test_one_caller_cannot_take_every_slot(platform: Platform, verified_anew: dict[str, float]) -> None:
    async def story() -> None:
        async def hold(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if received.line.startswith("GET /v1/sop/hold"):
                await reader.read()
            writer.write(OK)

        service = Service(hold)
        chosen = settings(platform, service, max_concurrency_per_caller=2, **verified_anew)
        async with running(service), door(chosen) as gateway:
            greedy, other = gateway.new_key("operator"), gateway.new_key("operator")
            holders = []
            for _ in range(2):
                _, writer = await gateway.connect()
                writer.write(request_bytes("GET", "/v1/sop/hold", headers=gateway.auth(greedy)))
                holders.append(writer)
            await until(lambda: len(service.requests) == 2)
            refused = await gateway.ask("GET", "/v1/sop/x", key=greedy)
            assert (refused.status, refused.json().get("reason")) == (503, "caller_concurrency")
            assert (await gateway.ask("GET", "/v1/sop/x", key=other)).status == 200
            for writer in holders:
                writer.close()
            await until(lambda: not gateway.gateway.pipeline._in_work)
            assert (await gateway.ask("GET", "/v1/sop/x", key=greedy)).status == 200

    told(story)
