"""The queue and what reviewers say. A word is only ever added; what the particle is held for follows from the latest of each reviewer.

One reviewer settles most particles. At the boundary of two labels, and wherever reviewers have disagreed, as many as the settings
ask for must agree. Particles that were drawn by their id, whatever their confidence, calibrate the lane. Knows no HTTP.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, cast, func, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import InstrumentedAttribute, Session

from genba_sem import labels
from genba_sem.labels import LabelBook
from genba_sem.tables import DecisionRow, ParticleRow, ReviewRow
from genba_shared import records
from genba_shared.db import utc_now
from genba_shared.ids import new_id
from genba_shared.principal import Principal
from genba_shared.problems import VersionConflict

DRAWN: Final = frozenset({"random_audit", "calibration_sample"})  # whatever their confidence
_CONTESTED: Final = frozenset({"boundary", "disagreement", "second_opinion"})
NEXT_BATCH: Final = "next_batch"
ASKED: Final = frozenset(
    {"requested", "label_suspect", NEXT_BATCH, *(_CONTESTED - {"boundary"})}
)  # whoever decides again
_PRIORITY: Final[Mapping[str, float]] = {
    "calibration_sample": 2.0,  # and the particle's own share: an order that no confidence had a hand in
    "random_audit": 1.5,
    "disagreement": 1.2,
    "second_opinion": 1.2,
    "requested": 1.1,
    "unreadable": 1.0,
    "label_split": 0.5,
}
NEXT_BATCH_PRIORITY: Final = (1.09, 1.01)  # from the first of the choice to the last


def priority_of(reasons: Iterable[str], confidence: float | None, particle_id: str) -> float:
    """What comes first in the queue: what calibrates, audits, what people want; then what is doubtful."""
    given = {code: _PRIORITY[code] for code in reasons if code in _PRIORITY}
    if not given:
        return 1.0 - (confidence or 0.0)
    return max(given.values()) + (share_of(particle_id) if "calibration_sample" in given else 0.0)


def share_of(particle_id: str) -> float:
    """A number in [0, 1) that is the particle's own, for ever: draws by it do not change when they are repeated."""
    return int.from_bytes(hashlib.sha256(f"sample {particle_id}".encode()).digest()[:8]) / 2**64


@dataclass(frozen=True)
class Said:
    """A reviewer's word. ``label_id`` None: none of the labels fits."""

    label_id: str | None
    note: str = ""
    seconds: float | None = None
    bundle_id: str | None = None
    source: str = "api"


def say(
    session: Session,
    principal: Principal,
    row: ParticleRow,
    said: Said,
    *,
    book: LabelBook,
    reviewers_needed: int,
    expected: int | None = None,
    reviewer: str | None = None,
) -> ReviewRow:
    """Add a word to a particle that is locked by the caller, and settle the particle or keep it in the queue.

    Raises: VersionConflict; LabelNotActive for a label that it cannot be given.
    """
    if expected is not None and expected != row.version:
        raise VersionConflict(
            f"Particle {row.id} is at version {row.version}, not {expected}: somebody was quicker. Read it again.",
            current_version=row.version,
        )
    label_id = None if said.label_id is None else labels.given(book, said.label_id, clearance=row.clearance).id
    moment, reviewer = utc_now(), reviewer or principal.subject
    review = ReviewRow(
        id=new_id("rev"), particle_id=row.id, tenant=row.tenant, reviewer=reviewer, label_id=label_id,
        was_label_id=row.label_id, was_status=row.status, reasons=list(row.reasons), confidence=row.confidence,
        decided_from={k: row.decision[k] for k in ("model", "master_set", "likeliest") if k in row.decision},
        calibrates=bool(DRAWN & set(row.reasons)), note=said.note, seconds=said.seconds, bundle_id=said.bundle_id,
        source=said.source, created_at=moment,
    )  # fmt: skip
    session.add(review)
    session.flush()
    _settle(session, row, reviewer, book, reviewers_needed=reviewers_needed)
    return review


