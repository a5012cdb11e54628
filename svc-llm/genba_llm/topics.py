"""Which piece of ordinary work a question is about, by its words alone: what a small model is told before it answers.

A linear reader over hashed n-grams, words and the concepts that they stand for (``features``), learnt from the same rows as the
model beside it. It knows the pieces by name, and "none of them"; it writes nothing. One byte a weight, one file in a bundle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from genba_llm.features import FeatureConfig, features, matrix

TOPICS: Final = "topics.safetensors"
NONE: Final = ""
CONFIG: Final = FeatureConfig(bits=15)
_KEY: Final = "topics"
EPOCHS: Final = 4
_BATCH: Final = 64
_RATE: Final = 0.5
_DROPPED: Final = 0.3  # of a question's features at a time: a person says only some of the words that would tell


class NoTopics(ValueError):
    """The file holds no reader of topics, or not a whole one."""


@dataclass(frozen=True)
class Topics:
    """``weights``: (D, C) int8, times ``scale``; ``scale``, ``bias``: (C,); ``names``: of the C topics, one of them ``NONE``."""

    names: tuple[str, ...]
    weights: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    config: FeatureConfig = CONFIG

    def best(self, question: str) -> tuple[str, float]:
        """The likeliest topic and its probability."""
        columns, values = features(question, self.config)
        logits = (values @ self.weights[columns].astype(np.float32)) * self.scale + self.bias  # (C,)
        raised = np.exp(logits - logits.max())
        at = int(raised.argmax())
        return self.names[at], float(raised[at] / raised.sum())

    def save(self, path: Path) -> None:
        """Write the one file."""
        known = json.dumps({"names": self.names, "features": asdict(self.config)}, ensure_ascii=False)
        save_file({"weights": self.weights, "scale": self.scale, "bias": self.bias}, path, metadata={_KEY: known})
        path.chmod(0o644)  # safetensors writes for the owner alone; a bundle is for whoever serves it

    @classmethod
    def load(cls, path: Path) -> Topics:
        """Raises: NoTopics."""
        try:
            with safe_open(path, framework="numpy") as file:
                known = json.loads(file.metadata()[_KEY])
                weights, scale, bias = (file.get_tensor(name) for name in ("weights", "scale", "bias"))
            found = cls(tuple(known["names"]), weights, scale, bias, FeatureConfig(**known["features"]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise NoTopics(f"{path.name} holds no topics: {error}") from error
        n = len(found.names)
        shapes = (weights.shape, scale.shape, bias.shape)
        if shapes != ((found.config.size, n), (n,), (n,)) or weights.dtype != np.int8:
            raise NoTopics(f"{path.name} does not fit together.")
        return found


def fit_topics(
    questions: Sequence[str], topics: Sequence[str], *, seed: int, epochs: int = EPOCHS, config: FeatureConfig = CONFIG
) -> Topics:
    """Softmax regression by AdaGrad (Duchi et al. 2011) over small batches; a part of the features is left out each time."""
    names = (NONE, *sorted(set(topics) - {NONE}))
    place = {name: at for at, name in enumerate(names)}
    rows = matrix(questions, config)  # (N, D)
    target = np.array([place[topic] for topic in topics])
    rng = np.random.default_rng(seed)
    weights = np.zeros((config.size, len(names)), np.float32)
    bias = np.zeros(len(names), np.float32)
    seen = np.full_like(weights, 1e-4)
    for epoch in range(epochs):
        rate = _RATE * (1.0 - epoch / epochs)
        order = rng.permutation(len(questions))
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            batch = rows[chosen]
            batch.data *= (rng.random(len(batch.data)) >= _DROPPED) / np.float32(1.0 - _DROPPED)
            columns, inverse = np.unique(batch.indices, return_inverse=True)
            small = type(batch)((batch.data, inverse, batch.indptr), shape=(len(chosen), len(columns)))
            logits = small @ weights[columns] + bias  # (B, C)
            logits -= logits.max(1, keepdims=True)
            error = np.exp(logits)
            error /= error.sum(1, keepdims=True)
            error[np.arange(len(chosen)), target[chosen]] -= 1.0
            gradient = small.T @ error  # (K, C), over the batch's columns
            seen[columns] += gradient * gradient
            weights[columns] -= rate * gradient / np.sqrt(seen[columns])
            bias -= rate / len(questions) ** 0.5 * error.sum(0)
    scale = np.maximum(np.abs(weights).max(0), 1e-9) / 127.0
    return Topics(names, np.rint(weights / scale).astype(np.int8), scale.astype(np.float32), bias, config)
