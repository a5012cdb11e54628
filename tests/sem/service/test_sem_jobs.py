"""Batches as jobs, by the real runner: whatever happens to the worker, every particle is decided, and once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.sem.service.jobs_world import doomed, engineer, free, reviewed, submit, until, worker
from tests.sem.service.pictures import KINDS, picture, views
from threadpoolctl import threadpool_info, threadpool_limits

from genba_sem import particles, refining
from genba_sem.classifying import Work
from genba_sem.settings import Settings
from genba_sem.tables import DecisionRow, ParticleRow
from genba_shared.recipe import Run

Service = Any  # of conftest, which tests cannot import


@pytest.fixture
def work(service: Service, settings: Settings) -> Callable[[str], str]:
    """Run one job to its end; its status."""
    return worker(service, settings)


def classify(service: Service, batch: str, *, key: str = "k-1") -> str:
    """Submit the batch's job; its id."""
    headers = service.headers() | {"idempotency-key": key}
    answer = service.client.post(f"/v1/sem/batches/{batch}/classify", headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def decisions(service: Service, batch: str) -> Counter[str]:
    """How many decisions each particle of the batch has, by its name."""
    with service.sem.database.read() as session:
        query = select(ParticleRow.name, func.count(DecisionRow.id)).outerjoin(DecisionRow)
        query = query.where(ParticleRow.batch == batch).group_by(ParticleRow.name)
        return Counter(dict(session.execute(query).all()))


def test_a_batch_is_stored_first_and_classified_by_a_job(service: Service, work: Callable[[str], str]) -> None:
    labels = service.lab(masters=2)
    for k, kind in enumerate(KINDS):
        waiting = service.particle(views(kind, seed=40 + k), batch="b-1", name=kind, decide="later", pixel_size_nm="12")
        assert waiting["status"] == "waiting"
    service.particle([("a.png", b"nonsense")], batch="b-1", name="broken", decide="later")
    job = classify(service, "b-1")
    assert work(job) == "succeeded"
    items = service.get("/v1/sem/particles", params={"batch": "b-1"}).json()["items"]
    found = {item["name"]: item for item in items}
    assert {kind: found[kind]["label"]["id"] for kind in KINDS} == labels
    assert found["disc"]["diameter_um"] > 0  # the sender's pixel size was remembered
    assert found["broken"]["status"] == "unreadable"
    assert found["broken"]["in_queue"]
    whole = service.get(f"/v1/sem/particles/{found['broken']['id']}").json()
    assert "no TIFF" in whole["dropped"][0]["detail"]
    result = service.sem.jobs.peek(job).result["value"]
    assert sum(result["by_status"].values()) == 4
    assert result["by_status"]["unreadable"] == 1
    [batch] = service.get("/v1/sem/batches").json()
    assert (batch["batch"], batch["particles"]) == ("b-1", 4)


def test_a_batch_without_masters_fails_with_the_labels_and_loses_nothing(
    service: Service, work: Callable[[str], str]
) -> None:
    service.label("Needle")
    service.particle(views("disc", seed=1), batch="b-1", name="p", decide="later")
    job = classify(service, "b-1")
    assert work(job) == "failed"
    assert service.sem.jobs.peek(job).error["labels"][0]["name"] == "Needle"
    assert service.get("/v1/sem/particles", params={"status": "waiting"}).json()["items"][0]["name"] == "p"


@pytest.mark.long
def test_a_worker_killed_twice_in_the_middle_of_a_batch_loses_no_particle_and_doubles_none(
    service: Service, settings: Settings, work: Callable[[str], str]
) -> None:
    service.lab(masters=2, kinds=("disc", "needle"))
    count = 40  # deciding what has been looked at is quick: so many are not decided between two looks
    for k in range(count):
        service.particle(views("disc", seed=k), batch="b-1", name=f"p-{k}", decide="later")
    job = classify(service, "b-1")
    seen = 0
    for _ in range(2):
        until(lambda: free(service, job))
        with doomed(settings, job) as process:
            until(lambda seen=seen: sum(decisions(service, "b-1").values()) >= seen + 2)  # type: ignore[misc]
            process.kill()
        seen = sum(decisions(service, "b-1").values())
        assert seen < count
    until(lambda: free(service, job))
    assert work(job) == "succeeded"
    assert decisions(service, "b-1") == {f"p-{k}": 1 for k in range(count)}
    assert sum(service.sem.jobs.peek(job).result["value"]["by_status"].values()) == count
    assert service.sem.jobs.peek(job).attempt == 3


def test_a_refresh_learns_from_reviews_and_becomes_champion_only_if_it_is_no_worse(
    service: Service, work: Callable[[str], str]
) -> None:
    labels = service.lab(masters=2)
    judges = reviewed(service, labels, each=8)
    job = submit(service, "sem.refresh")
    assert work(job) == "succeeded", service.sem.jobs.peek(job).error
    result = service.sem.jobs.peek(job).result
    assert result["value"]["masters"] > 6
    assert result["value"]["judged_by"] == judges
    assert result["metrics"]["accuracy_gain"] >= 0
    service.sem.lanes.refresh("default")
    found = service.particle(views("needle", seed=900))
    assert found["decided_from"]["model"] == "sem.lane 1"
    assert found["label"]["id"] == labels["needle"]
    renamed = service.put(f"/v1/sem/labels/{labels['needle']}", {"name": {"en": "Rod"}}, version=1)
    assert renamed.status_code == 200
    again = service.get(f"/v1/sem/particles/{found['id']}").json()
    assert (again["label"]["name"]["en"], again["decided_from"]["model"]) == ("Rod", "sem.lane 1")
    merge = service.post(
        f"/v1/sem/labels/{labels['disc']}/merge", {"into": labels["square"], "reason": "x y z"}, version=1
    )
    assert merge.status_code == 200
    after = service.particle(views("disc", seed=901))
    assert after["label"]["id"] == labels["square"]  # the champion's masters of a merged label stand for its successor
    assert after["decided_from"]["model"] == "sem.lane 1"


def test_whoever_has_reviewed_as_many_as_were_asked_for_is_relieved_at_once_and_after_a_refresh(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 60 % five error-free random reviews are enough; no tenth is waited for."""
    service = sqlite_service
    monkeypatch.setattr(particles, "SAMPLE_SHARE", 1.0)  # every particle is drawn
    assert service.put("/v1/sem/policy", {"precision": 0.6}, version=0).status_code == 200
    labels = service.lab(masters=2)
    for left in range(5, 0, -1):
        assert service.get("/v1/sem/lane").json()["reviews_needed"] > 0
        kind = KINDS[left % len(KINDS)]
        found = service.particle(views(kind, seed=40 + left))
        assert (found["status"], found["reviews_needed"] > 0) == ("needs_review", True)
        body = {"particle_id": found["id"], "label_id": labels[kind]}
        assert service.post("/v1/sem/reviews", body, version="*").status_code == 201
    for model in ("masters", "sem.lane 1"):
        lane = service.get("/v1/sem/lane").json()
        assert (lane["model"], lane["calibration_reviews"], lane["reviews_needed"]) == (model, 5, 0)
        sent = [service.particle(views(kind, seed=60)) for kind in KINDS]
        assert {each["status"] for each in sent} & {"confirmed"}
        if model == "masters":
            job = submit(service, "sem.refresh")
            assert worker(service, service.sem.settings)(job) == "succeeded", service.sem.jobs.peek(job).error
            service.sem.lanes.refresh("default")


def test_a_proposal_that_learnt_from_a_careless_reviewer_is_registered_and_does_not_serve(
    sqlite_service: Service,
) -> None:
    service = sqlite_service
    work = worker(service, service.sem.settings)
    labels = service.lab(masters=2)
    wrong = dict(zip(labels.values(), [*list(labels.values())[1:], labels["disc"]], strict=True))
    for kind, label_id in labels.items():
        for seed in range(10):
            found = service.particle(views(kind, seed=700 + seed))
            drawn = "calibration_sample" in {reason["code"] for reason in found["reasons"]}
            judges = drawn or refining.is_judge(found["id"])
            body = {"particle_id": found["id"], "label_id": label_id if judges else wrong[label_id]}
            assert service.post("/v1/sem/reviews", body, version="*").status_code == 201
    job = submit(service, "sem.refresh")
    assert work(job) == "succeeded", service.sem.jobs.peek(job).error
    assert service.sem.jobs.peek(job).result["metrics"]["accuracy_gain"] < 0
    service.sem.lanes.refresh("default")
    assert service.get("/v1/sem/lane").json()["model"] == "masters"


def test_a_folder_becomes_a_batch_once_by_subfolders_or_by_a_manifest(
    sqlite_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = sqlite_service
    monkeypatch.setenv("GENBA_SEM_IMPORT_DIR", str(tmp_path / "share"))
    service.lab(masters=2)
    plain, listed = tmp_path / "share" / "run-1", tmp_path / "share" / "run-2"
    for kind in KINDS:
        for k, content in enumerate(views(kind, seed=45)):
            (plain / kind).mkdir(parents=True, exist_ok=True)
            (plain / kind / f"{k}.png").write_bytes(content)
    listed.mkdir()
    (listed / "x.png").write_bytes(picture("disc", seed=5))
    lines = (
        "name,views,lot,tags",
        "X-1,x.png,L9,割れ",
        "X-2,x.png,L9,",
        "X-1,x.png,L8,",
    )  # a name that is there by then
    (listed / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    work = worker(service, service.sem.settings)
    told: list[tuple[float, str]] = []
    tell = Run.progress

    def listen(run: Run, fraction: float, message: str = "") -> None:
        told.append((fraction, message))
        tell(run, fraction, message)

    monkeypatch.setattr(Run, "progress", listen)

    def run(folder: str, batch: str) -> Any:
        principal = service.sem.jobs  # submitted as the training service would
        job = principal.submit(
            "sem.classify", {"batch": batch, "folder": folder}, principal=engineer(), idempotency_key=None
        )
        work(job.id)
        return service.sem.jobs.peek(job.id)

    assert run("run-1", "r1").result["value"]["brought_in"] == 3
    assert told == [
        (pytest.approx(0.15), "3 particles brought in"),
        (pytest.approx(0.8), "3 particles looked at"),
        (1.0, "3 of 3"),
    ]
    assert run("run-1", "r1").result["value"]["brought_in"] == 0
    assert run("run-2", "r2").result["value"]["brought_in"] == 2
    items = service.get("/v1/sem/particles", params={"batch": "r2"}).json()["items"]
    found = {item["name"]: (item["lot"], item["tags"], item["status"]) for item in items}
    assert found == {"X-1": ("L9", ["割れ"], "needs_review"), "X-2": ("L9", [], "needs_review")}
    texts = tmp_path / "share" / "run-4" / "texts alone"
    texts.mkdir(parents=True)
    (texts / "a.txt").write_text("PixelSize=1.5")
    assert run("run-4", "r4").result["value"]["by_status"] == {"unreadable": 1}
    (listed / "manifest.csv").write_text(
        "name,views\n割れ,x.png", encoding="cp932"
    )  # as a Japanese spreadsheet saves it
    foreign = run("run-2", "r5")
    assert (foreign.status, foreign.error["errors"][0]["field"]) == ("failed", "folder")
    assert "UTF-8" in foreign.error["detail"]
    outside = run("../..", "r3")
    assert (outside.status, outside.error["errors"][0]["field"]) == ("failed", "folder")


def test_a_jobs_arithmetic_takes_one_thread_however_many_the_library_would(
    service: Service, settings: Settings
) -> None:
    nobody: Any = None
    run = Run(
        "job", 1, 0, settings.platform.home, nobody, nobody, settings.platform, service.sem.database,
        service.sem.registry_artifacts, nobody,
    )  # fmt: skip

    def threads() -> set[int]:
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        with Work.of(run):
            assert threads() == {1}
        assert threads() == before
