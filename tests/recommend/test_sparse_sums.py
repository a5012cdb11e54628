"""Weighted sums of table rows: the same numbers as torch's embedding bag, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from genba_recommend.sparse_sums import places_of, weighted_sum

N_ROWS, DIM = 40, 6


def _asked(n: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """A table, rows of it and weights: some of nothing, one list without anything, one row twice in a list."""
    chance = torch.Generator().manual_seed(3)
    table = torch.randn(N_ROWS, DIM, generator=chance, dtype=torch.float64)
    index = torch.randint(1, N_ROWS, (n, length), generator=chance)
    weight = torch.rand(n, length, generator=chance, dtype=torch.float64)
    nothing = torch.rand(n, length, generator=chance) < 0.4
    nothing[1] = True
    index[2, :2], nothing[2, :2] = 7, False
    return table, index.masked_fill(nothing, 0), weight.masked_fill(nothing, 0.0)


@pytest.mark.parametrize("n", [3, 200])
def test_sums_and_gradients_are_those_of_an_embedding_bag(n: int) -> None:
    table, index, weight = _asked(n, 5)
    upstream = torch.randn(n, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    ways: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
        lambda t, w: weighted_sum(t, index, w),
        lambda t, w: F.embedding_bag(index, t, mode="sum", per_sample_weights=w),
    )
    found = []
    for summed in ways:
        leaves = table.clone().requires_grad_(), weight.clone().requires_grad_()
        out = summed(*leaves)
        of_table, of_weight = torch.autograd.grad(out, leaves, upstream)
        found.append((out.detach(), of_table, of_weight * (weight != 0)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert found[0][0][1].abs().max() == 0, "a list of nothing sums to nothing"


def test_the_gradient_reaches_weights_that_are_themselves_computed() -> None:
    table, index, _ = _asked(20, 5)
    logits = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5), requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda t, x: weighted_sum(t, index, torch.softmax(x, 1)), (table.requires_grad_(), logits)
    )


def test_a_table_that_does_not_learn_asks_for_no_gradient() -> None:
    table, index, weight = _asked(4, 5)
    assert not weighted_sum(table, index, weight).requires_grad


def test_sums_over_the_same_places_are_the_same_to_the_bit() -> None:
    """Also where a weight came out as 0 in a place that may hold more."""
    table, index, weight = _asked(200, 5)
    places, upstream = places_of(index, weight), torch.randn(200, DIM, dtype=torch.float64)
    for values in (weight, weight.square(), weight * (weight > 0.5)):
        found = []
        for known in (None, places):
            leaves = table.clone().requires_grad_(), values.clone().requires_grad_()
            out = weighted_sum(leaves[0], index, leaves[1], known)
            found.append((out.detach(), *torch.autograd.grad(out, leaves, upstream)))
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))
