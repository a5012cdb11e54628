"""Is what people said right? Labels that do not fit their neighbours, reviewers who disagree, masters that are too few or uneven.

Labels are ranked by how doubtful they are, each judged by particles that are not itself (confident learning's ranking, not its
verdict): the ranking is worth a person's look from the top, and says itself nothing about where to stop. Knows no HTTP.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from genba_sem import lanes, master_sets, reviews
from genba_sem.classifier import DEFAULT
from genba_sem.label_issues import ranked_issues
from genba_sem.labels import LabelBook
from genba_sem.lane import Lane
from genba_sem.tables import LabelAuditRow, ParticleRow, ReviewRow
from genba_shared import records
from genba_shared.principal import Principal

Rows = npt.NDArray[np.float32]

MOST_PARTICLES: Final = 4000
LOPSIDED: Final = 5.0  # the largest label has so many times the masters of the smallest
_LEAST_MASTERS: Final = 5


@dataclass(frozen=True)
class Doubt:
    """A label that deserves a look. fit: [0, 1], lower is more doubtful; suggested: what its neighbours would say."""

    particle_id: str
    given: str
    suggested: str
    fit: float
    is_master: bool


@dataclass(frozen=True)
class Thin:
    """A label with few masters, or few views in them."""

    label_id: str
    masters: int
    views: int


@dataclass(frozen=True)
class MasterHealth:
    """How the masters stand. ratio: of the largest label's masters to the smallest's, None with fewer than two labels."""

    labels: int
    masters: int
    ratio: float | None
    lopsided: bool
    thin: tuple[Thin, ...]


@dataclass(frozen=True)
class Disagreement:
    """How often reviewers of the same particle said different things. confused: the pairs of labels, most frequent first."""

    reviewed_twice: int
    disagreed: int
    confused: tuple[tuple[str | None, str | None, int], ...]
    by_reviewer: Mapping[str, tuple[int, int]]  # particles reviewed with others, of these agreed with the majority


def labelled_by_people(principal: Principal) -> tuple[ColumnElement[bool], ...]:
    """Masters and reviewed particles that the caller may see."""
    return (
        records.visible(ParticleRow, principal),
        ParticleRow.status == "reviewed",
        ParticleRow.label_id.is_not(None),
    )


def given_by(session: Session, book: LabelBook, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The label that people gave, as labels are now, and the role, of those that have one."""
    found = {}
    for start in range(0, len(ids), 500):
        query = select(ParticleRow.id, ParticleRow.label_id, ParticleRow.role)
        query = query.where(ParticleRow.id.in_(ids[start : start + 500]), ParticleRow.status == "reviewed")
        for row in session.execute(query):
            if row.label_id is not None and (label := book.now(row.label_id)) is not None:
                found[row.id] = (label.id, row.role)
    return found


def ranked(known: Mapping[str, tuple[Rows, tuple[str, str]]], classifier: str) -> list[Doubt]:
    """Fused row, label and role by particle: most doubtful first; nothing with fewer than two labels."""
    ids, names = list(known), sorted({label for _, (label, _) in known.values()})
    if len(names) < 2:
        return []
    rows = np.stack([known[each][0] for each in ids])
    given = np.array([names.index(known[each][1][0]) for each in ids], np.int64)
    return [
        Doubt(ids[each.index], each.given, each.suggested, each.quality, known[ids[each.index]][1][1] == "master")
        for each in ranked_issues(rows, given, names, classifier=classifier)
    ]


@dataclass(frozen=True)
class Doubts:
    """What deserves a look. judged: labels compared; encoder: by whose rows; audit: the job's, None when compared just now."""

    found: tuple[Doubt, ...]
    judged: int
    encoder: str | None
    audit: LabelAuditRow | None = None


def doubts(session: Session, principal: Principal, book: LabelBook, lane: Lane | None) -> Doubts:
    """By the newest audit that a job has made and the caller may see; while there is none, of the newest particles, compared now."""
    mine = records.visible(LabelAuditRow, principal)
    audit = session.scalars(select(LabelAuditRow).where(mine).order_by(LabelAuditRow.id.desc()).limit(1)).one_or_none()
    if audit is None:
        return _compared_now(session, principal, book, lane)
    kept = [Doubt(**each) for each in audit.doubts]
    given = given_by(session, book, [each.particle_id for each in kept])
    still = [each for each in kept if given.get(each.particle_id, ("",))[0] == reviews.now_id(book, each.given)]
    now = [replace(each, suggested=reviews.now_id(book, each.suggested) or each.suggested) for each in still]
    return Doubts(tuple(now), audit.judged, audit.model, audit)


