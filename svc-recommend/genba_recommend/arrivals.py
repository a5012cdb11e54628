"""Rows that only ever come after others, each taken once: which of them are new to this process.

On Postgres a transaction that is slow may bring a row with a lower number than rows that are there already. So the numbers of a
moment stay remembered, and nothing is passed over until it has had time to appear. Knows no table.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, KeysView
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

OVERLAP_S: Final = 5.0


class Arrivals:
    """low: the number up to which all is taken.   taken: numbers beyond it that are taken as well."""

    def __init__(self, low: int = 0) -> None:
        self.low = low
        self._taken: OrderedDict[int, float] = OrderedDict()  # number → when it was taken, monotonic

    @property
    def taken(self) -> KeysView[int]:
        return self._taken.keys()

    def new(self, numbers: Iterable[int]) -> Collection[int]:
        """Those that are not taken yet."""
        return {number for number in numbers if number not in self._taken}

    def take(self, numbers: Iterable[int]) -> None:
        """Remember them."""
        now_s = time.monotonic()
        self._taken.update((number, now_s) for number in numbers)

    def settle(self, overlap_s: float) -> None:
        """Pass over what was taken so long ago that nothing with a lower number can appear any more."""
        now_s = time.monotonic()
        while self._taken:
            number, taken_s = next(iter(self._taken.items()))
            if now_s - taken_s < overlap_s:
                break
            self._taken.popitem(last=False)
            self.low = max(self.low, number)


def overlap_s(session: Session) -> float:
    """For how long rows may appear after later ones: SQLite has one writer at a time."""
    return 0.0 if session.get_bind().dialect.name == "sqlite" else OVERLAP_S


def settled_before(session: Session) -> datetime | None:
    """The moment before which all rows of that time have appeared; None where that is now."""
    seconds = overlap_s(session)
    return datetime.now(UTC) - timedelta(seconds=seconds) if seconds else None
