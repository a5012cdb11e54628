"""What operators watch of svc-sem: what is decided, what waits and why. Figures of the queue come from the table."""

from __future__ import annotations

from collections import Counter
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from genba_sem.tables import ParticleRow, ReviewRow
from genba_sem.words import REASONS, STATUSES
from genba_shared.db import Database
from genba_shared.telemetry import Metrics

_MOST_ROWS: Final = 20_000  # of the queue, read for its reasons; beyond it the shares are those of the most urgent


class Watch:
    """The service's own metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._decided = metrics.counter("particles", "Particles taken, by what they were held for.", labels=["status"])
        self._held = metrics.gauge("particles_held", "Particles in the table, by status.", labels=["status"])
        self._queue = metrics.gauge("queue_particles", "Particles that wait for a reviewer.")
        self._why = metrics.gauge("queue_reasons", "Particles that wait for a reviewer, by reason.", labels=["reason"])
        self._reviews = metrics.gauge("reviews", "Words of reviewers in the table, by source.", labels=["source"])

    def decided(self, status: str) -> None:
        """Count a particle that was taken."""
        self._decided.labels(status).inc()

    def look(self, database: Database) -> None:
        """Read the figures of queue and table anew."""
        with database.read() as session:
            held = _counts(session, ParticleRow.status)
            reviews = _counts(session, ReviewRow.source)
            waits = select(func.count()).select_from(ParticleRow).where(ParticleRow.in_queue)
            self._queue.set(session.scalar(waits) or 0)
            urgent = select(ParticleRow.reasons).where(ParticleRow.in_queue).order_by(ParticleRow.priority.desc())
            why = Counter(code for reasons in session.scalars(urgent.limit(_MOST_ROWS)) for code in reasons)
        for status in STATUSES:
            self._held.labels(status).set(held[status])
        for code in REASONS:
            self._why.labels(code).set(why[code])
        for source, count in reviews.items():
            self._reviews.labels(source).set(count)


def _counts(session: Session, column: InstrumentedAttribute[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for value, count in session.execute(select(column, func.count()).group_by(column)):
        found[value] = count
    return found
