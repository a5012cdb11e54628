"""A version of the towers as a service holds it: item vectors by row of the catalogue, the user tower in ONNX, the prior.

``ServingModel`` is what a bundle holds; ``Aligned`` is the same over one shelf of the catalogue. Needs onnxruntime, not torch.
Knows no table and no HTTP.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genba_recommend.blending import MOST_HISTORY
from genba_recommend.bundle import LoadedModel
from genba_recommend.catalogue import Shelf
from genba_recommend.dataset import Item, User
from genba_recommend.features import ItemFeatures, Windows, no_history
from genba_recommend.index import NO_LIFT, ExactIndex, Index, Lift
from genba_recommend.neighbours import Neighbours
from genba_recommend.people import Person
from genba_recommend.prior import Prior
from genba_recommend.reranker import Profile, Reranker

Float32s = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
HASHES = "content_hashes.json"  # of the items as they were learnt from, by id


@dataclass(frozen=True)
class Embedded:
    """An item's vector, (D,), and what it was made from."""

    vector: Float32s
    content_hash: str


@dataclass(frozen=True)
class ServingModel:
    """A bundle with its number, and what its items' contents hashed to when they were learnt from, by id."""

    number: int
    loaded: LoadedModel
    content_hashes: Mapping[str, str]

    @property
    def dim(self) -> int:
        return int(self.loaded.vectors.shape[1])

    @property
    def prior(self) -> Prior:
        return self.loaded.prior

    @property
    def history_len(self) -> int:
        return self.loaded.encoders.config.history_len

    @classmethod
    def load(cls, folder: Path, number: int) -> ServingModel:
        """Raises: BundleUnreadable."""
        hashes = folder / HASHES
        return cls(number, LoadedModel.load(folder), json.loads(hashes.read_text("utf-8")) if hashes.exists() else {})

    def warm_up(self) -> None:
        """Run both towers once: what does not run must not serve."""
        self.embed_items([Item("")])
        nothing = self.loaded.items.take(slice(0, 0))
        self.loaded.embed_users([User("")], no_history(1, length=1), nothing, self.loaded.vectors[:0])

    def embed_items(self, items: Sequence[Item]) -> Float32s:
        """(B, D) vectors of items, known or new."""
        return self.loaded.embed_items(items)

    def embed_user(self, person: Person, aligned: Aligned) -> Float32s:
        """(D,) the vector of somebody with the history that they have now."""
        rows, windows = aligned.window(person, self.history_len)
        vector: Float32s = self.loaded.embed_users(
            [person.user], windows, aligned.features(rows), aligned.vectors[rows]
        )[0]
        return vector

    def embed_people(self, people: Sequence[Person], aligned: Aligned) -> Float32s:
        """(B, D) the same for many at once; B > 0."""
        found = [aligned.window(person, self.history_len) for person in people]
        near = np.unique(np.concatenate([rows for rows, _ in found]))
        shape = (len(found), max(windows.history.shape[1] for _, windows in found))
        history, weight = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        for at, (rows, windows) in enumerate(found):
            history[at, : len(rows)] = np.searchsorted(near, rows) + 1
            weight[at, : len(rows)] = windows.weight[0, : len(rows)]
        together = Windows(
            history,
            weight,
            np.concatenate([windows.n_events for _, windows in found]),
            np.concatenate([windows.mean_watched_s for _, windows in found]),
        )
        users = [person.user for person in people]
        return self.loaded.embed_users(users, together, aligned.features(near), aligned.vectors[near])


@dataclass(frozen=True)
class Taste:
    """What a version makes of somebody at one moment.

    vector: (D,), unit length.   query: (D,), the vector over the temperature, times what the towers count.
    rows: of the history that it was made from.
    lift: what the neighbours of the history get on top.   profile: how they differ from the crowd, None without a second stage.
    """

    vector: Float32s
    query: Float32s
    rows: Int32s
    lift: Lift
    profile: Profile | None = None


