"""What a worker does with a job: effects once, folders gone, and every ending settled in the row."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from sqlalchemy import text, update

from genba_shared.db import Database
from genba_shared.job_rows import JobRow
from genba_shared.jobs import Job, Jobs
from genba_shared.principal import Principal
from genba_shared.recipe import Checkpoint, LocalReporter, Params, Recipe, Result, Run, Stopped, seed_of
from genba_training.attempt import json_safe
from genba_training.runner import Runner, prune

Submit = Callable[..., Job]


def look(jobs: Jobs, job: Job) -> Job:
    found = jobs.peek(job.id)
    assert found is not None
    return found


def lines(jobs: Jobs, job: Job) -> list[str]:
    return [event.data["message"] for event in jobs.events(job.id)[1] if event.kind == "line"]


def effects(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(text("SELECT job_id FROM effects")))


def wait_until(condition: Callable[[], object], *, at_most_s: float = 20.0) -> None:
    """For what another thread does; the limit only ends a test that is broken."""
    ends_s = time.monotonic() + at_most_s
    while not condition():
        assert time.monotonic() < ends_s, "it never happened"
        threading.Event().wait(0.01)


def with_recipe(runner: Runner, run: Callable[[Any, Run], Result], **options: Any) -> Runner:
    """A runner that also knows ``test.local``."""
    recipe: Recipe[Any] = Recipe("test.local", Params, run, **options)
    recipes = replace(runner.recipes, by_name={**runner.recipes.by_name, recipe.name: recipe})
    return replace(runner, recipes=recipes)


def test_a_job_leaves_its_result_its_artifacts_and_one_effect(
    runner: Runner, submit: Submit, jobs: Jobs, database: Database
) -> None:
    job = submit("test.work", steps=3, step_s=0)
    assert runner.run(job.id) == "succeeded"
    done = look(jobs, job)
    assert done.result is not None
    assert (done.status, done.progress, done.result["value"], done.result["metrics"]) == (
        "succeeded", 1.0, {"done": 3}, {"steps": 3},
    )  # fmt: skip
    with runner.artifacts.open(done.result["artifacts"]["report"]) as report:
        assert report.read() == b"3 steps"
    assert effects(database) == [job.id]
    assert not (runner.settings.jobs_dir / job.id).exists()
    assert lines(jobs, job) == ["starts at 0"]


def test_a_line_that_is_on_its_way_when_the_job_ends_is_kept(
    runner: Runner, submit: Submit, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat that has taken it writes it before the row is settled; afterwards it would be refused."""
    taken, beat = threading.Event(), Jobs.heartbeat

    def late(self: Jobs, claim: Job, events: Any, **options: Any) -> Any:
        if events:
            taken.set()
            threading.Event().wait(0.3)  # time to be overtaken in
        return beat(self, claim, events, **options)

    def says(_params: Any, run: Run) -> Result:
        run.note("said")
        assert taken.wait(20)
        return Result()

    monkeypatch.setattr(Jobs, "heartbeat", late)
    job = submit("test.local")
    assert with_recipe(runner, says).run(job.id) == "succeeded"
    assert lines(jobs, job) == ["said"]


def test_a_doubled_message_does_nothing_twice(
    runner: Runner, submit: Submit, database: Database, another: Callable[..., Runner]
) -> None:
    job = submit("test.work", steps=1, step_s=0)
    assert [runner.run(job.id), runner.run(job.id), another().run(job.id)] == ["succeeded", "not_ours", "not_ours"]
    assert effects(database) == [job.id]


def test_a_job_whose_worker_died_resumes_from_its_checkpoint(
    runner: Runner, submit: Submit, jobs: Jobs, database: Database
) -> None:
    job = submit("test.work", steps=5, step_s=0)
    jobs.claim(job.id, owner="worker-that-died", lease_s=-1)
    Checkpoint(runner.settings.jobs_dir / job.id / "checkpoints", attempt=1).save({"done": 4})
    left_behind = runner.settings.jobs_dir / job.id / "attempt-000001"
    left_behind.mkdir()
    assert runner.run(job.id) == "succeeded"
    assert lines(jobs, job) == ["starts at 4"]
    assert effects(database) == [job.id]


