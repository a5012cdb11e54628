"""What a vector store promises, from Qdrant's engine in the process and from a Qdrant server.

The server is qdrant-client's local mode, and a real one too when GENBA_QDRANT_URL is set.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pytest
from qdrant_client import QdrantClient

from genba_shared import vectors_edge
from genba_shared.problems import AlreadyExists, Conflict, EncoderMismatch, NotFound, Unavailable
from genba_shared.settings import Platform
from genba_shared.vectors import Point, Vectors, hit, open_vectors
from genba_shared.vectors_edge import EdgeVectors
from genba_shared.vectors_server import ServerVectors

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning")

DIM = 8
ENCODER = "motion-hog-v1"
QDRANT_URL = os.environ.get("GENBA_QDRANT_URL")


@pytest.fixture(params=["edge", "memory", *(["server"] if QDRANT_URL else [])])
def vectors(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vectors]:
    opened: Vectors
    if request.param == "edge":
        opened = EdgeVectors(tmp_path / "vectors")
    elif request.param == "memory":
        opened = ServerVectors(QdrantClient(":memory:"))
    else:
        opened = ServerVectors.connect(str(QDRANT_URL))
    yield opened
    opened.close()


@pytest.fixture
def collection() -> str:
    return f"frames-{uuid4().hex[:8]}"


def unit(axis: int, *, lean: float = 0.0) -> npt.NDArray[np.float32]:
    vector = np.zeros(DIM, dtype=np.float32)
    vector[axis], vector[(axis + 1) % DIM] = 1.0, lean
    return vector


def points(*ids: str, **payload: Any) -> list[Point]:
    return [Point(name, unit(axis), {"axis": axis, **payload}) for axis, name in enumerate(ids)]


def filled(vectors: Vectors, collection: str, version: str = "v1", *, encoder: str = ENCODER) -> None:
    vectors.create(collection, version, dim=DIM, encoder=encoder, filters={"tenant": "keyword"})
    vectors.upsert(collection, version, points("vid_a", "vid_b", "vid_c", tenant="default"))
    vectors.publish(collection, version)


def ids(vectors: Vectors, collection: str, near: int = 0, *, k: int = 10, **where: Any) -> list[str]:
    return [hit.id for hit in vectors.search(collection, unit(near), k=k, encoder=ENCODER, where=where)]


def test_the_nearest_come_first_with_their_similarity_and_payload(vectors: Vectors, collection: str) -> None:
    filled(vectors, collection)
    first, second, third = vectors.search(collection, unit(1, lean=0.5), k=3, encoder=ENCODER)
    assert [first.id, second.id, third.id] == ["vid_b", "vid_c", "vid_a"]
    assert first.score == pytest.approx(1 / np.hypot(1, 0.5), abs=1e-6)
    assert third.score == pytest.approx(0, abs=1e-6)
    assert first.payload == {"axis": 1, "tenant": "default"}


def test_scores_agree_with_numpy_on_random_vectors(vectors: Vectors, collection: str) -> None:
    rng = np.random.default_rng(7)
    stored = rng.normal(size=(300, DIM)).astype(np.float32)
    query = rng.normal(size=DIM).astype(np.float32)
    vectors.create(collection, "v1", dim=DIM, encoder=ENCODER)
    vectors.upsert(collection, "v1", [Point(str(n), row) for n, row in enumerate(stored)])
    vectors.publish(collection, "v1")
    cosine = stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)  # (300,)
    hits = vectors.search(collection, query, k=10, encoder=ENCODER)
    assert [hit.id for hit in hits] == [str(n) for n in np.argsort(-cosine)[:10]]
    assert [hit.score for hit in hits] == pytest.approx(np.sort(cosine)[::-1][:10], abs=1e-5)


def test_current_tells_what_is_searched(vectors: Vectors, collection: str) -> None:
    assert vectors.current(collection) is None
    filled(vectors, collection)
    info = vectors.current(collection)
    assert info is not None
    assert (info.collection, info.version, info.dim, info.encoder, info.points) == (collection, "v1", DIM, ENCODER, 3)


def test_nothing_is_found_before_the_first_publish(vectors: Vectors, collection: str) -> None:
    vectors.create(collection, "v1", dim=DIM, encoder=ENCODER)
    for use in (lambda: ids(vectors, collection), lambda: vectors.delete(collection, ["a"])):
        with pytest.raises(NotFound):
            use()


def test_a_point_with_the_same_id_replaces_the_one_before(vectors: Vectors, collection: str) -> None:
    filled(vectors, collection)
    vectors.upsert(collection, "v1", [Point("vid_a", unit(5))])
    assert ids(vectors, collection, 5, k=1) == ["vid_a"]
    info = vectors.current(collection)
    assert info is not None
    assert info.points == 3


def test_points_are_found_by_every_kind_of_filter(vectors: Vectors, collection: str) -> None:
    vectors.create(collection, "v1", dim=DIM, encoder=ENCODER)
    vectors.upsert(
        collection,
        "v1",
        [
            Point("a", unit(0), {"tenant": "x", "clearance": 0, "gold": True, "tags": ["m8", "torque"]}),
            Point("b", unit(1), {"tenant": "x", "clearance": 2, "gold": False, "tags": ["m8"]}),
            Point("c", unit(2), {"tenant": "y", "clearance": 1, "gold": True}),
        ],
    )
    vectors.publish(collection, "v1")

    def found(**where: Any) -> set[str]:
        return set(ids(vectors, collection, **where))

    assert found() == {"a", "b", "c"}
    assert found(tenant="x") == {"a", "b"}
    assert found(clearance=[0, 1]) == {"a", "c"}
    assert found(tenant="x", clearance=[0, 1]) == {"a"}
    assert found(gold=True) == {"a", "c"}
    assert found(gold=False) == {"b"}
    assert found(gold=[True, False], tenant="y") == {"c"}
    assert found(tags="m8") == {"a", "b"}
    assert found(tags=["torque", "missing"]) == {"a"}
    assert found(tenant="nobody") == set()
    assert found(unknown_field="x") == set()


def test_one_of_no_values_matches_nothing_rather_than_everything(vectors: Vectors, collection: str) -> None:
    filled(vectors, collection)
    assert ids(vectors, collection, tenant=[]) == []
    assert ids(vectors, collection, tenant="default", axis=[]) == []


def test_vectors_of_another_encoder_are_not_compared(vectors: Vectors, collection: str) -> None:
    filled(vectors, collection)
    with pytest.raises(EncoderMismatch, match=r"holds vectors of motion-hog-v1.*one of openclip:ViT-H-14") as refused:
        vectors.search(collection, unit(0), k=1, encoder="openclip:ViT-H-14")
    assert refused.value.document()["expected"] == ENCODER


def test_a_vector_of_the_wrong_length_is_refused_before_anything_is_written(vectors: Vectors, collection: str) -> None:
    filled(vectors, collection)
    with pytest.raises(ValueError, match="8 dimensions"):
        vectors.upsert(collection, "v1", [Point("vid_d", unit(3)), Point("vid_e", [1.0, 2.0])])
    with pytest.raises(ValueError, match="8 dimensions"):
        vectors.search(collection, [1.0], k=1, encoder=ENCODER)
    assert "vid_d" not in ids(vectors, collection)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_is_refused(vectors: Vectors, collection: str, value: float) -> None:
    filled(vectors, collection)
    with pytest.raises(ValueError, match="nan or inf"):
        vectors.upsert(collection, "v1", [Point("vid_d", [value] * DIM)])
    with pytest.raises(ValueError, match="nan or inf"):
        vectors.search(collection, [value] * DIM, k=1, encoder=ENCODER)


def test_a_version_is_made_once(vectors: Vectors, collection: str) -> None:
    filled(vectors, collection)
    with pytest.raises(AlreadyExists):
        vectors.create(collection, "v1", dim=DIM, encoder=ENCODER)
    assert len(ids(vectors, collection)) == 3


def test_a_version_that_does_not_exist_is_not_found(vectors: Vectors, collection: str) -> None:
    with pytest.raises(NotFound):
        vectors.upsert(collection, "v9", points("a"))
    with pytest.raises(NotFound):
        vectors.publish(collection, "v9")


def test_a_version_being_built_is_not_searched_until_it_is_published(vectors: Vectors, collection: str) -> None:
    filled(vectors, collection)
    vectors.create(collection, "v2", dim=DIM, encoder="openclip:ViT-B-32")
    vectors.upsert(collection, "v2", points("new"))
    assert set(ids(vectors, collection)) == {"vid_a", "vid_b", "vid_c"}
    vectors.publish(collection, "v2")
    info = vectors.current(collection)
    assert info is not None
    assert (info.version, info.encoder, info.points) == ("v2", "openclip:ViT-B-32", 1)
    with pytest.raises(EncoderMismatch):
        ids(vectors, collection)


def test_publishing_an_older_version_again_is_a_rollback(vectors: Vectors, collection: str) -> None:
    filled(vectors, collection)
    vectors.create(collection, "v2", dim=DIM, encoder=ENCODER)
    vectors.publish(collection, "v2")
    assert ids(vectors, collection) == []
    vectors.publish(collection, "v1")
    vectors.publish(collection, "v1")
    assert len(ids(vectors, collection)) == 3


def test_searches_go_on_while_versions_flip(vectors: Vectors, collection: str) -> None:
    filled(vectors, collection, "v0")
    stop, failures, done = threading.Event(), [], []

    def search() -> None:
        while not stop.is_set():
            try:
                done.append(len(ids(vectors, collection)))
            except Exception as error:  # noqa: BLE001 (any failure fails the test)
                failures.append(error)

    searching = [threading.Thread(target=search) for _ in range(2)]
    for thread in searching:
        thread.start()
    for n in range(1, 6):
        filled(vectors, collection, f"v{n}")
        vectors.drop(collection, f"v{n - 1}")
    stop.set()
    for thread in searching:
        thread.join()
    assert failures == []
    assert set(done) == {3}


def test_a_version_is_dropped_only_after_the_last_search_in_it(
    tmp_path: Path, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search that took the new version up had retired the old one: the drop must wait all the same."""
    vectors = EdgeVectors(tmp_path / "vectors")
    filled(vectors, collection, "v1")
    began, go_on, found = threading.Event(), threading.Event(), []

    def read_late(payload: Any, score: float) -> Any:
        began.set()
        assert go_on.wait(30)
        return hit(payload, score)

    monkeypatch.setattr("genba_shared.vectors_edge.hit", read_late)
    searching = threading.Thread(target=lambda: found.append(len(ids(vectors, collection))))
    searching.start()
    assert began.wait(30)
    monkeypatch.setattr("genba_shared.vectors_edge.hit", hit)
    filled(vectors, collection, "v2")
    assert len(ids(vectors, collection)) == 3
    dropping = threading.Thread(target=vectors.drop, args=(collection, "v1"))
    dropping.start()
    dropping.join(0.2)
    assert dropping.is_alive()
    go_on.set()
    searching.join()
    dropping.join()
    assert found == [3]
    assert not (tmp_path / "vectors" / collection / "v1").exists()
    vectors.close()


