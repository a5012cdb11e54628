"""What svc-sop says and hears over HTTP. Converted once, at the route: inside are frozen dataclasses, rows and
arrays.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from genba_shared.wire import Flag, Real, Whole
from genba_shared.wire_records import Asked, ClearanceLabel, LabelledOut, RecordId, Wire
from genba_sop.authoring import WITHOUT_NUL, AuthoredProcedure, AuthoredSpan, Seconds
from genba_sop.evaluation import DeviationKind, StepStatus, Verdict
from genba_sop.procedure import Severity

Operator = Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f]+$")]
Language = Literal["en", "ja"]


# --- videos ---------------------------------------------------------------------------------------------------------


class VideoInfoOut(Wire):
    """What the decoder found in the file."""

    duration_s: float
    width: int
    height: int
    fps: float
    frame_count: int | None
    codec: str
    rotation: int
    has_audio: bool
    variable_rate: bool
    truncated: bool = False


class VideoOut(LabelledOut):
    """An ingested video. ``deduplicated`` says that the same bytes had been ingested before, and this is that
    record.
    """

    title: str
    sha256: str
    size_bytes: int
    info: VideoInfoOut
    encoder: str
    sampled_frames: int
    timings_ms: dict[str, float]
    expires_at: datetime | None
    indexed: bool
    deduplicated: bool = False


class CueOut(Wire):
    """Words, and when in the video they are said."""

    start_s: float
    end_s: float
    words: str


class TranscriptOut(Wire):
    """What is said in a video, in the order of the cues' starts."""

    video_id: str
    cues: list[CueOut]


# --- procedures -----------------------------------------------------------------------------------------------------


class TextOut(Wire):
    """A text in both languages; ``ja`` may be empty."""

    en: str
    ja: str


class StepOut(Wire):
    """A step with the preconditions that hold for it, whether written or by default."""

    id: str
    name: TextOut
    after: list[str]
    critical: bool
    optional: bool
    min_s: float | None
    max_s: float | None
    tool: str | None
    weight: float
    severity: Severity
    action: TextOut


class SpanOut(Wire):
    """Where a step lies in a video."""

    id: str
    start_s: float
    end_s: float


class GoldOut(Wire):
    """A gold run of one version of a procedure."""

    id: str
    procedure_id: str
    version: int
    video_id: str
    steps: list[SpanOut]
    steps_by: Literal["author", "proposed"]
    created_at: datetime
    created_by: str


class ProcedureOut(LabelledOut):
    """A procedure at one version; the ETag is the version."""

    version: int
    updated_at: datetime
    title: TextOut
    steps: list[StepOut]
    golds: list[GoldOut]
    advice: list[str] = Field(description="What would make the scores surer, e.g. more gold runs.")


class ProcedureSummary(LabelledOut):
    """A procedure in a list."""

    version: int
    updated_at: datetime
    title: TextOut
    step_count: int
    gold_count: int


class ProcedureIn(AuthoredProcedure):
    """A new procedure; ``golds[].video`` are ids of ingested videos."""

    clearance: ClearanceLabel | None = Field(None, description="internal when absent, or yours if that is lower")


class GoldIn(Asked):
    """A video as a gold run; without ``steps`` they are proposed by change points for you to correct."""

    video_id: RecordId
    steps: list[AuthoredSpan] | None = Field(None, max_length=400)


class GoldSteps(Asked):
    """Where the steps of a gold run really lie."""

    steps: list[AuthoredSpan] = Field(min_length=1, max_length=400)


# --- evaluations ----------------------------------------------------------------------------------------------------


_PROCEDURE = "proc_01m7y3j0mk9gd7dvy52gwgq0vn"  # of examples
_VIDEO = "vid_01m7y3j0n25xc6617q3969kdq0"


class EvaluationIn(Asked):
    """Score a video against the current version of a procedure."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"procedure_id": _PROCEDURE, "video_id": _VIDEO, "operator": "op-7"}]}
    )

    procedure_id: RecordId
    video_id: RecordId
    operator: Operator | None = Field(None, description="Who was filmed, for the trend; a code is better than a name.")


class EvaluationBatchIn(Asked):
    """Score many videos against one procedure, as a job."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"procedure_id": _PROCEDURE, "videos": [{"video_id": _VIDEO}]}]}
    )

    procedure_id: RecordId
    videos: list[EvaluationItem] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _videos_differ(self) -> EvaluationBatchIn:
        ids = [item.video_id for item in self.videos]
        if len(set(ids)) < len(ids):
            raise ValueError("a video is listed twice")
        return self


