"""Stage 1: what the company's rules say, decided by Cedar and citing the rule.

The two documents of ``policy_state`` become one Cedar policy set: a permit for everybody and a forbid, with an id and
an ``@outcome``, for each thing that is held back. All forbids that hold are looked at and the highest outcome counts.
A rule that fails to evaluate counts as ESCALATE: Cedar itself would leave it out. Replacing the documents compiles
aside and swaps one reference, so requests in flight keep the rules that they took.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cedarpy

from genba_llm.policy_state import (
    IdentityContract,
    PolicyInvalid,
    PolicyState,
    RestrictedTopic,
    default_identity,
    default_policy,
    fingerprint,
    outcome_of,
)
from genba_llm.verdict import ACTIONS, DOMAINS, Action, Asker, Decision, Domain
from genba_shared.clearance import Clearance

SCHEMA = f"""
entity Asker = {{ clearance: Long, roles: Set<String>, compartments: Set<String> }};
entity Content = {{ classification: Long, domain: String, compartments: Set<String> }};
action {", ".join(ACTIONS)} appliesTo {{
    principal: Asker, resource: Content, context: {{ topics: Set<String>, personal_data: Set<String> }}
}};
"""
_CACHED_RULINGS = 4096
_ALLOWED_BY = "base_permit"


@dataclass(frozen=True)
class Facts:
    """All that a rule may look at."""

    action: Action = "ask"
    asker: Asker = field(default_factory=Asker)
    classification: Clearance = Clearance.PUBLIC
    domain: Domain = "general"
    compartments: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    personal_data: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Ruling:
    """What the rules say: the highest outcome, the rule that has it (``policy@revision/rule``), and all that held."""

    decision: Decision
    policy_ref: str
    rules: tuple[str, ...]


class Policy:
    """The rules in force. Safe to share between threads: ``replace`` is one assignment."""

    def __init__(self, state: PolicyState | None = None, identity: IdentityContract | None = None) -> None:
        """Raises: PolicyInvalid as ``replace``."""
        self._compiled = Rules(state or default_policy(), identity or default_identity())

    @property
    def in_force(self) -> Rules:
        """The rules at this moment, for who asks them more than once about the same request."""
        return self._compiled

    @property
    def state(self) -> PolicyState:
        return self._compiled.state

    @property
    def identity(self) -> IdentityContract:
        return self._compiled.identity

    def replace(self, state: PolicyState | None = None, identity: IdentityContract | None = None) -> None:
        """Let new documents take effect for the next request. Raises: PolicyInvalid, and the old ones stay."""
        now = self._compiled
        self._compiled = Rules(state or now.state, identity or now.identity)

    def rule(self, facts: Facts) -> Ruling:
        """What the rules say of ``facts``; the same facts under the same rules always get the same ruling."""
        return self._compiled.rule(facts)

    def topics_in(self, texts: Sequence[str]) -> frozenset[str]:
        """The restricted topics that any of ``texts`` touches, in whichever domain."""
        return self._compiled.topics_in(texts)

    def domain_of(self, text: str) -> Domain:
        """The domain whose words the text uses most; general where none stands out."""
        return self._compiled.domain_of(text)

    def escalation_target(self, domain: Domain) -> str:
        """Who looks at what is escalated: the identity's choice for the domain, else the policy's."""
        return self._compiled.escalation_target(domain)

    @property
    def cedar(self) -> str:
        """The rules in force as Cedar text, for people to read."""
        return self._compiled.text


class Rules:
    """One pair of documents as a Cedar policy set; immutable but for its cache of rulings, which forgets nothing wrong."""

    def __init__(self, state: PolicyState, identity: IdentityContract) -> None:
        self.state, self.identity = state, identity
        self.fingerprint = fingerprint(state)[:16]
        self.text = cedar_of(state, identity)
        _validate(self.text)
        self._policies = cedarpy.PolicySet.from_str(self.text)
        self._schema = cedarpy.Schema.from_str(SCHEMA)
        self._rules = _rules_of(self.text)
        self.default_classification = Clearance[state.default_classification.upper()]
        self._topics = [_Topic(topic) for topic in state.restricted_topics]
        self._keywords = [(domain, tuple(w.lower() for w in state.domains[domain].keywords)) for domain in DOMAINS]
        self._rulings: dict[Facts, Ruling] = {}
        if state.extra_cedar.strip() and (broken := first_inversion(self.rule)):
            raise PolicyInvalid([f"extra_cedar: {broken}"])

    def rule(self, facts: Facts) -> Ruling:
        known = self._rulings.get(facts)
        if known is None:
            known = self._ask(facts)
            if len(self._rulings) >= _CACHED_RULINGS:
                self._rulings.clear()
            self._rulings[facts] = known
        return known

    def _ask(self, facts: Facts) -> Ruling:
        answer = cedarpy.is_authorized(_request(facts), self._policies, _entities(facts), self._schema)
        held = sorted((self._rules[name] for name in answer.diagnostics.reasons), key=lambda rule: (-rule[1], rule[0]))
        if answer.diagnostics.errors or answer.decision is cedarpy.Decision.NoDecision:
            held.append(("rule_error", Decision.ESCALATE))
            held.sort(key=lambda rule: (-rule[1], rule[0]))
        if not held:  # nothing permits it: Cedar's own default
            held = [("no_permit", Decision.DENY)]
        return Ruling(held[0][1], self._cite(held[0][0]), tuple(name for name, _ in held))

    def _cite(self, rule: str) -> str:
        document: PolicyState | IdentityContract = self.identity if rule.startswith("identity_") else self.state
        return f"{document.reference}/{rule}"

    def topics_in(self, texts: Sequence[str]) -> frozenset[str]:
        lowered = [text.lower() for text in texts]
        return frozenset(topic.id for topic in self._topics if any(topic.touched_by(text) for text in lowered))

    def escalation_target(self, domain: Domain) -> str:
        return self.identity.escalation.get(domain) or self.state.domains[domain].escalation_target

    def domain_of(self, text: str) -> Domain:
        lowered = text.lower()
        best: tuple[int, Domain] = (0, "general")
        for domain, words in self._keywords:
            score = sum(len(word) for word in words if word in lowered)
            if score > best[0]:
                best = (score, domain)
        return best[1]


class _Topic:
    def __init__(self, topic: RestrictedTopic) -> None:
        self.id = topic.id
        self._groups = [_any_of(group) for group in topic.all_of]

    def touched_by(self, lowered: str) -> bool:
        return all(group.search(lowered) for group in self._groups)


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern for any of ``words``, lower case; Latin ones stand alone, Japanese ones anywhere.

    Alone among Latin letters: kana are word characters to ``re`` too, which sees no end of a word in 「ATSの解除」.
    """
    alternatives = (
        rf"(?<![a-z0-9_]){re.escape(word.lower())}(?![a-z0-9_])" if word.isascii() else re.escape(word.lower())
        for word in words
    )
    return re.compile("|".join(sorted(alternatives, key=len, reverse=True)))


