"""How labelled records, pages of them and background work read over HTTP, the same in every service. Knows no service."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from genba_shared.jobs import Job
from genba_shared.patterns import pattern
from genba_shared.principal import Clearance
from genba_shared.problems import Invalid, fault

_AN_ID = "must be an id as answers give it, such as vid_01k7zc3v8q2m5n6p7r8s9t0w1x"
ClearanceLabel = Literal["public", "internal", "confidential", "secret"]
RecordId = Annotated[str, StringConstraints(pattern=pattern(r"^[a-z]{2,8}_[0-9a-z]{1,30}$", _AN_ID))]
Item = TypeVar("Item")

_LABELS: tuple[ClearanceLabel, ...] = get_args(ClearanceLabel)
_ETAG = re.compile(r'(?:W/)?"(\d{1,9})"|(\d{1,9})|(\*)', re.ASCII)


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


class JobOut(Wire):
    """Work that goes on in the background; follow it at ``/v1/jobs/{id}``."""

    id: str
    recipe: str
    status: str
    location: str
    result_id: str | None = Field(None, description="The id that the record will have once the job has succeeded.")


def job_out(job: Job, *, result_id: str | None = None) -> JobOut:
    """A submitted job, as its submitter needs it."""
    return JobOut(id=job.id, recipe=job.recipe, status=job.status, location=f"/v1/jobs/{job.id}", result_id=result_id)


def clearance_label(clearance: int) -> ClearanceLabel:
    """The word for a stored label. Raises: ValueError for a number that is no clearance."""
    return _LABELS[Clearance(clearance)]


def expected_version(if_match: str) -> int | None:
    """The version that an ``If-Match`` names; None for ``*``. Raises Invalid."""
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        message = 'must be the version that you read, such as "3", or *'
        raise Invalid(f"If-Match {message}.", errors=[fault("if-match", message)])
    return None if match[3] else int(match[1] or match[2])
