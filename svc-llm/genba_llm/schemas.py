"""What svc-llm takes and gives, apart from OpenAI's formats (``schemas_openai``)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from genba_llm.verdict import Action, Domain
from genba_shared.patterns import pattern
from genba_shared.wire import Flag, Moment, Whole
from genba_shared.wire_records import ClearanceLabel, RecordId

DecisionName = Literal["ALLOW", "ESCALATE", "DENY", "REFUSE"]
LanguageName = Literal["ja", "en"]
Compartment = Annotated[
    str,
    Field(
        pattern=pattern(
            r"^[a-z0-9][a-z0-9_-]{0,39}$",
            "must be 1 to 40 of a to z, digits, _ and -, beginning with a letter or digit",
        )
    ),
]
Prompt = Annotated[str, Field(min_length=1, description="The text; longer than GENBA_LLM_MAX_PROMPT_CHARS gets 413.")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]


class Wire(BaseModel):
    """What goes over the wire."""

    model_config = ConfigDict(from_attributes=True, extra="forbid")


class About(Wire):
    """What a question is about, where the caller knows; the gate finds domain and language itself."""

    domain: Domain | None = Field(
        default=None, description="One of the eight domains; found from the text when absent."
    )
    classification: ClearanceLabel | None = Field(
        default=None, description="Of the content that is asked for; without it, what the policy says of such."
    )
    compartments: list[Compartment] = Field(default_factory=list, max_length=16, description="Of that content.")
    language: LanguageName | None = None


class TriageIn(About):
    """A text to decide on."""

    text: Prompt
    action: Action = "ask"
    queue: Flag = Field(default=True, description="Whether an ESCALATE waits for a person here.")


class EvidenceOut(Wire):
    """What one stage of the gate found."""

    stage: str
    decision: DecisionName
    codes: list[str]
    scores: dict[str, float]
    elapsed_ms: float


class DecisionOut(Wire):
    """What was decided, why, and where it stands in the audit log."""

    id: str
    decision: DecisionName
    confidence: float = Field(ge=0, le=1)
    domain: Domain
    language: LanguageName
    policy_ref: str
    escalation_target: str | None
    escalation_id: str | None
    reasons: list[str]
    evidence: list[EvidenceOut]
    model_version: str
    audit_id: int = Field(description="Number of the entry in the audit log.")
    created_at: datetime


class ThinkIn(About):
    """A question to think about."""

    text: Prompt
    max_tokens: Annotated[Whole, Field(ge=1, le=32768)] = 1024
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] = 0.2
    seed: Annotated[Whole | None, Field(ge=0, le=2**31 - 1)] = None
    documents: Flag = Field(default=True, description="Whether the answer may rest on the documents that you may see.")


class CitationOut(Wire):
    """A passage that an answer rests on."""

    number: int
    document_id: str
    title: str
    chunk: int
    text: str
    score: float


class ThinkOut(Wire):
    """The final answer. What was thought stays inside; the audit log holds a commitment to it."""

    answer: str | None = Field(description="Null when the gate did not allow one.")
    model: str
    decision: DecisionOut
    citations: list[CitationOut]
    finish: Literal["stop", "length", "content_filter"] | None
    thinking_audit_id: int | None = Field(description="Number of the audit entry that commits to the hidden thinking.")


class DecisionRecord(Wire):
    """A decision on record."""

    id: str
    clearance: ClearanceLabel
    created_at: datetime
    created_by: str
    route: str
    action: str
    domain: str
    language: str
    decision: DecisionName
    confidence: float
    policy_ref: str
    escalation_target: str | None
    reasons: list[str]
    model_version: str
    audit_id: int


class VerifyOut(Wire):
    """Whether the audit log holds."""

    intact: bool
    entries: int
    sealed: int
    head: str
    root: str | None
    broken_at: int | None
    reason: str | None
    checkpoint: str | None = Field(description="The newest signed checkpoint (a C2SP note). Keep it elsewhere.")
    key: str = Field(description="The log's public key (a vkey).")


class EscalationOut(Wire):
    """A question that waits for a person, or was decided."""

    id: str
    clearance: ClearanceLabel
    created_at: datetime
    created_by: str
    decision_id: str
    target: str
    status: Literal["open", "assigned", "decided"]
    due_at: datetime
    overdue: bool
    assignee: str | None
    outcome: Literal["ALLOW", "DENY", "REFUSE"] | None
    reason: str | None
    decided_by: str | None
    decided_at: datetime | None


class EscalationDetail(EscalationOut):
    """With the question itself, for who may decide."""

    text: str | None = Field(
        description="Null when it was erased, as it is with the decision unless the policy keeps texts."
    )
    decision: DecisionRecord


class AssignIn(Wire):
    """Who looks at it; the caller when absent."""

    assignee: Annotated[str | None, Field(min_length=1, max_length=200)] = None


class DecideIn(Wire):
    """A person's decision."""

    outcome: Literal["ALLOW", "DENY", "REFUSE"]
    reason: Annotated[str, StringConstraints(min_length=3, max_length=2000, strip_whitespace=True)]


