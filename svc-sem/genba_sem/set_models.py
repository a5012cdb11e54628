"""Learnt fusions of views: Deep Sets, gated attention, Set Transformer, as arrays: serving them needs no torch.

All weigh views by quality before anything else, so a black view has no say and a view sent twice counts once; the order never matters.
With five masters a label they seldom pay, so they are challengers: who promotes compares them with the mean on reviewed particles.
``set_training`` trains them and holds the same models for torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scipy.special import erf, expit, softmax

from genba_sem.encoders import unit
from genba_sem.views import Fused, view_weights

Rows = npt.NDArray[np.float32]
Tensors = Mapping[str, Rows]
Kind = Literal["deep-sets", "gated-attention", "set-transformer"]
KIND_NAMES: Final[tuple[Kind, ...]] = get_args(Kind)

NOWHERE: Final = -1e9


def _linear(tensors: Tensors, name: str, rows: Rows) -> Rows:
    return np.asarray(rows @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"], np.float32)


def _gelu(values: Rows) -> Rows:
    return np.asarray(0.5 * values * (1 + erf(values / np.sqrt(2))), np.float32)


def _log(prior: Rows) -> Rows:
    return np.where(prior == 0, NOWHERE, np.log(np.maximum(prior, 1e-12))).astype(np.float32)


def _deep_sets(tensors: Tensors, rows: Rows, prior: Rows) -> tuple[Rows, Rows]:
    """The weighted mean plus what a network makes of the weighted mean of features (Zaheer et al. 2017)."""
    each = _gelu(_linear(tensors, "each.2", _gelu(_linear(tensors, "each.0", rows))))  # (V, width)
    return prior @ rows + _linear(tensors, "all", prior @ each), prior


def _gated_attention(tensors: Tensors, rows: Rows, prior: Rows, *, at: str = "") -> tuple[Rows, Rows]:
    """The mean by learnt weights (Ilse et al. 2018), times the prior."""
    value, gate = _linear(tensors, f"{at}value", rows), _linear(tensors, f"{at}gate", rows)
    score = _linear(tensors, f"{at}score", np.asarray(np.tanh(value) * expit(gate), np.float32))[:, 0]  # (V,)
    weights = np.asarray(softmax(score + _log(prior)), np.float32)
    return weights @ rows, weights


def _set_transformer(tensors: Tensors, rows: Rows, prior: Rows) -> tuple[Rows, Rows]:
    """Views look at each other before they are pooled by attention (Lee et al. 2019)."""
    query, key, value = (_linear(tensors, name, rows) for name in ("query", "key", "value"))
    affinity = query @ key.T / np.sqrt(query.shape[1]) + _log(prior)  # (V, V)
    seen = rows + _linear(tensors, "back", np.asarray(softmax(affinity, axis=1) @ value, np.float32))
    return _gated_attention(tensors, seen, prior, at="pool.")


_FORWARD: Final[Mapping[Kind, Callable[[Tensors, Rows, Rows], tuple[Rows, Rows]]]] = {
    "deep-sets": _deep_sets,
    "gated-attention": _gated_attention,
    "set-transformer": _set_transformer,
}
_OF_WIDTH: Final[Mapping[Kind, str]] = {
    "deep-sets": "each.0.weight",
    "gated-attention": "value.weight",
    "set-transformer": "query.weight",
}


class LearntFusion:
    """A trained set model behind the call of every fusion (``views.Fusion``)."""

    def __init__(self, kind: Kind, tensors: Tensors) -> None:
        self.kind = kind
        self.tensors = {name: np.ascontiguousarray(tensors[name], np.float32) for name in sorted(tensors)}
        self.dim = self.tensors[_OF_WIDTH[kind]].shape[1]
        digest = hashlib.sha256()
        for name, tensor in self.tensors.items():
            digest.update(name.encode() + tensor.tobytes())
        self.id = f"{kind}-v1@{digest.hexdigest()[:8]}"

    def fuse(self, rows: Rows, quality: Rows) -> Fused:
        """rows: (V, D) unit; quality: (V,). The row is zero when no view counts."""
        prior = view_weights(rows, quality)
        if not prior.any():
            return Fused(np.zeros(rows.shape[1], np.float32), prior)
        row, weights = _FORWARD[self.kind](self.tensors, rows, prior)
        return Fused(unit(row), np.asarray(weights, np.float32))

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        save_file(self.tensors, path, metadata={"fusion": self.kind})

    @classmethod
    def load(cls, path: Path) -> LearntFusion:
        """Read what ``save`` wrote. Raises: ValueError for another file."""
        with safe_open(path, framework="numpy") as file:
            said = (file.metadata() or {}).get("fusion")
        kind = next((name for name in KIND_NAMES if name == said), None)
        tensors = load_file(path)
        if kind is None or _OF_WIDTH[kind] not in tensors:
            raise ValueError(f"{path.name} holds no learnt fusion.")
        return cls(kind, tensors)
