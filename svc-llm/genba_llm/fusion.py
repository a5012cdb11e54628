"""Stage 5: the stages' numbers become one calibrated answer, or an honest "a person should look".

A stacked logistic over what the classifier says of the text, of its worst hidden reading and of its worst sentence, a
temperature, and a split-conformal bound: ALLOW is only said where the calibration rows leave at most ``alpha`` of the
dangerous ones above the same threshold. A language model's scores join with a weight that was fitted for that model;
those of a model that nobody fitted can only make the answer more cautious.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genba_llm.classifier import CHAMPION, Classifier, softmax
from genba_llm.normalise import Normalised
from genba_llm.verdict import Decision

FUSION = "fusion.json"
MAX_SENTENCES = 12
UNFITTED_WEIGHT = 0.5
SENTENCE_SHARE = 0.5  # chosen on development sources, between long harmless texts (1) and padded danger (0)
SPEAKS_BELOW = 0.7  # P(ALLOW) of a sentence that speaks for its text; on development sources, of .5, .6, .7 and .84
STANDS_OUT = (
    4.0  # by how much the danger of the worst sentence exceeds the next one's; on development sources, of 2 to 5
)
READINGS = 3  # the plain text, its worst hidden reading, its worst sentence
_NUMBERS = ("temperature", "allow_from", "disguised_allow_from", "alpha", "review_temperature")
INPUTS = READINGS * len(Decision)


@dataclass(frozen=True)
class Signals:
    """What the stages say of one text, (4,) each: of the plain text, of the worst hidden reading, of the worst sentence.

    ``reasoned`` is what the language model ``reasoner`` says, as probabilities; None where there is none.
    """

    plain: npt.NDArray[np.float64]
    view: npt.NDArray[np.float64]
    sentence: npt.NDArray[np.float64]
    reasoned: npt.NDArray[np.float64] | None = None
    reasoner: str = ""
    disguised: bool = False  # whether something had to be undone to read it
    stands_out: bool = False  # whether the worst sentence is far more dangerous than every other

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
class Joined:
    """How the scores of one language model count: ``weight`` of their logarithms beside those of the rest, divided by
    ``temperature``; and the least P(ALLOW) that is answered where they are there.
    """

    reasoner: str
    weight: float
    temperature: float
    allow_from: float


@dataclass(frozen=True)
class Fusion:
    """``weights``: (12, 4) over the signals' logits; identity on the worst reading until it is fitted.

    ``allow_from``: the least P(ALLOW) that is answered. ``alpha``: the share of dangerous requests that may lie above it.
    ``disguised_allow_from``: the same for texts in which something had to be undone, which is never undone in full.
    ``review_temperature`` divides the log-odds of ALLOW at the end: how sure people's decisions say that the gate may be.
    """

    weights: npt.NDArray[np.float64] | None = None
    bias: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    temperature: float = 1.0
    allow_from: float = 0.5
    alpha: float = 0.1
    disguised_allow_from: float = 0.0
    review_temperature: float = 1.0
    joined: Joined | None = None
    version: str = "unfused"

    def logits(self, signals: Signals) -> npt.NDArray[np.float64]:
        """(4,) before the temperature."""
        if self.weights is None:
            return np.log(signals.classifier_probs)
        return inputs_of(signals) @ self.weights + self.bias

    def decide(self, signals: Signals) -> Fused:
        probs, allow_from = self.of_text(signals), self.allow_from
        if signals.reasoned is not None:
            probs, allow_from = self._with_reasoner(probs, signals.reasoned, signals.reasoner)
        if signals.disguised:
            allow_from = max(allow_from, self.disguised_allow_from)
        probs = flatten_allow(probs, self.review_temperature)
        best = Decision(int(probs.argmax()))
        allowed = probs[Decision.ALLOW] >= allow_from
        if best is Decision.ALLOW and not allowed:
            return Fused(probs, Decision.ESCALATE, abstained=True)
        return Fused(probs, Decision.ALLOW if allowed else best, abstained=False)

    def _with_reasoner(
        self, probs: npt.NDArray[np.float64], reasoned: npt.NDArray[np.float64], reasoner: str
    ) -> tuple[npt.NDArray[np.float64], float]:
        fitted = self.joined
        if fitted is not None and fitted.reasoner == reasoner:
            return pool(probs, reasoned, weight=fitted.weight, temperature=fitted.temperature), fitted.allow_from
        mixed = pool(probs, reasoned, weight=UNFITTED_WEIGHT)
        return (mixed if mixed[Decision.ALLOW] < probs[Decision.ALLOW] else probs), self.allow_from

    def of_text(self, signals: Signals) -> npt.NDArray[np.float64]:
        """What classifier and stack say. A sentence that is likely enough to be dangerous, one of so many, speaks for the
        text, and one that stands out among harmless ones always does: they buy it nothing.
        """
        probs = softmax(self.logits(signals) / self.temperature)
        alone = softmax(self.logits(Signals(signals.sentence, signals.sentence, signals.sentence)) / self.temperature)
        below = 1.0 if signals.stands_out else SPEAKS_BELOW
        return alone if alone[Decision.ALLOW] < min(below, probs[Decision.ALLOW]) else probs

    def named(self) -> Fusion:
        """The same under a version that its numbers make: what decides otherwise is on record as something else."""
        said = json.dumps({**self.to_json(), "version": ""}, sort_keys=True)
        return replace(self, version=f"fusion-{hashlib.sha256(said.encode()).hexdigest()[:12]}")

    def to_json(self) -> dict[str, Any]:
        weights = None if self.weights is None else self.weights.round(6).tolist()
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        joined = asdict(self.joined) if self.joined else None
        return {
            "version": self.version,
            "weights": weights,
            "bias": self.bias.round(6).tolist(),
            **numbers,
            "joined": joined,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Fusion:
        """Raises: KeyError, TypeError or ValueError for what ``to_json`` did not write."""
        weights = None if found["weights"] is None else np.array(found["weights"], np.float64).reshape(INPUTS, 4)
        numbers = {name: float(found[name]) for name in ("temperature", "allow_from", "alpha")}
        joined = Joined(**found["joined"]) if found.get("joined") else None
        return cls(
            weights,
            np.array(found["bias"], np.float64).reshape(4),
            disguised_allow_from=float(found.get("disguised_allow_from", 0.0)),  # older bundles have none of these
            review_temperature=float(found.get("review_temperature", 1.0)),
            joined=joined,
            version=str(found["version"]),
            **numbers,
        )


@functools.cache
def default_fusion() -> Fusion:
    """The fusion that ships with the champion."""
    return load_fusion(CHAMPION)


def load_fusion(folder: Path) -> Fusion:
    """The fusion in a classifier's bundle; an unfitted one where there is none."""
    path = folder / FUSION
    return Fusion.from_json(json.loads(path.read_text("utf-8"))) if path.exists() else Fusion()


