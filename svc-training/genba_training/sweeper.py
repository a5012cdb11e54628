"""The thread that keeps the queue true: it ends leases that ran out, sends the wake-ups that got lost, and fires schedules.

Outbox and reaper in one. It runs in every API process and works in the one that leads; a process that dies loses the
lead with its lease. Decides nothing itself: the table's transitions are ``Upkeep``'s, sending is ``Wakeups``', due
times are ``Schedules``'.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from genba_shared.idempotency import Idempotency
from genba_shared.job_rows import NO_LIMITS
from genba_shared.job_upkeep import Upkeep
from genba_shared.queue import QUEUES
from genba_shared.telemetry import get_logger

DUTY = "job-sweeper"
LEAD_LEASE_S = 15.0
_LOST_AFTER_S = 10.0  # a queue without messages but with waiting jobs is told about them this often
_HOUSEKEEPING_S = 3600.0
_BATCH = 200

log = get_logger(__name__)


class Sender(Protocol):
    """What the sweeper needs of the queue; ``genba_shared.queue.Wakeups`` is one."""

    def send(self, job_id: str, queue: str) -> bool: ...
    def waiting(self) -> dict[str, int]: ...


class Sweeper:
    """Sweeps every ``every_s`` while it leads.

    ``limits`` are the recipes of which only so many jobs run at a time; ``fire_due`` makes the jobs of due schedules;
    ``chores`` are done once an hour.
    """

    def __init__(
        self,
        upkeep: Upkeep,
        sender: Sender,
        *,
        owner: str,
        every_s: float,
        keep_jobs: timedelta,
        limits: Mapping[str, int] = NO_LIMITS,
        fire_due: Callable[[], object] = lambda: None,
        chores: Sequence[Callable[[], object]] = (),
    ) -> None:
        self._upkeep, self._sender = upkeep, sender
        self._chores = chores
        self._limits, self._fire_due = limits, fire_due
        self._owner, self._every_s, self._keep_jobs = owner, every_s, keep_jobs
        self._leads_until_s = 0.0
        self._empty_checked_s = self._housekept_s = float("-inf")
        self._swept_s = time.monotonic()
        self.expired_leases = 0  # found by this process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sweep_until_over, name="job-sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and let another process lead at once."""
        self._over.set()
        self._thread.join()
        self._leads_until_s = 0.0
        try:
            self._upkeep.resign(DUTY, owner=self._owner)
        except Exception as error:  # noqa: BLE001 - the database may be gone already; the lease runs out by itself
            log.warning("sweeper_resign_failed", error=type(error).__name__)

    @property
    def leads(self) -> bool:
        """Whether this process keeps the queue; among all of an installation one should."""
        return time.monotonic() < self._leads_until_s

    def unwell(self) -> str | None:
        """For readiness: why jobs may not be moving."""
        silent_s = time.monotonic() - self._swept_s
        return f"has not swept for {silent_s:.0f} s" if silent_s > max(30.0, 10 * self._every_s) else None

    def sweep(self) -> None:
        """One round, if this process leads."""
        now_s = time.monotonic()
        if now_s > self._leads_until_s - LEAD_LEASE_S / 2:
            leads = self._upkeep.lead(DUTY, owner=self._owner, lease_s=LEAD_LEASE_S)
            self._leads_until_s = now_s + LEAD_LEASE_S if leads else 0.0
        if now_s < self._leads_until_s:
            for job in self._upkeep.expire_leases():
                self.expired_leases += 1
                log.warning("lease_expired", job=job.id, recipe=job.recipe, attempt=job.attempt, now=job.status)
            self._fire_due()
            self._send(self._upkeep.unpublished(limit=_BATCH, limits=self._limits))
            self._send_what_an_empty_broker_lost(now_s)
            self._keep_house(now_s)
        self._swept_s = now_s

    def _send(self, due: list[tuple[str, str]]) -> None:
        sent = []
        for job_id, queue in due:
            if not self._sender.send(job_id, queue):
                break  # the broker is down: next round
            sent.append(job_id)
        if sent:
            self._upkeep.published(sent)

    def _send_what_an_empty_broker_lost(self, now_s: float) -> None:
        """Republishing backs off, so that a long queue is not sent over and over; a broker that lost all need not wait."""
        if now_s < self._empty_checked_s + _LOST_AFTER_S:
            return
        self._empty_checked_s = now_s
        empty = {queue for queue, messages in self._sender.waiting().items() if messages == 0}
        if empty & set(QUEUES):
            due = self._upkeep.unpublished(limit=_BATCH, every=True, limits=self._limits)
            self._send([(job_id, queue) for job_id, queue in due if queue in empty])

    def _keep_house(self, now_s: float) -> None:
        if now_s < self._housekept_s + _HOUSEKEEPING_S:
            return
        self._housekept_s = now_s
        Idempotency(self._upkeep.database).purge()
        while self._upkeep.prune(older_than=self._keep_jobs) and not self._over.is_set():
            pass
        for chore in self._chores:
            chore()

    def _sweep_until_over(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                self.sweep()
            except Exception as error:  # noqa: BLE001 - a database that is away must not end the thread
                log.warning("sweep_failed", error=type(error).__name__, detail=str(error)[:200])
