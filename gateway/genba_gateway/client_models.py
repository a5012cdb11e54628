"""The part of the Python client that looks at models and moves their aliases: ``client.models``.

    champion = genba.models.get("recommend.two_tower").champion.number
    genba.models.promote("recommend.two_tower", 7, reason="NDCG@10 .41, was .38")
    genba.models.rollback("recommend.two_tower", reason="complaints from line 4")

Knows where models are served from as little as the server's own routes do: services follow the aliases by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

if TYPE_CHECKING:
    from genba_gateway.client import Client

Alias = Literal["champion", "challenger"]
Gates = Literal["must_pass", "overridden"]


@dataclass(frozen=True)
class Pointer:
    """Where an alias points; ``number`` is None when it points nowhere, or to what you may not see."""

    alias: Alias
    number: int | None
    generation: int
    moved_at: datetime

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        moved_at = datetime.fromisoformat(document["moved_at"])
        return cls(document["alias"], document["number"], document["generation"], moved_at)


@dataclass(frozen=True)
class Model:
    """A model as it stood when it was asked for; ``previous`` is where a rollback goes back to."""

    name: str
    champion: Pointer
    challenger: Pointer
    previous: int | None
    newest: int | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            document["name"],
            Pointer.of(document["champion"]),
            Pointer.of(document["challenger"]),
            document["previous"],
            document["newest"],
        )


@dataclass(frozen=True)
class GateResult:
    """One bound that a version had to meet, and whether it did."""

    metric: str
    rule: str
    bound: float
    value: float | None
    passed: bool
    reason: str


@dataclass(frozen=True)
class Version:
    """A version of a model. ``metrics`` are None where they are no numbers; ``files`` maps names to content addresses."""

    model: str
    number: int
    status: str
    outcome: str
    aliases: list[Alias]
    metrics: dict[str, float | None]
    gates: list[GateResult]
    lineage: dict[str, Any]
    files: dict[str, str]
    size_bytes: int
    clearance: str
    created_by: str
    created_at: datetime

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        plain = ("model", "number", "status", "outcome", "aliases", "metrics", "lineage", "files", "size_bytes")
        return cls(
            **{name: document[name] for name in plain},
            gates=[GateResult(**{name: gate[name] for name in _GATE}) for gate in document["gates"]],
            clearance=document["clearance"],
            created_by=document["created_by"],
            created_at=datetime.fromisoformat(document["created_at"]),
        )


@dataclass(frozen=True)
class Move:
    """One move of an alias: who, when, why, from where to where."""

    alias: Alias
    generation: int
    kind: str
    from_number: int | None
    to_number: int | None
    by: str
    reason: str
    at: datetime

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        plain = ("alias", "generation", "kind", "from_number", "to_number", "by", "reason")
        return cls(**{name: document[name] for name in plain}, at=datetime.fromisoformat(document["at"]))


_GATE = tuple(GateResult.__dataclass_fields__)


class RemoteModels:
    """``client.models``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> Sequence[Model]:
        """The models of which you may see a version, by name."""
        return [Model.of(each) for each in self._client.request("GET", "/v1/models")["models"]]

    def get(self, model: str) -> Model:
        return Model.of(self._client.request("GET", _model(model)))

    def version(self, model: str, number: int) -> Version:
        return Version.of(self._client.request("GET", f"{_model(model)}/versions/{number}"))

    def versions(self, model: str, *, limit: int | None = 50) -> Iterator[Version]:
        """The newest first; ``limit=None`` for all."""
        path = f"{_model(model)}/versions"
        for document in self._client._pages(path, "versions", {}, limit=limit):  # noqa: SLF001 - one client
            yield Version.of(document)

    def history(self, model: str, *, alias: Alias | None = None, limit: int = 100) -> Sequence[Move]:
        """How its aliases moved, newest first."""
        asked = {"alias": alias, "limit": limit}
        return [
            Move.of(each) for each in self._client.request("GET", f"{_model(model)}/history", params=asked)["moves"]
        ]

    def promote(
        self,
        model: str,
        number: int,
        *,
        reason: str,
        alias: Alias = "champion",
        generation: int | None = None,
        gates: Gates = "must_pass",
    ) -> Model:
        """Point ``alias`` at a version; services follow within seconds.

        With the ``generation`` that you saw, a move that somebody made in between is a ``Refused`` with status 409.
        """
        body = {"number": number, "reason": reason, "alias": alias, "generation": generation, "gates": gates}
        return self._move(model, "promote", body)

    def rollback(self, model: str, *, reason: str, generation: int | None = None) -> Model:
        """Point the champion back at the one before it; without ``generation``, from where it points now."""
        if generation is None:
            generation = self.get(model).champion.generation
        return self._move(model, "rollback", {"reason": reason, "generation": generation})

    def clear_challenger(self, model: str, *, reason: str, generation: int | None = None) -> Model:
        """Point the challenger at nothing: the end of an experiment."""
        return self._move(model, "clear", {"alias": "challenger", "reason": reason, "generation": generation})

    def _move(self, model: str, move: str, body: Mapping[str, Any]) -> Model:
        """Not repeated when no answer came: it may have been done, and a person should look before doing it again."""
        given = {name: value for name, value in body.items() if value is not None}
        return Model.of(self._client.request("POST", f"{_model(model)}/{move}", json=given))


def _model(model: str) -> str:
    return f"/v1/models/{quote(model, safe='')}"
