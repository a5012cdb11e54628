"""The user tower as a TensorFlow.js layers-model, written directly: model.json and weight shards, no TensorFlow anywhere.

Only layers that every TensorFlow.js has are used, so ``tf.loadLayersModel`` opens the file without any code of ours. Beside it
lie encoders.json, items.json and user_tower.mjs, with which a browser does the whole user tower and ranks by itself.

Three things that the layers do not have are spelled with those that are there: a constant is a Dense of zeros with a bias,
x / ‖x‖ is a normalising Dot with the identity, and logarithms and shares of weights are inputs, computed by user_tower.mjs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from genba_recommend.blending import MOST_HISTORY, Blend
from genba_recommend.features import Encoders
from genba_recommend.heads import Heads
from genba_recommend.neighbours import Neighbours

__all__ = ("Listed", "Quantised", "user_tower_inputs", "write")

Float32s = npt.NDArray[np.float32]
Weights = Mapping[str, Float32s]
Quantised = Literal["float32", "float16", "uint8"]
NEIGHBOURS = "neighbours.bin"
SHARD_BYTES = 4 << 20  # what TensorFlow.js's own converter cuts; browsers fetch and cache such parts side by side
Json = dict[str, Any]


@dataclass(frozen=True)
class Listed:
    """The N items that a browser can know and rank."""

    ids: Sequence[str]
    genre: npt.NDArray[np.int32]  # (N, Lg), as the encoders number them
    maker: npt.NDArray[np.int32]  # (N, 1)
    vectors: Float32s  # (N, D)
    prior: Float32s | None = None  # (N,), added to dot product over temperature
    blend: Blend = field(default_factory=Blend)
    neighbours: Neighbours | None = None
    heads: Heads = field(default_factory=Heads.none)

    def __post_init__(self) -> None:
        """Raises: ValueError when these do not belong together."""
        lengths = {len(self.ids), len(self.genre), len(self.maker), len(self.vectors)}
        lengths |= {len(each) for each in (self.prior, self.neighbours) if each is not None}
        if len(lengths) != 1:
            message = f"{len(self.ids)} ids and {len(self.vectors)} vectors, features or priors do not belong together"
            raise ValueError(message)


def write(
    weights: Weights,
    encoders: Encoders,
    items: Listed,
    out: Path,
    *,
    temperature: float,
    tables: Quantised = "float32",
) -> list[Path]:
    """Write the model and what a browser needs beside it into ``out``; returns the files."""
    out.mkdir(parents=True, exist_ok=True)
    model = _user_tower(weights, items.vectors)
    specs, data = _packed(model.weights, tables)
    shards = [data[at : at + SHARD_BYTES] for at in range(0, len(data), SHARD_BYTES)]
    paths = [f"group1-shard{n}of{len(shards)}.bin" for n in range(1, len(shards) + 1)]
    document = {
        "format": "layers-model",
        "generatedBy": "genba",
        "convertedBy": None,
        "modelTopology": model.topology(),
        "weightsManifest": [{"paths": paths, "weights": specs}],
    }
    catalogue = {
        "ids": [*items.ids],
        "genre": [[int(n) for n in row if n] for row in items.genre],
        "maker": [[int(n) for n in row if n] for row in items.maker],
        "temperature": temperature,
        "prior": None if items.prior is None else [round(float(x), 6) for x in items.prior],
        "blend": asdict(items.blend),
        "most_history": MOST_HISTORY,
        "neighbours": _write_neighbours(items.neighbours, out),
        "heads": _told(items.heads) if items.heads.tasks else None,
    }
    for path, shard in zip(paths, shards, strict=True):
        (out / path).write_bytes(shard)
    (out / "model.json").write_text(json.dumps(document), "utf-8")
    (out / "encoders.json").write_text(encoders.to_json(), "utf-8")
    (out / "items.json").write_text(json.dumps(catalogue, ensure_ascii=False), "utf-8")
    script = resources.files("genba_recommend").joinpath("browser/user_tower.mjs").read_text("utf-8")
    (out / "user_tower.mjs").write_text(script, "utf-8")
    beside = (NEIGHBOURS,) if catalogue["neighbours"] else ()
    return [out / name for name in ("model.json", *paths, "encoders.json", "items.json", "user_tower.mjs", *beside)]


def _told(heads: Heads) -> Json:
    names = ("widen", "widen_bias", "narrow", "narrow_bias")
    return {"tasks": heads.tasks, **{name: getattr(heads, name).tolist() for name in names}}


def _write_neighbours(neighbours: Neighbours | None, out: Path) -> Json | None:
    """All rows (int32), then all weights (float32), little-endian; what a browser maps without reading it."""
    if neighbours is None or neighbours.is_empty:
        return None
    (out / NEIGHBOURS).write_bytes(neighbours.item.astype("<i4").tobytes() + neighbours.weight.astype("<f4").tobytes())
    return {"path": NEIGHBOURS, "width": neighbours.item.shape[1]}


def user_tower_inputs(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The model's inputs from the columns of ``UserFeatures``, as user_tower.mjs makes them; for Python that feeds the model."""
    weight = columns["weight"].astype(np.float64)
    made = {
        "history": columns["history"],
        "log_weight": np.log(np.maximum(weight, 1e-9)),
        "share": weight / np.maximum(weight.sum(1, keepdims=True), 1e-6),
        "number": columns["number"],
    }
    for name in ("genre", "maker"):
        there = columns[name] > 0
        made |= {name: columns[name], f"{name}_share": there / np.maximum(there.sum(1, keepdims=True), 1)}
    return made | {name: columns[name][:, None] for name in ("age_range", "region")}


