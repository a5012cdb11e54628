"""Keep what a model thinks away from what leaves: a filter for streams that lets only the answer through.

Quadruple thinking is ``<think-task>…</think-task><think-safety>…<think-policy>…<final>answer</final>``. ``Filter`` takes a
model's text in pieces, cut anywhere, even within a tag, and hands out pieces of the answer; the thoughts go to a digest.
It fails closed: what might still become a tag is held back, and a thought that never ends never leaves.
Knows no model and no web.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Mode = Literal["final_only", "strip"]

STAGES = ("think-task", "think-safety", "think-policy")
_ANSWER = {"final", "answer"}
_WORDS = (
    "think", "thinking", "seed:think", "longcat_think", "mm:think", "antthinking", "ant:thinking", "thought", "thoughts",
    "thought_process", "reasoning", "reflection", "scratchpad", "analysis", "chain_of_thought", "cot", "inner_monologue",
    "inner_thoughts", "unused94", "unused95", *_ANSWER,
)  # fmt: skip
_NAME = "|".join(sorted((re.escape(word).replace("_", "[-_ ]") for word in _WORDS), key=len, reverse=True))
_NAME = rf"(?:think(?:ing)?[-_][a-z0-9_]+|think (?:task|safety|policy)|{_NAME})"
_TAG = re.compile(
    rf"[<＜◁]\s*(?P<close>[/／])?\s*(?P<name>{_NAME})\b[^<>＜＞◁▷]{{0,160}}?\s*[>＞▷]"
    r"|[<＜]\s*[|｜](?P<control>[^<>＜＞]{0,60}?)[|｜]\s*[>＞]"
    r"|\[(?P<shut>/)?(?P<bracketed>(?-i:THINK))\]",  # Magistral
    re.IGNORECASE,
)
_BRACKETED = ("[THINK]", "[/THINK]")
_OPENS = "<＜◁["
# Control tokens that part a thought from the answer where a server hands them on as text (Cohere, OpenThinker, Apertus).
_BEGINS = {"start_thinking", "begin_of_thought", "think", "thinking", "inner_prefix"}
_ENDS = {"end_thinking", "end_of_thought", "/think", "/thinking", "inner_suffix"}
_CHANNELS = {"start", "channel", "message", "end", "return", "call"}  # gpt-oss
_LONGEST_TAG = 220


def parts_thought(token: str) -> bool:
    """Whether a token tells thoughts from the answer, so that ``Filter`` has to see it, control token or not."""
    match = _TAG.fullmatch(token)
    if match is None or match["control"] is None:
        return match is not None
    return match["control"].strip().lower() in _BEGINS | _ENDS | _CHANNELS


@dataclass
class Filter:
    """One generation's text on its way out.

    ``final_only``: nothing leaves but what stands between ``<final>`` and its end; text without tags counts as a thought.
    ``strip``: text outside thoughts leaves; from ``<final>`` on only that does. ``starts_hidden``: the prompt already opened
    the thought, as the chat templates of some reasoning models do.
    """

    mode: Mode = "strip"
    starts_hidden: bool = False

    def __post_init__(self) -> None:
        self._held = ""
        self._hidden: list[str] = []
        self._open = ["think"] if self.starts_hidden else []
        self._in_final = False
        self._channel: str | None = None  # gpt-oss: what stands before <|message|> and is no text
        self.saw_final = False
        self.stray_at = 0  # characters that had left when a thought ended that never began: they were that thought
        self._passed = 0
        self._opened = False
        self._done = False
        self._doubted = 0  # thoughts of one name that were open at the first end: the others may still end
        self._doubtful: list[str] = []

    @property
    def hidden(self) -> str:
        """Everything that was kept back, tags included; for a digest, and for nothing else."""
        return "".join(self._hidden)

    def feed(self, piece: str) -> str:
        """The part of the answer that is certain after this piece; often less than the piece, sometimes nothing."""
        text, self._held = self._held + piece, ""
        out: list[str] = []
        at = 0
        while at < len(text):
            start = _next_open(text, at)
            out.append(self._pass(text[at:start]))
            if start == len(text):
                break
            match = _TAG.match(text, start)
            if match is not None:
                self._turn(match)
                at = match.end()
            elif _may_become_tag(text[start:]):
                self._held = text[start:]
                break
            else:
                out.append(self._pass(text[start]))
                at = start + 1
        return "".join(out)

    def finish(self) -> str:
        """What was held back and turned out to be no tag; a tag that was cut off is no answer."""
        rest, self._held = self._held, ""
        if _begins_like_tag(rest):
            self._hidden.append(rest)
            rest = ""
        self._doubted = 0
        doubtful, self._doubtful = "".join(self._doubtful), []
        self._passed += len(doubtful)
        return doubtful + self._pass(rest)

    def _keep_doubtful(self) -> None:
        self._hidden += self._doubtful
        self._doubtful = []

    def _pass(self, text: str) -> str:
        if text and self._leaves():
            if self._doubted and not self._in_final:
                self._doubtful.append(text)
                return ""
            self._passed += len(text)
            return text
        if self._channel is not None:
            self._channel += text
        self._hidden.append(text)
        return ""

    def _leaves(self) -> bool:
        if self._open or self._done or self._channel is not None:
            return False
        return self._in_final or (self.mode == "strip" and not self.saw_final)

    def _turn(self, match: re.Match[str]) -> None:
        self._hidden.append(match.group())
        name = (match["name"] or match["bracketed"] or "").lower().replace("_", "-").replace(" ", "-")
        if not name:
            self._control((match["control"] or "").strip().lower())
        elif name.startswith("unused9"):  # MedGemma's two
            self._control("start_thinking" if name == "unused94" else "end_thinking")
        elif match["close"] is None and match["shut"] is None:
            self._open_tag(name)
        elif name in self._open:
            self._doubted += self._open.count(name) - 1
            del self._open[self._open.index(name) :]
        elif self._doubted and name not in _ANSWER:
            self._doubted -= 1
            self._keep_doubtful()
        elif name in _ANSWER and self._in_final and not self._open:
            self._in_final, self._done = False, True
        elif name not in _ANSWER:
            if not self._opened and not self.stray_at:  # later ones are words about a tag
                self.stray_at = self._passed
            self._opened = True

    def _control(self, word: str) -> None:
        """A control token, which is never text itself: most, such as <|im_end|>, say nothing here."""
        if word in _BEGINS:
            self._open.append("thinking")
        elif word in _ENDS or word in {"end", "return", "call"}:
            ended = "thinking" if word in _ENDS else "message"
            if ended in self._open:
                del self._open[self._open.index(ended) :]
        elif word in {"start", "channel"}:
            self._channel = "" if word == "channel" else "final"  # a turn without a channel is an answer
        elif word == "message" and self._channel is not None:
            if not self._channel.strip().lower().startswith("final"):
                self._open.append("message")
            self._channel = None

    def _open_tag(self, name: str) -> None:
        self._opened = True
        if name in _ANSWER:
            if not self._open:  # a thought that speaks of the tag is still a thought
                self._in_final = self.saw_final = True
                self._keep_doubtful()
        elif name in STAGES and self._open and self._open[-1] in STAGES:
            self._open[-1] = name  # stages follow each other: one that was not closed ends where the next begins
        else:
            self._open.append(name)


def _next_open(text: str, at: int) -> int:
    found = [where for each in _OPENS if (where := text.find(each, at)) >= 0]
    return min(found, default=len(text))


_PREFIX = re.compile(
    r"[<＜◁]\s*(?:[/／]?\s*(?:[a-z][^<>＜＞◁▷]*)?|[|｜][^<>＜＞]{0,60}[|｜]?\s*)",
    re.IGNORECASE,
)
_NAME_AND_MORE = re.compile(rf"(?:think(?:ing)?[-_][a-z0-9_]*|{_NAME})(?:\b[^<>＜＞◁▷]*)?")
_BLANKS_OF_NAMES = str.maketrans("- ", "__")
_OPENING = re.compile(r"^[<＜◁]\s*[/／]?\s*")


def _may_become_tag(text: str) -> bool:
    """Whether more text could make a tag of this beginning; words that no tag begins with are let go at once."""
    if text[0] == "[":
        return any(each.startswith(text) for each in _BRACKETED)
    if len(text) > _LONGEST_TAG or _PREFIX.fullmatch(text) is None:
        return False
    word = _OPENING.sub("", text).lower()
    return not word or word[0] in "|｜" or _begins_like_tag(text)


def _begins_like_tag(text: str) -> bool:
    if not text or text[0] not in _OPENS:
        return False
    if text[0] == "[":
        return len(text) > 1
    word = _OPENING.sub("", text).lower()
    if not word or word[0] in "|｜":
        return bool(word)
    begun = word.translate(_BLANKS_OF_NAMES)
    return any(each.startswith(begun) for each in _WORDS) or _NAME_AND_MORE.fullmatch(word) is not None


def final_of(text: str, *, mode: Mode = "final_only", starts_hidden: bool = False) -> tuple[str | None, str]:
    """A whole generation at once: ``(answer, hidden)``; the answer is None where ``final_only`` found none."""
    found = Filter(mode, starts_hidden=starts_hidden)
    answer = (found.feed(text) + found.finish()).strip()
    if found.stray_at and not starts_hidden:
        return final_of(text, mode=mode, starts_hidden=True)
    missing = mode == "final_only" and not found.saw_final
    return (None if missing else answer), found.hidden
