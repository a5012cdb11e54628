"""Adam (Kingma & Ba 2015) over named tensors, with a state that is nothing but named tensors.

Why not ``torch.optim.Adam``: its first step imports torch's compiler, 8 CPU-seconds in every worker process for nothing, and its
state is keyed by the order of parameters. A test compares it with the paper.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Moves parameters against their gradients; a parameter without one does not move."""

    def __init__(self, parameters: Mapping[str, Tensor], *, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self._parameters = dict(parameters)
        self._mean = {name: torch.zeros_like(x) for name, x in self._parameters.items()}
        self._square = {name: torch.zeros_like(x) for name, x in self._parameters.items()}
        self._n_steps = 0

    def zero_grad(self) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        self._n_steps += 1
        names = [name for name, parameter in self._parameters.items() if parameter.grad is not None]
        parameters = [self._parameters[name] for name in names]
        torch._fused_adam_(  # what torch.optim.Adam calls: one pass over memory instead of eight
            parameters,
            [parameter.grad for parameter in parameters],
            [self._mean[name] for name in names],
            [self._square[name] for name in names],
            [],
            [torch.tensor(float(self._n_steps), device=parameter.device) for parameter in parameters],
            lr=self.learning_rate,
            beta1=BETA_1,
            beta2=BETA_2,
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, beside the parameters."""
        return {
            "n_steps": torch.tensor(self._n_steps),
            **{f"mean.{name}": x for name, x in self._mean.items()},
            **{f"square.{name}": x for name, x in self._square.items()},
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._n_steps = int(state["n_steps"])
        self._mean = {name: state[f"mean.{name}"].to(x.device, copy=True) for name, x in self._mean.items()}
        self._square = {name: state[f"square.{name}"].to(x.device, copy=True) for name, x in self._square.items()}
