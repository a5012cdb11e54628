"""The registry's tables and the values read from them. Decides nothing; see registry.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, ForeignKeyConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from genba_shared.db import Json, Record
from genba_shared.principal import Clearance

Alias = Literal["champion", "challenger"]
Status = Literal["registered", "gate_failed", "retired"]
Outcome = Literal["promoted", "not_asked", "gate_failed", "champion_changed", "not_allowed"]
MoveKind = Literal["promote", "rollback", "clear"]
ALIASES: tuple[Alias, ...] = ("champion", "challenger")


class ModelRow(Record):
    """A model's name and its newest number; whoever adds or retires a version of it holds this row."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(121), primary_key=True)
    last_number: Mapped[int]
    created_at: Mapped[datetime]


class VersionRow(Record):
    __tablename__ = "model_versions"
    __table_args__ = (CheckConstraint("status IN ('registered', 'gate_failed', 'retired')", name="status"),)

    model: Mapped[str] = mapped_column(ForeignKey("models.name"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(String(16))
    outcome: Mapped[str] = mapped_column(String(20))
    files: Mapped[dict[str, str]] = mapped_column(Json)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[dict[str, float | None]] = mapped_column(Json)
    gates: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    job_id: Mapped[str | None] = mapped_column(String(40))  # no foreign key: jobs are deleted, versions stay
    data_hash: Mapped[str]
    code_commit: Mapped[str]
    parent: Mapped[int | None]
    clearance: Mapped[int]
    compartments: Mapped[str] = mapped_column(Text)  # ",a,b,": so that SQL can test for a subset
    created_by: Mapped[str]
    created_at: Mapped[datetime]


class AliasRow(Record):
    """Where an alias points. ``generation`` grows with every move: it is what a compare-and-swap compares."""

    __tablename__ = "model_aliases"
    __table_args__ = (ForeignKeyConstraint(["model", "number"], ["model_versions.model", "model_versions.number"]),)

    model: Mapped[str] = mapped_column(ForeignKey("models.name"), primary_key=True)
    alias: Mapped[str] = mapped_column(String(16), primary_key=True)
    number: Mapped[int | None]
    generation: Mapped[int]
    moved_at: Mapped[datetime]


class MoveRow(Record):
    """One move of an alias, made by the transaction that moved it. ``below`` is the move that a rollback goes back to."""

    __tablename__ = "model_moves"

    model: Mapped[str] = mapped_column(ForeignKey("models.name"), primary_key=True)
    alias: Mapped[str] = mapped_column(String(16), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16))
    from_number: Mapped[int | None]
    to_number: Mapped[int | None]
    below: Mapped[int | None]
    by: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]


@dataclass(frozen=True)
class GateResult:
    """One bound of a gate, as it was found: ``rule`` is ``at_least``, ``at_most`` or ``not_below_champion_by``."""

    metric: str
    rule: str
    bound: float
    value: float | None
    passed: bool
    reason: str


@dataclass(frozen=True)
class Lineage:
    """What a version comes from; ``parent`` is the champion that it was compared with."""

    job_id: str | None
    data_hash: str
    code_commit: str
    parent: int | None


@dataclass(frozen=True)
class Version:
    """A version of a model as it stands. ``files`` maps names in the bundle to artifact keys."""

    model: str
    number: int
    status: Status
    outcome: Outcome  # what became of it when it was registered
    files: Mapping[str, str]
    size_bytes: int
    metrics: Mapping[str, float | None]
    gates: tuple[GateResult, ...]
    lineage: Lineage
    clearance: Clearance
    compartments: frozenset[str]
    created_by: str
    created_at: datetime


@dataclass(frozen=True)
class Pointer:
    """Where an alias points, and how often it has moved."""

    alias: Alias
    number: int | None
    generation: int
    moved_at: datetime


@dataclass(frozen=True)
class Move:
    """One move of an alias, as history tells it."""

    alias: Alias
    generation: int
    kind: MoveKind
    from_number: int | None
    to_number: int | None
    by: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class ModelFigures:
    """Counts of versions by (model, status), numbers by (model, alias), counts of moves by (model, alias, kind)."""

    versions: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    aliases: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    moves: Mapping[tuple[str, ...], int] = field(default_factory=dict)


def version_of(row: VersionRow) -> Version:
    return Version(
        model=row.model,
        number=row.number,
        status=row.status,  # type: ignore[arg-type]  # the table's check constraint
        outcome=row.outcome,  # type: ignore[arg-type]  # written by the registry only, like the literals below
        files=row.files,
        size_bytes=row.size_bytes,
        metrics=row.metrics,
        gates=tuple(GateResult(**found) for found in row.gates),
        lineage=Lineage(row.job_id, row.data_hash, row.code_commit, row.parent),
        clearance=Clearance(row.clearance),
        compartments=frozenset(filter(None, row.compartments.split(","))),
        created_by=row.created_by,
        created_at=row.created_at,
    )


def pointer_of(row: AliasRow) -> Pointer:
    return Pointer(row.alias, row.number, row.generation, row.moved_at)  # type: ignore[arg-type]


def move_of(row: MoveRow) -> Move:
    return Move(
        row.alias,  # type: ignore[arg-type]
        row.generation,
        row.kind,  # type: ignore[arg-type]
        row.from_number,
        row.to_number,
        row.by,
        row.reason,
        row.at,
    )
