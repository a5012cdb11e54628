"""Stage 5: the stages' numbers become one calibrated answer, or an honest "a person should look".

A stacked logistic over what the classifier says of the text, of its worst hidden reading and of its worst sentence (and
the language model's scores where there is one), a temperature, and a split-conformal bound: ALLOW is only said where
the calibration rows leave at most ``alpha`` of the dangerous ones below the same threshold.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genba_llm.classifier import CHAMPION, Classifier, softmax
from genba_llm.normalise import Normalised
from genba_llm.verdict import Decision

FUSION = "fusion.json"
MAX_SENTENCES = 12
SENTENCE_ALLOW_FROM = 0.6  # chosen on development sets: padded danger against long harmless texts
INPUTS = 12


@dataclass(frozen=True)
class Signals:
    """What the stages say of one text, (4,) each: of the plain text, of the worst hidden reading, of the worst sentence.

    ``reasoned`` is the language model's; None where there is none.
    """

    plain: npt.NDArray[np.float64]
    view: npt.NDArray[np.float64]
    sentence: npt.NDArray[np.float64]
    reasoned: npt.NDArray[np.float64] | None = None

    @property
    def classifier_probs(self) -> npt.NDArray[np.float64]:
        """(4,) the classifier's own answer: that of the reading in which the text looks worst."""
        return softmax(max((self.plain, self.view), key=lambda logits: -_log_allow(logits)))


@dataclass(frozen=True)
class Fused:
    """``probs``: (4,) calibrated. ``abstained`` is True where ALLOW led but was not certain enough."""

    probs: npt.NDArray[np.float64]
    decision: Decision
    abstained: bool


@dataclass(frozen=True)
class Fusion:
    """``weights``: (12, 4) over the signals' logits; identity on the worst reading until it is fitted.

    ``allow_from``: the least P(ALLOW) that is answered. ``alpha``: the share of dangerous requests that may lie above it.
    """

    weights: npt.NDArray[np.float64] | None = None
    bias: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    temperature: float = 1.0
    allow_from: float = 0.5
    alpha: float = 0.1
    reasoner_weight: float = 0.5
    version: str = "unfused"

    def logits(self, signals: Signals) -> npt.NDArray[np.float64]:
        """(4,) before the temperature."""
        if self.weights is None:
            return np.log(signals.classifier_probs)
        return inputs_of(signals) @ self.weights + self.bias

    def decide(self, signals: Signals) -> Fused:
        probs = softmax(self.logits(signals) / self.temperature)
        if signals.reasoned is not None:
            mixed = (1 - self.reasoner_weight) * np.log(probs) + self.reasoner_weight * np.log(signals.reasoned + 1e-9)
            probs = softmax(mixed)
        alone = self._sentence_alone(signals)
        if alone[Decision.ALLOW] < min(SENTENCE_ALLOW_FROM, probs[Decision.ALLOW]):
            probs = alone
        best = Decision(int(probs.argmax()))
        allowed = probs[Decision.ALLOW] >= self.allow_from
        if best is Decision.ALLOW and not allowed:
            return Fused(probs, Decision.ESCALATE, abstained=True)
        return Fused(probs, Decision.ALLOW if allowed else best, abstained=False)

    def _sentence_alone(self, signals: Signals) -> npt.NDArray[np.float64]:
        """What the worst sentence would get as a text of its own: harmless sentences around it buy it nothing."""
        alone = Signals(signals.sentence, signals.sentence, signals.sentence)
        return softmax(self.logits(alone) / self.temperature)

    def to_json(self) -> dict[str, Any]:
        weights = None if self.weights is None else self.weights.round(6).tolist()
        numbers = {name: getattr(self, name) for name in ("temperature", "allow_from", "alpha", "reasoner_weight")}
        return {"version": self.version, "weights": weights, "bias": self.bias.round(6).tolist(), **numbers}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Fusion:
        """Raises: KeyError, TypeError or ValueError for what ``to_json`` did not write."""
        weights = None if found["weights"] is None else np.array(found["weights"], np.float64).reshape(INPUTS, 4)
        numbers = {name: float(found[name]) for name in ("temperature", "allow_from", "alpha", "reasoner_weight")}
        return cls(weights, np.array(found["bias"], np.float64).reshape(4), version=str(found["version"]), **numbers)


@functools.cache
def default_fusion() -> Fusion:
    """The fusion that ships with the champion."""
    return load_fusion(CHAMPION)


def load_fusion(folder: Path) -> Fusion:
    """The fusion in a classifier's bundle; an unfitted one where there is none."""
    path = folder / FUSION
    return Fusion.from_json(json.loads(path.read_text("utf-8"))) if path.exists() else Fusion()


def signals_of(plain: Normalised, classifier: Classifier) -> Signals:
    """Score a text, its hidden readings and its sentences."""
    whole = classifier.logits(plain.text)
    views = [classifier.logits(view.text) for view in plain.views]
    sentences = (
        [classifier.logits(each) for each in plain.sentences[:MAX_SENTENCES]] if len(plain.sentences) > 1 else []
    )
    return Signals(whole, _worst([whole, *views]), _worst(sentences or [whole]))


def inputs_of(signals: Signals) -> npt.NDArray[np.float64]:
    """(12,) log-probabilities, what the stacked logistic looks at."""
    parts = (signals.plain, signals.view, signals.sentence)
    return np.concatenate([np.log(softmax(part) + 1e-9) for part in parts])


def _worst(candidates: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    return min(candidates, key=_log_allow)


def _log_allow(logits: npt.NDArray[np.float64]) -> float:
    return float(np.log(softmax(logits)[Decision.ALLOW] + 1e-12))
