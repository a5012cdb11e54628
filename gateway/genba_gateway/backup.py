"""One file with all that an installation of embedded mode cannot make again: its database at one moment, artifacts and secrets.

A plain tar that is made while Genba runs. Artifacts never change and a record is written after its artifact, so the
database is copied first, and whatever it names is there. Left out is what comes back by itself: vectors and caches are
made from the records, and work in hand begins anew. Nothing counts before it is whole: a backup carries its last line,
the contents with a hash each, and a restored home appears by one rename.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, BinaryIO, Literal, cast

import fsspec
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from sqlalchemy import make_url

from genba_shared.audit import AuditLog
from genba_shared.db import Database, revisions, utc_now
from genba_shared.durable import flush_folder
from genba_shared.settings import Platform

DATABASE = "genba.db"
_CONTENTS = "contents.json"
_LAST = "last-backup"  # in a home: an empty file, as old as its last backup
_ARTIFACTS = "artifacts"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}"
_MEMBER = re.compile(rf"{re.escape(DATABASE)}|admin\.key|secrets/{_NAME}|{_ARTIFACTS}(?:/{_NAME}){{1,8}}", re.ASCII)
_CHUNK_BYTES = 1 << 20
_MOST_CONTENTS_BYTES = 1 << 30

Progress = Callable[[int, int], object]  # bytes done, bytes in all


class NotABackup(Exception):
    """The file cannot be restored; the text says why."""


class CannotBackUp(Exception):
    """This installation cannot be backed up, or not to there; the text says why."""


class File(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True)

    size_bytes: int
    sha256: str


class Contents(BaseModel):
    """What a backup holds; its last member."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    genba: str
    revision: str
    made_at: AwareDatetime
    env: str
    files: dict[str, File]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


def create(platform: Platform, file: Path, *, progress: Progress = lambda _done, _all: None) -> Contents:
    """Write a backup of the running or stopped installation at ``platform`` to ``file``, readable by its owner only.

    Raises: CannotBackUp; OSError, and nothing is left behind.
    """
    database = _sqlite_file(platform)
    if file.exists():
        raise CannotBackUp(f"{file} exists already; a backup never overwrites another file.")
    if not file.absolute().parent.is_dir():
        raise CannotBackUp(f"There is no folder {file.absolute().parent}: make it first.")
    aside = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    copy = file.with_name(f"{aside.name}.db")
    try:
        revision, made_at = _copy_database(database, copy), utc_now()
        found = [(DATABASE, copy), *_secrets(platform.home), *_artifacts(platform)]
        total_bytes, done_bytes = _size_bytes(path for _, path in found), 0
        files: dict[str, File] = {}
        with _new(aside) as raw, tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, path in found:
                try:
                    source = path.open("rb")
                except FileNotFoundError:  # erased since it was listed
                    continue
                with source:
                    size_bytes = os.fstat(source.fileno()).st_size
                    files[name] = _add(tar, name, source, size_bytes=size_bytes, made_at=made_at)
                done_bytes += files[name].size_bytes
                progress(done_bytes, total_bytes)
            contents = Contents(
                genba=version("genba"), revision=revision, made_at=made_at, env=platform.env, files=files
            )
            last = contents.model_dump_json().encode()
            _add(tar, _CONTENTS, io.BytesIO(last), size_bytes=len(last), made_at=made_at)
            tar.close()
            raw.flush()
            os.fsync(raw.fileno())
        aside.rename(file)
        flush_folder(file.absolute().parent)
    finally:
        aside.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)
    _record(platform.database_url, "backup_created", contents)
    mark = platform.home / _LAST
    mark.touch(mode=0o600)
    os.utime(mark, (contents.made_at.timestamp(),) * 2)
    return contents


def last_made_s(home: Path) -> float:
    """When the last backup of a home was made, in seconds since 1970; 0 where none was."""
    try:
        return (home / _LAST).stat().st_mtime
    except OSError:
        return 0.0


def check(file: Path, *, progress: Progress = lambda _done, _all: None) -> Contents:
    """Read all of a backup and make sure that it could be restored. Raises: NotABackup; OSError."""
    with tempfile.TemporaryDirectory(prefix="genba-backup-") as folder:
        return _read(file, lambda name: Path(folder) / name if name == DATABASE else None, progress)


def restore(file: Path, platform: Platform, *, progress: Progress = lambda _done, _all: None) -> Contents:
    """Make the home of ``platform`` from a backup, at the newest schema, with the restoration in its audit log.

    Raises: NotABackup; CannotBackUp if there is something in the home; OSError. Either all of it is there afterwards or nothing.
    """
    home = platform.home
    if _sqlite_file(platform) != home / DATABASE or _local_artifacts(platform) != home / _ARTIFACTS:
        raise CannotBackUp(
            "A restored home holds its database and its artifacts itself: "
            "unset GENBA_DATABASE_URL and GENBA_ARTIFACTS_URL first."
        )
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise CannotBackUp(f"{home} is not empty: name a folder that is not there yet with --home.")
    home.parent.mkdir(parents=True, exist_ok=True)
    aside = home.with_name(f".{home.name}.{secrets.token_hex(8)}")
    aside.mkdir(mode=0o700)
    try:
        contents = _read(file, lambda name: aside / name, progress)
        _record(f"sqlite:///{aside / DATABASE}", "backup_restored", contents)
        os.sync()  # once, for however many files there are
        aside.rename(home)
        flush_folder(home.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return contents


def kept_outside() -> list[str]:
    """Settings that name files beyond the home, which a backup does not hold."""
    return sorted(name for name in os.environ if name.startswith("GENBA_") and name.endswith("_FILE"))


def _sqlite_file(platform: Platform) -> Path:
    url = make_url(platform.database_url)
    if url.get_backend_name() != "sqlite":
        raise CannotBackUp(
            "The database is on a server: back it up with pg_dump, as docs/how-to/back-up.md says, "
            "then the artifacts and the secrets."
        )
    return Path(str(url.database)).absolute()


def _local_artifacts(platform: Platform) -> Path:
    filesystem, root = fsspec.core.url_to_fs(platform.artifacts_url)
    if "file" not in (filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)):
        raise CannotBackUp(
            f"The artifacts are at {platform.artifacts_url}: back them up there, as docs/how-to/back-up.md says."
        )
    return Path(root)


