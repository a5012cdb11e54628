"""The towers as TensorFlow SavedModels, through Keras; for teams whose serving is TensorFlow's. Never on our serving path.

Needs the extra ``tensorflow``. Inputs and formula are export_onnx.py's: the columns of ``UserFeatures`` and ``ItemFeatures``
by name, ``vector`` out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ("write_item_tower", "write_user_tower")

Float32s = npt.NDArray[np.float32]
Weights = Mapping[str, Float32s]


def write_user_tower(weights: Weights, vectors: Float32s, out: Path) -> None:
    """vectors: (N, D) of the items that histories refer to, by row + 1. A history has the length that the tower learnt with."""
    keras, w = _keras(), _below(weights, "user_tower.")
    ops, dim, length = keras.ops, vectors.shape[1], len(w["position"])
    asked = _Inputs(keras)
    history, weight = asked.ints("history", length), asked.floats("weight", length)
    found = _table(keras, np.concatenate([np.zeros((1, dim), np.float32), vectors]))(history)  # (B, T, D)
    mean = ops.einsum("bt,btd->bd", weight / ops.maximum(ops.sum(weight, 1, keepdims=True), 1e-6), found)
    pooled = mean
    if w["pool.weight"].shape[1] > dim:
        content = ops.squeeze(_dense(keras, w["attend.weight"], None)(found), -1)  # (B, T)
        logits = content + w["position"][None] + ops.log(ops.maximum(weight, 1e-9))
        attention = ops.softmax(logits, axis=1) * ops.cast(weight > 0, "float32")
        pooled = ops.concatenate([ops.einsum("bt,btd->bd", attention, found), mean, found[:, 0]], axis=1)
    x = _dense(keras, w["pool.weight"], w["pool.bias"])(pooled)
    for name in ("genre", "maker"):
        x = x + _mean_of(keras, w[f"{name}.weight"], asked.ints(name, None))
    for name in ("age_range", "region"):
        x = x + _table(keras, w[f"{name}.weight"])(asked.ints(name))
    x = x + _dense(keras, w["number.weight"], w["number.bias"])(asked.floats("number", w["number.weight"].shape[1]))
    _save(keras, asked, _unit(keras, _residual(keras, x, w)), out)


def write_item_tower(weights: Weights, out: Path) -> None:
    """The item tower, for items that the catalogue does not know yet too."""
    keras, w = _keras(), _below(weights, "item_tower.")
    asked = _Inputs(keras)
    x = _table(keras, w["id.weight"])(asked.ints("id"))
    x = x + _dense(keras, w["number.weight"], w["number.bias"])(asked.floats("number", w["number.weight"].shape[1]))
    for name in ("genre", "maker", "performers", "tags"):
        x = x + _mean_of(keras, w[f"{name}.weight"], asked.ints(name, None))
    terms = _table(keras, w["text.weight"])(asked.ints("text", None))
    x = x + keras.ops.einsum("bt,btd->bd", asked.floats("text_weight", None), terms)
    tables = sorted(name for name in w if name.startswith("number_bucket."))
    bucket = asked.ints("number_bucket", len(tables))
    for at, name in enumerate(tables):
        x = x + _table(keras, w[name])(bucket[:, at])
    if "embedding.weight" in w:
        embedding = asked.floats("embedding", w["embedding.weight"].shape[1])
        x = x + _dense(keras, w["embedding.weight"], None)(embedding)
    _save(keras, asked, _unit(keras, _residual(keras, x, w)), out)


def _keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # read by keras when it is first imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    if keras.backend.backend() != "tensorflow":
        message = f"Keras runs on {keras.backend.backend()} in this process; a SavedModel needs its TensorFlow backend"
        raise RuntimeError(message)
    return keras


class _Inputs:
    """The model's inputs, by name."""

    def __init__(self, keras: Any) -> None:
        self._keras = keras
        self.named: dict[str, Any] = {}

    def ints(self, name: str, *shape: int | None) -> Any:
        return self._add(name, shape, "int32")

    def floats(self, name: str, *shape: int | None) -> Any:
        return self._add(name, shape, "float32")

    def _add(self, name: str, shape: tuple[int | None, ...], dtype: str) -> Any:
        self.named[name] = self._keras.Input(shape, dtype=dtype, name=name)
        return self.named[name]


def _below(weights: Weights, prefix: str) -> dict[str, Float32s]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _table(keras: Any, table: Float32s) -> Any:
    layer = keras.layers.Embedding(*table.shape)
    layer.build(None)
    layer.set_weights([table])
    return layer


def _dense(keras: Any, weight: Float32s, bias: Float32s | None) -> Any:
    """weight: (out, in), as torch has it."""
    layer = keras.layers.Dense(weight.shape[0], use_bias=bias is not None)
    layer.build((None, weight.shape[1]))
    layer.set_weights([weight.T] if bias is None else [weight.T, bias])
    return layer


def _mean_of(keras: Any, table: Float32s, index: Any) -> Any:
    """index: (B, L), 0 for nothing. (B, D)."""
    there = keras.ops.cast(index > 0, "float32")
    total = keras.ops.einsum("bl,bld->bd", there, _table(keras, table)(index))
    return total / keras.ops.maximum(keras.ops.sum(there, 1, keepdims=True), 1.0)


def _residual(keras: Any, x: Any, w: Weights) -> Any:
    wide = keras.ops.relu(_dense(keras, w["mlp.widen.weight"], w["mlp.widen.bias"])(x))
    return x + _dense(keras, w["mlp.narrow.weight"], w["mlp.narrow.bias"])(wide)


def _unit(keras: Any, x: Any) -> Any:
    return x / keras.ops.maximum(keras.ops.sqrt(keras.ops.sum(x * x, 1, keepdims=True)), 1e-12)


def _save(keras: Any, asked: _Inputs, vector: Any, out: Path) -> None:
    keras.Model(inputs=asked.named, outputs={"vector": vector}).export(str(out), format="tf_saved_model", verbose=False)