class CalibrationOut(Wire):
    """How the gate's confidence agrees with people; numbers only from 30 decided questions on."""

    rows: int
    enough: bool
    allowed_share: float | None
    temperature: float | None
    ece_before: float | None
    ece_after: float | None


class ConsistencyOut(Wire):
    """Whether paraphrases were decided alike."""

    decisions: int
    clusters: int
    clustered: int
    score: float | None


class ReviewOut(Wire):
    """What people's decisions have to say of the model that decides now, and what of it is in force."""

    model_version: str
    rows: int = Field(description="Decisions of people on this model's content decisions; llm.gate_review uses them.")
    needed: int
    spot_checks: int
    temperature: float = Field(description="In force; 1 until llm.gate_review found another.")
    allow_from: float = Field(description="The least probability of ALLOW that is answered.")
    bound: float = Field(description="The share of dangerous requests that may be allowed.")
    false_allow_share: float | None = Field(description="Estimated from at least 30 spot checks, else null.")


class QualityOut(Wire):
    """How good the decisions were, of a period."""

    calibration: CalibrationOut
    consistency: ConsistencyOut
    review: ReviewOut


class PublishIn(Wire):
    """The next revision of a document."""

    document: dict[str, Any] = Field(
        description="A policy_state or identity_contract; its revision is set by the server."
    )
    note: Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]
    expected_revision: Annotated[Whole | None, Field(ge=1, le=2**31 - 1)] = Field(
        default=None, description="The revision that you started from; 409 when it is not the newest any more."
    )


class RevisionOut(Wire):
    """A revision on record."""

    revision: int
    fingerprint: str
    created_at: datetime
    created_by: str
    note: str


class RevisionDetail(RevisionOut):
    """With its document."""

    document: dict[str, Any]


class InForceOut(Wire):
    """What is in force, and every revision that was published; revision 1 is what ships."""

    revision: int
    document: dict[str, Any]
    cedar: str | None = Field(description="The rules that both documents make, as Cedar.")
    revisions: list[RevisionOut]


class DocumentOut(Wire):
    """A document of the company."""

    id: str
    clearance: ClearanceLabel
    created_at: datetime
    created_by: str
    title: str
    kind: Literal["text", "markdown", "html", "pdf", "docx"]
    sha256: str
    compartments: list[str]
    chars: int
    chunk_count: int


class SearchIn(About):
    """What to look for."""

    query: Prompt
    limit: Annotated[Whole, Field(ge=1, le=50)] = 5


class SearchOut(Wire):
    """Passages, best first."""

    decision: DecisionOut
    hits: list[CitationOut]


class SummarizeIn(About):
    """A text, or a document that is here, to summarise."""

    text: Prompt | None = None
    document_id: RecordId | None = None
    lines: Annotated[Whole, Field(ge=1, le=20)] = 5


class SummaryLine(Wire):
    """A line and the numbers (from 1) of the sentences that it rests on."""

    text: str
    sources: list[int]


class SummarizeOut(Wire):
    """A summary, line by line."""

    decision: DecisionOut
    model: str
    lines: list[SummaryLine]
    finish: Literal["stop", "length", "content_filter"] | None


class DraftMailIn(About):
    """What a mail should say."""

    recipient: Line
    sender: Line
    purpose: Line
    points: Annotated[list[Line], Field(min_length=1, max_length=30)]


class DraftMailOut(Wire):
    """A draft; nothing is sent."""

    decision: DecisionOut
    model: str
    subject: str | None
    body: str | None
    finish: Literal["stop", "length", "content_filter"] | None


class HostOut(Wire):
    """What is on this host that is not on the list."""

    watched: bool
    complete: bool
    violations: list[str]
    looked_at: datetime | None


class Period(Wire):
    """From (included) to (excluded)."""

    start: Moment
    end: Moment