class EvaluationItem(Asked):
    """One video of a batch."""

    video_id: RecordId
    operator: Operator | None = None


class IntervalOut(Wire):
    """Where the reviewers' score lies with the probability ``level``; [0, 100] while too few reviews exist to say
    more.
    """

    low: float
    high: float
    level: float
    calibrated: bool


class StepResultOut(Wire):
    """One row of the per-step table."""

    step_id: str
    name: TextOut
    status: StepStatus
    quality: float
    spans: list[SpanOut]
    duration_s: float
    gold_duration_s: float


class DeviationOut(Wire):
    """One thing that differs from the gold runs, and where: times in the trainee's video and in the reference gold."""

    index: int
    kind: DeviationKind
    step_id: str | None
    step_name: TextOut | None
    start_s: float
    end_s: float
    gold_start_s: float | None
    gold_end_s: float | None
    severity: Severity
    p_value: float | None
    measure: float
    expected: float | None
    action: TextOut


class TraceOut(Wire):
    """Why: matched pairs of reference-gold frame and trainee frame, and the cost of each pair."""

    gold_video_id: str
    path: list[tuple[int, int]]
    cost: list[float]


class VoteOut(Wire):
    """A gold run's weight in the verdict."""

    gold_id: str
    video_id: str
    vote: float


class EvaluationSummary(LabelledOut):
    """An evaluation in a list."""

    procedure_id: str
    procedure_version: int
    video_id: str
    operator: str | None
    score: float
    verdict: Verdict
    reviewed_verdict: Verdict | None
    encoder: str
    model_version: str
    timings_ms: dict[str, float]


class EvaluationOut(EvaluationSummary):
    """A stored evaluation, whole."""

    procedure_title: TextOut
    reasons: list[str]
    interval: IntervalOut
    steps: list[StepResultOut]
    deviations: list[DeviationOut]
    trace: TraceOut
    golds: list[VoteOut]


# --- reviews --------------------------------------------------------------------------------------------------------


class DeviationVerdict(Asked):
    """Whether one deviation of the evaluation is real."""

    index: Annotated[Whole, Field(ge=0, le=10_000)]
    confirmed: Flag


class ReviewIn(Asked):
    """A reviewer's word. It overrides the machine's verdict, which stays on record, and feeds the calibration."""

    verdict: Literal["pass", "fail"]
    score: Annotated[Real, Field(ge=0, le=100)] | None = None
    reason: Annotated[str, StringConstraints(min_length=3, max_length=2000, pattern=WITHOUT_NUL)]
    deviations: list[DeviationVerdict] = Field(default_factory=list, max_length=1000)


class ReviewOut(Wire):
    """A review as kept."""

    id: str
    evaluation_id: str
    reviewer: str
    verdict: Literal["pass", "fail"]
    score: float | None
    reason: str
    deviations: list[DeviationVerdict]
    created_at: datetime


class AgreementOut(Wire):
    """How far reviewers agree, each with the latest review per evaluation. Null where nothing was reviewed twice."""

    evaluations_reviewed_twice: int
    percent_agreement: float | None
    krippendorff_alpha: float | None = Field(description="Nominal, any number of reviewers; 1 agrees, 0 is chance.")
    machine_agreement: float | None = Field(
        description="Share of the latest reviews that confirm the machine's verdict."
    )


# --- search ---------------------------------------------------------------------------------------------------------


class ClipIn(Asked):
    """A part of an ingested video; the whole of it when times are absent."""

    video_id: RecordId
    start_s: Seconds = 0.0
    end_s: Seconds | None = None


class SearchIn(Asked):
    """Find clips by text, by clip, or by both (``alpha`` weighs the clip). Text meets step texts and transcripts;
    ``transcript_alpha`` weighs what is said.
    """

    text: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    clip: ClipIn | None = None
    alpha: Annotated[Real, Field(ge=0, le=1)] = 0.5
    transcript_alpha: Annotated[Real, Field(ge=0, le=1)] = 0.5
    k: Annotated[Whole, Field(ge=1, le=100)] = 10
    procedure_id: RecordId | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> SearchIn:
        if self.text is None and self.clip is None:
            raise ValueError("give text, clip or both")
        return self


