"""``genba sop``: offline scoring, demo videos, and the commands that speak to a running service over real HTTP."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.sop.signing import signing
from typer.testing import CliRunner, Result

from genba_sop import data
from genba_sop.app import create_app
from genba_sop.cli import app, explain
from genba_sop.settings import Settings

Films = Any  # of conftest, which tests cannot import
Headers = Callable[..., dict[str, str]]
STEPS = ("open", "fill", "close", "wipe")


def genba(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def steps_file(films: Films, tmp_path: Path) -> Path:
    """Beside copies of the golds that it names."""
    golds = []
    for path in films.golds:
        (tmp_path / path.name).write_bytes(path.read_bytes())
        spans = [{"id": step, "start_s": 4.0 * k, "end_s": 4.0 * (k + 1)} for k, step in enumerate(STEPS)]
        golds.append({"video": path.name, "steps": spans})
    steps = [{"id": step, "name": {"en": step.title(), "ja": "手順"}, "critical": step == "close"} for step in STEPS]
    path = tmp_path / "steps.yaml"
    path.write_text(yaml.safe_dump({"title": "Refill", "steps": steps, "golds": golds}), encoding="utf-8")
    return path


def test_a_failed_run_exits_1_and_names_what_is_missing_and_when(
    films: Films, steps_file: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    done = genba("score", "--trainee", films.skipped, "--steps", steps_file, "--report", page)
    assert done.exit_code == 1, done.output
    assert "Critical step missing: Close" in done.output
    assert "0:08" in done.output
    assert "reference" in done.output  # what each stage took
    assert page.read_text(encoding="utf-8").count("data:image/jpeg;base64,") >= 2


def test_a_good_run_exits_0(films: Films, steps_file: Path) -> None:
    golds = [argument for path in films.golds for argument in ("--gold", path)]
    done = genba("score", *golds, "--trainee", films.good, "--steps", steps_file, "--lang", "ja")
    assert done.exit_code == 0, done.output
    assert "合格" in done.output


def test_json_is_the_same_record_that_the_service_stores(films: Films, steps_file: Path) -> None:
    done = genba("score", "--trainee", films.skipped, "--steps", steps_file, "--json")
    record = json.loads(done.stdout)
    assert record["verdict"] == "fail"
    assert {"interval", "deviations", "trace", "golds", "timings_ms", "encoder", "model_version"} <= set(record)
    assert [gold["video_id"] for gold in record["golds"]] == [path.name for path in films.golds]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trainee": "nowhere.mp4"}, "nowhere.mp4"),
        ({"trainee": "text.mp4"}, "text.mp4"),
        ({"steps": "broken.yaml"}, "steps[0].after"),
        ({"steps": "bare.yaml"}, "--gold"),
    ],
)
def test_bad_input_exits_2_with_one_line(
    films: Films, steps_file: Path, tmp_path: Path, change: dict[str, str], said: str
) -> None:
    (tmp_path / "text.mp4").write_text("this is no video" * 300)
    (tmp_path / "broken.yaml").write_text("title: t\nsteps: [{id: a, after: [b]}]")
    (tmp_path / "bare.yaml").write_text("title: t\nsteps: [{id: a}]")
    paths = {"trainee": films.good, "steps": steps_file} | {k: tmp_path / v for k, v in change.items()}
    done = genba("score", "--trainee", paths["trainee"], "--steps", paths["steps"])
    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output


def test_golds_of_one_file_name_in_folders_of_their_own_keep_their_own_steps(
    films: Films, steps_file: Path, tmp_path: Path
) -> None:
    document = yaml.safe_load(steps_file.read_text(encoding="utf-8"))
    for gold, folder in zip(document["golds"], ("one", "two", "three"), strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / gold["video"]).rename(tmp_path / folder / "gold.mp4")
        gold["video"] = f"{folder}/gold.mp4"
    document["golds"][1]["steps"][0]["id"] = "nowhere"  # said of the second only when it is the second that is meant
    steps_file.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = genba("score", "--trainee", films.good, "--steps", steps_file)
    assert (done.exit_code, "golds[1].steps[0].id" in done.output) == (2, True), done.output
    copy = tmp_path / "copy" / "gold.mp4"
    copy.parent.mkdir()
    copy.write_bytes(films.golds[0].read_bytes())
    done = genba("score", "--trainee", films.good, "--steps", steps_file, "--gold", copy)
    assert (done.exit_code, "3 golds have the file name gold.mp4" in done.output) == (2, True), done.output


def test_names_in_brackets_are_printed_as_they_are(films: Films, steps_file: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(steps_file.read_text(encoding="utf-8"))
    document["steps"][2]["name"] = "Close [/m8]"
    steps_file.write_text(yaml.safe_dump(document), encoding="utf-8")
    film = tmp_path / "run [a].mp4"
    film.write_bytes(films.skipped.read_bytes())
    done = genba("score", "--trainee", film, "--steps", steps_file)
    assert (done.exit_code, done.output.count("Close [/m8]")) == (1, 2), done.output
    (tmp_path / "[a].txt").write_text("no video" * 600)
    done = genba("score", "--trainee", tmp_path / "[a].txt", "--steps", steps_file)
    assert (done.exit_code, "[a].txt" in done.output) == (2, True), done.output


def test_a_report_is_html_or_pdf_and_that_is_said_first(films: Films, steps_file: Path, tmp_path: Path) -> None:
    done = genba("score", "--trainee", films.good, "--steps", steps_file, "--report", tmp_path / "r.csv")
    assert (done.exit_code, "must end in .html or .pdf" in done.output) == (2, True), done.output


def test_golds_without_marked_steps_are_scored_on_proposals_and_it_is_said(
    films: Films, steps_file: Path, tmp_path: Path
) -> None:
    document = yaml.safe_load(steps_file.read_text(encoding="utf-8"))
    del document["golds"]
    (tmp_path / "unmarked.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    done = genba("score", "--gold", films.golds[0], "--trainee", films.good, "--steps", tmp_path / "unmarked.yaml")
    assert "proposed by change points" in done.output


@pytest.mark.parametrize(
    "warning", ["steps_proposed", "steps_transferred:1", "gold_outlier:2", "step_not_shown:0:close"]
)
def test_every_warning_of_a_reference_is_a_sentence(warning: str) -> None:
    assert explain(warning) != warning
    assert explain(warning).endswith(".") or explain(warning).endswith("?")


def test_demo_videos_writes_what_score_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def generate(kind: str, out: Path, **options: Any) -> Any:
        asked.update(kind=kind, out=out, **options)
        options["progress"](1.0, "gold_1.mp4")
        paths = type("Made", (), {"path": out / "trainee.mp4"})
        return type("Set", (), {"steps_path": out / "steps.yaml", "golds": (paths,), "trainee": paths})

    monkeypatch.setattr(data, "generate", generate)
    done = genba("demo-videos", "--out", tmp_path, "--kind", "ppe", "--seed", "3", "--golds", "4")
    assert done.exit_code == 0, done.output
    assert (asked["kind"], asked["seed"], asked["golds"]) == ("ppe", 3, 4)
    assert genba("demo-videos", "--out", tmp_path, "--kind", "soup").exit_code == 2


@pytest.fixture
def server(settings: Settings, signed: Headers) -> Iterator[str]:
    with serving(settings, signed) as url:
        yield url


@contextlib.contextmanager
def serving(settings: Settings, signed: Headers) -> Iterator[str]:
    with signing(create_app(settings), signed("engineer")) as url:
        yield url


def test_what_is_wrong_with_a_gold_is_said_before_anything_is_made(server: str, steps_file: Path) -> None:
    at = ("--url", server, "--key", "unused")
    document = yaml.safe_load(steps_file.read_text("utf-8"))
    wrong: tuple[Any, ...] = ({"video": "nowhere.mp4"}, {"steps": []}, "gold_0.mp4")
    said = ("golds names its file", "golds[3].video: Field required", "golds[3]: Input should be")
    for gold, words in zip(wrong, said, strict=True):
        steps_file.write_text(yaml.safe_dump({**document, "golds": [*document["golds"], gold]}), "utf-8")
        done = genba("procedures", "create", steps_file, *at)
        assert (done.exit_code, words in done.output) == (2, True), done.output
    assert "Refill" not in genba("procedures", "list", *at).output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: T\nsteps: [{id: a}]\ngolds: 5\n", "golds: "),
        ("title: 2026-01-01\nsteps: [{id: a}]\n", "title: "),
        ("title: T\nsteps: [{id: a, min_s: .nan}]\n", "steps[0].min_s: "),
        ("title: T\nsteps: [{id: a, after: [b]}]\n", "steps[0].after: "),
        ("[" * 3000, "not readable as YAML"),
    ],
)
def test_a_procedure_that_is_none_is_said_in_a_line(server: str, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "steps.yaml"
    path.write_text(text, "utf-8")
    done = genba("procedures", "create", path, "--url", server, "--key", "unused")
    assert (done.exit_code, said in done.output, type(done.exception)) == (2, True, SystemExit), done.output


def test_spans_that_are_none_are_said_in_a_line(server: str, tmp_path: Path) -> None:
    (tmp_path / "spans.yaml").write_text("- {id: a, start_s: 2026-01-01, end_s: 1}\n", "utf-8")
    done = genba("procedures", "correct-gold", "proc_x", "gold_x", tmp_path / "spans.yaml", "--url", server)
    assert (done.exit_code, "[0].start_s: " in done.output, type(done.exception)) == (2, True, SystemExit), done.output


def test_a_video_that_a_job_ingests_is_no_gold_yet(settings: Settings, signed: Headers, steps_file: Path) -> None:
    with serving(settings.model_copy(update={"job_above_bytes": 1000}), signed) as url:
        at = ("--url", url, "--key", "unused")
        done = genba("procedures", "create", steps_file, *at)
        assert (done.exit_code, "Run this again" in done.output) == (2, True), done.output
        assert "Refill" not in genba("procedures", "list", *at).output


def test_register_upload_evaluate_and_report_over_http(
    server: str, films: Films, steps_file: Path, tmp_path: Path
) -> None:
    at = ("--url", server, "--key", "unused")
    procedure = genba("procedures", "create", steps_file, *at).stdout.strip()
    assert procedure.startswith("proc_")
    assert "Refill" in genba("procedures", "list", *at).output
    assert json.loads(genba("procedures", "show", procedure, *at).stdout)["version"] == 1
    done = genba("evaluate", "--procedure", procedure, "--video", films.skipped, "--operator", "op-1", *at)
    assert done.exit_code == 1, done.output
    evaluation = done.stdout.strip().splitlines()[-1]
    for form in ("html", "json", "csv", "pdf"):
        assert genba("report", evaluation, "--out", tmp_path / f"r.{form}", *at).exit_code == 0
    assert (tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")
    assert genba("report", evaluation, "--out", tmp_path / "r.doc", *at).exit_code == 2
    said = genba("review", evaluation, "--verdict", "pass", "--reason", "seen from the other side", *at)
    assert json.loads(said.stdout)["verdict"] == "pass"
    gold = json.loads(genba("procedures", "show", procedure, *at).stdout)["golds"][0]
    spans = tmp_path / "spans.json"
    spans.write_text(json.dumps([{**gold["steps"][0], "end_s": gold["steps"][0]["end_s"] - 0.25}, *gold["steps"][1:]]))
    corrected = json.loads(genba("procedures", "correct-gold", procedure, gold["id"], spans, *at).stdout)
    assert (corrected["steps_by"], corrected["steps"]) == ("author", json.loads(spans.read_text()))
    video = genba("videos", "upload", films.good, *at).stdout.strip()
    assert genba("videos", "download", video, "--out", tmp_path / "back.mp4", *at).exit_code == 0
    assert (tmp_path / "back.mp4").read_bytes() == films.good.read_bytes()
    assert (
        genba("videos", "download", "vid_00000000000000000000000000", "--out", tmp_path / "no.mp4", *at).exit_code == 3
    )
    assert not list(tmp_path.glob("*no.mp4*"))
    assert video in genba("videos", "list", *at).output
    assert json.loads(genba("videos", "delete", video, *at).stdout)["artifacts"] == 3
    gone = genba("videos", "delete", video, *at)
    assert (gone.exit_code, "404" in gone.output) == (3, True)


def test_a_transcript_is_set_shown_asked_and_removed(server: str, films: Films, tmp_path: Path) -> None:
    at = ("--url", server, "--key", "unused")
    video = genba("videos", "upload", films.good, *at).stdout.strip()
    sidecar = tmp_path / "said.srt"
    sidecar.write_bytes("1\n00:00:01,000 --> 00:00:02,500\n蓋を開ける\n".encode("cp932"))
    assert genba("videos", "transcript", "set", video, sidecar, *at).stdout == "1\n"
    assert genba("videos", "transcript", "show", video, *at).stdout.split() == ["1.00", "2.50", "蓋を開ける"]
    asked = genba("ask", "蓋はどうしますか", *at)
    assert (asked.exit_code, asked.stdout.split()) == (
        0,
        ["蓋を開ける", "[1]", "[1]", video, "1.0–2.5", "s", "good.mp4"],
    )
    unanswered = genba("ask", "What is the capital of France?", *at)
    assert (unanswered.exit_code, "Nothing was found" in unanswered.output) == (1, True)
    sidecar.write_text("prose", "utf-8")
    wrong = genba("videos", "transcript", "set", video, sidecar, *at)
    assert (wrong.exit_code, "Line 1" in wrong.output) == (3, True), wrong.output
    assert genba("videos", "transcript", "set", video, tmp_path / "none.srt", *at).exit_code == 2
    assert genba("videos", "transcript", "remove", video, *at).exit_code == 0
    assert genba("videos", "transcript", "show", video, *at).exit_code == 3


def test_a_server_that_is_not_there_is_one_line_and_exit_3() -> None:
    done = genba("procedures", "list", "--url", "http://127.0.0.1:9", "--key", "k")
    assert done.exit_code == 3
    assert "does not answer" in done.output
