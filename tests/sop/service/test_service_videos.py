"""Uploads: taken, refused, never half kept, and erased for good."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from genba_shared.db import utc_now
from genba_shared.settings import Platform
from genba_sop import ingest
from genba_sop.service import Sop
from genba_sop.tables import Erasure, Video

Service = Any  # of conftest, which tests cannot import
Films = Any


def stored_files(platform: Platform) -> set[Path]:
    folder = platform.home / "artifacts"
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_raw_body_and_a_form_are_the_same_upload(service: Service, films: Films) -> None:
    raw = service.upload(films.good)
    assert raw.status_code == 201
    with films.good.open("rb") as file:
        form = service.client.post(
            "/v1/sop/videos",
            files={"file": ("C:\\shift 2\\run.mp4", file, "video/mp4")},
            headers=service.headers(),
        )
    assert (form.status_code, form.json()["id"]) == (200, raw.json()["id"])
    assert form.json()["deduplicated"]


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        (None, None),
        ("bytes=0-9", slice(0, 10)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=5-999999999999", slice(5, None)),
        ("bytes=9-5", None),
        ("bytes=0-1,5-6", None),
        ("frames=0-1", None),
        ("bytes=٣-", None),
        ("nonsense", None),
    ],
)
def test_a_video_is_given_back_whole_or_in_part(
    sqlite_service: Service, films: Films, asked: str | None, part: slice | None
) -> None:
    video = sqlite_service.upload(films.good).json()
    headers = sqlite_service.headers() | ({} if asked is None else {"range": asked.encode()})
    answer = sqlite_service.client.get(f"/v1/sop/videos/{video['id']}/content", headers=headers)
    whole = films.good.read_bytes()
    assert answer.status_code == (200 if part is None else 206)
    assert answer.content == (whole if part is None else whole[part])
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    if part is not None:
        begin, end, _ = part.indices(len(whole))
        assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=999999999999-", "bytes=-0"])
def test_a_part_outside_of_the_video_is_refused(sqlite_service: Service, films: Films, asked: str) -> None:
    video = sqlite_service.upload(films.good).json()
    headers = sqlite_service.headers() | {"range": asked}
    answer = sqlite_service.client.get(f"/v1/sop/videos/{video['id']}/content", headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (416, "urn:genba:problem:range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{films.good.stat().st_size}"


def test_a_form_brings_its_own_title_and_label(sqlite_service: Service, films: Films) -> None:
    with films.good.open("rb") as file:
        answer = sqlite_service.client.post(
            "/v1/sop/videos",
            files={"file": ("run.mp4", file, "video/mp4")},
            data={"title": "夜勤 3", "clearance": "public", "retention_days": "30"},
            headers=sqlite_service.headers(),
        )
    video = answer.json()
    assert (video["title"], video["clearance"]) == ("夜勤 3", "public")
    assert video["expires_at"] > video["created_at"]


def test_the_title_of_a_form_is_the_files_name_without_its_folders(sqlite_service: Service, films: Films) -> None:
    with films.good.open("rb") as file:
        answer = sqlite_service.client.post(
            "/v1/sop/videos", files={"file": ("../../etc/run.mp4", file)}, headers=sqlite_service.headers()
        )
    assert answer.json()["title"] == "run.mp4"


def test_an_answer_tells_what_was_found_and_what_it_cost(sqlite_service: Service, films: Films) -> None:
    video = sqlite_service.upload(films.good).json()
    assert video["info"]["duration_s"] == pytest.approx(16.0, abs=0.3)
    assert (video["info"]["width"], video["info"]["height"]) == (160, 120)
    assert video["encoder"] == "motion-hog-v1"
    assert {"decode_ms", "describe_ms", "store_ms", "total_ms"} <= set(video["timings_ms"])
    assert sqlite_service.get(f"/v1/sop/videos/{video['id']}").json()["sha256"] == video["sha256"]


def test_a_body_over_the_cap_is_refused_before_it_is_read(sqlite_service: Service) -> None:
    cap = sqlite_service.sop.settings.body_cap_bytes
    headers = sqlite_service.headers() | {"content-type": "video/mp4", "content-length": str(cap + 1)}

    def never_read() -> Any:
        raise AssertionError("the body was read")
        yield b""

    answer = sqlite_service.client.post("/v1/sop/videos", content=never_read(), headers=headers)
    assert (answer.status_code, answer.json()["max_bytes"]) == (413, cap)


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "image/jpeg"])
def test_another_kind_of_body_is_a_415(sqlite_service: Service, kind: str) -> None:
    headers = sqlite_service.headers() | {"content-type": kind}
    assert sqlite_service.client.post("/v1/sop/videos", content=b"x" * 5000, headers=headers).status_code == 415


def test_what_only_claims_to_be_a_video_is_a_415_that_says_what_it_is(sqlite_service: Service, tmp_path: Path) -> None:
    (tmp_path / "fake.mp4").write_bytes(b"%PDF-1.7" + b"\0" * 5000)
    answer = sqlite_service.upload(tmp_path / "fake.mp4")
    assert answer.status_code == 415
    assert "PDF" in answer.json()["detail"]


def test_a_cut_off_video_is_a_422_and_leaves_nothing(service: Service, films: Films, tmp_path: Path) -> None:
    whole = films.good.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    answer = service.upload(tmp_path / "cut.mp4")
    assert answer.status_code == 422
    assert service.get("/v1/sop/videos").json()["items"] == []
    assert stored_files(service.sop.settings.platform) == set()
    assert list(service.sop.spool.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"--b\r\n", 422),
        (b"--b\r\nContent-Disposition: form-data; name=other\r\n\r\nx\r\n--b--\r\n", 422),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n', 422),
        (b"garbage", 400),
        (b"--b\r\nX: " + b"y" * 9000 + b"\r\n\r\n\r\n--b--\r\n", 400),
    ],
)
def test_a_broken_form_is_told_what_is_wrong(sqlite_service: Service, body: bytes, status: int) -> None:
    headers = sqlite_service.headers() | {"content-type": "multipart/form-data; boundary=b"}
    answer = sqlite_service.client.post("/v1/sop/videos", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_when_every_place_is_taken_an_upload_is_told_when_to_come_back(sqlite_service: Service, films: Films) -> None:
    pool = sqlite_service.sop.extracting
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pool, "_limit", 0)
        answer = sqlite_service.upload(films.good)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["type"] == "urn:genba:problem:queue-full"
    assert sqlite_service.upload(films.good).status_code == 201


def test_a_large_or_long_video_is_left_to_a_job(service: Service, films: Films) -> None:
    for change in ({"job_above_bytes": 1000}, {"job_above_s": 5.0}):
        object.__setattr__(service.sop, "settings", service.sop.settings.model_copy(update=change))
        answer = service.upload(films.good)
        assert answer.status_code == 202, answer.text
        job = answer.json()
        assert job["recipe"] == "sop.ingest"
        assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
        assert service.get(f"/v1/sop/videos/{job['result_id']}").status_code == 404
        object.__setattr__(service.sop, "settings", service.sop.settings.model_copy(update={"job_above_bytes": 2**30}))


def test_a_failure_before_the_row_leaves_nothing_visible_and_the_artifacts_go(
    service: Service, films: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("genba_sop.service.record", broken)
        assert service.upload(films.good).status_code == 500
    assert service.get("/v1/sop/videos").json()["items"] == []
    _make_promises_due(service.sop)
    service.sop.sweep()
    assert stored_files(service.sop.settings.platform) == set()


def test_a_process_killed_while_it_ingests_leaves_nothing_visible_and_the_artifacts_go(
    service: Service, films: Films
) -> None:
    """The child dies by os._exit, as by kill -9, after the artifacts are written and before the row is."""
    url = service.sop.database.url.render_as_string(hide_password=False)
    code = f"""
