"""The service's jobs, run by the real runner: what they make is whole, once, and found by the service afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genba_shared.recipe import Checkpoint, LocalReporter, Run
from genba_sop import training
from genba_sop.settings import Settings
from genba_training.recipes import load
from genba_training.runner import Runner
from genba_training.settings import Settings as TrainingSettings

Service = Any  # of conftest, which tests cannot import
Films = Any


@pytest.fixture
def work(service: Service, settings: Settings) -> Callable[[str], str]:
    """Run one job to its end; its status."""
    runner = Runner(
        jobs=service.sop.jobs,
        recipes=load(["genba_sop.training:RECIPES"]),
        artifacts=service.sop.artifacts,
        settings=TrainingSettings(platform=settings.platform, recipes=("genba_sop.training:RECIPES",)),
        owner="worker-1",
    )

    def work(job_id: str) -> str:
        runner.run(job_id)
        return str(service.sop.jobs.peek(job_id).status)

    return work


def large(service: Service, path: Path, **fields: Any) -> Any:
    """Upload as if it were too large for a request."""
    sop = service.sop
    object.__setattr__(sop, "settings", sop.settings.model_copy(update={"job_above_bytes": 1000}))
    answer = service.upload(path, **fields)
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_a_large_upload_becomes_a_video_that_can_be_scored_and_searched(
    service: Service, films: Films, work: Callable[[str], str]
) -> None:
    procedure = service.procedure(films)
    job = large(service, films.good)
    assert work(job["id"]) == "succeeded"
    video = service.get(f"/v1/sop/videos/{job['result_id']}").json()
    assert video["info"]["duration_s"] == pytest.approx(16.0, abs=0.3)
    assert service.evaluation(procedure, video["id"])["verdict"] == "pass"
    hits = service.post("/v1/sop/search", {"clip": {"video_id": video["id"], "end_s": 3}, "k": 3}).json()["hits"]
    assert hits[0]["step_id"] == "open"
    assert service.get(f"/v1/sop/videos/{video['id']}").json()["indexed"]


def test_a_large_file_that_is_no_video_is_refused_at_once(service: Service, tmp_path: Path) -> None:
    (tmp_path / "fake.mp4").write_bytes(b"PK\x03\x04" + b"\0" * 5000)
    sop = service.sop
    object.__setattr__(sop, "settings", sop.settings.model_copy(update={"job_above_bytes": 1000}))
    assert service.upload(tmp_path / "fake.mp4").status_code == 415


def test_a_damaged_large_upload_fails_with_its_reason_and_leaves_no_video(
    service: Service, films: Films, tmp_path: Path, work: Callable[[str], str]
) -> None:
    whole = films.good.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    job = large(service, tmp_path / "cut.mp4")
    assert work(job["id"]) == "failed"
    assert service.get(f"/v1/sop/videos/{job['result_id']}").status_code == 404


def test_the_same_bytes_sent_twice_as_jobs_are_one_video(
    service: Service, films: Films, work: Callable[[str], str]
) -> None:
    first, again = large(service, films.good), large(service, films.good)
    assert (again["id"], again["result_id"]) == (first["id"], first["result_id"])
    other = large(service, films.good, clearance="public")
    assert other["id"] != first["id"]
    asked = service.sop.jobs.peek(first["id"])
    params = {**asked.params, "video_id": "vid_01m7y3j0n25xc6617q3969kdq0"}  # two uploads in the very same moment
    second = service.sop.jobs.submit("sop.ingest", params, principal=asked.principal, idempotency_key=None)
    assert work(first["id"]) == work(second.id) == "succeeded"
    assert [row["id"] for row in service.get("/v1/sop/videos").json()["items"]] == [first["result_id"]]
    assert service.sop.jobs.peek(second.id).result["value"]["video_id"] == first["result_id"]


def test_a_transcript_goes_with_its_video_into_the_job(
    service: Service, films: Films, work: Callable[[str], str]
) -> None:
    sop = service.sop
    object.__setattr__(sop, "settings", sop.settings.model_copy(update={"job_above_bytes": 1000}))

    def send(end_s: float) -> Any:
        said = f"WEBVTT\n\n00:01.000 --> 00:{end_s:06.3f}\nMind the gauge."
        film = films.good.read_bytes()
        files = {"file": ("run.mp4", film, "video/mp4"), "transcript": ("run.vtt", said, "text/vtt")}
        return service.client.post("/v1/sop/videos", files=files, headers=service.headers())

    beyond = send(50.0).json()  # how long the video is, the job finds out
    other = send(4.0)
    assert (other.status_code, beyond["id"] in other.json()["detail"]) == (409, True)
    assert send(50.0).json()["id"] == beyond["id"]
    assert work(beyond["id"]) == "failed"
    assert service.get("/v1/sop/videos").json()["items"] == []
    job = send(4.0).json()
    assert work(job["id"]) == "succeeded"
    hit = service.post("/v1/sop/search", {"text": "gauge"}).json()["hits"][0]
    assert (hit["video_id"], hit["transcript"]["end_s"]) == (job["result_id"], 4.0)
    sop.sweep()
    key = sop.jobs.peek(job["id"]).params["transcript_key"]
    assert not sop.artifacts.exists(key)  # its words are in the database, and go when the video does


def test_a_batch_scores_what_it_can_and_says_why_not_for_the_rest(
    service: Service, films: Films, work: Callable[[str], str]
) -> None:
    procedure, good, skipped = service.procedure(films), service.video(films.good), service.video(films.skipped)
    videos = [{"video_id": good, "operator": "op-1"}, {"video_id": skipped}]
    job = service.post("/v1/sop/evaluations/batch", {"procedure_id": procedure, "videos": videos}, key="b").json()
    service.delete(f"/v1/sop/videos/{skipped}")
    assert work(job["id"]) == "succeeded"
    done, lost = service.sop.jobs.peek(job["id"]).result["value"]["results"]
    assert done["verdict"] == "pass"
    assert skipped in lost["problem"]
    assert [row["id"] for row in service.get("/v1/sop/evaluations").json()["items"]] == [done["evaluation_id"]]


def test_a_batch_that_is_run_again_makes_no_evaluation_twice(
    service: Service, films: Films, work: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt dies after its first evaluation is on record and before the checkpoint says so."""
    procedure, good, skipped = service.procedure(films), service.video(films.good), service.video(films.skipped)
    body = {"procedure_id": procedure, "videos": [{"video_id": good}, {"video_id": skipped}]}
    job = service.post("/v1/sop/evaluations/batch", body, key="b").json()
    with monkeypatch.context() as patched:
        patched.setattr("genba_shared.recipe.Checkpoint.save", _dies)
        work(job["id"])
    assert len(service.get("/v1/sop/evaluations").json()["items"]) == 1
    again = training.evaluate_batch(training.BatchParams(**body), _run(service, job["id"]))
    assert again.metrics == {"scored": 2.0, "failed": 0.0}
    assert len(service.get("/v1/sop/evaluations").json()["items"]) == 2


def _dies(*_args: object, **_kwargs: object) -> None:
    raise OSError("disk full")


def _run(service: Service, job_id: str) -> Any:
    folder = service.sop.settings.platform.home / "again"
    job = service.sop.jobs.peek(job_id)
    return Run(
        job_id=job_id,
        attempt=2,
        seed=0,
        workdir=folder,
        checkpoint=Checkpoint(folder / "checkpoints", attempt=2),
        principal=job.principal,
        platform=service.sop.settings.platform,
        database=service.sop.database,
        artifacts=service.sop.artifacts,
        reporter=LocalReporter(),
    )
