"""What changes over the steps of a fine-tuning: learning rate, gradient noise, and the average of the weights at its end.

Pure functions of the step, and an average that can be saved. Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

NOISE_DECAY = 0.55


def learning_rate(
    step: int, *, n_steps: int, peak: float, warmup: float = 0.1, swa_from: float = 1.0, swa_lr: float = 0.0
) -> float:
    """Linear warm-up, then a cosine to zero; from the share ``swa_from`` on, the constant ``swa_lr``.

    Args: step: 0 for the first.
    """
    if step >= swa_from * n_steps:
        return swa_lr
    n_warmup = max(1, math.ceil(warmup * n_steps))
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))


def gradient_noise_std(step: int, grad_norm: float, n_parameters: int, *, eta: float) -> float:
    """σ of the noise for each entry of the gradient: η/(1+t)^.55 · ‖g‖/√N (after Neelakantan et al. 2015, made relative).

    Relative, because a σ fixed for each entry is many times a clipped signal spread over millions of entries.
    """
    scale: float = (1.0 + step) ** NOISE_DECAY
    return eta / scale * grad_norm / math.sqrt(max(1, n_parameters))


def add_gradient_noise(gradients: Sequence[Tensor], step: int, *, eta: float, generator: torch.Generator) -> float:
    """Add annealed noise in place, after accumulation and before the clip. Returns σ; 0 with ``eta`` 0."""
    if eta == 0.0 or not gradients:
        return 0.0
    norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g.float()) for g in gradients])))
    sigma = gradient_noise_std(step, norm, sum(g.numel() for g in gradients), eta=eta)
    for gradient in gradients:
        noise = torch.randn(
            gradient.shape, generator=generator, dtype=torch.float32
        )  # on the CPU: the same on every device
        gradient.add_(noise.to(gradient.device, gradient.dtype), alpha=sigma)
    return sigma


class WeightAverage:
    """The running mean of trainable parameters. Angles are averaged as they are, in the Lie algebra: a mean of rotations is none."""

    def __init__(self) -> None:
        self.n = 0
        self.means: dict[str, Tensor] = {}

    def add(self, parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Take one more set of values into the mean, in double precision."""
        self.n += 1
        for name, value in parameters:
            wide = value.detach().double().cpu()
            mean = self.means.get(name)
            self.means[name] = wide.clone() if mean is None else mean + (wide - mean) / self.n

    @torch.no_grad()
    def write_to(self, parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Set the parameters to the mean; does nothing while nothing was added."""
        for name, value in parameters:
            if name in self.means:
                value.copy_(self.means[name].to(value.device, value.dtype))
