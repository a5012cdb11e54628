"""What svc-sem says and hears about particles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, FiniteFloat, StringConstraints, field_validator

from genba_sem import words
from genba_sem.labels import LabelBook
from genba_sem.particles import Facts
from genba_sem.tables import DecisionRow, ParticleRow, ViewRow
from genba_sem.wire import Line, Note, TextOut
from genba_shared.patterns import pattern
from genba_shared.wire import Moment
from genba_shared.wire_records import Asked, ClearanceLabel, LabelledOut, RecordId, Wire, clearance_label

ParticleStatus = Literal["waiting", "confirmed", "needs_review", "unknown", "reviewed", "unreadable"]
Batch = Annotated[
    str,
    StringConstraints(
        pattern=pattern(
            r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$",
            "must be 1 to 80 of A to Z, a to z, digits and . _ -, beginning with a letter or digit",
        )
    ),
]
Tag = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=60,
        pattern=pattern(r"^[^\x00-\x1f,]+$", "must be one line without commas"),
    ),
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
Nanometres = Annotated[FiniteFloat, Field(gt=1e-4, lt=1e6)]


class ParticleForm(Asked):
    """The small fields of a particle's form."""

    name: Name | None = None
    batch: Batch | None = None
    process: Line | None = None
    tool: Line | None = None
    recipe: Line | None = None
    lot: Line | None = None
    taken_at: Moment | None = None
    note: Note = ""
    tags: list[Tag] = Field(default_factory=list, max_length=50)
    clearance: ClearanceLabel | None = None
    pixel_size_nm: Nanometres | None = None
    scale_bar_nm: Annotated[FiniteFloat, Field(gt=0, lt=1e9)] | None = None
    master_of: RecordId | None = None
    decide: Literal["now", "later"] = "now"

    @field_validator("tags", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value

    def facts(self, fallback: str) -> Facts:
        """What is kept of them."""
        return Facts(
            self.name or fallback, self.batch, self.process, self.tool, self.recipe, self.lot, self.taken_at,
            self.note, tuple(self.tags),
        )  # fmt: skip


FORM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["views"],
    "additionalProperties": False,
    "properties": {
        "views": {
            "type": "array",
            "minItems": 1,
            "maxItems": 12,
            "items": {"type": "string", "format": "binary"},
            "description": "1 to 12 TIFF, PNG or JPEG files, and texts that an instrument wrote beside them (same stem).",
        },
        "name": {"type": "string", "minLength": 1, "maxLength": 200},
        "batch": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"},
        **{name: {"type": "string", "minLength": 1, "maxLength": 120} for name in ("process", "tool", "recipe", "lot")},
        "taken_at": {"type": "string", "format": "date-time"},
        "note": {"type": "string", "maxLength": 4000},
        "tags": {"type": "string", "maxLength": 3000, "description": "comma-separated"},
        "clearance": {"type": "string", "enum": ["public", "internal", "confidential", "secret"]},
        "pixel_size_nm": {"type": "number", "exclusiveMinimum": 0.0001, "exclusiveMaximum": 1000000},
        "scale_bar_nm": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1000000000},
        "master_of": {"type": "string", "description": "a label's id: this particle is to stand for it"},
        "decide": {"type": "string", "enum": ["now", "later"], "description": "later: a job classifies the batch"},
    },
}


class LabelRef(Wire):
    """A label as it is now; ``given`` is the id that was decided then, before any merge."""

    id: str
    given: str
    name: TextOut
    status: Literal["active", "merged", "split", "retired"]


class ReasonOut(Wire):
    """Why a person should look, as a code and in words."""

    code: str
    en: str
    ja: str


class QualityOut(Wire):
    """How far a view can be trusted: 1 is good, 0 shows nothing."""

    score: float
    reasons: list[ReasonOut]
    focus: float
    contrast: float
    noise: float
    saturation: float
    charging: float
    border_share: float
    banner_share: float


class ShapeOut(Wire):
    """Size and shape (ISO 9276-6). Circularity is the form factor 4πA/P² with Crofton's perimeter."""

    unit: Literal["µm", "px"]
    area: float
    perimeter: float
    equivalent_diameter: float
    feret_max: float
    feret_min: float
    circularity: float
    aspect_ratio: float
    solidity: float


