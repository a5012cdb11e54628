"""Particles by likeness, from the vector store: a copy of what the records hold, which alone say what exists and who may see it.

A tenant has a collection, and what fused rows mean (the lane's space) is the encoder of its version: the next champion's version is
filled beside the one that is searched and then published. Only the process that serves owns the collections; workers write records,
and this one follows. What changed after its last look is compared from the records, so that no hit is missed and no filter is stale.
Knows nothing of text or of HTTP.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from genba_sem import search
from genba_sem.search import Found
from genba_sem.tables import ParticleRow
from genba_shared import records
from genba_shared.db import Database, utc_now
from genba_shared.principal import Principal
from genba_shared.problems import Problem
from genba_shared.telemetry import get_logger
from genba_shared.vectors import CollectionInfo, FilterKind, Point, Vectors, Where

Row = npt.NDArray[np.float32]

log = get_logger(__name__)

LEAST: Final = 2000  # particles below which reading all of them is as quick
_PAGE: Final = 500
_MOST_CHANGED: Final = 2000
_SPARE: Final = 50  # hits asked for beyond those wanted: some may be gone, or be filtered otherwise by now
_OVERLAP: Final = timedelta(minutes=10)  # longer than any transaction here: a change is stamped before it is seen
_FILTERS: Final[dict[str, FilterKind]] = {
    "clearance": "integer",
    "status": "keyword",
    "label_id": "keyword",
    "batch": "keyword",
}
_COLUMNS: Final = (ParticleRow.id, ParticleRow.vector, *(getattr(ParticleRow, name) for name in _FILTERS))


@dataclass(frozen=True)
class _Followed:
    """A tenant's collection holds all of ``space`` as it was at ``until``."""

    space: str
    until: datetime


class Likeness:
    """The collections of this process."""

    def __init__(self, open_store: Callable[[], Vectors], database: Database) -> None:
        """open_store: called when a tenant has so many particles that it is needed."""
        self._open_store, self._database = open_store, database
        self._store: Vectors | None = None
        self._followed: dict[str, _Followed] = {}
        self._opening, self._following = threading.Lock(), threading.Lock()

    def close(self) -> None:
        """Give the collections back."""
        if self._store is not None:
            self._store.close()

    def _vectors(self) -> Vectors:
        with self._opening:
            if self._store is None:
                self._store = self._open_store()
            return self._store

    def follow(self, tenant: str, space: str) -> None:
        """Bring a tenant's collection up to the records; the first time, and for another space, from the beginning."""
        with self._following:
            count = self._count(tenant, space)
            if count < LEAST:
                return
            collection, now = _collection(tenant), utc_now()
            info, followed = self._vectors().current(collection), self._followed.get(tenant)
            if info is None or info.encoder != space or info.points > count:
                self._build(tenant, space, instead_of=info)
            else:
                since = followed.until if followed is not None and followed.space == space else None
                self._write(tenant, space, info.version, since)
            self._followed[tenant] = _Followed(space, now - _OVERLAP)

    def forget(self, tenant: str, particle_id: str) -> None:
        """Take an erased particle out."""
        collection = _collection(tenant)
        if tenant in self._followed and self._vectors().current(collection) is not None:
            self._vectors().delete(collection, [particle_id])

    def nearest(
        self,
        session: Session,
        principal: Principal,
        vector: Row,
        *,
        space: str,
        k: int,
        where: Sequence[ColumnElement[bool]] = (),
        kept: Where | None = None,
    ) -> list[Found] | None:
        """The k particles most like a unit vector of this space, best first; None where the records have to be read instead.

        where: what holds for the particles; kept: as much of that as the collection can filter by.
        """
        followed = self._followed.get(principal.tenant)
        if followed is None or followed.space != space:
            return None
        since = ParticleRow.updated_at > followed.until
        changed = set(session.scalars(_of(principal.tenant, space).where(since).limit(_MOST_CHANGED + 1)))
        if len(changed) > _MOST_CHANGED:
            return None
        clearances = list(range(int(principal.clearance) + 1))
        try:
            hits = self._vectors().search(
                _collection(principal.tenant), vector, k=k + len(changed) + _SPARE, encoder=space,
                where={"clearance": clearances, **(kept or {})},
            )  # fmt: skip
        except Problem as problem:  # the records hold all of it
            log.warning("likeness_from_records", error=problem.detail)
            return None
        scores = {hit.id: hit.score for hit in hits if hit.id not in changed}
        still = and_(records.visible(ParticleRow, principal), ParticleRow.encoder == space, *where)
        # Selected, not required: a planner that looks for the condition first reads the tenant's whole index.
        there = session.execute(select(ParticleRow.id, still).where(ParticleRow.id.in_(scores)))
        found = [Found(each, round(float(scores[each]), 6), ("picture",)) for each, fits in there if fits]
        if changed:
            found += search.by_vector(session, principal, vector, encoder=space, where=[*where, since])
        return sorted(found, key=lambda each: (-each.score, each.particle_id))[:k]

    def _count(self, tenant: str, space: str) -> int:
        with self._database.read() as session:
            return session.scalar(select(func.count()).select_from(_of(tenant, space).subquery())) or 0

    def _build(self, tenant: str, space: str, *, instead_of: CollectionInfo | None) -> None:
        """Fill the version that is not searched, publish it, and drop the other."""
        vectors, collection = self._vectors(), _collection(tenant)
        before = None if instead_of is None else instead_of.version
        version = "b" if before == "a" else "a"
        with self._database.read() as session:
            held = session.scalars(select(ParticleRow.vector).where(*_mine(tenant, space)).limit(1)).one() or b""
        vectors.drop(collection, version)  # what a killed process left
        vectors.create(collection, version, dim=len(held) // 4, encoder=space, filters=_FILTERS)
        self._write(tenant, space, version, None)
        vectors.publish(collection, version)
        if before is not None:
            vectors.drop(collection, before)
        log.info("likeness_built", space=space)

    def _write(self, tenant: str, space: str, version: str, since: datetime | None) -> None:
        """Write what has changed since then, or all, a page at a time; particles that left the space go."""
        changed = [] if since is None else [ParticleRow.updated_at > since]
        collection, after = _collection(tenant), ""
        query = select(*_COLUMNS).where(*_mine(tenant, space), *changed).order_by(ParticleRow.id).limit(_PAGE)
        while True:
            with self._database.read() as session:
                page = session.execute(query.where(ParticleRow.id > after)).all()
            if not page:
                break
            after = page[-1].id
            self._vectors().upsert(collection, version, [_point(row) for row in page])
        if since is not None:
            left = select(ParticleRow.id).where(ParticleRow.tenant == tenant, ParticleRow.encoder != space, *changed)
            with self._database.read() as session:
                gone = session.scalars(left).all()
            if gone:
                self._vectors().delete(collection, gone)


def _mine(tenant: str, space: str) -> tuple[ColumnElement[bool], ...]:
    return ParticleRow.tenant == tenant, ParticleRow.encoder == space, ParticleRow.vector.is_not(None)


def _of(tenant: str, space: str) -> Any:
    return select(ParticleRow.id).where(ParticleRow.tenant == tenant, ParticleRow.encoder == space)


def _point(row: Any) -> Point:
    payload = {name: value for name in _FILTERS if (value := getattr(row, name)) is not None}
    return Point(row.id, np.frombuffer(row.vector, np.float32), payload)


def _collection(tenant: str) -> str:
    return f"sem-{hashlib.sha256(tenant.encode()).hexdigest()[:12]}"
