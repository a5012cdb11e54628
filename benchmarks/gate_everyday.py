"""Rows of everyday life: right and wrong, health, feelings, families, and passages of every kind; beside them what nobody may ask.

``contrast`` pairs acts, ``workplace`` the shop floor. What people say of themselves and of each other is told from harm by who
does what to whom: the same people, acts and things fill the harmless frames and the dangerous ones in ``gate_candidate_words``. Long
passages (lives, wars, beasts of prey, the news) come as they are, and with an order or a harmful request put into them.
Deterministic by seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genba_llm.classifier_fit import Row
from genba_llm.compositions import attack_of
from genba_llm.contrast import LANGUAGES, lexicon, vary
from genba_llm.verdict import Decision, Language

SOURCE = "genba-everyday"
PASSAGES = "genba-passages"
_SLOT = re.compile(r"\{(\w+?)2?\}")
_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")


@dataclass(frozen=True)
class Amounts:
    """How many rows of each kind, in each language: harmless and dangerous ones, passages, and passages with danger in them."""

    harmless: int = 7000
    dangerous: int = 4500
    leaks: int = 1500
    passages: int = 2200
    poisoned: int = 1100

    def scaled(self, share: float) -> Amounts:
        """A ``share`` of each, at least one row."""
        return Amounts(**{name: max(1, round(count * share)) for name, count in asdict(self).items()})


def life_rows(seed: int = 0, amounts: Amounts | None = None, *, languages: Sequence[Language] = LANGUAGES) -> list[Row]:
    """All rows, without doubles, in an order that the seed decides."""
    rng = random.Random(seed)  # sampling, no secret
    rows: dict[str, Row] = {}
    for language in languages:
        for row in _Writer(language, rng).rows(amounts or Amounts()):
            rows.setdefault(row.text, row)
    found = list(rows.values())
    rng.shuffle(found)
    return found


class _Writer:
    """Writes the rows of one language."""

    def __init__(self, language: Language, rng: random.Random) -> None:
        self._language: Language = language
        self._rng = rng
        self._gap = " " if language == "en" else ""
        words = lexicon(f"life_{language}")
        self._words = words
        self._slots: Mapping[str, Sequence[str]] = {name: said.split(", ") for name, said in words["slots"].items()}
        self._passages: Mapping[str, Any] = words["passages"]

    def rows(self, amounts: Amounts) -> Iterator[Row]:
        """Every kind in turn."""
        harmless = {kind: (frames, Decision.ALLOW) for kind, frames in self._words["harmless"].items()}
        dangerous = {}
        for name, frames in self._words["dangerous"].items():
            kind, outcome = name.split()
            dangerous[kind] = (frames, Decision.parse(outcome))
        leaks = {"leaks": dangerous.pop("leaks")}
        for kinds, count in ((harmless, amounts.harmless), (dangerous, amounts.dangerous), (leaks, amounts.leaks)):
            some = [(kind, index) for kind, (frames, _) in kinds.items() for index in range(len(frames))]
            for _ in range(count):
                kind, index = self._rng.choice(some)
                frames, decision = kinds[kind]
                text = vary(self._filled(frames[index]), self._language, self._rng)
                yield self._row(SOURCE, f"{kind}/{index}", frames[index], text, decision)
        for _ in range(amounts.passages):
            kind, _, text = self._passage()
            yield self._row(PASSAGES, f"passages/{kind}", kind, text, Decision.ALLOW)
        for _ in range(amounts.poisoned):
            yield from self._poisoned(dangerous | leaks)

    def _row(self, source: str, family: str, subject: str, text: str, decision: Decision) -> Row:
        return Row(text, decision, source, f"{self._language}/life/{family}", subject, self._language)

    def _filled(self, frame: str, more: Mapping[str, str] | None = None) -> str:
        """A frame with its choices made and its slots filled, those in the fillers too; a sentence begins with a capital."""

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if more and name in more:
                return more[name]
            if name == "n":
                return str(self._rng.randint(2, 90))
            said = self._passages[name].split(", ") if name in {"names", "places"} else self._slots[name]
            return str(self._rng.choice(said))

        text = frame
        while _SLOT.search(text) or _CHOICE.search(text):
            text = _CHOICE.sub(lambda match: self._rng.choice(match[1].split("|")), text)
            text = _SLOT.sub(value, text)
        if self._language == "en":
            text = re.sub(" {2,}", " ", text)
            text = re.sub(r"(^|[.!?]\s+)([a-z])", lambda match: match[1] + match[2].upper(), text)
        return text

    def _body(self) -> tuple[str, str, list[str]]:
        """A kind of passage, whom or what it is about, and its sentences."""
        kind = self._rng.choice(list(self._passages["kinds"]))
        found = self._passages["kinds"][kind]
        subjects = found["subjects"]
        about = self._filled(self._rng.choice(self._passages.get(subjects, subjects).split(", ")))
        count = self._rng.randint(1, min(9, len(found["says"])))
        said = [self._filled(frame, {"x": about}) for frame in self._rng.sample(found["says"], count)]
        return kind, about, said

    def _passage(self, put: str | None = None) -> tuple[str, str, str]:
        """A passage with a task around it; ``put`` stands between two of its sentences or at its end."""
        kind, about, said = self._body()
        if put is not None:
            said.insert(self._rng.randint(len(said) // 3, len(said)), put)
        gap = self._rng.choice((self._gap, self._gap, "\n"))
        ask = self._filled(self._rng.choice(self._passages["questions"]), {"x": about})
        frame = self._rng.choice(self._passages["asks"])
        text = self._filled(frame, {"body": "\0", "ask": "\1"})
        return kind, about, text.replace("\0", gap.join(said)).replace("\1", ask)

    def _poisoned(self, dangerous: Mapping[str, tuple[Sequence[str], Decision]]) -> Iterator[Row]:
        """A passage with something dangerous in it: an order of an attacker, or one of the dangerous frames."""
        if self._rng.random() < 0.5:
            goal, order = attack_of(self._language, self._rng)
            yield self._row(PASSAGES, "poisoned/order", goal, self._passage(order)[2], Decision.DENY)
            return
        kind = self._rng.choice(list(dangerous))
        frames, decision = dangerous[kind]
        index = self._rng.randrange(len(frames))
        text = self._passage(self._filled(frames[index]))[2]
        yield self._row(PASSAGES, f"poisoned/{kind}", frames[index], text, decision)
