"""Jobs in MLflow: the run says what the job says, over attempts, and an MLflow that is away costs no job anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from tests.training.mlflow_server import MlflowServer, mlflow_server

from genba_shared.job_rows import JobRow
from genba_shared.jobs import Job, Jobs
from genba_shared.principal import Clearance, Principal
from genba_shared.recipe import Params, Recipe, Result, Run
from genba_training import tracking
from genba_training.runner import Runner

Submit = Callable[..., Job]


@pytest.fixture
def server() -> Iterator[MlflowServer]:
    with mlflow_server() as server:
        yield server


@pytest.fixture
def tracked(runner: Runner, server: MlflowServer) -> Runner:
    return with_mlflow(runner, server.url)


def with_mlflow(runner: Runner, url: str, **changes: Any) -> Runner:
    platform = runner.settings.platform.model_copy(update={"mlflow_tracking_url": url, **changes})
    return replace(runner, settings=runner.settings.model_copy(update={"platform": platform}))


def with_recipe(runner: Runner, run: Callable[[Any, Run], Result]) -> Runner:
    recipe: Recipe[Any] = Recipe("test.local", Params, run)
    return replace(runner, recipes=replace(runner.recipes, by_name={recipe.name: recipe}))


def peek(jobs: Jobs, job: Job) -> Job:
    found = jobs.peek(job.id)
    assert found is not None
    return found


def test_a_job_is_a_run_with_its_params_metrics_files_and_version(
    tracked: Runner, submit: Submit, jobs: Jobs, server: MlflowServer
) -> None:
    work = submit("test.work", steps=3, step_s=0)
    assert tracked.run(work.id) == "succeeded"
    (run,) = server.runs.values()
    result = peek(jobs, work).result
    assert result is not None
    assert result["mlflow_run_id"] == run["id"]
    assert server.experiments == {"genba/test.work": run["experiment"]}
    assert (run["name"], run["status"]) == (f"test.work {work.id}", "FINISHED")
    assert run["params"] == {"steps": "3", "step_s": "0"}
    assert [(m["key"], m["step"], m["value"]) for m in run["metrics"]] == [
        ("loss", 1, 1.0), ("loss", 2, 0.5), ("loss", 3, 1 / 3), ("final/steps", 0, 3),
    ]  # fmt: skip
    assert run["tags"] == {
        "genba.job_id": work.id, "genba.recipe": "test.work", "genba.clearance": "internal",
        "genba.outcome": "succeeded", "genba.attempt": "1",
    }  # fmt: skip
    assert server.files == {f"{run['experiment']}/{run['id']}/artifacts/report.txt": b"3 steps"}
    train = submit("test.train", epochs=1)
    assert tracked.run(train.id) == "succeeded"
    trained = server.runs[peek(jobs, train).result["mlflow_run_id"]]  # type: ignore[index]
    assert trained["tags"]["genba.version"] == "test.points 1 promoted"
    assert {"final/accuracy", "final/weight_norm"} <= {m["key"] for m in trained["metrics"]}


def test_the_attempts_of_a_job_are_one_run(tracked: Runner, submit: Submit, jobs: Jobs, server: MlflowServer) -> None:
    def run(_: Any, run: Run) -> Result:
        run.log(run.attempt, **{"ndcg@10": float("nan") if run.attempt == 1 else 0.5})
        if run.attempt == 1:
            raise RuntimeError("the disk hiccuped")
        return Result()

    job = submit("test.local")
    local = with_recipe(tracked, run)
    assert local.run(job.id) == "queued"
    (logged,) = server.runs.values()
    assert (logged["status"], logged["tags"]["genba.outcome"]) == ("RUNNING", "queued")
    with jobs.database.transaction() as session:
        session.execute(update(JobRow).values(run_after=datetime.now(UTC) - timedelta(seconds=1)))
    assert local.run(job.id) == "succeeded"
    (logged,) = server.runs.values()
    assert (logged["status"], logged["tags"]["genba.attempt"]) == ("FINISHED", "2")
    assert [(m["key"], m["value"]) for m in logged["metrics"]] == [("ndcg_10", "NaN"), ("ndcg_10", 0.5)]


@pytest.mark.parametrize(("outcome", "status"), [("failed", "FAILED"), ("cancelled", "KILLED")])
def test_a_run_ends_as_its_job_does(
    outcome: str,
    status: str,
    tracked: Runner,
    submit: Submit,
    jobs: Jobs,
    server: MlflowServer,
    principal: Callable[..., Principal],
) -> None:
    def run(_: Any, run: Run) -> Result:
        run.log(1, loss=0.5)
        if outcome == "failed":
            from genba_shared.problems import Invalid

            raise Invalid("Needs 200 likes.")
        jobs.cancel(run.job_id, principal=principal("engineer"))
        while True:
            run.raise_if_cancelled()

    assert with_recipe(tracked, run).run(submit("test.local").id) == outcome
    assert [logged["status"] for logged in server.runs.values()] == [status]


def test_work_that_measures_nothing_leaves_no_run(tracked: Runner, submit: Submit, server: MlflowServer) -> None:
    assert with_recipe(tracked, lambda _params, _run: Result()).run(submit("test.local").id) == "succeeded"
    assert server.runs == {}


@pytest.mark.parametrize("how", ["refuses", "is not there"])
def test_an_mlflow_that_does_not_take_it_costs_the_job_nothing_but_a_line(
    how: str, runner: Runner, submit: Submit, jobs: Jobs, server: MlflowServer
) -> None:
    server.broken = True
    url = server.url if how == "refuses" else "http://127.0.0.1:9"
    job = submit("test.work", steps=2, step_s=0)
    assert with_mlflow(runner, url).run(job.id) == "succeeded"
    _, events = jobs.events(job.id)
    lines = [event.data["message"] for event in events if event.kind == "line" and event.data["level"] == "warning"]
    assert len(lines) == 1
    assert lines[0].startswith("MLflow does not take this run: ")
    result = peek(jobs, job).result
    assert result is not None
    assert "mlflow_run_id" not in result
    assert server.runs == {}


def test_what_an_mlflow_missed_while_it_was_away_is_brought_later(
    tracked: Runner, submit: Submit, server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_FLUSH_S", 0.01)
    server.broken = True

    def run(_: Any, run: Run) -> Result:
        for step in range(1500):
            run.log(step, loss=1.0)
        server.broken = False
        return Result()

    assert with_recipe(tracked, run).run(submit("test.local").id) == "succeeded"
    (logged,) = server.runs.values()
    assert [m["step"] for m in logged["metrics"]] == list(range(1500))


def test_an_attempt_whose_ending_cannot_be_written_leaves_no_thread_behind(
    tracked: Runner, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: object, **_options: object) -> None:
        raise ConnectionError("no route to the database")

    def run(_: Any, run: Run) -> Result:
        run.log(1, loss=1.0)
        monkeypatch.setattr(tracked.jobs, "fail", away)
        raise RuntimeError("and the work failed too")

    job = submit("test.local")
    with pytest.raises(ConnectionError):
        with_recipe(tracked, run).run(job.id)
    assert not [thread for thread in threading.enumerate() if thread.name == f"mlflow-{job.id}"]


def test_what_is_labelled_above_the_server_stays_here(
    runner: Runner, jobs: Jobs, server: MlflowServer, principal: Callable[..., Principal], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    open_to_more = with_mlflow(
        runner, server.url, mlflow_clearance="confidential", mlflow_token_file=tmp_path / "token"
    )
    for label, where, runs in (
        (Clearance.CONFIDENTIAL, with_mlflow(runner, server.url), 0),
        (Clearance.CONFIDENTIAL, open_to_more, 1),
        (Clearance.SECRET, open_to_more, 1),
    ):
        who = principal("engineer", clearance=label)
        job = jobs.submit("test.work", {"steps": 1, "step_s": 0}, principal=who, idempotency_key=None)
        assert where.run(job.id) == "succeeded"
        assert len(server.runs) == runs
    assert server.authorization == {"Bearer s3cret"}
