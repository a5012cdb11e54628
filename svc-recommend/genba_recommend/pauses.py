"""Keep the garbage collector from stopping lists. A full collection looks at every object that may be part of a cycle: with 50,000
items and their users in memory it holds the whole process for a tenth of a second and more, whatever thread it began in.

What stays for long is therefore frozen: set aside, so that collections look only at what came since. Frozen objects still go when
nothing refers to them any more; only cycles wait, until everything is looked at once an hour.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

EVERYTHING_EVERY_S: Final = 3600.0
FREEZE_AFTER: Final = 500  # users or items more than at the last time


class Pauses:
    """Whoever follows calls ``look`` now and then, and after the first time whenever it likes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held = 0
        self._everything_s: float | None = None

    def look(self, held: int) -> None:
        """Freeze what has come, if it is much. held: users and items in memory."""
        now_s = self._clock()
        if self._everything_s is None or now_s - self._everything_s > EVERYTHING_EVERY_S:
            gc.unfreeze()
            gc.collect()
            self._everything_s = now_s
        elif held - self._held < FREEZE_AFTER:
            self._held = min(held, self._held)
            return
        else:
            gc.collect(1)  # what is young and in a cycle need not wait for the hour
        gc.freeze()
        self._held = held
