"""Embedded mode as a person runs it: ``genba up``, real requests, real kills. One instance serves all tests, in order."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.world import (
    Genba,
    HalfUpload,
    User,
    environment,
    fresh_key,
    problem,
    until,
    up,
    user,
)

from genba_gateway import backup
from genba_sem.demo_pictures import draw_set
from genba_shared.settings import Platform
from genba_sop.data import DemoSet

pytestmark = pytest.mark.xdist_group("story")

MAX_UPLOAD_BYTES = 16 * 1024**2
SETTINGS = {
    "GENBA_LOG_FORMAT": "json",
    "GENBA_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
    "GENBA_TRAINING_LEASE_S": "3",  # a killed worker's job is taken up again after this
    "GENBA_TRAINING_HEARTBEAT_S": "0.5",
}


@pytest.fixture(scope="module")
def genba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Genba]:
    with up(tmp_path_factory.mktemp("story") / "home", settings=SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def admin(genba: Genba) -> Iterator[User]:
    with user(genba.url, genba.admin_key) as somebody:
        yield somebody


@pytest.fixture(scope="module")
def procedure_id(admin: User, filmed: DemoSet) -> str:
    return admin.procedure(filmed.steps_path)


@pytest.fixture(scope="module")
def trainee_id(admin: User, filmed: DemoSet) -> str:
    return admin.video(filmed.trainee.path)


def test_the_first_start_makes_an_admin_key_and_says_how_to_use_it(genba: Genba, admin: User) -> None:
    key_file = genba.home / "admin.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert f"An admin key was made for you: {key_file}" in genba.process.log
    assert f'export GENBA_URL={genba.url} GENBA_API_KEY="$(cat {key_file})"' in genba.process.log
    assert genba.admin_key not in genba.process.log
    assert admin.get("/v1/whoami").json()["roles"] == ["admin"]


def test_videos_become_a_score_with_what_was_planted_and_a_report(
    admin: User, filmed: DemoSet, procedure_id: str, trainee_id: str
) -> None:
    key = fresh_key()
    made = admin.evaluate(procedure_id, trainee_id, key=key)
    assert made.status_code == 201, made.text
    evaluation = made.json()
    assert evaluation["verdict"] == "fail"
    found = {(each["kind"], each["step_id"]): each for each in evaluation["deviations"]}
    missing = [planted for planted in filmed.trainee.truth if planted.kind == "missing"]
    assert missing
    for planted in missing:  # how surely every kind is found is what the benchmarks measure, with more than one gold
        each = found[planted.kind, planted.step_id]
        assert each["start_s"] - 4 <= planted.end_s
        assert each["end_s"] + 4 >= planted.start_s

    again = admin.evaluate(procedure_id, trainee_id, key=key)
    assert (again.status_code, again.json()["id"]) == (201, evaluation["id"])
    assert again.headers["idempotency-replayed"] == "true"
    assert [each["id"] for each in admin.listed("/v1/sop/evaluations", video_id=trainee_id)] == [evaluation["id"]]

    report = f"/v1/sop/evaluations/{evaluation['id']}/report"
    assert "data:image/jpeg;base64," in admin.get(report).text
    assert admin.get(f"{report}.json").json()["id"] == evaluation["id"]
    assert admin.get(f"{report}.csv").text.startswith("\ufeffrecord,")
    assert admin.get(f"{report}.pdf").content.startswith(b"%PDF-")


def test_the_examples_run(genba: Genba, filmed: DemoSet, tmp_path: Path) -> None:
    scored = example(genba, "score_a_video.py", str(filmed.steps_path), str(filmed.trainee.path), folder=tmp_path)
    assert scored.returncode == 1, scored.stderr  # the trainee does not pass
    assert "missing" in scored.stdout
    assert (tmp_path / "report.html").stat().st_size > 0
    procedure = scored.stdout.split()[1].rstrip(":")
    with user(genba.url, genba.admin_key) as admin:
        video = admin.video(filmed.golds[0].path)
    batch = example(genba, "score_a_shift.py", procedure, video, folder=tmp_path)
    assert batch.returncode == 0, batch.stderr
    assert batch.stdout.splitlines()[-1].endswith(" succeeded")
    assert video in batch.stdout
    found = example(genba, "find_clips.py", "gloves 手袋", folder=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_examples_of_the_other_services_run(genba: Genba, tmp_path: Path) -> None:
    draw_set(tmp_path / "set", seed=3, masters=4, samples=3, views=2, strange=1)
    masters, batch = str(tmp_path / "set" / "masters"), str(tmp_path / "set" / "batch")
    classified = example(genba, "classify_particles.py", masters, batch, folder=tmp_path)
    assert classified.returncode == 1, classified.stderr  # without reviews, a person looks at everything
    assert classified.stdout.count("too few reviews yet") == 3

    rows = {"items": [{"item_id": f"v{n}"} for n in range(8)] + [{"title": "no id"}], "events": [LIKE]}
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    listed = example(genba, "recommend_videos.py", "rows.json", "u1", folder=tmp_path)
    assert listed.returncode == 1, listed.stderr  # one row was rejected, and said so
    assert "items 8:" in listed.stdout
    before, after = listed.stdout.split("after liking ")
    liked = after.split(":")[0]
    assert liked in before
    assert liked not in after.partition("\n")[2]

    (tmp_path / "press.txt").write_text("M8 bolts of the guard are tightened to 25 Nm.\n")
    asked = example(genba, "ask.py", "To what torque are the M8 bolts tightened?", "press.txt", folder=tmp_path)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert "25 Nm" in asked.stdout
    assert (tmp_path / "decision.proof").read_text().startswith("c2sp.org/tlog-proof@v1")

    trained = example(genba, "train_a_model.py", "recommend.two_tower", "max_epochs=1", folder=tmp_path)
    assert trained.returncode == 1, trained.stderr
    assert trained.stdout.splitlines()[-1].endswith(
        " failed"
    )  # one like is too few, and the job says how many it needs


LIKE = {"event_id": "e1", "user_id": "u1", "item_id": "v3", "kind": "like"}


def example(genba: Genba, name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """One of ``examples/``, run as its reader would."""
    script = Path(__file__).parents[2] / "examples" / name
    settings = {**environment({}), "GENBA_URL": genba.url, "GENBA_API_KEY": genba.admin_key}
    argv = [sys.executable, str(script), *arguments]
    return subprocess.run(argv, cwd=folder, env=settings, capture_output=True, text=True, check=False, timeout=180)


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(genba: Genba) -> None:
    head = (
        f"POST /v1/sop/videos HTTP/1.1\r\nHost: genba.test\r\nAuthorization: Bearer {genba.admin_key}\r\n"
        f"Content-Type: video/mp4\r\nContent-Length: {MAX_UPLOAD_BYTES + 1}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", genba.port), timeout=120) as connection:
        connection.sendall(head.encode())
        said = connection.makefile("rb").read()  # not one byte of the body was sent
    assert said.startswith(b"HTTP/1.1 413 ")
    document = json.loads(said.partition(b"\r\n\r\n")[2])
    assert document["type"] == "urn:genba:problem:payload-too-large"
    assert document["max_body_bytes"] == MAX_UPLOAD_BYTES


def test_text_renamed_to_a_video_is_415(admin: User, tmp_path: Path) -> None:
    text = tmp_path / "holiday.mp4"
    text.write_text("#EXTM3U\nhttp://127.0.0.1/secret.ts\n")
    assert problem(admin.upload(text), 415)["type"] == "urn:genba:problem:not-a-video"


def test_contradicting_steps_are_422_and_named(admin: User) -> None:
    steps = [{"id": "a", "after": ["b"]}, {"id": "b", "after": ["a"], "min_s": 9, "max_s": 1}]
    document = problem(admin.post("/v1/sop/procedures", {"title": {"en": "T"}, "steps": steps}), 422)
    named = {each["field"].partition(".")[0] for each in document["errors"]}
    assert named == {"steps[0]", "steps[1]"}
    assert any(each["field"].endswith(("min_s", "max_s")) for each in document["errors"])


def test_a_video_embedded_by_another_encoder_is_409(
    genba: Genba, admin: User, procedure_id: str, clips: list[Path]
) -> None:
    old = admin.video(clips[0])
    with contextlib.closing(sqlite3.connect(genba.home / "genba.db", timeout=30)) as database, database:
        database.execute("UPDATE sop_videos SET encoder = 'openclip:ViT-B-32' WHERE id = ?", (old,))
    assert problem(admin.evaluate(procedure_id, old), 409)["type"] == "urn:genba:problem:encoder-mismatch"


def test_who_may_not_is_told_no_more_than_that(genba: Genba, admin: User, trainee_id: str, clips: list[Path]) -> None:
    labelled = admin.http.post(
        "/v1/sop/videos?clearance=secret", content=clips[1].read_bytes(), headers={"content-type": "video/mp4"}
    ).json()["id"]
    with user(genba.url, None) as nobody, user(genba.url, "gnb_dev_guess") as guesser:
        problem(nobody.get("/v1/sop/videos"), 401)
        problem(guesser.get("/v1/sop/videos"), 401)
    with user(genba.url, genba.new_key("viewer")) as viewer:
        assert viewer.get(f"/v1/sop/videos/{trainee_id}").status_code == 200
        assert problem(viewer.upload(clips[2]), 403)["type"] == "urn:genba:problem:scope-missing"
        problem(viewer.get(f"/v1/sop/videos/{labelled}"), 404)
    with user(genba.url, genba.new_key("admin", clearance="secret", tenant="elsewhere")) as stranger:
        problem(stranger.get(f"/v1/sop/videos/{trainee_id}"), 404)
        assert stranger.listed("/v1/sop/videos") == []
    problem(admin.get("/v1/sop/videos/vid_none"), 404)


def test_bad_input_leaves_no_traceback_in_the_log(genba: Genba) -> None:
    assert "Traceback" not in genba.process.log


@pytest.mark.long
def test_a_batch_outlives_its_worker_and_scores_each_video_once(
    genba: Genba, admin: User, procedure_id: str, clips: list[Path]
) -> None:
    videos = [admin.video(clip) for clip in clips[3:]]
    body = {"procedure_id": procedure_id, "videos": [{"video_id": video} for video in videos]}
    submitted = admin.post("/v1/sop/evaluations/batch", body, key=fresh_key())
    assert submitted.status_code == 202, submitted.text
    job_id = submitted.json()["id"]
    until(lambda: admin.job(job_id)["status"] == "running", what="the job's start")
    killed = genba.kill("worker")
    genba.wait_for_restart("worker", killed)

    job = admin.done(job_id)
    assert job["status"] == "succeeded", job
    assert job["attempt"] >= 2
    for video in videos:
        assert len(admin.listed("/v1/sop/evaluations", video_id=video)) == 1
    assert {each["video_id"] for each in job["result"]["value"]["results"]} == set(videos)


@pytest.mark.long
def test_an_upload_cut_off_by_a_kill_leaves_nothing_and_can_be_repeated(
    genba: Genba, admin: User, tmp_path: Path, filmed: DemoSet
) -> None:
    body = filmed.golds[0].path.read_bytes() + b"\0" * 64  # other bytes than any that are known
    before = {each["id"] for each in admin.listed("/v1/sop/videos")}
    half = HalfUpload(genba.port, genba.admin_key, body)
    until(lambda: list((genba.home / "spool").glob("sop-*/upload-*")), what="the upload's arrival")
    killed = genba.kill("api")
    assert half.status() == 0
    genba.wait_for_restart("api", killed)
    assert list((genba.home / "spool").glob("sop-*/*")) == []
    assert {each["id"] for each in admin.listed("/v1/sop/videos")} == before
    again = tmp_path / "again.mp4"
    again.write_bytes(body)
    assert admin.upload(again).status_code == 201


@pytest.mark.long
def test_an_evaluation_cut_off_by_a_kill_is_made_once_when_repeated(
    genba: Genba, admin: User, procedure_id: str, trainee_id: str
) -> None:
    before = len(admin.listed("/v1/sop/evaluations", video_id=trainee_id))
    key = fresh_key()

    def ask() -> int:
        with user(genba.url, genba.admin_key) as somebody, contextlib.suppress(httpx.HTTPError):
            return somebody.evaluate(procedure_id, trainee_id, key=key).status_code
        return 0

    asking = threading.Thread(target=ask)
    asking.start()
    killed = genba.kill("api")
    asking.join()
    genba.wait_for_restart("api", killed)
    until(lambda: ask() == 201, within_s=60, every_s=1.0, what="the repeated evaluation")
    assert len(admin.listed("/v1/sop/evaluations", video_id=trainee_id)) == before + 1


@pytest.mark.long
def test_a_backup_made_at_work_becomes_a_home_that_goes_on_with_it(
    genba: Genba, admin: User, procedure_id: str, trainee_id: str, clips: list[Path], tmp_path: Path
) -> None:
    assert admin.evaluate(procedure_id, trainee_id).status_code == 201
    body = {"procedure_id": procedure_id, "videos": [{"video_id": admin.video(clips[0])}]}
    job_id = admin.post("/v1/sop/evaluations/batch", body, key=fresh_key()).json()["id"]
    file, home = tmp_path / "genba.tar", tmp_path / "restored"
    backup.create(Platform(home=genba.home), file)
    evaluations = admin.listed("/v1/sop/evaluations", video_id=trainee_id)
    content = admin.get(f"/v1/sop/videos/{trainee_id}/content").content
    clip = {"clip": {"video_id": trainee_id, "start_s": 0, "end_s": 3}, "k": 3}
    hits = admin.post("/v1/sop/search", clip).json()["hits"]
    assert hits

    backup.restore(file, Platform(home=home))
    with up(home, settings=SETTINGS) as second, user(second.url, genba.admin_key) as same:
        assert same.listed("/v1/sop/evaluations", video_id=trainee_id) == evaluations
        assert same.get(f"/v1/sop/videos/{trainee_id}/content").content == content
        assert same.post("/v1/sop/search", clip).json()["hits"] == hits
        job = same.done(job_id)
        assert job["status"] == "succeeded", job
        assert admin.done(job_id)["status"] == "succeeded"
        assert same.get("/v1/llm/verify").json()["intact"]


@pytest.mark.long
def test_sigterm_finishes_what_is_in_hand_and_a_second_start_keeps_the_key(
    genba: Genba, admin: User, filmed: DemoSet, procedure_id: str, trainee_id: str
) -> None:
    body = filmed.golds[0].path.read_bytes() + b"\0" * 32
    upload = HalfUpload(genba.port, genba.admin_key, body)
    until(lambda: list((genba.home / "spool").glob("sop-*/upload-*")), what="the upload's arrival")
    evaluated: list[int] = []
    asking = threading.Thread(target=lambda: evaluated.append(admin.evaluate(procedure_id, trainee_id).status_code))
    asking.start()
    until(lambda: evaluated or _in_work(genba) >= 2, what="two requests in hand")

    genba.process.note_family()
    genba.process.popen.send_signal(signal.SIGTERM)
    until(lambda: genba.process.events("draining"), what="the drain")
    assert upload.finish() == 201
    asking.join()
    assert evaluated == [201]
    assert genba.process.popen.wait(60) == 0
    assert genba.process.left_behind() == []

    with up(
        genba.home, settings=SETTINGS, until_logged='"program_ready"'
    ) as second:  # the API; the worker has nothing to add
        assert genba.process.log.count("An admin key was made for you") == 1
        with user(second.url, second.admin_key) as same:
            assert same.get("/v1/whoami").status_code == 200
        assert len(same_videos(second, body)) == 1


def same_videos(genba: Genba, body: bytes) -> list[str]:
    """Videos on record with exactly these bytes."""
    with user(genba.url, genba.admin_key) as somebody:
        return [each["id"] for each in somebody.listed("/v1/sop/videos") if each["size_bytes"] == len(body)]


def _in_work(genba: Genba) -> int:
    """Requests that svc-sop is answering, by its own count."""
    text = httpx.get(f"{genba.url}/metrics", trust_env=False, timeout=120).text
    line = next(line for line in text.splitlines() if line.startswith("genba_sop_requests_in_flight "))
    return int(float(line.split()[1]))
