"""PET, annealed noise, the learning rate and the average of weights."""

from __future__ import annotations

import math

import pytest
import torch
from tests.llm.phi3_world import tiny_phi3, tokens
from torch import nn

from genba_llm.annealing import WeightAverage, add_gradient_noise, gradient_noise_std, learning_rate
from genba_llm.pet import HiddenTap, pet_loss, pet_weight


def test_a_straight_line_has_no_jerk() -> None:
    line = torch.arange(6.0).view(1, 6, 1) * torch.ones(1, 6, 4)
    assert float(pet_loss(line, torch.ones(1, 6, dtype=torch.long))) == pytest.approx(0.0)


def test_jerk_is_the_mean_second_difference_over_the_energy() -> None:
    hidden = torch.randn(2, 7, 5)
    bend = (hidden[:, 2:] - 2 * hidden[:, 1:-1] + hidden[:, :-2]).square().sum(-1).mean()
    expected = bend / hidden.square().sum(-1).mean()
    assert float(pet_loss(hidden, torch.ones(2, 7, dtype=torch.long))) == pytest.approx(float(expected), rel=1e-5)


def test_shrinking_the_states_does_not_help() -> None:
    hidden, segments = torch.randn(1, 9, 4), torch.ones(1, 9, dtype=torch.long)
    assert float(pet_loss(0.01 * hidden, segments)) == pytest.approx(float(pet_loss(hidden, segments)), rel=1e-4)


def test_padding_and_borders_of_a_packed_row_do_not_count() -> None:
    one, other = torch.randn(1, 4, 3), 100 * torch.randn(1, 3, 3)
    packed = torch.cat([one, other, torch.full((1, 2, 3), 7.0)], dim=1)
    segments = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 0, 0]])
    straight = torch.cat([torch.arange(4.0).view(1, 4, 1).expand(1, 4, 3), torch.zeros(1, 3, 3)], dim=1)
    assert float(pet_loss(straight, segments[:, :7])) == pytest.approx(0.0)
    changed = packed.clone()
    changed[:, 7:] = -50.0
    assert float(pet_loss(packed, segments)) == float(pet_loss(changed, segments))


def test_too_short_samples_give_zero_with_a_gradient() -> None:
    hidden = torch.randn(1, 4, 3, requires_grad=True)
    loss = pet_loss(hidden, torch.tensor([[1, 1, 2, 2]]))
    loss.backward()
    assert loss.item() == 0.0
    assert hidden.grad is not None


@pytest.mark.parametrize(
    ("share", "weight"), [(0.0, 0.01), (0.19, 0.01), (0.2, 0.05), (0.59, 0.05), (0.6, 0.1), (1.0, 0.1)]
)
def test_the_weight_rises_in_three_phases(share: float, weight: float) -> None:
    assert pet_weight(share) == weight


def test_the_hidden_states_are_those_of_the_last_norm() -> None:
    model = tiny_phi3().eval()
    tap, ids = HiddenTap(model), tokens()
    out = model(input_ids=ids, output_hidden_states=True)
    assert torch.allclose(tap.take(), out.hidden_states[-1])
    with pytest.raises(RuntimeError, match="No forward pass"):
        tap.take()
    tap.close()


def test_a_model_without_the_familys_norm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.norm"):
        HiddenTap(nn.Linear(2, 2))


def test_noise_is_a_share_of_the_gradient_and_fades() -> None:
    gradients = [torch.randn(400, 50), torch.randn(30)]
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    before = [g.clone() for g in gradients]
    sigma = add_gradient_noise(gradients, 0, eta=0.1, generator=torch.Generator().manual_seed(0))
    added = torch.cat([(a - b).flatten() for a, b in zip(gradients, before, strict=True)])
    assert sigma == pytest.approx(0.1 * norm / math.sqrt(added.numel()), rel=1e-5)
    assert float(added.std()) == pytest.approx(sigma, rel=0.02)
    assert gradient_noise_std(99, norm, added.numel(), eta=0.1) == pytest.approx(sigma / 100**0.55, rel=1e-4)


def test_the_learning_rate_warms_up_falls_and_stays_for_the_average() -> None:
    rates = [learning_rate(step, n_steps=100, peak=1.0, warmup=0.1, swa_from=0.75, swa_lr=0.2) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:75] == sorted(rates[10:75], reverse=True)
    assert set(rates[75:]) == {0.2}


def test_the_average_of_weights_is_their_mean() -> None:
    layer, average = nn.Linear(3, 2), WeightAverage()
    seen = []
    for _ in range(4):
        with torch.no_grad():
            layer.weight.normal_()
        seen.append(layer.weight.detach().clone())
        average.add(layer.named_parameters())
    average.write_to(layer.named_parameters())
    assert torch.allclose(layer.weight, torch.stack(seen).mean(0), atol=1e-6)
