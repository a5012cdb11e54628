"""BM25 over short texts in English and Japanese, without dictionaries. Knows nothing of what they name: texts in,
scores out.

Latin words count as such and as character trigrams, so that an inflected or misspelt word still meets its kin; runs
of Japanese count as
character bigrams, which need no word boundaries (McNamee & Mayfield 2004). Grams weigh less than words.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from genba_shared.text_forms import nfkc

K1: Final = 1.2
B: Final = 0.5  # texts are names and the like: short, so their length says little
GRAM_WEIGHT: Final = 0.3

_WORDS: Final = re.compile(r"[a-z0-9]+")
_JAPANESE: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uff66-\uff9f々ー]+")


def terms(text: str) -> Counter[str]:
    """The terms of a text and their weights: ``w:`` words, ``t:`` trigrams of words, ``j:`` bigrams of Japanese."""
    plain = nfkc(text).lower()
    found: Counter[str] = Counter()
    for word in _WORDS.findall(plain):
        found[f"w:{word}"] += 1
        padded = f"^{word}$"
        found.update(f"t:{padded[i : i + 3]}" for i in range(len(padded) - 2))
    for run in _JAPANESE.findall(plain):
        if len(run) == 1:
            found[f"j:{run}"] += 1
        found.update(f"j:{run[i : i + 2]}" for i in range(len(run) - 1))
    return found


def weight(term: str) -> float:
    """Of a term beside others."""
    return GRAM_WEIGHT if term.startswith("t:") else 1.0


def rarity(texts: int, holding: int) -> float:
    """The inverse document frequency of a term that ``holding`` of so many texts hold."""
    return math.log(1 + (texts - holding + 0.5) / (holding + 0.5))


def lone(asked: Iterable[str]) -> set[str]:
    """The Japanese characters that stand alone among terms, such as 蓋: each means every pair that holds it."""
    return {term[2:] for term in asked if term.startswith("j:") and len(term) == len("j:蓋")}


class Bm25:
    """An index over ``texts``, in memory."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._documents = [terms(text) for text in texts]
        lengths = [sum(document.values()) for document in self._documents]
        self._mean = sum(lengths) / len(lengths) if any(lengths) else 1.0  # texts of other scripts have no terms
        self._lengths = lengths
        seen = Counter(term for document in self._documents for term in document)
        n = len(self._documents)
        self._idf = {term: rarity(n, count) for term, count in seen.items()}

    def scores(self, query: str) -> list[float]:
        """The score of each text, 0 where nothing matches (Robertson & Zaragoza 2009)."""
        asked = self._known(query)
        return [
            self._score(document, length, asked)
            for document, length in zip(self._documents, self._lengths, strict=True)
        ]

    def _known(self, query: str) -> dict[str, int]:
        """The query's terms that some text has."""
        asked = terms(query)
        known = {term: weight for term, weight in asked.items() if term in self._idf}
        if alone := lone(asked):
            known |= {term: 1 for term in self._idf if term.startswith("j:") and not alone.isdisjoint(term[2:])}
        return known

    def ideal(self, text: str) -> float:
        """What a text of average length that says exactly this would score: a scale for scores of different queries."""
        asked = {term: weight for term, weight in terms(text).items() if term in self._idf}
        return self._score(asked, self._mean, asked)

    def _score(self, document: Mapping[str, int], length: float, asked: Mapping[str, int]) -> float:
        norm = K1 * (1 - B + B * length / self._mean)
        return sum(
            weight(term) * self._idf[term] * document[term] * (K1 + 1) / (document[term] + norm)
            for term in asked
            if term in document
        )
