"""How long the threads of a process were ready and had to wait for a core: what a clock says beyond the work, on a machine that others
use too. Linux tells it (``/proc/PID/task/TID/schedstat``, the second number); threads that have ended are not in it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def waited_s(pid: int) -> float:
    """Seconds over all living threads; nan where the kernel does not tell."""
    total_ns, told = 0, False
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError, IndexError, ValueError):  # a thread may end while it is read
            total_ns += int(task.read_text().split()[1])
            told = True
    return total_ns / 1e9 if told else float("nan")
