"""The command as a person meets it: real processes, their exit codes, what they print and what they leave behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from tests.e2e import world
from tests.e2e.clips import film
from tests.e2e.world import Said, environment, free_port, up
from tests.gateway.certificates import write_certificate
from typer.testing import CliRunner

from genba_gateway import home as homes
from genba_gateway.keys import Keys
from genba_gateway.settings import Settings
from genba_gateway.up import addresses
from genba_shared.artifacts import Artifacts
from genba_shared.recipe import Registration
from genba_shared.registry import Registry
from genba_shared.settings import Platform
from genba_sop import data
from genba_sop.cli import app as sop

pytestmark = pytest.mark.xdist_group("cli")

KEY = re.compile(r"gnb_dev_[0-9a-z]{12}_[0-9A-Za-z]{49}")


def genba(*arguments: str | Path, home: Path | None = None) -> Said:
    """Run the command in a process of its own, wide enough that no line is broken."""
    env = {**os.environ, "COLUMNS": "300", "NO_COLOR": "1"} | ({"GENBA_HOME": str(home)} if home else {})
    argv: Sequence[str] = [sys.executable, "-m", "genba_gateway", *map(str, arguments)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=240, env=env, check=False)
    assert "Traceback" not in ended.stdout + ended.stderr
    return Said(ended.returncode, ended.stdout, ended.stderr)


def here(*arguments: str | Path, home: Path | None = None) -> Said:
    """The same in this process."""
    return world.here(*arguments, settings={"GENBA_HOME": str(home)} if home else {})


def score(*arguments: str | Path) -> Said:
    """``genba sop score`` in this process, which has loaded what it computes with: a process of its own waits for that each time."""
    ended = CliRunner().invoke(sop, ["score", *map(str, arguments)], env={"COLUMNS": "300", "NO_COLOR": "1"})
    return Said(ended.exit_code, ended.stdout, ended.stderr)


@pytest.fixture
def home(tmp_path: Path, _upgraded_sqlite: Path) -> Path:
    """A home whose database is made: making one takes longer than most commands. Some tests begin with nothing, as people do."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(_upgraded_sqlite, home / "genba.db")
    return home


def refusal(said: Said) -> str:
    """The one line that says why not."""
    lines = [line for line in said.err.splitlines() if line]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("genba: ")
    return lines[0]


# --- the command itself ---------------------------------------------------------------------------------------------


def test_help_says_of_each_services_commands_what_they_do() -> None:
    said = genba("--help")
    assert said.code == 0
    assert "Score files offline" in said.out
    assert "revoke and rotate API keys" in said.out


def test_a_command_that_does_not_exist_is_an_error() -> None:
    said = here("nonsense")
    assert said.code == 2
    assert "No such command 'nonsense'" in said.err


def test_a_service_that_does_not_exist_is_named_with_those_that_do(tmp_path: Path) -> None:
    said = here("run", "nonsense", home=tmp_path)
    assert said.code == 2
    assert (
        refusal(said)
        == "genba: There is no service 'nonsense'; there are embedded, gateway, llm, recommend, sem, sop, training, worker."
    )


def test_a_database_that_does_not_answer_is_said_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENBA_DATABASE_URL", "postgresql+psycopg://genba:hunter2@127.0.0.1:1/genba")
    said = here("keys", "list", home=tmp_path)
    assert said.code == 2
    assert "does not answer" in refusal(said)
    assert "hunter2" not in said.err


# --- up -------------------------------------------------------------------------------------------------------------


def test_up_says_that_its_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = here("up", "--home", tmp_path / "home", "--port", str(port))
    assert said.code == 2
    assert refusal(said) == f"genba: 127.0.0.1:{port} is in use; choose another with --port."
    assert not (tmp_path / "home" / "admin.key").exists()


