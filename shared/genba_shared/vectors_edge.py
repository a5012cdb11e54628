"""``Vectors`` over qdrant-edge: Qdrant's engine in this process, a folder per version.

    <root>/<collection>/current                      the version that is searched: one line, replaced by rename
    <root>/<collection>/<version>/about.json         encoder, dimensions
    <root>/<collection>/<version>/shard/             Qdrant's own files

A shard belongs to one process at a time, which is why one is opened only when it is used: a worker may build a version,
publish and close it, while the API goes on with the old one and takes the new one up at its next search.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import qdrant_edge

from genba_shared.durable import flush_folder
from genba_shared.problems import AlreadyExists, Conflict, NotFound, Unavailable
from genba_shared.telemetry import get_logger
from genba_shared.vectors import (
    CollectionInfo,
    FilterKind,
    Hit,
    Point,
    Scalar,
    VectorLike,
    Where,
    alternatives,
    batches,
    check_collection,
    check_encoder,
    check_vector,
    hit,
    matches_nothing,
    point_id,
    stored_payload,
    versioned_name,
)

_INDEX_FROM_BYTES = 10_000_000  # Qdrant builds no graph below this; a plain scan of it takes about a millisecond
_FLAGS_FIELD = "_flags"
_OPTIMIZE = "import sys, qdrant_edge; s = qdrant_edge.EdgeShard.load(sys.argv[1]); s.optimize(); s.flush(); s.close()"

log = get_logger(__name__)


@dataclass
class _Shard:
    """An open shard and how many calls are using it. ``retired``: the last of them closes it."""

    key: tuple[str, str]  # collection, version
    about: dict[str, Any]
    engine: Any
    users: int = 0
    retired: bool = False


class EdgeVectors:
    """Collections under one folder, served from this process."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Condition(threading.RLock())
        self._shards: dict[tuple[str, str], _Shard] = {}
        self._served: dict[str, str] = {}

    def create(
        self,
        collection: str,
        version: str,
        *,
        dim: int,
        encoder: str,
        filters: Mapping[str, FilterKind] | None = None,
    ) -> None:
        folder = self._folder(collection, version)
        aside = folder.with_name(f".new-{secrets.token_hex(8)}")
        try:
            (aside / "shard").mkdir(parents=True)
            params = qdrant_edge.EdgeVectorParams(size=dim, distance=qdrant_edge.Distance.Cosine)
            shard = qdrant_edge.EdgeShard.create(str(aside / "shard"), qdrant_edge.EdgeConfig(vectors=params))
            for name, kind in (filters or {}).items():
                schema = getattr(qdrant_edge.PayloadSchemaType, kind.capitalize())
                shard.update(qdrant_edge.UpdateOperation.create_field_index(name, schema))
            shard.flush()
            shard.close()
            _write_durably(aside / "about.json", orjson.dumps({"dim": dim, "encoder": encoder}))
            try:
                aside.rename(folder)
            except OSError as error:  # a folder that holds something cannot be renamed over
                raise AlreadyExists(f"{collection} has a version {version} already.") from error
            flush_folder(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def upsert(self, collection: str, version: str, points: Sequence[Point]) -> None:
        with self._using(collection, version) as shard:
            dim = shard.about["dim"]
            ready = [qdrant_edge.Point(point_id(p.id), check_vector(p.vector, dim), _payload(p)) for p in points]
            for batch in batches(ready):
                shard.engine.update(qdrant_edge.UpdateOperation.upsert_points(list(batch)))

    def publish(self, collection: str, version: str) -> None:
        folder = self._folder(collection, version)
        if self._pointer(collection) == version:
            return
        with self._using(collection, version) as shard:
            shard.engine.flush()
            size_bytes = _count(shard.engine) * shard.about["dim"] * 4
        if size_bytes >= _INDEX_FROM_BYTES:
            with self._lock:
                self._close_and_wait(collection, version)
            # In a process of its own: building the graph holds the interpreter lock for seconds.
            subprocess.run([sys.executable, "-c", _OPTIMIZE, str(folder / "shard")], check=True)
        _write_durably(folder.parent / "current", version.encode())

    def current(self, collection: str) -> CollectionInfo | None:
        check_collection(collection)
        if self._pointer(collection) is None:
            return None
        with self._serving(collection) as (version, shard):
            about = shard.about
            return CollectionInfo(collection, version, about["dim"], about["encoder"], _count(shard.engine))

    def search(
        self,
        collection: str,
        vector: VectorLike,
        *,
        k: int,
        encoder: str,
        where: Where | None = None,
    ) -> list[Hit]:
        with self._serving(collection) as (_, shard):
            check_encoder(collection, encoder, holds=shard.about["encoder"])
            query = check_vector(vector, shard.about["dim"])
            if matches_nothing(where):
                return []
            request = qdrant_edge.SearchRequest(
                qdrant_edge.Query.Nearest(query), k, filter=_filter(where), with_payload=True
            )
            return [hit(found.payload, found.score) for found in shard.engine.search(request)]

    def delete(self, collection: str, ids: Sequence[str]) -> None:
        with self._serving(collection) as (_, shard):
            for batch in batches([point_id(given) for given in ids]):
                shard.engine.update(qdrant_edge.UpdateOperation.delete_points(list(batch)))

    def drop(self, collection: str, version: str) -> None:
        folder = self._folder(collection, version)
        with self._lock:
            if self._pointer(collection) == version:
                raise Conflict(f"{collection} {version} is being searched; publish another version first.")
            self._close_and_wait(collection, version)
            if folder.exists():
                aside = folder.with_name(f".dropped-{secrets.token_hex(8)}")
                folder.rename(aside)
                shutil.rmtree(aside)

    def remove(self, collection: str) -> None:
        folder = self._root / check_collection(collection)
        with self._lock:
            (folder / "current").unlink(missing_ok=True)
            self._served.pop(collection, None)
            for held, version in list(self._shards):
                if held == collection:
                    self._close_and_wait(collection, version)
            if folder.exists():
                aside = folder.with_name(f".removed-{secrets.token_hex(8)}")
                folder.rename(aside)
                shutil.rmtree(aside)

    def close(self) -> None:
        with self._lock:
            for shard in list(self._shards.values()):
                self._retire(shard)
            self._served.clear()

    @contextmanager
    def _serving(self, collection: str) -> Iterator[tuple[str, _Shard]]:
        """The version to search now: the published one or, while that cannot be opened, the one before."""
        check_collection(collection)
        with self._lock:
            published, served = self._pointer(collection), self._served.get(collection)
            if published is None:
                raise NotFound(f"The vector collection {collection} has not been published.")
            if published != served:
                served = self._take_up(collection, published, served)
            shard = self._acquire(collection, served)
        try:
            yield served, shard
        finally:
            self._release(shard)

    def _take_up(self, collection: str, published: str, served: str | None) -> str:
        try:
            self._release(self._acquire(collection, published))
        except Exception as error:
            if served is None:
                raise
            log.warning("vectors_not_taken_up", collection=collection, version=published, error=str(error))
            return served
        if served is not None and (before := self._shards.get((collection, served))) is not None:
            self._retire(before)
        self._served[collection] = published
        return published

    @contextmanager
    def _using(self, collection: str, version: str) -> Iterator[_Shard]:
        shard = self._acquire(collection, version)
        try:
            yield shard
        finally:
            self._release(shard)

    def _acquire(self, collection: str, version: str) -> _Shard:
        with self._lock:
            key = (collection, version)
            shard = self._shards.get(key)
            if shard is None:
                shard = self._shards[key] = _load(key, self._folder(collection, version))
            shard.users += 1
            return shard

    def _release(self, shard: _Shard) -> None:
        with self._lock:
            shard.users -= 1
            if shard.retired and not shard.users:
                self._close(shard)

    def _retire(self, shard: _Shard) -> None:
        """Close an open shard, here or by the last call that still uses it."""
        shard.retired = True
        if not shard.users:
            self._close(shard)

    def _close_and_wait(self, collection: str, version: str) -> None:
        """Its files belong to nobody in this process any more, whoever retired it."""
        shard = self._shards.get((collection, version))
        if shard is not None:
            self._retire(shard)
            self._lock.wait_for(lambda: shard.key not in self._shards)

    def _close(self, shard: _Shard) -> None:
        try:
            shard.engine.flush()
        finally:
            shard.engine.close()
            del self._shards[shard.key]
            self._lock.notify_all()

    def _pointer(self, collection: str) -> str | None:
        try:
            return (self._root / collection / "current").read_text(encoding="ascii")
        except FileNotFoundError:
            return None

    def _folder(self, collection: str, version: str) -> Path:
        versioned_name(collection, version)
        return self._root / collection / version


def _load(key: tuple[str, str], folder: Path) -> _Shard:
    """Raises: NotFound; Unavailable while another process has it open."""
    try:
        about = orjson.loads((folder / "about.json").read_bytes())
    except FileNotFoundError as error:
        raise NotFound(f"There is no version {folder.name} of the vector collection {folder.parent.name}.") from error
    try:
        return _Shard(key, about, qdrant_edge.EdgeShard.load(str(folder / "shard")))
    except Exception as error:
        if "WouldBlock" in str(error):
            raise Unavailable(
                f"Another process has {folder.parent.name} {folder.name} open; it must close it first."
            ) from error
        raise


def _count(engine: Any) -> int:
    return int(engine.count(qdrant_edge.CountRequest(exact=True)))


def _payload(point: Point) -> dict[str, Any]:
    flags = [_flag(name, value) for name, value in point.payload.items() if isinstance(value, bool)]
    return {**stored_payload(point), **({_FLAGS_FIELD: flags} if flags else {})}


def _flag(name: str, value: object) -> str:
    """The binding takes True for the integer 1, which equals no JSON ``true``: flags are matched as words instead."""
    return f"{name}={value}"


def _filter(where: Where | None) -> Any:
    must = [
        qdrant_edge.Filter(should=[_condition(name, value) for value in values])
        for name, values in alternatives(where).items()
    ]
    return qdrant_edge.Filter(must=must) if must else None


def _condition(name: str, value: Scalar) -> Any:
    if isinstance(value, bool):
        name, value = _FLAGS_FIELD, _flag(name, value)
    return qdrant_edge.FieldCondition(name, match=qdrant_edge.MatchValue(value))


def _write_durably(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    with aside.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    flush_folder(path.parent)
