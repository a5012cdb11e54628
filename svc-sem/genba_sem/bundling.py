"""Bundles of the queue: particles that look alike and are held for the same label, so that one look decides many.

A bundle never crosses a label that the lane holds its members for, nor a reason that makes them different questions (unknown, poor
quality). What is in it is fixed when it is made: who confirms it confirms exactly what was shown. Knows no HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_sem import lexicon, reviews
from genba_sem.labels import LabelBook
from genba_sem.reviews import Said
from genba_sem.tables import BundleRow, ParticleRow
from genba_shared import records
from genba_shared.db import take_turns, utc_now
from genba_shared.ids import new_id
from genba_shared.principal import Principal
from genba_shared.problems import Conflict, Invalid, VersionConflict

Rows = npt.NDArray[np.float32]  # (N, D), unit length

MOST_PARTICLES: Final = 3000  # of the queue, most urgent first
_SHOWN: Final = 4
_SHARED: Final = 0.6  # of the members that must share a tag
_REACH, _LEAST_REACH, _MOST_REACH = 3.0, 0.05, 0.5
_APART: Final = ("unknown", "poor_quality", "label_split", "label_suspect")


@dataclass(frozen=True)
class Confirmed:
    """What a confirmation did."""

    settled: int
    waiting: int
    skipped: tuple[str, ...]


def build(session: Session, principal: Principal, book: LabelBook, *, least: int, batch: str | None) -> list[BundleRow]:
    """Bundle the queue anew; open bundles of before are stale from then on. Singles are left to the queue."""
    take_turns(session, f"sem-bundles-{principal.tenant}")
    where = [BundleRow.tenant == principal.tenant, BundleRow.status == "open"]
    for old in session.scalars(
        select(BundleRow).where(*where, records.visible(BundleRow, principal)).with_for_update()
    ):
        old.status, old.version, old.updated_at = "stale", old.version + 1, utc_now()
    rows = list(
        reviews.queue(
            session, principal, reason=None, batch=batch, label_ids=None, without_reviewer=None, after=None,
            limit=MOST_PARTICLES,
        )[:MOST_PARTICLES]
    )  # fmt: skip
    kinds: dict[tuple[object, ...], list[ParticleRow]] = {}
    for row in rows:
        if row.vector is not None:
            apart = tuple(code for code in _APART if code in row.reasons)
            kinds.setdefault((reviews.now_id(book, row.label_id), row.encoder, row.clearance, apart), []).append(row)
    made = []
    for members in kinds.values():
        vectors = np.stack([np.frombuffer(row.vector or b"", np.float32) for row in members])
        found = groups(vectors, least=least)
        made += [_add(session, principal, [members[k] for k in group], vectors[group]) for group in found]
    return sorted(made, key=lambda bundle: -len(bundle.particle_ids))


def groups(vectors: Rows, *, least: int = 2) -> list[list[int]]:
    """Indices of rows that lie together; what lies apart is in no group.

    Average linkage on cosines, cut where clusters would be ``_REACH`` times as far apart as a particle typically is from its
    nearest neighbour: groups stay pure rather than grow large.
    """
    if len(vectors) < least:
        return []
    from sklearn.cluster import AgglomerativeClustering

    apart = _apart(vectors)
    seen = vectors.any(1)  # of a black picture there is nothing: it is like no other
    nearest = (apart + 2 * np.eye(len(apart)))[seen].min(1)
    reach = float(np.clip(_REACH * np.median(nearest), _LEAST_REACH, _MOST_REACH)) if seen.any() else _LEAST_REACH
    found = AgglomerativeClustering(n_clusters=None, distance_threshold=reach, linkage="average", metric="precomputed")
    labels = found.fit_predict(apart)
    members = [np.flatnonzero(labels == label).tolist() for label in range(int(labels.max()) + 1)]
    return [each for each in members if len(each) >= least]


def parts(vectors: Rows, count: int) -> list[list[int]]:
    """Divide rows into ``count`` groups by average linkage. Raises: ValueError for fewer rows than that."""
    if len(vectors) < count:
        raise ValueError(f"{len(vectors)} particles cannot be divided into {count}.")
    from sklearn.cluster import AgglomerativeClustering

    ways = AgglomerativeClustering(n_clusters=count, linkage="average", metric="precomputed")
    found = ways.fit_predict(_apart(vectors))
    return [np.flatnonzero(found == label).tolist() for label in range(count)]


def _apart(vectors: Rows) -> Rows:
    """(N, N) 1 − cosine; 1 from a row of zeros."""
    rows = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    apart = np.clip(1 - rows @ rows.T, 0, 2)
    np.fill_diagonal(apart, 0)
    return np.asarray(apart, np.float32)


def _add(session: Session, principal: Principal, members: Sequence[ParticleRow], vectors: Rows) -> BundleRow:
    moment = utc_now()
    row = BundleRow(
        id=new_id("bun"), tenant=principal.tenant, clearance=max(each.clearance for each in members), created_at=moment,
        created_by=principal.subject, version=1, status="open", particle_ids=[each.id for each in members],
        document=describe(members, vectors), updated_at=moment,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def describe(members: Sequence[ParticleRow], vectors: Rows) -> dict[str, Any]:
    """What a reviewer sees of a bundle: its middle and its edge, what members share, the labels in contention."""
    middle = vectors.mean(0)
    middle /= max(float(np.linalg.norm(middle)), 1e-9)
    cosines = vectors @ middle
    order = np.argsort(-cosines, kind="stable")
    likely: Counter[str] = Counter()
    masters: Counter[str] = Counter()
    for each in members:
        likely.update(each.decision.get("probabilities", {}))
        masters.update([near["particle_id"] for near in each.decision.get("nearest", [])[:1]])
    return {
        "cohesion": float(cosines.mean()),
        "representatives": [members[k].id for k in order[:_SHOWN]],
        "edge": [members[k].id for k in order[::-1][: min(_SHOWN, len(members) // 2)]],
        "labels": {label: total / len(members) for label, total in likely.most_common(3)},
        "tags": _shared(members),
        "masters": [particle for particle, _ in masters.most_common(3)],
    }


def _shared(members: Sequence[ParticleRow]) -> list[str]:
    """Tags of people, words for shape and quality that most members share."""
    found: Counter[str] = Counter()
    for each in members:
        measured = {name: getattr(each, name) for name in ("aspect_ratio", "circularity", "solidity")}
        absolute = [c for c in lexicon.CONCEPTS if c.conditions and not any(k.percentile for k in c.conditions)]
        seen = {reason for view in each.decision.get("views", []) for reason in view["quality_reasons"]}
        found.update({*each.tags, *seen, *(c.name for c in absolute if lexicon.shape_fit(c, measured, {}) > 0.5)})
    return [tag for tag, count in found.most_common(8) if count >= _SHARED * len(members)]


def confirm(
    session: Session,
    principal: Principal,
    bundle: BundleRow,
    label_id: str | None,
    *,
    without: Sequence[str],
    note: str,
    seconds: float | None,
    book: LabelBook,
    reviewers_needed: int,
) -> Confirmed:
    """Review every member that still waits, except those taken out. One decision, however many it settles.

    Raises: Conflict for a bundle that is not open; Invalid for particles taken out that are not in it.
    """
    if bundle.status != "open":
        raise Conflict(f"Bundle {bundle.id} is {bundle.status}.", bundle_status=bundle.status)
    if foreign := sorted(set(without) - set(bundle.particle_ids)):
        raise Invalid(
            f"{foreign[0]} is not in the bundle.",
            errors=[{"field": "without", "message": f"{foreign[0]} is not in it"}],
        )
    members = [each for each in bundle.particle_ids if each not in set(without)]
    rows = reviews.lock(session, principal, members)
    open_rows = [row for row in rows if row.in_queue]
    said = Said(label_id, note, seconds, bundle_id=bundle.id, source="bundle")
    for row in open_rows:
        reviews.say(session, principal, row, said, book=book, reviewers_needed=reviewers_needed)
    settled = sum(not row.in_queue for row in open_rows)
    skipped = tuple(sorted(set(members) - {row.id for row in open_rows}))
    bundle.status, bundle.version, bundle.updated_at = "confirmed", bundle.version + 1, utc_now()
    session.flush()
    return Confirmed(settled, len(open_rows) - settled, skipped)


def split(
    session: Session,
    principal: Principal,
    bundle: BundleRow,
    *,
    count: int | None,
    given: Sequence[Sequence[str]] | None,
) -> list[BundleRow]:
    """Replace a bundle by its parts, by likeness or as given; members that are in no group go back to the queue alone.

    Raises: Conflict for a bundle that is not open; Invalid for groups that overlap or hold strangers.
    """
    if bundle.status != "open":
        raise Conflict(f"Bundle {bundle.id} is {bundle.status}.", bundle_status=bundle.status)
    rows = [row for row in reviews.lock(session, principal, bundle.particle_ids) if row.vector is not None]
    spaces = Counter(row.encoder for row in rows).most_common(1)
    held = {
        row.id: row for row in rows if row.encoder == spaces[0][0]
    }  # what was decided anew compares with nobody here
    ids = [each for each in bundle.particle_ids if each in held]
    if given is None:
        vectors = _vectors(held, ids)
        try:
            divided = [[ids[k] for k in group] for group in parts(vectors, count or 2)]
        except ValueError as err:
            raise Invalid(str(err), errors=[{"field": "parts", "message": str(err)}]) from err
    else:
        divided = _checked(given, set(bundle.particle_ids))
    made = []
    for group in divided:
        members = [each for each in group if each in held]
        if len(members) > 1:
            made.append(_add(session, principal, [held[each] for each in members], _vectors(held, members)))
    bundle.status, bundle.version, bundle.updated_at = "split", bundle.version + 1, utc_now()
    session.flush()
    return made


def _vectors(held: Mapping[str, ParticleRow], ids: Sequence[str]) -> Rows:
    return np.stack([np.frombuffer(held[each].vector or b"", np.float32) for each in ids])


def _checked(given: Sequence[Sequence[str]], members: set[str]) -> list[list[str]]:
    named = [each for group in given for each in group]
    said = None
    if len(set(named)) < len(named):
        said = "a particle is in two groups"
    elif foreign := sorted(set(named) - members):
        said = f"{foreign[0]} is not in the bundle"
    if said is not None:
        raise Invalid(f"The groups do not fit: {said}.", errors=[{"field": "groups", "message": said}])
    return [list(group) for group in given]


def open_bundle(session: Session, principal: Principal, bundle_id: str, *, expected: int | None) -> BundleRow:
    """A bundle, held for a change. Raises: NotFound, VersionConflict."""
    bundle = records.get(session, BundleRow, bundle_id, principal, lock=True)
    if expected is not None and expected != bundle.version:
        raise VersionConflict(
            f"Bundle {bundle_id} is at version {bundle.version}, not {expected}: somebody was quicker.",
            current_version=bundle.version,
        )
    return bundle
