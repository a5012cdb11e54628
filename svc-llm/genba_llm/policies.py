"""The company's two documents, versioned in the database: published, checked before they take effect, loaded without a restart.

The newest revision is in force. One that does not validate is refused and changes nothing; the rules are swapped by one
assignment, so requests in flight keep those that they took. Other processes look for new revisions every second.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import JsonValue
from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_llm.metrics import LlmMetrics
from genba_llm.policy import Policy
from genba_llm.policy_state import IdentityContract, PolicyInvalid, PolicyState, fingerprint
from genba_llm.tables import PolicyVersion
from genba_shared.audit import append_in
from genba_shared.db import Database, take_turns, utc_now
from genba_shared.principal import Principal
from genba_shared.problems import Invalid, NotFound, VersionConflict
from genba_shared.telemetry import get_logger

Kind = Literal["policy", "identity"]
KINDS: tuple[Kind, ...] = ("policy", "identity")
log = get_logger(__name__)


@dataclass(frozen=True)
class Policies:
    """Keeps ``policy``, which the gate asks, at what the database says."""

    database: Database
    policy: Policy
    metrics: LlmMetrics
    _turn: threading.Lock = field(default_factory=threading.Lock)  # whoever read before a publication applies before it

    def refresh(self) -> None:
        """Take up newer revisions. One that this process cannot load leaves the old one in force, and is logged."""
        with self._turn:
            self._refresh()
        for kind in KINDS:
            self.metrics.policy_revision.labels(kind).set(self.revision(kind))

    def _refresh(self) -> None:
        with self.database.read() as session:
            newest = {kind: _newest(session, kind) for kind in KINDS}
        for kind, row in newest.items():
            if row is not None and row.revision != self.revision(kind):
                try:
                    self._apply(kind, _parse(kind, row.document))
                except PolicyInvalid as error:
                    log.error("policy_not_loaded", kind=kind, revision=row.revision, errors=len(error.errors))  # noqa: TRY400

    def revision(self, kind: Kind) -> int:
        """What is in force here."""
        return (self.policy.state if kind == "policy" else self.policy.identity).revision

    def in_force(self, kind: Kind) -> dict[str, Any]:
        """The document in force here."""
        document = self.policy.state if kind == "policy" else self.policy.identity
        return document.model_dump(mode="json")

    def publish(
        self, kind: Kind, document: dict[str, Any], principal: Principal, *, note: str, expected: int | None
    ) -> PolicyVersion:
        """Make the next revision and let it take effect.

        Raises: Invalid with every error, and the old one stays; VersionConflict if ``expected`` is not the newest any more.
        """
        with self.database.transaction() as session:
            take_turns(session, f"llm_policy_{kind}")
            newest = _newest(session, kind)
            current = newest.revision if newest else self.revision(kind)
            if expected is not None and expected != current:
                raise VersionConflict(f"The {kind} is at revision {current}, not {expected}.", revision=current)
            parsed = self._checked(kind, {**document, "revision": current + 1})
            row = PolicyVersion(
                kind=kind,
                revision=current + 1,
                document=parsed.model_dump(mode="json"),
                fingerprint=fingerprint(parsed),
                created_at=utc_now(),
                created_by=principal.subject,
                note=note,
            )
            session.add(row)
            detail: dict[str, JsonValue] = {"revision": row.revision, "fingerprint": row.fingerprint, "note": note}
            append_in(session, f"llm.{kind}_published", actor=principal.subject, subject=parsed.id, detail=detail)
        self.refresh()
        return row

    def _checked(self, kind: Kind, document: dict[str, Any]) -> PolicyState | IdentityContract:
        """Parsed and compiled aside, with the other document that is in force."""
        try:
            parsed = _parse(kind, document)
            if isinstance(parsed, PolicyState):
                Policy(parsed, self.policy.identity)
            else:
                Policy(self.policy.state, parsed)
        except PolicyInvalid as error:
            raise Invalid(
                f"The {kind} does not validate; revision {self.revision(kind)} stays in force.",
                errors=[{"field": "document", "message": each[:500]} for each in error.errors[:50]],
            ) from error
        return parsed

    def _apply(self, kind: Kind, document: PolicyState | IdentityContract) -> None:
        if isinstance(document, PolicyState):
            self.policy.replace(state=document)
        else:
            self.policy.replace(identity=document)
        log.info("policy_swapped", kind=kind, revision=document.revision)


def versions(session: Session, kind: Kind) -> Sequence[PolicyVersion]:
    """Every stored revision, newest first."""
    query = select(PolicyVersion).where(PolicyVersion.kind == kind).order_by(PolicyVersion.revision.desc())
    return session.scalars(query).all()


def version(session: Session, kind: Kind, revision: int) -> PolicyVersion:
    """One revision. Raises: NotFound."""
    row = session.get(PolicyVersion, (kind, revision))
    if row is None:
        raise NotFound(f"There is no revision {revision} of the {kind}.")
    return row


def _newest(session: Session, kind: Kind) -> PolicyVersion | None:
    query = select(PolicyVersion).where(PolicyVersion.kind == kind).order_by(PolicyVersion.revision.desc()).limit(1)
    return session.scalars(query).first()


def _parse(kind: Kind, document: dict[str, Any]) -> PolicyState | IdentityContract:
    return PolicyState.from_document(document) if kind == "policy" else IdentityContract.from_document(document)
