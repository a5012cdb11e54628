"""Write an answer to what was allowed, and let nothing of it leave that was not looked at.

Pieces of the model pass two filters: thoughts are kept in (``thinking``), and text is held back until the gate has seen the
sentence that it belongs to. The answer is put on record when it ends, however it ends. Knows no route.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from genba_llm.decisions import Asked, Decisions, Recorded
from genba_llm.gate import Asker, Decision, GateRequest
from genba_llm.generation import (
    Backend,
    BackendFailed,
    BackendUnreachable,
    Finish,
    Message,
    Options,
    Piece,
    PromptTooLong,
    Task,
    TokenLogprob,
    Usage,
)
from genba_llm.library import Library
from genba_llm.live_model import Speakers
from genba_llm.normalise import language_of, neutralise_tags
from genba_llm.retrieval import Passage
from genba_llm.thinking import Filter, Mode
from genba_shared.principal import Principal
from genba_shared.problems import Overloaded, Problem
from genba_shared.telemetry import get_logger

log = get_logger(__name__)
_SENTENCE_ENDS = re.compile(r"[。！？!?\n]|\.(?=\s)")
_HELD_CHARS = 240  # a text without sentences is looked at every so often
_TAIL_CHARS = 64  # and its end waits: a number that is cut in two looks harmless twice
_WINDOW_CHARS = 2000
_NOTHING_SAID = {
    "en": "The model ended before it came to an answer.",
    "ja": "モデルは答えに至る前に終わりました。",
}


@dataclass(frozen=True)
class Released:
    """Text that may leave."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass
class Written:
    """How an answer came out; complete once its pieces are through."""

    finish: Finish = "stop"
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    text: str = ""
    cut_by: Decision | None = None
    answered: bool = True  # False: the model thought and never came to an answer
    thought_chars: int = 0  # of what was released first: a thought that the prompt had opened, as only its end told
    audit_seq: int | None = None


@dataclass(frozen=True)
class Assistant:
    """Those who write, behind the gate."""

    speakers: Speakers
    decisions: Decisions
    library: Library
    turns: threading.Semaphore

    def passages(self, principal: Principal, question: str) -> list[Passage]:
        """What the caller's documents say to a question."""
        found = self.library.search(principal, question, limit=self.decisions.settings.passages)
        return self.speakers.needed(question, found)

    def answer(
        self,
        principal: Principal,
        recorded: Recorded,
        messages: Sequence[Message],
        options: Options,
        *,
        mode: Mode,
        passages: Sequence[Passage] = (),
        asked: Asked,
        backend: Backend,
    ) -> tuple[Iterator[Released], Written]:
        """Begin to answer what ``recorded`` allowed with ``backend``: the first piece is there when this returns.

        Raises: BackendUnreachable or BackendFailed, with the decision that a person has to look; PromptTooLong; Overloaded.
        """
        if not self.turns.acquire(blocking=False):
            raise Overloaded("Too many answers are being written.", retry_after_s=2)
        written = Written()
        task = Task(_plain(messages), options, [_plain_passage(each) for each in passages])
        released = self._released(principal, recorded, task, written, mode, asked, backend)
        try:
            first = next(released, None)
        except (BackendUnreachable, BackendFailed) as problem:
            raise self._escalated(principal, asked, problem) from problem
        return _with_first(first, released), written

    def _escalated(self, principal: Principal, asked: Asked, problem: Problem) -> Problem:
        """The same problem, that says which decision stands for it."""
        kind = "backend_unreachable" if isinstance(problem, BackendUnreachable) else "backend_failed"
        self.decisions.metrics.backend_failures.labels(kind).inc()
        recorded = self.decisions.escalate(principal, asked, kind)
        return type(problem)(
            f"{problem.detail} A person has been asked instead.",
            headers=problem.headers,
            decision="ESCALATE",
            decision_id=recorded.id,
            reason=kind,
        )

    def _released(
        self,
        principal: Principal,
        recorded: Recorded,
        task: Task,
        written: Written,
        mode: Mode,
        asked: Asked,
        backend: Backend,
    ) -> Iterator[Released]:
        began = time.perf_counter()
        thoughts = Filter(mode, starts_hidden=backend.starts_hidden)
        held = _Held(self, principal, asked)
        pieces: Iterator[Piece] | None = None
        failed: str | None = None
        try:
            pieces = backend.generate(task)
            for piece in pieces:
                if began:
                    self.decisions.metrics.first_piece_seconds.observe(time.perf_counter() - began)
                    began = 0.0
                passed = thoughts.feed(piece.text)
                yield from held.take(passed, piece.logprobs if passed == piece.text else ())
                written.finish = piece.finish or written.finish
                written.usage = piece.usage or written.usage
            yield from held.take(thoughts.finish(), ())
            yield from held.rest()
            if mode == "strip":
                yield from held.silence(thoughts.stray_at, asked.text)
        except _Cut as cut:
            written.finish, written.cut_by = "content_filter", cut.decision
            self.decisions.metrics.cut_answers.labels(cut.decision.label).inc()
        except (BackendUnreachable, BackendFailed):
            failed = "backend_broke_off"
            raise
        except PromptTooLong:
            failed = "prompt_too_long"
            raise
        except Exception:
            failed = "failed"
            raise
        except GeneratorExit:
            failed = "caller_left"
            raise
        finally:
            self.turns.release()
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
            written.thought_chars = at = min(thoughts.stray_at, len(held.said))
            written.text = held.said[at:].lstrip() if at else held.said
            written.answered = mode == "strip" or thoughts.saw_final
            self._note(principal, recorded, written, held.said[:at] + thoughts.hidden, failed, model=backend.model)

    def _note(
        self, principal: Principal, recorded: Recorded, written: Written, hidden: str, failed: str | None, *, model: str
    ) -> None:
        if written.thought_chars:
            log.warning("thought_without_beginning", model=model, setting="GENBA_LLM_BACKEND_STARTS_HIDDEN")
        metrics = self.decisions.metrics
        metrics.answers.labels(failed or written.finish).inc()
        metrics.tokens.labels("prompt").inc(written.usage.prompt)
        metrics.tokens.labels("completion").inc(written.usage.completion)
        if failed == "backend_broke_off" and not written.text:
            return  # nothing was said: the escalation that follows is the record
        facts: dict[str, JsonValue] = {
            "model": model,
            "finish": failed or written.finish,
            "cut_by": written.cut_by.name if written.cut_by is not None else None,
            "prompt_tokens": written.usage.prompt,
            "completion_tokens": written.usage.completion,
            **({"unopened_thought_chars": written.thought_chars} if written.thought_chars else {}),
        }
        if (
            failed == "caller_left"
        ):  # nobody waits for it, and it may be the writer itself that collects this as garbage
            self.decisions.hand_in_answer(principal, recorded, answer=written.text, hidden=hidden, facts=facts)
            return
        entry = self.decisions.note_answer(principal, recorded, answer=written.text, hidden=hidden, facts=facts)
        written.audit_seq = entry.seq


