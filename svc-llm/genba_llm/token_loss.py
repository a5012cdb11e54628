"""The loss over a large vocabulary, for the memory of a few hundred tokens.

A step of 4,096 tokens over 200,000 words holds 3.3 GB of logits in single precision, and again for their gradient. Only the
tokens that are learnt need any, and they need them in turn: each chunk's logits are made, used and made anew on the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name
from torch.utils.checkpoint import checkpoint

from genba_llm.packing import IGNORED, collate, micro_batches

if TYPE_CHECKING:
    from genba_llm.finetune import Data

CHUNK = 1 << 26  # logits at a time: 256 MiB in single precision


def summed_loss(head: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the next token in nats, summed over the tokens that are learnt.

    Args:
        head: (N, D) to logits (N, V).
        hidden: (B, T, D), the states that the head reads.
        labels: (B, T), −100 is not learnt.
    """
    following = labels[:, 1:]
    learnt = following != IGNORED
    states, truth = hidden[:, :-1][learnt], following[learnt]  # (N, D), (N,)
    if not truth.numel():
        return hidden.float().sum() * 0.0
    with torch.no_grad():
        rows = max(1, CHUNK // head(states[:1]).shape[-1])
    losses = [
        checkpoint(_chunk_loss, head, some, words, smoothing, use_reentrant=False)
        for some, words in zip(states.split(rows), truth.split(rows), strict=True)
    ]
    return torch.stack(losses).sum()


def _chunk_loss(head: Callable[[Tensor], Tensor], states: Tensor, words: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(head(states).float(), words, label_smoothing=smoothing, reduction="sum")


def learnt_logits(model: Any, data: Data, *, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(N, V) logits and (N,) tokens that came, of the learnt tokens of each batch of validation rows."""
    device = next(model.parameters()).device
    for group in micro_batches(data.validation, batch_size):
        batch = collate(group, length=data.length, pad_id=data.pad_id).to(device)
        hidden = model.get_decoder()(
            input_ids=batch.input_ids, attention_mask=batch.attention(), position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        learnt = batch.labels[:, 1:] != IGNORED
        yield model.get_output_embeddings()(hidden[:, :-1][learnt]), batch.labels[:, 1:][learnt]