class ViewOut(Wire):
    """One view: what the file says, how good it is, and what it would say alone. Null where it was not looked at yet."""

    position: int
    file_name: str
    sha256: str
    size_bytes: int
    width_px: int | None = None
    height_px: int | None = None
    pixel_size_nm: float | None = None
    pixel_size_source: str | None = None
    disagreements: list[str] = Field(default_factory=list)
    banner_rows: int | None = None
    scale_bar_px: int | None = None
    instrument: str | None = None
    quality: QualityOut | None = None
    outline_complete: bool | None = None
    shape: ShapeOut | None = None
    weight: float | None = Field(None, description="Its share in the decision.")
    contribution: float | None = Field(None, description="How much the decided label's probability falls without it.")
    label: LabelRef | None = Field(None, description="What this view would say alone.")
    confidence: float | None = None


class NearOut(Wire):
    """A master and its cosine to the particle."""

    particle_id: str
    label: LabelRef
    cosine: float


class ScoredLabel(Wire):
    """A label and its probability."""

    label: LabelRef
    probability: float | None


class DroppedOut(Wire):
    """A view that could not be used, and why."""

    file_name: str
    reason: str
    detail: str


class ScalingOut(Wire):
    """How views of different pixel size were brought to one: to the coarsest, by averaging; null where nothing was done."""

    pixel_sizes_nm: list[float | None] = Field(default_factory=list)
    to_nm: float | None = None
    scaled_views: list[int] = Field(default_factory=list)
    left_views: list[int] = Field(default_factory=list, description="Views without a size, or too far from the others.")


class ModelRef(Wire):
    """What made a decision."""

    model: str
    master_set: int
    encoder: str
    fusion: str
    classifier: str


class ParticleSummary(LabelledOut):
    """A particle in a list."""

    version: int
    role: Literal["sample", "master"]
    name: str
    batch: str | None
    process: str | None
    tool: str | None
    recipe: str | None
    lot: str | None
    taken_at: datetime | None
    tags: list[str]
    view_count: int
    status: ParticleStatus
    label: LabelRef | None
    decided_by: Literal["nobody", "model", "review", "split"]
    confidence: float | None
    reasons: list[ReasonOut]
    in_queue: bool
    diameter_um: float | None
    covered: bool = Field(description="No view shows the whole outline: left out of size statistics.")
    updated_at: datetime


class ParticleOut(ParticleSummary):
    """A particle, whole."""

    note: str
    views: list[ViewOut]
    dropped: list[DroppedOut]
    scaling: ScalingOut
    shape: ShapeOut | None
    label_set: list[ScoredLabel] = Field(description="Holds the truth with the probability ``coverage``.")
    coverage: float | None
    agreement: float | None = Field(description="Weighted share of views that would say the same.")
    similarity: float | None = Field(description="Cosine to the nearest master.")
    recommended_view: int | None
    nearest: list[NearOut]
    decided_from: ModelRef | None
    reviews_needed: int | None = Field(description="Error-free reviews until something can be confirmed automatically.")
    labels_left_out: list[LabelRef] = Field(description="Labels with too few masters to be answered.")


class DecisionOut(Wire):
    """One decision of a particle's history."""

    by: Literal["model", "review", "split"]
    actor: str
    status: str
    label: LabelRef | None
    confidence: float | None
    model: str
    master_set: int | None
    created_at: datetime