class _Cut(Exception):
    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.name)
        self.decision = decision


class _Held:
    """Text on its way out, sentence by sentence past the gate."""

    def __init__(self, assistant: Assistant, principal: Principal, asked: Asked) -> None:
        self._assistant, self._principal, self._asked = assistant, principal, asked
        self._waiting = ""
        self._logprobs: list[TokenLogprob] = []
        self._exact = True
        self.said = ""

    def take(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> Iterator[Released]:
        if not text:
            return
        self._waiting += text
        self._exact = self._exact and bool(logprobs)
        self._logprobs += logprobs
        end = max((match.end() for match in _SENTENCE_ENDS.finditer(self._waiting)), default=0)
        if end == len(self._waiting) or (end and not self._logprobs):
            yield self._let_go(end, seen=end)
        elif len(self._waiting) > _HELD_CHARS and (at := self._token_end(len(self._waiting) - _TAIL_CHARS)):
            yield self._let_go(at, seen=len(self._waiting))

    def rest(self) -> Iterator[Released]:
        if self._waiting:
            yield self._let_go(len(self._waiting), seen=len(self._waiting))

    def silence(self, at: int, question: str) -> Iterator[Released]:
        """A word where the model only thought, its first ``at`` characters included: somebody waits for one."""
        if not self.said[at:].strip():
            word = _NOTHING_SAID[language_of(question)]
            self.said = self.said[:at] + word
            yield Released(word)

    def _token_end(self, at: int) -> int:
        """The end of the last token that ends by ``at``, where tokens count."""
        if not (self._exact and self._logprobs):
            return at
        ends = itertools.accumulate(len(each.token) for each in self._logprobs)
        return max((end for end in ends if end <= at), default=0)

    def _let_go(self, end: int, *, seen: int) -> Released:
        """What waits up to ``end``, once the gate has looked at it and at what follows up to ``seen``."""
        text, rest = self._waiting[:end], self._waiting[end:]
        self._look(f"{self.said}{self._waiting[:seen]}"[-_WINDOW_CHARS:])
        logprobs = self._logprobs
        if self._exact:
            ends = itertools.accumulate(len(each.token) for each in logprobs)
            count = sum(each <= end for each in ends)
            logprobs, self._logprobs = logprobs[:count], logprobs[count:]
        released = Released(text, tuple(logprobs) if self._exact else ())
        self.said += text
        self._waiting = rest
        if not rest:
            self._logprobs, self._exact = [], True
        return released

    def _look(self, text: str) -> None:
        """Raises: _Cut for a text that may not leave."""
        asker = Asker(self._principal.clearance, self._principal.roles, self._principal.compartments)
        request = GateRequest(text, self._asked.domain, self._asked.classification, self._asked.action, asker)
        verdict = self._assistant.decisions.gate.decide(request)
        if verdict.keeps_in:
            raise _Cut(verdict.decision)


def _plain(messages: Sequence[Message]) -> list[Message]:
    """Special tags that a user wrote are no control to the model."""
    return [Message(each.role, neutralise_tags(each.content)[0]) for each in messages]


def _plain_passage(passage: Passage) -> Passage:
    """Nor are those that somebody wrote into a document."""
    text, title = neutralise_tags(passage.text)[0], neutralise_tags(passage.title)[0]
    return replace(passage, text=text, title=title)


def _with_first(first: Released | None, rest: Iterator[Released]) -> Iterator[Released]:
    if first is not None:
        yield first
        yield from rest


def whole(released: Iterator[Released], written: Written) -> tuple[str, list[TokenLogprob]]:
    """All of an answer that nobody reads as it comes, without the thought that only its end gave away."""
    found = list(released)
    if written.thought_chars:
        return written.text, []
    exact = all(each.logprobs for each in found)
    return "".join(each.text for each in found), [one for each in found for one in each.logprobs] if exact else []
