"""A small model of the Phi-3 family in NumPy: token ids in, logits out, with a key-value cache. Knows no text, no torch.

For models of some millions of weights, which a processor runs token by token as fast as any framework does, in a process
that has no seconds and no gigabyte for one. Equations: Touvron et al. 2023 (RMSNorm, SwiGLU), Su et al. 2021 (rotary
positions, here of the first part of each head), Ainslie et al. 2023 (grouped keys). Matrices may be stored in int8 with a
scale for each row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

Array = npt.NDArray[np.float32]
WEIGHTS: Final = "model.safetensors"
MAX_PARAMETERS: Final = 50_000_000
_SCALE: Final = ".scale"


class NotSmall(ValueError):
    """The folder holds no model that this can run."""


@dataclass(frozen=True)
class Shape:
    """What ``config.json`` says that matters here."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    rotary: int  # numbers of each head that turn
    theta: float
    eps: float
    longest: int
    end_tokens: frozenset[int]

    @property
    def head(self) -> int:
        """Numbers in a head."""
        return self.hidden // self.heads

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Raises: NotSmall for another family, other positions, or a window."""
        rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
        if config.get("model_type") != "phi3" or rope.get("rope_type", "default") != "default":
            raise NotSmall("Only models of the Phi-3 family with plain rotary positions run here.")
        if config.get("sliding_window") or not config.get("tie_word_embeddings"):
            raise NotSmall("Only models without a sliding window and with tied embeddings run here.")
        if config.get("hidden_act", "silu") != "silu":
            raise NotSmall("Only models with SiLU run here.")
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        partial = float(rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)))
        ends = config.get("eos_token_id")
        return cls(
            vocab=int(config["vocab_size"]),
            hidden=hidden,
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config["num_key_value_heads"]),
            rotary=int(hidden // heads * partial),
            theta=float(rope.get("rope_theta", config.get("rope_theta", 10_000.0))),
            eps=float(config["rms_norm_eps"]),
            longest=int(config["max_position_embeddings"]),
            end_tokens=frozenset(
                int(each) for each in (ends if isinstance(ends, list) else [ends]) if each is not None
            ),
        )


@dataclass
class Cache:
    """Keys and values of the tokens so far, a pair for each layer: (G, T, D)."""

    pairs: list[tuple[Array, Array]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens so far."""
        return int(self.pairs[0][0].shape[1]) if self.pairs else 0


@dataclass(frozen=True)
class _Layer:
    before: Array  # (H,)
    qkv: Array  # (H, (heads + 2·kv_heads)·D)
    out: Array  # (H, H)
    after: Array  # (H,)
    gate_up: Array  # (H, 2·I)
    down: Array  # (I, H)