@pytest.mark.parametrize(
    ("host", "operations_port", "url", "own"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", None, "http://0.0.0.0:8080", "http://127.0.0.1:8080"),  # noqa: S104 - what a person may ask for
        ("127.0.0.1", 9000, "http://127.0.0.1:8080", "http://127.0.0.1:9000"),  # /ready is there alone
        ("::1", None, "http://[::1]:8080", "http://[::1]:8080"),
        ("::", 9000, "http://[::]:8080", "http://[::1]:9000"),
    ],
)
def test_up_asks_itself_where_it_says_whether_it_is_ready(
    tmp_path: Path, host: str, operations_port: int | None, url: str, own: str
) -> None:
    settings = Settings(platform=Platform(home=tmp_path), operations_port=operations_port)
    assert addresses(settings, host, 8080) == (url, own)
    assert str(httpx.URL(own)) == own


def test_up_refuses_a_home_that_is_in_use(tmp_path: Path) -> None:
    with homes.only_one(tmp_path / "home"):
        said = here("up", "--home", tmp_path / "home", "--port", "1")
    assert said.code == 2
    assert refusal(said).startswith(f"genba: Genba already runs on {tmp_path / 'home'}; stop it first")


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "a [file]").write_text("")
    said = genba("up", "--port", str(free_port()), home=tmp_path / "a [file]")
    assert said.code == 2
    assert refusal(said) == f"genba: {tmp_path / 'a [file]'} cannot hold Genba's data: File exists."


def test_the_first_start_makes_one_admin_key_that_only_its_owner_can_read(tmp_path: Path) -> None:
    platform = Platform(home=tmp_path / "home")
    made = homes.first_admin_key(platform)
    assert made is not None
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert KEY.fullmatch(made.read_text().strip())
    assert homes.first_admin_key(platform) is None


def test_a_home_that_is_made_is_its_owners_alone_and_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o750)
    for home, mode in ((tmp_path / "new", 0o700), (there, 0o750)):
        with homes.only_one(home):
            assert stat.S_IMODE(home.stat().st_mode) == mode


def test_what_comes_to_lie_in_a_home_that_is_open_to_all_is_its_owners_alone(tmp_path: Path) -> None:
    home = tmp_path / "open"
    home.mkdir(mode=0o755)
    with up(home, settings={}):
        open_to_others = [
            path for path in home.rglob("*") if path.name != "lock" and stat.S_IMODE(path.lstat().st_mode) & 0o077
        ]
        assert (home / "genba.db").exists()
    assert open_to_others == []


def test_up_refuses_a_home_that_a_newer_genba_has_upgraded(tmp_path: Path) -> None:
    home = tmp_path / "home"
    platform = Platform(home=home)
    assert homes.first_admin_key(platform) is not None
    database = homes.migrate(platform)
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    database.close()
    said = here("up", "--home", home, "--port", str(free_port()))
    assert said.code == 2
    last = said.err.splitlines()[-1]
    assert last.startswith(f"genba: {home} was upgraded by a newer Genba (schema 9999_later;")
    assert "restore the backup" in last


def test_a_first_start_that_dies_around_the_key_file_leaves_a_key_that_the_next_one_makes_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = Platform(home=tmp_path / "home")
    written = homes.write_private

    def die_before(_path: Path, _text: str) -> Path:
        raise SystemExit("killed before the file")

    def die_after(path: Path, text: str) -> Path:
        written(path, text)
        raise SystemExit("killed before the commit")

    for death in (die_before, die_after):
        monkeypatch.setattr(homes, "write_private", death)
        with pytest.raises(SystemExit):
            homes.first_admin_key(platform)
    monkeypatch.setattr(homes, "write_private", written)
    made = homes.first_admin_key(platform)
    assert made is not None
    database = homes.migrate(platform)
    try:
        keys = Keys(database, env=platform.env)
        assert [key.id for key in keys.list()] == [keys.verify(made.read_text().strip()).id]
    finally:
        database.close()


def test_a_setting_that_does_not_validate_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENBA_SOP_SWEEP_EVERY_S", "-1")
    said = here("run", "sop", "--port", "1", home=tmp_path / "home")
    assert (said.code, refusal(said)) == (2, "genba: GENBA_SOP_SWEEP_EVERY_S: Input should be greater than 0")


