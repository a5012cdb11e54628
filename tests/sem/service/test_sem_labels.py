"""Labels change their names, meanings and number; no particle is lost, none is looked at again, and history tells why."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from genba_shared.principal import Clearance

Service = Any  # of conftest, which tests cannot import

MANY = 10_000


def test_a_label_keeps_its_id_through_a_rename_and_its_history_tells_both_names(service: Service) -> None:
    label = service.label("Needle", "針状", synonyms={"en": ["acicular"], "ja": ["棒状"]})
    body = {
        "name": {"en": "Rod", "ja": "ロッド"},
        "definition": {"en": "three times longer than wide"},
        "reason": "ISO",
    }
    renamed = service.put(f"/v1/sem/labels/{label}", body, version=1)
    assert (renamed.status_code, renamed.headers["etag"]) == (200, '"2"')
    assert renamed.json()["id"] == label
    assert renamed.json()["name"] == {"en": "Rod", "ja": "ロッド"}
    events = service.get(f"/v1/sem/labels/{label}/history").json()
    assert [(each["event"], each["name"]["en"], each["reason"]) for each in events] == [
        ("created", "Needle", ""),
        ("revised", "Rod", "ISO"),
    ]


def test_of_two_people_who_change_the_same_label_one_is_told(service: Service) -> None:
    label = service.label("Needle")

    def rename(name: str) -> int:
        return int(service.put(f"/v1/sem/labels/{label}", {"name": {"en": name}}, version=1).status_code)

    with ThreadPoolExecutor(2) as pool:
        statuses = sorted(pool.map(rename, ["Rod", "Fibre"]))
    assert statuses == [200, 409]
    assert service.get(f"/v1/sem/labels/{label}").json()["version"] == 2


def test_two_active_labels_cannot_have_one_name_however_it_is_written(service: Service) -> None:
    service.label("Needle", "針状")
    for name in ({"en": "  ＮＥＥＤＬＥ"}, {"ja": "針状"}, {"en": "Rod", "ja": "針状"}):
        assert service.post("/v1/sem/labels", {"name": name}).status_code == 409
    other = service.label("Rod")
    assert service.put(f"/v1/sem/labels/{other}", {"name": {"en": "needle"}}, version=1).status_code == 409


def test_a_merge_a_restore_and_a_rename_of_ten_thousand_particles_show_at_once(service: Service) -> None:
    needle, rod, plate = service.label("Needle"), service.label("Rod"), service.label("Plate")
    vectors = np.zeros((MANY // 2, 2))
    for label in (needle, rod):
        service.classified(vectors, label)
    service.classified(vectors[:7], plate)
    master = service.master(rod, [1, 0])
    merged = service.post(f"/v1/sem/labels/{rod}/merge", {"into": needle, "reason": "same thing"}, version=1)
    assert merged.status_code == 200, merged.text
    assert merged.json()["particles"] == MANY // 2 + 1  # the master's own particle too
    assert service.counts() == {needle: MANY, plate: 7}
    found = service.get(f"/v1/sem/labels/{rod}")
    assert (found.status_code, found.headers["location"]) == (308, f"/v1/sem/labels/{needle}")
    assert found.json() == {"id": rod, "status": "merged", "successor": needle, "name": {"en": "Rod", "ja": ""}}
    assert service.get(f"/v1/sem/labels/{rod}", params={"merged": "show"}).json()["status"] == "merged"
    assert [each["label_id"] for each in service.get("/v1/sem/masters").json()["items"]] == [needle]
    service.put(f"/v1/sem/labels/{needle}", {"name": {"en": "Elongated"}}, version="*")
    assert service.get(f"/v1/sem/labels/{needle}").json()["particles"] == MANY
    back = service.post(f"/v1/sem/labels/{rod}/restore", {"reason": "they do differ"}, version=2)
    assert back.status_code == 200, back.text
    assert service.counts() == {needle: MANY // 2, rod: MANY // 2, plate: 7}
    assert [each["label_id"] for each in service.get("/v1/sem/masters").json()["items"]] == [rod]
    assert service.get("/v1/sem/master-sets/1").json()["masters"][0]["id"] == master
    events = [each["event"] for each in service.get(f"/v1/sem/labels/{rod}/history").json()]
    assert events == ["created", "merged", "restored"]
    absorbed = service.get(f"/v1/sem/labels/{needle}/history").json()[1]
    assert (absorbed["event"], absorbed["detail"]) == ("absorbed", {"label": rod})


def test_a_split_hands_ten_thousand_particles_to_the_part_they_resemble_and_loses_none(service: Service) -> None:
    long = service.label("Long")
    thin, thick = service.master(long, [1.0, 0.1]), service.master(long, [0.1, 1.0])
    unnamed = service.master(long, [0.9, 0.2])
    rng = np.random.default_rng(0)
    is_thin = rng.random(MANY) < 0.3
    vectors = np.where(is_thin[:, None], [1.0, 0.0], [0.0, 1.0]) + rng.normal(0, 0.1, (MANY, 2))
    ids = service.classified(vectors, long)
    elsewhere = service.classified([[1.0, 0.0]], long, encoder="e-2")
    parts = [{"name": {"en": "Thin"}, "master_ids": [thin]}, {"name": {"en": "Long"}, "master_ids": [thick]}]
    done = service.post(f"/v1/sem/labels/{long}/split", {"into": parts, "reason": "two kinds"}, version=1)
    assert done.status_code == 200, done.text
    thin_label, thick_label = (part["id"] for part in done.json()["into"])
    assert service.counts() == {thin_label: is_thin.sum(), thick_label: MANY - is_thin.sum(), long: 1}
    assert done.json()["unassigned"] == 1
    assert sum(done.json()["particles"].values()) == MANY + 3  # the masters' own particles too
    whole = service.get(f"/v1/sem/labels/{long}").json()
    assert (whole["status"], whole["successors"]) == ("split", [thin_label, thick_label])
    masters = {each["particle_id"]: each["label_id"] for each in service.get("/v1/sem/masters").json()["items"]}
    assert sorted(masters.values()) == sorted([thin_label, thin_label, thick_label])
    left = service.post("/v1/sem/masters", {"label_id": long, "particle_id": elsewhere[0]})
    assert left.status_code == 409
    assert "Thin" in left.json()["detail"]
    assert unnamed not in masters
    assert len(ids) == MANY


def test_masters_that_a_split_names_go_where_it_says_and_wait_for_nobody(service: Service) -> None:
    long = service.label("Long")
    thin, odd, thick = (service.master(long, vector) for vector in ([1, 0], [0, 1], [0.1, 1]))
    unnamed = service.master(long, [1, 0.1])
    held = {each["id"]: each["particle_id"] for each in service.get("/v1/sem/masters").json()["items"]}
    parts = [{"name": {"en": "Thin"}, "master_ids": [thin, odd]}, {"name": {"en": "Thick"}, "master_ids": [thick]}]
    done = service.post(f"/v1/sem/labels/{long}/split", {"into": parts, "reason": "two kinds"}, version=1).json()
    thin_label = done["into"][0]["id"]
    assert service.get(f"/v1/sem/particles/{held[odd]}").json()["label"]["id"] == thin_label
    assert [each["id"] for each in service.get("/v1/sem/reviews").json()["items"]] == [held[unnamed]]


def test_a_restore_does_not_bring_back_what_was_taken_out_before(service: Service) -> None:
    label = service.label("Old")
    master = service.master(label, [1, 0])
    assert service.delete(f"/v1/sem/masters/{master}").status_code == 200
    service.post(f"/v1/sem/labels/{label}/retire", {"reason": "not made any more"}, version=1)
    assert service.post(f"/v1/sem/labels/{label}/restore", {"reason": "needed again"}, version=2).status_code == 200
    assert service.get("/v1/sem/masters").json()["items"] == []


def test_a_split_that_names_a_foreign_master_changes_nothing(service: Service) -> None:
    long, other = service.label("Long"), service.label("Other")
    mine, foreign = service.master(long, [1, 0]), service.master(other, [0, 1])
    parts = [{"name": {"en": "A"}, "master_ids": [mine, mine]}, {"name": {"en": "B"}, "master_ids": [foreign]}]
    refused = service.post(f"/v1/sem/labels/{long}/split", {"into": parts, "reason": "why not"}, version=1)
    assert refused.status_code == 422
    assert refused.json()["errors"] == [{"field": "into[0].master_ids", "message": "is named twice"}]
    assert service.get(f"/v1/sem/labels/{long}").json()["status"] == "active"
    assert len(service.get("/v1/sem/labels").json()["items"]) == 2


def test_a_retired_label_keeps_its_particles_and_gets_no_more(service: Service) -> None:
    label = service.label("Old")
    service.classified([[1, 0]], label)
    service.master(label, [1, 0])
    retired = service.post(f"/v1/sem/labels/{label}/retire", {"reason": "not made any more"}, version=1)
    assert retired.json()["status"] == "retired"
    assert service.counts() == {label: 1}
    assert service.get("/v1/sem/masters").json()["items"] == []
    [particle] = service.classified([[1, 0]], None)
    again = service.post("/v1/sem/masters", {"label_id": label, "particle_id": particle})
    assert again.status_code == 409
    assert service.post(f"/v1/sem/labels/{label}/restore", {"reason": "needed again"}, version=2).status_code == 200
    assert len(service.get("/v1/sem/masters").json()["items"]) == 1


def test_labels_cannot_be_merged_in_a_circle_or_into_themselves(service: Service) -> None:
    one, two = service.label("One"), service.label("Two")
    assert service.post(f"/v1/sem/labels/{one}/merge", {"into": one, "reason": "odd"}, version=1).status_code == 409
    assert service.post(f"/v1/sem/labels/{one}/merge", {"into": two, "reason": "same"}, version=1).status_code == 200
    circle = service.post(f"/v1/sem/labels/{two}/merge", {"into": one, "reason": "same"}, version="*")
    assert (circle.status_code, circle.json()["successors"]) == (409, [two])


@pytest.mark.parametrize("if_match", ['"x"', "", "1.5"])
def test_a_change_without_a_version_that_was_read_is_refused(sqlite_service: Service, if_match: str) -> None:
    label = sqlite_service.label("Needle")
    answer = sqlite_service.put(f"/v1/sem/labels/{label}", {"name": {"en": "Rod"}}, version=if_match)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "if-match"


def test_what_a_caller_may_not_see_does_not_exist_for_them(service: Service) -> None:
    secret = service.post(
        "/v1/sem/labels", {"name": {"en": "X-7"}, "clearance": "secret"}, clearance=Clearance.SECRET
    ).json()["id"]
    assert service.get(f"/v1/sem/labels/{secret}").status_code == 404
    assert service.get(f"/v1/sem/labels/{secret}", tenant="plant-2", clearance=Clearance.SECRET).status_code == 404
    assert service.get("/v1/sem/labels").json()["items"] == []
    above = service.post("/v1/sem/labels", {"name": {"en": "Y"}, "clearance": "secret"})
    assert above.status_code == 403
    mine = service.label("Mine")
    into = service.post(
        f"/v1/sem/labels/{mine}/merge", {"into": secret, "reason": "same"}, version=1, clearance=Clearance.SECRET
    )
    assert into.status_code == 409
    assert "clearance" in into.json()["detail"]


def test_a_repeated_request_with_its_key_makes_one_label(service: Service) -> None:
    headers = service.headers() | {"idempotency-key": "k-1"}
    body = {"name": {"en": "Needle"}}
    first, second = (service.client.post("/v1/sem/labels", json=body, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"
    assert len(service.get("/v1/sem/labels").json()["items"]) == 1


def test_a_master_set_tells_for_ever_what_stood_for_what(service: Service) -> None:
    label = service.label("Needle")
    first, second = service.master(label, [1, 0]), service.master(label, [0, 1])
    gone = service.delete(f"/v1/sem/masters/{first}")
    assert (gone.status_code, gone.json()["until"]) == (200, 3)
    assert service.delete(f"/v1/sem/masters/{first}").status_code == 409
    held = {n: [each["id"] for each in service.get(f"/v1/sem/master-sets/{n}").json()["masters"]] for n in (1, 2, 3)}
    assert held == {1: [first], 2: [first, second], 3: [second]}
    numbers = [each["number"] for each in service.get("/v1/sem/master-sets").json()]
    assert numbers == [3, 2, 1]
    digests = {service.get(f"/v1/sem/master-sets/{n}").json()["digest"] for n in (1, 2, 3)}
    assert len(digests) == 3
    assert service.get("/v1/sem/master-sets/4").status_code == 404
    [particle] = service.classified([[1, 0]], label)
    assert service.post("/v1/sem/masters", {"label_id": label, "particle_id": particle}).status_code == 201
    assert service.post("/v1/sem/masters", {"label_id": label, "particle_id": particle}).status_code == 409