def _copy_database(database: Path, copy: Path) -> str:
    """One consistent look at a database that others may be writing; its schema's revision."""
    if not database.exists():
        raise CannotBackUp(f"There is no database at {database}: nothing was ever started there.")
    _new(copy).close()
    try:
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            target.execute(
                "PRAGMA journal_mode = DELETE"
            ).close()  # one file; the restored one is WAL again at its first opening
            [fault] = target.execute("PRAGMA integrity_check(1)").fetchone()
            [revision] = target.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise CannotBackUp(f"The database at {database} cannot be copied: {error}.") from error
    if fault != "ok":
        raise CannotBackUp(f"The database at {database} is damaged ({fault}): go back to the last backup.")
    return str(revision)


def _secrets(home: Path) -> Iterator[tuple[str, Path]]:
    if (home / "admin.key").is_file():
        yield "admin.key", home / "admin.key"
    for path in sorted((home / "secrets").glob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield f"secrets/{path.name}", path


def _artifacts(platform: Platform) -> Iterator[tuple[str, Path]]:
    """Every whole artifact; what is still being written stands in a folder with a dot."""
    root = _local_artifacts(platform)
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield f"{_ARTIFACTS}/{path.relative_to(root).as_posix()}", path


def _size_bytes(paths: Iterable[Path]) -> int:
    total_bytes = 0
    for path in paths:
        with suppress(FileNotFoundError):
            total_bytes += path.stat().st_size
    return total_bytes


def _new(path: Path) -> IO[bytes]:
    """A file that only its owner may read from its first byte on."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _add(tar: tarfile.TarFile, name: str, source: BinaryIO, *, size_bytes: int, made_at: datetime) -> File:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size_bytes, 0o600, made_at.timestamp()
    hashing = _Hashing(source)
    tar.addfile(member, cast("IO[bytes]", hashing))
    return File(size_bytes=size_bytes, sha256=hashing.digest.hexdigest())


class _Hashing:
    """A reader that knows the hash of what was read."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size_bytes: int = -1) -> bytes:
        data = self._source.read(size_bytes)
        self.digest.update(data)
        return data


def _read(file: Path, place: Callable[[str], Path | None], progress: Progress) -> Contents:
    """Hash every member and write it where ``place`` says, if anywhere; the contents, once everything agrees with them."""
    total_bytes = file.stat().st_size
    found: dict[str, File] = {}
    contents: Contents | None = None
    try:
        with file.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|") as tar:
            for member in tar:
                source = tar.extractfile(member) if member.isreg() else None
                if source is None or contents is not None or member.name in found:
                    raise NotABackup(f"{file} holds {member.name!r} where no backup has it.")
                if member.name == _CONTENTS:
                    contents = _parsed(file, source.read(_MOST_CONTENTS_BYTES))
                elif _MEMBER.fullmatch(member.name):
                    found[member.name] = _copy(source, place(member.name))
                else:
                    raise NotABackup(f"{file} holds {member.name!r}, which no backup has.")
                progress(raw.tell(), total_bytes)
    except tarfile.TarError as error:
        raise NotABackup(f"{file} is no backup, or it was cut off: {error}.") from error
    if contents is None:
        raise NotABackup(f"{file} was cut off: its contents are missing.")
    for name in sorted(contents.files.keys() | found.keys() | {DATABASE}):
        if contents.files.get(name) != found.get(name) or name not in found:
            raise NotABackup(f"{file} is damaged: {name} is not what was written.")
    if contents.revision not in revisions():
        raise NotABackup(
            f"{file} was made by Genba {contents.genba}, whose schema {contents.revision} this version does not know: "
            "restore it with that version."
        )
    return contents


def _parsed(file: Path, text: bytes) -> Contents:
    try:
        return Contents.model_validate_json(text)
    except ValidationError as error:
        raise NotABackup(f"{file} has contents that this version cannot read.") from error


def _copy(source: IO[bytes], path: Path | None) -> File:
    digest, size_bytes = hashlib.sha256(), 0
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _new(path) if path is not None else Path(os.devnull).open("wb") as target:
        while data := source.read(_CHUNK_BYTES):
            digest.update(data)
            size_bytes += len(data)
            target.write(data)
    return File(size_bytes=size_bytes, sha256=digest.hexdigest())


def _record(database_url: str, event: str, contents: Contents) -> None:
    database = Database(database_url)
    try:
        database.upgrade()
        AuditLog(database).append(
            event,
            actor="command line",
            subject=contents.made_at.isoformat(timespec="seconds"),
            detail={"genba": contents.genba, "files": len(contents.files), "size_bytes": contents.size_bytes},
        )
    finally:
        database.close()
