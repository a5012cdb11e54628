"""The job table's transitions, on SQLite and on Postgres."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.orm import Session

from genba_shared.db import Database
from genba_shared.job_rows import JobRow
from genba_shared.job_upkeep import Upkeep
from genba_shared.jobs import Job, Jobs, NewEvent, backoff_s
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import (
    ClearanceTooLow,
    Conflict,
    Gone,
    IdempotencyKeyReused,
    NotFound,
    TooManyRequests,
)

People = Callable[..., Principal]
LEASE_S = 30.0
GONE_S = -1.0  # a lease that has run out when it begins


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def upkeep(database: Database) -> Upkeep:
    return Upkeep(database)


@pytest.fixture
def submit(jobs: Jobs, principal: People) -> Callable[..., Job]:
    def submit(**options: object) -> Job:
        options = {"principal": principal("engineer"), "idempotency_key": None, "params": {"n": 1}} | options
        return jobs.submit("test.work", options.pop("params"), **options)  # type: ignore[arg-type]

    return submit


def claimed(jobs: Jobs, job: Job, *, owner: str = "worker-1", lease_s: float = LEASE_S) -> Job:
    claim = jobs.claim(job.id, owner=owner, lease_s=lease_s)
    assert claim is not None
    return claim


def look(jobs: Jobs, job: Job) -> Job:
    found = jobs.peek(job.id)
    assert found is not None
    return found


def said(jobs: Jobs, job: Job) -> list[object]:
    return [event.data.get("status", event.kind) for event in jobs.events(job.id)[1]]


def in_threads(count: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ---- submitting ----


def test_a_submitted_job_waits_in_its_queue(submit: Callable[..., Job], jobs: Jobs) -> None:
    job = submit(queue="gpu", traceparent="00-1-2-01")
    assert (job.status, job.queue, job.attempt, job.traceparent) == ("queued", "gpu", 0, "00-1-2-01")
    assert said(jobs, job) == ["queued"]


def test_the_same_key_with_the_same_payload_is_the_same_job(submit: Callable[..., Job]) -> None:
    first, second = submit(idempotency_key="k"), submit(idempotency_key="k")
    assert first.id == second.id
    assert (first.replayed, second.replayed) == (False, True)


def test_the_same_key_with_another_payload_is_refused(submit: Callable[..., Job]) -> None:
    submit(idempotency_key="k")
    with pytest.raises(IdempotencyKeyReused):
        submit(idempotency_key="k", params={"n": 2})


def test_a_key_belongs_to_its_submitter(submit: Callable[..., Job], principal: People) -> None:
    mine = submit(idempotency_key="k")
    theirs = submit(idempotency_key="k", principal=principal("engineer", subject="key_other"))
    assert mine.id != theirs.id


def test_a_key_whose_job_was_deleted_says_so(submit: Callable[..., Job], database: Database) -> None:
    job = submit(idempotency_key="k")
    with database.transaction() as session:
        for table, column in (("job_events", "job_id"), ("jobs", "id")):
            session.execute(text(f"DELETE FROM {table} WHERE {column} = :id"), {"id": job.id})  # noqa: S608
    with pytest.raises(Gone):
        submit(idempotency_key="k")


def test_submissions_at_the_same_moment_with_one_key_make_one_job(
    submit: Callable[..., Job], database: Database
) -> None:
    found: list[str] = []

    def submit_many() -> None:
        together.wait()
        found.extend(submit(idempotency_key="k").id for _ in range(50))

    together = threading.Barrier(20)
    in_threads(20, submit_many)
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM jobs")).scalar_one() == 1
    assert len(found) == 1000
    assert len(set(found)) == 1


def test_a_job_cannot_be_labelled_above_its_submitter(submit: Callable[..., Job]) -> None:
    with pytest.raises(ClearanceTooLow):
        submit(clearance=Clearance.SECRET)


def test_a_principal_may_have_so_many_jobs_at_a_time(submit: Callable[..., Job], jobs: Jobs) -> None:
    job = submit(max_active=1)
    with pytest.raises(TooManyRequests) as refused:
        submit(max_active=1)
    assert refused.value.headers["Retry-After"] == "10"
    jobs.finish(claimed(jobs, job), {})
    submit(max_active=1)


def test_submissions_at_the_same_moment_do_not_share_the_last_place(submit: Callable[..., Job]) -> None:
    together, outcomes = threading.Barrier(8), Counter[str]()

    def try_to_submit() -> None:
        together.wait()
        try:
            submit(max_active=3)
            outcomes["taken"] += 1
        except TooManyRequests:
            outcomes["refused"] += 1

    in_threads(8, try_to_submit)
    assert outcomes == {"taken": 3, "refused": 5}


def test_a_worker_is_woken_after_the_commit_and_need_not_hear(database: Database, principal: People) -> None:
    woken: list[tuple[str, str]] = []
    jobs = Jobs(database, wake=lambda job_id, queue: woken.append((job_id, queue)))
    job = jobs.submit("test.work", {}, principal=principal("engineer"), idempotency_key=None)
    assert woken == [(job.id, "cpu")]
    assert Upkeep(database).unpublished() == []  # it has ten seconds before the sweeper repeats it
    assert Upkeep(database).unpublished(every=True) == [(job.id, "cpu")]


# ---- who sees what ----


def test_people_see_their_own_jobs_and_administrators_all(
    submit: Callable[..., Job], jobs: Jobs, principal: People
) -> None:
    mine = submit()
    other, admin = principal("engineer", subject="key_other"), principal("admin", subject="key_admin")
    assert [job.id for job in jobs.list(principal=principal("engineer"))] == [mine.id]
    assert jobs.list(principal=other) == []
    assert [job.id for job in jobs.list(principal=admin)] == [mine.id]
    with pytest.raises(NotFound):
        jobs.get(mine.id, principal=other)
    with pytest.raises(NotFound):
        jobs.cancel(mine.id, principal=other)


def test_not_even_an_administrator_sees_another_tenant_or_above_their_clearance(
    submit: Callable[..., Job], jobs: Jobs, principal: People
) -> None:
    job = submit(principal=principal("engineer", clearance=Clearance.CONFIDENTIAL))
    for blind in (
        principal("admin", clearance=Clearance.SECRET, tenant="elsewhere"),
        principal("admin", clearance=Clearance.INTERNAL),
        principal("engineer", clearance=Clearance.INTERNAL),  # the owner with a lesser key
    ):
        with pytest.raises(NotFound):
            jobs.get(job.id, principal=blind)


@pytest.mark.parametrize("held", [set(), {"a"}, {"a", "b"}, {"b", "a", "c"}])
def test_a_job_is_seen_by_who_holds_all_its_compartments(
    held: set[str], submit: Callable[..., Job], jobs: Jobs, principal: People
) -> None:
    submit(principal=principal("engineer", compartments=frozenset({"a", "b"})))
    found = jobs.list(principal=principal("admin", compartments=frozenset(held)))
    assert bool(found) == ({"a", "b"} <= held)


def test_lists_are_filtered_and_paged_newest_first(submit: Callable[..., Job], jobs: Jobs, principal: People) -> None:
    made = [submit(queue=queue).id for queue in ("cpu", "cpu", "gpu", "cpu")]
    who = principal("engineer")
    first = jobs.list(principal=who, queue="cpu", limit=2)
    rest = jobs.list(principal=who, queue="cpu", limit=2, before=first[-1].id)
    assert [job.id for job in (*first, *rest)] == [made[3], made[1], made[0]]
    assert jobs.list(principal=who, status="running") == []
    assert jobs.list(principal=who, recipe="test.other") == []


# ---- claiming and fencing ----


def test_of_many_workers_one_gets_the_job(submit: Callable[..., Job], jobs: Jobs) -> None:
    job, together = submit(), threading.Barrier(8)
    won: list[int] = []

    def try_to_claim(number: int) -> None:
        together.wait()
        if jobs.claim(job.id, owner=f"worker-{number}", lease_s=LEASE_S):
            won.append(number)

    threads = [threading.Thread(target=try_to_claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert look(jobs, job).owner == f"worker-{won[0]}"


def test_a_job_that_is_not_due_or_over_or_unknown_is_not_claimed(submit: Callable[..., Job], jobs: Jobs) -> None:
    later = submit(run_after=datetime.now(UTC) + timedelta(hours=1))
    done = submit()
    jobs.finish(claimed(jobs, done), {})
    for job_id in (later.id, done.id, "job_nobody"):
        assert jobs.claim(job_id, owner="worker-1", lease_s=LEASE_S) is None


def test_an_attempt_whose_lease_ran_out_is_fenced_off_by_the_next(submit: Callable[..., Job], jobs: Jobs) -> None:
    old = claimed(jobs, submit(), lease_s=GONE_S)
    new = claimed(jobs, old, owner="worker-2")
    assert (new.attempt, new.failures) == (2, 1)
    published: list[str] = []
    assert jobs.heartbeat(old, [NewEvent("line", {"message": "late"})], lease_s=LEASE_S) == "fenced"
    assert jobs.finish(old, {}, publish=lambda _: published.append("old")) is False
    assert jobs.fail(old, {}, retry=True) is None
    assert jobs.stop(old, "queued") is None
    assert published == []
    assert jobs.finish(new, {"value": 1}, publish=lambda _: published.append("new")) is True
    assert published == ["new"]
    assert said(jobs, old) == ["queued", "running", "running", "succeeded"]


def test_a_lease_that_ran_out_but_was_not_taken_goes_on(submit: Callable[..., Job], jobs: Jobs) -> None:
    claim = claimed(jobs, submit(), lease_s=GONE_S)
    assert jobs.heartbeat(claim, lease_s=LEASE_S) == "go_on"
    assert jobs.claim(claim.id, owner="worker-2", lease_s=LEASE_S) is None


def test_what_cannot_be_published_is_not_done(submit: Callable[..., Job], jobs: Jobs) -> None:
    claim = claimed(jobs, submit())

    def publish(session: Session) -> None:
        session.execute(text("INSERT INTO job_leaders VALUES ('duty', 'me', :now)"), {"now": "2026-01-01 00:00:00"})
        raise RuntimeError("the other table is full")

    with pytest.raises(RuntimeError):
        jobs.finish(claim, {}, publish=publish)
    assert look(jobs, claim).status == "running"
    with jobs.database.read() as session:
        assert session.execute(text("SELECT count(*) FROM job_leaders")).scalar_one() == 0


# ---- recipes of which only so many run at a time ----

LIMITS = {"test.work": 2}


def test_jobs_above_their_recipes_limit_wait_until_there_is_room(submit: Callable[..., Job], jobs: Jobs) -> None:
    first, second, third = (submit() for _ in range(3))
    claims = [jobs.claim(job.id, owner="worker-1", lease_s=LEASE_S, limits=LIMITS) for job in (first, second, third)]
    assert claims[0] is not None
    assert claims[1] is not None
    assert claims[2] is None
    assert look(jobs, third).status == "queued"
    jobs.finish(claims[0], {})
    assert jobs.claim(third.id, owner="worker-1", lease_s=LEASE_S, limits=LIMITS)


def test_of_claims_at_the_same_moment_no_more_than_the_limit_succeed(submit: Callable[..., Job], jobs: Jobs) -> None:
    waiting, together, won = [submit() for _ in range(8)], threading.Barrier(8), list[str]()
    left = list(waiting)

    def try_to_claim() -> None:
        job = left.pop()
        together.wait()
        if jobs.claim(job.id, owner="worker-1", lease_s=LEASE_S, limits=LIMITS):
            won.append(job.id)

    in_threads(8, try_to_claim)
    assert len(won) == 2


def test_a_limit_holds_back_its_own_recipe_only_and_an_abandoned_job_can_be_taken_over(
    submit: Callable[..., Job], jobs: Jobs, principal: People
) -> None:
    one = {"test.work": 1}
    other = jobs.submit("test.other", {}, principal=principal("engineer"), idempotency_key=None)
    old = claimed(jobs, submit(), lease_s=GONE_S)
    assert jobs.claim(other.id, owner="worker-2", lease_s=LEASE_S, limits=one)
    assert jobs.claim(submit().id, owner="worker-2", lease_s=LEASE_S, limits=one) is None
    taken_over = jobs.claim(old.id, owner="worker-2", lease_s=LEASE_S, limits=one)
    assert taken_over is not None
    assert taken_over.attempt == 2


def test_a_job_that_had_no_room_is_sent_again_as_soon_as_there_is(
    submit: Callable[..., Job], jobs: Jobs, upkeep: Upkeep
) -> None:
    one = {"test.work": 1}
    running, *waiting = (submit() for _ in range(4))
    assert upkeep.unpublished(limits=one) == [(running.id, "cpu")]
    upkeep.published([running.id])
    assert upkeep.unpublished(limits=one) == []  # one message is out already
    claim = jobs.claim(running.id, owner="worker-1", lease_s=LEASE_S, limits=one)
    assert claim is not None
    upkeep.published([waiting[0].id])
    assert jobs.claim(waiting[0].id, owner="worker-1", lease_s=LEASE_S, limits=one) is None
    assert upkeep.unpublished(limits=one) == []
    jobs.finish(claim, {})
    assert upkeep.unpublished(limits=one) == [(waiting[0].id, "cpu")]
    assert upkeep.unpublished(limits=one, every=True) == [(waiting[0].id, "cpu")]
    assert len(upkeep.unpublished()) == 3


# ---- events ----


def test_events_have_no_gaps_over_attempts_and_carry_progress_to_the_row(
    submit: Callable[..., Job], jobs: Jobs
) -> None:
    first = claimed(jobs, submit(), lease_s=GONE_S)
    jobs.heartbeat(
        first,
        [NewEvent("metrics", {"step": 1}), NewEvent("progress", {"fraction": 0.5, "message": "half"})],
        lease_s=GONE_S,
    )
    assert (look(jobs, first).progress, look(jobs, first).message) == (0.5, "half")
    second = claimed(jobs, first, owner="worker-2")
    jobs.finish(second, {}, events=[NewEvent("line", {"message": "last words"})])
    job, events = jobs.events(first.id)
    assert job is not None
    assert [event.seq for event in events] == list(range(1, job.last_seq + 1))
    assert [event.attempt for event in events] == [0, 1, 1, 1, 2, 2, 2]
    assert [event.seq for event in jobs.events(first.id, after=5)[1]] == [6, 7]
    assert jobs.heads([first.id, "job_nobody"]) == {first.id: (7, True)}


# ---- failing ----


def test_a_failed_attempt_is_tried_again_later_and_then_the_job_is_dead(
    submit: Callable[..., Job], jobs: Jobs, database: Database
) -> None:
    job = submit(max_attempts=2)
    assert jobs.fail(claimed(jobs, job), {"detail": "no"}, retry=True) == "queued"
    waiting = look(jobs, job)
    assert waiting.run_after >= waiting.created_at
    assert waiting.error == {"detail": "no"}
    _make_due(database, job)
    assert jobs.fail(claimed(jobs, job), {"detail": "no"}, retry=True) == "dead"
    assert look(jobs, job).finished_at is not None


def test_a_failure_that_retrying_cannot_mend_is_final(submit: Callable[..., Job], jobs: Jobs) -> None:
    job = submit()
    assert jobs.fail(claimed(jobs, job), {"detail": "too few likes"}, retry=False) == "failed"


def test_back_off_grows_with_full_jitter_and_a_cap() -> None:
    for failures, most_s in ((1, 4.0), (3, 16.0), (30, 300.0), (10_000, 300.0)):
        waits = [backoff_s(failures) for _ in range(300)]
        assert 0.0 <= min(waits) < 0.1 * most_s
        assert 0.9 * most_s < max(waits) <= most_s


def test_a_dead_job_can_be_requeued_with_fresh_attempts(
    submit: Callable[..., Job], jobs: Jobs, principal: People
) -> None:
    job = submit(max_attempts=1)
    jobs.fail(claimed(jobs, job), {"detail": "no"}, retry=True)
    back = jobs.requeue(job.id, principal=principal("engineer"))
    assert (back.status, back.failures, back.error, back.attempt) == ("queued", 0, None, 1)
    assert claimed(jobs, back).attempt == 2
    with pytest.raises(Conflict):
        jobs.requeue(job.id, principal=principal("engineer"))


# ---- cancelling ----


def test_a_waiting_job_is_cancelled_at_once(submit: Callable[..., Job], jobs: Jobs, principal: People) -> None:
    job = submit()
    assert jobs.cancel(job.id, principal=principal("engineer")).status == "cancelled"
    assert jobs.cancel(job.id, principal=principal("engineer")).status == "cancelled"  # saying it again is no error
    assert jobs.claim(job.id, owner="worker-1", lease_s=LEASE_S) is None


def test_a_running_job_hears_of_it_and_can_no_longer_publish(
    submit: Callable[..., Job], jobs: Jobs, principal: People
) -> None:
    claim = claimed(jobs, submit())
    assert jobs.cancel(claim.id, principal=principal("engineer")).cancel_requested
    assert jobs.heartbeat(claim, lease_s=LEASE_S) == "cancel"
    assert jobs.finish(claim, {}, publish=lambda _: pytest.fail("published")) is False
    assert jobs.stop(claim, "cancelled") == "cancelled"
    assert look(jobs, claim).status == "cancelled"


@pytest.mark.parametrize("ending", ["the attempt fails", "the worker drains"])
def test_a_cancelled_job_whose_attempt_ends_before_it_hears_of_it_does_not_wait_in_the_queue_for_ever(
    submit: Callable[..., Job], jobs: Jobs, principal: People, ending: str
) -> None:
    claim = claimed(jobs, submit())
    jobs.cancel(claim.id, principal=principal("engineer"))
    left = jobs.stop(claim, "queued") if ending == "the worker drains" else jobs.fail(claim, {"a": 1}, retry=True)
    after = look(jobs, claim)
    assert (left, after.status, after.owner) == ("cancelled", "cancelled", None)
    assert after.finished_at is not None
    _, events = jobs.events(claim.id)
    assert events[-1].data == {"status": "cancelled"}
    assert after.last_seq == events[-1].seq


def test_a_job_that_is_over_cannot_be_cancelled(submit: Callable[..., Job], jobs: Jobs, principal: People) -> None:
    job = submit()
    jobs.finish(claimed(jobs, job), {})
    with pytest.raises(Conflict):
        jobs.cancel(job.id, principal=principal("engineer"))


# ---- upkeep ----


def test_a_silent_workers_job_goes_back_to_the_queue(submit: Callable[..., Job], jobs: Jobs, upkeep: Upkeep) -> None:
    claim, healthy = claimed(jobs, submit(), lease_s=GONE_S), claimed(jobs, submit())
    assert [job.id for job in upkeep.expire_leases()] == [claim.id]
    assert (look(jobs, claim).status, look(jobs, claim).failures) == ("queued", 1)
    assert look(jobs, healthy).status == "running"
    assert jobs.heartbeat(claim, lease_s=LEASE_S) == "fenced"


def test_a_silent_workers_job_dies_with_its_last_attempt_or_ends_cancelled(
    submit: Callable[..., Job], jobs: Jobs, upkeep: Upkeep, principal: People
) -> None:
    last = claimed(jobs, submit(max_attempts=1), lease_s=GONE_S)
    unwanted = claimed(jobs, submit(), lease_s=GONE_S)
    jobs.cancel(unwanted.id, principal=principal("engineer"))
    assert jobs.claim(last.id, owner="worker-2", lease_s=LEASE_S) is None
    upkeep.expire_leases()
    assert look(jobs, last).status == "dead"
    assert (look(jobs, last).error or {})["type"] == "urn:genba:problem:worker-lost"
    assert look(jobs, unwanted).status == "cancelled"


def test_a_lost_message_is_sent_again_with_growing_pauses(
    submit: Callable[..., Job], upkeep: Upkeep, database: Database
) -> None:
    job = submit()
    for pause_s in (10, 20, 40, 80, 160, 300, 300):
        assert upkeep.unpublished() == [(job.id, "cpu")]
        before = datetime.now(UTC)
        upkeep.published([job.id])
        after = datetime.now(UTC)
        assert upkeep.unpublished() == []
        with database.transaction() as session:
            row = session.get_one(JobRow, job.id)
            assert before <= row.republish_at - timedelta(seconds=pause_s) <= after
            row.republish_at = datetime.now(UTC) - timedelta(seconds=1)


def test_one_process_leads_until_it_stops_renewing(upkeep: Upkeep) -> None:
    assert upkeep.lead("sweep", owner="a", lease_s=LEASE_S) is True
    assert upkeep.lead("sweep", owner="b", lease_s=LEASE_S) is False
    assert upkeep.lead("sweep", owner="a", lease_s=GONE_S) is True
    assert upkeep.lead("sweep", owner="b", lease_s=LEASE_S) is True
    upkeep.resign("sweep", owner="b")
    assert upkeep.lead("sweep", owner="a", lease_s=LEASE_S) is True


def test_old_jobs_are_deleted_and_young_or_living_ones_stay(
    submit: Callable[..., Job], jobs: Jobs, upkeep: Upkeep, database: Database
) -> None:
    old, young, waiting = submit(), submit(), submit()
    for job in (old, young):
        jobs.finish(claimed(jobs, job), {})
    with database.transaction() as session:
        session.execute(
            update(JobRow).where(JobRow.id == old.id).values(finished_at=datetime.now(UTC) - timedelta(days=9))
        )
    assert upkeep.prune(older_than=timedelta(days=8)) == 1
    assert jobs.peek(old.id) is None
    assert jobs.events(old.id) == (None, [])
    assert jobs.peek(young.id) is not None
    assert jobs.peek(waiting.id) is not None


def test_figures_tell_depth_age_running_and_dead(
    submit: Callable[..., Job], jobs: Jobs, upkeep: Upkeep, database: Database
) -> None:
    waiting = submit()
    claimed(jobs, submit())
    jobs.fail(claimed(jobs, submit(max_attempts=1, queue="gpu")), {}, retry=True)
    _make_due(database, waiting, ago=timedelta(minutes=5))
    cpu, gpu = sorted(upkeep.figures())
    assert (cpu.queue, cpu.depth, cpu.running, cpu.dead, cpu.attempts) == ("cpu", 1, 1, 0, 1)
    assert 299 < cpu.oldest_age_s < 400
    assert (gpu.queue, gpu.depth, gpu.dead, gpu.oldest_age_s) == ("gpu", 0, 1, 0.0)


def test_a_scrape_reads_only_jobs_that_are_not_over_and_counts_attempts_of_all_every_five_minutes(
    submit: Callable[..., Job], jobs: Jobs, database: Database
) -> None:
    now_s = 0.0
    upkeep = Upkeep(database, clock=lambda: now_s)
    asked: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        asked.append(statement)

    jobs.finish(claimed(jobs, submit()), {})
    event.listen(database.engine, "before_cursor_execute", listen)
    try:
        assert [(each.queue, each.depth, each.attempts) for each in upkeep.figures()] == [("cpu", 0, 1)]
        jobs.finish(claimed(jobs, submit()), {})
        asked.clear()
        now_s = 299.0
        assert [each.attempts for each in upkeep.figures()] == [1]
        whole = [each for each in asked if "FROM jobs" in each and "jobs.status IN" not in each]
        assert whole == []
        now_s = 300.0
        assert [each.attempts for each in upkeep.figures()] == [2]
    finally:
        event.remove(database.engine, "before_cursor_execute", listen)


def test_of_each_recipe_the_newest_running_job_tells_how_far_it_is_and_what_it_said_last(
    submit: Callable[..., Job], jobs: Jobs, upkeep: Upkeep, database: Database
) -> None:
    submit()
    first, second = claimed(jobs, submit()), claimed(jobs, submit())
    with database.transaction() as session:
        session.execute(
            update(JobRow).where(JobRow.id == first.id).values(started_at=datetime.now(UTC) - timedelta(hours=1))
        )
    assert jobs.heartbeat(first, [NewEvent("metrics", {"step": 9, "values": {"loss": 9.0}})], lease_s=30) == "go_on"
    events = [
        NewEvent("metrics", {"step": 1, "values": {"loss": 2.0}}),
        NewEvent("metrics", {"step": 2, "values": {"loss": 1.5, "grad_norm": None}}),
        NewEvent("progress", {"fraction": 0.25, "message": "half-way to half-way"}),
    ]
    assert jobs.heartbeat(second, events, lease_s=30) == "go_on"
    (figures,) = upkeep.running()
    assert (figures.recipe, figures.progress, figures.values) == (second.recipe, 0.25, {"loss": 1.5})


def _make_due(database: Database, job: Job, *, ago: timedelta = timedelta(seconds=1)) -> None:
    with database.transaction() as session:
        session.execute(update(JobRow).where(JobRow.id == job.id).values(run_after=datetime.now(UTC) - ago))


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() <= before
