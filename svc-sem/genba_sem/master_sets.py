"""Masters: particles that stand for labels, in sets that are numbered and never change.

Every change closes and opens memberships under the next number, so that a decision which names its set can always be
explained by what stood for what when it was made. Knows no model and no HTTP.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from genba_sem import labels
from genba_sem.labels import Label, LabelBook
from genba_sem.tables import MasterRow, MasterSetRow, ParticleRow
from genba_shared import records
from genba_shared.db import take_turns, utc_now
from genba_shared.ids import new_id
from genba_shared.principal import Principal
from genba_shared.problems import AlreadyExists, Conflict, NotFound


class TooFewMasters(Conflict):
    """There are not enough masters to decide by."""


def current(session: Session, tenant: str) -> Sequence[MasterRow]:
    """The masters of the newest set."""
    query = select(MasterRow).where(MasterRow.tenant == tenant, MasterRow.until.is_(None))
    return session.scalars(query.order_by(MasterRow.id)).all()


def at(session: Session, tenant: str, number: int) -> Sequence[MasterRow]:
    """The masters of one set."""
    member = (MasterRow.since <= number, or_(MasterRow.until.is_(None), MasterRow.until > number))
    query = select(MasterRow).where(MasterRow.tenant == tenant, *member)
    return session.scalars(query.order_by(MasterRow.id)).all()


def newest(session: Session, tenant: str) -> MasterSetRow | None:
    """The set that new decisions are made by."""
    query = select(MasterSetRow).where(MasterSetRow.tenant == tenant)
    return session.scalars(query.order_by(MasterSetRow.number.desc()).limit(1)).first()


def set_at(session: Session, tenant: str, number: int) -> MasterSetRow:
    """One set. Raises NotFound."""
    row = session.get(MasterSetRow, (tenant, number))
    if row is None:
        raise NotFound(f"There is no master set {number}.")
    return row


def add(session: Session, principal: Principal, label_id: str, particle: ParticleRow, *, reason: str) -> MasterRow:
    """Let a particle stand for a label, from the next set on.

    Raises: LabelNotActive; AlreadyExists when it stands for a label already; Conflict for one without a readable view.
    """
    take_turns(session, f"sem-masters-{principal.tenant}")
    label = labels.given(labels.book(session, principal.tenant), label_id, clearance=particle.clearance)
    if any(row.particle_id == particle.id for row in current(session, principal.tenant)):
        raise AlreadyExists(f"Particle {particle.id} is a master already; take it out of the set first.")
    number = _next_number(session, principal.tenant)
    row = _open(session, principal, particle.id, label.id, clearance=particle.clearance, number=number)
    _close_set(session, principal, number, reason=reason)
    return row


def remove(session: Session, principal: Principal, master_id: str, *, reason: str) -> MasterRow:
    """Take a master out, from the next set on; the particle stays. Raises NotFound, Conflict."""
    take_turns(session, f"sem-masters-{principal.tenant}")
    row = records.get(session, MasterRow, master_id, principal, lock=True)
    if row.until is not None:
        raise Conflict(f"Master {master_id} left the set at number {row.until}.")
    row.until = _next_number(session, principal.tenant)
    _close_set(session, principal, row.until, reason=reason)
    return row


def move(session: Session, principal: Principal, to: Mapping[str, str], *, reason: str) -> int | None:
    """Let masters (by id) stand for other labels, from the next set on; its number, None when there is nothing to move."""
    take_turns(session, f"sem-masters-{principal.tenant}")
    moving = [row for row in current(session, principal.tenant) if row.id in to]
    if not moving:
        return None
    number = _next_number(session, principal.tenant)
    for row in moving:
        row.until = number
        _open(session, principal, row.particle_id, to[row.id], clearance=row.clearance, number=number)
    _close_set(session, principal, number, reason=reason)
    return number


def close(session: Session, principal: Principal, label_id: str, *, reason: str) -> int | None:
    """Take every master of a label out, from the next set on; its number."""
    take_turns(session, f"sem-masters-{principal.tenant}")
    leaving = [row for row in current(session, principal.tenant) if row.label_id == label_id]
    if not leaving:
        return None
    number = _next_number(session, principal.tenant)
    for row in leaving:
        row.until = number
    _close_set(session, principal, number, reason=reason)
    return number


def bring_back(session: Session, principal: Principal, label_id: str, *, reason: str) -> int | None:
    """Let the particles that stood for a label when it was merged or retired stand for it again, whatever they stand for now.

    What somebody had taken out before stays out.
    """
    take_turns(session, f"sem-masters-{principal.tenant}")
    last = session.scalar(select(func.max(MasterRow.until)).where(MasterRow.label_id == label_id))
    if last is None or not set_at(session, principal.tenant, last).reason.startswith(label_id):
        return None
    was = session.scalars(select(MasterRow).where(MasterRow.label_id == label_id, MasterRow.until == last)).all()
    number = _next_number(session, principal.tenant)
    held = {row.particle_id: row for row in current(session, principal.tenant)}
    for row in was:
        if (now := held.get(row.particle_id)) is not None:
            now.until = number
        _open(session, principal, row.particle_id, label_id, clearance=row.clearance, number=number)
    _close_set(session, principal, number, reason=reason)
    return number


def enough(found: Counter[str], book: LabelBook, *, clearance: int, least: int) -> list[Label]:
    """The active labels with enough masters to decide by.

    Raises: TooFewMasters that names every label that has too few, when fewer than two have enough.
    """
    active = book.active(clearance)
    ready = [label for label in active if found[label.id] >= least]
    if len(ready) >= 2:
        return ready
    thin = [label for label in active if found[label.id] < least]
    named = ", ".join(f"{label.words} has {found[label.id]}" for label in thin) or "there are no labels"
    raise TooFewMasters(
        f"Two labels with at least {least} masters each are needed; {named}. Register masters first.",
        needed=least,
        labels=[{"label_id": label.id, "name": label.words, "masters": found[label.id]} for label in thin],
    )


def _open(
    session: Session, principal: Principal, particle_id: str, label_id: str, *, clearance: int, number: int
) -> MasterRow:
    row = MasterRow(
        id=new_id("mst"), tenant=principal.tenant, clearance=clearance, created_at=utc_now(),
        created_by=principal.subject, label_id=label_id, particle_id=particle_id, since=number, until=None,
    )  # fmt: skip
    session.add(row)
    return row


def _next_number(session: Session, tenant: str) -> int:
    before = newest(session, tenant)
    return 1 if before is None else before.number + 1


def _close_set(session: Session, principal: Principal, number: int, *, reason: str) -> None:
    """Write down what the set holds."""
    session.flush()
    members = sorted((row.label_id, row.particle_id) for row in current(session, principal.tenant))
    digest = hashlib.sha256("\n".join(f"{label} {particle}" for label, particle in members).encode()).hexdigest()
    session.add(
        MasterSetRow(
            tenant=principal.tenant, number=number, digest=digest, counts=Counter(label for label, _ in members),
            reason=reason, created_at=utc_now(), created_by=principal.subject,
        )
    )  # fmt: skip
    session.flush()
