"""The chunked loss is the plain one, in value and gradient, whatever the chunks."""

from __future__ import annotations

import pytest
import torch
from tests.llm.phi3_world import tiny_phi3, tokens
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from genba_llm import token_loss
from genba_llm.packing import IGNORED


def _plain(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1),
        labels[:, 1:].flatten(),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
        reduction="sum",
    )


def _labels(ids: Tensor) -> Tensor:
    labels = ids.clone()
    labels[0, :9] = IGNORED
    labels[1, 5:] = IGNORED
    return labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [128, 128 * 5, 1 << 26])  # one row at a time, five, all at once
def test_the_chunked_loss_is_the_plain_one_with_its_gradient(
    monkeypatch: pytest.MonkeyPatch, chunk: int, smoothing: float
) -> None:
    monkeypatch.setattr(token_loss, "CHUNK", chunk)
    model, ids = tiny_phi3(), tokens()
    labels = _labels(ids)
    _plain(model(input_ids=ids).logits, labels, smoothing).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    hidden = model.get_decoder()(input_ids=ids).last_hidden_state
    loss = token_loss.summed_loss(model.get_output_embeddings(), hidden, labels, smoothing=smoothing)
    loss.backward()
    with torch.no_grad():
        torch.testing.assert_close(loss.detach(), _plain(model(input_ids=ids).logits, labels, smoothing))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)


def test_a_batch_in_which_nothing_is_learnt_costs_nothing_and_has_a_gradient() -> None:
    model, ids = tiny_phi3(), tokens()
    hidden = model.get_decoder()(input_ids=ids).last_hidden_state
    loss = token_loss.summed_loss(model.get_output_embeddings(), hidden, torch.full_like(ids, IGNORED))
    loss.backward()
    assert loss.item() == 0.0
    assert all(float(p.grad.abs().max()) == 0.0 for p in model.parameters() if p.grad is not None)
