"""From where a model of the line is sure enough to answer: how likely the topic that is read, or its own thought, has to be.

Measured on questions whose right answers are known and whose wordings nobody learnt. A wrong answer costs more than one that
says it is not known, so a bound is the one with the best balance of right answers less twice the wrong ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from genba_llm.generation import Message, Options, Task
from genba_llm.live_model import TASK_END, load_bundle
from genba_llm.normalise import language_of
from genba_llm.policy import Policy
from genba_llm.sft_rows import Row
from genba_llm.synthesise import not_known, topic_of
from genba_llm.thinking import final_of
from genba_llm.topics import NONE, Topics

WRONG_COSTS: Final = 2.0
_STEPS: Final = 100


@dataclass(frozen=True)
class Told:
    """An answer: how likely the thought on the task was, and whether something was said and was right."""

    probability: float
    says: bool
    right: bool


@dataclass(frozen=True)
class Answers:
    """Answers to questions; ``known`` says of which an answer exists."""

    told: Sequence[Told]
    known: Sequence[bool]

    def counted(self, sure_from: float) -> dict[str, float]:
        """Shares of all questions: answered rightly, wrongly, and not at all though an answer is known."""
        n = max(1, len(self.told))
        said = [each.says and each.probability >= sure_from for each in self.told]
        right = sum(says and each.right for says, each in zip(said, self.told, strict=True))
        silent = sum(known and not says for says, known in zip(said, self.known, strict=True))
        return {"right": right / n, "wrong": (sum(said) - right) / n, "silent": silent / n}


def read_alone(topics: Topics, rows: Sequence[Row]) -> Answers:
    """What topics are read from the questions of ``rows``, as answers."""
    wanted = [topic_of(row.output) for row in rows]
    read = [topics.best(row.instruction) for row in rows]
    told = [Told(p, says=name != NONE, right=name == want) for (name, p), want in zip(read, wanted, strict=True)]
    return Answers(told, [want != NONE for want in wanted])


def told_apart(bundle: Path, rows: Sequence[Row]) -> Answers:
    """What the bundle's model says to the questions of ``rows``, however unsure of what it thinks itself."""
    model = load_bundle(bundle, "measured", Policy())
    model.sure_from = 0.0
    told, known = [], []
    for row in rows:
        task = Task([Message("user", row.instruction)], Options(temperature=0.0, logprobs=True))
        text, logprob, begun = "", 0.0, False
        for piece in model.generate(task):
            begun = begun or (not text and not piece.logprobs and bool(piece.text))  # it was told the topic
            if TASK_END not in text and not begun:
                logprob += sum(each.logprob for each in piece.logprobs)
            text += piece.text
        said, wanted = final_of(text)[0], final_of(row.output)[0]
        silence = not_known(language_of(row.instruction))
        told.append(Told(math.exp(logprob), said not in {None, silence}, said == wanted))
        known.append(topic_of(row.output) != NONE)
    return Answers(told, known)


def fit_bound(answers: Answers) -> float:
    """The bound in hundredths, the lowest of the best."""

    def balance(sure_from: float) -> float:
        found = answers.counted(sure_from)
        return found["right"] - WRONG_COSTS * found["wrong"]

    return max((step / _STEPS for step in range(_STEPS)), key=lambda bound: (balance(bound), -bound))