def test_a_certificate_that_is_not_there_and_a_key_that_is_not_named_are_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENBA_GATEWAY_TLS__CERTIFICATE_FILE", str(tmp_path / "tls.crt"))
    unnamed = here("up", "--port", str(free_port()), home=tmp_path / "home")
    assert (unnamed.code, refusal(unnamed)) == (2, "genba: GENBA_GATEWAY_TLS__KEY_FILE: Field required")
    monkeypatch.setenv("GENBA_GATEWAY_TLS__KEY_FILE", str(tmp_path / "tls.key"))
    absent = here("up", "--port", str(free_port()), home=tmp_path / "home")
    assert absent.code == 2
    assert "GENBA_GATEWAY_TLS__CERTIFICATE_FILE or GENBA_GATEWAY_TLS__KEY_FILE" in refusal(absent)
    assert "No such file" in refusal(absent)


@pytest.mark.long
def test_everything_runs_over_https_with_two_settings(tmp_path: Path) -> None:
    certificate_file, key_file, _ = write_certificate(tmp_path)
    tls = {
        "GENBA_GATEWAY_TLS__CERTIFICATE_FILE": str(certificate_file),
        "GENBA_GATEWAY_TLS__KEY_FILE": str(key_file),
    }
    with up(tmp_path / "home", settings=tls) as running:
        url = f"https://127.0.0.1:{running.port}"
        assert f"Genba is up at {url}" in running.process.log
        env = {**environment(tls), "GENBA_URL": url, "GENBA_API_KEY": running.admin_key}
        argv = [sys.executable, "-m", "genba_gateway", "jobs", "list", "--json"]
        refused = subprocess.run(argv, capture_output=True, text=True, timeout=240, env=env, check=False)
        assert refused.returncode != 0
        assert "certificate verify failed" in refused.stderr
        trusting = {**env, "SSL_CERT_FILE": str(certificate_file)}
        listed = subprocess.run(argv, capture_output=True, text=True, timeout=240, env=trusting, check=True)
        assert json.loads(listed.stdout) == []


def test_a_service_that_does_not_start_says_why_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENBA_SOP_ENCODER", "openclip:ViT-B-32")
    monkeypatch.setenv("GENBA_SOP_ENCODER_WEIGHTS", str(tmp_path / "absent.safetensors"))
    argv = [sys.executable, "-m", "genba_gateway", "run", "sop", "--port", "1"]
    env = {**os.environ, "COLUMNS": "300", "NO_COLOR": "1", "GENBA_HOME": str(tmp_path / "home")}
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=240, env=env, check=False)
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("genba: The service sop did not start: ")
    assert str(tmp_path / "absent.safetensors") in last


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_key_is_made_listed_rotated_and_revoked(home: Path, tmp_path: Path) -> None:
    made = genba("keys", "create", "line 3 tablet", "--role", "operator", "--expires-days", "30", home=home)
    assert made.code == 0
    key_id, plaintext = made.out.splitlines()[:2]
    assert KEY.fullmatch(plaintext)

    file = tmp_path / "successor.key"
    rotated = here("keys", "rotate", key_id, "--overlap-hours", "1", "--file", file, home=home)
    assert rotated.code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    successor = file.read_text().strip()
    assert KEY.fullmatch(successor)
    assert successor not in rotated.out

    new_id = successor.split("_")[2]
    assert here("keys", "revoke", new_id, home=home).code == 0
    listed = genba("keys", "list", home=home)
    states = {row.split("│")[1].strip(): row.split("│")[-2].strip() for row in listed.out.splitlines() if "│" in row}
    assert states == {key_id: "rotated", new_id: "revoked"}
    assert plaintext.split("_")[3] not in listed.out


