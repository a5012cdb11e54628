"""From where a model of the line is sure enough to answer: how likely the topic that is read, or its own thought, has to be.

Measured on questions whose right answers are known and whose wordings nobody learnt. A wrong answer costs more than one that
says it is not known, so a bound is the one with the best balance of right answers less twice the wrong ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from genba_llm import contrast
from genba_llm.generation import Message, Options, Task
from genba_llm.live_model import TASK_END, ChampionModel
from genba_llm.sft_rows import Row
from genba_llm.synthesise import facts, not_known, thought_begun, topic_of, work_answer, work_of
from genba_llm.thinking import final_of
from genba_llm.topics import NONE
from genba_llm.verdict import Language

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


def read_alone(model: ChampionModel, rows: Sequence[Row]) -> Answers:
    """The topics that are read from the questions of ``rows``, as answers."""
    wanted = [topic_of(row.output) for row in rows]
    read = [model.read(row.instruction) for row in rows]
    told = [Told(p, says=name != NONE, right=name == want) for (name, p), want in zip(read, wanted, strict=True)]
    return Answers(told, [want != NONE for want in wanted])


def spoken_of(model: ChampionModel, names: Sequence[str]) -> dict[str, list[str]]:
    """By language, the pieces of work of which a model says what is known, word for word, once it is told the topic."""

    def says(name: str, language: Language) -> bool:
        asked = contrast.lexicon("synthesise")["asked"]["tell"][language][0].format(
            x=work_of(name)["names"][language][0]
        )
        task = model.as_trained(Task([Message("user", asked)], Options(temperature=0.0)))
        told = replace(task, begun=thought_begun(name, language))
        text = "".join(piece.text for piece in model.inner.generate(told))
        return final_of(told.begun + text)[0] == work_answer(work_of(name), "tell", language)

    languages: tuple[Language, ...] = ("ja", "en")
    return {language: [name for name in names if says(name, language)] for language in languages}


def told_apart(model: ChampionModel, rows: Sequence[Row]) -> Answers:
    """What a model says to the questions of ``rows``, however unsure of what it thinks itself.

    Right is an answer with a fact of the piece of work that was asked for, in whatever form. Where the reader is sure, the
    model is not asked: it is told a topic of which it was heard.
    """
    model.sure_from = 0.0
    told, known = [], []
    for row in rows:
        wanted = topic_of(row.output)
        known.append(wanted != NONE)
        topic, probability = model.read(row.instruction)
        if topic != NONE and probability >= model.topic_from:
            told.append(Told(1.0, says=True, right=topic == wanted))
            continue
        task = Task([Message("user", row.instruction)], Options(temperature=0.0, logprobs=True))
        text, logprob = "", 0.0
        for piece in model.generate(task):
            if TASK_END not in text:
                logprob += sum(each.logprob for each in piece.logprobs)
            text += piece.text
        said = final_of(text)[0] or ""
        silent = said in {"", not_known("ja"), not_known("en")}
        told.append(Told(math.exp(logprob), not silent, wanted != NONE and any(fact in said for fact in facts(wanted))))
    return Answers(told, known)


def fit_bound(answers: Answers) -> float:
    """The bound in hundredths, the lowest of the best."""

    def balance(sure_from: float) -> float:
        found = answers.counted(sure_from)
        return found["right"] - WRONG_COSTS * found["wrong"]

    return max((step / _STEPS for step in range(_STEPS)), key=lambda bound: (balance(bound), -bound))
