"""Who writes the answers in embedded mode: the champion of ``llm.so8t`` or the small model that ships, and sentences of documents.

The champion is followed as the gate's is: promotion and rollback move one alias, the model is loaded aside, asked once, and
swapped by one assignment. Until there is one, the model that ships answers what no document does. Where documents have
something to say and nobody chose otherwise, their sentences answer: a model that was made from nothing reads them worse.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Protocol

from genba_llm.backend_extractive import Extractive
from genba_llm.backend_process import ProcessModel
from genba_llm.backend_small import SmallModel, check_small
from genba_llm.byte_bpe import NoByteBpe
from genba_llm.generation import Backend, Feature, Message, Options, Piece, Task, Usage
from genba_llm.normalise import language_of
from genba_llm.policy import Policy
from genba_llm.retrieval import SPEAKS_FROM, Passage, coverage
from genba_llm.sft_rows import given_passages, system_text
from genba_llm.small_phi3 import NotSmall
from genba_llm.so8t_bundle import MODEL as WEIGHTS
from genba_llm.so8t_bundle import describe, temperature_of
from genba_llm.synthesise import not_known, thought_begun, topic_of
from genba_llm.topics import NONE, TOPICS, Topics
from genba_shared.live import Live
from genba_shared.readiness import Degraded
from genba_shared.registry import Registry, Version

MODEL: Final = "llm.so8t"
OWN_MODEL: Final = Path(__file__).parent / "own_model"
OWN_NAME: Final = "genba-small-1"
TASK_END: Final = "</think-task>"
POLICY_END: Final = "</think-policy>"
_TOO_LONG: Final = {
    "en": "This is longer than I can read. Ask in fewer words, or have a larger language model set up.",
    "ja": "読み取れる長さを超えています。短くしてお尋ねいただくか、より大きな言語モデルを設定してください。",
}
DocumentsBy = Literal["sentences", "model"]
OwnModel = Literal["answers", "off"]


class Speakers(Protocol):
    """Who may write an answer. A request asks once and keeps whom it got."""

    def choose(self, *, documents: bool) -> Backend:
        """The backend for an answer that rests on documents, or on none."""
        ...

    def needed(self, question: str, passages: list[Passage]) -> list[Passage]:
        """The passages that the answer should rest on: all, or none where they do not speak to the question."""
        ...

    def all(self) -> list[Backend]:
        """Everyone who may be chosen, the one without documents first."""
        ...

    def follow(self) -> None:
        """Look whether somebody else is to write."""
        ...

    def unwell(self) -> str | None:
        """For readiness."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Always:
    """One backend for everything: a server, or a folder that the settings name."""

    backend: Backend

    def choose(self, *, documents: bool) -> Backend:  # noqa: ARG002 - there is no choice
        return self.backend

    def needed(self, question: str, passages: list[Passage]) -> list[Passage]:  # noqa: ARG002 - a model judges itself
        return passages

    def all(self) -> list[Backend]:
        return [self.backend]

    def follow(self) -> None:
        """It stays."""

    def unwell(self) -> str | None:
        return self.backend.check()

    def close(self) -> None:
        self.backend.close()


