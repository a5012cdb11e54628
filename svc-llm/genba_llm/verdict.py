"""The words of the gate: what is asked, by whom, and what was decided why. Plain values; every stage speaks in them.

``Decision`` is a lattice: stages are joined by ``max``, so no stage can lower what another one found.
Knows no policy, no model, no web.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from genba_shared.clearance import Clearance

Domain = Literal[
    "defense", "aerospace", "transport", "medical", "finance", "business", "information_systems", "general"
]
Action = Literal["ask", "search", "summarize", "draft_mail", "disclose", "export"]
Language = Literal["ja", "en"]
Stage = Literal["normalise", "personal_data", "policy", "classifier", "reasoning", "fusion", "gate"]

DOMAINS: tuple[Domain, ...] = get_args(Domain)
ACTIONS: tuple[Action, ...] = get_args(Action)


class Decision(enum.IntEnum):
    """What becomes of a request; a total order in which a stage can only go up.

    ALLOW: answer. ESCALATE: a person decides. DENY: not for this asker here. REFUSE: for nobody.
    """

    ALLOW = 0
    ESCALATE = 1
    DENY = 2
    REFUSE = 3

    @property
    def label(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, label: str) -> Decision:
        """Raises: ValueError for a word that is no decision."""
        try:
            return cls[label.upper()]
        except KeyError:
            raise ValueError(f"{label!r} is no decision; use one of {', '.join(d.name for d in cls)}.") from None


@dataclass(frozen=True)
class Asker:
    """Who asks, as far as a policy may know."""

    clearance: Clearance = Clearance.PUBLIC
    roles: tuple[str, ...] = ()
    compartments: frozenset[str] = frozenset()


@dataclass(frozen=True)
class GateRequest:
    """One thing to decide. ``domain`` and ``language`` are found from the text where they are not given, ``classification`` in the policy.

    ``compartments`` are those of the content concerned; the asker needs all of them.
    """

    text: str
    domain: Domain | None = None
    classification: Clearance | None = None
    action: Action = "ask"
    asker: Asker = field(default_factory=Asker)
    language: Language | None = None
    compartments: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Evidence:
    """What one stage found: its own decision, why in codes, its numbers, and what it took.

    ``codes`` and ``scores`` never quote the user's text: they may be logged.
    """

    stage: Stage
    decision: Decision
    codes: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    elapsed_ms: float = 0.0


@dataclass(frozen=True)
class GateDecision:
    """The outcome: ``decision`` is the highest of the stages' decisions, ``confidence`` the calibrated probability of it.

    ``policy_ref`` cites the rule that decided (``policy@revision/rule``); ``escalation_target`` is who has to look, for
    ESCALATE only; ``reasons`` are codes in order of weight; ``model_version`` names the weights. ``policy`` is the fingerprint
    of the policy that decided, ``identity`` cites the identity beside it, ``classification`` is what they took the content for.
    """

    decision: Decision
    confidence: float
    domain: Domain
    policy_ref: str
    escalation_target: str | None
    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    model_version: str
    policy: str
    identity: str
    classification: Clearance
    language: Language = "ja"

    @property
    def keeps_in(self) -> bool:
        """Whether an answer that says this stays in: a rule holds it back from this caller, or it is for nobody.

        The classifier's doubt alone keeps nothing in: it judges questions.
        """
        by_rule = any(reason.startswith("rule_") for reason in self.reasons)
        failed = any(
            each.stage != "fusion" and code.startswith((f"{each.stage}_error", f"{each.stage}_timeout"))
            for each in self.evidence
            for code in each.codes
        )
        return self.decision is Decision.REFUSE or (self.decision > Decision.ALLOW and (by_rule or failed))

    def stage(self, name: Stage) -> Evidence | None:
        """What stage ``name`` found, if it ran."""
        return next((each for each in self.evidence if each.stage == name), None)
