"""What svc-sem says and hears about the queue, reviews and bundles."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from genba_sem.labels import LabelBook
from genba_sem.schemas_particles import LabelRef, ParticleSummary, ReasonOut, ScoredLabel, ref
from genba_sem.tables import ReviewRow
from genba_sem.wire import Note
from genba_shared.wire import Real, Whole
from genba_shared.wire_records import Asked, LabelledOut, RecordId, Wire

Seconds = Annotated[Real, Field(ge=0, le=86_400, description="How long the decision took.")]
_PARTICLE, _LABEL = "par_01m7y3j0mk9gd7dvy52gwgq0vn", "lab_01m7y3j0n25xc6617q3969kdq0"  # of examples


class ReviewIn(Asked):
    """A reviewer's word on one particle. Without a label: none of the labels fits."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"particle_id": _PARTICLE, "label_id": _LABEL, "seconds": 4.2}]}
    )

    particle_id: RecordId
    label_id: RecordId | None
    note: Note = ""
    seconds: Seconds | None = None


class RequestIn(Asked):
    """Ask for a review of particles that do not wait for one."""

    particle_ids: list[RecordId] = Field(min_length=1, max_length=1000)


class ReviewOut(Wire):
    """A review as kept."""

    id: str
    particle_id: str
    reviewer: str
    label: LabelRef | None
    was: LabelRef | None = Field(description="What it was held for before.")
    note: str
    seconds: float | None
    bundle_id: str | None
    source: Literal["api", "bundle", "label_studio"]
    created_at: datetime


class Reviewed(Wire):
    """The particle after a review: settled, or waiting for another reviewer."""

    review: ReviewOut
    particle: ParticleSummary
    settled: bool


class QueueItem(ParticleSummary):
    """A particle that waits, why, and what it may be."""

    priority: float
    label_set: list[ScoredLabel]
    recommended_view: int | None
    reviewers: list[str] = Field(description="Who has said something already.")
    reviewers_needed: int


class QueueOut(Wire):
    """A page of the queue, most urgent first. Pass ``next_cursor`` as ``cursor``; null on the last page."""

    items: list[QueueItem]
    next_cursor: str | None


class ReasonCount(ReasonOut):
    """A reason and how many wait for it."""

    particles: int


class LaneOut(Wire):
    """What decides now, and what it still lacks."""

    model: str
    master_set: int
    newest_master_set: int
    encoder: str
    classifier: str
    fusion: str
    labels: int
    masters: int
    promised_precision: float
    confirm_from: float | None = Field(description="Confidence from which is confirmed; null: nothing is yet.")
    calibration_reviews: int
    reviews_needed: int = Field(description="Error-free reviews until something can be confirmed.")
    labels_left_out: list[LabelRef]


class ProgressOut(Wire):
    """How the queue stands and how reviewing goes."""

    waiting: int
    by_reason: list[ReasonCount]
    reviewed: int
    confirmed: int
    decisions: int = Field(description="A bundle that was confirmed is one.")
    particles_per_decision: float | None
    median_seconds: float | None
    audits: int = Field(description="Automatic confirmations that a reviewer looked at.")
    audits_wrong: int
    lane: LaneOut | None = Field(description="Null while there are too few masters.")


class BundleOut(LabelledOut):
    """Particles of the queue that look alike. Confirm them together, take some out, or split the bundle."""

    version: int
    status: Literal["open", "confirmed", "split", "stale"]
    size: int
    cohesion: float = Field(description="Mean cosine to the bundle's middle.")
    labels: list[ScoredLabel] = Field(description="What the lane holds them for; the first two are in contention.")
    representatives: list[ParticleSummary]
    edge: list[ParticleSummary] = Field(description="Members that resemble the others least: look at them first.")
    tags: list[str] = Field(description="What most of them share: quality, shape, and people's tags.")
    nearest_masters: list[str] = Field(description="Particles of masters that the bundle resembles.")
    updated_at: datetime


class BundleWhole(BundleOut):
    """A bundle with its members."""

    particle_ids: list[str]


class BundlesIn(Asked):
    """How to bundle the queue."""

    least: Annotated[Whole, Field(ge=2, le=100)] = 2
    batch: str | None = Field(None, max_length=80)


class ConfirmIn(Asked):
    """Give every member of a bundle one label, except those taken out, which go on waiting."""

    label_id: RecordId | None
    without: list[RecordId] = Field(default_factory=list, max_length=10_000)
    note: Note = ""
    seconds: Seconds | None = None


class ConfirmedOut(Wire):
    """What a confirmation did."""

    bundle: BundleOut
    settled: int
    waiting_for_another: int
    skipped: list[str] = Field(description="Members that were settled or erased in the meantime.")


class SplitBundleIn(Asked):
    """Split a bundle into so many by likeness, or into the groups given."""

    parts: Annotated[Whole, Field(ge=2, le=20)] | None = None
    groups: list[list[RecordId]] | None = Field(None, min_length=2, max_length=20)

    @model_validator(mode="after")
    def _one_of_them(self) -> SplitBundleIn:
        if (self.parts is None) == (self.groups is None):
            raise ValueError("give parts or groups")
        return self


def review_out(row: ReviewRow, book: LabelBook) -> ReviewOut:
    """A review as the wire shows it."""
    fields = ("id", "particle_id", "reviewer", "note", "seconds", "bundle_id", "source", "created_at")
    return ReviewOut(
        **{name: getattr(row, name) for name in fields}, label=ref(book, row.label_id), was=ref(book, row.was_label_id)
    )
