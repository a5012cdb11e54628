"""Stage 3: how likely a text is to call for each decision, by its words alone, in under a millisecond.

A four-class logistic regression over hashed n-grams. The weights are a bundle of two files, small enough to ship with
the package: safetensors with one byte a weight, and what is needed to read them. Knows nothing of who asks or of rules.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genba_llm.features import FeatureConfig, features, matrix
from genba_llm.verdict import Decision

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

CHAMPION = Path(__file__).parent / "champion"
WEIGHTS = "weights.safetensors"
MANIFEST = "bundle.json"
KIND = "llm.gate_classifier"
Probs = npt.NDArray[np.float64]


class BadClassifier(ValueError):
    """The bundle is no gate classifier, or not a whole one."""


@dataclass(frozen=True)
class Classifier:
    """``weights``: (D, 4) int8; a column's weight is ``weights * scale``. ``scale``, ``bias``: (4,) float32, by decision."""

    weights: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    config: FeatureConfig = field(default_factory=FeatureConfig)
    version: str = "untrained"

    def logits(self, text: str) -> npt.NDArray[np.float64]:
        """(4,) unnormalised log-probabilities of ALLOW, ESCALATE, DENY, REFUSE."""
        columns, values = features(text, self.config)
        summed = values @ self.weights[columns].astype(np.float32)  # (K,) @ (K, 4)
        return (summed * self.scale + self.bias).astype(np.float64)

    def logits_of(self, rows: csr_matrix | Sequence[str]) -> npt.NDArray[np.float64]:
        """(N, 4) for texts, or for the matrix that ``features.matrix`` made of them."""
        found: Any = matrix(rows, self.config) if isinstance(rows, (list, tuple)) else rows
        return np.asarray(found @ (self.weights * self.scale) + self.bias, np.float64)

    def probs(self, text: str) -> Probs:
        """(4,) probabilities, summing to 1."""
        return softmax(self.logits(text))

    def save(self, folder: Path, *, more: Mapping[str, Any] | None = None) -> None:
        """Write the bundle into ``folder``; ``more`` goes into its manifest (metrics, data hash, code commit)."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({"weights": self.weights, "scale": self.scale, "bias": self.bias}, folder / WEIGHTS)
        manifest = {
            "kind": KIND,
            "version": self.version,
            "classes": [d.name for d in Decision],
            "features": asdict(self.config),
        }
        (folder / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone; a bundle is for whoever serves it
        (folder / MANIFEST).write_text(
            json.dumps({**manifest, **(more or {})}, indent=1, ensure_ascii=False) + "\n", "utf-8"
        )

    @classmethod
    def load(cls, folder: Path, *, version: str | None = None) -> Classifier:
        """The classifier in a bundle. Raises: BadClassifier if it is none, is torn or does not fit together."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
            tensors = load_file(folder / WEIGHTS)
            config = FeatureConfig(**manifest["features"])
            found = cls(tensors["weights"], tensors["scale"], tensors["bias"], config, version or manifest["version"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise BadClassifier(f"{folder.name} holds no gate classifier: {error}") from error
        if manifest.get("kind") != KIND or manifest.get("classes") != [d.name for d in Decision]:
            raise BadClassifier(f"{folder.name} is a bundle of another kind.")
        if found.weights.shape != (config.size, len(Decision)) or found.weights.dtype != np.int8:
            raise BadClassifier(
                f"{folder.name}: weights are {found.weights.dtype}{found.weights.shape}, not int8({config.size}, 4)."
            )
        if found.scale.shape != (4,) or found.bias.shape != (4,) or not np.isfinite([found.scale, found.bias]).all():
            raise BadClassifier(f"{folder.name}: scale and bias must be four finite numbers each.")
        return found


@functools.cache
def champion() -> Classifier:
    """The classifier that ships: trained from the project's own generator alone (``python -m genba_llm.build_champion``)."""
    return Classifier.load(CHAMPION)


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities over the last axis."""
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))
