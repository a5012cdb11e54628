"""What operators watch of svc-sem: what is decided, what waits and why. Figures of the queue come from the table."""

from __future__ import annotations

from collections import Counter
from typing import Final

from scipy.special import bdtrc
from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from genba_sem import labels, reviews
from genba_sem.deciding import Policy
from genba_sem.settings import Settings
from genba_sem.tables import ParticleRow, PolicyRow, ReviewRow
from genba_sem.words import REASONS, STATUSES
from genba_shared.db import Database
from genba_shared.telemetry import Metrics

_MOST_AUDITS: Final = 500  # of each tenant, the newest
_RISK: Final = 0.05  # of calling a promise broken that is kept
_MOST_ROWS: Final = 20_000  # of the queue, read for its reasons; beyond it the shares are those of the most urgent


class Watch:
    """The service's own metrics."""

    def __init__(self, metrics: Metrics, settings: Settings) -> None:
        self._settings = settings
        self._decided = metrics.counter("particles", "Particles taken, by what they were held for.", labels=["status"])
        self._held = metrics.gauge("particles_held", "Particles in the table, by status.", labels=["status"])
        self._queue = metrics.gauge("queue_particles", "Particles that wait for a reviewer.")
        self._why = metrics.gauge("queue_reasons", "Particles that wait for a reviewer, by reason.", labels=["reason"])
        self._reviews = metrics.gauge("reviews", "Words of reviewers in the table, by source.", labels=["source"])

        self._audited = metrics.gauge(
            "audited",
            "Newest automatic confirmations that a reviewer looked at, by what was found.",
            labels=["outcome"],
        )
        self._broken = metrics.gauge(
            "promises_broken", "Tenants whose audits say that more is confirmed wrongly than promised."
        )

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
            self._look_at_audits(session)
        for status in STATUSES:
            self._held.labels(status).set(held[status])
        for code in REASONS:
            self._why.labels(code).set(why[code])
        for source, count in reviews.items():
            self._reviews.labels(source).set(count)

    def _look_at_audits(self, session: Session) -> None:
        right = wrong = broken = 0
        for tenant in session.scalars(select(ReviewRow.tenant).distinct()):
            found = _audits(session, tenant)
            policy = session.get(PolicyRow, tenant) or Policy(precision=self._settings.precision)
            right, wrong = right + found.count(True), wrong + found.count(False)
            broken += breaks(found.count(False), len(found), policy.precision)
        self._audited.labels("right").set(right)
        self._audited.labels("wrong").set(wrong)
        self._broken.set(broken)


def breaks(wrong: int, audits: int, precision: float) -> bool:
    """Whether so many errors among audits drawn at random would be a chance below ``_RISK`` if the precision were kept."""
    return bool(bdtrc(wrong - 1, audits, 1 - precision) < _RISK)


def _audits(session: Session, tenant: str) -> list[bool]:
    """Whether a reviewer agreed, for the tenant's newest audits."""
    book = labels.book(session, tenant)
    query = select(ReviewRow.label_id, ReviewRow.was_label_id).where(
        ReviewRow.tenant == tenant, reviews.has_reason(session, "random_audit", of=ReviewRow.reasons)
    )
    rows = session.execute(query.order_by(ReviewRow.id.desc()).limit(_MOST_AUDITS))
    return [reviews.now_id(book, row.label_id) == reviews.now_id(book, row.was_label_id) for row in rows]


def _counts(session: Session, column: InstrumentedAttribute[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for value, count in session.execute(select(column, func.count()).group_by(column)):
        found[value] = count
    return found
