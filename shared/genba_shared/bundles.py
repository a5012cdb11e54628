"""A model's bundle on its way to the artifact store and back: a folder of files, each by its content.

A bundle is ``bundle.json`` and weights that are read without running code. What comes back is whole and is what went in,
or it does not come back. Knows no version, no alias and no database.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import re
import secrets
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from genba_shared.artifacts import Artifacts
from genba_shared.problems import Conflict

MANIFEST = "bundle.json"
_CHUNK_BYTES = 1 << 20
_SUFFIX = re.compile(r"\.[a-z0-9]{1,16}", re.ASCII)
_PICKLES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill"})
_PICKLE_MAGIC = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


class BadBundle(Conflict):
    """The bundle cannot become a version of a model."""


@dataclass(frozen=True)
class Stored:
    """A bundle in the artifact store: ``files`` maps each name to its key."""

    files: Mapping[str, str]
    size_bytes: int
    code_commit: str


def store(folder: Path, artifacts: Artifacts) -> Stored:
    """Put every file of a bundle into the store; the same bytes again change nothing.

    Raises: BadBundle without a readable bundle.json, with a link, or with a pickle.
    """
    manifest = _manifest(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    for path in paths:
        _check(path, path.relative_to(folder))
    files = {path.relative_to(folder).as_posix(): artifacts.put(path, suffix=_suffix(path)) for path in paths}
    commit = manifest.get("code_commit")
    return Stored(
        files=files,
        size_bytes=sum(path.stat().st_size for path in paths),
        code_commit=commit if isinstance(commit, str) and commit else code_commit(),
    )


def fetch(files: Mapping[str, str], artifacts: Artifacts, folder: Path) -> Path:
    """``folder``, holding exactly these files with exactly these contents.

    One that is there already is checked, byte for byte; else the bundle is written aside and renamed when it is whole.
    Any number of processes may share the folder above. Raises: NotFound for bytes that the store lost; OSError for
    bytes that it changed.
    """
    if folder.is_dir():
        if _is_whole(folder, files):
            return folder
        _discard(folder)
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.tmp")
    try:
        for name, key in files.items():
            _fetch_file(artifacts, key, _below(aside, name))
        try:
            aside.rename(folder)
        except OSError:
            if not (folder.is_dir() and _is_whole(folder, files)):  # another process was first
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def fingerprint(files: Mapping[str, str]) -> str:
    """One hash over all names and contents of a bundle."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


@functools.cache
def code_commit() -> str:
    """Which code this is: the commit of a checkout (``-dirty`` with changes), or the version of an installation."""
    here = Path(__file__).parent
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=here, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return f"genba {importlib.metadata.version('genba')}"
    return said.stdout.strip()


def _manifest(folder: Path) -> dict[str, object]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        raise BadBundle(f"The bundle has no {MANIFEST}.") from None
    except ValueError as error:
        raise BadBundle(f"{MANIFEST} is not readable as JSON: {error}.") from error
    if not isinstance(manifest, dict):
        raise BadBundle(f"{MANIFEST} must hold an object.")
    return manifest


def _check(path: Path, name: Path) -> None:
    """Whoever loads a bundle must not run what is in it: no pickle under any name, also not inside a zip (torch.save)."""
    if path.is_symlink() or not path.is_file():
        raise BadBundle(f"{name} is no plain file.")
    with path.open("rb") as file:
        begins = file.read(2) in _PICKLE_MAGIC
    pickled = path.suffix.lower() in _PICKLES or (begins and not _is_safetensors(path))
    if not pickled and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickled = any(Path(member).suffix.lower() in _PICKLES for member in archive.namelist())
    if pickled:
        raise BadBundle(f"{name} is a pickle; write weights as safetensors or ONNX.")


def _is_safetensors(path: Path) -> bool:
    """Such a file begins with its header's length, whose bytes may happen to be those of a pickle."""
    if path.suffix.lower() != ".safetensors":
        return False
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size - 8:
            return False
        try:
            return isinstance(json.loads(file.read(length)), dict)
        except ValueError:
            return False


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return suffix if _SUFFIX.fullmatch(suffix) else ""


def _below(folder: Path, name: str) -> Path:
    """Names come from a database: one that would lead out of the folder is refused, whoever wrote it there."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} is no name of a file in a bundle.")
    return path


def _fetch_file(artifacts: Artifacts, key: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with artifacts.open(key) as reader, path.open("xb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            digest.update(chunk)
            writer.write(chunk)
    if digest.hexdigest() != _digest(key):
        raise OSError(f"Artifact {key} arrived damaged: its bytes hash to {digest.hexdigest()}.")


def _is_whole(folder: Path, files: Mapping[str, str]) -> bool:
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    return found.keys() == files.keys() and all(_hash(found[name]) == _digest(key) for name, key in files.items())


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_dir())


def _digest(key: str) -> str:
    return key.rpartition("/")[2].split(".", 1)[0]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _discard(folder: Path) -> None:
    """Out of the way by one rename, so that nobody finds half of it; who has files of it open keeps them."""
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.gone")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return  # another process found it damaged too
    shutil.rmtree(aside, ignore_errors=True)
