"""Nearest vectors, from a Qdrant server or from Qdrant's engine in the process: one protocol, one behaviour.

A collection has versions, each made by one encoder with one number of dimensions; a pointer says which is searched.
Build a version beside the current one, ``publish`` it, ``drop`` the old one: no search fails meanwhile, and no vector
is ever compared with one of another encoder. Knows nothing of what the vectors show.

Points are found by the caller's ids and filtered by their payload; distance is cosine. Vectors are a copy: they can be
made again from the records, so a search's hits are to be joined with the records, which alone say what still exists.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from genba_shared.problems import EncoderMismatch
from genba_shared.settings import Platform

if TYPE_CHECKING:
    from collections.abc import Iterator

VectorLike = Sequence[float] | npt.NDArray[np.floating[Any]]  # (dim,)
Scalar = str | int | bool
Where = Mapping[str, Scalar | Sequence[Scalar]]
FilterKind = Literal["keyword", "integer", "bool"]

BATCH_POINTS = 500  # of one write: 500 × 1024 floats are 2 MB, well inside Qdrant's 32 MB log segment
ID_FIELD = "_id"  # Qdrant's ids are integers or UUIDs; ours stand in the payload

_COLLECTION = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*", re.ASCII)
_VERSION = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", re.ASCII)
_NAMESPACE = uuid.UUID("5f0d1e0a-6f4e-5b52-9d7b-67656e626100")


@dataclass(frozen=True)
class Point:
    """A vector, whose it is, and what it can be filtered by (names beginning with ``_`` are the store's own)."""

    id: str
    vector: VectorLike  # finite
    payload: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Hit:
    """A found point. ``score`` is the cosine similarity, in [-1, 1]."""

    id: str
    score: float
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class CollectionInfo:
    """The version that is searched now."""

    collection: str
    version: str
    dim: int
    encoder: str
    points: int


class Vectors(Protocol):
    """What both implementations do. All methods may be called from several threads."""

    def create(
        self,
        collection: str,
        version: str,
        *,
        dim: int,
        encoder: str,
        filters: Mapping[str, FilterKind] | None = None,
    ) -> None:
        """Make an empty version that nobody searches yet; ``filters`` names payload fields to index.

        Raises: AlreadyExists.
        """

    def upsert(self, collection: str, version: str, points: Sequence[Point]) -> None:
        """Write points; one with the id of another replaces it. Durable against a killed process when it returns.

        Raises: NotFound; ValueError for a vector of the wrong length or with nan or inf, before anything is written.
        """

    def publish(self, collection: str, version: str) -> None:
        """Make ``version`` the one that is searched, in one step. Raises: NotFound."""

    def current(self, collection: str) -> CollectionInfo | None:
        """The version that is searched; None before the first ``publish``."""

    def search(
        self,
        collection: str,
        vector: VectorLike,
        *,
        k: int,
        encoder: str,
        where: Where | None = None,
    ) -> list[Hit]:
        """The ``k`` nearest points, nearest first.

        ``where`` holds for every field: equal to the value or, for a list, to one of its values; a payload field that
        is itself a list matches by any of its elements.
        Raises: NotFound before the first ``publish``; EncoderMismatch (409) if ``encoder`` did not make the collection.
        """

    def delete(self, collection: str, ids: Sequence[str]) -> None:
        """Take points out of the current version; unknown ids are no error. Raises: NotFound."""

    def drop(self, collection: str, version: str) -> None:
        """Delete a version; one that is not there is no error. Raises: Conflict for the current one."""

    def remove(self, collection: str) -> None:
        """Delete a collection with every version, the current one too; one that is not there is no error."""

    def close(self) -> None: ...


def open_vectors(platform: Platform) -> Vectors:
    """The server at ``platform.qdrant_url`` or, without one, the engine in this process under ``<home>/vectors``."""
    if platform.qdrant_url is not None:
        from genba_shared.vectors_server import ServerVectors

        return ServerVectors.connect(platform.qdrant_url, api_key=platform.load_qdrant_api_key())
    from genba_shared.vectors_edge import EdgeVectors

    return EdgeVectors(platform.home / "vectors")


# What both implementations share: names, ids, checks.


def versioned_name(collection: str, version: str) -> str:
    """``<collection>__<version>``. Raises: ValueError for names that would not be safe as folders or addresses."""
    check_collection(collection)
    if _VERSION.fullmatch(version) is None:
        raise ValueError(f"{version!r} is no version: use lower-case letters and digits joined by '.', '_' or '-'.")
    return f"{collection}__{version}"


def versioned_prefix(collection: str) -> str:
    """What the names of all versions of a collection begin with: no name of a collection holds two underscores in a row."""
    return f"{check_collection(collection)}__"


def check_collection(collection: str) -> str:
    if _COLLECTION.fullmatch(collection) is None:
        raise ValueError(f"{collection!r} is no collection: use lower-case letters and digits joined by '_' or '-'.")
    return collection


def check_encoder(collection: str, encoder: str, *, holds: str) -> None:
    if holds != encoder:
        raise EncoderMismatch(
            f"{collection} holds vectors of {holds}, the query is one of {encoder}: "
            f"encode the query with {holds}, or build the collection anew.",
            collection=collection,
            encoder=encoder,
            expected=holds,
        )


def check_vector(vector: VectorLike, dim: int) -> list[float]:
    """(dim,) finite floats as Qdrant takes them. Raises: ValueError."""
    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (dim,):
        raise ValueError(f"A vector of shape {array.shape} does not fit a collection of {dim} dimensions.")
    if not np.isfinite(array).all():
        raise ValueError("A vector holds nan or inf.")
    values: list[float] = array.tolist()
    return values


def point_id(given: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, given))


def stored_payload(point: Point) -> dict[str, JsonValue]:
    return {**point.payload, ID_FIELD: point.id}


def hit(payload: Mapping[str, Any] | None, score: float) -> Hit:
    stored = payload or {}
    return Hit(str(stored[ID_FIELD]), float(score), {k: v for k, v in stored.items() if not k.startswith("_")})


def alternatives(where: Where | None) -> dict[str, list[Scalar]]:
    """Every condition as a list of values of which one must match."""
    return {
        name: [value] if isinstance(value, str | int) else list(value)  # bool is an int
        for name, value in (where or {}).items()
    }


def matches_nothing(where: Where | None) -> bool:
    """Whether a field may have none of no values: Qdrant takes an empty list of alternatives for no condition at all."""
    return not all(alternatives(where).values())


def batches(points: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(points), BATCH_POINTS):
        yield points[start : start + BATCH_POINTS]
