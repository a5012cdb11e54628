"""Office work that needs no opinion: summarise a text, draft a mail. With a language model it writes; without one it selects.

The embedded backend writes nothing of its own, so a summary is made of the text's own sentences and a mail of the points that
were given, in the forms of polite business language. Knows no route.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from genba_llm.generation import Message
from genba_llm.retrieval import Passage, best_sentences, central_sentences, sentences

Language = Literal["ja", "en"]
_HONORIFICS = ("様", "御中", "殿", "先生", "各位", "さん")


@dataclass(frozen=True)
class Line:
    """A line of a summary and the numbers (from 1) of the sentences that it rests on."""

    text: str
    sources: tuple[int, ...]


def select_summary(text: str, *, lines: int) -> list[Line]:
    """The text's most central sentences, in its order."""
    numbers = {part: at for at, part in reversed(list(enumerate(sentences(text), start=1)))}
    return [Line(part, (numbers.get(part, at + 1),)) for at, part in central_sentences(text, limit=lines)]


def cite(answer: str, text: str) -> list[Line]:
    """A model's summary, line by line, with the sentences of the text that support each line best."""
    parts = sentences(text)
    passages = [Passage("text", at, "", part, 0, 1.0) for at, part in enumerate(parts)]
    found = []
    for line in answer.splitlines():
        plain = line.strip().lstrip("-*・•0123456789.) ").strip()
        if plain:
            support = best_sentences(plain, passages, limit=2)
            found.append(Line(plain, tuple(each.passage + 1 for each in support)))
    return found


def summary_prompt(text: str, *, lines: int, language: Language) -> list[Message]:
    """What a language model is asked."""
    how = {
        "ja": f"次の文書を、重要な点を{lines}行以内の箇条書きで要約してください。文書にないことは書かないでください。",
        "en": f"Summarise this text in at most {lines} bullet points. Write nothing that is not in it.",
    }[language]
    return [Message("system", how), Message("user", text)]


def mail_prompt(
    recipient: str, purpose: str, points: Sequence[str], *, sender: str, language: Language
) -> list[Message]:
    """What a language model is asked."""
    how = {
        "ja": "次の要点だけを使い、丁寧な業務メールを書いてください。1行目は「件名: 」で始めてください。",
        "en": "Write a polite business mail from these points and nothing else. Begin with a line 'Subject: '.",
    }[language]
    given = "\n".join(
        [f"To: {recipient}", f"From: {sender}", f"Purpose: {purpose}", *(f"- {point}" for point in points)]
    )
    return [Message("system", how), Message("user", given)]


def compose_mail(
    recipient: str, purpose: str, points: Sequence[str], *, sender: str, language: Language
) -> tuple[str, str]:
    """Subject and body, put together from what was given."""
    if language == "ja":
        listed = "\n".join(f"・{point}" for point in points)
        addressed = recipient if recipient.endswith(_HONORIFICS) else f"{recipient} 様"
        body = (
            f"{addressed}\n\nいつもお世話になっております。{sender}です。\n\n{purpose}の件でご連絡いたします。\n\n{listed}\n\n"
            f"ご確認のほど、よろしくお願いいたします。\n\n{sender}"
        )
        return purpose, body
    listed = "\n".join(f"- {point}" for point in points)
    body = f"Dear {recipient},\n\nI am writing about {purpose}.\n\n{listed}\n\nKind regards,\n{sender}"
    return purpose, body


def split_mail(answer: str, purpose: str) -> tuple[str, str]:
    """A model's mail as subject and body; the purpose where it wrote no subject."""
    first, _, rest = answer.strip().partition("\n")
    for mark in ("件名:", "件名：", "Subject:", "subject:"):
        if first.startswith(mark):
            return first.removeprefix(mark).strip() or purpose, rest.strip()
    return purpose, answer.strip()
