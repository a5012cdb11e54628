"""Upkeep goes on, whatever became of a round."""

from __future__ import annotations

import threading

import pytest

from genba_shared.repeated import Repeated


def test_a_round_that_fails_is_said_and_the_next_one_comes(capsys: pytest.CaptureFixture[str]) -> None:
    rounds, third = [0], threading.Event()

    def work() -> None:
        rounds[0] += 1
        if rounds[0] == 3:
            third.set()
        raise ValueError("the database is away")

    repeated = Repeated("upkeep", 0.001, work)
    assert third.wait(30)
    repeated.stop()
    said = capsys.readouterr()
    assert "repeated_work_failed" in said.out + said.err
    assert "the database is away" in said.out + said.err


def test_after_stop_nothing_begins_and_what_ran_has_ended() -> None:
    begun, may_end = threading.Event(), threading.Event()
    ended: list[bool] = []

    def work() -> None:
        begun.set()
        may_end.wait(30)
        ended.append(True)

    repeated = Repeated("upkeep", 0.001, work)
    assert begun.wait(30)
    threading.Timer(0.05, may_end.set).start()
    repeated.stop()
    assert len(ended) == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_the_first_round_waits_unless_it_is_wanted_at_once(*, at_once: bool) -> None:
    begun = threading.Event()
    repeated = Repeated("upkeep", 3600.0, begun.set, at_once=at_once)
    try:
        assert begun.wait(30 if at_once else 0.05) == at_once
    finally:
        repeated.stop()
