"""What goes over the wire. Rows of bulk requests are checked one by one, so that a malformed one fails alone with its index."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema

from genba_recommend.discovering import When
from genba_shared.patterns import pattern
from genba_shared.text_forms import nfc
from genba_shared.wire import Flag, Moment, Real
from genba_shared.wire_records import ClearanceLabel

ID_PATTERN: Final = pattern(
    r"^[A-Za-z0-9_][A-Za-z0-9_.:@~-]{0,127}$",
    "must be an id of at most 128 characters: letters, digits and _ . : @ ~ -, a letter, digit or _ first",
)
KindName = Literal["like", "view", "click", "impression", "dislike"]
Source = Literal["personal", "similar", "segment", "trending", "popular"]

Id = Annotated[str, Field(pattern=ID_PATTERN)]


def _composed(word: str) -> str:
    """A Mac writes が as か and a mark: the same word, and the same filter."""
    return nfc(word)


Word = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[^\u0000]*$"), AfterValidator(_composed)]
ShortText = Annotated[str, Field(max_length=300, pattern=r"^[^\u0000]*$")]
LongText = Annotated[str, Field(max_length=5000, pattern=r"^[^\u0000]*$")]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Words = Annotated[list[Word], BeforeValidator(_as_list), Field(max_length=50)]


class Wire(BaseModel):
    """Unknown fields are refused: a misspelt filter that does nothing is worse than an error."""

    model_config = ConfigDict(extra="forbid")


class ItemIn(Wire):
    """A video of the catalogue; only the id is needed. One word or a list for what can be several."""

    item_id: Id
    title: ShortText = ""
    description: LongText = ""
    genre: Words = []
    maker: Word | None = None
    performers: Words = []
    tags: Words = []
    price: Annotated[Real, Field(ge=0, le=1e9)] | None = None
    duration_s: Annotated[Real, Field(ge=0, le=1e7)] | None = None
    published_at: Moment | None = None
    regions: Words = Field(default=[], description="Where it may be shown; everywhere when empty.")
    embedding: Annotated[list[Annotated[Real, Field(ge=-1e9, le=1e9)]], Field(max_length=2048)] | None = Field(
        default=None, description="Of the thumbnail or preview; one length for the whole catalogue."
    )
    clearance: ClearanceLabel = "internal"
    active: Flag = Field(default=True, description="False takes it off every list and keeps its history.")


class UserIn(Wire):
    """What is known of a user beside what they do."""

    user_id: Id
    age_range: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\u0000]*$")] | None = None
    region: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\u0000]*$")] | None = None
    sessions_per_week: Annotated[Real, Field(ge=0, le=10_000)] | None = None


class EventIn(Wire):
    """Something that a user did with an item. ``event_id`` is the sender's: sent twice, it counts once."""

    event_id: Id
    user_id: Id
    item_id: Id
    kind: KindName
    at: Moment | None = Field(default=None, description="When; the moment of arrival when absent.")
    watched_s: Annotated[Real, Field(ge=0, le=1e7)] | None = Field(default=None, description="Of a view.")
    session_id: Id | None = None


def _rows(example: dict[str, Any]) -> WithJsonSchema:
    """Rows are checked one by one by the route, so the list takes whatever JSON has."""
    return WithJsonSchema({"type": "array", "minItems": 1, "items": {}, "examples": [[example]]})


_ITEM = {
    "item_id": "v000001", "title": "Quiet Harbour", "genre": ["drama"], "maker": "Aoi Works", "performers": ["Mori Aya"],
    "tags": ["sea"], "price": 330, "duration_s": 1500, "published_at": "2026-11-01T09:00:00+09:00",
}  # fmt: skip
_USER = {"user_id": "u000001", "age_range": "25-34", "region": "Kanto"}
_EVENT = {
    "event_id": "e1", "user_id": "u000001", "item_id": "v000001", "kind": "view", "watched_s": 420.5,
    "at": "2026-11-02T20:15:00+09:00", "session_id": "s1",
}  # fmt: skip


class ItemsIn(Wire):
    """Items to add or replace."""

    items: Annotated[
        list[JsonValue], Field(min_length=1, description="Each with the fields of `ItemIn`."), _rows(_ITEM)
    ]


class UsersIn(Wire):
    """Users to add or replace."""

    users: Annotated[
        list[JsonValue], Field(min_length=1, description="Each with the fields of `UserIn`."), _rows(_USER)
    ]


class EventsIn(Wire):
    """Events to add."""

    events: Annotated[
        list[JsonValue], Field(min_length=1, description="Each with the fields of `EventIn`."), _rows(_EVENT)
    ]


class Rejected(BaseModel):
    """A row that was not taken, and why."""

    index: int
    errors: list[dict[str, str]]


class Written(BaseModel):
    """What became of a bulk request."""

    accepted: int
    rejected: list[Rejected] = []


class EventsWritten(Written):
    """What became of events. Duplicates are known by their event id; those of unknown items are kept until the item comes."""

    duplicates: int = 0
    unknown_items: list[str] = Field(default=[], description="Items that the catalogue does not have yet; up to 100.")
    unknown_item_events: int = 0


Csv = Annotated[list[Word], Field(max_length=50)]


class Filters(Wire):
    """What may be on a list. Several values of one filter: any of them; several filters: all of them."""

    genre: Csv = []
    maker: Csv = []
    tags: Csv = []
    performers: Csv = []
    exclude: Annotated[list[Id], Field(max_length=200, description="Items that must not be on the list.")] = []
    region: Annotated[Word | None, Field(description="Only what may be shown there.")] = None
    price_min: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    price_max: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    duration_min_s: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    duration_max_s: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    clearance: Annotated[ClearanceLabel | None, Field(description="Nothing labelled above; your own when absent.")] = (
        None
    )