def test_deleted_points_are_not_found_again(vectors: Vectors, collection: str) -> None:
    filled(vectors, collection)
    vectors.delete(collection, ["vid_a", "never there"])
    vectors.delete(collection, [])
    assert set(ids(vectors, collection)) == {"vid_b", "vid_c"}


def test_a_dropped_version_is_gone_and_the_current_one_cannot_be_dropped(vectors: Vectors, collection: str) -> None:
    filled(vectors, collection, "v1")
    filled(vectors, collection, "v2")
    vectors.drop(collection, "v1")
    vectors.drop(collection, "v1")
    with pytest.raises(NotFound):
        vectors.publish(collection, "v1")
    with pytest.raises(Conflict):
        vectors.drop(collection, "v2")
    assert len(ids(vectors, collection)) == 3


def test_a_collection_is_removed_with_all_its_versions_and_can_be_made_again(vectors: Vectors, collection: str) -> None:
    other = f"{collection}-2"
    for name in (collection, other):
        filled(vectors, name, "v1")
    filled(vectors, collection, "v2")
    assert len(ids(vectors, collection)) == 3
    vectors.remove(collection)
    vectors.remove(collection)
    assert vectors.current(collection) is None
    for version in ("v1", "v2"):
        with pytest.raises(NotFound):
            vectors.publish(collection, version)
    filled(vectors, collection, "v1")
    assert len(ids(vectors, collection)) == len(ids(vectors, other)) == 3


