"""``Vectors`` over a Qdrant server: a version is the collection ``<collection>__<version>``, the pointer is an alias.

The encoder stands in the collection's metadata (Qdrant 1.16 or newer). Every search names the version that the alias
pointed to a moment before, so that check and search see the same one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, cast

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from genba_shared.problems import AlreadyExists, Conflict, NotFound, Unavailable
from genba_shared.vectors import (
    CollectionInfo,
    FilterKind,
    Hit,
    Point,
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
    versioned_prefix,
)

_TIMEOUT_S = 30


class ServerVectors:
    """Collections of one Qdrant server."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client

    @classmethod
    def connect(cls, url: str, *, api_key: str | None = None) -> ServerVectors:
        return cls(QdrantClient(url, api_key=api_key, timeout=_TIMEOUT_S, check_compatibility=False))

    def create(
        self,
        collection: str,
        version: str,
        *,
        dim: int,
        encoder: str,
        filters: Mapping[str, FilterKind] | None = None,
    ) -> None:
        name = versioned_name(collection, version)
        with _answering():
            if self._client.collection_exists(name):
                raise AlreadyExists(f"{collection} has a version {version} already.")
            self._client.create_collection(
                name,
                vectors_config=models.VectorParams(size=dim, distance=models.Distance.COSINE),
                metadata={"dim": dim, "encoder": encoder},
            )
            for field, kind in (filters or {}).items():
                self._client.create_payload_index(name, field, field_schema=models.PayloadSchemaType(kind))

    def upsert(self, collection: str, version: str, points: Sequence[Point]) -> None:
        with _answering():
            info = self._info(collection, version)
            ready = [
                models.PointStruct(
                    id=point_id(p.id), vector=check_vector(p.vector, info.dim), payload=dict(stored_payload(p))
                )
                for p in points
            ]
            for batch in batches(ready):
                self._client.upsert(versioned_name(collection, version), list(batch), wait=True)

    def publish(self, collection: str, version: str) -> None:
        with _answering():
            name = versioned_name(collection, version)
            self._info(collection, version)
            moves: list[models.AliasOperations] = [
                models.CreateAliasOperation(
                    create_alias=models.CreateAlias(collection_name=name, alias_name=collection)
                )
            ]
            if self._published(collection) is not None:  # both moves in one request: the server does them as one
                moves.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=collection)))
            self._client.update_collection_aliases(moves)

    def current(self, collection: str) -> CollectionInfo | None:
        with _answering():
            version = self._published(collection)
            return None if version is None else self._info(collection, version)

    def search(
        self,
        collection: str,
        vector: VectorLike,
        *,
        k: int,
        encoder: str,
        where: Where | None = None,
    ) -> list[Hit]:
        try:
            return self._search(collection, vector, k, encoder, where)
        except NotFound:  # perhaps the version was dropped between two requests, another being published: look again
            return self._search(collection, vector, k, encoder, where)

    def _search(self, collection: str, vector: VectorLike, k: int, encoder: str, where: Where | None) -> list[Hit]:
        with _answering():
            info = self._serving(collection)
            check_encoder(collection, encoder, holds=info.encoder)
            query = check_vector(vector, info.dim)
            if matches_nothing(where):
                return []
            name = versioned_name(collection, info.version)
            found = self._client.query_points(
                name, query=query, limit=k, query_filter=_filter(where), with_payload=True
            )
            return [hit(point.payload, point.score) for point in found.points]

    def delete(self, collection: str, ids: Sequence[str]) -> None:
        with _answering():
            name = versioned_name(collection, self._serving(collection).version)
            for batch in batches([point_id(given) for given in ids]):
                self._client.delete(name, models.PointIdsList(points=list(batch)), wait=True)

    def drop(self, collection: str, version: str) -> None:
        with _answering():
            if self._published(collection) == version:
                raise Conflict(f"{collection} {version} is being searched; publish another version first.")
            self._client.delete_collection(versioned_name(collection, version))

    def remove(self, collection: str) -> None:
        with _answering():
            if self._published(collection) is not None:
                gone = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=collection))
                self._client.update_collection_aliases([gone])
            for found in self._client.get_collections().collections:
                if found.name.startswith(versioned_prefix(collection)):
                    self._client.delete_collection(found.name)

    def close(self) -> None:
        self._client.close()

    def _published(self, collection: str) -> str | None:
        check_collection(collection)
        for alias in self._client.get_aliases().aliases:
            if alias.alias_name == collection:
                return alias.collection_name.removeprefix(f"{collection}__")
        return None

    def _serving(self, collection: str) -> CollectionInfo:
        version = self._published(collection)
        if version is None:
            raise NotFound(f"The vector collection {collection} has not been published.")
        return self._info(collection, version)

    def _info(self, collection: str, version: str) -> CollectionInfo:
        name = versioned_name(collection, version)
        if not self._client.collection_exists(name):
            raise NotFound(f"There is no version {version} of the vector collection {collection}.")
        found = self._client.get_collection(name)
        about = cast("dict[str, Any]", found.config.metadata)
        return CollectionInfo(collection, version, about["dim"], about["encoder"], self._client.count(name).count)


@contextmanager
def _answering() -> Iterator[None]:
    """The server's failures as problems."""
    try:
        yield
    except ResponseHandlingException as error:
        raise Unavailable("The Qdrant server cannot be reached.", retry_after_s=5) from error
    except UnexpectedResponse as error:
        if error.status_code == HTTPStatus.NOT_FOUND:
            raise NotFound("The vector collection is gone.") from error
        if error.status_code == HTTPStatus.CONFLICT:
            raise AlreadyExists("The vector collection exists already.") from error
        raise
    except ValueError as error:  # the client's local mode says it so
        if re.fullmatch(r"Collection \S+ not found", str(error)):
            raise NotFound("The vector collection is gone.") from error
        raise


def _filter(where: Where | None) -> models.Filter | None:
    must: list[models.Condition] = [
        models.Filter(
            should=[models.FieldCondition(key=name, match=models.MatchValue(value=value)) for value in values]
        )
        for name, values in alternatives(where).items()
    ]
    return models.Filter(must=must) if must else None
