"""What a company decides about its own assistant: two versioned documents, checked before they can take effect.

``PolicyState`` says what may be disclosed to whom, which topics are restricted and who is asked; ``IdentityContract``
says what the assistant is for and what it will not do. Both are data: ``policy`` turns them into rules.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from genba_llm.verdict import ACTIONS, DOMAINS, Action, Decision, Domain
from genba_shared import yaml_files
from genba_shared.clearance import Clearance
from genba_shared.patterns import message, pattern

D = TypeVar("D", bound=BaseModel)
DEFAULTS = Path(__file__).parent / "defaults"
Outcome = Literal["ESCALATE", "DENY", "REFUSE"]
LevelName = Literal["public", "internal", "confidential", "secret"]
_A_NAME = pattern(
    r"^[a-z][a-z0-9_]{0,59}$", "must be a name of at most 60 characters: a to z, digits and _, a letter first"
)
RuleId = Annotated[str, Field(pattern=_A_NAME)]
Target = Annotated[str, Field(pattern=_A_NAME)]
Words = tuple[Annotated[str, Field(min_length=1, max_length=60)], ...]


class PolicyInvalid(ValueError):
    """The document cannot take effect; ``errors`` say where and why."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Text(_Document):
    """One sentence for people, in both languages."""

    ja: Annotated[str, Field(min_length=1, max_length=500)]
    en: Annotated[str, Field(min_length=1, max_length=500)]


class DisclosureRule(_Document):
    """Content at or above a level does not pass through these actions, unless the asker holds an exempt role."""

    id: RuleId
    actions: Annotated[tuple[Action, ...], Field(min_length=1)]
    at_or_above: LevelName
    domains: tuple[Domain, ...] = DOMAINS
    unless_roles: tuple[str, ...] = ()
    outcome: Outcome
    reason: Text


class RestrictedTopic(_Document):
    """A subject told by words: it is touched where *every* group in ``all_of`` has a word in the text.

    ``from_clearance`` lifts the restriction for askers cleared at least that high; None lifts it for nobody.
    """

    id: RuleId
    domains: tuple[Domain, ...] = DOMAINS
    all_of: Annotated[tuple[Annotated[Words, Field(min_length=1)], ...], Field(min_length=1)]
    from_clearance: LevelName | None = None
    unless_roles: tuple[str, ...] = ()
    outcome: Outcome
    reason: Text


class DomainRules(_Document):
    """What is particular to one domain: the words that tell it, and who looks at what is escalated from it."""

    title: Text
    keywords: Words = ()
    escalation_target: Target


class PolicyState(_Document):
    """A company's policy at one revision."""

    id: RuleId
    revision: Annotated[int, Field(ge=1)] = 1
    title: Text
    audit_text: Literal["hash", "full"] = "hash"
    default_classification: LevelName = "public"
    levels: Mapping[LevelName, Text]
    domains: Mapping[Domain, DomainRules]
    disclosure: tuple[DisclosureRule, ...] = ()
    personal_data: Mapping[RuleId, Outcome] = Field(default_factory=dict)
    restricted_topics: tuple[RestrictedTopic, ...] = ()
    extra_cedar: Annotated[str, Field(max_length=50_000)] = ""

    @field_validator("domains")
    @classmethod
    def _every_domain(cls, domains: Mapping[Domain, DomainRules]) -> Mapping[Domain, DomainRules]:
        if missing := sorted(set(DOMAINS) - set(domains)):
            raise ValueError(f"domains lacks {', '.join(missing)}")
        return domains

    @field_validator("levels")
    @classmethod
    def _every_level(cls, levels: Mapping[LevelName, Text]) -> Mapping[LevelName, Text]:
        if missing := [level.label for level in Clearance if level.label not in levels]:
            raise ValueError(f"levels lacks {', '.join(missing)}")
        return levels

    @model_validator(mode="after")
    def _ids_are_unique(self) -> PolicyState:
        seen: set[str] = set()
        for name in [rule.id for rule in self.disclosure] + [topic.id for topic in self.restricted_topics]:
            if name in seen:
                raise ValueError(f"two rules are called {name}")
            seen.add(name)
        return self

    @property
    def reference(self) -> str:
        """How a decision cites this revision."""
        return f"{self.id}@{self.revision}"

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> PolicyState:
        """The state that a JSON or YAML document describes. Raises: PolicyInvalid with every error."""
        return _parse(cls, document)


class IdentityContract(_Document):
    """Who the assistant is: its role, where it may act, what it will not do, and to whom it turns."""

    id: RuleId
    revision: Annotated[int, Field(ge=1)] = 1
    role: Text
    domains: Annotated[tuple[Domain, ...], Field(min_length=1)] = DOMAINS
    actions: Annotated[tuple[Action, ...], Field(min_length=1)] = ACTIONS
    limitations: tuple[Text, ...] = ()
    outside_scope: Outcome = "ESCALATE"
    escalation: Mapping[Domain, Target] = Field(default_factory=dict)
    escalation_default: Target = "administrator"

    @property
    def reference(self) -> str:
        """How a decision cites this revision."""
        return f"{self.id}@{self.revision}"

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> IdentityContract:
        """The contract that a JSON or YAML document describes. Raises: PolicyInvalid with every error."""
        return _parse(cls, document)


def fingerprint(document: PolicyState | IdentityContract) -> str:
    """SHA-256 over a document's content: two revisions that say the same have the same one."""
    content = document.model_dump(mode="json", exclude={"revision"})
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def outcome_of(name: str) -> Decision:
    """Raises: ValueError for an outcome that is none or that would let something through."""
    decision = Decision.parse(name)
    if decision is Decision.ALLOW:
        raise ValueError("A rule cannot have the outcome ALLOW.")
    return decision


@functools.cache
def default_policy() -> PolicyState:
    """The policy that ships: cautious where harm is done by disclosure, open elsewhere."""
    return PolicyState.from_document(load_document(DEFAULTS / "policy_state.yaml"))


@functools.cache
def default_identity() -> IdentityContract:
    """The contract that ships: an assistant for all eight domains."""
    return default_identities()["general"]


@functools.cache
def default_identities() -> Mapping[str, IdentityContract]:
    """The contracts that ship, one for each domain, by id."""
    document = load_document(DEFAULTS / "identity_contracts.yaml")
    contracts = (IdentityContract.from_document(each) for each in document["contracts"])
    return {contract.id: contract for contract in contracts}


def load_document(path: Path) -> dict[str, Any]:
    """A document from a YAML or JSON file. Raises: PolicyInvalid if it does not parse; OSError if it cannot be read."""
    try:
        document = yaml_files.load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyInvalid([f"{path.name} does not parse: {yaml_files.fault(error)}"]) from error
    if not isinstance(document, dict):
        raise PolicyInvalid([f"{path.name} must hold a mapping"])
    return document


def _parse(kind: type[D], document: Mapping[str, Any]) -> D:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise PolicyInvalid(
            [f"{'.'.join(map(str, each['loc'])) or kind.__name__}: {message(each)}" for each in error.errors()]
        ) from error
