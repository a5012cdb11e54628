"""Rows of supervised fine-tuning written from templates: requests of eight domains, and the four decisions with their reasons.

What may be answered, what a person has to decide and what is refused stand side by side in the same domain and the same
words: the contrast generator's pairs, and requests that differ in who is asked to decide. What may be answered is answered
from ``knowledge.yaml`` or from documents in the row, and what neither knows is said not to be known. Every row carries the
identity and the policy it was decided under. The same seed gives the same rows, one by one, whatever the number.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from genba_llm import contrast, wordings
from genba_llm.policy_state import IdentityContract, PolicyState, default_identities, default_policy
from genba_llm.refused import Refused
from genba_llm.retrieval import Passage
from genba_llm.sft_rows import DecisionName, Row, given_passages
from genba_llm.verdict import Decision, Domain, Language

SOURCE = "genba-synthesise"
LICENCE = "Apache-2.0"
# Shares of a domain's rows: may be answered, a person decides, is denied or refused.
SHARES: Final = (0.33, 0.34, 0.33)

_DRAWN: Final[tuple[DecisionName, ...]] = ("ALLOW", "ESCALATE", "REFUSE")  # as SHARES; REFUSE is for DENY too
_TRIES = 200
_BARE_SHARE = 0.4  # questions without a setting before them
_BARE_SHARE_TYPED = 0.9  # the same of questions in people's own words


class TooFewTemplates(Refused):
    """More different questions were asked for than the templates give."""


@dataclass(frozen=True)
class Mix:
    """What questions that may be answered are about, as shares. ``own_words`` of those about work and about what is not known
    are asked as people type them, the others in plain templates; ``part`` of the wordings is to be learnt or is held out.
    ``other_forms`` of those in own words ask for a list, a summary or the like; ``japanese`` of all rows are.
    """

    work: float = 0.5
    unknown: float = 0.3
    talk: float = 0.05
    documents: float = 0.15
    own_words: float = 0.5
    part: wordings.Part = "learnt"
    other_forms: float = 0.2
    japanese: float = 0.75


MIX: Final = Mix()


@dataclass(frozen=True)
class Asked:
    """A question before it is a row: its thought about the task, its answer, and the documents it comes with.

    ``typed``: in somebody's own words.
    """

    text: str
    thought: str
    final: str
    documents: str = ""
    typed: bool = False


def synthesise(
    domain: Domain, n: int, *, seed: int, shares: tuple[float, float, float] = SHARES, mix: Mix = MIX
) -> Iterator[Row]:
    """``n`` rows of a domain, no question twice. A prefix of a longer run is that of a shorter one.

    Raises: TooFewTemplates if the templates do not give as many different questions.
    """
    rng = random.Random(f"{seed}/{domain}")  # noqa: S311 - sampling, no secret
    pools = _pools(seed)
    identities, policy = default_identities(), default_policy()
    seen: set[tuple[str, str]] = set()
    while len(seen) < n:
        decision = rng.choices(_DRAWN, shares)[0]
        for bare_share in (_BARE_SHARE, *[0.0] * _TRIES):  # a question that was asked is asked again in another setting
            identity = identities[rng.choice([domain, "general"])]
            row = _one(domain, decision, pools, identity, policy, rng, bare_share, mix)
            if (row.instruction, row.input) not in seen:
                break
        else:
            message = f"The templates give {len(seen)} different questions of {domain}, {n} were asked for."
            raise TooFewTemplates(message)
        seen.add((row.instruction, row.input))
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


@functools.cache
def _pools(seed: int) -> dict[tuple[Decision, Language], list[str]]:
    """The contrast generator's texts by decision and language, in its order."""
    pools: dict[tuple[Decision, Language], list[str]] = {}
    for row in contrast.generate(seed):
        language: Language = "ja" if row.language == "ja" else "en"
        pools.setdefault((row.decision, language), []).append(row.text)
    return pools


