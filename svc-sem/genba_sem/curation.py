"""What a merge, a split, a retirement or a restore does beyond the label itself: its masters, and, for a split, its particles.

A split hands every particle of the label to the part whose masters it resembles most, by the vectors that are stored:
nothing is looked at again and nothing is trained. Nobody has vouched for those, so they wait for a reviewer and say why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from genba_sem import labels, lanes, master_sets
from genba_sem.labels import Document, LabelBook
from genba_sem.lane import Lane
from genba_sem.tables import DecisionRow, LabelRow, MasterRow, ParticleRow
from genba_shared import records
from genba_shared.db import utc_now
from genba_shared.ids import new_id
from genba_shared.principal import Principal
from genba_shared.problems import Invalid

Rows = npt.NDArray[np.float32]  # (N, D), unit length

_PAGE: Final = 2000
SPLIT_PRIORITY: Final = 0.5


@dataclass(frozen=True)
class Part:
    """One part of a split: what it is called, and which masters become its own."""

    document: Document
    master_ids: tuple[str, ...]


@dataclass(frozen=True)
class SplitDone:
    """What a split did: particles by the part that they went to; under None those that no master speaks for."""

    label: LabelRow
    parts: list[LabelRow]
    particles: Mapping[str | None, int]
    master_set: int | None


def merge(
    session: Session, principal: Principal, label_id: str, into_id: str, *, expected: int | None, reason: str
) -> tuple[LabelRow, LabelRow, int]:
    """Merge a label; its masters stand for the other from the next set on. Also how many particles that concerns."""
    concerned = particle_count(session, principal, labels.book(session, principal.tenant).meaning(label_id))
    row, into = labels.merge(
        session, principal, label_id, into_id, expected=expected, reason=reason, detail={"particles": concerned}
    )
    mine = [each.id for each in master_sets.current(session, principal.tenant) if each.label_id == row.id]
    master_sets.move(session, principal, dict.fromkeys(mine, into.id), reason=f"{row.id} merged into {into.id}")
    return row, into, concerned


def retire(session: Session, principal: Principal, label_id: str, *, expected: int | None, reason: str) -> LabelRow:
    """Retire a label and take its masters out of the set."""
    row = labels.retire(session, principal, label_id, expected=expected, reason=reason)
    master_sets.close(session, principal, row.id, reason=f"{row.id} retired")
    return row


def restore(session: Session, principal: Principal, label_id: str, *, expected: int | None, reason: str) -> LabelRow:
    """Bring a merged or retired label back, with the masters that it had."""
    row = labels.restore(session, principal, label_id, expected=expected, reason=reason)
    master_sets.bring_back(session, principal, row.id, reason=f"{row.id} restored")
    return row


def split(
    session: Session,
    principal: Principal,
    label_id: str,
    parts: Sequence[Part],
    *,
    expected: int | None,
    reason: str,
    lane: Lane | None = None,
) -> SplitDone:
    """Replace a label by parts; masters that no part names go where they resemble most, and so do its particles.

    lane: compares by what is kept of views what no vector of its own is kept of, such as masters; without it these are not compared.
    Raises: Invalid for masters that are not the label's or are named twice, and what ``labels.split`` raises.
    """
    labels.take_turn(session, principal.tenant)
    concerned = labels.book(session, principal.tenant).meaning(label_id)
    own = [row for row in master_sets.current(session, principal.tenant) if row.label_id == label_id]
    _check_masters(parts, own)
    row, made = labels.split(
        session, principal, label_id, [part.document for part in parts], expected=expected, reason=reason
    )
    named = {master: made[k].id for k, part in enumerate(parts) for master in part.master_ids}
    vouched = {each.particle_id: named[each.id] for each in own if each.id in named}
    vectors = lanes.vectors_of(session, [each.particle_id for each in own], lane)
    nearest = Nearest.of(vouched, vectors)
    for each in own:
        if each.id not in named and (part_id := nearest.part(vectors.get(each.particle_id))) is not None:
            named[each.id] = part_id
    number = master_sets.move(session, principal, named, reason=f"{row.id} split")
    if len(named) < len(own):
        number = master_sets.close(session, principal, row.id, reason=f"{row.id} split; these resemble no part")
    counts = _hand_out(session, principal, concerned or [row.id], row.id, nearest, vouched, lane)
    return SplitDone(row, made, counts, number)


def _check_masters(parts: Sequence[Part], own: Sequence[MasterRow]) -> None:
    ids = {row.id for row in own}
    seen: set[str] = set()
    for k, part in enumerate(parts):
        for master in part.master_ids:
            said = "is no master of this label" if master not in ids else "is named twice" if master in seen else ""
            if said:
                raise Invalid(f"{master} {said}.", errors=[{"field": f"into[{k}].master_ids", "message": said}])
            seen.add(master)


@dataclass(frozen=True)
class Nearest:
    """Which part a vector is nearest to: by the cosine with the mean of each part's masters, within one encoder."""

    part_ids: tuple[str, ...]
    prototypes: Rows  # (parts, D)
    encoder: str

    @classmethod
    def of(cls, groups: Mapping[str, str], vectors: Mapping[str, tuple[str, Rows]]) -> Nearest:
        """From particle id → part id. The encoder of most masters counts; others cannot be compared."""
        encoders = Counter(vectors[particle][0] for particle in groups if particle in vectors)
        encoder = encoders.most_common(1)[0][0] if encoders else ""
        rows: dict[str, list[Rows]] = {}
        for particle, part in groups.items():
            if particle in vectors and vectors[particle][0] == encoder:
                rows.setdefault(part, []).append(vectors[particle][1])
        prototypes = [unit(np.mean(each, axis=0)) for each in rows.values()]
        return cls(tuple(rows), np.array(prototypes, np.float32), encoder)

    def part(self, found: tuple[str, Rows] | None) -> str | None:
        """The part of one vector, None where it cannot be compared."""
        if found is None or found[0] != self.encoder or not self.part_ids:
            return None
        return self.part_ids[int((self.prototypes @ unit(found[1])).argmax())]


