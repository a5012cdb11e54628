"""Models, versions and moves as they look at the wire. Converts once, in one direction; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from genba_shared.registry import Alias, Move, Outcome, Pointer, Status, Version
from genba_shared.registry_rows import MoveKind
from genba_shared.wire import Whole
from genba_training.schemas import Label

MAX_NUMBER = 2**31 - 1
Number = Annotated[Whole, Field(ge=1, le=MAX_NUMBER)]
Generation = Annotated[Whole, Field(ge=0, le=MAX_NUMBER)]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"^[^\x00]*$")]


class AliasView(BaseModel):
    """Where an alias points. ``number`` is null when it points nowhere, or to what you may not see."""

    alias: Alias
    number: int | None
    generation: int = Field(description="Grows with every move; give it back with a move that depends on it.")
    moved_at: datetime

    @classmethod
    def of(cls, pointer: Pointer, *, visible: bool) -> Self:
        number = pointer.number if visible else None
        return cls(alias=pointer.alias, number=number, generation=pointer.generation, moved_at=pointer.moved_at)


class ModelView(BaseModel):
    """A model: who serves, who is tried beside it, and where a rollback would go."""

    name: str
    champion: AliasView
    challenger: AliasView
    previous: int | None = Field(description="The version that a rollback goes back to.")
    newest: int | None = Field(description="The newest version that you may see.")


class ModelList(BaseModel):
    """The models of which you may see a version."""

    models: list[ModelView]


class GateView(BaseModel):
    """One bound that a version had to meet."""

    metric: str
    rule: Literal["at_least", "at_most", "not_below_champion_by"]
    bound: float
    value: float | None
    passed: bool
    reason: str


class LineageView(BaseModel):
    """What a version comes from."""

    job_id: str | None
    data_hash: str
    code_commit: str
    parent: int | None = Field(description="The champion that it was compared with.")


class VersionView(BaseModel):
    """A version of a model as it stands."""

    model: str
    number: int
    status: Status = Field(description="`retired` versions have lost their files and cannot be promoted.")
    outcome: Outcome = Field(description="What became of it when its job finished.")
    aliases: list[Alias]
    metrics: dict[str, float | None]
    gates: list[GateView]
    lineage: LineageView
    files: dict[str, str] = Field(description="The bundle's files and their content addresses.")
    size_bytes: int
    clearance: Label
    created_by: str
    created_at: datetime

    @classmethod
    def of(cls, version: Version, pointers: Sequence[Pointer]) -> Self:
        same = {"model", "number", "status", "outcome", "files", "size_bytes", "created_by", "created_at"}
        return cls(
            **{name: getattr(version, name) for name in same},
            aliases=[pointer.alias for pointer in pointers if pointer.number == version.number],
            metrics=dict(version.metrics),
            gates=[GateView.model_validate(gate, from_attributes=True) for gate in version.gates],
            lineage=LineageView.model_validate(version.lineage, from_attributes=True),
            clearance=version.clearance.label,
        )


class VersionPage(BaseModel):
    """Versions, newest first."""

    versions: list[VersionView]
    next_before: int | None = Field(description="Give it as `before` for the next page; null on the last one.")


class MoveView(BaseModel):
    """One move of an alias."""

    alias: Alias
    generation: int
    kind: MoveKind
    from_number: int | None
    to_number: int | None
    by: str
    reason: str
    at: datetime

    @classmethod
    def of(cls, move: Move) -> Self:
        return cls.model_validate(move, from_attributes=True)


class History(BaseModel):
    """Moves, newest first."""

    moves: list[MoveView]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Reason = Field(description="Why; it stays in the history.", examples=["NDCG@10 .41, was .38"])


class Promotion(_Body):
    """Which version an alias shall point to."""

    number: Number
    alias: Alias = "champion"
    generation: Generation | None = Field(
        default=None,
        description="The alias's generation as you saw it: 409 if it moved since. Without it, as it is now.",
    )
    gates: Literal["must_pass", "overridden"] = Field(
        default="must_pass", description="`overridden` promotes a version that missed a gate."
    )


class Rollback(_Body):
    """Back to the champion before this one."""

    generation: Generation = Field(
        description="The champion's generation as you saw it: a rollback that is sent twice is done once, the second is a 409."
    )


class Clearing(_Body):
    """Point an alias at nothing."""

    alias: Literal["challenger"] = "challenger"
    generation: Generation | None = Field(default=None, description="The alias's generation as you saw it.")
