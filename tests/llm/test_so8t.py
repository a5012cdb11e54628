"""Rotations, the gates on a model, and burning them in."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from tests.llm.phi3_world import phi4_mini_shape, tiny_phi3, tokens
from torch import nn

from genba_llm.burn_in import CannotBurn, attached, burn, burn_with_certificate
from genba_llm.rotations import (
    angles,
    cayley,
    exponential,
    orthogonality_error,
    rotate,
    rotate_columns,
    rotate_rows,
    skew,
)
from genba_llm.so8t import NoSuchLayer, So8tConfig, So8tGates, spectrum
from genba_llm.target_modules import PHI3, UnknownTargets, lora_parameters, resolve_targets

SIDES = ("out", "in")
# peft asks transformers by a name that transformers is about to rename.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


def _theta(n: int, std: float = 0.3, seed: int = 0) -> torch.Tensor:
    return std * torch.randn(n, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("std", [0.01, 0.3, 5.0])
def test_both_maps_give_rotations_to_machine_precision(std: float) -> None:
    theta = _theta(50, std)
    for made in (cayley(theta), exponential(theta)):
        assert orthogonality_error(made) < 1e-12
        assert torch.allclose(torch.linalg.det(made), torch.ones(50, dtype=torch.float64), atol=1e-10)


def test_the_exponential_is_scipys() -> None:
    theta = _theta(8)
    expected = np.stack([scipy.linalg.expm(each.numpy()) for each in skew(theta)])
    np.testing.assert_allclose(exponential(theta).numpy(), expected, atol=1e-13)


def test_the_cayley_map_turns_by_twice_the_arc_tangent() -> None:
    theta = torch.zeros(1, 28, dtype=torch.float64)
    theta[0, 0] = 0.5  # one plane
    found = angles(cayley(theta))[0]
    assert found[:3].abs().max() < 1e-7
    assert found[3].item() == pytest.approx(2 * math.atan(0.5))


def test_side_in_is_pefts_orthogonal_fine_tuning_with_blocks_of_eight() -> None:
    from genba_shared.torchvision import make_torchvision_importable

    make_torchvision_importable()
    from peft import OFTConfig, get_peft_model

    torch.manual_seed(0)
    plain = nn.ModuleDict({"proj": nn.Linear(32, 48, bias=False)})
    weight = plain["proj"].weight.detach().clone()
    oft = get_peft_model(plain, OFTConfig(target_modules=["proj"], oft_block_size=8, r=0, use_cayley_neumann=False))
    theta = _theta(4).float()
    with torch.no_grad():
        next(p for name, p in oft.named_parameters() if "oft_R" in name).copy_(theta)
    x = torch.randn(5, 32)
    expected = oft.base_model.model["proj"](x)
    assert torch.allclose(x @ rotate_columns(weight, cayley(theta)).T, expected, atol=1e-5)


def test_rotating_the_output_is_rotating_the_weights_rows() -> None:
    weight, x, blocks = torch.randn(24, 10).double(), torch.randn(7, 10).double(), cayley(_theta(3))
    assert torch.allclose(rotate(x @ weight.T, blocks), x @ rotate_rows(weight, blocks).T)


def test_rotating_the_input_is_rotating_the_weights_columns() -> None:
    weight, x, blocks = torch.randn(10, 24).double(), torch.randn(7, 24).double(), cayley(_theta(3))
    assert torch.allclose(rotate(x, blocks) @ weight.T, x @ rotate_columns(weight, blocks).T)


@pytest.mark.parametrize("side", SIDES)
def test_attaching_fresh_gates_changes_nothing_and_detaching_leaves_nothing(side: str) -> None:
    model = tiny_phi3().eval()
    ids = tokens()
    before = model(input_ids=ids).logits
    gates = So8tGates.for_model(model, So8tConfig(side=side))  # type: ignore[arg-type]
    with attached(model, gates):
        assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-6)
        with torch.no_grad():
            gates.theta.normal_(0, 0.3)
        gates.build()
        assert not torch.allclose(model(input_ids=ids).logits, before, atol=1e-3)
    assert torch.equal(model(input_ids=ids).logits, before)


@pytest.mark.parametrize("side", SIDES)
def test_the_gathered_gradient_is_that_of_the_plain_graph(side: str) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 16, bias=False).double(), torch.randn(3, 16).double()
    theta = _theta(2).requires_grad_()
    made = cayley(theta)
    y = rotate(layer(x), made) if side == "out" else layer(rotate(x, made))
    y.square().mean().backward()
    gates = So8tGates(So8tConfig(layer="0", side=side), n_layers=1, width=16).double()  # type: ignore[arg-type]
    with torch.no_grad():
        gates.theta.copy_(theta)
    model = nn.Sequential(layer)
    gates.attach(model)
    for _ in range(2):  # two passes of an accumulation share the rotations
        (model(x).square().mean() / 2).backward()
    gates.collect()
    assert gates.theta.grad is not None
    assert theta.grad is not None
    assert torch.allclose(gates.theta.grad, theta.grad, atol=1e-12)


@pytest.mark.parametrize(("side", "std"), list(itertools.product(SIDES, (0.0, 0.2, 2.0))))
def test_a_burnt_model_answers_like_the_gated_one_and_looks_like_the_base(side: str, std: float) -> None:
    model = tiny_phi3(layers=3)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    gates = So8tGates.for_model(model, So8tConfig(side=side))  # type: ignore[arg-type]
    with torch.no_grad():
        gates.theta.normal_(0, std)
    certificate = burn_with_certificate(model, gates, tokens(2, 16), side=side)
    assert certificate.holds
    assert certificate.relative_error <= 1e-5
    assert certificate.kl <= 1e-6
    assert certificate.bf16_relative_error > certificate.relative_error  # the floor is reported
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes


def test_a_trained_gate_burns_in_too() -> None:
    model = tiny_phi3()
    gates = So8tGates.for_model(model).attach(model)
    optimiser = torch.optim.AdamW(gates.parameters(), lr=0.05)
    ids = tokens(4, 16)
    for _ in range(5):
        gates.build()
        model(input_ids=ids, labels=ids).loss.backward()
        gates.collect()
        optimiser.step()
        optimiser.zero_grad()
    gates.detach()
    assert spectrum(gates).max_rad > 0.05
    assert burn_with_certificate(model, gates, tokens()).holds


def test_a_gate_is_not_burnt_on_the_other_side() -> None:
    model = tiny_phi3()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gates = So8tGates.for_model(model, So8tConfig(side="in"))
    with torch.no_grad():
        gates.theta.normal_(0, 0.3)
    with pytest.raises(CannotBurn, match="side 'in'"):
        burn_with_certificate(model, gates, tokens(), side="out")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_an_attached_gate_is_not_burnt() -> None:
    model = tiny_phi3()
    gates = So8tGates.for_model(model).attach(model)
    with pytest.raises(CannotBurn, match="Detach"):
        burn(model, gates)


def test_an_adapter_has_to_be_merged_before_the_rotation_is_burnt() -> None:
    model = tiny_phi3()
    from peft import LoraConfig, get_peft_model

    gates = So8tGates.for_model(model)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=list(PHI3)))
    with pytest.raises(CannotBurn, match="merge the adapter"):
        burn(adapted, gates)
    burn(adapted.merge_and_unload(), gates)


def test_gates_turn_an_adapted_layer_as_a_whole() -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny_phi3()
    torch.manual_seed(3)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=list(PHI3), init_lora_weights=False)).eval()
    gates = So8tGates.for_model(adapted)
    with torch.no_grad():
        gates.theta.normal_(0, 0.3)
    ids = tokens()
    with attached(adapted, gates):
        expected = adapted(input_ids=ids).logits
    merged = adapted.merge_and_unload()
    burn(merged, gates)
    assert torch.allclose(merged(input_ids=ids).logits, expected, atol=1e-4)


def test_the_plans_list_of_layers_is_refused_with_the_names_that_exist() -> None:
    plan = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    with pytest.raises(UnknownTargets) as refused:
        resolve_targets(tiny_phi3(), plan)
    assert refused.value.missing == ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    assert "qkv_proj" in str(refused.value)
    assert "gate_up_proj" in str(refused.value)


def test_without_names_every_linear_layer_but_the_head_is_adapted() -> None:
    assert set(resolve_targets(tiny_phi3())) == set(PHI3)


def test_lora_on_phi_4_minis_shape_has_92_274_688_parameters() -> None:
    model = phi4_mini_shape()
    assert lora_parameters(model, PHI3, rank=64) == 92_274_688
    assert So8tGates.for_model(model).theta.shape == (32 * 384, 28)


def test_a_layer_that_does_not_exist_is_named() -> None:
    with pytest.raises(NoSuchLayer, match="qkv_proj"):
        So8tGates.for_model(tiny_phi3(), So8tConfig(layer="q_proj"))


def test_gates_of_another_model_do_not_attach() -> None:
    gates = So8tGates.for_model(tiny_phi3(layers=3))
    with pytest.raises(NoSuchLayer, match="another"):
        gates.attach(tiny_phi3(layers=2))


def test_metadata_says_where_the_angles_belong() -> None:
    config = So8tConfig(side="in", map="exponential")
    assert So8tConfig.from_metadata(config.as_metadata()) == config
    with pytest.raises(ValueError, match="do not say"):
        So8tConfig.from_metadata({"layer": "o_proj"})
