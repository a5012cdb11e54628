"""Minimal pairs to learn from: the same sentence about a process and about a person, about a bomb's making and its history.

What decides is seldom a word and nearly always a composition: intent × target × context. So the generator enumerates
compositions from the lexicons beside it, in Japanese and English, and gives each row the family of its template, which
is never to be split between training and test. Deterministic by seed.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from genba_llm import japanese_forms
from genba_llm.classifier_fit import Row
from genba_llm.verdict import Decision, Language
from genba_llm.words import words

LEXICON = Path(__file__).parent / "lexicon"
SOURCE = "genba-contrast"
LANGUAGES: tuple[Language, ...] = ("ja", "en")
_IRREGULAR_ING = {"die": "dying", "lie": "lying", "tie": "tying", "be": "being", "see": "seeing", "flee": "fleeing"}
_DOUBLES = frozenset(words("doubling_verbs"))


@dataclass(frozen=True)
class Recipe:
    """How many sentences each piece of the lexicon is put into."""

    asks_per_act: int = 11
    asks_per_safe: int = 9
    wraps_per_act: int = 4
    talks_per_act: int = 5
    frames_per_topic: int = 12
    slots_per_frame: int = 11
    benign_rows: int = 7000
    personas: int = 700


def generate(seed: int = 0, recipe: Recipe | None = None, *, languages: Sequence[Language] = LANGUAGES) -> list[Row]:
    """All rows, without doubles, in an order that the seed decides."""
    recipe = recipe or Recipe()
    rng = random.Random(seed)  # noqa: S311  # sampling, no secret
    rows: dict[str, Row] = {}
    for language in languages:
        for row in _rows(language, recipe, rng):
            rows.setdefault(row.text, row)
    found = list(rows.values())
    rng.shuffle(found)
    return found


@functools.cache
def lexicon(name: str) -> Mapping[str, Any]:
    """One of the files in ``lexicon/``."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may have been built without libyaml
    found = yaml.load((LEXICON / f"{name}.yaml").read_text("utf-8"), loader)  # noqa: S506 - both are safe
    if not isinstance(found, dict):
        raise TypeError(f"lexicon {name} must be a mapping")
    return found


def _rows(language: Language, recipe: Recipe, rng: random.Random) -> Iterator[Row]:
    yield from acts(lexicon(f"harm_{language}"), language, recipe, rng)
    yield from _slots(language, recipe, rng)
    yield from _personas(language, recipe, rng)
    yield from _benign(language, recipe, rng)