def test_an_attempt_that_lost_its_lease_stops_and_publishes_nothing(
    runner: Runner, submit: Submit, jobs: Jobs, database: Database, another: Callable[..., Runner]
) -> None:
    job = submit("test.work", steps=10_000, step_s=0.001)
    outcomes: list[str] = []
    thread = threading.Thread(target=lambda: outcomes.append(runner.run(job.id)))
    thread.start()
    wait_until(lambda: look(jobs, job).progress > 0)
    with database.transaction() as session:  # as if the worker had been silent for too long
        session.execute(
            update(JobRow)
            .where(JobRow.id == job.id)
            .values(
                lease_expires_at=datetime.now(UTC) - timedelta(seconds=1),
                owner="taken",
                attempt=JobRow.attempt + 1,
                params={"steps": 1},
            )
        )
    thread.join()
    assert outcomes == ["lost"]
    assert effects(database) == []
    assert look(jobs, job).status == "running"
    assert another().run(job.id) == "succeeded"
    assert effects(database) == [job.id]


def test_a_flaky_job_is_tried_again_until_it_succeeds(
    runner: Runner, submit: Submit, jobs: Jobs, database: Database
) -> None:
    job = submit("test.flaky")
    outcomes = []
    for _ in range(3):
        with database.transaction() as session:
            session.execute(update(JobRow).values(run_after=datetime.now(UTC) - timedelta(seconds=1)))
        outcomes.append(runner.run(job.id))
    assert outcomes == ["queued", "queued", "succeeded"]
    assert look(jobs, job).error is None


def test_a_hopeless_job_is_a_dead_letter_that_says_why(
    runner: Runner, submit: Submit, jobs: Jobs, database: Database
) -> None:
    job = submit("test.hopeless")
    for _ in range(2):
        with database.transaction() as session:
            session.execute(update(JobRow).values(run_after=datetime.now(UTC) - timedelta(seconds=1)))
        runner.run(job.id)
    dead = look(jobs, job)
    assert (dead.status, dead.failures) == ("dead", 2)
    assert dead.error is not None
    assert dead.error["detail"] == "RuntimeError: attempt 2 failed"


def test_work_that_cannot_succeed_as_asked_fails_with_the_recipes_words(
    runner: Runner, submit: Submit, jobs: Jobs
) -> None:
    job = submit("test.refuse")
    assert runner.run(job.id) == "failed"
    error = look(jobs, job).error
    assert error is not None
    assert (error["type"], error["detail"], error["needed"], error["found"]) == (
        "urn:genba:problem:invalid", "Needs 200 likes to train, found 12.", 200, 12,
    )  # fmt: skip


def test_a_recipe_that_this_worker_lacks_is_left_for_another(runner: Runner, submit: Submit, jobs: Jobs) -> None:
    job = submit("test.elsewhere")
    assert runner.run(job.id) == "queued"
    assert "no recipe test.elsewhere" in str(look(jobs, job).error)


def test_parameters_that_a_newer_recipe_refuses_fail_the_job(runner: Runner, submit: Submit, jobs: Jobs) -> None:
    job = submit("test.work", steps="many", colour="red")
    assert runner.run(job.id) == "failed"
    error = look(jobs, job).error
    assert error is not None
    assert {found["field"] for found in error["errors"]} == {"params.steps", "params.colour"}


def test_a_cancelled_job_stops_and_leaves_nothing_behind(
    runner: Runner, submit: Submit, jobs: Jobs, database: Database, principal: Callable[..., Principal]
) -> None:
    job = submit("test.work", steps=10_000, step_s=0.001)
    outcomes: list[str] = []
    thread = threading.Thread(target=lambda: outcomes.append(runner.run(job.id)))
    thread.start()
    wait_until(lambda: look(jobs, job).progress > 0)
    jobs.cancel(job.id, principal=principal("engineer"))
    thread.join()
    assert outcomes == ["cancelled"]
    assert look(jobs, job).status == "cancelled"
    assert effects(database) == []
    assert not (runner.settings.jobs_dir / job.id).exists()


@pytest.mark.parametrize("swallowed", [Exception, BaseException])
def test_a_job_cancelled_at_its_last_moment_publishes_nothing(
    swallowed: type[BaseException], runner: Runner, submit: Submit, jobs: Jobs, principal: Callable[..., Principal]
) -> None:
    def run(_: Any, run: Run) -> Result:
        jobs.cancel(run.job_id, principal=principal("engineer"))
        with contextlib.suppress(swallowed):
            run.raise_if_cancelled()
        return Result(publish=lambda _session: pytest.fail("published"))

    job = submit("test.local")
    assert with_recipe(runner, run).run(job.id) == "cancelled"


