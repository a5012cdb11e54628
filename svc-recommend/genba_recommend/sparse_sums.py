"""Weighted sums of table rows, for embedding bags and pooled histories.

On a CPU as a product with a sparse matrix, and backwards with its transpose: ``embedding_bag`` sorts its indices anew in every
backward pass, and a look-up followed by a product holds each row that was looked up. Elsewhere torch's own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

_ROWS_AT_ONCE = 64  # of looked-up rows, so that they stay in the cache


class Places(NamedTuple):
    """Where weights of the same lists lie: found once, for several sums over them."""

    there: NDArray[np.bool_]  # (N, L)
    columns: NDArray[np.int32]
    offsets: NDArray[np.int32]


def places_of(index: Tensor, weight: Tensor) -> Places:
    """index, weight: (N, L), weight 0 where there is nothing."""
    there = (weight != 0).cpu().numpy()
    offsets = np.zeros(len(there) + 1, np.int32)
    np.cumsum(there.sum(1), out=offsets[1:])
    return Places(there, index.cpu().numpy()[there].astype(np.int32), offsets)


def weighted_sum(table: Tensor, index: Tensor, weight: Tensor, places: Places | None = None) -> Tensor:
    """table: (V, D).   index, weight: (N, L), weight 0 where there is nothing. Returns: (N, D).

    Both ``table`` and ``weight`` may want a gradient; a weight of exactly 0 gets 0. ``places``: where ``weight`` may be more
    than 0, if that is known already.
    """
    if table.device.type != "cpu":
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=weight)
    out: Tensor = _WeightedSum.apply(table, index, weight, places or places_of(index, weight.detach()))
    return out


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weight: Tensor, places: Places) -> Tensor:
        ctx.save_for_backward(table, index, weight)
        values = weight.detach().numpy()[places.there]
        ctx.matrix = sp.csr_array((values, places.columns, places.offsets), shape=(len(weight), len(table)))  # (N, V)
        return torch.from_numpy(ctx.matrix @ table.detach().numpy())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        table, index, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_table = torch.from_numpy(ctx.matrix.T @ gradient.numpy()) if ctx.needs_input_grad[0] else None
        of_weight = _of_weight(table, index, weight, gradient) if ctx.needs_input_grad[2] else None
        return of_table, None, of_weight, None


def _of_weight(table: Tensor, index: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """(N, L): how each looked-up row lies to the gradient of its sum."""
    out = torch.empty_like(weight)
    for at in range(0, len(index), _ROWS_AT_ONCE):
        some = slice(at, at + _ROWS_AT_ONCE)
        found = F.embedding(index[some], table)  # (R, L, D)
        out[some] = (found @ gradient[some].unsqueeze(-1)).squeeze(-1)
    return out * (weight != 0)
