"""What leaves svc-sem: tables, annotations, a report; and what deserves a second look."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from typing import Any

import numpy as np
from pypdf import PdfReader
from tests.sem.service.pictures import views

Service = Any  # of conftest, which tests cannot import


def test_particles_leave_as_table_annotations_and_dataset(sqlite_service: Service) -> None:
    service = sqlite_service
    labels = service.lab(masters=2)
    found = service.particle(
        views("disc", seed=60), batch="b-1", name="=1+1", note="＝1+1", pixel_size_nm="10", tags="a"
    )
    answer = service.get("/v1/sem/export", params={"format": "csv", "batch": "b-1"})
    [row] = csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig")))
    assert (row["particle_id"], row["name"], row["label_ja"]) == (found["id"], "'=1+1", "円盤")
    assert row["note"] == "'＝1+1"  # Excel takes the full-width sign too
    assert float(row["equivalent_diameter"]) == found["diameter_um"]
    coco = service.get("/v1/sem/export", params={"format": "coco", "label_id": labels["disc"]}).json()
    assert [image["particle_id"] for image in coco["images"]] == [found["id"]] * 2
    assert coco["categories"][0]["name"] == "Disc"
    for annotation in coco["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= 128
        assert 0.6 < annotation["area"] / (width * height) < 0.9  # a disc fills π/4 of its box
        assert 0 <= y < y + height <= 128
    dataset = service.get("/v1/sem/export", params={"format": "fiftyone", "batch": "b-1"})
    with zipfile.ZipFile(io.BytesIO(dataset.content)) as archive:
        samples = json.loads(archive.read("samples.json"))["samples"]
        assert [sample["prediction"]["label"] for sample in samples] == ["Disc", "Disc"]
        assert archive.read(samples[0]["filepath"]).startswith(b"\xff\xd8")
        assert "metadata.json" in archive.namelist()


def test_the_report_of_a_batch_shows_pictures_and_speaks_both_languages(sqlite_service: Service) -> None:
    service = sqlite_service
    service.lab(masters=2)
    service.particle(views("needle", seed=60), batch="b-1", name="<b>x</b>", pixel_size_nm="10")
    page = service.get("/v1/sem/batches/b-1/report", params={"lang": "ja"})
    assert page.headers["content-type"].startswith("text/html")
    assert "針状" in page.text
    assert "自動確定に必要なレビューがまだ足りない" in page.text
    assert page.text.count("data:image/jpeg;base64,") == 2
    assert "<b>x</b>" not in page.text
    assert "Needle" in service.get("/v1/sem/batches/b-1/report").text
    assert service.get("/v1/sem/batches/b-2/report").status_code == 404
    assert service.get("/v1/sem/batches/b-2/report.pdf").status_code == 404


def test_the_report_as_pdf_holds_the_same_words_and_pictures(sqlite_service: Service) -> None:
    service = sqlite_service
    service.lab(masters=2)
    for k in range(6):  # more than one page holds
        service.particle(views("needle", seed=60 + k), batch="b-1", name=f"針 {k}", pixel_size_nm="10")
    answer = service.get("/v1/sem/batches/b-1/report.pdf", params={"lang": "ja"})
    assert answer.headers["content-type"] == "application/pdf"
    assert 'filename="b-1.pdf"' in answer.headers["content-disposition"]
    document = PdfReader(io.BytesIO(answer.content))
    text = "".join(page.extract_text() for page in document.pages)
    assert len(document.pages) > 1
    assert "粒子レポート：バッチ b-1" in text
    assert "自動確定に必要なレビューがまだ足りない" in text.replace("\n", "")
    assert [f"針 {k} — 針状" in text for k in range(6)] == [True] * 6
    shown = [image.image for page in document.pages for image in page.images]
    assert len(shown) == 12
    assert all(image is not None and image.size == (128, 128) for image in shown)
    english = PdfReader(io.BytesIO(service.get("/v1/sem/batches/b-1/report.pdf").content))
    assert "Particles of batch b-1" in english.pages[0].extract_text()


def test_statistics_follow_the_labels_and_leave_out_what_is_covered(service: Service) -> None:
    disc, round_ = service.label("Disc"), service.label("Round")
    for label, diameter in ((disc, 1.0), (round_, 3.0)):
        service.classified([[1, 0]] * 10, label, diameter_um=diameter)
    service.classified([[1, 0]] * 5, disc, covered=True, diameter_um=0.1)
    service.post(f"/v1/sem/labels/{round_}/merge", {"into": disc, "reason": "same"}, version=1)
    [row] = service.get("/v1/sem/statistics").json()
    assert (row["label_id"], row["particles"], row["confirmed"]) == (disc, 25, 25)
    assert (row["sizes_um"]["d50"], row["sizes_um"]["counted"], row["sizes_um"]["left_out"]) == (2.0, 20, 5)


def test_an_audit_ranks_planted_wrong_labels_first_and_names_thin_labels_and_quarrels(service: Service) -> None:
    disc, needle, thin = service.label("Disc"), service.label("Needle"), service.label("Thin")
    rng = np.random.default_rng(0)
    good: dict[str, list[str]] = {}
    for k, label in enumerate((disc, needle)):
        vectors = np.eye(6)[k] + rng.normal(0, 0.15, (25, 6))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        good[label] = service.classified(vectors.tolist(), label, status="reviewed", decided_by="review")
    wrong = service.classified([[0, 1, 0, 0, 0, 0]] * 3, disc, status="reviewed", decided_by="review")
    service.master(thin, [0, 0, 1, 0, 0, 0])
    for reviewer, label in (("a", disc), ("b", needle), ("c", disc)):
        body = {"particle_id": good[disc][0], "label_id": label}
        assert service.post("/v1/sem/reviews", body, version="*", subject=reviewer).status_code == 201
    audit = service.get("/v1/sem/audits/labels")
    assert audit.status_code == 200, audit.text
    found = audit.json()
    assert {each["particle_id"] for each in found["doubts"][:3]} == set(wrong)
    assert found["doubts"][0]["suggested"]["id"] == needle
    assert thin in {each["label"]["id"] for each in found["masters"]["thin"]}
    assert (found["reviewed_twice"], found["disagreed"]) == (1, 1)
    quarrel = {found["confused"][0]["one"]["id"], found["confused"][0]["two"]["id"]}
    assert quarrel == {disc, needle}
