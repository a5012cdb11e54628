"""Burn the learned rotations into a model's own weights, and prove that nothing else changed.

After it the model has the base's tensor names, shapes and size: no hook, no extra parameter, no custom code to serve it.
The certificate compares logits of the model with its gates and of the burnt one. In single precision they agree to
rounding; in bfloat16 every weight is rounded anew, and that floor is measured and written down, not hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from genba_llm.refused import Refused
from genba_llm.rotations import rotate_columns, rotate_rows
from genba_llm.so8t import Side, So8tGates, gated_layers

MAX_RELATIVE_ERROR = 1e-5
MAX_KL = 1e-6


class CannotBurn(Refused):
    """The gates cannot be burnt into this model."""


@dataclass(frozen=True)
class Certificate:
    """How far the burnt model is from the gated one, on the same inputs."""

    side: Side
    n_tokens: int
    relative_error: float  # max |Δlogit| / max |logit|, fp32
    kl: float  # mean KL(gated ‖ burnt) in nats, fp32
    top1_agreement: float
    bf16_relative_error: float
    bf16_kl: float
    bf16_top1_agreement: float

    @property
    def holds(self) -> bool:
        """True when single precision agrees within the bounds."""
        return self.relative_error <= MAX_RELATIVE_ERROR and self.kl <= MAX_KL

    def as_json(self) -> dict[str, Any]:
        """What is written beside the weights."""
        return {**asdict(self), "holds": self.holds, "max_relative_error": MAX_RELATIVE_ERROR, "max_kl": MAX_KL}


@torch.no_grad()
def burn(model: nn.Module, gates: So8tGates, *, side: Side = "out") -> None:
    """Turn the gated layers' weights in place: W' = R·W and b' = R·b on side "out", W' = W·R on side "in".

    The gates must be detached, and adapters merged. Raises: CannotBurn for gates learned on the other side, for a
    quantised or adapted layer, or for gates that still hang on the model. Nothing is changed then.
    """
    if gates.config.side != side:
        message = f"These gates were learned on side {gates.config.side!r}; burnt on side {side!r} they would make another model."
        raise CannotBurn(message)
    if gates._handles:  # noqa: SLF001 - the gate's own module family
        raise CannotBurn("Detach the gates first: burnt and attached they would turn twice.")
    layers = gated_layers(model, gates.config.layer)
    for name, layer in layers.items():
        if type(layer) is not nn.Linear:
            message = f"{name} is a {type(layer).__name__}: merge the adapter into the original weights, in floating point, first."
            raise CannotBurn(message)
    for layer, blocks in zip(layers.values(), gates.blocks(), strict=True):
        wide = blocks.double()
        if side == "out":
            layer.weight.copy_(rotate_rows(layer.weight.double(), wide).to(layer.weight.dtype))
            if layer.bias is not None:
                layer.bias.copy_(rotate_rows(layer.bias.double().unsqueeze(1), wide).squeeze(1).to(layer.bias.dtype))
        else:
            layer.weight.copy_(rotate_columns(layer.weight.double(), wide).to(layer.weight.dtype))


@torch.no_grad()
def burn_with_certificate(model: nn.Module, gates: So8tGates, probes: Tensor, *, side: Side = "out") -> Certificate:
    """Burn in place and compare before with after on ``probes``.

    Args: probes: (B, T) token ids, unpadded.
    Raises: CannotBurn; also when the certificate does not hold, and then the model has its old weights again.
    """
    if gates.config.side != side:
        burn(model, gates, side=side)  # raises
    with attached(model, gates), evaluating(model):
        expected = _logits(model, probes)
    before = {
        name: tensor.detach().clone()
        for layer, module in gated_layers(model, gates.config.layer).items()
        for name, tensor in module.named_parameters(prefix=layer)
    }
    burn(model, gates, side=side)
    with evaluating(model):
        burnt = _logits(model, probes)
        narrow = _logits(copy.deepcopy(model).to(torch.bfloat16), probes)
    certificate = Certificate(side, probes.numel(), *_distance(expected, burnt), *_distance(expected, narrow))
    if not certificate.holds:
        for name, tensor in model.named_parameters():
            if name in before:
                tensor.copy_(before[name])
        message = (
            f"The burnt model differs: relative error {certificate.relative_error:.1e} (at most {MAX_RELATIVE_ERROR:.0e}),"
            f" KL {certificate.kl:.1e} (at most {MAX_KL:.0e}). Its weights are as they were."
        )
        raise CannotBurn(message)
    return certificate


@contextmanager
def attached(model: nn.Module, gates: So8tGates) -> Iterator[None]:
    """The gates on the model for the length of a block."""
    gates.attach(model)
    try:
        yield
    finally:
        gates.detach()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off for the length of a block, and the old mode back after it."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _logits(model: nn.Module, probes: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=probes.to(next(model.parameters()).device)).logits
    return logits.float().cpu()


def _distance(expected: Tensor, found: Tensor) -> tuple[float, float, float]:
    """Relative error, mean KL and top-1 agreement of two (B, T, V) logits."""
    error = float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-30))
    log_p, log_q = F.log_softmax(expected.double(), -1), F.log_softmax(found.double(), -1)
    kl = float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
    same = float((expected.argmax(-1) == found.argmax(-1)).float().mean())
    return error, max(0.0, kl), same
