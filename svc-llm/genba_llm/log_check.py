"""Walk the audit log for whoever asks whether it holds: in a thread of its own and one walk at a time, however many ask.

A walk takes a second for 100,000 entries and grows with the log, so a request may wait for it or take what the last one found.
Knows no route.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime

from genba_shared.audit import AuditReport
from genba_shared.db import utc_now


@dataclass(frozen=True)
class Checked:
    """What a walk found that began at ``at``."""

    at: datetime
    report: AuditReport


class LogCheck:
    """``verify`` walks the whole log."""

    def __init__(self, verify: Callable[[], AuditReport]) -> None:
        self._verify = verify
        self._lock = threading.Lock()
        self._next: Future[Checked] | None = None
        self._walking = False
        self._last: Checked | None = None

    def ask(self) -> Future[Checked]:
        """A walk that begins no earlier than now; those who ask while another one goes on share the next."""
        with self._lock:
            if self._next is None:
                self._next = Future()
            if not self._walking:
                self._walking = True
                threading.Thread(target=self._walk, name="audit-check", daemon=True).start()
            return self._next

    def within(self, seconds: float) -> Checked | None:
        """What a walk from now on finds, or the last one if that takes longer; None where there was none yet.

        Raises: what the walk raised.
        """
        try:
            return self.ask().result(seconds)
        except TimeoutError:
            return self._last

    def _walk(self) -> None:
        while True:
            with self._lock:
                asked, self._next = self._next, None
                if asked is None:
                    self._walking = False
                    return
            try:
                self._last = found = Checked(utc_now(), self._verify())
            except BaseException as error:  # noqa: BLE001 - whoever waits must be told, whatever it was
                asked.set_exception(error)
            else:
                asked.set_result(found)
