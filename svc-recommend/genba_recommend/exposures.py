"""Shown lists on their way to the database: kept for a moment and written together, because a list must not wait for a disk.

A process that is killed loses the lists of its last moment, and nothing else. Knows no ranking and no HTTP.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genba_recommend import store
from genba_shared.db import Database
from genba_shared.telemetry import get_logger

log = get_logger(__name__)
BATCH = 500


class ExposureLog:
    """A queue that whoever follows empties now and then."""

    def __init__(self, database: Database, *, most: int, on_drop: Callable[[], None] = lambda: None) -> None:
        self._database, self._most = database, most
        self.on_drop = on_drop
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._writing = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= self._most

    def add(self, row: Mapping[str, Any]) -> None:
        """Note a list; with no room left it is dropped and counted."""
        if self.is_full:
            self.on_drop()
        else:
            self._waiting.append(row)

    def flush(self) -> int:
        """Write what waits. What cannot be written waits on. Returns: how many were written."""
        done = 0
        with self._writing:
            while self._waiting:
                batch: Sequence[Mapping[str, Any]] = [
                    self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))
                ]
                try:
                    with self._database.transaction() as session:
                        store.add_exposures(session, batch)
                except BaseException:
                    self._waiting.extendleft(reversed(batch))
                    raise
                done += len(batch)
        return done