def cedar_of(state: PolicyState, identity: IdentityContract) -> str:
    """The Cedar policies that two documents amount to."""
    rules = [
        f'@id("{_ALLOWED_BY}")\npermit(principal, action, resource);',
        _forbid("clearance_below_classification", "DENY", "principal.clearance < resource.classification"),
        _forbid("compartment_missing", "DENY", "!principal.compartments.containsAll(resource.compartments)"),
        _forbid("identity_domain", identity.outside_scope, f"!{_set(identity.domains)}.contains(resource.domain)"),
        _forbid(
            "identity_action", identity.outside_scope, "true", actions=[a for a in ACTIONS if a not in identity.actions]
        ),
    ]
    for rule in state.disclosure:
        when = [
            f"resource.classification >= {int(Clearance[rule.at_or_above.upper()])}",
            *_limits(rule.domains, rule.unless_roles),
        ]
        rules.append(_forbid(rule.id, rule.outcome, " && ".join(when), actions=rule.actions))
    for topic in state.restricted_topics:
        when = [f'context.topics.contains("{topic.id}")', *_limits(topic.domains, topic.unless_roles)]
        if topic.from_clearance is not None:
            when.append(f"principal.clearance < {int(Clearance[topic.from_clearance.upper()])}")
        rules.append(_forbid(f"topic_{topic.id}", topic.outcome, " && ".join(when)))
    for kind, outcome in sorted(state.personal_data.items()):
        rules.append(_forbid(f"personal_data_{kind}", outcome, f'context.personal_data.contains("{kind}")'))
    return "\n".join([*filter(None, rules), state.extra_cedar])


