"""Upkeep of a service: a thread that does one thing every so often, whatever became of it the last time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from genba_shared.telemetry import get_logger

log = get_logger(__name__)


class Repeated:
    """Runs ``work`` every ``every_s`` seconds until it is told to stop; ``at_once``: the first time without waiting.

    A failure is logged, and the next round comes all the same.
    """

    def __init__(self, name: str, every_s: float, work: Callable[[], object], *, at_once: bool = False) -> None:
        self._every_s, self._work, self._at_once = every_s, work, at_once
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let a round that runs end, and begin no other."""
        self._over.set()
        self._thread.join()

    def _loop(self) -> None:
        if self._at_once:
            self._try()
        while not self._over.wait(self._every_s):
            self._try()

    def _try(self) -> None:
        try:
            self._work()
        except Exception:
            log.exception("repeated_work_failed", work=self._thread.name)