def test_a_recipe_that_does_not_stop_is_ended_with_its_process(
    runner: Runner, submit: Submit, jobs: Jobs, principal: Callable[..., Principal], another: Callable[..., Runner]
) -> None:
    job, ended = submit("test.local"), threading.Event()

    def run(_: Any, run: Run) -> Result:
        (run.workdir / "half-done").touch()
        jobs.cancel(run.job_id, principal=principal("engineer"))
        ended.wait(20)  # deaf to everything else
        return Result(publish=lambda _session: pytest.fail("published"))

    impatient = runner.settings.model_copy(update={"stop_grace_s": 0.1})
    with_recipe(another(end=ended.set, settings=impatient), run).run(job.id)
    assert ended.is_set()
    assert look(jobs, job).status == "cancelled"
    assert not (runner.settings.jobs_dir / job.id).exists()


def test_an_attempt_that_runs_too_long_is_stopped_and_counts_as_failed(
    runner: Runner, submit: Submit, jobs: Jobs
) -> None:
    def run(_: Any, run: Run) -> Result:
        while True:
            run.raise_if_cancelled()

    job = submit("test.local")
    assert with_recipe(runner, run, time_limit_s=0.05).run(job.id) == "queued"
    found = look(jobs, job)
    assert found.failures == 1
    assert found.error is not None
    assert found.error["type"] == "urn:genba:problem:attempt-timed-out"


def test_a_worker_that_drains_gives_its_job_back_without_a_failure(
    submit: Submit, jobs: Jobs, another: Callable[..., Runner]
) -> None:
    job, shutting_down = submit("test.work", steps=10_000, step_s=0.001), threading.Event()
    outcomes: list[str] = []
    first = another(draining=shutting_down.is_set)
    thread = threading.Thread(target=lambda: outcomes.append(first.run(job.id)))
    thread.start()
    wait_until(lambda: look(jobs, job).progress > 0)
    shutting_down.set()
    thread.join()
    back = look(jobs, job)
    assert (outcomes, back.status, back.failures) == (["queued"], "queued", 0)
    assert first.run(job.id) == "not_ours"
    assert (first.settings.jobs_dir / job.id / "checkpoints").exists()


def test_a_database_that_is_away_for_as_long_as_the_lease_fences_the_attempt_off(
    runner: Runner, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: object, **_options: object) -> None:
        raise ConnectionError("no route to the database")

    def run(_: Any, run: Run) -> Result:
        monkeypatch.setattr(runner.jobs, "heartbeat", away)
        while True:
            run.raise_if_cancelled()

    hurried = replace(runner, settings=runner.settings.model_copy(update={"lease_s": 0.1}))
    job = submit("test.local")
    assert with_recipe(hurried, run).run(job.id) == "lost"


def test_words_said_while_the_database_is_away_are_not_lost(
    runner: Runner, submit: Submit, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, asked = submit("test.local"), threading.Event()
    reach = jobs.heartbeat

    def away(*args: Any, **options: Any) -> Any:
        if args[1] and not asked.is_set():
            asked.set()
            raise ConnectionError("no route to the database")
        return reach(*args, **options)

    def run(_: Any, run: Run) -> Result:
        run.note("first")
        asked.wait(20)
        run.note("second")
        return Result()

    monkeypatch.setattr(jobs, "heartbeat", away)
    with_recipe(runner, run).run(job.id)
    assert lines(jobs, job) == ["first", "second"]


def test_every_attempt_of_a_job_has_the_same_seed_and_a_folder_of_its_own(
    runner: Runner, submit: Submit, jobs: Jobs
) -> None:
    seen: list[tuple[int, str]] = []

    def run(_: Any, run: Run) -> Result:
        seen.append((run.seed, run.workdir.name))
        if run.attempt == 1:
            jobs.database.close()
            raise RuntimeError("once more")
        return Result()

    job = submit("test.local")
    local = with_recipe(runner, run)
    local.run(job.id)
    with jobs.database.transaction() as session:
        session.execute(update(JobRow).values(run_after=datetime.now(UTC) - timedelta(seconds=1)))
    local.run(job.id)
    assert seen == [(seed_of(job.id), "attempt-000001"), (seed_of(job.id), "attempt-000002")]


def test_the_folders_of_jobs_that_are_over_go_when_a_worker_starts(
    runner: Runner, submit: Submit, jobs: Jobs, principal: Callable[..., Principal]
) -> None:
    waiting, cancelled, dead = (submit("test.work") for _ in range(3))
    jobs.cancel(cancelled.id, principal=principal("engineer"))
    claim = jobs.claim(dead.id, owner="worker-1", lease_s=30)
    assert claim is not None
    jobs.fail(replace(claim, max_attempts=1), {}, retry=True)
    folder = runner.settings.jobs_dir
    for name in (waiting.id, cancelled.id, dead.id, "job_unknown", "not_ours"):
        (folder / name).mkdir(parents=True)
    prune(jobs, folder)
    assert {path.name for path in folder.iterdir()} == {waiting.id, dead.id, "not_ours"}


def test_numbers_that_no_database_takes_are_null() -> None:
    assert json_safe({"a": float("nan"), "b": float("inf"), "c": np.float32(0.5), 4: "x\x00y"}) == {
        "a": None, "b": None, "c": 0.5, "4": "x\ufffdy",
    }  # fmt: skip


# ---- checkpoints ----


def test_the_newest_checkpoint_wins_and_old_ones_go(tmp_path: Path) -> None:
    def write_weights(folder: Path) -> None:
        (folder / "weights").write_bytes(b"w")

    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.load() is None
    for step in range(5):
        checkpoint.save({"step": step}, write_weights)
    saved = checkpoint.load()
    assert saved is not None
    assert (saved.state, (saved.folder / "weights").read_bytes()) == ({"step": 4}, b"w")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_checkpoint_that_fails_while_saving_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"step": 1})

    def break_off(_: Path) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        checkpoint.save({"step": 2}, break_off)
    saved = checkpoint.load()
    assert saved is not None
    assert saved.state == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_fenced_attempt_that_saves_late_does_not_hide_its_successors_checkpoint(tmp_path: Path) -> None:
    old, new = Checkpoint(tmp_path, attempt=1), Checkpoint(tmp_path, attempt=2)
    new.save({"by": "new"})
    for _ in range(3):
        old.save({"by": "old"})
    for reader in (old, new):
        saved = reader.load()
        assert saved is not None
        assert saved.state == {"by": "new"}


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"step": 1})
    checkpoint.save({"step": 2})
    (max(tmp_path.iterdir()) / "state.json").write_text('{"step"')
    saved = checkpoint.load()
    assert saved is not None
    assert saved.state == {"step": 1}


