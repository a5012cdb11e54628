"""What kinds of things a text speaks of: make × explosive, prevent × theft, steal × base.

A classifier over n-grams knows only words that it met; this table of words by kind lets it count one that it never met
for what it is, and in both languages alike. Leftmost-longest matching, so that 殺し文句 is no killing.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from genba_llm.kana import hiragana_of

_LEXICON = Path(__file__).parent / "lexicon"
_WORD = re.compile(r"[a-z0-9][a-z0-9'+\-/]*")
_LONGEST_PHRASE = 3
_MOST_CONCEPTS = 9
_SHORTEST_KANA_TEXT = 6
_SHORTEST_READING = 3
_SHORT_READINGS = frozenset({"ころ", "どく", "つま"})
_KANJI = re.compile("[\u3400-\u9fff々]")
_ByFirst = dict[str, tuple[tuple[str, tuple[str, ...]], ...]]
_Table = dict[str, tuple[str, ...]]


def concepts_of(lowered: str) -> list[str]:
    """The concepts of a text in lower case, in order, neighbours that repeat once."""
    found: list[str] = []
    if not lowered.isascii():
        only_kana = len(lowered) >= _SHORTEST_KANA_TEXT and not _KANJI.search(lowered)
        found = list(
            _in_japanese(hiragana_of(lowered) if only_kana else lowered, _by_reading() if only_kana else _japanese())
        )
    found += _in_english(lowered)
    return [concept for concept, _ in itertools.groupby(found)]


def concept_grams(lowered: str) -> list[str]:
    """Names of features: each concept, each pair and triple that occur together, and each pair in order."""
    sequence = concepts_of(lowered)
    distinct = sorted(dict.fromkeys(sequence[: 4 * _MOST_CONCEPTS]))[:_MOST_CONCEPTS] if sequence else ["none"]
    grams = [f"c{each}" for each in distinct]
    grams += [f"p{a} {b}" for a, b in itertools.combinations(distinct, 2)]
    grams += [f"t{a} {b} {c}" for a, b, c in itertools.combinations(distinct, 3)]
    return grams + [f"o{a} {b}" for a, b in itertools.pairwise(sequence[: 4 * _MOST_CONCEPTS])]


def _in_english(lowered: str) -> Iterator[str]:
    table = _english()
    words = [fold(word) for word in _WORD.findall(lowered)]
    at = 0
    while at < len(words):
        for size in range(min(_LONGEST_PHRASE, len(words) - at), 0, -1):
            if concepts := table.get(" ".join(words[at : at + size])):
                yield from concepts
                break
        else:
            size = 1
        at += size


def _in_japanese(text: str, table: _ByFirst) -> Iterator[str]:
    at = 0
    while at < len(text):
        for word, concepts in table.get(text[at], ()):
            if text.startswith(word, at):
                yield from concepts
                at += len(word)
                break
        else:
            at += 1


def fold(word: str) -> str:
    """A word without its inflection, roughly: what matters is that both sides are folded alike."""
    if len(word) <= 3 or not word.isalpha():
        return word
    for ending, kept in (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""), ("e", "")):
        if (
            word.endswith(ending)
            and len(word) - len(ending) >= 3
            and not (ending == "s" and word.endswith(("ss", "us", "is")))
        ):
            stem = word[: len(word) - len(ending)] + kept
            if ending in {"ing", "ed"} and len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "ls":
                stem = stem[:-1]
            return stem.rstrip("e") if len(stem) > 3 else stem
    return word


@functools.cache
def english_words() -> frozenset[str]:
    """Every single English word in the table, as it is written there."""
    return frozenset(part for _, word in _entries("en") for part in word.split() if part.isalpha())


@functools.cache
def _english() -> _Table:
    table: dict[str, list[str]] = {}
    for concept, word in _entries("en"):
        table.setdefault(" ".join(fold(part) for part in _WORD.findall(word)), []).append(concept)
    return {word: tuple(dict.fromkeys(concepts)) for word, concepts in table.items()}


@functools.cache
def _japanese() -> _ByFirst:
    return _by_first(_entries("ja"))


@functools.cache
def _by_reading() -> _ByFirst:
    """The table for texts without kanji: the words as they are read, as far as they are long enough to tell."""
    from genba_llm.features import reading

    read = ((concept, hiragana_of(reading(word))) for concept, word in _entries("ja") if not word.isascii())
    return _by_first(
        (concept, word) for concept, word in read if len(word) >= _SHORTEST_READING or word in _SHORT_READINGS
    )


def _by_first(entries: Iterable[tuple[str, str]]) -> _ByFirst:
    """Words by their first character, the longest first."""
    table: dict[str, list[str]] = {}
    for concept, word in entries:
        table.setdefault(word, []).append(concept)
    by_first: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for word, concepts in sorted(table.items(), key=lambda each: -len(each[0])):
        by_first.setdefault(word[0], []).append((word, tuple(dict.fromkeys(concepts))))
    return {first: tuple(words) for first, words in by_first.items()}


def _entries(language: str) -> Iterator[tuple[str, str]]:
    found: dict[str, str] = yaml.safe_load((_LEXICON / f"concepts_{language}.yaml").read_text("utf-8"))
    for concept, words in found.items():
        for word in words.split(","):
            if word.strip():
                yield concept, word.strip().lower()