def test_collections_do_not_see_each_other(vectors: Vectors, collection: str) -> None:
    filled(vectors, collection)
    longer = f"{collection}-v1"
    vectors.create(longer, "v1", dim=DIM, encoder=ENCODER)
    vectors.publish(longer, "v1")
    assert ids(vectors, longer) == []
    assert len(ids(vectors, collection)) == 3


def test_unsafe_names_are_refused(vectors: Vectors) -> None:
    for name in ("", "..", "a/b", "../x", "A", "_a", "a-", "ä", "a b", "a\n"):
        with pytest.raises(ValueError, match="no collection"):
            vectors.create(name, "v1", dim=DIM, encoder=ENCODER)
        with pytest.raises(ValueError, match="no collection"):
            vectors.current(name)
        with pytest.raises(ValueError, match="no version"):
            vectors.create("frames", name, dim=DIM, encoder=ENCODER)
    with pytest.raises(ValueError, match="no collection"):
        vectors.current("frames__v1")


def test_more_points_than_one_write_holds_all_arrive(vectors: Vectors, collection: str) -> None:
    vectors.create(collection, "v1", dim=DIM, encoder=ENCODER)
    vectors.upsert(collection, "v1", [Point(str(n), unit(n % DIM)) for n in range(1203)])
    vectors.publish(collection, "v1")
    info = vectors.current(collection)
    assert info is not None
    assert info.points == 1203