class Annotation(Asked):
    """What people say of a particle; what is absent stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tags": ["cracked edge", "割れ"]}]})

    note: Note | None = None
    tags: list[Tag] | None = Field(None, max_length=50)


class Erased(Wire):
    """What a deletion removed; artifacts that another view still uses stay for it."""

    id: str
    artifacts: int


class BatchOut(Wire):
    """A batch and how far it is."""

    batch: str
    particles: int
    by_status: dict[str, int]


def ref(book: LabelBook, label_id: str | None) -> LabelRef | None:
    """What a label id means now."""
    if label_id is None or (label := book.now(label_id)) is None:
        return None
    return LabelRef(id=label.id, given=label_id, name=TextOut(**label.name), status=label.status)


def reason_out(code: str, *, among: Mapping[str, words.Words] = words.REASONS) -> ReasonOut:
    """A reason in words."""
    en, ja = words.said(among, code)
    return ReasonOut(code=code, en=en, ja=ja)


_SUMMARY: Final = ("id", "created_at", "created_by", "version", "role", "name", "batch", "process", "tool", "recipe", "lot",
                   "taken_at", "tags", "view_count", "status", "decided_by", "confidence", "in_queue", "diameter_um",
                   "covered", "updated_at")  # fmt: skip


def summary_fields(row: ParticleRow, book: LabelBook) -> dict[str, Any]:
    """The fields of a summary."""
    return {
        **{name: getattr(row, name) for name in _SUMMARY},
        "clearance": clearance_label(row.clearance),
        "label": ref(book, row.label_id),
        "reasons": [reason_out(code) for code in row.reasons],
    }


def summary_out(row: ParticleRow, book: LabelBook) -> ParticleSummary:
    """A particle as lists show it."""
    return ParticleSummary(**summary_fields(row, book))


def particle_out(row: ParticleRow, views: Sequence[ViewRow], book: LabelBook) -> ParticleOut:
    """A particle as the wire shows it."""
    said = row.decision
    likely = said.get("probabilities", {})
    members = [(each, ref(book, each)) for each in said.get("label_set", [])]
    near = [(each, ref(book, each["label_id"])) for each in said.get("nearest", [])]
    return ParticleOut(
        **summary_fields(row, book),
        note=row.note,
        views=[_view_out(view, said, book) for view in views],
        dropped=[_dropped(each) for each in row.dropped],
        scaling=ScalingOut(**row.scaling),
        shape=ShapeOut(**row.shape) if row.shape else None,
        label_set=[ScoredLabel(label=label, probability=likely.get(each)) for each, label in members if label],
        coverage=said.get("coverage"),
        agreement=said.get("agreement"),
        similarity=said.get("similarity"),
        recommended_view=said.get("recommended_view"),
        nearest=[NearOut(particle_id=e["particle_id"], label=label, cosine=e["cosine"]) for e, label in near if label],
        decided_from=ModelRef(**{name: said[name] for name in ModelRef.model_fields}) if said else None,
        reviews_needed=said.get("reviews_needed"),
        labels_left_out=[label for each in said.get("left_out", []) if (label := ref(book, each)) is not None],
    )


def _dropped(each: Mapping[str, str]) -> DroppedOut:
    return DroppedOut(
        file_name=each.get("file_name") or each.get("field", ""),
        reason=each.get("reason", "unreadable"),
        detail=each.get("detail") or each.get("message", ""),
    )


def _view_out(view: ViewRow, said: Mapping[str, Any], book: LabelBook) -> ViewOut:
    seen = view.document
    verdicts = said.get("views", [])
    verdict = verdicts[view.position] if view.position < len(verdicts) else {}
    quality = None
    if seen:
        codes = [reason_out(code, among=words.QUALITY) for code in seen["quality"]["reasons"]]
        quality = QualityOut(**{**seen["quality"], "reasons": codes})
    instrument = " ".join(filter(None, seen.get("instrument", {}).values())) if seen else None
    plain = ("width_px", "height_px", "pixel_size_nm", "pixel_size_source", "banner_rows", "scale_bar_px")
    return ViewOut(
        position=view.position,
        file_name=view.file_name,
        sha256=view.sha256,
        size_bytes=view.size_bytes,
        **{name: seen.get(name) for name in plain},
        disagreements=seen.get("disagreements", []),
        instrument=instrument or None,
        quality=quality,
        outline_complete=seen["outline"]["complete"] if seen else None,
        shape=ShapeOut(**seen["shape"]) if seen and seen["shape"] else None,
        weight=verdict.get("weight"),
        contribution=verdict.get("contribution"),
        label=ref(book, verdict.get("label_id")),
        confidence=verdict.get("confidence"),
    )


def decision_out(row: DecisionRow, book: LabelBook) -> DecisionOut:
    """A decision as the wire shows it."""
    fields = ("by", "actor", "status", "confidence", "model", "master_set", "created_at")
    return DecisionOut(**{name: getattr(row, name) for name in fields}, label=ref(book, row.label_id))