# ---- recipes ----


def test_the_recipe_in_the_docs_runs(runner: Runner, submit: Submit, jobs: Jobs) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "run-jobs.md"
    source = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    documented: dict[str, Any] = {}
    exec(compile(source, str(page), "exec", dont_inherit=True), documented)  # noqa: S102 - our own page
    recipes = replace(runner.recipes, by_name=documented["RECIPES"])
    counting = replace(runner, recipes=recipes)
    job = submit("demo.count_words", key=runner.artifacts.put(b"one two\nthree\n", suffix=".txt"))
    empty = submit("demo.count_words", key=runner.artifacts.put(b"", suffix=".txt"))
    assert [counting.run(job.id), counting.run(empty.id)] == ["succeeded", "failed"]
    done = look(jobs, job)
    assert done.result is not None
    assert done.result["value"] == {"words": 3}


def test_an_order_to_stop_is_not_swallowed_by_a_recipes_except_exception() -> None:
    assert not issubclass(Stopped, Exception)


def test_a_recipe_must_refuse_unknown_parameters_and_have_a_dotted_name() -> None:
    class Lax(BaseModel):
        pass

    with pytest.raises(ValueError, match="refuse unknown fields"):
        Recipe("test.lax", Lax, lambda _params, _run: Result())
    with pytest.raises(ValueError, match=r"service\.verb_noun"):
        Recipe("lax", Params, lambda _params, _run: Result())
    with pytest.raises(ValueError, match="none of its jobs would ever run"):
        Recipe("test.never", Params, lambda _params, _run: Result(), max_running=0)


def test_the_runner_leaves_a_job_above_its_recipes_limit(runner: Runner, submit: Submit, jobs: Jobs) -> None:
    first, second = (submit("test.work", steps=1, step_s=0) for _ in range(2))
    known = runner.recipes.by_name
    alone = replace(runner, recipes=replace(runner.recipes, by_name={
        **known, "test.work": replace(known["test.work"], max_running=1),
    }))  # fmt: skip
    claim = jobs.claim(first.id, owner="worker-2", lease_s=30)
    assert claim is not None
    assert alone.run(second.id) == "not_ours"
    jobs.stop(claim, "queued")
    assert [alone.run(second.id), alone.run(first.id)] == ["succeeded", "succeeded"]


def test_a_recipe_runs_from_a_shell_too(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = LocalReporter(sys.stdout)
    reporter.progress(0.5, "half")
    reporter.metrics(3, {"loss": 0.25})
    reporter.line("warning", "odd")
    assert reporter.stop_reason() is None
    printed = capsys.readouterr().out
    assert "50.0%  half" in printed
    assert "step 3  loss=0.25" in printed
    assert "warning: odd" in printed
