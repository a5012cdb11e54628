"""The main job through the service's own door: videos in, a stored evaluation and its report out."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from genba_shared.problems import Internal
from genba_sop import evaluations, reference, report, report_pdf
from genba_sop.bundles import Thumbnails
from genba_sop.report_words import Words
from genba_sop.routes_evaluations import evaluation_out
from genba_sop.tables import EvaluationRow, Video

Service = Any  # of conftest, which tests cannot import
Films = Any


def test_a_skipped_critical_step_is_named_with_its_time_and_fails(service: Service, films: Films) -> None:
    procedure, video = service.procedure(films), service.video(films.skipped)
    found = service.evaluation(procedure, video, operator="op-7")
    assert found["verdict"] == "fail"
    assert "critical_missing:close" in found["reasons"]
    missing = next(d for d in found["deviations"] if d["kind"] == "missing")
    assert missing["step_id"] == "close"
    assert missing["step_name"] == {"en": "Close the lid", "ja": "蓋を閉める"}
    assert missing["action"]["en"] == "Close it before leaving."
    assert abs(missing["start_s"] - 8.0) < 1.0
    assert abs(missing["gold_start_s"] - 8.0) < 1.0


def test_a_run_like_the_golds_passes_without_deviations(service: Service, films: Films) -> None:
    found = service.evaluation(service.procedure(films), service.video(films.good))
    assert (found["verdict"], found["deviations"]) == ("pass", [])
    assert [step["status"] for step in found["steps"]] == ["done"] * 4


def test_the_record_holds_all_that_may_be_asked_later(service: Service, films: Films) -> None:
    procedure, video = service.procedure(films), service.video(films.skipped)
    made = service.evaluation(procedure, video, operator="op-7")
    read = service.get(f"/v1/sop/evaluations/{made['id']}").json()
    assert read == made
    assert read["procedure_version"] == 1
    assert read["encoder"] == "motion-hog-v1"
    assert read["model_version"].startswith("rules-")
    assert read["interval"] == {"low": 0.0, "high": 100.0, "level": 0.9, "calibrated": False}
    assert set(read["timings_ms"]) == {"load_ms", "reference_ms", "evaluate_ms", "store_ms", "total_ms"}
    assert len(read["golds"]) == 3
    assert sum(gold["vote"] for gold in read["golds"]) == pytest.approx(1.0)
    assert len(read["trace"]["path"]) == len(read["trace"]["cost"]) > 0


def test_the_same_idempotency_key_gives_the_same_evaluation(service: Service, films: Films) -> None:
    body = {"procedure_id": service.procedure(films), "video_id": service.video(films.good)}
    first = service.post("/v1/sop/evaluations", body, key="once")
    again = service.post("/v1/sop/evaluations", body, key="once")
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert len(service.get("/v1/sop/evaluations").json()["items"]) == 1


def test_an_idempotency_key_is_needed_and_serves_one_payload(service: Service, films: Films) -> None:
    body = {"procedure_id": service.procedure(films), "video_id": service.video(films.good)}
    assert service.post("/v1/sop/evaluations", body).status_code == 400
    assert service.post("/v1/sop/evaluations", body, key="k").status_code == 201
    other = service.post("/v1/sop/evaluations", {**body, "operator": "another"}, key="k")
    assert (other.status_code, other.json()["type"]) == (422, "urn:genba:problem:idempotency-key-reused")


def test_without_golds_nothing_is_scored(service: Service, films: Films) -> None:
    document = {"title": "Bare", "steps": [{"id": "open"}]}
    procedure = service.post("/v1/sop/procedures", document).json()["id"]
    body = {"procedure_id": procedure, "video_id": service.video(films.good)}
    answer = service.post("/v1/sop/evaluations", body, key="k")
    assert answer.status_code == 409
    assert "gold" in answer.json()["detail"]


@pytest.mark.parametrize("field", ["procedure_id", "video_id"])
def test_what_is_not_there_is_a_404_that_names_it(service: Service, films: Films, field: str) -> None:
    body = {"procedure_id": service.procedure(films), "video_id": service.video(films.good)}
    body[field] = body[field][:-3] + "000"
    answer = service.post("/v1/sop/evaluations", body, key="k")
    assert answer.status_code == 404
    assert body[field] in answer.json()["detail"]


def test_a_failure_between_the_steps_leaves_nothing_visible(
    service: Service, films: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"procedure_id": service.procedure(films), "video_id": service.video(films.good)}

    def broken(*_args: object, **_kwargs: object) -> None:
        raise Internal("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(evaluations, "document", broken)
        assert service.post("/v1/sop/evaluations", body, key="k").status_code == 500
    assert service.get("/v1/sop/evaluations").json()["items"] == []
    assert service.post("/v1/sop/evaluations", body, key="k").status_code == 201


def test_a_reference_is_fitted_once_and_read_back_by_the_next_process(
    service: Service, films: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    procedure, video = service.procedure(films), service.video(films.good)
    first = service.evaluation(procedure, video)
    sop = service.sop
    fresh = evaluations.Evaluations(sop.database, sop.artifacts, references_kept=1)
    monkeypatch.setattr(reference, "fit", _never)
    monkeypatch.setattr(service.client.app.state.sop.evaluations, "_references", fresh._references)
    assert service.evaluation(procedure, video)["score"] == first["score"]


def _never(*_args: object) -> None:
    raise AssertionError("fitted again")


def test_a_new_version_is_scored_with_its_own_golds(service: Service, films: Films) -> None:
    procedure, video = service.procedure(films), service.video(films.skipped)
    document = service.get(f"/v1/sop/procedures/{procedure}").json()
    steps = [{"id": step["id"], "name": step["name"], "optional": step["id"] == "close"} for step in document["steps"]]
    revised = service.client.put(
        f"/v1/sop/procedures/{procedure}",
        json={"title": document["title"], "steps": steps},
        headers=service.headers() | {"if-match": '"1"'},
    )
    assert revised.json()["version"] == 2
    found = service.evaluation(procedure, video)
    assert found["procedure_version"] == 2
    assert not [d for d in found["deviations"] if d["kind"] == "missing"]


def test_lists_are_filtered_and_paged_newest_first(service: Service, films: Films) -> None:
    procedure = service.procedure(films)
    good, skipped = service.video(films.good), service.video(films.skipped)
    made = [service.evaluation(procedure, good, operator="a") for _ in range(3)]
    failed = service.evaluation(procedure, skipped, operator="b")
    first = service.get("/v1/sop/evaluations?limit=3").json()
    rest = service.get(f"/v1/sop/evaluations?limit=3&cursor={first['next_cursor']}").json()
    ids = [row["id"] for row in first["items"] + rest["items"]]
    assert ids == [failed["id"], *(row["id"] for row in reversed(made))]
    assert rest["next_cursor"] is None
    assert [r["id"] for r in service.get("/v1/sop/evaluations?verdict=fail").json()["items"]] == [failed["id"]]
    assert len(service.get("/v1/sop/evaluations?operator=a").json()["items"]) == 3
    assert len(service.get(f"/v1/sop/evaluations?video_id={skipped}").json()["items"]) == 1
    assert service.get("/v1/sop/evaluations?reviewed=true").json()["items"] == []


@pytest.mark.parametrize(("form", "kind"), [("html", "text/html"), ("json", "application/json"), ("csv", "text/csv")])
def test_a_report_comes_in_every_form(sqlite_service: Service, films: Films, form: str, kind: str) -> None:
    found = sqlite_service.evaluation(sqlite_service.procedure(films), sqlite_service.video(films.skipped))
    answer = sqlite_service.get(f"/v1/sop/evaluations/{found['id']}/report.{form}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert "Close the lid" in answer.text
    assert "蓋を閉める" in answer.text


def test_the_page_shows_evidence_from_both_videos_and_needs_nothing_from_outside(
    sqlite_service: Service, films: Films
) -> None:
    found = sqlite_service.evaluation(sqlite_service.procedure(films), sqlite_service.video(films.skipped))
    page = sqlite_service.get(f"/v1/sop/evaluations/{found['id']}/report?lang=ja")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.text.count("data:image/jpeg;base64,") >= 2
    assert "<script" not in page.text
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert 'id="lang-ja" checked' in page.text


def test_the_csv_is_a_table_of_steps_and_deviations(sqlite_service: Service, films: Films) -> None:
    found = sqlite_service.evaluation(sqlite_service.procedure(films), sqlite_service.video(films.skipped))
    text = sqlite_service.get(f"/v1/sop/evaluations/{found['id']}/report.csv").content.decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["record"] for row in rows[:5]] == ["evaluation", *["step"] * 4]
    assert ("deviation", "missing", "close") in {(r["record"], r["status_or_kind"], r["step_id"]) for r in rows}


def test_the_csv_says_the_machines_verdict_and_the_reviewers(sqlite_service: Service, films: Films) -> None:
    found = sqlite_service.evaluation(sqlite_service.procedure(films), sqlite_service.video(films.skipped))
    said = {"verdict": "pass", "reason": "closed it off camera"}
    sqlite_service.post(f"/v1/sop/evaluations/{found['id']}/review", said)
    text = sqlite_service.get(f"/v1/sop/evaluations/{found['id']}/report.csv").content.decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(r["record"], r["status_or_kind"]) for r in rows[:2]] == [("evaluation", "fail"), ("review", "pass")]


@pytest.mark.parametrize("lines", [0, 5, 9])
def test_no_picture_of_a_printed_report_falls_off_its_page(sqlite_service: Service, films: Films, lines: int) -> None:
    """Frames of a telephone held upright are higher than wide, and what to do may take half a page to say."""
    found = sqlite_service.evaluation(sqlite_service.procedure(films), sqlite_service.video(films.skipped))
    with sqlite_service.sop.database.read() as session:
        row = session.get(EvaluationRow, found["id"])
    upright = io.BytesIO()
    Image.new("RGB", (180, 320)).save(upright, "JPEG")
    frames = Thumbnails(np.arange(16.0), (upright.getvalue(),) * 16)
    page = report.assemble(
        evaluation_out(row), report.extra_of(row.document), reviews=(), pictures=report.Pictures(lambda _: frames)
    )
    action = Words("Close it before leaving. " * 5 * lines, "-")
    page = dataclasses.replace(page, evidence=(dataclasses.replace(page.evidence[0], action=action),) * 6)
    sheets = [each.get_contents() for each in PdfReader(io.BytesIO(report_pdf.to_pdf(page, language="en"))).pages]
    drawn = [
        re.findall(r"([\d.-]+) cm /I\d+ Do", sheet.get_data().decode("latin1")) for sheet in sheets if sheet is not None
    ]
    bottoms_pt = [float(bottom_pt) for each in drawn for bottom_pt in each]
    assert len(bottoms_pt) >= 6
    assert min(bottoms_pt) > 0


def test_the_report_outlives_its_video(sqlite_service: Service, films: Films) -> None:
    video = sqlite_service.video(films.skipped)
    found = sqlite_service.evaluation(sqlite_service.procedure(films), video)
    sqlite_service.delete(f"/v1/sop/videos/{video}")
    page = sqlite_service.get(f"/v1/sop/evaluations/{found['id']}/report")
    assert page.status_code == 200
    assert "The video has been erased." in page.text


def test_golds_that_contradict_the_trainees_encoder_are_a_409(
    service: Service, films: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    procedure, video = service.procedure(films), service.video(films.good)
    with service.sop.database.transaction() as session:
        session.get(Video, video).encoder = "openclip:ViT-B-32"
    answer = service.post("/v1/sop/evaluations", {"procedure_id": procedure, "video_id": video}, key="k")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:genba:problem:encoder-mismatch")


def test_a_review_and_a_title_hold_no_character_that_postgres_cannot_keep(service: Service, films: Films) -> None:
    headers = service.headers() | {"content-type": "video/mp4"}
    title = {"title": "night\x00 shift\n3　夜勤"}
    sent = service.client.post("/v1/sop/videos", content=films.good.read_bytes(), params=title, headers=headers)
    assert (sent.status_code, sent.json()["title"]) == (201, "night shift3　夜勤"), sent.text
    found = service.evaluation(service.procedure(films), sent.json()["id"])
    said = {"verdict": "pass", "reason": "seen\x00"}
    answer = service.post(f"/v1/sop/evaluations/{found['id']}/review", said)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "reason"), answer.text


def test_a_batch_becomes_a_job(service: Service, films: Films) -> None:
    procedure, video = service.procedure(films), service.video(films.good)
    body = {"procedure_id": procedure, "videos": [{"video_id": video, "operator": "op-1"}]}
    answer = service.post("/v1/sop/evaluations/batch", body, key="k")
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    assert service.post("/v1/sop/evaluations/batch", body, key="k").json()["id"] == answer.json()["id"]