def test_a_key_whose_file_cannot_be_written_is_not_made_and_the_old_one_can_still_be_rotated(
    home: Path, tmp_path: Path
) -> None:
    made = here("keys", "create", "tablet", home=home)
    key_id = made.out.splitlines()[0]
    folder = tmp_path / "a folder"
    (folder / "in it").mkdir(parents=True)
    for arguments in (("create", "other"), ("rotate", key_id)):
        refused = here("keys", *arguments, "--file", folder, home=home)
        assert refused.code == 2
        assert "no key was made" in " ".join(refused.err.split())
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
    listed = here("keys", "list", home=home)
    assert listed.out.count("active") == 1
    assert "rotated" not in listed.out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("create", "x", "--role", "king"), "role"),
        (("create", ""), "name: must be 1 to 200"),
        (("rotate", "zzzzzzzzzzzz"), "zzzzzzzzzzzz"),
    ],
)
def test_what_keys_cannot_do_is_said_in_one_line(home: Path, arguments: tuple[str, ...], named: str) -> None:
    said = here("keys", *arguments, home=home)
    assert said.code == 2
    assert named in refusal(said)


@pytest.mark.parametrize(
    "arguments",
    [("create", "x", "--expires-days", "99999999999"), ("rotate", "zzzzzzzzzzzz", "--overlap-hours", "1e300")],
)
def test_a_time_that_no_calendar_holds_is_refused(home: Path, arguments: tuple[str, ...]) -> None:
    said = here("keys", *arguments, home=home)
    assert said.code == 2
    assert arguments[-2] in said.err


# --- backup ---------------------------------------------------------------------------------------------------------


def test_a_backup_is_made_checked_and_restored_from_a_shell(tmp_path: Path) -> None:
    home, file, restored = tmp_path / "home", tmp_path / "genba.tar", tmp_path / "restored"
    made = here("keys", "create", "tablet", home=home)
    key_id = made.out.split()[0]
    said = genba("backup", "create", file, home=home)
    assert (said.code, said.err) == (0, "")
    assert str(file) in said.out
    assert here("backup", "check", file).code == 0
    assert genba("backup", "restore", file, home=restored).code == 0
    assert key_id in here("keys", "list", home=restored).out