def _user_tower(weights: Weights, vectors: Float32s) -> _Layers:
    w = {k.removeprefix("user_tower."): v for k, v in weights.items() if k.startswith("user_tower.")}
    dim, pools = w["pool.weight"].shape
    length = len(w["position"])
    model = _Layers()
    table = np.concatenate([np.zeros((1, dim), np.float32), vectors])
    found = model.embedding("items", table, model.input("history", length, "int32"))  # (B, T, D)
    log_weight, share = model.input("log_weight", length), model.input("share", length)
    pooled = mean = model.dot("mean", share, found)  # (B, D)
    if pools > dim:
        content = model.add("Flatten", "content", [model.dense("attend", found, w["attend.weight"].T, None)])
        place = model.dense("place", log_weight, np.eye(length, dtype=np.float32), w["position"])  # (B, T)
        attention = model.add("Activation", "attention", [model.sum("logits", content, place)], activation="softmax")
        first = np.eye(1, length, dtype=np.float32)[0]
        newest = model.dense("newest_place", log_weight, np.zeros((length, length), np.float32), first)
        parts = [model.dot("attended", attention, found), mean, model.dot("newest", newest, found)]
        pooled = model.add("Concatenate", "pooled", parts, axis=-1)
    parts = [model.dense("pool", pooled, w["pool.weight"].T, w["pool.bias"])]
    for name in ("genre", "maker"):
        rows = model.embedding(f"{name}_words", w[f"{name}.weight"], model.input(name, None, "int32"))
        parts.append(model.dot(f"{name}_mean", model.input(f"{name}_share", None), rows))
    for name in ("age_range", "region"):
        rows = model.embedding(f"{name}_words", w[f"{name}.weight"], model.input(name, 1, "int32"))
        parts.append(model.add("Flatten", f"{name}_row", [rows]))
    number = model.input("number", w["number.weight"].shape[1])
    parts.append(model.dense("numbers", number, w["number.weight"].T, w["number.bias"]))
    x = model.sum("summed", *parts)  # (B, D)
    wide = model.dense("widen", x, w["mlp.widen.weight"].T, w["mlp.widen.bias"], activation="relu")
    x = model.sum("residual", x, model.dense("narrow", wide, w["mlp.narrow.weight"].T, w["mlp.narrow.bias"]))
    model.output = _unit(model, x, number, dim, w["number.weight"].shape[1])
    return model