import os
from pathlib import Path
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_sop.encoders import MotionHogEncoder
from genba_sop.ingest import Received, prepare
from genba_sop.video import Limits
path = Path({str(films.good)!r})
prepare(Received(path, {_sha256(films.good)!r}, path.stat().st_size, "t"), database=Database({url!r}),
        artifacts=Artifacts({service.sop.settings.platform.artifacts_url!r}), encoder=MotionHogEncoder(),
        limits=Limits(), sample_fps=4.0)
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 9
    assert len(stored_files(service.sop.settings.platform)) == 3
    assert service.get("/v1/sop/videos").json()["items"] == []
    service.sop.sweep()
    assert (
        len(stored_files(service.sop.settings.platform)) == 3
    )  # the promise is not due: the upload may still be going on
    _make_promises_due(service.sop)
    service.sop.sweep()
    assert stored_files(service.sop.settings.platform) == set()


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def _make_promises_due(sop: Sop) -> None:
    with sop.database.transaction() as session:
        session.execute(update(Erasure).values(due_at=utc_now() - timedelta(seconds=1)))


def test_a_deleted_video_is_gone_at_once_and_its_bytes_and_vectors_soon(service: Service, films: Films) -> None:
    video = service.video(films.good)
    service.sop.background.submit(lambda: None).result()  # the indexing that the upload asked for is done
    assert service.get(f"/v1/sop/videos/{video}").json()["indexed"]
    answer = service.delete(f"/v1/sop/videos/{video}")
    assert answer.json() == {"id": video, "artifacts": 3, "vectors": 15}
    assert service.get(f"/v1/sop/videos/{video}").status_code == 404
    service.sop.background.submit(lambda: None).result()
    assert stored_files(service.sop.settings.platform) == set()
    assert service.sop.clips._vectors.current("sop-clips").points == 0
    with service.sop.database.read() as session:
        assert session.scalars(select(Erasure)).all() == []


