"""Rotations of eight dimensions from their Lie algebra: 28 numbers each, thousands at a time.

Two maps from an angle vector to SO(8). The Cayley map costs one batched solve and is what training uses; the matrix
exponential is the reference. Both give rotations to machine precision, which a truncated Neumann series does not, and
neither is mended by an SVD, whose gradient is nan at a rotation (all singular values are equal). Knows no model.
"""

from __future__ import annotations

import functools
import math
from typing import Final, Literal

import torch
from torch import Tensor

BLOCK: Final = 8
N_ANGLES: Final = BLOCK * (BLOCK - 1) // 2
Map = Literal["cayley", "exponential"]


@functools.cache
def _upper() -> tuple[Tensor, Tensor]:
    rows, columns = torch.triu_indices(BLOCK, BLOCK, offset=1)
    return rows, columns


def skew(theta: Tensor) -> Tensor:
    """The skew-symmetric matrices of ``theta``.

    Args:    theta: (N, 28) the entries above the diagonal, row by row.
    Returns: (N, 8, 8), A[i, j] = −A[j, i].
    Raises:  ValueError for another shape.
    """
    if theta.ndim != 2 or theta.shape[1] != N_ANGLES:
        message = f"theta has shape {tuple(theta.shape)}; (N, {N_ANGLES}) is wanted"
        raise ValueError(message)
    rows, columns = (index.to(theta.device) for index in _upper())
    flat = theta.new_zeros(theta.shape[0], BLOCK * BLOCK).index_copy(1, rows * BLOCK + columns, theta)
    upper = flat.view(-1, BLOCK, BLOCK)
    return upper - upper.transpose(1, 2)


def cayley(theta: Tensor) -> Tensor:
    """R = (I + A)(I − A)⁻¹ for A = skew(theta): (N, 28) → (N, 8, 8). Equal to 2·atan of A's angles; never reaches π.

    (I − A) has singular values of at least 1, so the solve is well-conditioned at every theta.
    """
    a = skew(theta)
    eye = torch.eye(BLOCK, dtype=theta.dtype, device=theta.device)
    # (I + A) and (I − A)⁻¹ commute, so one solve gives the product in either order.
    return torch.linalg.solve(eye - a, eye + a)


def exponential(theta: Tensor) -> Tensor:
    """R = exp(skew(theta)): (N, 28) → (N, 8, 8)."""
    return torch.linalg.matrix_exp(skew(theta))


def rotations(theta: Tensor, how: Map = "cayley") -> Tensor:
    """(N, 28) → (N, 8, 8) by the named map."""
    return cayley(theta) if how == "cayley" else exponential(theta)


def rotate(x: Tensor, blocks: Tensor) -> Tensor:
    """Apply a block-diagonal rotation to the last axis of ``x``.

    Args:    x: (..., 8·B).   blocks: (B, 8, 8).
    Returns: (..., 8·B), block b is ``blocks[b] @ x[..., b]``, in x's dtype.
    """
    n_blocks = blocks.shape[0]
    parts = x.reshape(-1, n_blocks, BLOCK).transpose(0, 1)  # (B, M, 8)
    turned = torch.bmm(parts, blocks.transpose(1, 2).to(x.dtype))  # (B, M, 8)
    return turned.transpose(0, 1).reshape(x.shape)


def rotate_rows(weight: Tensor, blocks: Tensor) -> Tensor:
    """R·W: (8·B, I) with blocks (B, 8, 8). What burns an output rotation into a linear layer's ``[out, in]`` weight."""
    n_blocks = blocks.shape[0]
    return torch.bmm(blocks.to(weight.dtype), weight.reshape(n_blocks, BLOCK, -1)).reshape(weight.shape)


def rotate_columns(weight: Tensor, blocks: Tensor) -> Tensor:
    """W·R: (O, 8·B) with blocks (B, 8, 8). What burns an input rotation into a linear layer's ``[out, in]`` weight."""
    n_blocks = blocks.shape[0]
    parts = weight.reshape(weight.shape[0], n_blocks, BLOCK).transpose(0, 1)  # (B, O, 8)
    return torch.bmm(parts, blocks.to(weight.dtype)).transpose(0, 1).reshape(weight.shape)


def angles(blocks: Tensor) -> Tensor:
    """The four rotation angles of each block, ascending: (N, 8, 8) → (N, 4) radians in [0, π].

    A rotation of SO(8) has eigenvalues e^(±iφ) in four pairs.
    """
    values = torch.linalg.eigvals(blocks.detach().double().cpu())  # (N, 8) complex
    return values.angle().abs().sort(dim=1).values[:, ::2].clamp(0.0, math.pi)


def orthogonality_error(blocks: Tensor) -> float:
    """The largest |RᵀR − I| entry over all blocks, in double precision. 0 for no blocks."""
    if blocks.shape[0] == 0:
        return 0.0
    wide = blocks.detach().double()
    eye = torch.eye(BLOCK, dtype=torch.float64, device=wide.device)
    return float((wide.transpose(1, 2) @ wide - eye).abs().max())
