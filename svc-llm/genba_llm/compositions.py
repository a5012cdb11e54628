"""Long rows to learn from: tasks with documents, code, roles and problems; and the same with an order of an attacker in them.

``contrast`` pairs single sentences. What people send is often longer: a harmless text of twelve sentences has twelve
chances to look bad, and an injected order or a harmful request has as many sentences to hide between. So a text is put together
from the pieces in ``lexicon/long_*``, and most are written twice: as they are, and with something dangerous in one place.
Deterministic by seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genba_llm.classifier_fit import Row
from genba_llm.contrast import LANGUAGES, fill, lexicon
from genba_llm.verdict import Decision, Language

SOURCE = "genba-compositions"
_SLOT = re.compile(r"\{(\w+?)2?\}")
_MOST_FACTS = 9
_OTHER_LANGUAGE = 0.12


@dataclass(frozen=True)
class Amounts:
    """How many rows of each kind, in each language."""

    documents: int = 2200
    tasks: int = 2800
    harmful_tasks: int = 1600
    roles: int = 600
    code: int = 2400
    harmful_code: int = 900
    blocks: int = 400
    statements: int = 2500
    remarks: int = 300
    notes: int = 900
    injected: int = 1500
    orders: int = 700
    extractions: int = 1100
    modes: int = 400
    wrapped: int = 2200

    def scaled(self, share: float) -> Amounts:
        """A ``share`` of each, at least one row."""
        return Amounts(**{name: max(1, round(count * share)) for name, count in asdict(self).items()})


def compose(seed: int = 0, amounts: Amounts | None = None, *, languages: Sequence[Language] = LANGUAGES) -> list[Row]:
    """All rows, without doubles, in an order that the seed decides."""
    rng = random.Random(seed)  # noqa: S311  # sampling, no secret
    rows: dict[str, Row] = {}
    for language in languages:
        for row in _Writer(language, rng).rows(amounts or Amounts()):
            rows.setdefault(row.text, row)
    found = list(rows.values())
    rng.shuffle(found)
    return found


def attack_of(language: Language, rng: random.Random) -> tuple[str, str]:
    """What an attacker wants, and the order for it as it stands in somebody else's text."""
    return _Writer(language, rng).attack()


