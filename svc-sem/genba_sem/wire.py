"""What every part of svc-sem's wire format is made of: the shapes of records, pages and versions. Knows no route."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Header, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from genba_shared.jobs import Job
from genba_shared.principal import Clearance, Principal, require
from genba_shared.problems import Invalid

ClearanceLabel = Literal["public", "internal", "confidential", "secret"]
Language = Literal["en", "ja"]
RecordId = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,8}_[0-9a-z]{1,30}$")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f]+$")]
Note = Annotated[str, StringConstraints(max_length=4000, pattern=r"^[^\x00]*$")]
Reason = Annotated[str, StringConstraints(min_length=3, max_length=2000, pattern=r"^[^\x00]*$")]
Item = TypeVar("Item")

Reader = Annotated[Principal, require("sem:read")]
Writer = Annotated[Principal, require("sem:write")]
Reviewer = Annotated[Principal, require("sem:review")]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[RecordId | None, Query(description="next_cursor of the page before")]

_ETAG = re.compile(r'(?:W/)?"(\d{1,9})"|(\d{1,9})|(\*)', re.ASCII)
_IF_MATCH = WithJsonSchema({"type": "string", "pattern": r'^((W/)?"[0-9]{1,9}"|[0-9]{1,9}|\*)$'})
IfMatch = Annotated[str, Header(description='the version that you read, as its ETag: "3"; * for any'), _IF_MATCH]


class Wire(BaseModel):
    """An answer."""

    model_config = ConfigDict(from_attributes=True)


class Asked(BaseModel):
    """A request's body; a misspelt key is an error, not a silence."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class Page(Wire, Generic[Item]):
    """One page of a list, newest first. Pass ``next_cursor`` as ``cursor`` for the next; null on the last page."""

    items: list[Item]
    next_cursor: str | None


class LabelledOut(Wire):
    """What every record carries."""

    id: str
    clearance: ClearanceLabel
    created_at: datetime
    created_by: str


class TextOut(Wire):
    """A text in both languages; either may be empty."""

    en: str = ""
    ja: str = ""


class NameIn(Asked):
    """A name in English, Japanese or both."""

    en: Annotated[str, StringConstraints(max_length=120, pattern=r"^[^\x00-\x1f]*$")] = ""
    ja: Annotated[str, StringConstraints(max_length=120, pattern=r"^[^\x00-\x1f]*$")] = ""

    @model_validator(mode="after")
    def _is_named(self) -> NameIn:
        if not self.en and not self.ja:
            raise ValueError("give en, ja or both")
        return self


class TextIn(Asked):
    """A longer text in English, Japanese, both or neither."""

    en: Note = ""
    ja: Note = ""


class WordsIn(Asked):
    """Other words for the same thing."""

    en: list[Line] = Field(default_factory=list, max_length=50)
    ja: list[Line] = Field(default_factory=list, max_length=50)


class WordsOut(Wire):
    """Other words for the same thing."""

    en: list[str] = Field(default_factory=list)
    ja: list[str] = Field(default_factory=list)


class JobOut(Wire):
    """Work that goes on in the background; follow it at ``/v1/jobs/{id}``."""

    id: str
    recipe: str
    status: str
    location: str


def job_out(job: Job) -> JobOut:
    """A submitted job, as its submitter needs it."""
    return JobOut(id=job.id, recipe=job.recipe, status=job.status, location=f"/v1/jobs/{job.id}")


def clearance_label(clearance: int) -> ClearanceLabel:
    """The word for a stored clearance."""
    words: dict[int, ClearanceLabel] = {0: "public", 1: "internal", 2: "confidential", 3: "secret"}
    return words[int(Clearance(clearance))]


def expected_version(if_match: str) -> int | None:
    """The version that an ``If-Match`` names; None for ``*``. Raises Invalid."""
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        message = 'must be the version that you read, such as "3", or *'
        raise Invalid(f"If-Match {message}.", errors=[fault("if-match", message)])
    return None if match[3] else int(match[1] or match[2])


def fault(field: str, message: str) -> Any:
    """One entry of a problem's ``errors``."""
    return {"field": field, "message": message}
