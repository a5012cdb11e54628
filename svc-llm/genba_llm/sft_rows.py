"""Rows of supervised fine-tuning, from JSON lines: what a row is, what a bad one costs, and how it reads as a conversation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genba_llm.refused import Refused
from genba_llm.retrieval import Passage
from genba_llm.verdict import Domain

DecisionName = Literal["ALLOW", "ESCALATE", "DENY", "REFUSE"]


class Row(BaseModel):
    """One example. ``output`` is the tagged answer; the identity and the policy stand in the system message."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instruction: Annotated[str, Field(min_length=1)]
    input: str = ""
    output: Annotated[str, Field(min_length=1)]
    decision: DecisionName
    domain: Domain
    policy_ref: str = ""
    escalation_target: str = ""
    identity_contract: str = ""
    policy_state: str = ""
    source: Annotated[str, Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]

    @property
    def has_thinking(self) -> bool:
        """True when the output carries its hidden thinking."""
        return "<think-" in self.output


class TooManyBadRows(Refused):
    """More rows of a data set do not match the schema than may be skipped."""


@dataclass
class BadRows:
    """What was skipped, by file and line; the first few are kept with their reasons."""

    limit: int
    n: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, place: str, reason: str) -> None:
        """Count one. Raises: TooManyBadRows beyond the limit."""
        self.n += 1
        if len(self.reasons) < 20:
            self.reasons.append(f"{place}: {reason}")
        if self.n > self.limit:
            message = f"{self.n} rows do not match the schema, at most {self.limit} may be skipped. " + "; ".join(
                self.reasons[:5]
            )
            raise TooManyBadRows(message)


def read_rows(paths: Sequence[Path], bad: BadRows) -> Iterator[Row]:
    """The rows of JSON-lines files in their order; a bad one is counted in ``bad`` and skipped.

    Raises: TooManyBadRows; OSError for a file that cannot be read.
    """
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield Row.model_validate(json.loads(line))
                except ValidationError as err:
                    first = err.errors()[0]
                    bad.add(
                        f"{path.name}:{number}",
                        f"{'.'.join(str(part) for part in first['loc']) or 'row'}: {first['msg']}",
                    )
                except ValueError as err:
                    bad.add(f"{path.name}:{number}", f"no JSON: {err}")


def given_passages(passages: Sequence[Passage]) -> str:
    """Passages of documents as a row's ``input`` holds them, numbered as an answer cites them."""
    return "\n\n".join(f"[{number}] {each.title}\n{each.text}" for number, each in enumerate(passages, start=1))


def passages_of(given: str) -> list[Passage]:
    """The passages of such an ``input``; none of another."""
    parts = [part.split("\n", 1) for part in given.split("\n\n") if part.startswith("[") and "\n" in part]
    return [Passage("", at, head.split("] ", 1)[-1], text, 0, 1.0) for at, (head, text) in enumerate(parts)]


def system_text(identity: str, policy: str) -> str:
    """What a model is told before the conversation, when it is trained and when it serves."""
    return "\n".join(part for part in (identity, policy) if part)


def messages(row: Row) -> list[dict[str, Any]]:
    """The conversation of a row: system (identity and policy, if any), user, assistant."""
    system = system_text(row.identity_contract, row.policy_state)
    user = f"{row.instruction}\n{row.input}" if row.input else row.instruction
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": row.output}]
    return [{"role": "system", "content": system}, *turns] if system else turns
