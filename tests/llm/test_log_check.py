"""The audit log is walked once for all who ask at the same time, and nobody has to wait for the end of a long walk."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime

import pytest

from genba_llm import report
from genba_llm.log_check import Checked, LogCheck
from genba_shared.audit import AuditReport


class Walks:
    """A log whose walks end when they are let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.go, self.at_work = threading.Event(), threading.Event()

    def verify(self) -> AuditReport:
        self.begun += 1
        number = self.begun
        self.at_work.set()
        assert self.go.wait(30)
        return AuditReport(number, "ab", root="cd")


def test_those_who_ask_during_a_walk_share_the_next_one() -> None:
    walks = Walks()
    check = LogCheck(walks.verify)
    first = check.ask()
    assert walks.at_work.wait(30)
    late = [check.ask() for _ in range(20)]  # what was appended meanwhile may lie behind the walk that goes on
    assert not first.done()
    walks.go.set()
    assert first.result(30).report.entries == 1
    assert {each.result(30).report.entries for each in late} == {2}
    assert walks.begun == 2
    assert check.ask().result(30).report.entries == 3


def test_who_cannot_wait_gets_what_the_last_walk_found() -> None:
    walks = Walks()
    check = LogCheck(walks.verify)
    assert check.within(0.0) is None
    walks.go.set()
    last = check.ask().result(30)
    walks.go.clear()
    assert check.within(0.0) == last
    walks.go.set()
    newer = check.within(30)
    assert newer is not None
    assert newer.report.entries > last.report.entries


def test_a_walk_that_fails_says_so_and_the_next_one_is_tried() -> None:
    outcomes = [OSError("the disk is gone"), None]

    def verify() -> AuditReport:
        if (error := outcomes.pop(0)) is not None:
            raise error
        return AuditReport(1, "ab")

    check = LogCheck(verify)
    with pytest.raises(OSError, match="the disk is gone"):
        check.within(30)
    found = check.within(30)
    assert found is not None
    assert found.report.intact


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_the_report_says_when_the_log_was_walked_or_that_it_still_is(lang: report.Language) -> None:
    facts = report.Facts(
        start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC),
        by_decision=Counter(), by_domain=Counter(), by_policy=Counter(), reasons=Counter(), outcomes=Counter(),
        escalated=0, late=0, waiting=0, overdue=0, spot_checked=0, spot_wrong=0,
    )  # fmt: skip
    at = datetime(2026, 11, 28, 3, 30, tzinfo=UTC)
    held = report.to_html(facts, Checked(at, AuditReport(7, "ab", root="cd")), policy="p", lang=lang)
    assert "2026-11-28T03:30:00+00:00" in held
    assert "class='good'" in held
    broken = report.to_html(facts, Checked(at, AuditReport(7, "ab", 3, "why")), policy="p", lang=lang)
    assert "class='bad'" in broken
    waiting = report.to_html(facts, None, policy="p", lang=lang)
    assert "class='open'" in waiting
    assert ("load it again" if lang == "en" else "読み込んで") in waiting