def signals_of(plain: Normalised, classifier: Classifier) -> Signals:
    """Score a text, its hidden readings and its sentences. Each of the three looks no better than the one before."""
    whole = classifier.logits(plain.text)
    view = _worst([whole, *(classifier.logits(each.text) for each in plain.views)])
    if len(plain.sentences) < 2:
        return Signals(whole, view, view, disguised=bool(plain.views))
    sentences = [classifier.logits(each) for each in plain.sentences[:MAX_SENTENCES]]
    worst = _worst([view, _of_many(_worst(sentences), len(sentences))])
    first, second = sorted((1.0 - float(softmax(each)[Decision.ALLOW]) for each in sentences), reverse=True)[:2]
    return Signals(whole, view, worst, disguised=bool(plain.views), stands_out=first >= STANDS_OUT * second)


def _of_many(worst: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """What the worst of ``count`` sentences says of the text. A text of n sentences has n chances to look bad: were they
    independent, the odds of ALLOW would have to grow by n, and by nothing were they all alike; they grow by √n.
    """
    found = worst.copy()
    found[Decision.ALLOW] += SENTENCE_SHARE * np.log(count)
    return found


def pool(
    probs: npt.NDArray[np.float64], reasoned: npt.NDArray[np.float64], *, weight: float, temperature: float = 1.0
) -> npt.NDArray[np.float64]:
    """The logarithmic opinion pool of two answers (Genest & Zidek 1986). Shapes: (…, 4) each."""
    mixed = (1 - weight) * np.log(probs + 1e-9) + weight * np.log(reasoned + 1e-9)
    return softmax(mixed / temperature)


def flatten_allow(probs: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """(4,) with the log-odds of ALLOW divided by ``temperature``; the other three keep their proportions."""
    if temperature == 1.0:
        return probs
    allow = float(flattened(np.array([probs[Decision.ALLOW]]), temperature)[0])
    others = probs * (1 - allow) / max(1 - float(probs[Decision.ALLOW]), 1e-12)
    others[Decision.ALLOW] = allow
    return np.asarray(others / others.sum())


def flattened(allow: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """(N,) probabilities with their log-odds divided by ``temperature``: keeps their order, hence every decision."""
    clipped = np.clip(allow, 1e-9, 1 - 1e-9)
    return np.asarray(1.0 / (1.0 + ((1 - clipped) / clipped) ** (1.0 / temperature)))


def inputs_of(signals: Signals) -> npt.NDArray[np.float64]:
    """(12,) log-probabilities, what the stacked logistic looks at."""
    parts = (signals.plain, signals.view, signals.sentence)
    return np.concatenate([np.log(softmax(part) + 1e-9) for part in parts])


def _worst(candidates: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    return min(candidates, key=_log_allow)


def _log_allow(logits: npt.NDArray[np.float64]) -> float:
    return float(np.log(softmax(logits)[Decision.ALLOW] + 1e-12))