def _unit(model: _Layers, x: str, constant_from: str, dim: int, width: int) -> str:
    """X / ‖x‖, (B, D): a normalising Dot of x and the rows of the identity, which are of unit length already."""
    count = model.dense("count", constant_from, np.zeros((width, dim), np.float32), np.arange(dim, dtype=np.float32))
    identity = model.embedding("identity", np.eye(dim, dtype=np.float32), count)  # (B, D, D)
    row = model.add("Reshape", "row", [x], target_shape=[1, dim])
    return model.add("Flatten", "vector", [model.add("Dot", "unit", [row, identity], axes=[2, 1], normalize=True)])


def _packed(weights: Sequence[tuple[str, Float32s]], tables: Quantised) -> tuple[list[Json], bytes]:
    """The manifest's entries and all weights in a row; only embeddings are quantised, and not the identity."""
    specs: list[Json] = []
    parts: list[bytes] = []
    for name, value in weights:
        spec: Json = {"name": name, "shape": [*value.shape], "dtype": "float32"}
        stored: npt.NDArray[Any] = value.astype("<f4")
        if tables != "float32" and name.endswith("/embeddings") and name != "identity/embeddings":
            if tables == "float16":
                spec["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
                stored = value.astype("<f2")
            else:
                low, high = float(value.min()), float(value.max())
                scale = (high - low) / 255 or 1.0
                spec["quantization"] = {"dtype": "uint8", "scale": scale, "min": low, "original_dtype": "float32"}
                stored = np.clip(np.round((value.astype(np.float64) - low) / scale), 0, 255).astype(np.uint8)
        specs.append(spec)
        parts.append(stored.tobytes())
    return specs, b"".join(parts)


@dataclass
class _Layers:
    """A functional Keras model in the making; every method returns the name of the layer that it added."""

    layers: list[Json] = field(default_factory=list)
    weights: list[tuple[str, Float32s]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    output: str = ""

    def input(self, name: str, length: int | None, dtype: str = "float32") -> str:
        config = {"batch_input_shape": [None, length], "dtype": dtype, "sparse": False, "name": name}
        self.layers.append({"class_name": "InputLayer", "config": config, "name": name, "inbound_nodes": []})
        self.inputs.append(name)
        return name

    def add(self, kind: str, name: str, inputs: Sequence[str], **config: object) -> str:
        inbound = [[[each, 0, 0, {}] for each in inputs]]
        whole = {"name": name, "trainable": False, "dtype": "float32", **config}
        self.layers.append({"class_name": kind, "config": whole, "name": name, "inbound_nodes": inbound})
        return name

    def embedding(self, name: str, table: Float32s, index: str) -> str:
        """Rows of a table, (B, L, D)."""
        self.weights.append((f"{name}/embeddings", table))
        return self.add("Embedding", name, [index], input_dim=table.shape[0], output_dim=table.shape[1])

    def dense(self, name: str, x: str, kernel: Float32s, bias: Float32s | None, *, activation: str = "linear") -> str:
        """kernel: (in, out), as Keras has it."""
        self.weights.append((f"{name}/kernel", np.ascontiguousarray(kernel)))
        if bias is not None:
            self.weights.append((f"{name}/bias", bias))
        return self.add("Dense", name, [x], units=kernel.shape[1], activation=activation, use_bias=bias is not None)

    def dot(self, name: str, weight: str, rows: str) -> str:
        """weight: (B, T); rows: (B, T, D). (B, D)."""
        return self.add("Dot", name, [weight, rows], axes=[1, 1], normalize=False)

    def sum(self, name: str, *parts: str) -> str:
        return self.add("Add", name, parts)

    def topology(self) -> Json:
        config = {
            "name": "genba_user_tower",
            "layers": self.layers,
            "input_layers": [[name, 0, 0] for name in self.inputs],
            "output_layers": [[self.output, 0, 0]],
        }
        return {
            "keras_version": "2.15.0",
            "backend": "tensorflow",
            "model_config": {"class_name": "Functional", "config": config},
        }
