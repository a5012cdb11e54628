"""One attempt's line to the job table: a thread that keeps the lease, carries words out and brings the order to stop in.

The recipe's thread only ever touches memory here, so that a slow database never slows the work. Knows no recipe.
"""

from __future__ import annotations

import faulthandler
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import orjson

from genba_shared.jobs import Job, Jobs, NewEvent
from genba_shared.recipe import Cancelled, Drained, LeaseLost, Level, Stopped, TimedOut
from genba_shared.telemetry import get_logger

_MAX_BUFFERED_EVENTS = 5000
_MAX_TEXT_CHARS = 2000

log = get_logger(__name__)


def json_safe(value: Any) -> Any:
    """``value`` as every database takes it: NaN and infinities are null, numpy numbers are numbers, no NUL in texts.

    Raises: TypeError for what has no JSON form.
    """
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return orjson.loads(text.replace(b"\\u0000", b"\\ufffd"))


class Watchdog(Protocol):
    """Ends the process when nobody says for a while that it lives."""

    def alive(self) -> None: ...
    def rest(self) -> None: ...


class NoWatchdog:
    """For runs in a process that must not end: tests, shells."""

    def alive(self) -> None:
        pass

    def rest(self) -> None:
        pass


@dataclass(frozen=True)
class ProcessWatchdog:
    """A thread of the C runtime that needs no GIL: native code that never gives it back cannot stop it either.

    The lease of such an attempt runs out and its job goes on elsewhere; this gives the worker its process back, and
    leaves the tracebacks of all threads in the log.
    """

    silence_s: float

    def alive(self) -> None:
        faulthandler.dump_traceback_later(self.silence_s, exit=True)

    def rest(self) -> None:
        faulthandler.cancel_dump_traceback_later()


class Heartbeat:
    """Reports for a run (it is a ``Reporter``) and watches over it.

    ``too_late(reason)`` is called when the attempt was told to stop and has not within ``stop_grace_s``: it ends the
    process. When the database cannot be reached for as long as the lease, the attempt counts itself out.
    """

    def __init__(
        self,
        jobs: Jobs,
        claim: Job,
        *,
        lease_s: float,
        every_s: float,
        stop_grace_s: float,
        drain_wait_s: float,
        time_limit_s: float,
        draining: Callable[[], bool],
        watchdog: Watchdog,
        too_late: Callable[[Stopped], None],
    ) -> None:
        self._jobs, self._claim = jobs, claim
        self._lease_s, self._every_s, self._stop_grace_s = lease_s, every_s, stop_grace_s
        self._drain_wait_s, self._draining_since_s = drain_wait_s, math.inf
        self._draining, self._watchdog, self._too_late = draining, watchdog, too_late
        self._lock = threading.Lock()
        self._beating = threading.Lock()  # what a beat has taken is written, or put back, before anybody takes more
        self._events: list[NewEvent] = []
        self._dropped = 0
        self._progress: tuple[float, str] | None = None
        self._reason: Stopped | None = None
        self._stopping_since_s = 0.0
        self._over = threading.Event()
        now_s = time.monotonic()
        self._deadline_s = now_s + time_limit_s
        self._lease_until_s = now_s + lease_s
        self._thread = threading.Thread(target=self._beat_until_over, name=f"heartbeat-{claim.id}", daemon=True)

    def __enter__(self) -> Self:
        self._watchdog.alive()
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()
        self._watchdog.rest()

    # ---- Reporter: called by the recipe's thread ----

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._say(NewEvent("metrics", {"step": step, "values": json_safe(dict(values))}))

    def line(self, level: Level, message: str) -> None:
        self._say(NewEvent("line", {"level": level, "message": _text(message)}))

    def progress(self, fraction: float, message: str) -> None:
        with self._lock:
            self._progress = (fraction, _text(message))

    def stop_reason(self) -> Stopped | None:
        return self._reason

    # ---- the runner ----

    def take_events(self) -> list[NewEvent]:
        """What has been said and not yet written; the caller writes it with its own transition.

        Waits for a beat on its way: after that transition the beat's own events would be refused, and lost.
        """
        with self._beating:
            return self._take()

    def _take(self) -> list[NewEvent]:
        with self._lock:
            events, self._events = self._events, []
            if self._progress is not None:
                events.append(NewEvent("progress", {"fraction": self._progress[0], "message": self._progress[1]}))
                self._progress = None
            if self._dropped:
                said = f"{self._dropped} events were dropped: more than {_MAX_BUFFERED_EVENTS} between two heartbeats."
                events.append(NewEvent("line", {"level": "warning", "message": said}))
                self._dropped = 0
            return events

    def put_back(self, events: Sequence[NewEvent]) -> None:
        """Events that were taken and could not be written."""
        with self._lock:
            self._events[:0] = events

    # ---- the heartbeat's thread ----

    def _beat_until_over(self) -> None:
        while not self._over.wait(self._every_s):
            self._watchdog.alive()
            try:
                self._beat()
            except Exception as error:  # noqa: BLE001 - a database that is away must not end the watch
                log.warning("heartbeat_failed", job=self._claim.id, error=type(error).__name__)
                if time.monotonic() >= self._lease_until_s:
                    self._stop(LeaseLost("The database could not be reached for as long as the lease."))
            now_s = time.monotonic()
            if now_s >= self._deadline_s:
                self._stop(TimedOut("The attempt ran longer than its recipe allows."))
            if self._drained(now_s):
                self._stop(Drained("The worker is shutting down."))
            if self._reason is not None and now_s >= self._stopping_since_s + self._stop_grace_s:
                self._too_late(self._reason)
                return

    def _drained(self, now_s: float) -> bool:
        """Whether the worker shuts down and the job has had its time to finish by itself."""
        if not self._draining():
            return False
        self._draining_since_s = min(self._draining_since_s, now_s)
        return now_s >= self._draining_since_s + self._drain_wait_s

    def _beat(self) -> None:
        if isinstance(self._reason, LeaseLost):
            return
        with self._beating:
            events = self._take()
            started_s = time.monotonic()
            try:
                answer = self._jobs.heartbeat(self._claim, events, lease_s=self._lease_s)
            except BaseException:
                self.put_back(events)
                raise
        self._lease_until_s = started_s + self._lease_s
        if answer == "fenced":
            self._stop(LeaseLost("Another attempt owns the job."))
        elif answer == "cancel":
            self._stop(Cancelled("The job was cancelled."))

    def _stop(self, reason: Stopped) -> None:
        """The first reason stands, except that nothing else matters once the lease is lost."""
        if self._reason is None:
            self._stopping_since_s = time.monotonic()
        elif isinstance(self._reason, LeaseLost) or not isinstance(reason, LeaseLost):
            return
        self._reason = reason
        log.info("attempt_stopping", job=self._claim.id, attempt=self._claim.attempt, reason=type(reason).__name__)

    def _say(self, event: NewEvent) -> None:
        with self._lock:
            if len(self._events) < _MAX_BUFFERED_EVENTS:
                self._events.append(event)
            else:
                self._dropped += 1


def _text(message: str) -> str:
    printable = message.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    return printable if len(printable) <= _MAX_TEXT_CHARS else printable[: _MAX_TEXT_CHARS - 1] + "…"