def _one(
    domain: Domain,
    decision: DecisionName,
    pools: dict[tuple[Decision, Language], list[str]],
    identity: IdentityContract,
    policy: PolicyState,
    rng: random.Random,
    bare_share: float,
    mix: Mix,
) -> Row:
    """A row of a decision; REFUSE stands for DENY too."""
    words = contrast.lexicon("synthesise")
    language: Language = "ja" if rng.random() < mix.japanese else "en"
    if decision == "ALLOW":
        asked = _allowed(domain, pools, language, rng, mix)
    elif decision == "ESCALATE":
        about = rng.choice(words["decisions"][domain])[language]
        text = rng.choice(words["asked_to_decide"][language]).format(x=about)
        asked = Asked(text, words["thought"]["ESCALATE"][language].format(x=about), "")
    else:
        refused = [each for each in (Decision.DENY, Decision.REFUSE) if pools.get((each, language))]
        chosen = rng.choice(refused)
        decision = "DENY" if chosen is Decision.DENY else "REFUSE"
        asked = Asked(rng.choice(pools[chosen, language]), words["thought"][decision][language], "")
    bare_share = max(bare_share, _BARE_SHARE_TYPED) if asked.typed else bare_share
    before = "" if rng.random() < bare_share else rng.choice(words["settings"][language])
    question = before.format(n=rng.randint(1, 999)) + asked.text
    return decided_row(
        question,
        decision,
        asked.final,
        domain,
        language,
        identity=identity,
        policy=policy,
        given=asked.documents,
        thought=asked.thought,
    )


def decided_row(
    question: str,
    decision: DecisionName,
    final: str,
    domain: Domain,
    language: Language,
    *,
    identity: IdentityContract,
    policy: PolicyState,
    given: str = "",
    thought: str = "",
) -> Row:
    """A row whose answer is the decision's, under an identity and a policy.

    ``final``: what is answered where it may be.   ``given``: what the question is about, as text.   ``thought``: on the task.
    """
    target = str(identity.escalation.get(domain, identity.escalation_default)) if decision == "ESCALATE" else ""
    return Row(
        instruction=question,
        input=given,
        output=answer(decision, final, policy.reference, target, language, thought=thought),
        decision=decision,
        domain=domain,
        policy_ref=policy.reference,
        escalation_target=target,
        identity_contract=identity.role.ja if language == "ja" else identity.role.en,
        policy_state=policy.reference,
        source=SOURCE,
        licence=LICENCE,
    )


def answer(
    decision: DecisionName, final: str, policy_ref: str, target: str, language: Language, *, thought: str = ""
) -> str:
    """The tagged answer for a decision: its hidden thinking, and what leaves."""
    words = contrast.lexicon("synthesise")
    task = " ".join(part for part in (words["task"][language], thought) if part)
    said = final if decision == "ALLOW" else words["final"][decision][language].format(who=target)
    return (
        f"<think-task>{task}</think-task><think-safety>{words['safety'][decision][language]}</think-safety>"
        f"<think-policy>{decision} {policy_ref}</think-policy><final>{said}</final>"
    )


def thought_begun(name: str, language: Language) -> str:
    """How a thought on the piece of work of that (first Japanese) name begins, up to where the form of the answer follows."""
    words = contrast.lexicon("synthesise")
    before, after = str(words["thought"]["work"][language]).split("{x}")
    return f"<think-task>{words['task'][language]} {before}{work_of(name)['names'][language][0]}{after[0]}"


def topic_of(text: str) -> str:
    """The (first Japanese) name of the piece of work that an answer's thought is about; empty for none."""
    return next((topic for begun, topic in _begun().items() if text.startswith(begun)), "")


@functools.cache
def _begun() -> dict[str, str]:
    languages: tuple[Language, ...] = ("ja", "en")
    return {thought_begun(name, language): name for name in _works() for language in languages}


def work_names(domain: Domain, language: Language) -> list[str]:
    """The first name of each piece of ordinary work."""
    return [str(each["names"][language][0]) for each in contrast.lexicon("knowledge")[domain]]


def is_small_talk(row: Row) -> bool:
    """Whether a row greets, thanks, or asks who answers."""
    said = (text for each in contrast.lexicon("synthesise")["talk"] for text in each["said"].values())
    return any(row.output.endswith(f"<final>{text}</final>") for text in said)


def not_known(language: Language) -> str:
    """What is said where nothing is known."""
    return str(contrast.lexicon("synthesise")["not_known"][language])