class ChampionModel:
    """A bundle's model as a backend: told who it is and by which policy, in the words that its rows were written in."""

    def __init__(
        self,
        inner: Backend,
        told: Callable[[str], str],
        *,
        thinks: bool,
        reads: bool = False,
        sure_from: float = 0.0,
        topics: Topics | None = None,
        topic_from: float = 1.0,
        speaks_of: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """``told``: what the system turn says, for a question.   ``thinks``: its rows carried their thinking.
        ``reads``: its rows carried numbered passages after the question.   ``sure_from``: how likely its thought on the task
        must be for its answer to leave; below, or where it would not answer, it says that it does not know.
        ``topics``: who reads the question beside it. From ``topic_from`` on the model is told the topic, as the beginning of its
        thought; below, it may speak of a piece of work only if both read the same one.   ``speaks_of``: by language, the topics of
        which it says what is known; None for all.
        """
        self.inner, self.told, self.thinks, self.reads, self.sure_from = inner, told, thinks, reads, sure_from
        self.topics, self.topic_from, self.speaks_of = topics, topic_from, speaks_of
        self.model = inner.model
        self.features: frozenset[Feature] = inner.features
        self.starts_hidden = inner.starts_hidden

    def generate(self, task: Task) -> Iterator[Piece]:
        """See the seam."""
        asked = self.as_trained(task)
        if isinstance(self.inner, SmallModel):
            asked = replace(asked, messages=_alone(asked.messages))
            if self.inner.longest - len(self.inner.prompt(asked)) < self.inner.longest // 8:
                return self._too_long(task)
        if self.topics is None or asked.passages or task.passages or not task.question:
            return (
                self._if_sure(asked, task, _Thought(self.sure_from)) if self.sure_from else self.inner.generate(asked)
            )
        topic, probability = self.read(task.question)
        if topic and probability >= self.topic_from:
            begun = thought_begun(topic, language_of(task.question))
            return self._if_sure(replace(asked, begun=begun), task, _Thought(0.0, topic))
        return self._if_sure(asked, task, _Thought(self.sure_from, topic))

    def _too_long(self, task: Task) -> Iterator[Piece]:
        yield Piece(f"<final>{_TOO_LONG[language_of(task.question)]}</final>")
        yield Piece(finish="stop", usage=Usage(0, 0))

    def read(self, question: str) -> tuple[str, float]:
        """The topic of a question of which the model can speak, ``NONE`` for any other, and how likely it is."""
        if self.topics is None:
            return NONE, 0.0
        topic, probability = self.topics.best(question)
        known = self.speaks_of is None or topic in self.speaks_of[language_of(question)]
        return (topic if known else NONE), probability

    def _if_sure(self, asked: Task, task: Task, thought: _Thought) -> Iterator[Piece]:
        """The generation, cut short by a plain word where the model guesses, or would refuse what the gate allowed."""
        told = replace(asked, options=replace(asked.options, logprobs=True))
        spent, doubts = 0, False
        if asked.begun:
            yield Piece(asked.begun)
            thought.doubts_after(Piece(asked.begun))
        with contextlib.closing(_generator(self.inner.generate(told))) as pieces:
            for piece in pieces:
                yield piece if task.options.logprobs else replace(piece, logprobs=())
                spent += len(piece.logprobs)
                if doubts := thought.doubts_after(piece):
                    break
        if not doubts:
            return
        yield Piece(f"<final>{not_known(language_of(task.question))}</final>")
        usage = Usage(len(self.inner.prompt(told)), spent) if isinstance(self.inner, SmallModel) else None
        yield Piece(finish="stop", usage=usage)

    def as_trained(self, task: Task) -> Task:
        """The task as its rows would put it. A model that learnt to think is not asked to: its rows never were."""
        told = Message("system", self.told(task.question))
        options = replace(task.options, think=False) if self.thinks else task.options
        messages, passages = list(task.messages), task.passages
        if self.reads and passages and messages and messages[-1].role == "user":
            question = messages[-1].content
            messages[-1] = Message("user", f"{question}\n{given_passages(passages)}")
            passages = ()
        return replace(task, messages=[told, *messages], options=options, passages=passages)

    def check(self) -> str | None:
        return self.inner.check()

    def close(self) -> None:
        self.inner.close()


def _alone(messages: Sequence[Message]) -> list[Message]:
    """Who it is, and the last question: a small model learnt from single questions, and of a conversation makes nonsense."""
    last = max((at for at, each in enumerate(messages) if each.role == "user"), default=1)
    return [messages[0], *messages[max(1, last) :]]


class _Thought:
    """A thought as it comes: whether the model guesses what it is asked about, or would not answer what the gate allowed.

    It may not refuse on its own: it is no judge, and would name a person whom nobody asked.
    """

    def __init__(self, sure_from: float, topic: str | None = None) -> None:
        """``topic``: the piece of work that alone may be thought of, empty for none; None where nobody else has read it."""
        self._sure_from, self._topic = sure_from, topic
        self._text, self._logprob, self._over = "", 0.0, False

    def doubts_after(self, piece: Piece) -> bool:
        if self._over:
            return False
        if TASK_END not in self._text:
            self._logprob += sum(each.logprob for each in piece.logprobs)
        self._text += piece.text
        self._over = POLICY_END in self._text
        if TASK_END not in self._text:
            return False
        guesses = math.exp(self._logprob) < self._sure_from or self._topic not in {
            None,
            topic_of(self._text) or self._topic,
        }
        return guesses or (self._over and "<think-policy>ALLOW" not in self._text)


def _generator(pieces: Iterator[Piece]) -> Generator[Piece]:
    """The same pieces, so that leaving them leaves the model."""
    try:
        yield from pieces
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def standing(policy: Policy, question: str) -> str:
    """The identity and the policy in force, as rows of training carry them."""
    role = policy.identity.role
    return system_text(role.ja if language_of(question) == "ja" else role.en, policy.state.reference)


def load_champion(folder: Path, version: Version, policy: Policy) -> ChampionModel:
    """A bundle of ``llm.so8t``. Raises: ValueError for one that is none; ImportError without what it needs to run."""
    return load_bundle(folder, f"{MODEL}@{version.number}", policy, calibration=temperature_of(folder))


def load_bundle(folder: Path, name: str, policy: Policy, *, calibration: float = 1.0) -> ChampionModel:
    """A bundle's model: a small one on NumPy, any other on transformers in a process of its own."""
    return _as_trained(folder, _inner(folder / WEIGHTS, name, calibration), policy)


def load_own(policy: Policy) -> ChampionModel:
    """The model that ships; its weights are read once in a process."""
    return _as_trained(OWN_MODEL, _own_inner(), policy)


@functools.cache
def _own_inner() -> Backend:
    return _inner(OWN_MODEL / WEIGHTS, OWN_NAME, 1.0)


def _as_trained(folder: Path, inner: Backend, policy: Policy) -> ChampionModel:
    document, topics = describe(folder), folder / TOPICS
    return ChampionModel(
        inner,
        lambda question: standing(policy, question),
        thinks=bool(document.get("thinks")),
        reads=bool(document.get("reads")),
        sure_from=float(document.get("sure_from", 0.0)),
        topics=Topics.load(topics) if topics.is_file() and isinstance(inner, SmallModel) else None,
        topic_from=float(document.get("topic_from", 1.0)),
        speaks_of=document.get("speaks_of"),
    )


def _inner(folder: Path, name: str, calibration: float) -> Backend:
    try:
        check_small(folder)
    except (NotSmall, NoByteBpe):
        return ProcessModel(folder, name=name, calibration=calibration)
    return SmallModel(folder, name=name, calibration=calibration)


def try_out(model: ChampionModel) -> None:
    """Let it write a little, so that one that cannot never gets to."""
    task = Task([Message("user", "こんにちは")], Options(max_tokens=4, temperature=0.0))
    if not [piece for piece in model.generate(task) if piece.finish]:
        raise ValueError("The model writes nothing.")


class LiveModel:
    """Follows the champion of ``llm.so8t``."""

    def __init__(
        self,
        registry: Registry,
        policy: Policy,
        *,
        cache: Path,
        refresh_s: float,
        documents_by: DocumentsBy,
        own_model: OwnModel = "answers",
    ) -> None:
        self._sentences = Extractive()
        self._own = load_own(policy) if own_model == "answers" else None
        self._documents_by = documents_by
        self._live: Live[ChampionModel] = Live(
            registry,
            MODEL,
            lambda folder, version: load_champion(folder, version, policy),
            cache=cache,
            refresh_s=refresh_s,
            warm_up=try_out,
        )

    def follow(self) -> None:
        """Look where the champion is."""
        self._live.refresh()

    def choose(self, *, documents: bool) -> Backend:
        """See the seam."""
        model = self._model
        if model is None or (documents and self._documents_by == "sentences"):
            return self._sentences
        return model

    @property
    def _model(self) -> ChampionModel | None:
        loaded = self._live.current
        return loaded.value if loaded is not None else self._own

    def needed(self, question: str, passages: list[Passage]) -> list[Passage]:
        """See the seam. Sentences of passages that do not speak to the question would be no answer; the model has one."""
        by_sentences = self._model is None or self._documents_by == "model"
        return passages if by_sentences or coverage(question, passages) >= SPEAKS_FROM else []

    def all(self) -> list[Backend]:
        """See the seam."""
        found = [self.choose(documents=False), self.choose(documents=True)]
        return found[:1] if found[0] is found[1] else found

    def unwell(self) -> str | None:
        """Degraded, not down: sentences of documents are always there."""
        reason = self._live.unwell()
        return None if reason is None else Degraded(reason)

    def close(self) -> None:
        """Nothing is held open."""
