"""When a schedule comes due: in its own time zone, over the changes of clocks, and never silently wrong."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba_shared.problems import Invalid
from genba_training.cron import Cron

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)


def due_times(cron: Cron, after: datetime, count: int) -> list[str]:
    """The next due times as a clock on the wall there shows them, with their offset from UTC."""
    shown = []
    for _ in range(count):
        found = cron.after(after)
        assert found is not None
        assert found > after
        shown.append(found.astimezone(ZoneInfo(cron.time_zone)).strftime("%m-%d %H:%M %z"))
        after = found
    return shown


def at(zone: str, *when: int, fold: int = 0) -> datetime:
    return datetime(*when, tzinfo=ZoneInfo(zone), fold=fold)  # type: ignore[misc,arg-type]


def test_the_fields_are_read_in_the_time_zone() -> None:
    assert Cron("30 2 * * *", "Asia/Tokyo").after(NOW) == datetime(2026, 11, 25, 17, 30, tzinfo=UTC)
    assert Cron("30 2 * * *", "UTC").after(NOW) == datetime(2026, 11, 26, 2, 30, tzinfo=UTC)
    assert Cron("0 9 * * MON-FRI", "Asia/Kolkata").after(NOW) == datetime(2026, 11, 26, 3, 30, tzinfo=UTC)


def test_a_time_that_does_not_exist_becomes_the_first_that_does() -> None:
    found = due_times(Cron("30 2 * * *", BERLIN), at(BERLIN, 2026, 3, 28, 0), 3)
    assert found == ["03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"]


def test_a_time_that_comes_twice_is_due_once() -> None:
    found = due_times(Cron("30 2 * * *", BERLIN), at(BERLIN, 2026, 10, 24, 3), 2)
    assert found == ["10-25 02:30 +0200", "10-26 02:30 +0100"]


def test_between_the_two_passes_of_an_hour_a_daily_schedule_waits_for_tomorrow() -> None:
    second_pass = at(NEW_YORK, 2026, 11, 1, 1, 15, fold=1)
    assert due_times(Cron("30 1 * * *", NEW_YORK), second_pass, 1) == ["11-02 01:30 -0500"]


def test_rhythms_with_a_star_follow_elapsed_time_over_both_changes() -> None:
    spring = due_times(Cron("*/30 * * * *", BERLIN), at(BERLIN, 2026, 3, 29, 1, 15), 3)
    assert spring == ["03-29 01:30 +0100", "03-29 03:00 +0200", "03-29 03:30 +0200"]
    autumn = due_times(Cron("0 * * * *", BERLIN), at(BERLIN, 2026, 10, 25, 1, 30), 3)
    assert autumn == ["10-25 02:00 +0200", "10-25 02:00 +0100", "10-25 03:00 +0100"]


def test_a_leap_day_is_found_years_ahead() -> None:
    assert Cron("0 0 29 2 *").after(NOW) == datetime(2028, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "zone", "field", "words"),
    [
        ("0 25 * * *", "UTC", "cron", "bad hour"),
        ("* * * *", "UTC", "cron", "five fields"),
        ("0 0 * * * *", "UTC", "cron", "five fields"),  # seconds are not for jobs that take minutes
        ("@daily", "UTC", "cron", "five fields"),
        ("0 0 31 2 *", "UTC", "cron", "bad day-of-month"),
        ("0 0 */20 * 1L", "UTC", "cron", "does not come due"),
        ("0 0 * * *", "Mars/Olympus", "time_zone", "no IANA time zone"),
        ("0 0 * * *", "../../etc/passwd", "time_zone", "no IANA time zone"),
        ("0 0 * * *", "", "time_zone", "no IANA time zone"),
    ],
)
def test_what_cannot_be_due_is_refused_with_its_field(expression: str, zone: str, field: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        Cron(expression, zone).check(NOW)
    document: Any = refused.value.document()
    error = document["errors"][0]
    assert error["field"] == field
    assert words in error["message"]


@given(st.text(st.sampled_from("0123456789*/,-#LWMON \x00٣"), max_size=100), st.sampled_from([BERLIN, "UTC"]))
def test_whatever_is_written_is_a_due_time_or_a_refusal(expression: str, zone: str) -> None:
    cron = Cron(expression, zone)
    try:
        cron.check(NOW)
    except Invalid:
        return
    found = cron.after(NOW)
    assert found is not None
    assert found > NOW


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - made aware below
    st.sampled_from([BERLIN, NEW_YORK, "Australia/Lord_Howe", "Asia/Tokyo", "America/Sao_Paulo"]),
    st.integers(0, 59),
    st.integers(0, 23),
)
def test_a_daily_schedule_is_due_every_day_exactly_once(moment: datetime, zone: str, minute: int, hour: int) -> None:
    cron, after = Cron(f"{minute} {hour} * * *", zone), moment.replace(tzinfo=UTC)
    days = []
    for _ in range(4):
        found = cron.after(after)
        assert found is not None
        assert timedelta(0) < found - after <= timedelta(hours=25, minutes=1)
        days.append(found.astimezone(ZoneInfo(zone)).date())
        after = found
    assert [later - earlier for earlier, later in itertools.pairwise(days)] == [timedelta(days=1)] * 3