def _hand_out(
    session: Session,
    principal: Principal,
    label_ids: Sequence[str],
    split_id: str,
    nearest: Nearest,
    vouched: Mapping[str, str],
    lane: Lane | None,
) -> dict[str | None, int]:
    """Give every particle of the label to a part, a page at a time; how many went where.

    vouched: particle id → part, for masters that whoever splits has named; they wait for nobody.
    """
    counts: Counter[str | None] = Counter()
    after = ""
    while True:
        columns = (ParticleRow.id, ParticleRow.reasons, ParticleRow.version, ParticleRow.status)
        query = select(*columns).where(
            ParticleRow.tenant == principal.tenant, ParticleRow.label_id.in_(label_ids), ParticleRow.id > after
        )
        page = session.execute(query.order_by(ParticleRow.id).limit(_PAGE).with_for_update()).all()
        if not page:
            return dict(counts)
        after = page[-1].id
        vectors = lanes.vectors_of(session, [row.id for row in page], lane)
        moment, changes, decisions = utc_now(), [], []
        for row in page:
            changed = {"id": row.id, "version": row.version + 1, "updated_at": moment}
            if (part := vouched.get(row.id)) is not None:
                status = row.status
            else:
                part, status = nearest.part(vectors.get(row.id)), "needs_review"
                changed |= _waiting(row.reasons)
            counts[part] += 1
            changes.append({**changed, "label_id": part or split_id})
            decisions.append(_decision(row.id, part or split_id, split_id, principal, moment, status=status))
        session.execute(update(ParticleRow), changes)
        session.execute(insert(DecisionRow), decisions)


def _waiting(reasons: Sequence[str]) -> dict[str, Any]:
    return {
        "status": "needs_review",
        "decided_by": "split",
        "in_queue": True,
        "priority": SPLIT_PRIORITY,
        "reasons": [*(each for each in reasons if each != "label_split"), "label_split"],
    }


def _decision(
    particle_id: str, label_id: str, split_id: str, principal: Principal, moment: Any, *, status: str
) -> dict[str, Any]:
    return {
        "id": new_id("dec"),
        "particle_id": particle_id,
        "by": "split",
        "actor": principal.subject,
        "status": status,
        "label_id": label_id,
        "model": "nearest-masters",
        "document": {"split": split_id},
        "created_at": moment,
    }


def particle_count(session: Session, principal: Principal, label_ids: Sequence[str]) -> int:
    """How many particles have one of these labels, whoever may see them."""
    where = (ParticleRow.tenant == principal.tenant, ParticleRow.label_id.in_(label_ids))
    return session.scalar(select(func.count()).select_from(ParticleRow).where(*where)) or 0


def counts_by_label(session: Session, principal: Principal, book: LabelBook) -> Counter[str]:
    """How many particles the caller sees under each label, as the labels are now."""
    query = select(ParticleRow.label_id, func.count()).where(
        records.visible(ParticleRow, principal), ParticleRow.label_id.is_not(None), ParticleRow.role == "sample"
    )
    found: Counter[str] = Counter()
    for label_id, count in session.execute(query.group_by(ParticleRow.label_id)):
        if label_id is not None and (label := book.now(label_id)) is not None:
            found[label.id] += count
    return found


def unit(vector: Any) -> Rows:
    """A vector at unit length; one of zeros stays."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
