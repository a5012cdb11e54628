"""Find what answers a question among texts: passages in, the best out. Knows no database, model or HTTP.

A passage is a step's text or some neighbouring cues. BM25 ranks them; how many of the question's own words a passage holds
says whether it speaks of what is asked at all, which a rank cannot: the best of nothing is nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from genba_shared.lexical import Bm25, terms
from genba_shared.text_forms import nfkc
from genba_sop.procedure import Step, Text
from genba_sop.transcripts import Cue

Language = Literal["en", "ja"]

LEAST_COVERAGE: Final = 0.35  # of the question's words; below it a passage speaks of something else
KIN: Final = 0.6  # of a word's trigrams: "tighten" and "tightened" are one
CANDIDATES: Final = 200
BREAK_S: Final = 2.0  # of silence between two passages
MOST_CHARS: Final = 300  # of a passage, after which it ends with a cue

_SENTENCE_ENDS: Final = (".", "!", "?", "。", "！", "？")
_JAPANESE: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_LATIN: Final = re.compile(r"[a-z0-9]+")
_CONTENT: Final = re.compile(r"[\u30a1-\u30fa\u30fc\u3400-\u9fff々]+")  # katakana and kanji
_HIRAGANA: Final = re.compile(r"[\u3041-\u3096]+")
_EMPTY: Final = frozenset(
    _LATIN.findall(
        "a an and any are at be been by can could did do does doing for from had has have how i if in into is it its long many"
        " me much must my need of on one or our say shall should show so step that the their then there these they this to up"
        " us use used video was we were what when where which while who whom whose why will with would you your"
    )
)
_ASKING: Final = re.compile(r"何|誰|幾|手順|方法|場面|動画|工程|教|必要|時間")


@dataclass(frozen=True)
class Passage:
    """Words, and the place in a video where they are said or done."""

    words: str
    video_id: str
    start_s: float
    end_s: float
    procedure_id: str | None = None
    step: Step | None = None
    said: bool = False


@dataclass(frozen=True)
class Ranked:
    """A passage and how well it fits: ``score`` in [0, 1], comparable within one question."""

    passage: Passage
    score: float


def language_of(text: str) -> Language:
    """Japanese if any of it is."""
    return "ja" if _JAPANESE.search(text) else "en"


def words_of(step: Step, language: Language) -> str:
    """What there is to say of a step: name, what to do, tool, and how long it takes."""

    def say(text: Text) -> str:
        return (text.ja or text.en if language == "ja" else text.en or text.ja).rstrip(".。")

    ja = language == "ja"
    said = [say(step.name) or step.id, say(step.action)]
    if step.tool:
        said.append(f"工具: {step.tool}" if ja else f"Tool: {step.tool}")
    if step.min_s is not None:
        said.append(f"最短{step.min_s:g}秒" if ja else f"At least {step.min_s:g} s")
    if step.max_s is not None:
        said.append(f"最長{step.max_s:g}秒" if ja else f"At most {step.max_s:g} s")
    return "。".join([*filter(None, said), ""]) if ja else ". ".join(filter(None, said)) + "."


def joined(cues: Sequence[tuple[str, Cue]]) -> list[Passage]:
    """Cues of videos, each video's in order, as passages: a sentence goes over several cues, and its words belong together."""
    found: list[Passage] = []
    ended = True
    for video_id, cue in cues:
        last = found[-1] if found else None
        if last and not ended and last.video_id == video_id and cue.start_s - last.end_s <= BREAK_S:
            end_s = max(last.end_s, cue.end_s)
            gap = "" if language_of(last.words[-1:] + cue.words[:1]) == "ja" else " "
            found[-1] = Passage(f"{last.words}{gap}{cue.words}", video_id, last.start_s, end_s, said=True)
        else:
            found.append(Passage(cue.words, video_id, cue.start_s, cue.end_s, said=True))
        words = found[-1].words
        ended = words.endswith(_SENTENCE_ENDS) or len(words) > MOST_CHARS
    return found


def best(question: str, passages: Sequence[Passage], *, k: int) -> list[Ranked]:
    """The ``k`` passages that answer best, best first, no words twice; none that speaks of something else."""
    # A step is found by its words in either language, and shown in the asker's.
    texts = [f"{each.words} {_both(each.step)}" if each.step else each.words for each in passages]
    scores = Bm25(texts).scores(question)
    asked = _asked(question)
    alone = _alone(asked)
    near = [at for at, score in enumerate(scores) if score > 0 or any(word in texts[at] for word in alone)]
    near = sorted(near, key=lambda at: -scores[at])[:CANDIDATES]
    most = max(scores, default=0.0) or 1.0
    found: dict[str, Ranked] = {}
    for at in near:
        covered = _coverage(asked, texts[at])
        ranked = Ranked(passages[at], (covered + scores[at] / most) / 2)
        words = passages[at].words
        if covered >= LEAST_COVERAGE and (words not in found or found[words].score < ranked.score):
            found[words] = ranked
    return sorted(found.values(), key=lambda each: -each.score)[:k]


def sought(question: str) -> str:
    """The question for an index of terms, its words of one character once more on their own: 蓋は and 蓋を share no pair."""
    return " ".join([question, *_alone(_asked(question))])


def _alone(asked: Sequence[str]) -> list[str]:
    return [word for word in asked if len(word) == 1]


def _both(step: Step) -> str:
    return f"{words_of(step, 'en')} {words_of(step, 'ja')} {step.id.replace('_', ' ')}"


def _plain(text: str) -> str:
    return nfkc(text).lower()


def _asked(question: str) -> list[str]:
    """The words of a question that say what is asked; all of its words where none does."""
    plain = _plain(question)
    latin = [word for word in _LATIN.findall(plain) if word not in _EMPTY]
    content = [run for part in _ASKING.split(plain) for run in _CONTENT.findall(part)]
    found = latin + [pair for run in content for pair in _pairs(run)]
    return list(dict.fromkeys(found or [pair for run in _HIRAGANA.findall(plain) for pair in _pairs(run)]))


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)] or [run]


def _coverage(asked: Sequence[str], text: str) -> float:
    """The share of the words that the text holds, 0 when there is none to hold."""
    plain, held = _plain(text), terms(text)
    return sum(_holds(word, plain, held) for word in asked) / len(asked) if asked else 0.0


def _holds(word: str, plain: str, held: Mapping[str, int]) -> bool:
    if not word.isascii():
        return word in plain
    grams = {term for term in terms(word) if term.startswith("t:")}
    return f"w:{word}" in held or sum(gram in held for gram in grams) >= KIN * len(grams)
