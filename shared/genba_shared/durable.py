"""What survives a power cut: a new name in a folder does once the folder itself is on the disk."""

from __future__ import annotations

import os
from pathlib import Path


def flush_folder(folder: Path | str) -> None:
    """Wait until the names in ``folder`` are on the disk. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
