"""The recipes that learn and that say what to look at next, by the real runner: gated, registered, swapped in, resumed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.sem.service.jobs_world import doomed, ended, free, promoted_anyway, reviewed, submit, until, worker
from tests.sem.service.pictures import views

from genba_sem.settings import Settings
from genba_sem.tables import ParticleRow
from genba_shared.principal import Clearance

Service = Any  # of conftest, which tests cannot import


@pytest.fixture
def work(sqlite_service: Service) -> Callable[..., Any]:
    """Run a recipe to its end; the job."""
    return ended(sqlite_service, sqlite_service.sem.settings)


@pytest.mark.long
def test_a_fusion_that_wins_nothing_is_not_proposed_and_one_that_was_asked_for_does_not_serve(
    sqlite_service: Service, work: Callable[..., Any]
) -> None:
    service = sqlite_service
    labels = service.lab(masters=3)
    best = work("sem.fusion").result["value"]
    assert best["proposed"] is False
    assert set(best["right_by_fusion"]) == {"quality-mean", "deep-sets", "gated-attention", "set-transformer"}
    assert best["validated_by"] == 9
    asked = work("sem.fusion", fusion="gated-attention").result
    assert asked["value"]["fusion"].startswith("gated-attention-v1@")
    assert asked["metrics"]["validation_p"] > 0.05
    service.sem.lanes.refresh("default")
    assert service.get("/v1/sem/lane").json()["fusion"] == "quality-mean-v1"

    promoted_anyway(service, 1)
    assert service.get("/v1/sem/lane").json()["fusion"] == asked["value"]["fusion"]
    found = service.particle(views("needle", seed=900))
    assert found["decided_from"]["model"] == "sem.lane 1"
    assert found["label"]["id"] == labels["needle"]
    refreshed = work("sem.refresh").result["value"]
    assert refreshed["fusion"].startswith("gated-attention-v1@")  # trained again, for the encoder that was fitted anew
    assert refreshed["fusion"] != asked["value"]["fusion"]


@pytest.mark.long
def test_a_worker_killed_between_folds_goes_on_after_the_last_one(
    service: Service, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genba_sem import fusion_choice

    service.lab(masters=3)
    job = submit(service, "sem.fusion")
    folder = settings.platform.home
    with doomed(settings, job) as process:
        until(lambda: len(list(folder.rglob("checkpoints/*-00000003"))) > 0)
        process.kill()
    until(lambda: free(service, job))
    trained: list[tuple[str, int]] = []
    whole = fusion_choice.right_without

    def counted(name: str, known: Any, fold: int, **rest: Any) -> list[bool]:
        trained.append((name, fold))
        return whole(name, known, fold, **rest)

    monkeypatch.setattr(fusion_choice, "right_without", counted)
    assert worker(service, settings)(job) == "succeeded"
    found = service.sem.jobs.peek(job)
    assert found.attempt == 2
    assert found.result["value"]["validated_by"] == 9
    assert len(trained) <= 4 * 3 - 3
    assert ("quality-mean", 0) not in trained


def test_a_head_learns_from_particles_without_a_label_and_says_how_right_that_was(
    sqlite_service: Service, work: Callable[..., Any]
) -> None:
    service = sqlite_service
    labels = service.lab(masters=3)
    for kind in labels:
        for seed in range(6):
            service.particle(views(kind, seed=300 + seed))
    job = work("sem.semi_supervised").result
    assert job["value"]["unlabelled"] == 18
    assert len(job["value"]["rounds"]) == 10
    assert job["metrics"]["pseudo_labels_checked"] > 0
    assert job["metrics"]["pseudo_label_precision"] >= 0.8
    assert job["metrics"]["left_out_gain"] >= 0
    service.sem.lanes.refresh("default")
    assert service.get("/v1/sem/lane").json()["classifier"] == "softmatch-head-v1"
    found = service.particle(views("square", seed=900))
    assert (found["label"]["id"], found["decided_from"]["model"]) == (labels["square"], "sem.lane 1")

    body = {"into": labels["square"], "reason": "one shape"}
    assert service.post(f"/v1/sem/labels/{labels['disc']}/merge", body, version=1).status_code == 200
    after = service.particle(views("disc", seed=901))
    assert after["label"]["id"] == labels["square"]  # the column that it learnt for discs speaks for their successor
    assert service.get("/v1/sem/lane").json()["classifier"] == "softmatch-head-v1"
    assert work("sem.head", classifier="blend-v1").result["value"]["classifier"] == "blend-v1"


def test_the_next_batch_stands_in_the_queue_in_its_order_and_gives_way_to_the_one_after(
    sqlite_service: Service, work: Callable[..., Any]
) -> None:
    service = sqlite_service
    labels = service.lab(masters=2)
    reviewed(service, labels, each=1)
    for kind in labels:
        for seed in range(4):
            service.particle(views(kind, seed=300 + seed))
    first = work("sem.next_batch", count=4).result["value"]
    assert (first["candidates"], first["chosen"]) == (12, 4)
    chosen = queue(service, "next_batch")
    drawn = {"calibration_sample"}
    undrawn = [each["id"] for each in chosen if not drawn & codes(each)]
    assert {each["id"] for each in chosen} == set(first["particle_ids"])
    assert undrawn == [each for each in first["particle_ids"] if each in undrawn]
    assert all(1.0 < each["priority"] < 1.1 for each in chosen if each["id"] in undrawn)
    said = {"particle_id": first["particle_ids"][0], "label_id": labels["disc"]}
    assert service.post("/v1/sem/reviews", said, version="*").status_code == 201
    again = service.post(f"/v1/sem/particles/{first['particle_ids'][1]}/decide", {}, version="*")
    assert again.status_code in {200, 201}, again.text
    assert "next_batch" in codes(service.get(f"/v1/sem/particles/{first['particle_ids'][1]}").json())
    second = work("sem.next_batch", count=2, strategy="margin").result["value"]
    assert said["particle_id"] not in second["particle_ids"]
    assert {each["id"] for each in queue(service, "next_batch")} == set(second["particle_ids"])


def queue(service: Service, reason: str) -> list[Any]:
    found: list[Any] = service.get("/v1/sem/reviews", params={"reason": reason}).json()["items"]
    return found


def codes(item: Any) -> set[str]:
    return {reason["code"] for reason in item["reasons"]}


def test_an_audit_finds_the_planted_label_shows_it_and_asks_for_another_word(
    sqlite_service: Service, work: Callable[..., Any]
) -> None:
    service = sqlite_service
    labels = service.lab(masters=3)
    reviewed(service, labels, each=4)
    wrong = service.particle(views("needle", seed=950))["id"]
    body = {"particle_id": wrong, "label_id": labels["square"]}
    assert service.post("/v1/sem/reviews", body, version="*").status_code == 201
    assert service.get("/v1/sem/audits/labels").json()["audited_by_job"] is None
    job = work("sem.audit", enqueue=1)
    assert job.result["value"]["judged"] == 9 + 12 + 1
    assert job.result["value"]["enqueued"] == 1
    seen = service.get("/v1/sem/audits/labels").json()
    assert seen["audited_by_job"] == job.id
    assert seen["doubts"][0]["particle_id"] == wrong
    assert seen["doubts"][0]["suggested"]["id"] == labels["needle"]
    [suspect] = queue(service, "label_suspect")
    assert suspect["id"] == wrong
    lower = service.client.get("/v1/sem/audits/labels", headers=service.headers(clearance=Clearance.PUBLIC))
    assert lower.json()["audited_by_job"] is None
    assert service.post("/v1/sem/reviews", {**body, "label_id": labels["needle"]}, version="*").status_code == 201
    after = service.get("/v1/sem/audits/labels").json()
    assert wrong not in {each["particle_id"] for each in after["doubts"]}
    with service.sem.database.read() as session:
        assert session.get_one(ParticleRow, wrong).label_id == labels["needle"]