class SearchHit(Wire):
    """A clip that fits; scores are of this query only and not comparable between queries."""

    video_id: str
    video_title: str
    start_s: float
    end_s: float
    score: float
    text_score: float | None = Field(description="Of the step's texts (BM25); 0 where they do not match.")
    transcript_score: float | None = Field(description="Of the cue (BM25); null where nothing that is said matches.")
    transcript: CueOut | None = Field(description="The cue that matches best.")
    clip_score: float | None = Field(description="Cosine similarity of the encoder's vectors.")
    procedure_id: str | None
    step_id: str | None
    step_name: TextOut | None
    source: Literal["gold", "evaluation", "video"]


class SearchOut(Wire):
    """What was found, and which encoder made the vectors that were compared (null when only text was)."""

    hits: list[SearchHit]
    encoder: str | None
    collection_version: str | None
    fusion: Literal["none", "convex"]
    alpha: float | None
    transcript_alpha: float | None = Field(description="Null when no transcript matches: step texts alone count.")


class AskIn(Asked):
    """A question about what is done and said in videos."""

    question: Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=WITHOUT_NUL)]
    procedure_id: RecordId | None = None
    k: Annotated[Whole, Field(ge=1, le=20, description="how many passages an answer may rest on")] = 5


class CitationOut(Wire):
    """A place in a video that an answer rests on; ``n`` is its number in the answer."""

    n: int
    video_id: str
    video_title: str
    start_s: float
    end_s: float
    words: str
    kind: Literal["step", "transcript"]
    procedure_id: str | None
    step_id: str | None
    step_name: TextOut | None
    score: float = Field(description="In [0, 1], of this question only.")


class AskOut(Wire):
    """An answer whose [n] are its citations. Not found: no citations, and the answer says so."""

    answer: str
    found: bool
    written_by: Literal["passages", "model"]
    model: str | None = Field(description="The model that worded the answer.")
    note: (
        Literal["model_unreachable", "model_timed_out", "model_refused", "model_uncited", "above_model_clearance"]
        | None
    ) = Field(description="Why passages answer although a model is set.")
    citations: list[CitationOut]


# --- analytics ------------------------------------------------------------------------------------------------------


class StepTimes(Wire):
    """How long a step takes, over the evaluations asked for, in seconds. Times are null where it was never done."""

    procedure_id: str
    step_id: str
    name: TextOut
    performed: int
    missing: int
    deviating: int
    p10_s: float | None
    median_s: float | None
    p90_s: float | None
    gold_median_s: float | None


class TrendPoint(Wire):
    """One evaluation on the control chart."""

    evaluation_id: str
    created_at: datetime
    score: float
    beyond_limits: bool
    in_run: bool = Field(description="Part of nine in a row on one side of the centre line.")


class OperatorTrend(Wire):
    """An individuals and moving-range chart of one operator's scores on one procedure; limits need 8 evaluations."""

    operator: str
    procedure_id: str
    centre: float
    lower_limit: float | None
    upper_limit: float | None
    points: list[TrendPoint]


class TimeSaved(Wire):
    """From the customer's own figures only; ``None`` elsewhere means a figure was not given."""

    evaluations: int
    manual_hours: float
    machine_hours: float
    review_hours: float
    saved_hours: float
    saved_cost: float | None


class AnalyticsOut(Wire):
    """Figures over the evaluations that the caller may see."""

    evaluations: int
    truncated: bool = Field(description="True when more evaluations match than were read; narrow the dates.")
    verdicts: dict[str, int]
    deviations: dict[str, int]
    steps: list[StepTimes]
    operators: list[OperatorTrend]
    time_saved: TimeSaved | None


class EmbeddedPicture(Wire):
    """A picture's vector, or why there is none."""

    index: int
    embedding: list[float] | None = None
    error: str | None = None


class EmbeddedOut(Wire):
    """Vectors of pictures, in the order in which these were sent."""

    encoder: str = Field(description="Vectors of another encoder are of another space.")
    dim: int
    needs_weights: bool
    pictures: list[EmbeddedPicture]


class Erased(Wire):
    """What a deletion removed; artifacts that another record still uses stay for that record."""

    id: str
    artifacts: int
    vectors: int


EvaluationBatchIn.model_rebuild()
