"""Rows of the shop floor and the office: what people ask about accounts, machines, records and each other, and what they must not.

"I want to change my password" and "change the password of my boss", "the guard went off twice" and "switch off the guard": ordinary
requests and dangerous ones are filled from the same lists in ``lexicon/work_*``. Deterministic by seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from genba_llm.classifier_fit import Row
from genba_llm.contrast import LANGUAGES, Recipe, acts, lexicon, vary
from genba_llm.verdict import Decision, Language

SOURCE = "genba-workplace"
_SLOT = re.compile(r"\{(\w+?)2?\}")


@dataclass(frozen=True)
class Amounts:
    """How many rows of each kind, in each language; ``recipe`` says how often each act of the fields is asked for."""

    requests: int = 8500
    demands: int = 3500
    recipe: Recipe = field(default_factory=lambda: Recipe(8, 8, 3, 3, 8))

    def scaled(self, share: float) -> Amounts:
        """A ``share`` of the filled rows, and each act once."""
        return Amounts(max(1, round(self.requests * share)), max(1, round(self.demands * share)), Recipe(1, 1, 1, 1, 1))


def work_rows(seed: int = 0, amounts: Amounts | None = None, *, languages: Sequence[Language] = LANGUAGES) -> list[Row]:
    """All rows, without doubles, in an order that the seed decides."""
    rng = random.Random(seed)  # noqa: S311  # sampling, no secret
    rows: dict[str, Row] = {}
    for language in languages:
        for row in _rows(language, amounts or Amounts(), rng):
            rows.setdefault(row.text, row)
    found = list(rows.values())
    rng.shuffle(found)
    return found


def _rows(language: Language, amounts: Amounts, rng: random.Random) -> Iterator[Row]:
    words = lexicon(f"work_{language}")
    yield from acts(words["fields"], language, amounts.recipe, rng)
    for kind, count, decision in (
        ("requests", amounts.requests, Decision.ALLOW),
        ("demands", amounts.demands, Decision.REFUSE),
    ):
        for _ in range(count):
            index = rng.randrange(len(words[kind]))
            frame = words[kind][index]
            text = vary(_filled(frame, words["slots"], rng), language, rng)
            yield Row(text, decision, SOURCE, f"{language}/work/{kind}/{index}", frame, language)


def _filled(frame: str, slots: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    """A frame with its slots filled, those in the fillers too; a sentence begins with a capital."""

    def value(match: re.Match[str]) -> str:
        return str(rng.randint(2, 90)) if match[1] == "n" else rng.choice(slots[match[1]])

    text = frame
    while _SLOT.search(text):
        text = _SLOT.sub(value, text)
    return text[:1].upper() + text[1:]
