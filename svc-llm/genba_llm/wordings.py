r"""Questions as people type them, expanded from patterns: in their own words, with greetings, slips of the finger, half a sentence.

A pattern is text in which ``(a|b|)`` is one of its parts, a character before ``?`` may be left out, and ``\\d`` is a digit. Some
whole patterns are held out: what the others teach is judged by those. Knows no answers.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from genba_llm import contrast
from genba_llm.japanese_forms import stem
from genba_llm.verdict import Language
from genba_shared.text_forms import nfkc

Part = Literal["learnt", "held"]
HELD_SHARE: Final = 0.08
_INNERMOST: Final = re.compile(r"\(([^()]*)\)(\?)?")
_MAYBE: Final = re.compile(r"([^\s?])\?(?=.)")
_KINDS: Final = {"q": 0.4, "v": 0.3, "n": 0.3}
_NOISE: Final = 0.2
_ENDS: Final[Mapping[Language, tuple[str, ...]]] = {"ja": ("", "。", "。", "！"), "en": ("", ".", "!", "?")}


@dataclass(frozen=True)
class Wording:
    """A question and the form of answer that it asks for."""

    text: str
    form: str


def expand(pattern: str, rng: random.Random) -> str:
    """One of the texts that a pattern stands for."""

    def one(match: re.Match[str]) -> str:
        return "" if match[2] and rng.random() < 0.5 else rng.choice(match[1].split("|"))

    while True:
        pattern, n = _INNERMOST.subn(one, pattern)
        if not n:
            break
    pattern = _MAYBE.sub(lambda match: match[1] if rng.random() < 0.5 else "", pattern)
    return re.sub(r"\\d", lambda _: str(rng.randint(1, 9)), pattern).strip()


def asks_for(
    name: str, language: Language, rng: random.Random, *, part: Part = "learnt", other_forms: float = 0.2
) -> Wording:
    """A question for the piece of work of that (first Japanese) name. Of what is held out there are whole questions only.

    ``other_forms``: the share of nouns and verbs of which another form than an explanation is asked.
    """
    if part == "held":
        return Wording(_typed(expand(rng.choice(_lines(name, language, "q", "held")), rng), language, rng), "tell")
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    text = expand(rng.choice(_lines(name, language, kind, "learnt")), rng)
    if kind == "q":
        return Wording(_typed(text, language, rng), "tell")
    frames = _frames()["noun" if kind == "n" else "verb"]
    form = rng.choices(list(frames), [1.0 - other_forms, *[other_forms / (len(frames) - 1)] * (len(frames) - 1)])[0]
    if kind == "n" and language == "ja" and rng.random() < 0.2:
        text = text.replace("の", " ")  # as one types into a search field
    said = expand(rng.choice(frames[form][language]), rng).format(x=text, v=text, s=stem(text) or text)
    return Wording(_typed(said, language, rng), form)


def sounds_alike(name: str, language: Language, rng: random.Random, *, part: Part = "learnt") -> str:
    """A question in the words of a piece of work for something that it does not know."""
    if part == "held" or rng.random() < 0.6:
        return _typed(expand(rng.choice(_lines(name, language, "not", part)), rng), language, rng)
    noun = expand(rng.choice(_lines(name, language, "n", "learnt")), rng)
    return _typed(expand(rng.choice(_frames()["beside"][language]), rng).format(x=noun), language, rng)


def of_the_world(language: Language, rng: random.Random) -> str:
    """A question for something that is no work at all, or for a fact of one company."""
    return _typed(expand(rng.choice(_frames()["world"][language]), rng), language, rng)


def said(pattern: str, language: Language, rng: random.Random) -> str:
    """Small talk as it leaves the keyboard: nothing stands before or after it."""
    return _slipped(_capital(expand(pattern, rng), language, rng) + rng.choice(_ENDS[language]), rng)


def held_names(language: Language, kind: Literal["q", "not"]) -> list[str]:
    """The pieces of which a pattern is held out."""
    return [name for name in _wordings(language) if _lines(name, language, kind, "held")]


@functools.cache
def _lines(name: str, language: Language, kind: str, part: Part) -> tuple[str, ...]:
    every = [line for line in _wordings(language)[name][kind].splitlines() if line]
    held = [line for line in every if kind in {"q", "not"} and _is_held(line)]
    if len(held) == len(every):
        held = held[1:]
    return tuple(held if part == "held" else (line for line in every if line not in held))


def _is_held(line: str) -> bool:
    return int.from_bytes(hashlib.sha256(line.encode()).digest()[:4], "big") / 2**32 < HELD_SHARE


def _wordings(language: Language) -> Mapping[str, dict[str, str]]:
    return contrast.lexicon(f"wordings_{language}")


def _frames() -> Mapping[str, Any]:
    return contrast.lexicon("wordings_frames")


def _typed(text: str, language: Language, rng: random.Random) -> str:
    """A question as it leaves the keyboard."""
    text = rng.choice(_frames()["before"][language]) + text if rng.random() < _NOISE else _capital(text, language, rng)
    if rng.random() < 0.6:
        text += rng.choice(_frames()["after"][language])
    return _slipped(text, rng)


def _capital(text: str, language: Language, rng: random.Random) -> str:
    return text[:1].upper() + text[1:] if language == "en" and rng.random() < 0.5 else text


def _slipped(text: str, rng: random.Random) -> str:
    return rng.choice((_slip, _wide_or_narrow, _lower, _bare))(text, rng) if rng.random() < _NOISE else text


def _slip(text: str, rng: random.Random) -> str:
    """A character lost, doubled, or changed with the next."""
    if len(text) < 8:
        return text
    at = rng.randrange(1, len(text) - 2)
    here = rng.choice(("", text[at] * 2, text[at + 1] + text[at]))
    return text[:at] + here + text[at + (2 if len(here) == 2 and here[0] != here[1] else 1) :]


def _wide_or_narrow(text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return nfkc(text)
    return "".join(chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in text)


def _lower(text: str, rng: random.Random) -> str:
    return text.lower() if rng.random() < 0.8 else text.upper()


def _bare(text: str, rng: random.Random) -> str:  # noqa: ARG001 - one of several
    return re.sub(r"[、。,.?？!！' ]+", lambda match: " " if match[0].strip(" ") != match[0] else "", text)