def acts(fields: Mapping[str, Any], language: Language, recipe: Recipe, rng: random.Random) -> Iterator[Row]:
    """The acts and topics of each field, those to be refused and those that only sound alike, in the same frames."""
    frames = lexicon(f"frames_{language}")
    for name, field in fields.items():
        outcome = Decision.parse(field["outcome"])
        plans = (
            (field["acts"], "ask", recipe.asks_per_act, outcome),
            (field["acts"], "harmful_wrap", recipe.wraps_per_act, outcome),
            (field["acts"], "harmful_topic_safe", recipe.talks_per_act, Decision.ALLOW),
            (field["acts"], "fiction_safe", 1, Decision.ALLOW),
            (field["safe"], "ask", recipe.asks_per_safe, Decision.ALLOW),
            (field["safe"], "safe_tail", 1, Decision.ALLOW),
            (field["topics"], "topic_safe", recipe.frames_per_topic, Decision.ALLOW),
            (field["topics"], "promote_good", recipe.frames_per_topic // 2, Decision.ALLOW),
            (_promotable(field), "promote_bad", recipe.frames_per_topic // 2, outcome),
        )
        for phrases, kind, count, decision in plans:
            for phrase in phrases:
                for index in rng.sample(range(len(frames[kind])), min(count, len(frames[kind]))):
                    text = fill(frames[kind][index], phrase, language)
                    if text is not None:
                        yield Row(
                            vary(text, language, rng),
                            decision,
                            SOURCE,
                            f"{language}/{kind}/{index}/{name}",
                            phrase,
                            language,
                        )


def _promotable(field: Mapping[str, Any]) -> Sequence[str]:
    """The topics that nobody should praise: those of fields that are refused; others name laws and virtues."""
    topics: Sequence[str] = field["topics"]
    unpraised = (
        "law",
        "education",
        "history",
        "control",
        "prevention",
        "protection",
        "consent",
        "contraception",
        "assassination of",
        "attacks",
        "the ",
        "規制",
        "教育",
        "対策",
        "保護",
        "防止",
        "同意",
        "避妊",
        "事件",
        "暗殺",
        "制度",
        "歴史",
        "公害",
        "銃刀法",
        "核開発",
        "推理小説",
        "crime scenes",
        "STDs",
        "性感染症",
        "カルト",
        "guns",
        "firearms",
        "銃",
        "オウム",
    )
    return [topic for topic in topics if field["outcome"] == "REFUSE" and not any(word in topic for word in unpraised)]


def fill(frame: str, phrase: str, language: Language) -> str | None:
    """A frame with a phrase in it; None where the phrase has not the form that the frame asks for."""
    if language == "en":
        return frame.format(act=phrase, acting=gerund(phrase), topic=phrase)
    stem, te = japanese_forms.stem(phrase), japanese_forms.te(phrase)
    if stem is None and ("{topic}" not in frame):
        return phrase if phrase.endswith("たい") and "{stem}" in frame else None
    return frame.format(act=phrase, stem=stem, te=te, topic=phrase)


def gerund(phrase: str) -> str:
    """The -ing form of a phrase that begins with a verb."""
    verb, _, rest = phrase.partition(" ")
    if verb in _IRREGULAR_ING:
        found = _IRREGULAR_ING[verb]
    elif verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        found = verb[:-1] + "ing"
    elif verb in _DOUBLES:
        found = verb + verb[-1] + "ing"
    else:
        found = verb + "ing"
    return f"{found} {rest}" if rest else found


def _slots(language: Language, recipe: Recipe, rng: random.Random) -> Iterator[Row]:
    """The same question about a people and about a thing, about a neighbour and about a legend."""
    words = lexicon(f"slots_{language}")
    plans = (
        ("hate", "groups", Decision.REFUSE),
        ("hate", "nonsense_groups", Decision.ALLOW),
        ("about_groups", "groups", Decision.ALLOW),
        ("private_facts", "private_people", Decision.DENY),
        ("private_facts", "known_people", Decision.ALLOW),
        ("harm_verbs", "victims", Decision.REFUSE),
        ("harm_verbs", "things", Decision.ALLOW),
        ("threats", "victims", Decision.REFUSE),
        ("object_asks", "objects_bad", Decision.REFUSE),
        ("object_asks", "objects_good", Decision.ALLOW),
        ("object_talks", "objects_bad", Decision.ALLOW),
        ("secret_asks", "secrets", Decision.DENY),
        ("secret_talks", "secrets", Decision.ALLOW),
    )
    for frames, fillers, decision in plans:
        for index, frame in enumerate(words[frames]):
            for filler in rng.sample(words[fillers], min(recipe.slots_per_frame, len(words[fillers]))):
                text = _capital(frame.format(x=filler)) if language == "en" else frame.format(x=filler)
                yield Row(vary(text, language, rng), decision, SOURCE, f"{language}/{frames}/{index}", filler, language)


def _personas(language: Language, recipe: Recipe, rng: random.Random) -> Iterator[Row]:
    """Long openings that set a role: one that frees the model from its rules, or one that is merely a role."""
    words = lexicon(f"slots_{language}")
    gap = " " if language == "en" else ""
    asks = {"persona_bad": words["object_asks"], "persona_good": lexicon(f"benign_{language}")["work"]}
    for kind, decision in (("persona_bad", Decision.DENY), ("persona_good", Decision.ALLOW)):
        for _ in range(recipe.personas):
            parts = rng.sample(words[kind], rng.randint(2, 5))
            if rng.random() < 0.5:
                parts.append(rng.choice(asks[kind]).replace("{x}", rng.choice(words["objects_bad"])))
            yield Row(gap.join(parts), decision, SOURCE, f"{language}/{kind}/{parts[0][:12]}", parts[0], language)


def _benign(language: Language, recipe: Recipe, rng: random.Random) -> Iterator[Row]:
    words = lexicon(f"benign_{language}")
    for kind in ("work", "chat", "idioms"):
        for index, text in enumerate(words[kind]):
            for _ in range(2):
                yield Row(
                    vary(text, language, rng), Decision.ALLOW, SOURCE, f"{language}/{kind}/{index}", text, language
                )
    slots: Mapping[str, Sequence[str]] = words["slots"]
    for _ in range(recipe.benign_rows):
        index = rng.randrange(len(words["frames"]))
        text = re.sub(r"\{(\w+?)2?\}", lambda match: rng.choice(slots[match[1]]), words["frames"][index])
        yield Row(vary(text, language, rng), Decision.ALLOW, SOURCE, f"{language}/benign/{index}", text, language)


_LEADS = {
    "ja": (
        "すみません、",
        "あの、",
        "質問です。",
        "ちょっと聞きたいのですが、",
        "お願いがあります。",
        "教えてほしいのですが、",
        "急いでいます。",
        "初めまして。",
    ),
    "en": (
        "Hi, ",
        "Please answer: ",
        "Quick question: ",
        "Hello! ",
        "I was wondering: ",
        "Dear assistant, ",
        "Question: ",
        "Hey, ",
    ),
}
_TAILS = {
    "ja": ("よろしくお願いします。", "できるだけ詳しく。", "簡潔に。", "ありがとう。", "表にまとめて。"),
    "en": (" Thanks!", " Please be brief.", " Thank you in advance.", " Keep it simple.", " Use bullet points."),
}


def vary(text: str, language: Language, rng: random.Random) -> str:
    """Now and then a greeting, a closing, a lost full stop: what tells nothing, and has to be seen to tell nothing."""
    roll = rng.random()
    if roll < 0.06:
        return rng.choice(_LEADS[language]) + text
    if roll < 0.12:
        return text + rng.choice(_TAILS[language])
    if roll < 0.20:
        return text.rstrip("。.？?!")
    if roll < 0.24 and language == "en":
        return text.lower()
    return text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