def test_the_platform_says_which_store_it_is(platform: Platform) -> None:
    here = open_vectors(platform)
    there = open_vectors(platform.model_copy(update={"qdrant_url": "http://127.0.0.1:1"}))
    assert isinstance(here, EdgeVectors)
    assert isinstance(there, ServerVectors)
    with pytest.raises(Unavailable, match="cannot be reached"):
        there.current("frames")
    here.close()
    there.close()


def test_both_stores_agree_after_the_same_random_work(tmp_path: Path) -> None:
    rng = np.random.default_rng(20261121)
    stores: list[Vectors] = [EdgeVectors(tmp_path), ServerVectors(QdrantClient(":memory:"))]
    for store in stores:
        store.create("frames", "v1", dim=DIM, encoder=ENCODER)
        store.publish("frames", "v1")
    for _ in range(60):
        ids_ = [f"p{n}" for n in rng.integers(0, 80, size=8)]
        written = [
            Point(
                name, rng.normal(size=DIM), {"n": int(rng.integers(3)), "even": bool(rng.integers(2)), "of": name[-1]}
            )
            for name in dict.fromkeys(ids_)
        ]
        removed = [f"p{n}" for n in rng.integers(0, 80, size=3)]
        query = rng.normal(size=DIM)
        wanted: dict[str, Any] = {"n": [int(n) for n in rng.integers(0, 3, size=2)], "even": True}
        answers = []
        for store in stores:
            store.upsert("frames", "v1", written)
            store.delete("frames", removed)
            found = store.search("frames", query, k=5, encoder=ENCODER, where=wanted)
            answers.append([(hit.id, round(hit.score, 4), dict(hit.payload)) for hit in found])
        assert answers[0] == answers[1]
    counts = {info.points for store in stores if (info := store.current("frames"))}
    assert len(counts) == 1
    for store in stores:
        store.close()


