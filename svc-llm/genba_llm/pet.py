"""PET: a penalty on the second difference of the hidden states over time, so that a model's thought moves without jerks.

mean ‖h[t+2] − 2·h[t+1] + h[t]‖² / mean ‖h‖² over three valid tokens in a row of one sample. Without the denominator the
penalty is minimised by shrinking h; without the mask it ties samples together at the borders of a packed row. The states
are read by a forward hook at the last norm: asking the model for all hidden states costs memory for every layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PHASES = ((0.2, 0.01), (0.6, 0.05), (1.0, 0.1))  # until this share of the steps, this weight


def pet_loss(hidden: Tensor, segments: Tensor) -> Tensor:
    """The penalty of one batch.

    Args:
        hidden: (B, T, D).
        segments: (B, T) int, the number of the sample that a token belongs to; 0 for padding.
    Returns: scalar ≥ 0; 0 when no three tokens in a row belong to one sample.
    """
    wide = hidden.float()
    valid = segments > 0  # (B, T)
    three = valid[:, 2:] & (segments[:, 2:] == segments[:, 1:-1]) & (segments[:, 1:-1] == segments[:, :-2])  # (B, T−2)
    if not bool(three.any()):
        return wide.sum() * 0.0
    bend = (wide[:, 2:] - 2.0 * wide[:, 1:-1] + wide[:, :-2]).square().mean(-1)  # (B, T−2)
    energy = wide.square().mean(-1)  # (B, T)
    jerk = (bend * three).sum() / three.sum()
    scale = (energy * valid).sum() / valid.sum()
    return jerk / scale.clamp_min(1e-12)


def pet_weight(share: float) -> float:
    """λ at this share of the training, 0 to 1: 0.01 to 20 %, 0.05 to 60 %, 0.1 after."""
    return next((weight for until, weight in PHASES if share < until), PHASES[-1][1])


class HiddenTap:
    """Keeps the output of a model's last norm from the forward pass that just ran, with its graph."""

    def __init__(self, model: nn.Module) -> None:
        """Raises: ValueError if the model has no final norm of the Phi-3 family's name."""
        norms = [module for name, module in model.named_modules() if name.endswith("model.norm") or name == "norm"]
        if not norms:
            raise ValueError("The model has no final norm `model.norm`; PET reads the hidden states there.")
        self._hidden: Tensor | None = None
        self._handle: Any = norms[0].register_forward_hook(self._keep)

    def take(self) -> Tensor:
        """The states (B, T, D), once. Raises: RuntimeError if no forward pass ran since the last take."""
        hidden, self._hidden = self._hidden, None
        if hidden is None:
            raise RuntimeError("No forward pass ran since the hidden states were last taken.")
        return hidden

    def close(self) -> None:
        """Take the hook off."""
        self._handle.remove()
        self._hidden = None

    def _keep(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._hidden = output if torch.is_tensor(output) else output[0]
