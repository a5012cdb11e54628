"""Files by what is in them: a folder or an S3 bucket (fsspec) of content addresses such as ``ab/abcdef….mp4``.

An artifact never changes, so a key that resolves is whole and right: it was written under another name, flushed, and
renamed. Knows nothing of what the bytes mean or of who refers to them.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from genba_shared.durable import flush_folder
from genba_shared.problems import NotFound, Problem, Unavailable

_KEY = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})((?:\.[a-z0-9]{1,16}){0,2})", re.ASCII)
_SUFFIX = re.compile(r"(?:\.[a-z0-9]{1,16}){0,2}", re.ASCII)
_CHUNK_BYTES = 1 << 20
_ORPHAN_AFTER_S = 24 * 3600
_CACHE_BYTES = 8 * 2**30
_CACHE_FILES = 50_000  # all are looked at once a minute
_UNUSED_AFTER_S, _IN_USE_S, _TIDY_EVERY_S = 24 * 3600.0, 900.0, 60.0


class Artifacts:
    """A content-addressed store at ``url``: a folder, ``s3://bucket/prefix``, or anything else fsspec writes to.

    ``cache`` holds copies of remote artifacts that were put here or that somebody asked a path for, in a folder of this
    machine's by default: up to ``cache_bytes`` and ``cache_files``, and none that nobody has asked for since yesterday.
    """

    def __init__(
        self,
        url: str,
        *,
        cache: Path | None = None,
        cache_bytes: int = _CACHE_BYTES,
        cache_files: int = _CACHE_FILES,
    ) -> None:
        # Without the cache of listings: another process may have put or deleted what this one once listed.
        self._url = url.rstrip("/")
        self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self._root = root.rstrip("/")
        self._is_local = "file" in _protocols(self._fs)
        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        self._here = Path(self._root) if self._is_local else cache or _private_folder(f"genba-artifacts-{name}")
        self._incoming = self._here / ".incoming"
        self._durable: set[str] = set()  # folders that this process has seen on the disk
        self._cache_bytes, self._cache_files, self._tidy_after_s = cache_bytes, cache_files, 0.0
        self._forget_orphans()
        self._forget_copies()

    def below(self, name: str) -> Artifacts:
        """A store of its own in this one: what is in it shares no key with what is outside, so its owner may delete."""
        return Artifacts(f"{self._url}/{name}", cache=None if self._is_local else self._here / name)

    def put(self, source: Path | bytes | BinaryIO, *, suffix: str = "") -> str:
        """Store ``source`` and give its key; storing the same bytes again changes nothing.

        Raises: ValueError if ``suffix`` is not like ``.mp4`` or ``.tar.gz``.
        """
        if _SUFFIX.fullmatch(suffix) is None:
            raise ValueError(f"{suffix!r} is no suffix: use lower-case letters and digits, such as '.mp4'.")
        with self._written_aside(source) as (aside, digest):
            key = f"{digest[:2]}/{digest}{suffix}"
            if not self.exists(key):
                if not self._is_local:
                    with self._reaching(key):
                        # An object store shows an object only when its upload is complete: nothing to rename.
                        self._fs.put_file(aside, self._path(key))
                self._rename_durably(aside, key)
                self._forget_copies()
        return key

    def open(self, key: str) -> BinaryIO:
        """Raises: NotFound."""
        with self._reaching(key):
            return cast("BinaryIO", self._fs.open(self._path(key), "rb"))

    def local_path(self, key: str) -> Path:
        """A path on this machine; a remote artifact is fetched once, checked against its address and kept.

        Treat the file as read-only: it is the artifact, not a copy of it. Raises: NotFound.
        """
        path = self._here / _checked(key)
        if self._is_local:
            if not path.exists():
                raise _not_found(key)
            return path
        with suppress(FileNotFoundError):
            os.utime(path)  # in use, from now on
            return path
        with self.open(key) as remote, self._written_aside(remote) as (aside, digest):
            if digest != path.name.split(".", 1)[0]:
                raise OSError(f"Artifact {key} arrived damaged: its bytes hash to {digest}.")
            self._rename_durably(aside, key)
        self._forget_copies()
        return path

    def exists(self, key: str) -> bool:
        if _KEY.fullmatch(key) is None:
            return False
        if self._is_local:
            return os.path.isfile(f"{self._root}/{key}")  # noqa: PTH113 - asked for every picture of a batch, and a Path costs more
        with self._reaching(key):  # not isfile(): that takes a store which does not answer for one without the file
            try:
                return bool(self._fs.info(self._path(key))["type"] == "file")
            except FileNotFoundError:
                return False

    def size_bytes(self, key: str) -> int:
        """Raises: NotFound."""
        with self._reaching(key):
            return int(self._fs.size(self._path(key)))

    def delete(self, key: str) -> None:
        """Forget an artifact; one that is not there is no error. Equal contents share a key: ask who else uses it."""
        (self._here / _checked(key)).unlink(missing_ok=True)
        if not self._is_local and self.exists(key):
            with self._reaching(key):
                self._fs.rm_file(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._root}/{_checked(key)}"

    @contextmanager
    def _reaching(self, key: str) -> Iterator[None]:
        """What goes wrong between here and the store, as problems; a folder's failures are real errors."""
        try:
            yield
        except FileNotFoundError as error:
            raise _not_found(key) from error
        except Exception as error:
            if self._is_local or isinstance(error, Problem):
                raise
            raise Unavailable("The artifact store cannot be reached.", retry_after_s=5) from error

    def _forget_orphans(self) -> None:
        """Delete what processes left aside that died while writing."""
        for aside in self._incoming.glob("*"):
            with suppress(FileNotFoundError):  # another process is tidying too
                if time.time() - aside.stat().st_mtime > _ORPHAN_AFTER_S:
                    aside.unlink()

    def _forget_copies(self) -> None:
        """Keep the cache within its bound. Elsewhere an artifact may have been erased: no copy of it stays for more than a day."""
        if self._is_local or time.monotonic() < self._tidy_after_s:
            return
        self._tidy_after_s = time.monotonic() + _TIDY_EVERY_S
        now_s, held = time.time(), []
        for path in self._here.glob("??/*"):
            with suppress(FileNotFoundError):  # another process is tidying too
                found = path.stat()
                held.append((found.st_mtime, found.st_size, path))
        total_bytes, left = sum(size for _, size, _ in held), len(held)
        for used_s, size, path in sorted(held):
            unused_s = now_s - used_s
            too_much = total_bytes > self._cache_bytes or left > self._cache_files
            if unused_s > _UNUSED_AFTER_S or (unused_s > _IN_USE_S and too_much):
                path.unlink(missing_ok=True)
                total_bytes, left = total_bytes - size, left - 1

    @contextmanager
    def _written_aside(self, source: Path | bytes | BinaryIO) -> Iterator[tuple[str, str]]:
        """Copy ``source`` to a temporary name on the disk where it will stay; its path and sha256."""
        aside = f"{self._incoming}/{secrets.token_hex(16)}"  # twice for every picture of a batch, and a Path costs more
        digest = hashlib.sha256()
        try:
            with _opened(source) as reader, self._new_file(aside) as writer:
                while chunk := reader.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    writer.write(chunk)
                writer.flush()
                os.fsync(writer.fileno())
            yield aside, digest.hexdigest()
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise Unavailable("There is no space left for artifacts; ask the operator to make some.") from error
            raise
        finally:
            with suppress(FileNotFoundError):  # it was renamed
                os.unlink(aside)  # noqa: PTH108

    def _new_file(self, aside: str) -> BinaryIO:
        try:
            return open(aside, "xb")  # noqa: PTH123 - the caller closes it
        except FileNotFoundError:
            self._incoming.mkdir(parents=True, exist_ok=True)
            return open(aside, "xb")  # noqa: PTH123

    def _rename_durably(self, aside: str, key: str) -> None:
        folder = f"{self._here}/{key[:2]}"
        path = f"{self._here}/{key}"
        try:
            os.replace(aside, path)  # noqa: PTH105
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
            os.replace(aside, path)  # noqa: PTH105
            self._durable.discard(folder)
        flush_folder(folder)
        if folder not in self._durable:
            flush_folder(self._here)
            self._durable.add(folder)


def _checked(key: str) -> str:
    """``key`` if it is one of ours: it then holds no ``..``, no second slash and no surprise."""
    if _KEY.fullmatch(key) is None:
        raise _not_found(key)
    return key


def _not_found(key: str) -> NotFound:
    return NotFound(f"There is no artifact {key[:100]!r}.")


@contextmanager
def _opened(source: Path | bytes | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, Path):
        with open(source, "rb", buffering=0) as reader:  # noqa: PTH123
            yield cast("BinaryIO", reader)
    else:
        yield io.BytesIO(source) if isinstance(source, bytes) else source


def _private_folder(name: str) -> Path:
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else.")
    return folder


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