# What only the engine in the process has to prove: it owns files.


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    before = EdgeVectors(tmp_path)
    filled(before, "frames")
    before.close()
    after = EdgeVectors(tmp_path)
    assert len(ids(after, "frames")) == 3
    after.close()


WRITER = """
import sys, pathlib
from genba_shared.vectors import Point
from genba_shared.vectors_edge import EdgeVectors
vectors = EdgeVectors(pathlib.Path(sys.argv[1]))
n = 0
while True:
    vectors.upsert("frames", "v1", [Point(str(n + i), [1.0] * 8, {"n": n + i}) for i in range(50)])
    n += 50
    print(n, flush=True)
"""


def test_a_store_opens_after_its_process_was_killed_and_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    vectors = EdgeVectors(tmp_path)
    vectors.create("frames", "v1", dim=DIM, encoder=ENCODER)
    vectors.publish("frames", "v1")
    vectors.close()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline() for _ in range(20)][-1]
    writer.send_signal(signal.SIGKILL)
    acknowledged = ([acknowledged, *writer.stdout.readlines()])[-1]
    writer.wait()
    writer.stdout.close()
    info = vectors.current("frames")
    assert info is not None
    assert info.points >= int(acknowledged)
    vectors.upsert("frames", "v1", points("goes on"))
    assert len(vectors.search("frames", [1.0] * DIM, k=5, encoder=ENCODER)) == 5
    vectors.close()


def test_a_shard_that_another_process_holds_is_unavailable_and_says_why(tmp_path: Path) -> None:
    holder = EdgeVectors(tmp_path)
    filled(holder, "frames")
    other = EdgeVectors(tmp_path)
    with pytest.raises(Unavailable, match="Another process"):
        ids(other, "frames")
    holder.close()
    assert len(ids(other, "frames")) == 3
    other.close()


def test_the_api_takes_up_what_a_worker_published_once_the_worker_lets_go(tmp_path: Path) -> None:
    api, worker = EdgeVectors(tmp_path), EdgeVectors(tmp_path)
    filled(api, "frames", "v1")
    assert len(ids(api, "frames")) == 3
    worker.create("frames", "v2", dim=DIM, encoder=ENCODER)
    worker.upsert("frames", "v2", points("new"))
    worker.publish("frames", "v2")
    assert len(ids(api, "frames")) == 3  # the worker still has the new one open: the old one goes on serving
    worker.close()
    assert ids(api, "frames") == ["new"]
    api.close()


def test_a_version_that_cannot_be_opened_leaves_the_old_one_serving(tmp_path: Path) -> None:
    vectors = EdgeVectors(tmp_path)
    filled(vectors, "frames", "v1")
    assert len(ids(vectors, "frames")) == 3
    (tmp_path / "frames" / "v2" / "shard").mkdir(parents=True)
    (tmp_path / "frames" / "v2" / "about.json").write_text('{"dim": 8, "encoder": "motion-hog-v1"}')
    (tmp_path / "frames" / "current").write_text("v2")
    assert len(ids(vectors, "frames")) == 3
    vectors.close()


def test_a_create_that_was_interrupted_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = EdgeVectors(tmp_path)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            vectors.create("frames", "v1", dim=DIM, encoder=ENCODER)
    filled(vectors, "frames", "v1")
    assert len(ids(vectors, "frames")) == 3
    vectors.close()


def test_publishing_a_large_version_builds_its_graph_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_edge, "_INDEX_FROM_BYTES", 1)
    vectors = EdgeVectors(tmp_path)
    filled(vectors, "frames")
    assert len(ids(vectors, "frames")) == 3
    vectors.close()