def _settle(session: Session, row: ParticleRow, reviewer: str, book: LabelBook, *, reviewers_needed: int) -> None:
    """Words of labels that have been split or retired since are no votes: nobody could say them now."""
    latest = latest_words(session, [row.id])[row.id]
    said = {who: now_id(book, each.label_id) for who, each in latest.items()}
    now = {label.id for label in book.by_id.values() if label.status == "active"}
    votes = Counter(label_id for label_id in said.values() if label_id is None or label_id in now)
    (top, count), *rest = votes.most_common()
    contested = bool(_CONTESTED & set(row.reasons)) or len(votes) > 1
    needed = reviewers_needed if contested else 1
    agreed = count >= needed and (not rest or rest[0][1] < count)
    row.version, row.updated_at = row.version + 1, utc_now()
    if agreed:
        row.status, row.label_id, row.decided_by, row.in_queue, row.priority = "reviewed", top, "review", False, 0.0
    else:
        added = "disagreement" if len(votes) > 1 else "second_opinion"
        row.reasons = [*(each for each in row.reasons if each not in {"disagreement", "second_opinion"}), added]
        row.in_queue, row.priority = True, _PRIORITY[added]
    session.add(
        DecisionRow(
            id=new_id("dec"), particle_id=row.id, by="review", actor=reviewer, status=row.status,
            label_id=top if agreed else said[reviewer], confidence=None,
            master_set=None, model="", document={"votes": {str(k): v for k, v in votes.items()}}, created_at=utc_now(),
        )
    )  # fmt: skip
    session.flush()


def now_id(book: LabelBook, label_id: str | None) -> str | None:
    """What a label id means now; None stays."""
    label = None if label_id is None else book.now(label_id)
    return label_id if label is None else label.id


def newest(principal: Principal) -> Select[ReviewRow]:
    """What reviewers said of particles that the caller may see, newest first."""
    said = select(ReviewRow).join(ParticleRow, ParticleRow.id == ReviewRow.particle_id)
    mine = (ReviewRow.tenant == principal.tenant, records.visible(ParticleRow, principal))
    return said.where(*mine).order_by(ReviewRow.id.desc())


def latest_words(session: Session, particle_ids: Sequence[str]) -> dict[str, dict[str, ReviewRow]]:
    """The latest word of each reviewer on each particle."""
    found: dict[str, dict[str, ReviewRow]] = {each: {} for each in particle_ids}
    query = select(ReviewRow).where(ReviewRow.particle_id.in_(particle_ids)).order_by(ReviewRow.id)
    for review in session.scalars(query):
        found[review.particle_id][review.reviewer] = review
    return found


def queue(
    session: Session,
    principal: Principal,
    *,
    reason: str | None,
    batch: str | None,
    label_ids: Sequence[str] | None,
    without_reviewer: str | None,
    after: tuple[float, str] | None,
    limit: int,
) -> Sequence[ParticleRow]:
    """The particles that wait, most urgent first; one more than ``limit``, to tell whether there are more."""
    where: list[ColumnElement[bool]] = [records.visible(ParticleRow, principal), ParticleRow.in_queue.is_(True)]
    if batch is not None:
        where.append(ParticleRow.batch == batch)
    if label_ids is not None:
        where.append(ParticleRow.label_id.in_(label_ids))
    if reason is not None:
        where.append(has_reason(session, reason))
    if without_reviewer is not None:
        mine = select(ReviewRow.particle_id).where(ReviewRow.reviewer == without_reviewer)
        where.append(ParticleRow.id.not_in(mine))
    if after is not None:
        below, same = ParticleRow.priority < after[0], ParticleRow.priority == after[0]
        where.append(or_(below, and_(same, ParticleRow.id > after[1])))
    order = (ParticleRow.priority.desc(), ParticleRow.id)
    return session.scalars(select(ParticleRow).where(*where).order_by(*order).limit(limit + 1)).all()


def has_reason(
    session: Session, reason: str, *, of: InstrumentedAttribute[list[Any]] = ParticleRow.reasons
) -> ColumnElement[bool]:
    """Whether a reason is among a particle's, or those of another column, in either database."""
    if session.get_bind().dialect.name == "postgresql":
        return cast(of, JSONB).contains([reason])
    each = func.json_each(of).table_valued("value")
    return select(1).select_from(each).where(each.c.value == reason).exists()


