"""``genba jobs`` as a person meets it, over a running embedded mode whose API and worker are killed on the way."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from tests.e2e.world import Genba, Shell, until

from genba_gateway.client import Client, Refused

pytestmark = pytest.mark.xdist_group("jobs-cli")

JOB = re.compile(r"job_[0-9a-z]{26}")


@pytest.fixture(scope="module")
def genba(genba_with_test_recipes: Genba) -> Genba:
    return genba_with_test_recipes


@pytest.fixture(scope="module")
def jobs(genba: Genba) -> Shell:
    return Shell(genba, "jobs")


@pytest.fixture
def client(genba: Genba) -> Iterator[Client]:
    with Client(genba.url, genba.admin_key) as client:
        yield client


def test_a_job_is_submitted_and_followed_to_its_result(jobs: Shell) -> None:
    said = jobs("submit", "test.work", "-p", "steps=3", "--params", '{"step_s": 0.01, "steps": 9}', "--watch")
    assert said.code == 0, said.err
    job_id, _, result = said.out.partition("\n")
    assert JOB.fullmatch(job_id)
    assert json.loads(result)["value"] == {"done": 3}
    assert "starts at 0" in said.err
    assert "100%  step 3" in said.err
    assert "succeeded after 1 attempt\n" in said.err
    assert jobs("watch", job_id).code == 0  # again, when it is over
    shown = jobs.json("show", job_id)
    assert (shown["status"], shown["params"]) == ("succeeded", {"steps": 3, "step_s": 0.01})
    assert job_id in [job["id"] for job in jobs.json("list", "--status", "succeeded", "--json")]
    assert job_id in jobs("list").out


@pytest.mark.long
def test_following_goes_on_while_the_api_and_the_worker_are_killed(jobs: Shell, genba: Genba, client: Client) -> None:
    job = client.jobs.submit("test.work", {"steps": 60, "step_s": 0.1})
    watching = subprocess.Popen(
        jobs.argv("watch", job.id), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=jobs.env
    )
    until(lambda: client.jobs.get(job.id).progress > 0.1, what="the job's first steps")
    worker, api = genba.kill("worker"), genba.kill("api")
    out, err = watching.communicate(timeout=240)
    assert watching.returncode == 0, err
    assert json.loads(out)["value"] == {"done": 60}
    assert "the worker went silent" in err
    starts = [int(number) for number in re.findall(r"starts at (\d+)", err)]
    assert len(starts) == 2
    assert starts[0] == 0 < starts[1], "the second attempt did not go on from the checkpoint"
    genba.wait_for_restart("api", api)
    until(lambda: genba.process.pid_of("worker") != worker, what="the worker's restart")


def test_a_running_job_is_cancelled_and_leaves_nothing_behind(jobs: Shell, genba: Genba, client: Client) -> None:
    job = client.jobs.submit("test.work", {"steps": 1000, "step_s": 0.05})
    folder = genba.home / "jobs" / job.id
    until(lambda: client.jobs.get(job.id).progress > 0, what="its start")
    assert folder.exists()
    said = jobs("cancel", job.id, "--watch")
    assert (said.code, said.out) == (0, f"{job.id} is cancelled\n")
    until(lambda: not folder.exists(), what="the folder's end")
    assert jobs("watch", job.id).code == 1


def test_a_failed_job_says_why_and_is_requeued(jobs: Shell, client: Client) -> None:
    said = jobs("submit", "test.refuse", "--watch")
    assert said.code == 1
    assert "genba: Needs 200 likes to train, found 12." in said.err
    assert said.err.count("found 12") == 1
    job_id = said.out.strip()
    assert jobs("requeue", job_id).out == f"{job_id} is queued\n"
    until(lambda: client.jobs.get(job_id).attempt == 2, what="the second attempt")
    assert client.jobs.wait(job_id).status == "failed"


def test_interrupting_leaves_the_job_running(jobs: Shell, client: Client) -> None:
    job = client.jobs.submit("test.work", {"steps": 1000, "step_s": 0.05})
    watching = subprocess.Popen(
        jobs.argv("watch", job.id), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=jobs.env
    )
    assert watching.stderr is not None
    assert "queued" in watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert f"{job.id} goes on; stop it with: genba jobs cancel {job.id}" in err
    assert client.jobs.cancel(job.id).status in {"running", "cancelled"}
    assert client.jobs.wait(job.id).status == "cancelled"


def test_recipes_are_listed_with_what_they_take(jobs: Shell) -> None:
    listed = jobs("recipes").out
    assert "platform.verify_audit" in listed
    assert "[expected_head]" in listed
    assert jobs.json("recipes", "test.work")["properties"]["steps"]["minimum"] == 1
    assert jobs("recipes", "test.nothing").code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("submit", "test.nothing"), 3, "recipe: there is no recipe 'test.nothing'; there are: platform."),
        (("submit", "test.work", "-p", "steps=0"), 3, "params.steps: Input should be greater than or equal to 1"),
        (("submit", "test.work", "-p", "steps"), 2, "'steps' must look like name=value."),
        (("submit", "test.work", "--params", "{"), 2, "--params is no JSON"),
        (("submit", "test.work", "--params", "[1]"), 2, "--params must be an object"),
        (("submit", "test.work", "--params", "@/nowhere.json"), 2, "No such file or directory: /nowhere.json"),
        (("watch", "job_0000000000000000000000none"), 3, "There is no job"),
        (("list", "--status", "sleeping"), 2, "sleeping"),
        (("schedules", "create", "n", "test.work", "--cron", "0 25 * * *"), 3, "cron: bad hour"),
        (("list", "--url", "http://127.0.0.1:1"), 3, "does not answer"),
        (("list", "--key", "gnb_dev_wrong"), 3, "401"),
    ],
)
def test_what_cannot_be_is_said_in_words_with_its_exit_code(
    arguments: tuple[str, ...], code: int, said: str, jobs: Shell
) -> None:
    ended = jobs(*arguments)
    assert ended.code == code, ended.err
    assert said in ended.err


def test_a_schedule_is_kept_from_the_shell(jobs: Shell) -> None:
    made = jobs(
        "schedules", "create", "夜間", "test.work", "-p", "steps=2", "--cron", "30 2 * * *", "--time-zone", "Asia/Tokyo"
    )
    schedule_id = made.out.strip()
    assert "02:30 JST" in made.err
    assert "夜間" in jobs("schedules", "list").out
    assert jobs("schedules", "disable", schedule_id).out == f"{schedule_id} is off\n"
    assert jobs.json("schedules", "show", schedule_id)["next_run_at"] is None
    changed = jobs("schedules", "change", schedule_id, "--cron", "0 5 * * *", "--time-zone", "Europe/Berlin")
    assert changed.out.endswith("next off\n")
    assert " 05:00 CE" in jobs("schedules", "enable", schedule_id).out
    assert jobs("schedules", "delete", schedule_id).code == 0
    assert jobs.json("schedules", "list", "--json") == []


def test_the_client_reaches_the_same(client: Client, tmp_path: Path) -> None:
    done = client.jobs.wait(client.jobs.submit("test.work", {"steps": 1, "step_s": 0}, idempotency_key="once").id)
    assert client.jobs.submit("test.work", {"steps": 1, "step_s": 0}, idempotency_key="once").id == done.id
    assert client.jobs.download(done.id, "report", tmp_path / "report.txt").read_text() == "1 steps"
    made = client.schedules.create("hourly", "test.work", cron="0 * * * *")
    assert isinstance(made.next_run_at, datetime)
    assert client.schedules.change(made.id, overlap="allow").overlap == "allow"
    client.schedules.delete(made.id)
    with pytest.raises(Refused, match="404"):
        client.schedules.get(made.id)
    assert client.request("GET", "/v1/whoami")["roles"] == ["admin"]
    with pytest.raises(Refused) as refused:
        client.upload("/v1/sop/videos", tmp_path / "report.txt", content_type="video/mp4")
    assert (refused.value.status, refused.value.code) == (415, "not-a-video")