def test_a_video_whose_features_are_lost_keeps_no_other_from_being_found(service: Service, films: Films) -> None:
    sop = service.sop
    lost = service.video(films.good)
    sop.background.submit(lambda: None).result()
    with sop.database.transaction() as session:
        session.execute(
            update(Video).where(Video.id == lost).values(features_key=f"aa/{'a' * 64}.npz", indexed_in=None)
        )
    found = service.video(films.skipped)
    sop.background.submit(lambda: None).result()
    assert service.get(f"/v1/sop/videos/{found}").json()["indexed"]
    clip = {"clip": {"video_id": found, "start_s": 0.0, "end_s": 2.0}}
    assert service.post("/v1/sop/search", clip).status_code == 200


def test_equal_bytes_of_two_tenants_are_two_videos_and_outlive_each_other(service: Service, films: Films) -> None:
    ours = service.video(films.good)
    theirs = service.video(films.good, tenant="plant-2")
    assert ours != theirs
    service.delete(f"/v1/sop/videos/{ours}")
    service.sop.background.submit(lambda: None).result()
    assert len(stored_files(service.sop.settings.platform)) == 3
    assert service.get(f"/v1/sop/videos/{theirs}/thumbnail", tenant="plant-2").status_code == 200


def test_an_upload_that_meets_its_own_erasure_is_whole(service: Service, films: Films) -> None:
    """The artifacts vanish between their writing and the row's; the row's transaction puts them back."""
    received = ingest.Received(films.good, _sha256(films.good), films.good.stat().st_size, "t")
    prepared = service.sop.prepare(received)
    _make_promises_due(service.sop)
    service.sop.sweep()
    assert stored_files(service.sop.settings.platform) == set()
    with service.sop.database.transaction() as session:
        video, known = ingest.record(session, service.sop.artifacts, prepared, ingest.Owner("default", 1, "key_test"))
    assert not known
    assert service.get(f"/v1/sop/videos/{video.id}/thumbnail").content[:3] == b"\xff\xd8\xff"


