"""Procedures: contradictions named, versions kept, golds placed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from sqlalchemy import delete, select

from genba_shared.principal import Clearance
from genba_sop import reference
from genba_sop.procedures import Procedures
from genba_sop.tables import ReferenceRow

Service = Any  # of conftest, which tests cannot import
Films = Any

PATH = "/v1/sop/procedures"


def steps(*ids: str) -> dict[str, Any]:
    return {"title": {"en": "Three steps", "ja": "三つ"}, "steps": [{"id": each} for each in ids]}


def put(service: Service, procedure: str, body: dict[str, Any], version: str) -> Any:
    headers = service.headers() | {"if-match": version}
    return service.client.put(f"{PATH}/{procedure}", json=body, headers=headers)


def test_a_procedure_comes_back_with_the_order_that_holds(sqlite_service: Service) -> None:
    body = steps("a", "b", "c", "d")
    body["steps"][1]["order"] = body["steps"][2]["order"] = "any"
    made = sqlite_service.post(PATH, body)
    assert made.status_code == 201
    assert made.headers["location"] == f"{PATH}/{made.json()['id']}"
    assert made.headers["etag"] == '"1"'
    after = {step["id"]: step["after"] for step in sqlite_service.get(f"{PATH}/{made.json()['id']}").json()["steps"]}
    assert after == {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


def test_contradictions_are_a_422_that_names_every_field_and_leaves_nothing(service: Service) -> None:
    body = steps("a", "b", "b")
    body["steps"][0] |= {"min_s": 9, "max_s": 3}
    body["steps"][1] |= {"critical": True, "optional": True, "after": ["nowhere"]}
    answer = service.post(PATH, body)
    assert answer.status_code == 422
    fields = {each["field"] for each in answer.json()["errors"]}
    assert fields == {"steps[0].min_s", "steps[1].optional", "steps[1].after", "steps[2].id"}
    assert service.get(PATH).json()["items"] == []


def test_a_misspelt_key_is_an_error_not_a_silence(sqlite_service: Service) -> None:
    body = steps("a")
    body["steps"][0]["critcal"] = True
    answer = sqlite_service.post(PATH, body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "steps[0].critcal"


def test_a_revision_needs_the_version_that_was_read(service: Service) -> None:
    procedure = service.post(PATH, steps("a")).json()["id"]
    assert put(service, procedure, steps("a", "b"), '"1"').json()["version"] == 2
    late = put(service, procedure, steps("a", "c"), '"1"')
    assert (late.status_code, late.json()["current_version"]) == (409, 2)
    assert put(service, procedure, steps("a", "c"), "*").json()["version"] == 3
    assert put(service, procedure, steps("a"), "latest").status_code == 422
    without = service.client.put(f"{PATH}/{procedure}", json=steps("a"), headers=service.headers())
    assert (without.status_code, without.json()["errors"][0]["field"]) == (422, "if-match")


def test_every_version_stays_readable(service: Service) -> None:
    procedure = service.post(PATH, steps("a")).json()["id"]
    put(service, procedure, steps("a", "b"), '"1"')
    assert [s["id"] for s in service.get(f"{PATH}/{procedure}?version=1").json()["steps"]] == ["a"]
    assert [s["id"] for s in service.get(f"{PATH}/{procedure}").json()["steps"]] == ["a", "b"]
    assert service.get(f"{PATH}/{procedure}?version=7").status_code == 404


def test_a_revision_keeps_the_golds_that_still_fit(service: Service, films: Films) -> None:
    procedure = service.procedure(films)
    document = service.get(f"{PATH}/{procedure}").json()
    same = {"title": document["title"], "steps": [{"id": s["id"], "critical": True} for s in document["steps"]]}
    assert len(put(service, procedure, same, '"1"').json()["golds"]) == 3
    other = {"title": "New", "steps": [*same["steps"], {"id": "polish"}]}
    assert put(service, procedure, other, '"2"').json()["golds"] == []
    assert len(service.get(f"{PATH}/{procedure}/golds?version=2").json()) == 3


def test_a_gold_without_steps_gets_proposals_to_correct(service: Service, films: Films) -> None:
    procedure = service.procedure(films)
    gold = service.post(f"{PATH}/{procedure}/golds", {"video_id": service.video(films.good)})
    assert gold.status_code == 201, gold.text
    assert gold.json()["steps_by"] == "proposed"
    starts = {span["id"]: span["start_s"] for span in gold.json()["steps"]}
    assert starts == pytest.approx({"open": 0.0, "fill": 4.0, "close": 8.0, "wipe": 12.0}, abs=1.0)
    assert any("proposed" in each for each in service.get(f"{PATH}/{procedure}").json()["advice"])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": "polish"}, "steps[1].id"),
        ({"end_s": 3.0}, "steps[1].end_s"),
        ({"end_s": 99.0}, "steps[1].end_s"),
        ({"start_s": 2.0}, "steps[1].start_s"),
    ],
)
def test_spans_that_do_not_fit_the_gold_are_named(
    sqlite_service: Service, films: Films, change: dict[str, Any], field: str
) -> None:
    procedure = sqlite_service.procedure(films)
    spans = sqlite_service.get(f"{PATH}/{procedure}/golds").json()[0]["steps"]
    spans[1] |= change
    body = {"video_id": sqlite_service.video(films.good), "steps": spans}
    answer = sqlite_service.post(f"{PATH}/{procedure}/golds", body)
    assert answer.status_code == 422
    assert field in {each["field"] for each in answer.json()["errors"]}


def test_a_gold_shows_every_step_that_is_not_optional(sqlite_service: Service, films: Films) -> None:
    procedure = sqlite_service.procedure(films)
    spans = sqlite_service.get(f"{PATH}/{procedure}/golds").json()[0]["steps"][:3]
    body = {"video_id": sqlite_service.video(films.good), "steps": spans}
    answer = sqlite_service.post(f"{PATH}/{procedure}/golds", body)
    assert answer.status_code == 422
    assert "wipe" in answer.json()["detail"]


def test_where_a_golds_steps_lie_is_corrected_in_place(service: Service, films: Films) -> None:
    procedure = service.procedure(films)
    gold = service.get(f"{PATH}/{procedure}/golds").json()[0]
    address = f"{PATH}/{procedure}/golds/{gold['id']}"
    moved = [dict(span) for span in gold["steps"]]
    moved[0]["end_s"] -= 0.5
    answer = service.client.put(address, json={"steps": moved}, headers=service.headers())
    assert (answer.status_code, answer.json()["steps"], answer.json()["steps_by"]) == (200, moved, "author")
    assert service.get(f"{PATH}/{procedure}/golds").json()[0]["steps"] == moved
    backwards = [{**moved[0], "start_s": moved[0]["end_s"] + 1}, *moved[1:]]
    refused = service.client.put(address, json={"steps": backwards}, headers=service.headers())
    assert refused.status_code == 422
    assert service.get(f"{PATH}/{procedure}/golds").json()[0]["steps"] == moved
    service.sop.background.submit(lambda: None).result()
    assert put(service, procedure, steps("a", "b"), '"1"').status_code == 200
    older = service.client.put(address, json={"steps": moved}, headers=service.headers())
    assert (older.status_code, "version 1" in older.json()["detail"]) == (409, True)


def test_a_video_is_a_gold_once(sqlite_service: Service, films: Films) -> None:
    procedure = sqlite_service.procedure(films)
    gold = sqlite_service.get(f"{PATH}/{procedure}/golds").json()[0]
    again = sqlite_service.post(f"{PATH}/{procedure}/golds", {"video_id": gold["video_id"], "steps": gold["steps"]})
    assert again.status_code == 409


def test_a_gold_more_secret_than_its_procedure_is_refused(sqlite_service: Service, films: Films) -> None:
    procedure = sqlite_service.procedure(films)
    headers = sqlite_service.headers(clearance=Clearance.SECRET) | {"content-type": "video/mp4"}
    made = sqlite_service.client.post(
        "/v1/sop/videos", content=films.good.read_bytes(), params={"clearance": "secret"}, headers=headers
    )
    answer = sqlite_service.post(
        f"{PATH}/{procedure}/golds", {"video_id": made.json()["id"]}, clearance=Clearance.SECRET
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "video_id"


def test_a_gold_that_is_no_video_is_named_in_the_document(service: Service) -> None:
    body = {**steps("a"), "golds": [{"video": "vid_00000000000000000000000000"}]}
    answer = service.post(PATH, body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "golds[0].video"
    assert service.get(PATH).json()["items"] == []


def test_a_repeated_registration_with_its_key_is_one_procedure(service: Service) -> None:
    first = service.post(PATH, steps("a"), key="once")
    again = service.post(PATH, steps("a"), key="once")
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert len(service.get(PATH).json()["items"]) == 1


def test_a_deleted_procedure_leaves_its_evaluations_and_videos(service: Service, films: Films) -> None:
    procedure = service.procedure(films)
    made = service.evaluation(procedure, service.video(films.good))
    assert service.delete(f"{PATH}/{procedure}").status_code == 204
    assert service.get(f"{PATH}/{procedure}").status_code == 404
    assert service.get(f"/v1/sop/evaluations/{made['id']}").status_code == 200
    assert len(service.get("/v1/sop/videos").json()["items"]) == 4
    assert service.get(f"/v1/sop/evaluations/{made['id']}/report").status_code == 200


def test_a_gold_that_is_taken_away_does_not_live_on_in_what_was_fitted_on_it(service: Service, films: Films) -> None:
    procedure = service.procedure(films)
    service.evaluation(procedure, service.video(films.good))
    artifacts = service.sop.artifacts
    with service.sop.database.read() as session:
        before = session.scalars(select(ReferenceRow)).one()
    assert artifacts.exists(before.artifact_key)
    gold = service.get(f"{PATH}/{procedure}/golds").json()[0]
    service.delete(f"{PATH}/{procedure}/golds/{gold['id']}")
    service.sop.sweep()
    assert not artifacts.exists(before.artifact_key)
    service.sop.background.submit(lambda: None).result()  # the two golds that are left have been fitted again
    with service.sop.database.read() as session:
        after = session.scalars(select(ReferenceRow)).one()
    assert after.key != before.key
    assert artifacts.exists(after.artifact_key)


def test_a_fit_that_is_overtaken_by_a_change_of_golds_is_not_kept(
    service: Service, films: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    procedure = service.procedure(films)
    service.sop.background.submit(lambda: None).result()
    gold = service.get(f"{PATH}/{procedure}/golds").json()[0]
    fit = reference.fit

    def overtaken(*args: Any) -> Any:
        monkeypatch.undo()
        service.delete(f"{PATH}/{procedure}/golds/{gold['id']}")
        service.sop.background.submit(lambda: None).result()
        return fit(*args)

    with service.sop.database.transaction() as session:
        session.execute(delete(ReferenceRow))
    service.sop.evaluations.forget(procedure)
    monkeypatch.setattr(reference, "fit", overtaken)
    service.evaluation(procedure, service.video(films.good))
    with service.sop.database.read() as session:
        assert len(session.scalars(select(ReferenceRow)).all()) == 1


def test_a_gold_unlike_the_others_is_pointed_out(
    sqlite_service: Service, films: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = reference.fit
    marked = lambda *args: dataclasses.replace(fit(*args), warnings=("gold_outlier:1",))  # noqa: E731
    monkeypatch.setattr(reference, "fit", marked)
    procedure = sqlite_service.procedure(films)
    sqlite_service.sop.background.submit(lambda: None).result()
    found = sqlite_service.get(f"{PATH}/{procedure}").json()
    assert found["advice"] == [f"Gold {found['golds'][1]['id']} lies far from the others: is it a good example?"]


@pytest.mark.parametrize(
    ("start_s", "end_s", "said"),
    [(16.1, 16.4, "lies beyond the video's 16.00 s"), (15.05, 15.1, "is too short to be seen")],
)
def test_a_gold_whose_step_nobody_could_see_is_refused_by_its_field(
    service: Service, films: Films, start_s: float, end_s: float, said: str
) -> None:
    gold = service.video(films.golds[0])
    spans = [{"id": "a", "start_s": 0, "end_s": 15}, {"id": "b", "start_s": start_s, "end_s": end_s}]
    answer = service.post(PATH, {**steps("a", "b"), "golds": [{"video": gold, "steps": spans}]})
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["field"].startswith("golds[0].steps[1].")
    assert said in error["message"]


def test_a_gold_that_would_fail_its_own_procedure_is_refused_and_not_carried_over(
    service: Service, films: Films
) -> None:
    gold = service.video(films.golds[0])
    spans = [{"id": "b", "start_s": 0, "end_s": 8}, {"id": "a", "start_s": 8, "end_s": 16}]
    answer = service.post(PATH, {**steps("a", "b"), "golds": [{"video": gold, "steps": spans}]})
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["field"]) == (422, "golds[0].steps[0].start_s")
    assert "'b' is begun before 'a', which must come first" in error["message"]
    free = steps("a", "b")
    free["steps"][0]["order"] = free["steps"][1]["order"] = "any"
    made = service.post(PATH, {**free, "golds": [{"video": gold, "steps": spans}]})
    assert made.status_code == 201, made.text
    assert put(service, made.json()["id"], free, "*").json()["golds"] != []
    assert put(service, made.json()["id"], steps("a", "b"), "*").json()["golds"] == []


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_a_gold_of_less_than_a_second_is_scored_against(sqlite_service: Service, tmp_path: Path, frames: int) -> None:
    path = tmp_path / "short.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for n in range(frames):
            picture = np.full((120, 160, 3), 40 * n, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    video = sqlite_service.video(path)
    gold = {"video": video, "steps": [{"id": "a", "start_s": 0, "end_s": frames / 4}]}
    made = sqlite_service.post(PATH, {**steps("a"), "golds": [gold]})
    assert made.status_code == 201, made.text
    assert sqlite_service.evaluation(made.json()["id"], video)["encoder"] == "motion-hog-v1"


def test_a_gold_that_is_attached_while_a_revision_is_made_is_not_lost(
    service: Service, films: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Placing golds takes long where steps are proposed; here somebody else is quicker."""
    procedure, late = service.procedure(films), service.video(films.good)
    path = f"{PATH}/{procedure}"
    document = {key: service.get(path).json()[key] for key in ("title", "steps")}
    placing = Procedures.place_all

    def slowly(self: Procedures, *args: Any, **options: Any) -> Any:
        placed = placing(self, *args, **options)
        service.post(f"{path}/golds", {"video_id": late}).raise_for_status()
        return placed

    with monkeypatch.context() as patched:
        patched.setattr(Procedures, "place_all", slowly)
        answer = put(service, procedure, document, "*")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:genba:problem:version-conflict"), answer.text
    again = put(service, procedure, document, "*")
    assert late in {gold["video_id"] for gold in again.json()["golds"]}
