"""Backups of embedded mode: what is in them, what a damaged one says, and that a home is restored whole or not at all."""

from __future__ import annotations

import io
import stat
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genba_gateway import backup, backup_cli
from genba_gateway.home import first_admin_key
from genba_gateway.keys import Keys
from genba_shared.artifacts import Artifacts
from genba_shared.audit import AuditLog
from genba_shared.audit_writer import audit_signer
from genba_shared.db import Database
from genba_shared.settings import Platform


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """A home with an admin key, two artifacts, one of them in a store below, and secrets."""
    platform = Platform(home=tmp_path / "home")
    first_admin_key(platform)
    platform.load_principal_secret()
    platform.load_audit_seed()
    artifacts = Artifacts(platform.artifacts_url)
    artifacts.put(b"a video", suffix=".mp4")
    artifacts.below("models").put(b"weights")
    (platform.home / "vectors").mkdir()
    (platform.home / "vectors" / "current").write_text("v1")
    return platform


@pytest.fixture
def made(platform: Platform, tmp_path: Path) -> Path:
    file = tmp_path / "genba.tar"
    backup.create(platform, file)
    return file


def files(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def rewritten(made: Path, change: Callable[[tarfile.TarInfo, bytes], tuple[str, bytes] | None]) -> Path:
    """The backup with each member as ``change`` makes it; None leaves it out."""
    other = made.with_name("changed.tar")
    with tarfile.open(made) as source, tarfile.open(other, "w") as target:
        for member in source:
            read = source.extractfile(member)
            assert read is not None
            if (changed := change(member, read.read())) is not None:
                member.name, data = changed
                member.size = len(data)
                target.addfile(member, io.BytesIO(data))
    return other


def test_a_restored_home_has_the_same_files_keys_and_log(platform: Platform, made: Path, tmp_path: Path) -> None:
    before = files(platform.home)
    restored = Platform(home=tmp_path / "elsewhere")
    contents = backup.restore(made, restored)
    after = files(restored.home)
    same = {name for name in before if name.split("/")[0] in {"artifacts", "secrets", "admin.key"}}
    assert len(same) == 5
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert after.keys() == same | {"genba.db"}  # vectors, caches and locks are made anew
    assert contents.files.keys() == after.keys()
    database = Database(restored.database_url)
    assert Keys(database, env="dev").verify((restored.home / "admin.key").read_text().strip()).role == "admin"
    log = AuditLog(database, key=audit_signer(restored).key)
    assert [entry.event for entry in log.entries()][-1] == "backup_restored"
    assert log.verify().intact
    database.close()


def test_only_its_owner_may_read_a_backup_and_what_is_made_of_it(made: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    home = tmp_path / "elsewhere"
    backup.restore(made, Platform(home=home))
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.rglob("*") if path.is_file()} == {0o600}


def test_a_backup_made_while_others_write_is_one_moment_of_the_log(platform: Platform, tmp_path: Path) -> None:
    enough, stop = threading.Event(), threading.Event()

    def write() -> None:
        database = Database(platform.database_url)
        while not stop.is_set():
            AuditLog(database).append("tested", actor="a", subject="b")
            enough.set()
        database.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert enough.wait(60)
        backup.create(platform, tmp_path / "genba.tar")
    finally:
        stop.set()
        writer.join()
    restored = Platform(home=tmp_path / "elsewhere")
    backup.restore(tmp_path / "genba.tar", restored)
    database = Database(restored.database_url)
    assert AuditLog(database).verify().intact
    database.close()


def test_making_one_is_in_the_log_and_leaves_nothing_beside_it(platform: Platform, made: Path) -> None:
    database = Database(platform.database_url)
    assert AuditLog(database).entries()[-1].event == "backup_created"
    database.close()
    assert {path.name for path in made.parent.iterdir()} == {"home", made.name}


def test_another_file_is_never_overwritten(platform: Platform, made: Path) -> None:
    before = made.read_bytes()
    with pytest.raises(backup.CannotBackUp, match="exists already"):
        backup.create(platform, made)
    assert made.read_bytes() == before


def test_a_folder_that_is_not_there_is_named(platform: Platform, tmp_path: Path) -> None:
    with pytest.raises(backup.CannotBackUp, match=r"There is no folder .*nowhere: make it first"):
        backup.create(platform, tmp_path / "nowhere" / "genba.tar")


def test_the_command_that_starts_what_was_restored_can_be_copied(made: Path, tmp_path: Path) -> None:
    home = tmp_path / "a home"
    restored = CliRunner().invoke(backup_cli.app, ["restore", str(made), "--home", str(home)])
    assert restored.exit_code == 0, restored.output
    assert f"genba up --home '{home}'" in restored.output.replace("\n", "")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_a_backup_that_was_cut_off_says_so(made: Path, share: float) -> None:
    data = made.read_bytes()
    made.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(backup.NotABackup, match="cut off"):
        backup.check(made)


@pytest.mark.parametrize("name", ["genba.db", "secrets/audit", "contents.json"])
def test_a_changed_byte_is_found_and_nothing_is_restored(made: Path, tmp_path: Path, name: str) -> None:
    def change(member: tarfile.TarInfo, data: bytes) -> tuple[str, bytes]:
        return member.name, data[:-2] + bytes([data[-2] ^ 1]) + data[-1:] if member.name == name else data

    changed = rewritten(made, change)
    home = tmp_path / "elsewhere"
    with pytest.raises(backup.NotABackup):
        backup.restore(changed, Platform(home=home))
    assert not home.exists()
    assert not list(tmp_path.glob(".elsewhere*"))


def test_a_missing_file_is_named(made: Path) -> None:
    changed = rewritten(made, lambda member, data: None if member.name == "secrets/audit" else (member.name, data))
    with pytest.raises(backup.NotABackup, match="secrets/audit"):
        backup.check(changed)


@pytest.mark.parametrize(
    "name", ["../stolen", "/etc/stolen", "artifacts/../../stolen", "artifacts/.incoming/x", "other"]
)
def test_a_name_that_no_backup_has_is_refused(made: Path, tmp_path: Path, name: str) -> None:
    changed = rewritten(made, lambda member, data: (name if member.name == "secrets/audit" else member.name, data))
    with pytest.raises(backup.NotABackup, match="no backup"):
        backup.restore(changed, Platform(home=tmp_path / "elsewhere"))
    assert not list(tmp_path.rglob("stolen"))


def test_a_link_is_refused(made: Path, tmp_path: Path) -> None:
    with tarfile.open(made, "a") as tar:
        link = tarfile.TarInfo("secrets/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(backup.NotABackup, match="secrets/link"):
        backup.restore(made, Platform(home=tmp_path / "elsewhere"))


def test_a_backup_of_a_newer_schema_names_the_version_that_made_it(made: Path) -> None:
    def change(member: tarfile.TarInfo, data: bytes) -> tuple[str, bytes]:
        if member.name != "contents.json":
            return member.name, data
        contents = backup.Contents.model_validate_json(data)
        newer = contents.model_copy(update={"revision": "9999_future", "genba": "99.0"})
        return member.name, newer.model_dump_json().encode()

    with pytest.raises(backup.NotABackup, match=r"Genba 99\.0.*9999_future"):
        backup.check(rewritten(made, change))


def test_something_that_is_no_backup_says_so(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("notes" * 1000)
    with pytest.raises(backup.NotABackup, match="no backup"):
        backup.check(file)


def test_a_home_that_holds_something_is_left_alone(platform: Platform, made: Path) -> None:
    before = files(platform.home)
    with pytest.raises(backup.CannotBackUp, match="not empty"):
        backup.restore(made, platform)
    assert files(platform.home) == before


def test_a_database_that_is_damaged_makes_no_backup(platform: Platform, tmp_path: Path) -> None:
    path = platform.home / "genba.db"
    for beside in platform.home.glob("genba.db-*"):
        beside.unlink()
    data = bytearray(path.read_bytes())
    data[8192:16384] = b"\xff" * 8192
    path.write_bytes(data)
    with pytest.raises(backup.CannotBackUp, match=r"damaged|cannot be copied"):
        backup.create(platform, tmp_path / "genba.tar")
    assert not list(tmp_path.glob("*.tar"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"database_url": "postgresql+psycopg://genba@db/genba"}, "pg_dump"),
        ({"artifacts_url": "memory://artifacts"}, "back them up there"),
    ],
)
def test_what_is_on_a_server_is_backed_up_there(
    platform: Platform, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    with pytest.raises(backup.CannotBackUp, match=said):
        backup.create(platform.model_copy(update=settings), tmp_path / "genba.tar")
    assert not (tmp_path / "genba.tar").exists()
