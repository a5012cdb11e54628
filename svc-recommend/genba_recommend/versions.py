"""The versions of the towers that lists may need, each over the shelf as it is, with the vectors that refreshes added.

What is new in the catalogue is embedded here at once, a few thousand items at most; the refresh does the rest and keeps it.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from genba_recommend import store
from genba_recommend.catalogue import Shelf
from genba_recommend.index_vectors import VectorIndex, build, collection_of
from genba_recommend.serving_model import Aligned, Embedded, ServingModel, align, missing_or_stale
from genba_recommend.settings import Settings
from genba_shared.db import Database
from genba_shared.telemetry import get_logger
from genba_shared.vectors import Vectors

log = get_logger(__name__)
AGAIN_S = 60.0  # until an index that could not be built is tried again


class Versions:
    """``aligned`` by version number. One writer at a time."""

    def __init__(
        self, tenant: str, model: str, database: Database, settings: Settings, vectors: Callable[[], Vectors]
    ) -> None:
        self._tenant, self._model, self._database, self._settings = tenant, model, database, settings
        self._vectors = vectors
        self._builds: dict[int, _Build] = {}
        self.aligned: dict[int, Aligned] = {}
        self.without_vector: dict[int, int] = {}
        self._extra: dict[int, dict[str, Embedded]] = {}
        self._refreshes: dict[int, int] = {}
        self._stale_shelf = False
        self._generation = 0
        self._forgotten: set[int] = set()
        self._marked: int | str | None = "unknown"

    def shelf_changed(self) -> None:
        """Everything has to be laid over the shelf anew."""
        self._stale_shelf = True

    def follow(self, shelf: Shelf, wanted: Mapping[int, ServingModel]) -> bool:
        """Hold exactly the wanted versions, over this shelf, with all that refreshes wrote. Returns: whether anything changed."""
        with self._database.read() as session:
            refreshes = store.refreshes(session, self._model)
        changed = False
        for number in [number for number in self.aligned if number not in wanted]:
            for held in (self.aligned, self._extra, self._refreshes, self.without_vector):
                held.pop(number, None)
            if (dropped := self._builds.pop(number, None)) is not None:
                dropped.stop()
            changed = True
        for number, model in wanted.items():
            refreshed = refreshes.get(number, 0) != self._refreshes.get(number)
            if number in self.aligned and not refreshed and not self._stale_shelf:
                continue
            if refreshed:
                self._extra[number] = self._stored(model)
                self._refreshes[number] = refreshes.get(number, 0)
            self._lay(model, shelf)
            changed = True
        self._stale_shelf = False
        return self._take_up_indexes(shelf) or changed

    def laid(self, model: ServingModel, shelf: Shelf) -> Aligned:
        """A version that is not held, over a shelf, with what refreshes wrote; it is not kept."""
        return align(model, shelf, self._stored(model), generation=0)

    def _take_up_indexes(self, shelf: Shelf) -> bool:
        """Where there are too many items to score, build an index aside and search it once it is there."""
        changed = False
        for number, aligned in list(self.aligned.items()):
            if len(aligned.model.loaded) <= self._settings.exact_up_to or aligned.index.name != "exact":
                continue
            under_way = self._builds.get(number)
            if under_way is None:
                self._builds[number] = _Build(self._tenant, aligned.model, self._settings, self._vectors)
            elif under_way.is_done:
                self.aligned[number] = replace(aligned, index=under_way.index(aligned, shelf, self._extra[number]))
                changed = True
        return changed

    def _stored(self, model: ServingModel) -> dict[str, Embedded]:
        """What refreshes wrote."""
        with self._database.read() as session:
            found = list(store.vectors(session, self._tenant, model.number, "item"))
        return {
            each.id: Embedded(each.vector, each.content_hash) for each in found if each.vector.shape == (model.dim,)
        }

    def _lay(self, model: ServingModel, shelf: Shelf) -> None:
        extra = self._extra.setdefault(model.number, {})
        missing = missing_or_stale(model, shelf, extra)
        now, later = missing[: self._settings.embed_at_once], missing[self._settings.embed_at_once :]
        if now:
            entries = [shelf.entries[row] for row in now]
            try:
                vectors = model.embed_items([entry.item for entry in entries])
            except Exception as error:  # noqa: BLE001 - a row that cannot be embedded must not stop the others' lists
                log.warning("items_not_embedded", version=model.number, items=len(now), error=type(error).__name__)
                later = missing
            else:
                for entry, vector in zip(entries, vectors, strict=True):
                    if np.isfinite(vector).all():
                        extra[entry.item.item_id] = Embedded(vector, entry.content_hash)
        self._generation += 1
        self.aligned[model.number] = align(model, shelf, extra, generation=self._generation)
        self.without_vector[model.number] = len(later)

    def mark(self, champion: int | None) -> None:
        """Repeat in the table which version serves."""
        if champion == self._marked:
            return
        with self._database.transaction() as session:
            store.mark_active(session, self._model, champion)
        self._marked = champion

    def forget_retired(self) -> None:
        """Delete the vectors of versions that the registry has retired, in the table and in indexes: nothing lists by them again."""
        with self._database.read() as session:
            retired = set(store.retired_versions(session, self._model)) - self._forgotten - set(self.aligned)
        for number in sorted(retired):
            with self._database.transaction() as session:
                store.delete_vectors(session, self._tenant, [number])
            if self._builds:  # else there is no index, and perhaps no store to ask
                self._vectors().remove(collection_of(self._tenant, number))
            self._forgotten.add(number)

    def close(self) -> None:
        """Let go of what is held, and of what is being built."""
        for under_way in self._builds.values():
            under_way.stop()
        self.aligned = {}


class _Build:
    """The vector index of one version, built by a thread while every item is still scored."""

    def __init__(self, tenant: str, model: ServingModel, settings: Settings, vectors: Callable[[], Vectors]) -> None:
        self._model, self._vectors = model, vectors
        self._collection = collection_of(tenant, model.number)
        host = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-") or "host"
        self._builder = "local" if settings.platform.qdrant_url is None else host
        self._encoder = model_of_vectors(model)
        self._over = threading.Event()
        self.is_done = False
        self._thread = threading.Thread(target=self._work, name=f"index-{self._collection}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        loaded = self._model.loaded
        while not self.is_done and not self._over.is_set():
            try:
                self.is_done = build(
                    self._vectors(), self._collection, self._encoder, loaded.ids, loaded.vectors,
                    builder=self._builder, stop=self._over.is_set,
                )  # fmt: skip
            except Exception:  # every item is scored until it works
                log.exception("index_not_built", collection=self._collection)
                self._over.wait(AGAIN_S)

    def index(self, aligned: Aligned, shelf: Shelf, extra: Mapping[str, Embedded]) -> VectorIndex:
        """The index over a shelf."""
        later = [row for item_id in extra if (row := shelf.row(item_id)) is not None]
        return VectorIndex(
            self._vectors(), self._collection, self._encoder, aligned.vectors,
            row_of=shelf.row, later=np.array(sorted(later), np.int64),
        )  # fmt: skip

    def stop(self) -> None:
        """End before it is done, if need be."""
        self._over.set()
        self._thread.join()


def model_of_vectors(model: ServingModel) -> str:
    """What made the vectors of a collection: no query of another version is ever compared with them."""
    return f"two-tower v{model.number} {model.loaded.data_hash[:16]}"