class _Writer:
    """Writes the rows of one language."""

    def __init__(self, language: Language, rng: random.Random) -> None:
        self._language: Language = language
        self._rng = rng
        self._gap = " " if language == "en" else ""
        self._long = lexicon(f"long_{language}")
        self._slots: Mapping[str, Sequence[str]] = {**lexicon(f"benign_{language}")["slots"], **self._long["slots"]}
        self._asks = lexicon(f"frames_{language}")["ask"]
        fields: Mapping[str, Any] = {**lexicon(f"harm_{language}"), **lexicon(f"work_{language}")["fields"]}
        self._acts = [(act, Decision.parse(field["outcome"])) for field in fields.values() for act in field["acts"]]
        self._safe = [(act, Decision.ALLOW) for field in fields.values() for act in field["safe"]]

    def rows(self, amounts: Amounts) -> Iterator[Row]:
        """Every kind in turn."""
        kinds: Mapping[str, Callable[[], Iterable[Row]]] = {
            "documents": lambda: [self._row(*self._document())],
            "tasks": lambda: [self._row(*self._task())],
            "harmful_tasks": lambda: [self._row(*self._task("asks_bad"), Decision.REFUSE)],
            "roles": lambda: [self._row(*self._role())],
            "code": lambda: [self._row(*self._code())],
            "harmful_code": lambda: [self._row(*self._code("does_bad"), Decision.REFUSE)],
            "blocks": lambda: [self._row(*self._block())],
            "statements": self._statements,
            "remarks": self._remarks,
            "notes": self._notes,
            "injected": self._injected,
            "orders": self._orders,
            "extractions": lambda: self._attack("extractions", most=1),
            "modes": lambda: self._attack("modes", most=2),
            "wrapped": self._wrapped,
        }
        for name, count in asdict(amounts).items():
            for _ in range(count):
                yield from kinds[name]()

    def _statements(self) -> Iterator[Row]:
        facts = self._facts(self._rng.choice((1, 1, 2, 3)))
        yield self._row("statements", facts[0], self._gap.join(facts))

    def _remarks(self) -> Iterator[Row]:
        """What people add to a task, on its own: each sentence of a text is looked at alone."""
        name = self._rng.choice(("details", "code_details"))
        said = self._rng.sample(self._long[name], self._rng.randint(1, 3))
        yield self._row("remarks", said[0], self._filled(self._gap.join(said)))

    def _notes(self) -> Iterator[Row]:
        note = self._rng.choice(self._long["harmless_notes"])
        yield self._row("notes", note, self._around(self._filled(note)))

    def _orders(self) -> Iterator[Row]:
        goal = self._pick("goals")
        yield self._row("orders", goal, self._around(self._order(goal)), Decision.DENY)

    def _attack(self, kind: str, *, most: int) -> Iterator[Row]:
        said = self._pick(kind)
        yield self._row(kind, said, self._around(said, most=most), Decision.DENY)

    def _row(self, kind: str, subject: str, text: str, decision: Decision = Decision.ALLOW) -> Row:
        return Row(text, decision, SOURCE, f"{self._language}/long/{kind}", subject, self._language)

    def _pick(self, name: str) -> str:
        return self._filled(self._rng.choice(self._long[name]))

    def _filled(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1]
            return str(self._rng.randint(2, 90)) if name == "n" else self._rng.choice(self._slots[name])

        return _SLOT.sub(value, text)

    def _facts(self, count: int) -> list[str]:
        return [self._filled(each) for each in self._rng.sample(self._long["facts"], count)]

    def _details(self, name: str = "details", *, most: int = 3) -> list[str]:
        return [self._filled(each) for each in self._rng.sample(self._long[name], self._rng.randint(0, most))]

    def document_text(self) -> str:
        """A document: facts in a row, numbered, or a line each; now and then in the other language, now and then code."""
        if self._rng.random() < _OTHER_LANGUAGE:
            other: Language = "ja" if self._language == "en" else "en"
            return _Writer(other, self._rng).document_text()
        facts = self._facts(self._rng.randint(2, _MOST_FACTS))
        style = self._rng.random()
        if style < 0.15:
            return "\n".join(f"{chr(97 + n)}) {fact}" for n, fact in enumerate(facts))
        if style < 0.3:
            return "\n".join(f"- {fact}" for fact in facts)
        if style < 0.4:
            return "\n".join([*facts, self._rng.choice(self._long["blocks"])])
        return ("\n" if style < 0.5 else self._gap).join(facts)

    def _document(self) -> tuple[str, str, str]:
        task = self._rng.choice(self._long["tasks"])
        parts = [self._gap.join([self._filled(task), *self._details(most=2)]), self.document_text()]
        if self._rng.random() < 0.3:
            parts.append(self._pick("questions"))
        if self._rng.random() < 0.25:
            parts.reverse()
        return "documents", task, self._rng.choice(("\n", "\n\n", self._gap)).join(parts)

    def _task(self, name: str = "asks") -> tuple[str, str, str]:
        asked = self._rng.choice(self._long[name])
        before = self._facts(1) if self._rng.random() < 0.25 else []
        return name, asked, self._gap.join([*before, self._filled(asked), *self._details()])

    def _role(self) -> tuple[str, str, str]:
        role = self._rng.choice(self._long["roleplay"])
        return "roles", role, self._gap.join([self._filled(role), *self._details(most=2), self._pick("role_questions")])

    def _code(self, name: str = "does") -> tuple[str, str, str]:
        does = self._rng.choice(self._long[name])
        asked = self._filled(self._rng.choice(self._long["code"]).replace("{does}", does))
        hidden = self._details("code_bad_details", most=1) if name == "does_bad" else []
        return name, does, self._gap.join([asked, *hidden, *self._details("code_details", most=4)])

    def _block(self) -> tuple[str, str, str]:
        block = self._rng.choice(self._long["blocks"])
        fence = "```" if self._rng.random() < 0.5 else ""
        parts = [self._pick("block_asks"), f"{fence}\n{block}\n{fence}".strip()]
        return "blocks", block, "\n".join(parts if self._rng.random() < 0.8 else reversed(parts))

    def _around(self, text: str, *, most: int = 1) -> str:
        """``text`` alone, or behind or between harmless sentences."""
        if self._rng.random() < 0.5:
            return text
        before = self._facts(self._rng.randint(0, most)) + [self._pick("questions")] * (self._rng.random() < 0.2)
        after = self._details(most=1)
        return self._gap.join([*before, text, *after])

    def _order(self, goal: str) -> str:
        order = self._gap.join((self._rng.choice(self._long["openers"]), goal))
        return order + ("。" if self._language == "ja" else ".")

    def attack(self) -> tuple[str, str]:
        """A goal, and an order behind a mark that shall pass for the end of the text."""
        goal = self._pick("goals")
        order = self._pick("delimiters") + self._rng.choice(
            (self._order(goal), self._order(goal), self._pick("extractions"), self._pick("modes"))
        )
        return goal, order

    def _injected(self) -> Iterator[Row]:
        """A task with its document, and the same with an order between two of its sentences."""
        _, task, text = self._document()
        goal, order = self.attack()
        ends = [match.end() for match in re.finditer(r"[.。!?！？\n]", text)]
        at = self._rng.choice([*ends[len(ends) // 3 :], len(text)])
        if self._rng.random() < 0.5:
            yield self._row("injected_not", task, text)
        yield self._row("injected", goal, text[:at] + order + text[at:], Decision.DENY)

    def _wrapped(self) -> Iterator[Row]:
        """A harmful request among harmless sentences, and a harmless one in the same place."""
        for acts, frames in ((self._acts, "harmful_wrappers"), (self._safe, "safe_wrappers")):
            act, decision = self._rng.choice(acts)
            asked = fill(self._rng.choice(self._asks), act, self._language)
            if asked is not None:
                text = self._rng.choice(self._long[frames])
                text = text.replace("{ask}", asked).replace("{mode}", self._rng.choice(self._long["modes"]))
                pre, post = self._facts(self._rng.randint(1, 4)), self._details(most=2)
                text = text.replace("{pre}", self._gap.join(pre)).replace("{post}", self._gap.join(post))
                text = self._filled(text.replace("{question}", self._pick("questions")))
                yield self._row("wrapped", act, text.strip(), decision)