def _allowed(
    domain: Domain, pools: dict[tuple[Decision, Language], list[str]], language: Language, rng: random.Random, mix: Mix
) -> Asked:
    shares = {"work": mix.work, "unknown": mix.unknown, "talk": mix.talk, "documents": mix.documents}
    kind = rng.choices(list(shares), list(shares.values()))[0]
    words = contrast.lexicon("synthesise")
    if kind == "work":
        return _about_work(domain, language, rng, mix)
    if kind == "talk":
        talk = rng.choice(words["talk"])
        thought = words["thought"]["talk"][language].format(x=talk["about"][language])
        text = wordings.said(rng.choice(talk["asked"][language]), language, rng)
        return Asked(text, thought, talk["said"][language], typed=True)
    if kind == "documents":
        return _from_documents(language, rng)
    typed = rng.random() < mix.own_words
    if typed:
        text = _unknown_in_own_words(domain, language, rng, mix.part)
    elif rng.random() < 0.4:  # the safe side of a contrast pair
        text = rng.choice(pools[Decision.ALLOW, language])
    else:
        form = rng.choice(list(words["asked"]))
        text = rng.choice(words["asked"][form][language]).format(x=rng.choice(words["unknown"][language]))
    return Asked(text, words["thought"]["unknown"][language], not_known(language), typed=typed)


def _unknown_in_own_words(domain: Domain, language: Language, rng: random.Random, part: wordings.Part) -> str:
    if part == "held":
        return wordings.sounds_alike(rng.choice(wordings.held_names(language, "not")), language, rng, part=part)
    if rng.random() < 0.4:
        return wordings.of_the_world(language, rng)
    return wordings.sounds_alike(rng.choice(work_names(domain, "ja")), language, rng)


def _about_work(domain: Domain, language: Language, rng: random.Random, mix: Mix) -> Asked:
    words = contrast.lexicon("synthesise")
    typed = rng.random() < mix.own_words
    if mix.part == "held":
        work = work_of(rng.choice(wordings.held_names(language, "q")))
    else:
        work = rng.choice(contrast.lexicon("knowledge")[domain])
    if typed:
        wording = wordings.asks_for(work["names"]["ja"][0], language, rng, part=mix.part, other_forms=mix.other_forms)
        text, form = wording.text, wording.form
    else:
        form = rng.choice(list(words["asked"]))
        text = rng.choice(words["asked"][form][language]).format(x=rng.choice(work["names"][language]))
    name = str(work["names"][language][0])
    thought = words["thought"]["work"][language].format(x=name, form=words["forms"][form][language])
    return Asked(text, thought, work_answer(work, form, language), typed=typed)


def work_of(name: str) -> dict[str, Any]:
    """The piece of ordinary work of that first Japanese name. Raises: KeyError."""
    return _works()[name]


def facts(name: str) -> list[str]:
    """Everything that is known of a piece of work, in both languages."""
    work = work_of(name)
    return [text for part in (*work["facts"], work["slip"]) for text in part.values()]


@functools.cache
def _works() -> dict[str, dict[str, Any]]:
    return {work["names"]["ja"][0]: work for works in contrast.lexicon("knowledge").values() for work in works}


def work_answer(work: dict[str, Any], form: str, language: Language) -> str:
    """What is known of a piece of work, in the form that was asked for."""
    a, b, c = (str(fact[language]) for fact in work["facts"])
    other = "en" if language == "ja" else "ja"
    template = str(contrast.lexicon("synthesise")["answered"][form][language])
    return template.format(
        x=work["names"][language][0], y=work["names"][other][0], a=a, b=b, c=c, d=work["slip"][language]
    )


def _from_documents(language: Language, rng: random.Random) -> Asked:
    """Documents that state values of things, and a question for one of them; every seventh is not in there."""
    words = contrast.lexicon("synthesise")["documents"]
    things = rng.sample(words["things"][language], 3)
    values = rng.sample(words["values"], 3)
    pairs = [(thing, value) for thing in things for value in values]
    chosen = rng.sample(pairs, rng.randint(3, 5))
    stated = [
        words["stated"][language].format(
            e=thing, a=value[language], v=f"{rng.randint(value['low'], value['high'])} {value['unit']}"
        )
        for thing, value in chosen
    ]
    titles = rng.sample(words["titles"][language], 2)
    cut = rng.randint(1, len(stated) - 1)
    space = "" if language == "ja" else " "
    passages = [
        Passage("", number, title, space.join(part), 0, 1.0)
        for number, (title, part) in enumerate(zip(titles, (stated[:cut], stated[cut:]), strict=True))
    ]
    absent = rng.random() < 1 / 7
    thing, value = rng.choice([pair for pair in pairs if (pair in chosen) is not absent])
    text = rng.choice(words["asked"][language]).format(e=thing, a=value[language])
    if absent:
        final = words["absent"][language]
    else:
        at = chosen.index((thing, value))
        final = f"{stated[at]} [{1 if at < cut else 2}]"
    about = f"{thing} {value[language]}"
    thought = contrast.lexicon("synthesise")["thought"]["documents"][language].format(x=about)
    return Asked(text, thought, final, given_passages(passages))
