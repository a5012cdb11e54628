"""Who writes the answers in embedded mode: the champion of ``llm.so8t``, and sentences of documents.

The champion is followed as the gate's is: promotion and rollback move one alias, the model is loaded aside, asked once, and
swapped by one assignment. Where there is no champion, or where documents have something to say and nobody chose otherwise,
sentences of documents answer: a model that was made from nothing cannot read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from genba_llm.backend_extractive import Extractive
from genba_llm.generation import Backend, Feature, Message, Options, Piece, Task
from genba_llm.normalise import language_of
from genba_llm.policy import Policy
from genba_llm.sft_rows import system_text
from genba_shared.live import Live
from genba_shared.registry import Registry, Version
from genba_shared.service import Degraded

if TYPE_CHECKING:
    from genba_llm.backend_transformers import TransformersModel

MODEL: Final = "llm.so8t"
DocumentsBy = Literal["sentences", "model"]


class Speakers(Protocol):
    """Who may write an answer. A request asks once and keeps whom it got."""

    def choose(self, *, documents: bool) -> Backend:
        """The backend for an answer that rests on documents, or on none."""
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

    def __init__(self, inner: TransformersModel, told: Callable[[str], str], *, thinks: bool) -> None:
        """``told``: what the system turn says, for a question.   ``thinks``: its rows carried their thinking."""
        self.inner, self.told, self.thinks = inner, told, thinks
        self.model = inner.model
        self.features: frozenset[Feature] = inner.features
        self.starts_hidden = inner.starts_hidden

    def generate(self, task: Task) -> Iterator[Piece]:
        """See the seam."""
        return self.inner.generate(self.as_trained(task))

    def as_trained(self, task: Task) -> Task:
        """The task as its rows would put it. A model that learnt to think is not asked to: its rows never were."""
        told = Message("system", self.told(task.question))
        options = replace(task.options, think=False) if self.thinks else task.options
        return replace(task, messages=[told, *task.messages], options=options)

    def check(self) -> str | None:
        return self.inner.check()

    def close(self) -> None:
        self.inner.close()


def standing(policy: Policy, question: str) -> str:
    """The identity and the policy in force, as rows of training carry them."""
    role = policy.identity.role
    return system_text(role.ja if language_of(question) == "ja" else role.en, policy.state.reference)


def load_champion(folder: Path, version: Version, policy: Policy) -> ChampionModel:
    """A bundle of ``llm.so8t``. Raises: ValueError for one that is none; ImportError without torch and transformers."""
    from genba_llm.backend_transformers import TransformersModel
    from genba_llm.calibration import temperature_of
    from genba_llm.finish import BUNDLE
    from genba_llm.finish import MODEL as WEIGHTS

    document = json.loads((folder / BUNDLE).read_text("utf-8"))
    name, calibration = f"{MODEL}@{version.number}", temperature_of(folder)
    inner = TransformersModel(folder / WEIGHTS, name=name, calibration=calibration)
    return ChampionModel(inner, lambda question: standing(policy, question), thinks=bool(document.get("thinks")))


def try_out(model: ChampionModel) -> None:
    """Let it write a little, so that one that cannot never gets to."""
    task = Task([Message("user", "こんにちは")], Options(max_tokens=4, temperature=0.0))
    if not [piece for piece in model.generate(task) if piece.finish]:
        raise ValueError("The model writes nothing.")


class LiveModel:
    """Follows the champion of ``llm.so8t``."""

    def __init__(
        self, registry: Registry, policy: Policy, *, cache: Path, refresh_s: float, documents_by: DocumentsBy
    ) -> None:
        self._sentences = Extractive()
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
        loaded = self._live.current
        if loaded is None or (documents and self._documents_by == "sentences"):
            return self._sentences
        return loaded.value

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