def test_what_a_backup_cannot_do_is_said_in_one_line(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "genba.tar"
    none = here("backup", "create", file, home=tmp_path / "nothing")
    assert none.code == 2
    assert "nothing was ever started there" in refusal(none)
    nowhere = here("backup", "create", tmp_path / "no-folder" / "genba.tar", home=home)
    assert nowhere.code == 2
    assert "no-folder: make it first" in refusal(nowhere)
    assert here("backup", "create", file, home=home).code == 0
    file.write_bytes(file.read_bytes()[:20_000])
    damaged = here("backup", "restore", file, home=tmp_path / "restored")
    assert damaged.code == 1
    assert "cut off" in refusal(damaged)
    assert not (tmp_path / "restored").exists()
    assert "No such file or directory" in refusal(here("backup", "check", tmp_path / "none.tar"))


# --- sop ------------------------------------------------------------------------------------------------------------


def finds_what_was_planted(said: Said, filmed: Path, report: Path) -> None:
    assert said.code == 1
    evaluation = json.loads(said.out)
    assert evaluation["verdict"] == "fail"
    planted = json.loads((filmed / "truth.json").read_text())["trainee"]["truth"]
    missing = {each["step_id"] for each in planted if each["kind"] == "missing"}
    assert missing
    assert missing <= {each["step_id"] for each in evaluation["deviations"] if each["kind"] == "missing"}
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")


def to_score(filmed: Path, report: Path) -> list[str | Path]:
    return [
        "--gold", filmed / "gold_1.mp4", "--trainee", filmed / "trainee.mp4",
        "--steps", filmed / "steps.yaml", "--json", "--report", report,
    ]  # fmt: skip


def test_a_run_with_planted_deviations_does_not_pass_and_they_are_found(tmp_path: Path) -> None:
    filmed, report = tmp_path / "filmed", tmp_path / "report.html"
    data.generate("ppe", filmed, golds=1, seed=3, size=(320, 240), fps=8.0)
    finds_what_was_planted(score(*to_score(filmed, report)), filmed, report)


@pytest.mark.long
def test_demo_videos_are_files_with_their_truth_and_are_scored_from_a_shell(tmp_path: Path) -> None:
    filmed, report = tmp_path / "filmed", tmp_path / "report.html"
    said = genba("sop", "demo-videos", "--out", filmed, "--kind", "ppe", "--golds", "1", "--seed", "3")
    assert said.code == 0
    assert {path.name for path in filmed.iterdir()} == {"gold_1.mp4", "trainee.mp4", "steps.yaml", "truth.json"}
    finds_what_was_planted(genba("sop", "score", *to_score(filmed, report)), filmed, report)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A gold run of two seconds and its steps."""
    folder = tmp_path_factory.mktemp("small")
    steps = folder / "steps.yaml"
    steps.write_text(
        "title: {en: Blocks, ja: 積み木}\nsteps: [{id: red}, {id: blue, critical: true}]\n", encoding="utf-8"
    )
    return film(folder / "gold.mp4", seconds=2, seed=1), steps


def test_a_run_that_is_the_gold_run_passes(small: tuple[Path, Path]) -> None:
    gold, steps = small
    said = score("--gold", gold, "--trainee", gold, "--steps", steps, "--lang", "ja")
    assert said.code == 0
    assert "合格" in said.out


def test_files_are_scored_by_the_encoder_of_the_settings(
    small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    gold, steps = small
    for encoder, said in (("nonsense", "is no encoder"), ("openclip:ViT-B-32", "There are no weights")):
        monkeypatch.setenv("GENBA_SOP_ENCODER", encoder)
        monkeypatch.setenv("GENBA_SOP_ENCODER_WEIGHTS", "/absent/weights.safetensors")
        refused = score("--gold", gold, "--trainee", gold, "--steps", steps)
        assert refused.code == 2
        assert said in refusal(refused)


def test_bad_files_are_said_in_one_line(small: tuple[Path, Path], tmp_path: Path) -> None:
    gold, steps = small
    text = tmp_path / "text.mp4"
    text.write_text("This is no video.")
    broken = tmp_path / "broken.yaml"
    broken.write_text("title: {en: [")
    contradicting = tmp_path / "contradicting.yaml"
    contradicting.write_text("title: {en: T}\nsteps: [{id: a, after: [b]}, {id: b, min_s: 9, max_s: 1}]\n")
    for trainee, steps_file, said in (
        (tmp_path / "absent.mp4", steps, "There is no such file"),
        (text, steps, "text.mp4"),
        (gold, broken, "broken.yaml is not readable as YAML: line 1: "),
    ):
        refused = score("--gold", gold, "--trainee", trainee, "--steps", steps_file)
        assert refused.code == 2
        assert said in refusal(refused)
    refused = score("--gold", gold, "--trainee", gold, "--steps", contradicting)
    assert refused.code == 2
    assert "steps[1]" in refused.err


def test_a_server_that_is_not_there_is_exit_code_three() -> None:
    said = here("sop", "videos", "list", "--url", "http://127.0.0.1:1")
    assert said.code == 3
    assert "does not answer" in refusal(said)


# --- models ---------------------------------------------------------------------------------------------------------


def test_a_versions_files_are_fetched_where_genba_runs(tmp_path: Path) -> None:
    platform = Platform(home=tmp_path / "home")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    (bundle / "towers.safetensors").write_bytes(b"weights")
    database = homes.migrate(platform)
    registry = Registry(database, Artifacts(platform.artifacts_url))
    registration = Registration("test.toy", bundle, {}, data_hash="d1")
    stored = registry.store(registration)
    with database.transaction() as session:
        registry.register(session, registration, job_id="job_1", by="key_1", stored=stored, compared=None)
    database.close()

    said = here("models", "fetch", "test.toy", "1", "--out", tmp_path / "out", home=tmp_path / "home")
    assert said.code == 0, said.err
    folder = Path(said.out.strip())
    assert folder.is_relative_to(tmp_path / "out")
    assert (folder / "towers.safetensors").read_bytes() == b"weights"
    missing = here("models", "fetch", "test.toy", "2", "--out", tmp_path / "out", home=tmp_path / "home")
    assert (missing.code, refusal(missing)) == (2, "genba: There is no version 2 of test.toy.")