@dataclass(frozen=True)
class Progress:
    """How the queue stands and how reviewing goes."""

    waiting: int
    by_reason: Mapping[str, int]
    reviewed: int
    confirmed: int
    decisions: int
    particles_per_decision: float | None
    median_seconds: float | None
    audits: int
    audits_wrong: int


def progress(session: Session, principal: Principal, book: LabelBook) -> Progress:
    """Over all that the caller may see, counted where the rows lie. A bundle that was confirmed is one decision, whatever it holds."""
    visible = records.visible(ParticleRow, principal)
    reasons: Counter[str] = Counter()
    waiting = 0
    held_for = select(ParticleRow.reasons, func.count()).where(visible, ParticleRow.in_queue)
    for codes, count in session.execute(
        held_for.group_by(ParticleRow.reasons)
    ):  # few sets of reasons, whatever the queue
        waiting += count
        reasons.update(dict.fromkeys(codes, count))
    statuses = select(ParticleRow.status, func.count()).where(visible, ParticleRow.role == "sample")
    counts = {status: count for status, count in session.execute(statuses.group_by(ParticleRow.status))}  # noqa: C416
    table = ReviewRow
    said = (table.particle_id == ParticleRow.id, table.tenant == principal.tenant, visible)
    decision = func.coalesce(table.bundle_id, table.id)
    words, decisions = session.execute(select(func.count(), func.count(decision.distinct())).where(*said)).one()
    timed = select(func.max(table.seconds).label("seconds")).where(*said, table.seconds.is_not(None)).group_by(decision)
    taken = timed.subquery().c.seconds
    middle = (session.scalar(select(func.count(taken))) or 0) // 2
    drawn = (*said, table.calibrates, has_reason(session, "random_audit", of=table.reasons))
    audited = select(table.label_id, table.was_label_id, func.count()).where(*drawn)
    audits = session.execute(audited.group_by(table.label_id, table.was_label_id)).all()
    return Progress(
        waiting=waiting,
        by_reason=dict(reasons),
        reviewed=counts.get("reviewed", 0),
        confirmed=counts.get("confirmed", 0),
        decisions=decisions,
        particles_per_decision=words / decisions if decisions else None,
        median_seconds=session.scalar(select(taken).order_by(taken).offset(middle).limit(1)),
        audits=sum(count for _, _, count in audits),
        audits_wrong=sum(count for now, was, count in audits if now_id(book, now) != now_id(book, was)),
    )


def lock(session: Session, principal: Principal, particle_ids: Iterable[str]) -> list[ParticleRow]:
    """Particles in the order of their ids, held for a change; those that the caller may not see are left out."""
    wanted = sorted(set(particle_ids))
    rows: list[ParticleRow] = []
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        query = select(ParticleRow).where(ParticleRow.id.in_(part), records.visible(ParticleRow, principal))
        rows += session.scalars(query.order_by(ParticleRow.id).with_for_update()).all()
    return rows


def enqueue(row: ParticleRow, reason: str, *, priority: float | None = None) -> None:
    """Put a particle into the queue for a reason; what it is held for stays until somebody says otherwise."""
    row.reasons = [*(each for each in row.reasons if each != reason), reason]
    urgency = priority_of([reason], None, row.id) if priority is None else priority
    row.in_queue, row.priority = True, max(row.priority, urgency)
    row.version, row.updated_at = row.version + 1, utc_now()


def withdraw(row: ParticleRow, reason: str) -> None:
    """Take a reason from a particle that nobody has reviewed; what is confirmed and has no other leaves the queue."""
    row.reasons = [each for each in row.reasons if each != reason]
    row.in_queue = row.status != "confirmed" or bool(row.reasons)
    row.priority = priority_of(row.reasons, row.confidence, row.id) if row.in_queue else 0.0
    row.version, row.updated_at = row.version + 1, utc_now()


def document(row: Any) -> dict[str, Any]:
    """A review for an audit entry."""
    return {"review": row.id, "label": row.label_id, "source": row.source}
