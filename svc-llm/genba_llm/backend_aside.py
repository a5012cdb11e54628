"""A model that is loaded beside the work: until it is there, whoever asks is told so at once, and so is readiness.

Some gigabytes take minutes to read. A service that waited for them at its start would answer no probe, and the gate, which
needs no such model, would decide nothing. What does not load is tried again, in case the disk or the memory comes back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from genba_llm.generation import Backend, BackendUnreachable, Feature, Piece, Task
from genba_shared.telemetry import get_logger

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from genba_llm.backend_transformers import TransformersModel
    from genba_llm.verdict import Action, Domain

log = get_logger(__name__)
B = TypeVar("B", bound=Backend)
_RETRY_FIRST_S, _RETRY_CAP_S = 1.0, 60.0


class Aside(Generic[B]):
    """A backend before and after its model is loaded, by a thread of its own."""

    features: frozenset[Feature] = frozenset({"logprobs"})

    def __init__(self, load: Callable[[], B], *, model: str, starts_hidden: bool = False) -> None:
        """``load`` may take its time and may raise. ``model``, ``starts_hidden``: what it will say of itself."""
        self.model, self.starts_hidden = model, starts_hidden
        self._load = load
        self._loaded: B | None = None
        self._failed = ""
        self._began_s = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._try, name="llm-load", daemon=True)
        self._thread.start()

    @property
    def loaded(self) -> B:
        """What was loaded. Raises: BackendUnreachable while there is nothing, with the reason."""
        if self._loaded is None:
            raise BackendUnreachable(f"The language model {self.check()}.", retry_after_s=5)
        return self._loaded

    def generate(self, task: Task) -> Iterator[Piece]:
        """See the seam."""
        return self.loaded.generate(task)

    def check(self) -> str | None:
        """See the seam."""
        if self._loaded is not None:
            return self._loaded.check()
        return self._failed or f"is being loaded, for {time.monotonic() - self._began_s:.0f} s so far"

    def close(self) -> None:
        """End the model; one that is still being loaded ends as soon as it is."""
        self._over.set()
        if self._loaded is not None:
            self._loaded.close()

    def _try(self) -> None:
        wait_s = _RETRY_FIRST_S
        while not self._over.is_set():
            try:
                self._loaded = self._load()
            except Exception as error:  # whatever it is, readiness says it and it is tried again
                self._failed = f"does not load: {str(error)[:300]}"
                log.warning("backend_load_failed", model=self.model, exc_info=error)
                self._over.wait(wait_s)
                wait_s = min(_RETRY_CAP_S, 2 * wait_s)
                continue
            log.info("backend_loaded", model=self.model, load_ms=round(1000 * (time.monotonic() - self._began_s)))
            if self._over.is_set():
                self._loaded.close()
            return


class AsideReasoner:
    """The judge of a model that is loaded aside. Until it is there the gate finds that a stage fails, so a person looks."""

    def __init__(self, aside: Aside[TransformersModel]) -> None:
        self._aside = aside
        self.version = f"one-forward:{aside.model}"

    def probs(self, text: str, *, domain: Domain, action: Action) -> npt.NDArray[np.float64]:
        """See the gate's seam. Raises: BackendUnreachable while it is being loaded."""
        return self._aside.loaded.as_reasoner().probs(text, domain=domain, action=action)
