"""The towers, and the neighbours beside them, as ONNX graphs, written node by node.

No tracing, so a graph is the model's formula and nothing else. Weights in, by the names of ``two_tower.parameters``; a graph out.
Tables of embeddings may be halved (float16) or quartered (int8 with a scale a row); everything else stays float32. Knows no torch
and no database.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from genba_recommend.heads import Heads

__all__ = (
    "HEADS", "ITEM_TOWER", "NEIGHBOURS", "USER_TOWER", "Tables", "heads", "item_tower", "neighbours", "round_tables", "save", "user_tower",
)  # fmt: skip

Float32s = npt.NDArray[np.float32]
Weights = Mapping[str, Float32s]
Tables = Literal["float32", "float16", "int8"]
USER_TOWER, ITEM_TOWER, NEIGHBOURS = "user_tower.onnx", "item_tower.onnx", "neighbours.onnx"
HEADS = "heads.onnx"
OPSET, IR_VERSION = 17, 8  # what onnxruntime of 2022 reads; nothing newer is needed
INT, FLOAT = TensorProto.INT32, TensorProto.FLOAT


def user_tower(weights: Weights, *, vectors: Float32s | None = None, tables: Tables = "float32") -> onnx.ModelProto:
    """The user tower; inputs are the columns of ``UserFeatures`` by name, the output is ``vector`` (B, D), unit length.

    ``vectors``: (N, D) of the items that histories refer to, baked into the graph. Without them the graph has one more input,
    ``table`` (n + 1, D), zeros first, and holds nothing that grows with the catalogue: so a service runs it.
    """
    w = _below(weights, "user_tower.")
    dim, pools = w["pool.weight"].shape
    graph = _Graph(tables)
    history, weight = graph.input("history", INT, ["B", "T"]), graph.input("weight", FLOAT, ["B", "T"])
    if vectors is None:
        found = graph.op("Gather", graph.input("table", FLOAT, ["rows", dim]), history)  # (B, T, D)
    else:
        padded = np.concatenate([np.zeros((1, dim), np.float32), vectors])  # (N + 1, D)
        found = graph.lookup("items", padded, history)
    mean = graph.weighted_sum(graph.share(weight), found)  # (B, D)
    pooled = mean
    if pools > dim:
        pooled = graph.op("Concat", _attended(graph, w, weight, found), mean, _newest(graph, found), axis=1)
    x = graph.dense(pooled, w["pool.weight"], w["pool.bias"])  # (B, D)
    for name in ("genre", "maker"):
        index = graph.input(name, INT, ["B", f"{name}s"])
        x = graph.op("Add", x, graph.mean_of(f"{name}.weight", w[f"{name}.weight"], index))
    for name in ("age_range", "region"):
        x = graph.op("Add", x, graph.lookup(f"{name}.weight", w[f"{name}.weight"], graph.input(name, INT, ["B"])))
    number = graph.input("number", FLOAT, ["B", w["number.weight"].shape[1]])
    x = graph.op("Add", x, graph.dense(number, w["number.weight"], w["number.bias"]))
    return graph.model("genba_user_tower", graph.unit(graph.residual(x, w)), dim)


def item_tower(weights: Weights, *, tables: Tables = "float32") -> onnx.ModelProto:
    """The item tower; inputs are the columns of ``ItemFeatures`` by name (``embedding`` only where the model has it)."""
    w = _below(weights, "item_tower.")
    dim = w["id.weight"].shape[1]
    graph = _Graph(tables)
    x = graph.lookup("id.weight", w["id.weight"], graph.input("id", INT, ["B"]))  # (B, D)
    number = graph.input("number", FLOAT, ["B", w["number.weight"].shape[1]])
    x = graph.op("Add", x, graph.dense(number, w["number.weight"], w["number.bias"]))
    for name in ("genre", "maker", "performers", "tags"):
        index = graph.input(name, INT, ["B", f"{name}_len"])
        x = graph.op("Add", x, graph.mean_of(f"{name}.weight", w[f"{name}.weight"], index))
    terms = graph.lookup("text.weight", w["text.weight"], graph.input("text", INT, ["B", "text_len"]))
    x = graph.op("Add", x, graph.weighted_sum(graph.input("text_weight", FLOAT, ["B", "text_len"]), terms))
    buckets = sorted(name for name in w if name.startswith("number_bucket."))
    bucket = graph.input("number_bucket", INT, ["B", len(buckets)])
    for at, name in enumerate(buckets):
        column = graph.op("Gather", bucket, graph.constant(np.array(at, np.int64)), axis=1)  # (B,)
        x = graph.op("Add", x, graph.lookup(name, w[name], column))
    if "embedding.weight" in w:
        embedding = graph.input("embedding", FLOAT, ["B", w["embedding.weight"].shape[1]])
        x = graph.op("Add", x, graph.dense(embedding, w["embedding.weight"], None))
    return graph.model("genba_item_tower", graph.unit(graph.residual(x, w)), dim)


def neighbours(
    item: npt.NDArray[np.int32], weight: Float32s, *, blend: float, fade: float, tables: Tables
) -> onnx.ModelProto:
    """What histories speak for beside the towers (``blending``); inputs ``history`` and ``weight`` as of the user tower's, of any
    length, the output is ``lift`` (B, N), to be added to the scores. Args: item, weight: (N, K).   blend: weight of it all.
    """
    n, k = item.shape
    graph = _Graph("float32" if tables == "float32" else "float16")  # a scale a row would take as much as it saves
    history, weights = graph.input("history", INT, ["B", "T"]), graph.input("weight", FLOAT, ["B", "T"])
    zero, one = (graph.constant(np.array(each, np.int64)) for each in (0, 1))
    shape = graph.op("Shape", history)
    length = graph.op("Gather", shape, one)
    place = graph.op("Cast", graph.op("Range", zero, length, one), to=FLOAT)  # (T,)
    faded = graph.op("Mul", weights, graph.op("Pow", graph.scalar(fade), place))  # (B, T)
    total = graph.op(
        "Sqrt", graph.op("Max", graph.op("ReduceSum", faded, graph.axes(1), keepdims=1), graph.scalar(1e-6))
    )
    spoken = graph.op("Mul", graph.op("Div", faded, total), graph.scalar(blend))
    rows = np.concatenate([np.zeros((1, k), np.int32), item + 1])  # (N + 1, K), nothing first
    values = np.concatenate([np.zeros((1, k), np.float32), weight])
    flat = graph.constant(np.array([0, -1], np.int64))
    index = graph.op("Gather", graph.constant(rows, "neighbour_rows"), history)  # (B, T, K)
    found = graph.op(
        "Mul", graph.lookup("neighbour_weights", values, history), graph.op("Unsqueeze", spoken, graph.axes(2))
    )
    batch = graph.op("Slice", shape, graph.axes(0), graph.axes(1))  # (1,)
    nothing = graph.op("ConstantOfShape", graph.op("Concat", batch, graph.axes(n + 1), axis=0))  # (B, N + 1)
    summed = graph.op(
        "ScatterElements", nothing, graph.op("Reshape", index, flat), graph.op("Reshape", found, flat),
        axis=1, reduction="add",
    )  # fmt: skip
    lift = graph.op("Slice", summed, graph.axes(1), graph.axes(n + 1), graph.axes(1))
    return graph.model("genba_neighbours", lift, n, output="lift")


def heads(found: Heads) -> onnx.ModelProto:
    """What heads foresee of pairs; inputs ``user`` and ``item`` (B, D) vectors, the output is ``chance`` (B, T) by task."""
    dim = len(found.widen) // 3
    graph = _Graph("float32")
    user, item = graph.input("user", FLOAT, ["B", dim]), graph.input("item", FLOAT, ["B", dim])
    product = graph.op("Mul", graph.op("Mul", user, item), graph.scalar(dim))
    pairs = graph.op("Concat", user, item, product, axis=1)
    wide = graph.op("Relu", graph.dense(pairs, found.widen.T, found.widen_bias))
    chance = graph.op("Sigmoid", graph.dense(wide, found.narrow.T, found.narrow_bias))
    return graph.model("genba_heads", chance, len(found.tasks), output="chance")


def save(model: onnx.ModelProto, path: Path) -> int:
    """Check and write a graph; returns its size in bytes."""
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    path.write_bytes(data)
    return len(data)


def round_tables(weights: Weights, tables: Tables) -> dict[str, Float32s]:
    """The weights as a graph with such tables computes with them: what its parity is measured against."""
    return {name: _restored(*_packed(value, tables)) if _is_table(name) else value for name, value in weights.items()}


def _is_table(name: str) -> bool:
    part = name.split(".")[1]
    return part in {"id", "genre", "maker", "performers", "tags", "text", "number_bucket", "age_range", "region"}


def _packed(table: Float32s, tables: Tables) -> tuple[npt.NDArray[Any], Float32s | None]:
    """The stored table, and for int8 the scale of each row, (N, 1)."""
    if tables == "float32":
        return table.astype(np.float32), None
    if tables == "float16":
        return table.astype(np.float16), None
    scale = np.maximum(np.abs(table).max(1, keepdims=True), 1e-12).astype(np.float32) / np.float32(127)
    return np.round(table / scale).astype(np.int8), scale


def _restored(stored: npt.NDArray[Any], scale: Float32s | None) -> Float32s:
    whole = stored.astype(np.float32)
    return whole if scale is None else whole * scale


def _below(weights: Weights, prefix: str) -> dict[str, Float32s]:
    found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    if not found:
        message = f"No weight is named {prefix}…; got {sorted(weights)[:5]}"
        raise ValueError(message)
    return found


def _attended(graph: _Graph, w: Weights, weight: str, found: str) -> str:
    """(B, D): the history by softmax over place and content, weighted."""
    length = graph.op("Gather", graph.op("Shape", found), graph.constant(np.array([1], np.int64)))  # (1,)
    start = graph.constant(np.array([0], np.int64))
    position = graph.op("Slice", graph.constant(w["position"]), start, length)  # (T,)
    content = graph.op("Squeeze", graph.op("MatMul", found, graph.constant(w["attend.weight"].T)), graph.axes(-1))
    logits = graph.op("Add", content, position)  # (B, T)
    logits = graph.op("Add", logits, graph.op("Log", graph.op("Max", weight, graph.scalar(1e-9))))
    there = graph.op("Cast", graph.op("Greater", weight, graph.scalar(0.0)), to=FLOAT)
    return graph.weighted_sum(graph.op("Mul", graph.op("Softmax", logits, axis=1), there), found)


def _newest(graph: _Graph, found: str) -> str:
    return graph.op("Gather", found, graph.constant(np.array(0, np.int64)), axis=1)


class _Graph:
    """Nodes, inputs and constants in the making; every method returns the name of what it added."""

    def __init__(self, tables: Tables) -> None:
        self._tables: Tables = tables
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._constants: list[onnx.TensorProto] = []

    def input(self, name: str, kind: int, shape: list[str | int]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, value: npt.NDArray[Any], name: str | None = None) -> str:
        name = name or f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def axes(self, axis: int) -> str:
        return self.constant(np.array([axis], np.int64))

    def op(self, kind: str, *inputs: str, **attributes: int | str) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def dense(self, x: str, weight: Float32s, bias: Float32s | None) -> str:
        """x: (B, in); weight: (out, in), as torch has it. (B, out)."""
        product = self.op("MatMul", x, self.constant(weight.T))
        return product if bias is None else self.op("Add", product, self.constant(bias))

    def lookup(self, name: str, table: Float32s, index: str) -> str:
        """Rows of a table, float32 whatever it is stored as. (..., D)."""
        stored, scale = _packed(table, self._tables)
        rows = self.op("Gather", self.constant(stored, name), index)
        if self._tables == "float32":
            return rows
        rows = self.op("Cast", rows, to=FLOAT)
        return rows if scale is None else self.op("Mul", rows, self.op("Gather", self.constant(scale), index))

    def weighted_sum(self, weight: str, rows: str) -> str:
        """weight: (B, T); rows: (B, T, D). (B, D)."""
        return self.op("Squeeze", self.op("MatMul", self.op("Unsqueeze", weight, self.axes(1)), rows), self.axes(1))

    def share(self, weight: str) -> str:
        """(B, T): of each row's sum."""
        total = self.op("ReduceSum", weight, self.axes(1), keepdims=1)
        return self.op("Div", weight, self.op("Max", total, self.scalar(1e-6)))

    def mean_of(self, name: str, table: Float32s, index: str) -> str:
        """index: (B, L), 0 for nothing. (B, D), zeros without anything."""
        there = self.op("Cast", self.op("Greater", index, self.constant(np.array(0, np.int32))), to=FLOAT)
        count = self.op("Max", self.op("ReduceSum", there, self.axes(1), keepdims=1), self.scalar(1.0))
        return self.op("Div", self.weighted_sum(there, self.lookup(name, table, index)), count)

    def residual(self, x: str, w: Weights) -> str:
        """X + W₂ relu(W₁ x)."""
        wide = self.op("Relu", self.dense(x, w["mlp.widen.weight"], w["mlp.widen.bias"]))
        return self.op("Add", x, self.dense(wide, w["mlp.narrow.weight"], w["mlp.narrow.bias"]))

    def unit(self, x: str) -> str:
        length = self.op("ReduceL2", x, axes=[1], keepdims=1)  # type: ignore[arg-type]  # a list is an attribute too
        return self.op("Div", x, self.op("Max", length, self.scalar(1e-12)))

    def model(self, name: str, result: str, dim: int, *, output: str = "vector") -> onnx.ModelProto:
        self._nodes.append(helper.make_node("Identity", [result], [output]))
        out = helper.make_tensor_value_info(output, FLOAT, ["B", dim])
        graph = helper.make_graph(self._nodes, name, self._inputs, [out], self._constants)
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="genba")
