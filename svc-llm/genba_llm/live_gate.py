"""Which classifier the gate asks: the registry's champion, or the one that ships as long as nobody has trained another.

Promotion and rollback move one alias; this follows it, loads aside, asks it once, and hands classifier and fusion to the gate
as one pair. A version that does not load leaves the one before deciding, and shows in readiness.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from genba_llm.classifier import Classifier, champion
from genba_llm.fusion import Fusion, default_fusion, load_fusion, signals_of
from genba_llm.gate import Gate
from genba_llm.normalise import normalise
from genba_shared.live import Live, Loaded
from genba_shared.registry import Registry, Version

MODEL: Final = "llm.gate_classifier"
Pair = tuple[Classifier, Fusion]


def load_pair(folder: Path, version: Version) -> Pair:
    """What a bundle holds. Raises: ValueError (BadClassifier) for one that is none."""
    return Classifier.load(folder, version=f"gate@{version.number}"), load_fusion(folder)


def try_out(pair: Pair) -> None:
    """Ask it once, so that one that cannot decide never gets to."""
    classifier, fusion = pair
    fusion.decide(signals_of(normalise("Is this model well? 正常ですか。"), classifier))


class LiveGate:
    """Keeps a gate at the champion."""

    def __init__(self, gate: Gate, registry: Registry, *, cache: Path, refresh_s: float) -> None:
        self._gate = gate
        self._live: Live[Pair] = Live(registry, MODEL, load_pair, cache=cache, refresh_s=refresh_s, warm_up=try_out)
        self._in_use: Loaded[Pair] | None = None

    def follow(self) -> None:
        """Look where the champion is, and let the gate ask that one."""
        self._live.refresh()
        loaded = self._live.current
        if loaded is not self._in_use:
            classifier, fusion = loaded.value if loaded else (champion(), default_fusion())
            self._gate.use(classifier, fusion)
            self._in_use = loaded

    def unwell(self) -> str | None:
        """For readiness: what keeps it from following."""
        return self._live.unwell()