def _limits(domains: Sequence[str], unless_roles: Sequence[str]) -> list[str]:
    limits = [] if set(domains) == set(DOMAINS) else [f"{_set(domains)}.contains(resource.domain)"]
    return limits + ([f"!principal.roles.containsAny({_set(unless_roles)})"] if unless_roles else [])


def _forbid(name: str, outcome: str, when: str, *, actions: Sequence[str] | None = None) -> str:
    """One rule as text; empty where it concerns no action."""
    if actions is not None and not actions:
        return ""
    scope = "action" if actions is None else f"action in [{', '.join(f'Action::{json.dumps(a)}' for a in actions)}]"
    return f'@id("{name}")\n@outcome("{outcome}")\nforbid(principal, {scope}, resource) when {{ {when} }};'


def _set(words: Iterable[str]) -> str:
    return json.dumps(list(words), ensure_ascii=False)


def _validate(text: str) -> None:
    """Raises: PolicyInvalid for what does not parse, has no place in the schema, or lacks an id or outcome."""
    try:
        checked = cedarpy.validate_policies(text, SCHEMA)
        rules = _rules_of(text) if checked else {}
    except (ValueError, KeyError) as error:
        raise PolicyInvalid([f"the rules do not parse: {error}"]) from error
    if not checked:
        raise PolicyInvalid([str(error) for error in checked.errors])
    names = [name for name, _ in rules.values()]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise PolicyInvalid([f"two rules are called {name}" for name in doubled])


def _rules_of(text: str) -> dict[str, tuple[str, Decision]]:
    """Cedar's own name of each policy → (id, outcome). Raises: ValueError where one has none."""
    found = {}
    for name, policy in json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].items():
        annotations: Mapping[str, str] = policy.get("annotations") or {}
        if not annotations.get("id"):
            raise ValueError(f"{name} has no @id")
        if policy["effect"] == "permit":
            found[name] = (annotations["id"], Decision.ALLOW)
        else:
            found[name] = (annotations["id"], outcome_of(annotations.get("outcome", "DENY")))
    return found


def _request(facts: Facts) -> dict[str, Any]:
    return {
        "principal": {"type": "Asker", "id": "asker"},
        "action": {"type": "Action", "id": facts.action},
        "resource": {"type": "Content", "id": "content"},
        "context": {"topics": sorted(facts.topics), "personal_data": sorted(facts.personal_data)},
    }


def _entities(facts: Facts) -> list[dict[str, Any]]:
    asker = {
        "clearance": int(facts.asker.clearance),
        "roles": sorted(facts.asker.roles),
        "compartments": sorted(facts.asker.compartments),
    }
    content = {
        "classification": int(facts.classification),
        "domain": facts.domain,
        "compartments": sorted(facts.compartments),
    }
    return [
        {"uid": {"type": "Asker", "id": "asker"}, "attrs": asker, "parents": []},
        {"uid": {"type": "Content", "id": "content"}, "attrs": content, "parents": []},
    ]


def first_inversion(rule: Callable[[Facts], Ruling]) -> str | None:
    """Where more clearance is answered more strictly, or a higher classification less so; None if nowhere."""
    for action, domain in itertools.product(ACTIONS, DOMAINS):
        table = {
            (clearance, level): rule(Facts(action, Asker(clearance), level, domain)).decision
            for clearance, level in itertools.product(Clearance, Clearance)
        }
        for (clearance, level), decision in table.items():
            if clearance < Clearance.SECRET and table[Clearance(clearance + 1), level] > decision:
                return (
                    f"for {action} in {domain} at {level.label}, {clearance.label} askers fare better than those above"
                )
            if level < Clearance.SECRET and table[clearance, Clearance(level + 1)] < decision:
                return f"for {action} in {domain}, {level.label} content is held back more than what lies above"
    return None
