"""Likeness through the vector store finds what the records hold: over both databases, from Qdrant's engine and from a server's client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient
from sqlalchemy import ColumnElement, delete, update

from genba_sem import likeness, search
from genba_sem.likeness import Likeness
from genba_sem.search import Found
from genba_sem.tables import ParticleRow
from genba_shared.db import utc_now
from genba_shared.principal import Clearance, Principal
from genba_shared.vectors import Vectors
from genba_shared.vectors_edge import EdgeVectors
from genba_shared.vectors_server import ServerVectors

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning")

Service = Any  # of conftest, which tests cannot import
Reopen = Callable[[], Likeness]
READER = Principal("key_reader", (), frozenset(), Clearance.INTERNAL)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "LEAST", 1)


@pytest.fixture(params=["edge", "server"])
def reopen(request: pytest.FixtureRequest, service: Service, tmp_path: Path) -> Iterator[Reopen]:
    """What a process makes at its start; the one before has gone."""
    server = QdrantClient(":memory:")
    opened: list[Likeness] = []

    def store() -> Vectors:
        return EdgeVectors(tmp_path / "likeness") if request.param == "edge" else ServerVectors(server)

    def made() -> Likeness:
        if opened and request.param == "edge":  # a server outlives whoever asks it
            opened[-1].close()
        opened.append(Likeness(store, service.sem.database))
        return opened[-1]

    yield made
    opened[-1].close()


def vectors(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 12)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def both(
    service: Service,
    like: Likeness,
    *where: ColumnElement[bool],
    space: str = "e-1",
    k: int = 15,
    **kept: str | list[str],
) -> tuple[list[Found] | None, list[Found]]:
    """By the vector store, and by reading every record."""
    query = vectors(1, seed=99)[0]
    with service.sem.database.read() as session:
        found = like.nearest(session, READER, query, space=space, k=k, where=where, kept=kept)
        return found, search.by_vector(session, READER, query, encoder=space, where=where)[:k]


def same(found: Sequence[Found] | None, truth: Sequence[Found]) -> None:
    assert found is not None
    assert [each.particle_id for each in found] == [each.particle_id for each in truth]
    assert [each.score for each in found] == pytest.approx([each.score for each in truth], abs=1e-5)


def test_it_finds_what_reading_every_record_finds_with_any_filter(service: Service, reopen: Reopen) -> None:
    service.classified(vectors(60), "lab_a", batch="b-1")
    service.classified(vectors(60, 1), "lab_b", status="unknown")
    service.classified(vectors(60, 2), "lab_a", clearance=3)
    service.classified(vectors(60, 3), "lab_a", tenant="other")
    like = reopen()
    assert both(service, like)[0] is None  # not followed yet: the records are read
    like.follow("default", "e-1")
    same(*both(service, like))
    same(*both(service, like, ParticleRow.label_id.in_(["lab_a", "lab_c"]), label_id=["lab_a", "lab_c"]))
    same(*both(service, like, ParticleRow.status == "unknown", status="unknown"))
    same(*both(service, like, ParticleRow.batch == "b-1", batch="b-1"))
    assert both(service, like, ParticleRow.label_id.in_([]), label_id=[]) == ([], [])


def test_what_changed_since_the_last_look_is_found_and_filtered_as_it_is_now(service: Service, reopen: Reopen) -> None:
    old = service.classified(vectors(80), "lab_a")
    with service.sem.database.transaction() as session:  # so long ago that no change of theirs can still be on its way
        session.execute(update(ParticleRow).values(updated_at=utc_now() - 2 * likeness._OVERLAP))
    like = reopen()
    like.follow("default", "e-1")
    service.classified(vectors(20, 5), "lab_a")
    nearest = both(service, like)[1]
    moved, gone = nearest[0].particle_id, next(each.particle_id for each in nearest if each.particle_id in old[1:])
    with service.sem.database.transaction() as session:
        session.execute(
            update(ParticleRow).where(ParticleRow.id == moved).values(label_id="lab_b", updated_at=utc_now())
        )
        session.execute(delete(ParticleRow).where(ParticleRow.id == gone))
    for _ in range(2):
        same(*both(service, like))
        same(*both(service, like, ParticleRow.label_id == "lab_a", label_id="lab_a"))
        same(*both(service, like, ParticleRow.label_id == "lab_b", label_id="lab_b"))
        like.follow("default", "e-1")


def test_another_encoder_takes_over_when_all_its_vectors_are_there(service: Service, reopen: Reopen) -> None:
    ids = service.classified(vectors(60), "lab_a")
    like = reopen()
    like.follow("default", "e-1")
    with service.sem.database.transaction() as session:
        changed = {"encoder": "e-2", "vector": vectors(1, 7)[0][:8].tobytes(), "updated_at": utc_now()}
        session.execute(update(ParticleRow).where(ParticleRow.id.in_(ids[:30])).values(changed))
    query = vectors(1, 7)[0][:8]

    def found() -> list[Found] | None:
        with service.sem.database.read() as session:
            return like.nearest(session, READER, query, space="e-2", k=50)

    assert found() is None
    like.follow("default", "e-2")
    assert {each.particle_id for each in found() or []} == set(ids[:30])
    assert both(service, like)[0] is None  # of the encoder before, the records tell


def test_it_goes_on_after_a_restart_with_what_happened_meanwhile(service: Service, reopen: Reopen) -> None:
    ids = service.classified(vectors(60), "lab_a")
    reopen().follow("default", "e-1")
    service.classified(vectors(10, 4), "lab_a")
    like = reopen()
    like.follow("default", "e-1")
    same(*both(service, like))
    with service.sem.database.transaction() as session:  # erased while nobody looked: the copy has too many
        session.execute(delete(ParticleRow).where(ParticleRow.id.in_(ids[:40])))
    like = reopen()
    like.follow("default", "e-1")
    same(*both(service, like, k=50))


def test_a_version_that_a_killed_process_left_half_filled_is_begun_anew(service: Service, reopen: Reopen) -> None:
    service.classified(vectors(60), "lab_a")
    like = reopen()
    like._vectors().create(likeness._collection("default"), "a", dim=5, encoder="e-0")
    like.follow("default", "e-1")
    same(*both(service, like))


def test_an_erased_particle_leaves_the_collection_at_once(service: Service, reopen: Reopen) -> None:
    first, *_ = service.classified(vectors(30), "lab_a")
    like = reopen()
    like.follow("default", "e-1")
    like.forget("default", first)
    info = like._vectors().current(likeness._collection("default"))
    assert info is not None
    assert (info.points, info.encoder) == (29, "e-1")


def test_a_collection_that_another_process_gave_to_another_encoder_costs_no_search(
    service: Service, reopen: Reopen
) -> None:
    service.classified(vectors(30), "lab_a")
    like = reopen()
    like.follow("default", "e-1")
    store, collection = like._vectors(), likeness._collection("default")
    store.create(collection, "b", dim=5, encoder="e-2")
    store.publish(collection, "b")
    assert both(service, like)[0] is None