def test_a_gold_cannot_be_erased_before_it_is_taken_from_its_procedure(service: Service, films: Films) -> None:
    procedure = service.procedure(films)
    gold = service.get(f"/v1/sop/procedures/{procedure}/golds").json()[0]
    refused = service.delete(f"/v1/sop/videos/{gold['video_id']}")
    assert (refused.status_code, refused.json()["procedures"]) == (409, [procedure])
    assert service.delete(f"/v1/sop/procedures/{procedure}/golds/{gold['id']}").status_code == 204
    assert service.delete(f"/v1/sop/videos/{gold['video_id']}").status_code == 200


def test_videos_past_their_retention_go_but_golds_stay(service: Service, films: Films) -> None:
    service.procedure(films)
    video = service.video(films.good)
    with service.sop.database.transaction() as session:
        session.execute(update(Video).values(expires_at=utc_now() - timedelta(days=1)))
    service.sop.sweep()
    left = [row["id"] for row in service.get("/v1/sop/videos").json()["items"]]
    assert video not in left
    assert len(left) == 3


def test_many_uploads_at_once_all_arrive(sqlite_service: Service, films: Films, tmp_path: Path) -> None:
    """Bytes differ behind the last box, so that nothing is deduplicated."""
    answers: list[int] = []
    paths = []
    for n in range(8):
        paths.append(tmp_path / f"{n}.mp4")
        paths[-1].write_bytes(films.good.read_bytes() + b"\0\0\0\x0cfree" + n.to_bytes(4, "big"))

    threads = [
        threading.Thread(target=lambda path=path: answers.append(sqlite_service.upload(path).status_code))
        for path in paths
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [201] * 8
    assert sqlite_service.sop.extracting.taken == 0


def test_two_tenants_who_upload_the_same_bytes_at_once_both_succeed(
    service: Service, films: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have prepared before either is recorded."""
    together = threading.Barrier(2, timeout=60)

    def meet(*args: Any, **kwargs: Any) -> Any:
        together.wait()
        return ingest.record(*args, **kwargs)

    monkeypatch.setattr("genba_sop.service.record", meet)
    answers: dict[str, int] = {}
    tenants = ("plant-1", "plant-2")
    threads = [
        threading.Thread(target=lambda t=tenant: answers.update({t: service.upload(films.good, tenant=t).status_code}))
        for tenant in tenants
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == dict.fromkeys(tenants, 201)


def test_the_same_upload_twice_at_once_is_one_video(
    service: Service, films: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2, timeout=60)
    prepare = ingest.prepare

    def meet(*args: Any, **kwargs: Any) -> Any:
        prepared = prepare(*args, **kwargs)
        together.wait()
        return prepared

    monkeypatch.setattr("genba_sop.service.prepare", meet)
    answers: list[tuple[int, str]] = []

    def upload() -> None:
        answer = service.upload(films.good)
        answers.append((answer.status_code, answer.json()["id"]))

    threads = [threading.Thread(target=upload) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in answers) == [200, 201]
    assert len({video_id for _, video_id in answers}) == 1


def test_a_retention_asked_for_known_bytes_holds_from_then_on(service: Service, films: Films) -> None:
    assert service.upload(films.good).json()["expires_at"] is None
    headers = service.headers() | {"content-type": "video/mp4"}
    sent = films.good.read_bytes()
    again = service.client.post("/v1/sop/videos?retention_days=1", content=sent, headers=headers)
    assert (again.status_code, again.json()["deduplicated"]) == (200, True)
    made, ends = (datetime.fromisoformat(again.json()[name]) for name in ("created_at", "expires_at"))
    assert timedelta(days=1) < ends - made < timedelta(days=1, hours=1)
    assert service.upload(films.good).json()["expires_at"] == again.json()["expires_at"]
