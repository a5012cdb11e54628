"""``/v1/llm/policies`` and ``/identities``: the company's rules, revision by revision."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, status

from genba_llm import policies
from genba_llm.policies import Kind
from genba_llm.routes_gate import Reader
from genba_llm.schemas import InForceOut, PublishIn, RevisionDetail, RevisionOut
from genba_llm.service import Here, Llm
from genba_llm.tables import PolicyVersion
from genba_shared.dependencies import require
from genba_shared.principal import Principal
from genba_shared.service import problem_responses

router = APIRouter(prefix="/v1/llm", tags=["llm policy"])
Publisher = Annotated[Principal, require("llm:admin")]
Revision = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.get("/policies")
def read_policy(here: Here, _: Reader) -> InForceOut:
    """The policy in force, as it decides now, and its revisions."""
    return _in_force(here, "policy")


@router.post("/policies", status_code=status.HTTP_201_CREATED, responses=problem_responses(409))
def publish_policy(body: PublishIn, here: Here, principal: Publisher) -> RevisionOut:
    """Publish the next policy. It takes effect at once here and within a second elsewhere; an invalid one changes nothing."""
    return _publish(here, "policy", body, principal)


@router.get("/policies/{revision}", responses=problem_responses(404))
def read_policy_revision(revision: Revision, here: Here, _: Reader) -> RevisionDetail:
    """One published revision of the policy."""
    return _revision(here, "policy", revision)


@router.get("/identities")
def read_identity(here: Here, _: Reader) -> InForceOut:
    """The identity contract in force, and its revisions."""
    return _in_force(here, "identity")


@router.post("/identities", status_code=status.HTTP_201_CREATED, responses=problem_responses(409))
def publish_identity(body: PublishIn, here: Here, principal: Publisher) -> RevisionOut:
    """Publish the next identity contract; as with policies."""
    return _publish(here, "identity", body, principal)


@router.get("/identities/{revision}", responses=problem_responses(404))
def read_identity_revision(revision: Revision, here: Here, _: Reader) -> RevisionDetail:
    """One published revision of the identity contract."""
    return _revision(here, "identity", revision)


def _in_force(here: Llm, kind: Kind) -> InForceOut:
    with here.database.read() as session:
        stored = [RevisionOut.model_validate(_fields(row)) for row in policies.versions(session, kind)]
    return InForceOut(
        revision=here.policies.revision(kind),
        document=here.policies.in_force(kind),
        cedar=here.gate.policy.cedar,
        revisions=stored,
    )


def _publish(here: Llm, kind: Kind, body: PublishIn, principal: Principal) -> RevisionOut:
    row = here.policies.publish(kind, body.document, principal, note=body.note, expected=body.expected_revision)
    return RevisionOut.model_validate(_fields(row))


def _revision(here: Llm, kind: Kind, revision: int) -> RevisionDetail:
    with here.database.read() as session:
        row = policies.version(session, kind, revision)
        return RevisionDetail.model_validate({**_fields(row), "document": row.document})


def _fields(row: PolicyVersion) -> dict[str, object]:
    return {name: getattr(row, name) for name in ("revision", "fingerprint", "created_at", "created_by", "note")}
