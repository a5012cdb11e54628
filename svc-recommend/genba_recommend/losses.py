"""What towers are trained to do: put the next item above the others. Logits in, a number out.

Two losses. ``sampled_softmax`` estimates the softmax over the whole catalogue from a mixture of in-batch and uniform negatives
(Yang et al. 2020), each lowered by the logarithm of how often it is expected among the samples (logQ, Bengio & Senécal 2008;
Yi et al. 2019); the positive was not sampled and is not corrected. Adding the logarithm instead of subtracting it is the classic
bug: the model then learns to avoid what is popular. ``hinge`` is the plan's: a margin over random, hard and popular negatives.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

MASKED = -1e4  # far below any logit, and finite: a row whose negatives are all masked has loss 0, not nan


def sampled_softmax(
    positive: Tensor, negative: Tensor, *, log_expected: Tensor, mask: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the positive against the catalogue, estimated from samples.

    Args:
        positive: (B,) logits.   negative: (B, M) logits of M samples.
        log_expected: (M,) log of how often each is expected among the samples, M·q for a proposal q.
        mask: (B, M) bool, True for an accidental hit (the sample is this row's positive).   weight: (B,) of the rows.
    Returns: scalar.
    """
    corrected = (negative - log_expected).masked_fill(mask, MASKED)
    loss = torch.logaddexp(positive, torch.logsumexp(corrected, dim=1)) - positive  # (B,)
    return loss.mean() if weight is None else (loss * weight).sum() / weight.sum()


def contrast(positive: Tensor, hard: Tensor) -> Tensor:
    """Cross-entropy of the positive against each row's own hard negatives. Args: positive: (B,). hard: (B, H)."""
    return (torch.logaddexp(positive, torch.logsumexp(hard, dim=1)) - positive).mean()


def hinge(positive: Tensor, negative: Tensor, *, margin: float, mask: Tensor) -> Tensor:
    """Mean of max(0, margin − positive + negative) over the negatives that are none of the row's positives.

    Args: positive: (B,) cosines.   negative: (B, M) cosines.   mask: (B, M) bool, True for an accidental hit.
    """
    loss = F.relu(margin - positive.unsqueeze(1) + negative) * ~mask
    return loss.sum() / (~mask).sum().clamp_min(1)


def mixture_log_expected(frequency: Tensor, *, n_in_batch: int, n_uniform: int, n_items: int) -> Tensor:
    """Log of how often an item is expected among ``n_in_batch`` positives and ``n_uniform`` uniform samples.

    Args: frequency: (...) probability of the item as a positive, 0 for one that never is.
    """
    floor = 1e-12  # an item outside of both has no business among the samples; keep the logarithm finite
    return torch.log((n_in_batch * frequency + n_uniform / n_items).clamp_min(floor))


def hardest(scores: Tensor, n: int, *, mask: Tensor) -> Tensor:
    """Return the columns of the n highest scores of each row that are no hits, (B, n). Args: scores: (B, P). mask: (B, P) bool."""
    return scores.masked_fill(mask, -math.inf).topk(min(n, scores.shape[1]), dim=1).indices
