"""Rate limits: one suite for the store in memory and the one in Redis, then what a client sees of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from tests.gateway.world import Service, door, free_port, running, settings

from genba_gateway.admission import Admission
from genba_gateway.limits import Decision, Limiter, MemoryLimiter, Policy
from genba_gateway.limits_redis import RedisLimiter
from genba_gateway.upstreams import RetryBudget
from genba_shared.problems import Overloaded
from genba_shared.settings import Platform

SLOW = Policy("slow", per_minute=1, burst=3)  # an interval of a minute: no request of a test refills it
FAST = Policy("fast", per_minute=60_000, burst=2)  # an interval of a millisecond

Story = Callable[[Limiter, str], Awaitable[None]]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.distributed)])
def with_limiter(request: pytest.FixtureRequest) -> Callable[[Story], None]:
    """Runs a story with each kind of limiter and a caller of its own."""

    def run(story: Story) -> None:
        async def told() -> None:
            prefix = f"genba-test:{secrets.token_hex(6)}:"
            limiter: Limiter = (
                MemoryLimiter()
                if request.param == "memory"
                else RedisLimiter(request.getfixturevalue("redis_url"), timeout_s=5, prefix=prefix)
            )
            try:
                await story(limiter, "somebody")
            finally:
                await limiter.close()

        asyncio.run(told())

    return run


def test_a_burst_passes_and_what_follows_is_refused_with_the_time_to_wait(
    with_limiter: Callable[[Story], None],
) -> None:
    async def story(limiter: Limiter, caller: str) -> None:
        taken = [await limiter.take(caller, SLOW) for _ in range(5)]
        assert [decision.is_allowed for decision in taken] == [True, True, True, False, False]
        assert [decision.remaining for decision in taken] == [2, 1, 0, 0, 0]
        assert 50 < taken[3].retry_after_s <= 60
        assert 170 < taken[3].reset_s <= 180

    with_limiter(story)


def test_callers_do_not_count_against_each_other(with_limiter: Callable[[Story], None]) -> None:
    async def story(limiter: Limiter, caller: str) -> None:
        for _ in range(4):
            await limiter.take(caller, SLOW)
        assert (await limiter.take(caller + "else", SLOW)).is_allowed

    with_limiter(story)


def test_a_refused_request_costs_nothing(with_limiter: Callable[[Story], None]) -> None:
    async def story(limiter: Limiter, caller: str) -> None:
        waits = [(await limiter.take(caller, SLOW)).retry_after_s for _ in range(10)]
        assert max(waits[3:]) <= waits[3] + 0.001

    with_limiter(story)


def test_waiting_as_told_is_enough(with_limiter: Callable[[Story], None]) -> None:
    async def story(limiter: Limiter, caller: str) -> None:
        while (decision := await limiter.take(caller, FAST)).is_allowed:
            pass
        await asyncio.sleep(decision.retry_after_s + 0.002)
        assert (await limiter.take(caller, FAST)).is_allowed

    with_limiter(story)


@pytest.mark.distributed
def test_two_gateways_with_one_redis_count_together(redis_url: str) -> None:
    async def story() -> None:
        prefix = f"genba-test:{secrets.token_hex(6)}:"
        one, other = (RedisLimiter(redis_url, timeout_s=5, prefix=prefix) for _ in range(2))
        allowed = [(await limiter.take("somebody", SLOW)).is_allowed for limiter in (one, other, one, other)]
        assert allowed == [True, True, True, False]
        await one.close()
        await other.close()

    asyncio.run(story())


@pytest.mark.distributed
def test_more_requests_at_once_than_connections_are_still_counted_together(redis_url: str) -> None:
    async def story() -> None:
        limiter = RedisLimiter(redis_url, timeout_s=5, prefix=f"genba-test:{secrets.token_hex(6)}:")
        policy = Policy("wide", per_minute=1, burst=100)
        await limiter.take("somebody else", policy)
        taken = await asyncio.gather(*(limiter.take("somebody", policy) for _ in range(300)))
        assert sum(decision.is_allowed for decision in taken) == 100
        await limiter.close()

    asyncio.run(story())


@pytest.mark.distributed
def test_nobody_waits_for_a_clock_of_redis_that_was_set_back(redis_url: str) -> None:
    async def story() -> None:
        prefix = f"genba-test:{secrets.token_hex(6)}:"
        limiter = RedisLimiter(redis_url, timeout_s=5, prefix=prefix)
        async with Redis.from_url(redis_url) as redis:
            seconds, _ = await redis.time()
            await redis.set(f"{prefix}somebody", (seconds + 3600) * 1_000_000, px=60_000)  # written an hour later
        refused = await limiter.take("somebody", SLOW)
        assert not refused.is_allowed
        assert refused.retry_after_s <= 60
        await limiter.close()

    asyncio.run(story())


def test_without_its_redis_a_gateway_counts_alone_and_goes_on() -> None:
    async def story() -> None:
        limiter = RedisLimiter(f"redis://127.0.0.1:{free_port()}")
        allowed = [(await limiter.take("somebody", SLOW)).is_allowed for _ in range(4)]
        assert allowed == [True, True, True, False]
        await limiter.close()

    asyncio.run(story())


@given(
    gaps_s=st.lists(st.floats(min_value=0, max_value=5), min_size=1, max_size=200),
    per_minute=st.integers(min_value=1, max_value=600),
    burst=st.integers(min_value=1, max_value=20),
)
def test_in_no_window_do_more_pass_than_the_burst_and_the_rate_allow(
    gaps_s: list[float], per_minute: int, burst: int
) -> None:
    now_s = 0.0
    limiter = MemoryLimiter(clock=lambda: now_s)
    policy = Policy("p", per_minute, burst)
    passed: list[float] = []
    for gap_s in gaps_s:
        now_s += gap_s
        decision = limiter.take_now("a", policy)
        assert 0 <= decision.remaining < burst or not decision.is_allowed
        if decision.is_allowed:
            passed.append(now_s)
            continue
        now_s += decision.retry_after_s + 1e-6
        assert limiter.take_now("a", policy).is_allowed, "whoever waits as told is let in"
        passed.append(now_s)
    for first, start_s in enumerate(passed):
        for last in range(first, len(passed)):
            window_s = passed[last] - start_s
            assert last - first + 1 <= burst + window_s * per_minute / 60 + 1e-3


def test_callers_whose_burst_is_full_again_are_forgotten() -> None:
    now_s = 0.0
    limiter = MemoryLimiter(clock=lambda: now_s)
    for number in range(100):
        limiter.take_now(f"caller-{number}", SLOW)
    now_s = 61.0
    limiter.take_now("caller-7", SLOW)
    limiter.forget_idle()
    assert list(limiter._arrivals_s) == ["caller-7"]


def test_the_header_fields_are_those_of_the_draft() -> None:
    assert Policy("default", 600, 100).header == b'"default";q=100;w=10'
    assert Decision(is_allowed=True, remaining=7, reset_s=1.2).header(SLOW) == b'"slow";r=7;t=2'


def test_a_client_sees_its_quota_shrink_then_429_and_when_to_come_back(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service, rate_per_minute=6, rate_burst=3)) as gateway:
            key = gateway.new_key("viewer")
            seen = [await gateway.ask("GET", "/v1/sop/x", key=key) for _ in range(4)]
            assert [answer.status for answer in seen] == [200, 200, 200, 429]
            assert [answer.headers["ratelimit"].split(";")[1] for answer in seen] == ["r=2", "r=1", "r=0", "r=0"]
            assert {answer.headers["ratelimit-policy"] for answer in seen} == {'"default";q=3;w=30'}
            assert 1 <= int(seen[3].headers["retry-after"]) <= 10
            assert seen[3].json()["type"] == "urn:genba:problem:too-many-requests"
            assert len(service.requests) == 3
            assert (await gateway.ask("GET", "/v1/sop/x")).status == 200, "others are not touched"

    asyncio.run(story())


def test_a_key_may_have_a_rate_of_its_own_and_its_successor_shares_the_count(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service, rate_per_minute=60, rate_burst=60)) as gateway:
            record, key = gateway.gateway.keys.create("slow", role="viewer", rate_per_minute=2)
            _, successor = gateway.gateway.keys.rotate(record.id)
            statuses = [
                (await gateway.ask("GET", "/v1/sop/x", key=each)).status for each in (key, successor, key, successor)
            ]
            assert statuses == [200, 200, 429, 429]

    asyncio.run(story())


@given(
    requests=st.lists(st.booleans(), max_size=300),
    ratio=st.floats(min_value=0, max_value=1),
    reserve=st.integers(0, 20),
)
def test_retries_never_exceed_what_requests_earned(requests: list[bool], ratio: float, reserve: int) -> None:
    budget = RetryBudget(ratio=ratio, reserve=reserve)
    earned, spent = float(reserve), 0
    for wants_retry in requests:
        budget.earn()
        earned += ratio
        spent += wants_retry and budget.spend()
        assert spent <= earned + 1e-6


def test_a_waiting_request_that_is_given_up_frees_its_place() -> None:
    async def story() -> None:
        admission = Admission(max_concurrency=1, max_waiting=5, queue_s=60)
        await admission.enter()
        first, second = (asyncio.create_task(admission.enter()) for _ in range(2))
        await asyncio.sleep(0)
        assert admission.waiting == 2
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        admission.leave()
        await second
        assert (admission.waiting, admission.in_work) == (0, 1)
        admission.leave()
        assert admission.in_work == 0

    asyncio.run(story())


def test_new_work_is_turned_away_while_the_event_loop_goes_on_lagging() -> None:
    async def story() -> None:
        admission = Admission(max_concurrency=10, max_waiting=5, queue_s=0.5)
        for _ in range(3):  # one long pause, and what it held up
            admission.note_lag(3.0)
            await admission.enter()
        admission.note_lag(0.6)
        assert admission.lag_s == 0.6
        with pytest.raises(Overloaded) as refusal:
            await admission.enter()
        assert refusal.value.members["reason"] == "loop_lag"
        admission.note_lag(0.1)
        await admission.enter()

    asyncio.run(story())