class SmallPhi3:
    """One model. Reads only; a cache belongs to whoever generates."""

    def __init__(self, shape: Shape, tensors: Mapping[str, Array]) -> None:
        """``tensors``: by transformers' names, (out, in). Raises: NotSmall if one is missing or of another shape."""
        self.shape = shape

        def take(name: str, *expected: int) -> Array:
            found = tensors.get(f"{name}.weight")
            if found is None or found.shape != expected:
                message = f"The tensor {name} is {None if found is None else found.shape}, not {expected}."
                raise NotSmall(message)
            return np.ascontiguousarray(found.T if found.ndim == 2 else found, np.float32)

        hidden, head = shape.hidden, shape.head
        inner = tensors["model.layers.0.mlp.down_proj.weight"].shape[1] if tensors else 0
        self._embedding = take("model.embed_tokens", shape.vocab, hidden)  # (H, V)
        self._norm = take("model.norm", hidden)
        self._layers = [
            _Layer(
                take(f"model.layers.{n}.input_layernorm", hidden),
                take(f"model.layers.{n}.self_attn.qkv_proj", (shape.heads + 2 * shape.kv_heads) * head, hidden),
                take(f"model.layers.{n}.self_attn.o_proj", hidden, hidden),
                take(f"model.layers.{n}.post_attention_layernorm", hidden),
                take(f"model.layers.{n}.mlp.gate_up_proj", 2 * inner, hidden),
                take(f"model.layers.{n}.mlp.down_proj", hidden, inner),
            )
            for n in range(shape.layers)
        ]
        turns = np.outer(np.arange(shape.longest), shape.theta ** (-np.arange(0, shape.rotary, 2) / shape.rotary))
        self._cos, self._sin = np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)  # (longest, rotary/2)

    @property
    def parameters(self) -> int:
        """How many weights."""
        arrays = [self._embedding, self._norm, *(array for each in self._layers for array in vars(each).values())]
        return sum(int(array.size) for array in arrays)

    def logits(self, ids: npt.ArrayLike, cache: Cache) -> Array:
        """ids: (T,), the tokens that follow those in ``cache``, which grows by them. Returns (V,) of the last one."""
        found: Array = _rms(self._hidden(np.asarray(ids), cache)[-1], self._norm, self.shape.eps) @ self._embedding
        return found

    def all_logits(self, ids: npt.ArrayLike) -> Array:
        """ids: (T,). Returns (T, V), of every token."""
        found: Array = _rms(self._hidden(np.asarray(ids), Cache()), self._norm, self.shape.eps) @ self._embedding
        return found

    def _hidden(self, ids: npt.NDArray[np.int64], cache: Cache) -> Array:
        start = cache.length
        if start + len(ids) > self.shape.longest:
            message = f"{start + len(ids)} tokens are more than the model's {self.shape.longest}."
            raise ValueError(message)
        x = self._embedding.T[ids]  # (T, H)
        known: list[tuple[Array, Array] | None] = [*cache.pairs] or [None] * len(self._layers)
        cache.pairs = []
        for layer, pair in zip(self._layers, known, strict=True):
            x = x + self._attention(layer, _rms(x, layer.before, self.shape.eps), pair, start, cache)
            gate, up = np.split(_rms(x, layer.after, self.shape.eps) @ layer.gate_up, 2, axis=-1)  # (T, I) each
            x = x + (gate / (1.0 + np.exp(-gate)) * up) @ layer.down
        return x

    def _attention(self, layer: _Layer, x: Array, pair: tuple[Array, Array] | None, start: int, cache: Cache) -> Array:
        shape, length = self.shape, len(x)
        turned = x @ layer.qkv
        q, k, v = np.split(turned, [shape.heads * shape.head, (shape.heads + shape.kv_heads) * shape.head], axis=-1)
        places = slice(start, start + length)
        q = self._turn(q.reshape(length, shape.heads, shape.head), places).transpose(1, 0, 2)  # (heads, T, D)
        k = self._turn(k.reshape(length, shape.kv_heads, shape.head), places).transpose(1, 0, 2)  # (G, T, D)
        v = v.reshape(length, shape.kv_heads, shape.head).transpose(1, 0, 2)
        if pair is not None:
            k, v = np.concatenate([pair[0], k], axis=1), np.concatenate([pair[1], v], axis=1)
        cache.pairs.append((k, v))
        group = shape.heads // shape.kv_heads
        q = q.reshape(shape.kv_heads, group * length, shape.head)  # heads of one key together
        scores = (q @ k.transpose(0, 2, 1) / np.sqrt(np.float32(shape.head))).reshape(shape.heads, length, -1)
        if length > 1:
            later = np.arange(k.shape[1])[None, :] > np.arange(start, start + length)[:, None]
            scores = np.where(later[None], np.float32(-np.inf), scores)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        probs = (scores / scores.sum(-1, keepdims=True)).reshape(shape.kv_heads, group * length, -1)
        mixed = (probs @ v).reshape(shape.heads, length, shape.head).transpose(1, 0, 2)
        out: Array = mixed.reshape(length, -1) @ layer.out
        return out

    def _turn(self, x: Array, places: slice) -> Array:
        """x: (T, heads, D). The first ``rotary`` numbers of each head turned by their position."""
        half = self.shape.rotary // 2
        cos, sin = self._cos[places, None], self._sin[places, None]  # (T, 1, rotary/2)
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


def _rms(x: Array, weight: Array, eps: float) -> Array:
    found: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(eps)) * weight
    return found


def load_small(folder: Path) -> SmallPhi3:
    """A folder with ``config.json`` and ``model.safetensors``. Raises: NotSmall; OSError."""
    return SmallPhi3(shape_of(folder), load_tensors(folder))


def load_tensors(folder: Path) -> dict[str, Array]:
    """The folder's tensors by transformers' names, in single precision. Raises: OSError."""
    return _wide(load_file(folder / WEIGHTS))


def shape_of(folder: Path) -> Shape:
    """Whether a folder's model runs here, without reading its weights. Raises: NotSmall; OSError."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except ValueError as error:
        message = f"The config.json cannot be read: {error}."
        raise NotSmall(message) from error
    shape = Shape.of(config)
    if not (folder / WEIGHTS).is_file() or (folder / WEIGHTS).stat().st_size > 4 * MAX_PARAMETERS:
        raise NotSmall("The weights are missing or too many to run here.")
    return shape


def save_int8(tensors: Mapping[str, Array], path: Path) -> None:
    """Write matrices (out, in) in int8 with one scale for each row, all else in single precision."""
    stored: dict[str, npt.NDArray[Any]] = {}
    for name, values in tensors.items():
        if values.ndim != 2:
            stored[name] = np.ascontiguousarray(values, np.float32)
            continue
        scale = np.maximum(np.abs(values).max(1, keepdims=True) / 127.0, np.float32(1e-12)).astype(np.float32)
        stored[name] = np.rint(values / scale).astype(np.int8)
        stored[name + _SCALE] = scale[:, 0]
    save_file(stored, path)


def stored_in_int8(folder: Path) -> bool:
    """Whether a folder's weights are as ``save_int8`` writes them; reads their names alone."""
    path = folder / WEIGHTS
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="numpy") as file:
            return any(name.endswith(_SCALE) for name in file.keys())  # noqa: SIM118 - it is no mapping
    except SafetensorError:
        return False  # whoever reads it says what is wrong


def _wide(stored: Mapping[str, npt.NDArray[Any]]) -> dict[str, Array]:
    """Stored tensors in single precision."""
    return {
        name: values.astype(np.float32) * stored[name + _SCALE][:, None]
        if name + _SCALE in stored
        else values.astype(np.float32)
        for name, values in stored.items()
        if not name.endswith(_SCALE)
    }
