"""``/v1/sem/policy``: which precision is promised of what no person looks at, and how much is looked at all the same."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from genba_sem.deciding import reviews_for
from genba_sem.dependencies import Reader, Writer
from genba_sem.service import Here, Sem
from genba_sem.tables import PolicyRow
from genba_shared.audit import append_in
from genba_shared.db import utc_now
from genba_shared.dependencies import IfMatch
from genba_shared.problems import VersionConflict
from genba_shared.service import problem_responses
from genba_shared.wire import Real
from genba_shared.wire_records import Asked, Wire, expected_version

router = APIRouter(prefix="/v1/sem/policy", tags=["sem reviews"])


class PolicyIn(Asked):
    """What is wanted."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"precision": 0.98, "audit_share": 0.05}]})

    precision: Annotated[Real, Field(ge=0.6, le=0.9999)]
    audit_share: Annotated[Real, Field(ge=0.01, le=1)] = 0.05


class PolicyOut(Wire):
    """What holds."""

    precision: float
    audit_share: float
    error_free_reviews: int = Field(description="Random reviews without an error that this precision needs at least.")
    version: int = Field(description="0: the installation's settings hold.")
    updated_at: datetime | None
    updated_by: str | None


@router.get("", responses=problem_responses(404))
def get_policy(response: Response, here: Here, principal: Reader) -> PolicyOut:
    """What is promised of automatic confirmations."""
    with here.database.read() as session:
        out = _out(here, session.get(PolicyRow, principal.tenant))
    response.headers["ETag"] = f'"{out.version}"'
    return out


@router.put("", responses=problem_responses(404, 409))
def set_policy(body: PolicyIn, if_match: IfMatch, response: Response, here: Here, principal: Writer) -> PolicyOut:
    """Promise another precision, from the next decision on. 409 when somebody else was quicker."""
    expected = expected_version(if_match)
    with here.database.transaction() as session:
        row = session.get(PolicyRow, principal.tenant, with_for_update=True)
        version = row.version if row else 0
        if expected is not None and expected != version:
            raise VersionConflict(f"The policy is at version {version}, not {expected}.", current_version=version)
        if row is None:
            row = PolicyRow(tenant=principal.tenant)
            session.add(row)
        row.version, row.precision, row.audit_share = version + 1, body.precision, body.audit_share
        row.updated_at, row.updated_by = utc_now(), principal.subject
        session.flush()
        detail = {"precision": body.precision, "audit_share": body.audit_share}
        append_in(session, "sem.policy_set", actor=principal.subject, subject=principal.tenant, detail=detail)
        out = _out(here, row)
    response.headers["ETag"] = f'"{out.version}"'
    return out


def _out(here: Sem, row: PolicyRow | None) -> PolicyOut:
    precision = row.precision if row else here.settings.precision
    return PolicyOut(
        precision=precision,
        audit_share=row.audit_share if row else here.settings.audit_share,
        error_free_reviews=reviews_for(precision),
        version=row.version if row else 0,
        updated_at=row.updated_at if row else None,
        updated_by=row.updated_by if row else None,
    )
