"""Where uploads of this process land: a folder that it holds by a lock, so that what a killed one left is told from what is in work."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from genba_shared.telemetry import get_logger

log = get_logger(__name__)

_UNCLAIMED_S = 24 * 3600.0  # older releases locked nothing: what is this old is in nobody's hand


@contextlib.contextmanager
def open_spool(home: Path, name: str) -> Iterator[Path]:
    """A folder below ``home``/spool for one process's uploads, gone afterwards. What processes that are gone left there goes first.

    The kernel drops a lock with its process, however that ends; a folder that can be locked therefore has no owner.
    What older releases left lies there without one, and goes after a day.
    """
    parent = home / "spool"
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent, name)
    folder, held = _held_folder(parent, name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _held_folder(parent: Path, name: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{name}-"))
        with contextlib.suppress(FileNotFoundError):  # another process swept it before it was locked
            held = os.open(folder, os.O_RDONLY)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if folder.exists():
                    return folder, held
            os.close(held)


def _sweep(parent: Path, name: str) -> None:
    for left in parent.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if not left.name.startswith(f"{name}-") and time.time() - left.stat().st_mtime < _UNCLAIMED_S:
                continue
            found = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                count = _remove(left)
                log.info("spool_swept", service=name, left=left.name, uploads=count)
            except BlockingIOError:
                pass  # its process lives
            finally:
                os.close(found)


def _remove(left: Path) -> int:
    """How many uploads went."""
    if not left.is_dir():
        left.unlink()
        return 1
    count = sum(1 for _ in left.iterdir())
    shutil.rmtree(left)
    return count
