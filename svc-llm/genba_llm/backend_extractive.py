"""The backend that needs no weights: it says nothing of its own, only sentences of the documents that it was handed.

Its model is named ``genba-extractive``, so that nobody takes it for a language model. Where no sentence fits, it says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from genba_llm.generation import Feature, Piece, Task, Usage
from genba_llm.retrieval import best_sentences, words

MODEL: Final = "genba-extractive-1"
_JAPANESE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_NOTHING = {
    "en": "No document that you may see answers this.",
    "ja": "閲覧できる文書の中に、この質問に答えるものはありません。",
}


class Extractive:
    """Selects sentences; deterministic."""

    model = MODEL
    features: frozenset[Feature] = frozenset({"json_object"})
    starts_hidden = False

    def generate(self, task: Task) -> Iterator[Piece]:
        """One sentence per piece, each with its citation."""
        question = task.question
        chosen = best_sentences(question, task.passages)
        language = "ja" if _JAPANESE.search(question) else "en"
        lines = [f"{each.text} [{each.passage + 1}]" for each in chosen] or [_NOTHING[language]]
        if task.options.response_format is not None:
            sources = [each.passage + 1 for each in chosen]
            lines = [json.dumps({"answer": " ".join(lines), "citations": sources}, ensure_ascii=False)]
        if task.options.think:
            yield Piece(_thoughts(task, len(chosen)) + "<final>")
        spent = 0
        finish = "stop"
        for number, line in enumerate(lines):
            spent += len(words(line))
            if spent > task.options.max_tokens and number:
                finish = "length"
                break
            yield Piece(line if number == len(lines) - 1 else line + "\n")
        if task.options.think:
            yield Piece("</final>")
        prompt = sum(len(words(each.content)) for each in task.messages)
        yield Piece(finish="length" if finish == "length" else "stop", usage=Usage(prompt, spent))

    def check(self) -> str | None:
        return None

    def close(self) -> None:
        pass


def _thoughts(task: Task, chosen: int) -> str:
    titles = ", ".join(each.title for each in task.passages) or "none"
    return (
        f"<think-task>Words asked for: {' '.join(sorted(set(words(task.question)))[:40])}</think-task>"
        f"<think-safety>The gate allowed it; only sentences of documents that the asker may see are used.</think-safety>"
        f"<think-policy>Documents: {titles}. Sentences that fit: {chosen}.</think-policy>"
    )
