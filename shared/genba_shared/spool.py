"""Where uploads of this process land: a folder that it holds by a lock, so that what a killed one left is told from what is in work."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from genba_shared.telemetry import get_logger

log = get_logger(__name__)


@contextlib.contextmanager
def open_spool(home: Path, name: str) -> Iterator[Path]:
    """A folder below ``home``/spool for one process's uploads, gone afterwards. What processes that are gone left there goes first.

    The kernel drops a lock with its process, however that ends; a folder that can be locked therefore has no owner.
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
    for left in parent.glob(f"{name}-*"):
        with contextlib.suppress(FileNotFoundError):
            found = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                count = sum(1 for _ in left.iterdir())
                shutil.rmtree(left)
                log.info("spool_swept", service=name, uploads=count)
            except BlockingIOError:
                pass  # its process lives
            finally:
                os.close(found)
