"""How often items were shown, told between processes through a table: what one lists often is no discovery on another, nor after
a restart.

What waits to be told is kept for a while and added up, because a list must not wait for a disk; a process that is killed takes the
last half a minute with it. Knows no ranking and no HTTP.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Final

from genba_recommend import store
from genba_recommend.catalogue import Shelf
from genba_recommend.discovering import HALF_LIFE_DAYS, Seldom
from genba_shared.db import Database

EVERY_S: Final = 30.0
LATE: Final = timedelta(
    minutes=2
)  # clocks of hosts differ, and a row may appear after later ones; to read one twice does no harm
KEPT: Final = timedelta(days=10 * HALF_LIFE_DAYS)


class Showing:
    """One tenant's counts of one process. One caller at a time."""

    def __init__(self, tenant: str, database: Database, seldom: Seldom) -> None:
        self._tenant, self._database, self._seldom = tenant, database, seldom
        self._read_at: datetime | None = None
        self._exchanged_s = -EVERY_S

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._exchanged_s >= EVERY_S

    def exchange(self, shelf: Shelf) -> None:
        """Write what was shown here and read what was shown elsewhere. What cannot be written waits on."""
        self._exchanged_s = time.monotonic()
        told = self._seldom.tell()
        try:
            if told:
                with self._database.transaction() as session:
                    store.add_shown(session, self._tenant, {shelf.ids[row]: by for row, by in told.items()})
        except BaseException:
            self._seldom.untell(told)
            raise
        since, self._read_at = self._read_at, store.now()
        with self._database.read() as session:
            found = store.shown(session, self._tenant, since=None if since is None else since - LATE)
        rows = {shelf.row(item_id): times for item_id, times in found.items()}
        self._seldom.learn({row: times for row, times in rows.items() if row is not None})
