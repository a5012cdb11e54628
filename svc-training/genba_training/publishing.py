"""What becomes visible with a job's success: the version of its model, then whatever its recipe publishes.

The bundle is stored before the transaction, so that the transaction is short: an attempt that is fenced off in between
leaves bytes that nobody points to and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sqlalchemy.orm import Session

from genba_shared.bundles import Stored
from genba_shared.recipe import Result, Run
from genba_shared.registry import NOT_ASKED, Registry, Version
from genba_shared.telemetry import get_logger

log = get_logger(__name__)


@dataclass
class Publishing:
    """Called by the transaction that finishes a job; ``version`` is then what it registered."""

    registry: Registry
    run: Run
    result: Result
    stored: Stored | None
    version: Version | None = field(default=None, init=False)

    @classmethod
    def prepare(cls, registry: Registry, run: Run, result: Result) -> Self:
        """Store the bundle, if there is one. Raises: BadBundle, which fails the job for good."""
        return cls(registry, run, result, None if result.register is None else registry.store(result.register))

    def __call__(self, session: Session) -> Mapping[str, Any]:
        """What joins the job's result: the version and what became of it."""
        if self.result.register is not None:
            self.version = self.registry.register(
                session,
                self.result.register,
                job_id=self.run.job_id,
                by=self.run.principal.subject,
                stored=self.stored,
                compared=self.run.compared.get(self.result.register.model, NOT_ASKED),
                principal=self.run.principal,
            )
        if self.result.publish is not None:
            self.result.publish(session)
        return {} if self.version is None else {"registered": _summary(self.version)}

    def say(self) -> None:
        """After the commit."""
        if (version := self.version) is not None:
            log.info("model_registered", model=version.model, version=version.number, outcome=version.outcome)


def _summary(version: Version) -> dict[str, Any]:
    missed = [gate.reason for gate in version.gates if not gate.passed]
    return {"model": version.model, "number": version.number, "outcome": version.outcome, "missed": missed}