class ListQuery(Filters):
    """How a list is made."""

    k: Annotated[int, Field(ge=1, le=200)] = 20
    diversity: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False, description="0: by score alone.")] = None
    explore: Annotated[
        float,
        Field(
            ge=0, le=0.5, allow_inf_nan=False, description="Share of places that chance fills; propensities are logged."
        ),
    ] = 0.0
    discover: Annotated[
        When | None,
        Field(description="Whether the last place goes to what is seldom shown; `sometimes` when absent."),
    ] = None
    seen: Annotated[Literal["removed", "kept"], Field(description="What the user has liked, viewed or disliked.")] = (
        "removed"
    )
    aim: Annotated[
        Literal["fit", "watched", "liked", "returns"],
        Field(description="`fit`: what the user turns to; the others add what a head of the version foresees then."),
    ] = "fit"
    predict: Annotated[bool, Field(description="Tell what the version's heads foresee of each personal item.")] = False


class SessionIn(ListQuery):
    """An anonymous session: what was looked at, newest first."""

    model_config = ConfigDict(extra="forbid", strict=True)  # a body has types of its own, a query has not

    items: Annotated[list[Id], Field(max_length=200)] = []


class Reason(BaseModel):
    """Why an item is on the list, for a person."""

    kind: Literal[
        "because_of", "genre", "maker", "for_you", "segment", "trending", "popular", "new", "explored", "seldom",
        "similar",
    ]  # fmt: skip
    en: str
    ja: str
    item_id: str | None = None


class ListedItem(BaseModel):
    """One place of a list."""

    item_id: str
    title: str
    score: float = Field(description="Comparable within one list and one source only.")
    source: Source
    propensity: float = Field(
        description="The chance with which it came to this place; 1 unless `explore` was asked for."
    )
    reasons: list[Reason]
    predicted: dict[Literal["watched", "liked", "skipped", "returns"], float] | None = Field(
        default=None, description="By head: the share watched, and the chance of the others; null unless asked for."
    )


class Tried(BaseModel):
    """A source that was passed over."""

    source: Source
    why: str


class Arm(BaseModel):
    """The experiment that a user takes part in."""

    experiment_id: str
    arm: str


class ListOut(BaseModel):
    """A list, and what made it. All personal items of one list come from one version's towers and vectors."""

    list_id: str = Field(description="Give it with feedback, and in questions to us.")
    items: list[ListedItem]
    source: Source
    aim: Literal["fit", "watched", "liked", "returns"] = Field(
        description="What the personal items are ordered by; `fit` where the version lacks the head that was asked for."
    )
    passed_over: list[Tried]
    model: str | None
    model_version: int | None
    index: str | None
    experiment: Arm | None


class EmbeddingOut(BaseModel):
    """A user's vector under the version that serves."""

    user_id: str
    model: str
    model_version: int
    history: int = Field(description="Items that it was made from.")
    vector: list[float]


class UserErased(BaseModel):
    """What was erased."""

    user_id: str
    events: int
    exposures: int


class Status(BaseModel):
    """What this process serves."""

    model: str
    model_version: int | None
    index: str | None
    items: int
    items_without_vector: int
    users_cached: int
    experiments: int


class ImportanceRow(BaseModel):
    """How much of the metric is lost when a feature is shuffled among items or users."""

    feature: str
    importance: float
    spread: float


class ImportanceOut(BaseModel):
    """Permutation importance of one version, the greatest first."""

    model: str
    model_version: int
    metric: str
    features: list[ImportanceRow]


class MovedOut(BaseModel):
    """What moved a score, and by how much; negative when it spoke against the item."""

    part: Literal["history_item", "top_genres", "top_makers", "age_range", "region", "activity", "popularity"]
    by: float
    en: str
    ja: str
    item_id: str | None


class ExplanationOut(BaseModel):
    """Why an item scores as it does for a user, the strongest part first, by leaving out one part at a time."""

    user_id: str
    item_id: str
    model: str
    model_version: int
    score: float
    moved: list[MovedOut]


class RefreshLine(BaseModel):
    """A line of the refresh log."""

    job_id: str
    version: int
    kind: str
    level: str
    message: str
    at: datetime


class RefreshLogOut(BaseModel):
    """The newest lines first; lines are kept for seven days."""

    lines: list[RefreshLine]


class PictureOut(BaseModel):
    """An item's picture, and whether it is embedded."""

    item_id: str
    sha256: str
    media_type: str
    size_bytes: int
    state: Literal["waiting", "embedded", "unreadable"]
    note: str | None = Field(
        description="Why it waits: no_encoder, encoder_unreachable, encoder_refused, other_encoder; or what is wrong with it."
    )
    encoder: str | None
    dim: int | None


class UnreadablePicture(BaseModel):
    """A picture that the encoder could not read."""

    item_id: str
    why: str


class PicturesOut(BaseModel):
    """How many items have pictures, and what became of them."""

    encoder: str | None = Field(description="Of the vectors that the catalogue has.")
    embedded: int
    waiting: int
    unreadable: int
    waiting_for: dict[str, int] = Field(description="Of those that wait, how many for which reason.")
    unreadable_items: list[UnreadablePicture] = Field(description="The first two hundred that you may see.")
    items: list[str] = Field(description="Those of the items asked for that have a picture.")
