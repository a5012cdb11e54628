"""How a worker shows on its host that it takes jobs: a file that it keeps touching. Loads no worker, so that a supervisor need not."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from genba_shared.settings import Platform

_STALE_S = 30.0


def is_ready(platform: Platform) -> bool:
    """Whether a worker of this home has said lately that it takes jobs; for a supervisor or a probe on the same host."""
    return any(is_fresh(file) for file in folder(platform).glob("worker-*.ready"))


def is_fresh(file: Path) -> bool:
    """Whether ``worker-<pid>.*`` was touched lately, by a process that lives."""
    try:
        return time.time() - file.stat().st_mtime < _STALE_S and psutil.pid_exists(int(file.stem.split("-")[1]))
    except (FileNotFoundError, ValueError):
        return False


def folder(platform: Platform) -> Path:
    """Where the workers of a home leave such files."""
    return platform.home / "run"