@dataclass(frozen=True)
class Aligned:
    """A version over a shelf of N items: what a list is made from, whole and of one version.

    vectors: (N, D), zeros where there is none.   present: (N,).   bias: (N,), the prior now.   neighbours, reranker: by row.
    lasting: (N,), what places after the first get on top of the bias; None where that does not help.
    newcomers: (N,), what is popular now for people without history, -inf where nothing is; None where that was not tuned.
    foreseen: (N,), events a day of an item that nobody has touched; None where that cannot be told.
    """

    model: ServingModel
    vectors: Float32s
    genre: Int32s
    maker: Int32s
    present: npt.NDArray[np.bool_]
    index: Index
    bias: Float32s
    neighbours: Neighbours
    reranker: Reranker
    lasting: Float32s | None = None
    newcomers: Float32s | None = None
    foreseen: Float32s | None = None
    generation: int = 0  # another one when vectors change; what is remembered of a user is remembered under it

    def taste(self, person: Person) -> Taste:
        """Everything of somebody that a list needs; nothing of it changes until they do something else."""
        loaded = self.model.loaded
        rows, windows = self.window(person, self.model.history_len)
        if not len(rows):
            nothing = np.zeros(self.model.dim, np.float32)
            return Taste(nothing, nothing, rows, NO_LIFT)
        vector = loaded.embed_users([person.user], windows, self.features(rows), self.vectors[rows])[0]
        scale = loaded.blend.towers_at(windows.n_events)[0] / np.float32(loaded.temperature)
        return Taste(vector, scale * vector, rows, self.lift(person), self.profile(person))

    def lift(self, person: Person) -> Lift:
        """What the history speaks for beside the towers, among the items that are present."""
        blend = self.model.loaded.blend
        if not blend.neighbours or self.neighbours.is_empty:
            return NO_LIFT
        rows, weight = self.spoken(person)
        return Lift(*self.neighbours.spoken_for(rows, blend.of_history(weight)))

    def profile(self, person: Person, *, without: int | None = None) -> Profile | None:
        """How somebody differs from the crowd; None without a second stage. Args: without: a row that is left out."""
        if self.reranker.is_empty:
            return None
        known = [(row, did) for row, did in person.history if row < len(self.present) and self.present[row]]
        kept = [(row, did.weight, did.at_s) for row, did in known[:MOST_HISTORY] if row != without]
        rows, weight, at_s = zip(*kept, strict=True) if kept else ((), (), ())
        return self.reranker.profile(np.array(rows, np.int32), np.array(weight, np.float32), np.array(at_s, np.float64))

    def gains(self, taste: Taste, rows: npt.NDArray[np.integer], *, now_s: float) -> Float32s:
        """(M,) what the second stage adds to a shortlist."""
        if taste.profile is None:
            return np.zeros(len(rows), np.float32)
        weight = np.float32(self.model.loaded.blend.reranker)
        return weight * self.reranker.gains(taste.profile, rows, now_s=now_s)

    def spoken(self, person: Person) -> tuple[Int32s, Float32s]:
        """The newest items of a history whose neighbours are spoken for: rows and weights of the events, (T,) each."""
        known = [(row, did.weight) for row, did in person.history if row < len(self.present) and self.present[row]]
        kept = known[:MOST_HISTORY]
        return np.array([row for row, _ in kept], np.int32), np.array([weight for _, weight in kept], np.float32)

    def window(self, person: Person, length: int) -> tuple[Int32s, Windows]:
        """The newest items of a history that have a vector: their rows, and the window that counts from 1 in them."""
        known = [(row, did) for row, did in person.history if row < len(self.present) and self.present[row]]
        kept = known[:length]
        width = max(1, len(kept))  # the graph takes any; a short history costs less
        history, weight = np.zeros((1, width), np.int32), np.zeros((1, width), np.float32)
        history[0, : len(kept)] = np.arange(1, len(kept) + 1)
        weight[0, : len(kept)] = [did.weight for _, did in kept]
        watched = [did.watched_s for _, did in kept if did.watched_s is not None]
        mean = np.array([sum(watched) / len(watched) if watched else np.nan])
        rows = np.array([row for row, _ in kept], np.int32)
        return rows, Windows(history, weight, np.array([len(known)]), mean)

    def features(self, rows: Int32s) -> ItemFeatures:
        """Of some items, only what users are read with; the other columns have no width."""
        n = len(rows)
        ints, floats = np.zeros((n, 0), np.int32), np.zeros((n, 0), np.float32)
        return ItemFeatures(
            id=np.zeros(n, np.int32), genre=self.genre[rows], maker=self.maker[rows], performers=ints, tags=ints,
            text=ints, text_weight=floats, number_bucket=ints, number=floats, embedding=floats,
        )  # fmt: skip


def align(model: ServingModel, shelf: Shelf, extra: Mapping[str, Embedded], *, generation: int) -> Aligned:
    """A version over a shelf; ``extra`` are vectors newer than the bundle's, by item id. Items without any are not present."""
    n, loaded = len(shelf), model.loaded
    vectors = np.zeros((n, model.dim), np.float32)
    genre = np.zeros((n, loaded.items.genre.shape[1]), np.int32)
    maker = np.zeros((n, loaded.items.maker.shape[1]), np.int32)
    present = np.zeros(n, np.bool_)
    row_of = np.array([-1 if (row := shelf.row(item_id)) is None else row for item_id in loaded.ids], np.int64)
    places = np.flatnonzero(row_of >= 0)
    if len(places):
        rows = row_of[places]
        vectors[rows] = loaded.vectors[places]
        genre[rows], maker[rows] = loaded.items.genre[places], loaded.items.maker[places]
        present[rows] = True
    premieres, sums = loaded.premieres, np.zeros((n, 2), np.float32)
    if len(places):
        sums[rows] = premieres.parts[places]
    newer = [(row, each) for item_id, each in extra.items() if (row := shelf.row(item_id)) is not None]
    if newer:
        rows = np.array([row for row, _ in newer])
        vectors[rows] = np.stack([each.vector for _, each in newer])
        genre[rows], maker[rows] = loaded.encoders.profile_codes([shelf.entries[row].item for row in rows])
        sums[rows] = premieres.sums([shelf.entries[row].item for row in rows])
        present[rows] = True
    neighbours, bias = loaded.neighbours.onto(row_of, n), np.zeros(n, np.float32)
    reranker = loaded.reranker.onto(row_of, genre, shelf.published_s)
    foreseen = None if premieres.is_empty else premieres.per_day(sums, shelf.published_s, now_s=time.time())
    return Aligned(
        model, vectors, genre, maker, present, ExactIndex(vectors), bias, neighbours, reranker,
        foreseen=foreseen, generation=generation,
    )  # fmt: skip


def missing_or_stale(model: ServingModel, shelf: Shelf, extra: Mapping[str, Embedded]) -> list[int]:
    """Rows of active items whose vector is not there or was made from something else than the item is now."""
    in_bundle = model.loaded.row_by_id
    found = []
    for row in range(len(shelf)):
        entry = shelf.entries[row]
        if not entry.active:
            continue
        item_id = entry.item.item_id
        made_from = extra[item_id].content_hash if item_id in extra else model.content_hashes.get(item_id)
        if made_from is None and item_id in in_bundle and not model.content_hashes:
            continue  # a bundle without hashes: taken to be of the catalogue as it is
        if made_from != entry.content_hash:
            found.append(row)
    return found
