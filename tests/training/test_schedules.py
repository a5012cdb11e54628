"""Schedules: each due time makes one job, whoever fires it and whatever dies; and the API that keeps them."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from pydantic import model_validator
from sqlalchemy import event, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from genba_gateway.keys import Keys
from genba_shared.db import Database
from genba_shared.job_rows import JobRow
from genba_shared.job_upkeep import Upkeep
from genba_shared.jobs import Job, Jobs
from genba_shared.principal import Clearance, Principal
from genba_shared.recipe import Params, Recipe, Result
from genba_training import recipes
from genba_training.app import create_app
from genba_training.cron import Cron
from genba_training.recipes import Recipes
from genba_training.schedules import Changes, NewSchedule, Schedule, ScheduleRow, Schedules
from genba_training.settings import Settings
from genba_training.sweeper import Sweeper

HOURLY = Cron("0 * * * *")
Make = Callable[..., Schedule]


@pytest.fixture
def known(settings: Settings) -> Recipes:
    return recipes.load(settings.recipes)


@pytest.fixture
def schedules(jobs: Jobs) -> Schedules:
    return Schedules(jobs.database)


@pytest.fixture
def make(schedules: Schedules, principal: Callable[..., Principal]) -> Make:
    def make(name: str = "hourly", *, role: str = "engineer", **fields: Any) -> Schedule:
        params = {"steps": 2, "step_s": 0.0}
        new: dict[str, Any] = {"recipe": "test.work", "params": params, "when": HOURLY} | fields
        return schedules.create(NewSchedule(name, **new), principal=principal(role))

    return make


@pytest.fixture
def fire(schedules: Schedules, known: Recipes) -> Callable[..., int]:
    def fire(max_active: int | None = None) -> int:
        return schedules.fire_due(known, max_active=max_active)

    return fire


def come_due(database: Database, schedule: Schedule, *, ago: timedelta = timedelta(seconds=5)) -> datetime:
    """As if its next due time had been ``ago``."""
    due_at = datetime.now(UTC) - ago
    with database.transaction() as session:
        session.execute(update(ScheduleRow).where(ScheduleRow.id == schedule.id).values(next_run_at=due_at))
    return due_at


def made_by(jobs: Jobs, schedule: Schedule) -> list[Job]:
    return list(jobs.list(principal=schedule.principal, schedule_id=schedule.id))


# ---- firing ----


def test_a_due_time_makes_one_job_and_the_schedule_moves_on(
    make: Make, fire: Callable[..., int], jobs: Jobs, schedules: Schedules
) -> None:
    schedule = make()
    assert fire() == 0
    due_at = come_due(jobs.database, schedule)
    assert [fire(), fire()] == [1, 0]
    (job,) = made_by(jobs, schedule)
    assert (job.recipe, job.params, job.queue, job.due_at) == ("test.work", schedule.params, "cpu", due_at)
    assert job.principal == schedule.principal
    after = schedules.get(schedule.id, principal=schedule.principal)
    assert (after.last_run_at, after.last_job_id, after.last_error) == (due_at, job.id, None)
    assert after.next_run_at == HOURLY.after(datetime.now(UTC))


def test_a_schedule_ends_with_the_last_key_of_its_maker(
    schedules: Schedules, fire: Callable[..., int], jobs: Jobs
) -> None:
    keys = Keys(jobs.database, env="test")
    first, _ = keys.create("planner", role="engineer")
    new = NewSchedule("hourly", "test.work", {"steps": 2, "step_s": 0.0}, HOURLY, overlap="allow")
    schedule = schedules.create(new, principal=first.principal)

    def fired() -> int:
        come_due(jobs.database, schedule)
        return fire()

    assert fired() == 1
    second, _ = keys.rotate(first.id, overlap_s=0)
    assert fired() == 1, "the successor has the same subject"
    keys.revoke(second.id)
    assert fired() == 0
    said = schedules.get(schedule.id, principal=schedule.principal).last_error
    assert said is not None
    assert said["status"] == 401
    assert "revoked" in said["detail"]
    third, _ = keys.create("somebody else", role="engineer")
    assert fired() == 0, f"{third.subject} is another subject"


def test_due_times_that_were_missed_come_to_one_job(make: Make, fire: Callable[..., int], jobs: Jobs) -> None:
    schedule = make(when=Cron("* * * * *"), overlap="allow")
    come_due(jobs.database, schedule, ago=timedelta(days=2))
    assert [fire(), fire()] == [1, 0]
    assert len(made_by(jobs, schedule)) == 1


def test_processes_that_fire_at_the_same_moment_make_one_job(make: Make, jobs: Jobs, known: Recipes) -> None:
    made = [make(f"hourly {number}") for number in range(5)]
    for schedule in made:
        come_due(jobs.database, schedule)
    together, fired = threading.Barrier(6), []

    def fire() -> None:
        together.wait()
        fired.append(Schedules(jobs.database).fire_due(known, max_active=None))

    threads = [threading.Thread(target=fire) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(fired) == 5
    assert [len(made_by(jobs, schedule)) for schedule in made] == [1] * 5


def test_a_crash_between_job_and_commit_leaves_neither_and_the_next_round_makes_it(
    make: Make, fire: Callable[..., int], jobs: Jobs, schedules: Schedules
) -> None:
    schedule = make()
    due_at = come_due(jobs.database, schedule)

    def die(_session: Session) -> None:
        raise ConnectionAbortedError("the process is gone")

    event.listen(Session, "before_commit", die)
    try:
        assert fire() == 0
    finally:
        event.remove(Session, "before_commit", die)
    assert made_by(jobs, schedule) == []
    assert schedules.get(schedule.id, principal=schedule.principal).next_run_at == due_at
    assert fire() == 1
    assert [job.due_at for job in made_by(jobs, schedule)] == [due_at]


def test_the_database_itself_holds_one_job_to_a_due_time(
    make: Make, fire: Callable[..., int], jobs: Jobs, schedules: Schedules
) -> None:
    """Whatever a future change does to the code above, the same moment cannot be fired twice."""
    schedule = make(overlap="allow")
    due_at = come_due(jobs.database, schedule)
    fire()
    with jobs.database.transaction() as session:
        session.execute(update(ScheduleRow).values(next_run_at=due_at))
    assert fire() == 0
    assert len(made_by(jobs, schedule)) == 1
    assert schedules.get(schedule.id, principal=schedule.principal).next_run_at == HOURLY.after(datetime.now(UTC))


def test_while_its_last_job_is_not_over_a_due_time_is_skipped_unless_overlap_is_allowed(
    make: Make, fire: Callable[..., int], jobs: Jobs
) -> None:
    patient, eager = make("patient"), make("eager", overlap="allow")
    for _ in range(2):
        for schedule in (patient, eager):
            come_due(jobs.database, schedule)
        fire()
    assert [len(made_by(jobs, schedule)) for schedule in (patient, eager)] == [1, 2]
    jobs.cancel(made_by(jobs, patient)[0].id, principal=patient.principal)
    come_due(jobs.database, patient)
    assert fire() == 1


def test_what_is_refused_when_due_is_said_on_the_schedule_and_tried_at_the_next_due_time(
    make: Make, fire: Callable[..., int], jobs: Jobs, schedules: Schedules, known: Recipes
) -> None:
    gone, outgrown, crowded = make("gone"), make("outgrown"), make("crowded", overlap="allow")
    with jobs.database.transaction() as session:
        session.execute(update(ScheduleRow).where(ScheduleRow.id == gone.id).values(recipe="test.removed"))
        session.execute(update(ScheduleRow).where(ScheduleRow.id == outgrown.id).values(params={"colour": "red"}))
    for schedule in (gone, outgrown, crowded):
        come_due(jobs.database, schedule)
    assert fire(max_active=0) == 0
    after = [schedules.get(schedule.id, principal=schedule.principal) for schedule in (gone, outgrown, crowded)]
    assert [(each.last_error or {})["type"].rpartition(":")[2] for each in after] == [
        "invalid", "invalid", "too-many-requests",
    ]  # fmt: skip
    assert all(each.next_run_at == HOURLY.after(datetime.now(UTC)) for each in after)
    assert schedules.figures().failing == 3
    come_due(jobs.database, crowded)
    assert fire(max_active=1) == 1
    assert schedules.get(crowded.id, principal=crowded.principal).last_error is None


def test_a_schedule_whose_recipe_breaks_when_asked_keeps_no_other_from_its_job(
    make: Make, jobs: Jobs, schedules: Schedules, known: Recipes
) -> None:
    class Breaks(Params):
        @model_validator(mode="before")
        @classmethod
        def look(cls, _params: Any) -> Any:
            raise KeyError("a table that is not there any more")

    broken, well = make("broken", recipe="test.broken", params={}), make("well")
    come_due(jobs.database, broken, ago=timedelta(minutes=1))
    come_due(jobs.database, well)
    recipe: Recipe[Any] = Recipe("test.broken", Breaks, lambda _params, _run: Result())
    assert schedules.fire_due(replace(known, by_name={**known.by_name, recipe.name: recipe}), max_active=None) == 1
    assert len(made_by(jobs, well)) == 1
    after = schedules.get(broken.id, principal=broken.principal)
    assert "KeyError" in (after.last_error or {})["detail"]
    assert "a table" not in str(after.last_error)  # what broke may quote what nobody else may read
    assert after.next_run_at == HOURLY.after(datetime.now(UTC))
    assert (schedules.figures().failing, schedules.figures().overdue_s) == (1, 0.0)


def locked() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorname = "SQLITE_BUSY"
    return error


@pytest.mark.parametrize(
    "said_by_driver",
    [ConnectionResetError("server closed the connection"), psycopg.OperationalError("connection lost"), locked()],
    ids=["socket", "postgres", "sqlite"],
)
def test_what_a_database_that_is_away_breaks_stays_due(
    make: Make, fire: Callable[..., int], jobs: Jobs, schedules: Schedules, said_by_driver: Exception
) -> None:
    schedule = make()
    due_at = come_due(jobs.database, schedule)

    def away(_session: Session, *_: object) -> None:
        event.remove(Session, "before_commit", away)  # and back at once
        raise OperationalError("COMMIT", {}, said_by_driver)

    event.listen(Session, "before_commit", away)
    assert fire() == 0
    after = schedules.get(schedule.id, principal=schedule.principal)
    assert (after.next_run_at, after.last_error) == (due_at, None)
    assert fire() == 1


def test_a_schedule_that_is_off_or_deleted_makes_no_job(
    make: Make, fire: Callable[..., int], jobs: Jobs, schedules: Schedules
) -> None:
    off, deleted = make("off"), make("deleted")
    schedules.change(off.id, Changes(enabled=False), principal=off.principal)
    come_due(jobs.database, off)
    schedules.delete(deleted.id, principal=deleted.principal)
    assert fire() == 0
    back = schedules.change(off.id, Changes(enabled=True), principal=off.principal)
    assert back.next_run_at is not None


def test_a_changed_rhythm_is_never_due_before_what_was_fired(
    make: Make, fire: Callable[..., int], jobs: Jobs, schedules: Schedules
) -> None:
    schedule = make()
    come_due(jobs.database, schedule)
    fire()
    ahead = datetime.now(UTC) + timedelta(days=1)  # fired by a process whose clock was ahead
    with jobs.database.transaction() as session:
        session.execute(update(ScheduleRow).values(last_run_at=ahead))
    changed = schedules.change(
        schedule.id, Changes(cron="*/5 * * * *", time_zone="Asia/Tokyo"), principal=schedule.principal
    )
    assert changed.next_run_at is not None
    assert changed.next_run_at > ahead


def test_the_sweeper_fires_and_sends_in_one_round(make: Make, jobs: Jobs, schedules: Schedules, known: Recipes) -> None:
    sent: list[tuple[str, str]] = []

    class Broker:
        def send(self, job_id: str, queue: str) -> bool:
            sent.append((job_id, queue))
            return True

        def waiting(self) -> dict[str, int]:
            return {}

    schedule = make()
    come_due(jobs.database, schedule)
    Sweeper(
        Upkeep(jobs.database), Broker(), owner="api-1", every_s=1.0, keep_jobs=timedelta(days=2),
        fire_due=lambda: schedules.fire_due(known, max_active=None),
    ).sweep()  # fmt: skip
    assert sent == [(made_by(jobs, schedule)[0].id, "cpu")]


# ---- the API ----


@pytest.fixture
def client(settings: Settings, database_url: str) -> Iterator[TestClient]:
    platform = settings.platform.model_copy(update={"database_url": database_url})
    with TestClient(create_app(settings.model_copy(update={"platform": platform}))) as client:
        yield client


@pytest.fixture
def ask(client: TestClient, signed: Callable[..., dict[str, str]]) -> Callable[..., Any]:
    """``ask("POST", "/v1/schedules", {…}, role="engineer")``"""

    def ask(method: str, path: str, body: Any = None, *, role: str = "engineer", **fields: Any) -> Any:
        key = fields.pop("key", None)
        headers = signed(role, **fields) | ({"Idempotency-Key": key} if key else {})
        return client.request(method, path, json=body, headers=headers)

    return ask


NIGHTLY = {
    "name": "夜間の学習",
    "recipe": "test.work",
    "params": {"steps": 2},
    "cron": "30 2 * * MON-FRI",
    "time_zone": "Asia/Tokyo",
}


def test_a_schedule_is_made_seen_changed_and_deleted(ask: Callable[..., Any]) -> None:
    answer = ask("POST", "/v1/schedules", NIGHTLY)
    assert answer.status_code == 201, answer.text
    made, path = answer.json(), answer.headers["location"]
    assert path == f"/v1/schedules/{made['id']}"
    assert (made["name"], made["params"], made["subject"]) == ("夜間の学習", {"steps": 2, "step_s": 0.05}, "key_test")
    upcoming = Cron("30 2 * * MON-FRI", "Asia/Tokyo").after(datetime.now(UTC))
    assert datetime.fromisoformat(made["next_run_at"]) == upcoming
    assert ask("GET", "/v1/schedules").json() == {"schedules": [made], "next_before": None}
    assert ask("GET", path).json() == made
    off = ask("PATCH", path, {"enabled": False, "params": {"steps": 3}}).json()
    assert (off["enabled"], off["next_run_at"], off["params"]["steps"], off["cron"]) == (False, None, 3, made["cron"])
    assert ask("PATCH", path, {"enabled": True, "cron": "0 0 1 1 *"}).json()["next_run_at"].endswith("-31T15:00:00Z")
    assert ask("DELETE", path).status_code == 204
    assert ask("GET", path).status_code == 404


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"recipe": "test.nothing"}, "recipe", "there are: platform.prune_jobs"),
        ({"params": {"steps": 0}}, "params.steps", "greater than or equal to 1"),
        ({"params": {"colour": "red"}}, "params.colour", "not permitted"),
        ({"cron": "0 25 * * *"}, "cron", "bad hour"),
        ({"time_zone": "Mars/Olympus"}, "time_zone", "no IANA time zone"),
        ({"overlap": "queue"}, "overlap", "skip"),
        ({"name": ""}, "name", "at least 1 character"),
        ({"every": 5}, "every", "not permitted"),
    ],
)
def test_what_would_be_refused_when_due_is_refused_at_once(
    change: dict[str, Any], field: str, words: str, ask: Callable[..., Any]
) -> None:
    answers = [ask("POST", "/v1/schedules", {**NIGHTLY, **change})]
    if field in {"params.steps", "params.colour", "cron", "time_zone"}:
        path = ask("POST", "/v1/schedules", NIGHTLY).headers["location"]
        answers.append(ask("PATCH", path, change))
        assert ask("GET", path).json()["cron"] == NIGHTLY["cron"]
    for answer in answers:
        assert answer.status_code == 422, answer.text
        error = answer.json()["errors"][0]
        assert error["field"] == field
        assert words in error["message"]


def test_names_are_ones_own_and_a_repeated_request_is_the_same_schedule(ask: Callable[..., Any]) -> None:
    first, again = (ask("POST", "/v1/schedules", NIGHTLY, key="k") for _ in range(2))
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    for key in (None, "k2"):
        taken = ask("POST", "/v1/schedules", NIGHTLY, key=key)
        assert (taken.status_code, taken.json()["type"]) == (409, "urn:genba:problem:already-exists")
    other = ask("POST", "/v1/schedules", {**NIGHTLY, "name": "other"}).headers["location"]
    assert ask("PATCH", other, {"name": NIGHTLY["name"]}).status_code == 409
    assert ask("POST", "/v1/schedules", NIGHTLY, subject="key_other").status_code == 201


def test_nobody_sees_or_makes_what_they_may_not(ask: Callable[..., Any]) -> None:
    path = ask("POST", "/v1/schedules", NIGHTLY).headers["location"]
    for method, body in (("GET", None), ("PATCH", {"enabled": False}), ("DELETE", None)):
        assert ask(method, path, body, subject="key_other").status_code == 404
        assert ask(method, path, body, role="admin", tenant="elsewhere").status_code == 404
    assert ask("GET", "/v1/schedules", subject="key_other").json()["schedules"] == []
    assert len(ask("GET", "/v1/schedules", role="admin", subject="key_admin").json()["schedules"]) == 1
    assert ask("POST", "/v1/schedules", NIGHTLY, role="viewer").status_code == 403
    guarded = {**NIGHTLY, "recipe": "test.guarded", "params": {}}
    assert ask("POST", "/v1/schedules", guarded, role="operator").json()["scope"] == "models:write"
    assert ask("POST", "/v1/schedules", {**NIGHTLY, "clearance": "secret"}).status_code == 403
    secret = ask("POST", "/v1/schedules", NIGHTLY, subject="key_spy", clearance=Clearance.SECRET)
    assert secret.json()["clearance"] == "secret"
    assert ask("GET", secret.headers["location"], subject="key_spy").status_code == 404


def test_lists_come_in_pages(ask: Callable[..., Any]) -> None:
    made = [ask("POST", "/v1/schedules", {**NIGHTLY, "name": f"n{n}"}).json()["id"] for n in range(3)]
    first = ask("GET", "/v1/schedules?limit=2").json()
    rest = ask("GET", f"/v1/schedules?limit=2&before={first['next_before']}").json()
    assert [each["id"] for each in (*first["schedules"], *rest["schedules"])] == made[::-1]
    assert rest["next_before"] is None


def test_the_service_makes_due_jobs_by_itself_and_shows_whose_they_are(
    ask: Callable[..., Any], client: TestClient, jobs: Jobs
) -> None:
    made = ask("POST", "/v1/schedules", NIGHTLY).json()
    with jobs.database.transaction() as session:
        session.execute(update(ScheduleRow).values(next_run_at=datetime.now(UTC) - timedelta(seconds=1)))
    found: list[Any] = []
    ends = datetime.now(UTC) + timedelta(seconds=20)
    while not (found := ask("GET", f"/v1/jobs?schedule={made['id']}").json()["jobs"]):
        assert datetime.now(UTC) < ends, "nothing was fired"
        threading.Event().wait(0.02)
    assert (found[0]["schedule_id"], found[0]["due_at"] is not None) == (made["id"], True)
    text = client.get("/metrics").text
    assert 'genba_training_schedules{state="enabled"} 1.0' in text
    assert "genba_training_schedule_overdue_seconds 0.0" in text
    with jobs.database.read() as session:
        assert len(session.scalars(select(JobRow.id)).all()) == 1
