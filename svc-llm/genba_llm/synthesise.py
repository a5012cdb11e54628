"""Rows of supervised fine-tuning written from templates: requests of eight domains, and the four decisions with their reasons.

What may be answered, what a person has to decide and what is refused stand side by side in the same domain and the same
words: the contrast generator's pairs, and requests that differ in who is asked to decide. Every row carries the identity and
the policy it was decided under. The same seed gives the same rows, one by one, whatever the number.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator

from genba_llm import contrast
from genba_llm.policy_state import IdentityContract, PolicyState, default_identities, default_policy
from genba_llm.refused import Refused
from genba_llm.sft_rows import DecisionName, Row
from genba_llm.verdict import Decision, Domain, Language

SOURCE = "genba-synthesise"
LICENCE = "Apache-2.0"
# Shares of a domain's rows: may be answered, a person decides, is denied or refused.
SHARES = (0.33, 0.34, 0.33)

_JAPANESE_SHARE = 0.75


class TooFewTemplates(Refused):
    """More different questions were asked for than the templates give."""


def synthesise(domain: Domain, n: int, *, seed: int) -> Iterator[Row]:
    """``n`` rows of a domain, no question twice. A prefix of a longer run is that of a shorter one.

    Raises: TooFewTemplates if the templates do not give as many different questions.
    """
    rng = random.Random(f"{seed}/{domain}")  # noqa: S311 - sampling, no secret
    pools = _pools(seed)
    identity, policy = default_identities()[domain], default_policy()
    seen: set[str] = set()
    tried = 0
    while len(seen) < n:
        tried += 1
        if tried > 20 * n + 10_000:
            message = f"The templates give {len(seen)} different questions of {domain}, {n} were asked for."
            raise TooFewTemplates(message)
        row = _one(domain, pools, identity, policy, rng)
        if row.instruction not in seen:
            seen.add(row.instruction)
            yield row


def core_of(question: str) -> str:
    """A question without the setting that stands before it: two that differ in their room number ask the same."""
    return _settings().sub("", question, count=1)


@functools.cache
def _settings() -> re.Pattern[str]:
    words = contrast.lexicon("synthesise")
    known = [
        re.escape(each).replace(re.escape("{n}"), r"\d+")
        for part in words["settings"].values()
        for each in part
        if each
    ]
    return re.compile(rf"\A(?:{'|'.join(known)})")


def _pools(seed: int) -> dict[tuple[Decision, Language], list[str]]:
    """The contrast generator's texts by decision and language, in its order."""
    pools: dict[tuple[Decision, Language], list[str]] = {}
    for row in contrast.generate(seed):
        language: Language = "ja" if row.language == "ja" else "en"
        pools.setdefault((row.decision, language), []).append(row.text)
    return pools


def _one(
    domain: Domain,
    pools: dict[tuple[Decision, Language], list[str]],
    identity: IdentityContract,
    policy: PolicyState,
    rng: random.Random,
) -> Row:
    words = contrast.lexicon("synthesise")
    language: Language = "ja" if rng.random() < _JAPANESE_SHARE else "en"
    draw = rng.random()
    if draw < SHARES[0]:
        decision: DecisionName = "ALLOW"
        text, about = _allowed(domain, pools, language, rng)
    elif draw < SHARES[0] + SHARES[1]:
        decision = "ESCALATE"
        about = rng.choice(words["decisions"][domain])[language]
        text = rng.choice(words["asked_to_decide"][language]).format(x=about)
    else:
        refused = [each for each in (Decision.DENY, Decision.REFUSE) if pools.get((each, language))]
        chosen = rng.choice(refused)
        decision = "DENY" if chosen is Decision.DENY else "REFUSE"
        about = ""
        text = rng.choice(pools[chosen, language])
    question = rng.choice(words["settings"][language]).format(n=rng.randint(1, 999)) + text
    return decided_row(question, decision, about, domain, language, identity=identity, policy=policy)


def decided_row(
    question: str,
    decision: DecisionName,
    about: str,
    domain: Domain,
    language: Language,
    *,
    identity: IdentityContract,
    policy: PolicyState,
    given: str = "",
) -> Row:
    """A row whose answer is the decision's, under an identity and a policy. ``given``: what the question is about, as text."""
    target = str(identity.escalation.get(domain, identity.escalation_default)) if decision == "ESCALATE" else ""
    return Row(
        instruction=question,
        input=given,
        output=answer(decision, about, policy.reference, target, language),
        decision=decision,
        domain=domain,
        policy_ref=policy.reference,
        escalation_target=target,
        identity_contract=identity.role.ja if language == "ja" else identity.role.en,
        policy_state=policy.reference,
        source=SOURCE,
        licence=LICENCE,
    )


def _allowed(
    domain: Domain, pools: dict[tuple[Decision, Language], list[str]], language: Language, rng: random.Random
) -> tuple[str, str]:
    """Half ordinary work of the domain, half the safe side of a contrast pair."""
    if rng.random() < 0.5:
        words = contrast.lexicon("synthesise")
        about = str(rng.choice(words["tasks"][domain])[language])
        return str(rng.choice(words["asked"][language])).format(x=about), about
    text = rng.choice(pools[Decision.ALLOW, language])
    return text, "ご質問" if language == "ja" else "your question"


def answer(decision: DecisionName, about: str, policy_ref: str, target: str, language: Language) -> str:
    """The tagged answer for a decision: its hidden thinking, and what leaves."""
    words = contrast.lexicon("synthesise")
    task = {"ja": "依頼の意図を読む。", "en": "Read what is asked."}[language]
    return (
        f"<think-task>{task}</think-task><think-safety>{words['safety'][decision][language]}</think-safety>"
        f"<think-policy>{decision} {policy_ref}</think-policy>"
        f"<final>{words['final'][decision][language].format(x=about, who=target)}</final>"
    )