def _compared_now(session: Session, principal: Principal, book: LabelBook, lane: Lane | None) -> Doubts:
    query = select(ParticleRow.id).where(*labelled_by_people(principal)).order_by(ParticleRow.id.desc())
    rows = lanes.vectors_of(session, session.scalars(query.limit(MOST_PARTICLES)).all(), lane)
    encoders = Counter(encoder for encoder, _ in rows.values())
    if not encoders:
        return Doubts((), 0, None)
    encoder = encoders.most_common(1)[0][0]
    vectors = {particle: row for particle, (space, row) in rows.items() if space == encoder}
    given = given_by(session, book, list(vectors))
    found = ranked({each: (vectors[each], given[each]) for each in vectors if each in given}, DEFAULT)
    return Doubts(tuple(each for each in found if each.given != each.suggested), len(found), encoder)


def master_health(session: Session, principal: Principal, book: LabelBook) -> MasterHealth:
    """Of the newest set, for the active labels that the caller sees."""
    rows = [row for row in master_sets.current(session, principal.tenant) if row.clearance <= principal.clearance]
    active = {label.id for label in book.active(int(principal.clearance))}
    masters = Counter(now.id for row in rows if (now := book.now(row.label_id)) is not None)
    kept = select(ParticleRow.id, ParticleRow.view_count).where(ParticleRow.id.in_([row.particle_id for row in rows]))
    counts = {row.id: row.view_count for row in session.execute(kept)}
    views: Counter[str] = Counter()
    for row in rows:
        if (now := book.now(row.label_id)) is not None:
            views[now.id] += counts.get(row.particle_id, 0)
    held = [masters[label] for label in active if masters[label]]
    ratio = max(held) / min(held) if len(held) > 1 else None
    thin = sorted((Thin(each, masters[each], views[each]) for each in active if masters[each] < _LEAST_MASTERS),
                  key=lambda each: (each.masters, each.label_id))  # fmt: skip
    return MasterHealth(
        len(active), sum(masters[each] for each in active), ratio, bool(ratio and ratio > LOPSIDED), tuple(thin)
    )


def disagreement(session: Session, principal: Principal, book: LabelBook) -> Disagreement:
    """Over particles that more than one reviewer has seen, by each one's latest word."""
    several = (
        select(ReviewRow.particle_id)
        .join(ParticleRow, ParticleRow.id == ReviewRow.particle_id)
        .where(records.visible(ParticleRow, principal))
        .group_by(ReviewRow.particle_id)
        .having(func.count(func.distinct(ReviewRow.reviewer)) > 1)
        .limit(MOST_PARTICLES)
    )
    ids = list(session.scalars(several))
    confused: Counter[tuple[str | None, str | None]] = Counter()
    by_reviewer: dict[str, list[int]] = {}
    disagreed = 0
    for words in _words(session, ids).values():
        said = {reviewer: reviews.now_id(book, word.label_id) for reviewer, word in words.items()}
        disagreed += len(set(said.values())) > 1
        for one, two in itertools.combinations(sorted(said.values(), key=str), 2):
            if one != two:
                confused[(one, two)] += 1
        top, _ = Counter(said.values()).most_common(1)[0]
        for reviewer, label in said.items():
            counted = by_reviewer.setdefault(reviewer, [0, 0])
            counted[0] += 1
            counted[1] += label == top
    ranked = tuple((one, two, count) for (one, two), count in confused.most_common(20))
    return Disagreement(len(ids), disagreed, ranked, {name: (each[0], each[1]) for name, each in by_reviewer.items()})


def _words(session: Session, ids: Sequence[str]) -> dict[str, dict[str, ReviewRow]]:
    found: dict[str, dict[str, ReviewRow]] = {}
    for start in range(0, len(ids), 500):
        found |= reviews.latest_words(session, ids[start : start + 500])
    return found
