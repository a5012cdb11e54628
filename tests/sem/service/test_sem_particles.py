"""Views in, a label or an honest doubt out; whatever is wrong with the input is said, and costs no more than it must."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from sqlalchemy import update
from tests.sem.service.pictures import picture, views

from genba_sem import erasure, particles
from genba_sem.particles import Facts, Image, Owner, Stored
from genba_sem.tables import SemErasure
from genba_shared.db import utc_now
from genba_shared.principal import Clearance

Service = Any  # of conftest, which tests cannot import


def tiff(kind: str, *, seed: int, pixel_size_nm: float, size_px: int = 96) -> bytes:
    """A TIFF whose resolution says its pixel size."""
    import cv2

    grey = cv2.imdecode(np.frombuffer(picture(kind, seed=seed, size_px=size_px), np.uint8), cv2.IMREAD_GRAYSCALE)
    file = io.BytesIO()
    per_cm = 1e7 / pixel_size_nm
    tifffile.imwrite(file, grey, resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")
    return file.getvalue()


def test_a_name_in_use_tells_of_no_particle_above_the_clearance_of_who_sends(service: Service) -> None:
    def sent(label: str) -> int:
        fields = {"batch": "b1", "name": "P-1", "decide": "later"}
        return int(service.send(views("disc", seed=9), clearance=label, **fields).status_code)

    assert [sent("internal"), sent("public"), sent("public"), sent("internal")] == [201, 201, 409, 409]


def test_a_particle_gets_its_label_with_all_that_led_to_it(service: Service) -> None:
    labels = service.lab()
    found = service.particle(
        views("needle", seed=50, count=3), name="N-1", lot="L7", tags="new, 試料", pixel_size_nm="10"
    )
    assert found["label"]["id"] == labels["needle"]
    assert found["label"]["name"] == {"en": "Needle", "ja": "針状"}
    assert (found["lot"], found["tags"], found["view_count"]) == ("L7", ["new", "試料"], 3)
    assert found["status"] == "needs_review"  # nothing may be confirmed before anybody reviewed
    assert {"not_calibrated"} <= {each["code"] for each in found["reasons"]}
    assert found["reviews_needed"] == 230
    assert labels["needle"] in {each["label"]["id"] for each in found["label_set"]}
    assert found["nearest"][0]["label"]["id"] == labels["needle"]
    assert found["decided_from"]["model"] == "masters"
    assert found["decided_from"]["master_set"] == 9
    assert sum(view["weight"] for view in found["views"]) == pytest.approx(1, abs=1e-3)
    assert found["shape"]["unit"] == "µm"
    assert found["shape"]["aspect_ratio"] < 0.35
    assert 0.3 < found["diameter_um"] < 0.7
    again = service.get(f"/v1/sem/particles/{found['id']}").json()
    assert again == found
    [decision] = service.get(f"/v1/sem/particles/{found['id']}/decisions").json()
    assert (decision["by"], decision["master_set"]) == ("model", 9)
    jpeg = service.get(f"/v1/sem/particles/{found['id']}/views/0/picture")
    assert jpeg.content.startswith(b"\xff\xd8")
    original = service.get(f"/v1/sem/particles/{found['id']}/views/2/image")
    assert original.content == views("needle", seed=50, count=3)[2]
    listed = service.get("/v1/sem/particles", params={"label_id": labels["needle"], "lot": "L7"}).json()["items"]
    assert [each["id"] for each in listed] == [found["id"]]


def test_without_enough_masters_the_answer_names_the_labels_and_nothing_is_kept(service: Service) -> None:
    needle, disc = service.label("Needle"), service.label("Disc")
    for seed in range(2):
        service.particle(views("needle", seed=seed), master_of=needle)
    answer = service.send(views("needle", seed=9))
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:genba:problem:too-few-masters")
    assert service.sem.lanes._making == {}  # nobody waits for a lane that there is not
    assert answer.json()["labels"] == [{"label_id": disc, "name": "Disc", "masters": 0}]
    assert [each["role"] for each in service.get("/v1/sem/particles").json()["items"]] == ["master", "master"]


def test_an_unreadable_view_is_dropped_with_its_reason_and_the_particle_goes_on(service: Service) -> None:
    service.lab(masters=2)
    good = views("disc", seed=60)
    found = service.particle([good[0], ("notes.png", b"not a picture"), ("cut.png", good[1][:900]), good[1]])
    assert [view["file_name"] for view in found["views"]] == ["view_0.png", "view_3.png"]
    assert {each["file_name"]: each["reason"] for each in found["dropped"]} == {
        "notes.png": "no_picture",
        "cut.png": "broken",
    }
    nothing = service.send([("a.png", b"no"), ("b.tif", b"II*\x00")])
    assert nothing.status_code == 422
    assert nothing.json()["type"] == "urn:genba:problem:no-readable-view"
    assert {each["field"] for each in nothing.json()["errors"]} == {"views[a.png]", "views[b.tif]"}


def test_views_of_different_pixel_size_are_taken_and_it_is_said_how_they_were_scaled(sqlite_service: Service) -> None:
    sqlite_service.lab(masters=2)
    fine, coarse = (
        tiff("square", seed=1, pixel_size_nm=5.0, size_px=192),
        tiff("square", seed=2, pixel_size_nm=10.0),
    )
    found = sqlite_service.particle([("fine.tif", fine), ("coarse.tif", coarse)])
    assert found["scaling"]["pixel_sizes_nm"] == pytest.approx([5.0, 10.0], rel=1e-3)
    assert found["scaling"]["to_nm"] == pytest.approx(10.0, rel=1e-3)
    assert found["scaling"]["scaled_views"] == [0]
    sizes = [view["shape"]["equivalent_diameter"] for view in found["views"]]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.25)
    assert found["views"][0]["width_px"] == 192  # the file's own


def test_a_repeated_request_with_its_key_stores_one_particle(service: Service) -> None:
    service.lab(masters=2)
    first, second = (service.send(views("disc", seed=7), key="k-1") for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    other = service.send(views("disc", seed=8), key="k-1")
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("fields", "status", "where"),
    [
        ({"pixel_size_nm": "-3"}, 422, "pixel_size_nm"),
        ({"taken_at": "yesterday"}, 422, "taken_at"),
        ({"colour": "red"}, 422, "colour"),
        ({"batch": "../up"}, 422, "batch"),
        ({"clearance": "secret"}, 403, None),
        ({"master_of": "lab_nothing"}, 409, None),
    ],
)
def test_a_field_that_cannot_be_is_named(
    sqlite_service: Service, fields: dict[str, str], status: int, where: str | None
) -> None:
    answer = sqlite_service.send(views("disc", seed=7), **fields)
    assert answer.status_code == status, answer.text
    if where is not None:
        assert [each["field"] for each in answer.json()["errors"]] == [where]
    assert sqlite_service.get("/v1/sem/particles").json()["items"] == []


def test_a_form_without_views_with_too_many_or_of_another_kind_is_refused(sqlite_service: Service) -> None:
    client, headers = sqlite_service.client, sqlite_service.headers()
    empty = client.post("/v1/sem/particles", files=[("other", ("x", b"1"))], headers=headers)
    assert empty.status_code == 422
    many = sqlite_service.send(views("disc", seed=7, count=1) * 13)
    assert many.status_code == 422
    assert "at most 12" in many.json()["detail"]
    json = client.post("/v1/sem/particles", json={}, headers=headers)
    assert json.status_code == 415
    torn = client.post(
        "/v1/sem/particles",
        content=b"--x\r\nnonsense",
        headers=headers | {"content-type": "multipart/form-data; boundary=x"},
    )
    assert torn.status_code in {400, 422}


def test_deciding_again_reads_no_picture_and_keeps_the_first_decision_on_record(service: Service) -> None:
    labels = service.lab(masters=2)
    found = service.particle(views("disc", seed=70))
    service.sem.artifacts.delete(_key(service, found["id"]))  # there is no picture to read
    service.particle(views("disc", seed=71), master_of=labels["disc"])
    again = service.post(f"/v1/sem/particles/{found['id']}/decide", None)
    assert again.status_code == 200, again.text
    assert again.json()["decided_from"]["master_set"] == found["decided_from"]["master_set"] + 1
    history = service.get(f"/v1/sem/particles/{found['id']}/decisions").json()
    assert [each["master_set"] for each in history] == [6, 7]


def _key(service: Service, particle_id: str) -> str:
    from genba_sem import store

    with service.sem.database.read() as session:
        return str(store.views_of(session, [particle_id])[particle_id][0].image_key)


def test_a_split_label_is_answered_by_its_parts_at_once(service: Service) -> None:
    labels = service.lab(masters=2)
    masters = service.get("/v1/sem/masters", params={"label_id": labels["disc"]}).json()["items"]
    parts = [{"name": {"en": f"Disc {k}"}, "master_ids": [each["id"]]} for k, each in enumerate(masters)]
    body = {"into": parts, "reason": "two makers"}
    assert service.post(f"/v1/sem/labels/{labels['disc']}/split", body, version=1).status_code == 200
    found = service.particle(views("needle", seed=80))
    assert found["label"]["id"] == labels["needle"]
    assert sorted(each["name"]["en"] for each in found["labels_left_out"]) == ["Disc 0", "Disc 1"]


def test_an_erased_particle_leaves_no_picture_behind(service: Service) -> None:
    service.lab(masters=2)
    found = service.particle(views("disc", seed=90))
    twin = service.particle(views("disc", seed=90, count=1))
    key = _key(service, found["id"])
    gone = service.delete(f"/v1/sem/particles/{found['id']}")
    assert (gone.status_code, gone.json()["artifacts"]) == (200, 4)
    service.sem.background.submit(lambda: None).result()
    erasure.erase_due(service.sem.database, service.sem.artifacts)
    assert service.sem.artifacts.exists(key)  # its twin has the same view
    assert service.delete(f"/v1/sem/particles/{twin['id']}").status_code == 200
    service.sem.background.submit(lambda: None).result()
    erasure.erase_due(service.sem.database, service.sem.artifacts)
    assert not service.sem.artifacts.exists(key)
    assert service.get(f"/v1/sem/particles/{found['id']}").status_code == 404
    master = service.get("/v1/sem/masters").json()["items"][0]["particle_id"]
    assert service.delete(f"/v1/sem/particles/{master}").status_code == 409


def test_an_image_that_an_eraser_took_before_its_record_was_written_is_stored_again(
    sqlite_service: Service, tmp_path: Path
) -> None:
    sem, content = sqlite_service.sem, picture("disc", seed=93)
    file = tmp_path / "a.png"
    file.write_bytes(content)
    image = Image(file, file.name, hashlib.sha256(content).hexdigest(), len(content))
    stored = Stored((image,), None)
    particles.put(sem.database, sem.artifacts, [stored])
    with sem.database.transaction() as session:
        session.execute(update(SemErasure).values(due_at=utc_now()))
    assert erasure.erase_due(sem.database, sem.artifacts) == 1
    with sem.database.transaction() as session:
        found = [(stored, Facts("a", "b-1"))]
        particles.record(session, sem.artifacts, found, Owner("default", int(Clearance.INTERNAL), "key_test"))
    assert sem.artifacts.exists(image.key)
    erasure.erase_due(sem.database, sem.artifacts)
    assert sem.artifacts.exists(image.key)


def test_notes_and_tags_change_for_who_read_the_newest_version(service: Service) -> None:
    service.lab(masters=2)
    found = service.particle(views("disc", seed=91))
    path = f"/v1/sem/particles/{found['id']}"
    headers = service.headers() | {"if-match": f'"{found["version"]}"'}
    changed = service.client.patch(path, json={"tags": ["割れ"]}, headers=headers)
    assert (changed.status_code, changed.json()["tags"]) == (200, ["割れ"])
    assert service.client.patch(path, json={"note": "late"}, headers=headers).status_code == 409


def test_particles_and_pictures_of_others_do_not_exist_for_a_caller(service: Service) -> None:
    service.lab(masters=2)
    found = service.particle(views("disc", seed=92))
    for path in ("", "/decisions", "/views/0/picture", "/views/0/image"):
        assert service.get(f"/v1/sem/particles/{found['id']}{path}", tenant="plant-2").status_code == 404
    other = service.send(views("disc", seed=92), tenant="plant-2")
    assert other.status_code == 409  # no masters of its own
