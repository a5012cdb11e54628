"""What svc-sem says and hears about labels and masters."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from genba_sem.labels import Label
from genba_sem.tables import LabelRow, LabelVersion, MasterRow, MasterSetRow
from genba_sem.wire import NameIn, Note, Reason, TextIn, TextOut, WordsIn, WordsOut
from genba_shared.wire_records import Asked, ClearanceLabel, LabelledOut, RecordId, Wire, clearance_label

LabelStatus = Literal["active", "merged", "split", "retired"]
_LABEL = "lab_01m7y3j0mk9gd7dvy52gwgq0vn"  # of examples


class LabelBody(Asked):
    """What a label says."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": {"en": "Needle", "ja": "針状"}, "synonyms": {"en": ["acicular"]}}]}
    )

    name: NameIn
    definition: TextIn = Field(default_factory=TextIn, description="How a person tells it from the others.")
    synonyms: WordsIn = Field(default_factory=WordsIn)

    def document(self) -> dict[str, Any]:
        """As it is stored."""
        return self.model_dump(mode="json", include={"name", "definition", "synonyms"})


class LabelIn(LabelBody):
    """A new label."""

    clearance: ClearanceLabel | None = None


class LabelRevision(LabelBody):
    """The next version of a label. Nothing is classified again: particles name its id."""

    reason: Note = ""


class LabelReason(Asked):
    """Why a label is retired or restored; it stays in the history."""

    reason: Reason


class MergeIn(LabelReason):
    """Which label this one is to mean from now on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"into": _LABEL, "reason": "nobody tells them apart"}]})

    into: RecordId


class PartIn(LabelBody):
    """One part of a split, and the masters that become its own."""

    master_ids: list[RecordId] = Field(default_factory=list, max_length=1000)


class SplitIn(LabelReason):
    """The parts that replace a label. Masters that no part names go where they resemble most."""

    into: Annotated[list[PartIn], Field(min_length=2, max_length=20)]


class LabelOut(LabelledOut):
    """A label as it is now."""

    version: int
    status: LabelStatus
    successors: list[str]
    name: TextOut
    definition: TextOut
    synonyms: WordsOut
    updated_at: datetime
    masters: int
    particles: int = Field(description="Particles that you may see under this label, those of merged labels included.")


class LabelRedirect(Wire):
    """Where a merged label went; the answer's Location leads there."""

    id: str
    status: Literal["merged"]
    successor: str
    name: TextOut


class LabelVersionOut(Wire):
    """One version of a label and what made it so."""

    version: int
    event: str
    status: LabelStatus
    successors: list[str]
    name: TextOut
    definition: TextOut
    synonyms: WordsOut
    detail: dict[str, Any]
    reason: str
    created_at: datetime
    created_by: str


class MergeOut(Wire):
    """Both labels after a merge, and how many particles now read differently."""

    merged: LabelOut
    into: LabelOut
    particles: int


class SplitOut(Wire):
    """A split label, its parts, and how many particles went to each. All of them wait for a reviewer, as `label_split`."""

    split: LabelOut
    into: list[LabelOut]
    particles: dict[str, int]
    unassigned: int = Field(description="Particles that no part's masters speak for; they keep the split label.")
    master_set: int | None


class MasterIn(Asked):
    """A particle that is to stand for a label."""

    label_id: RecordId
    particle_id: RecordId
    reason: Note = ""


class MasterOut(LabelledOut):
    """A master: since which set it stands for its label, and until before which."""

    label_id: str
    particle_id: str
    since: int
    until: int | None


class MasterSetOut(Wire):
    """A numbered set of masters."""

    number: int
    digest: str
    counts: dict[str, int]
    reason: str
    created_at: datetime
    created_by: str


class MasterSetWhole(MasterSetOut):
    """A set with its members."""

    masters: list[MasterOut]


def label_out(row: LabelRow, *, masters: int, particles: int) -> LabelOut:
    """A label as the wire shows it."""
    return LabelOut(
        id=row.id,
        clearance=clearance_label(row.clearance),
        created_at=row.created_at,
        created_by=row.created_by,
        version=row.version,
        status=row.status,
        successors=row.successors,
        name=row.document["name"],
        definition=row.document["definition"],
        synonyms=row.document["synonyms"],
        updated_at=row.updated_at,
        masters=masters,
        particles=particles,
    )


def redirect_out(label: Label) -> LabelRedirect:
    """A merged label as the wire shows it."""
    return LabelRedirect(id=label.id, status="merged", successor=label.successors[0], name=TextOut(**label.name))


def version_out(row: LabelVersion) -> LabelVersionOut:
    """A version as the wire shows it."""
    fields = ("version", "event", "status", "successors", "detail", "reason", "created_at", "created_by")
    return LabelVersionOut.model_validate({**{name: getattr(row, name) for name in fields}, **row.document})


def master_out(row: MasterRow) -> MasterOut:
    """A master as the wire shows it."""
    return MasterOut(
        id=row.id,
        clearance=clearance_label(row.clearance),
        created_at=row.created_at,
        created_by=row.created_by,
        label_id=row.label_id,
        particle_id=row.particle_id,
        since=row.since,
        until=row.until,
    )


def set_out(row: MasterSetRow) -> MasterSetOut:
    """A set as the wire shows it."""
    return MasterSetOut.model_validate(row)
