"""The sweeper: what was lost is sent again, by one process at a time, and trouble does not end it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from genba_shared.job_upkeep import Upkeep
from genba_shared.jobs import Job, Jobs
from genba_training.sweeper import DUTY, Sweeper


class Broker:
    """What was sent, and whether it still takes anything."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.up = True
        self.heard = threading.Event()
        self.messages = {"cpu": 1, "gpu": 1}

    def send(self, job_id: str, queue: str) -> bool:
        if self.up:
            self.sent.append((job_id, queue))
            self.heard.set()
        return self.up

    def waiting(self) -> dict[str, int]:
        return self.messages if self.up else {}


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def sweeper(jobs: Jobs, broker: Broker) -> Sweeper:
    return build(jobs, broker)


def build(jobs: Jobs, broker: Broker, *, owner: str = "api-1", every_s: float = 0.01) -> Sweeper:
    return Sweeper(Upkeep(jobs.database), broker, owner=owner, every_s=every_s, keep_jobs=timedelta(days=2))


def test_a_job_without_a_message_gets_one_and_only_one_for_a_while(
    sweeper: Sweeper, broker: Broker, submit: Callable[..., Job]
) -> None:
    job = submit("test.work")
    for _ in range(3):
        sweeper.sweep()
    assert broker.sent == [(job.id, "cpu")]


def test_a_broker_that_comes_back_gets_what_it_missed(
    sweeper: Sweeper, broker: Broker, submit: Callable[..., Job]
) -> None:
    made = [submit("test.work").id for _ in range(3)]
    broker.up = False
    sweeper.sweep()
    assert broker.sent == []
    broker.up = True
    sweeper.sweep()
    assert [job_id for job_id, _ in broker.sent] == made


def test_a_broker_that_lost_everything_is_told_again_without_waiting(
    jobs: Jobs, broker: Broker, submit: Callable[..., Job]
) -> None:
    job = submit("test.work")
    build(jobs, broker).sweep()
    Upkeep(jobs.database).published([job.id])  # as if it had been sent several times: the next would be long off
    broker.messages = {"cpu": 0, "gpu": 0}
    build(jobs, broker).sweep()
    assert broker.sent == [(job.id, "cpu")] * 2


def test_a_silent_workers_job_is_sent_again(
    sweeper: Sweeper, broker: Broker, jobs: Jobs, submit: Callable[..., Job]
) -> None:
    job = submit("test.work")
    assert jobs.claim(job.id, owner="worker-1", lease_s=-1)
    sweeper.sweep()
    assert broker.sent == [(job.id, "cpu")]


def test_of_two_processes_one_sweeps_until_it_stops(jobs: Jobs, broker: Broker, submit: Callable[..., Job]) -> None:
    first, second, idle = build(jobs, broker), build(jobs, Broker(), owner="api-2"), Broker()
    first.start()
    first.sweep()
    submit("test.work")
    build(jobs, idle, owner="api-3").sweep()
    assert idle.sent == []
    first.stop()
    assert Upkeep(jobs.database).lead(DUTY, owner="api-2", lease_s=30)
    second.sweep()


def test_a_database_that_is_away_does_not_end_the_sweeper(
    jobs: Jobs, broker: Broker, submit: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, mended = threading.Event(), threading.Event()
    expire_leases = Upkeep.expire_leases

    def away(upkeep: Upkeep) -> object:
        if not mended.is_set():
            failed.set()
            raise ConnectionError("no route to the database")
        return expire_leases(upkeep)

    monkeypatch.setattr(Upkeep, "expire_leases", away)
    sweeper = build(jobs, broker)
    submit("test.work")
    sweeper.start()
    assert failed.wait(20)
    mended.set()
    assert broker.heard.wait(20)
    assert sweeper.unwell() is None
    sweeper.stop()


def test_a_sweeper_that_stands_still_makes_the_service_unready(
    sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeper.sweep()
    assert sweeper.unwell() is None
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 100)
    assert "has not swept for 10" in (sweeper.unwell() or "")


def test_one_process_says_that_it_leads_and_counts_the_workers_that_fell_silent(
    jobs: Jobs, broker: Broker, submit: Callable[..., Job]
) -> None:
    first, second = build(jobs, broker), build(jobs, broker, owner="api-2")
    assert jobs.claim(submit("test.work").id, owner="worker-1", lease_s=-1)
    first.sweep()
    second.sweep()
    assert (first.leads, second.leads) == (True, False)
    assert (first.expired_leases, second.expired_leases) == (1, 0)
    first.start()
    first.stop()
    second.sweep()
    assert (first.leads, second.leads) == (False, True)
