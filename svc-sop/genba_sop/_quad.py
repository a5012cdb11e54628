"""A number type for compiled loops: four floats in one register.

numba vectorises loops over arrays, but not a wave whose state stays in registers; this says it outright. It is plain
LLVM vector arithmetic, which becomes AVX, or two SSE or NEON instructions, whatever the machine has. Knows nothing of
what it is used for, and works inside compiled functions only.
"""
# ruff: noqa: ARG001 -- numba calls these with types to learn how many arguments there are; the code takes the values

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, models, register_model

_INDEX = ir.IntType(32)
_VECTOR = ir.VectorType(ir.DoubleType(), 4)
_FLOAT = types.float64

Quad = Any  # (4,) float64 in a register


class QuadType(types.Type):  # type: ignore[misc] # numba is untyped
    def __init__(self) -> None:
        super().__init__(name="Quad")


@register_model(QuadType)
class QuadModel(models.PrimitiveModel):  # type: ignore[misc] # numba is untyped
    def __init__(self, manager: Any, declared: Any) -> None:
        super().__init__(manager, declared, _VECTOR)


_QUAD = QuadType()


@intrinsic  # type: ignore[untyped-decorator]
def quad(_context: Any, x0: Any, x1: Any, x2: Any, x3: Any) -> Any:
    """Four floats side by side."""

    def build(_target: Any, builder: Any, _signature: Any, values: Any) -> Any:
        vector = ir.Constant(_VECTOR, ir.Undefined)
        for i, value in enumerate(values):
            vector = builder.insert_element(vector, value, _INDEX(i))
        return vector

    return _QUAD(_FLOAT, _FLOAT, _FLOAT, _FLOAT), build


@intrinsic  # type: ignore[untyped-decorator]
def plus(_context: Any, x: Any, y: Any) -> Any:
    """Sum of each lane."""
    return _QUAD(_QUAD, _QUAD), lambda _target, builder, _signature, values: builder.fadd(*values)


@intrinsic  # type: ignore[untyped-decorator]
def least(_context: Any, x: Any, y: Any) -> Any:
    """In each lane x where x < y, else y: the second also where either is nan."""

    def build(_target: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *values), *values)

    return _QUAD(_QUAD, _QUAD), build


@intrinsic  # type: ignore[untyped-decorator]
def pushed(_context: Any, x: Any, first: Any) -> Any:
    """[first, x0, x1, x2]."""

    def build(_target: Any, builder: Any, _signature: Any, values: Any) -> Any:
        order = ir.Constant(ir.VectorType(_INDEX, 4), [0, 0, 1, 2])
        return builder.insert_element(builder.shuffle_vector(values[0], values[0], order), values[1], _INDEX(0))

    return _QUAD(_QUAD, _FLOAT), build


@intrinsic  # type: ignore[untyped-decorator]
def lane(_context: Any, x: Any, i: Any) -> Any:
    """The float in lane i."""

    def build(_target: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.extract_element(values[0], builder.trunc(values[1], _INDEX))

    return _FLOAT(_QUAD, types.int64), build
