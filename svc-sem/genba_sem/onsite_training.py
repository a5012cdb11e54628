"""Let a small network teach itself on cut-out particles without a label (SimCLR, Chen et al. 2020).

Two views of one particle, each turned, mirrored, moved and disturbed, shall be alike, and unlike everything else in the batch; a particle
of one view is its own partner. Arrays in, an OnsiteEncoder out: it knows no table, no job and no file. Needs torch and onnx, which
the service itself does not.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from genba_sem.encoders import whitening
from genba_sem.onsite import DIM, SIDE_PX, Cuts, OnsiteEncoder

LEAST_PARTICLES: Final = 32
_BATCH: Final = 96
_RATE: Final = 2e-3
_DECAY: Final = 1e-4
_TEMPERATURE: Final = 0.2
_WIDTH: Final = 128
_PROJECTED: Final = 64
_AT_ONCE: Final = 256
_OPSET: Final = 17


@dataclass(frozen=True)
class State:
    """Where a training stands: steps done, and what has to be kept to go on."""

    step: int
    loss: float
    tensors: dict[str, dict[str, object]]


class Network(nn.Module):
    """Four blocks, each at half of the size, then the mean over the picture."""

    def __init__(self) -> None:
        super().__init__()
        widths = (2, 32, 64, 128, _WIDTH)
        blocks: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            blocks += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*blocks[:-1])  # the last is not clipped, so that rows point in all directions

    def forward(self, cuts: Tensor) -> Tensor:
        """(N, 2, 64, 64) in [0, 1] → (N, 128)."""
        rows: Tensor = self.body(cuts * 2 - 1).mean((2, 3))
        return rows


def teach(
    cuts: Cuts,
    particles: Sequence[str],
    *,
    steps: int,
    seed: int,
    resumed: State | None = None,
    after_step: Callable[[Callable[[], State]], None] = lambda _: None,
) -> OnsiteEncoder:
    """Train on cuts (N, 2, 64, 64); particles: whom each shows. after_step: called with what gives the state; it may raise to stop.

    Raises: ValueError for fewer than 32 particles.
    """
    names, which = np.unique(np.asarray(particles), return_inverse=True)
    if len(names) < LEAST_PARTICLES:
        raise ValueError(f"{len(names)} particles are too few to learn from; {LEAST_PARTICLES} are needed.")
    views = [np.flatnonzero(which == each) for each in range(len(names))]
    torch.manual_seed(seed)
    network, head = Network(), nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _PROJECTED))
    weights = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=_RATE, weight_decay=_DECAY)
    parts: dict[str, Any] = {"network": network, "head": head, "optimizer": optimizer}
    start, loss_now = 0, float("nan")
    if resumed is not None:
        start, loss_now = resumed.step, resumed.loss
        for name, part in parts.items():
            part.load_state_dict(resumed.tensors[name])
    held = torch.from_numpy(cuts)
    for step in range(start, steps):
        rng = np.random.default_rng([seed, step])
        for group in optimizer.param_groups:
            group["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = rng.permutation(len(views))[:_BATCH]
        pairs = [rng.choice(views[each], 2, replace=len(views[each]) < 2) for each in chosen]
        loss = _contrast(head(network(_disturbed(held[np.concatenate(np.array(pairs).T)], rng))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_now = float(loss.detach())
        after_step(partial(_state, step + 1, loss_now, parts))
    return OnsiteEncoder(_exported(nn.Sequential(network, _whitened(network, held)).eval()))


def _state(step: int, loss: float, parts: Mapping[str, Any]) -> State:
    return State(step, loss, {name: part.state_dict() for name, part in parts.items()})


def _contrast(rows: Tensor) -> Tensor:
    """NT-Xent: row k of 2 B and row k + B are one particle."""
    rows = functional.normalize(rows, dim=1)
    likeness = rows @ rows.T / _TEMPERATURE
    likeness.fill_diagonal_(-torch.inf)
    partner = torch.arange(len(rows)).roll(len(rows) // 2)
    return functional.cross_entropy(likeness, partner)


def _disturbed(cuts: Tensor, rng: np.random.Generator) -> Tensor:
    """(N, 2, 64, 64) uint8 → float in [0, 1]: turned, mirrored, scaled and moved; grey stretched, blurred and noisy."""
    count = len(cuts)
    angle, size = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.85, 1.2, count)
    mirror = rng.choice((-1.0, 1.0), count)
    turn = np.zeros((count, 2, 3), np.float32)
    turn[:, 0, 0], turn[:, 0, 1] = mirror * np.cos(angle) / size, -np.sin(angle) / size
    turn[:, 1, 0], turn[:, 1, 1] = mirror * np.sin(angle) / size, np.cos(angle) / size
    turn[:, :, 2] = rng.uniform(-0.1, 0.1, (count, 2))
    grid = functional.affine_grid(torch.from_numpy(turn), [count, 2, SIDE_PX, SIDE_PX], align_corners=False)
    moved = functional.grid_sample(cuts.float() / 255, grid, align_corners=False)
    grey, mask = moved[:, :1], moved[:, 1:]
    blurred = functional.avg_pool2d(grey, 3, 1, 1)
    share = torch.from_numpy(rng.uniform(0, 1, (count, 1, 1, 1)).astype(np.float32) ** 2)
    contrast, level = (
        torch.from_numpy(rng.uniform(*bounds, (count, 1, 1, 1)).astype(np.float32))
        for bounds in ((0.7, 1.4), (-0.1, 0.1))
    )
    noise = torch.from_numpy(rng.normal(0, 0.04, grey.shape).astype(np.float32))
    grey = ((1 - share) * grey + share * blurred - 0.5) * contrast + 0.5 + level + noise
    return torch.cat([(grey * mask).clamp(0, 1), mask], dim=1)


def _whitened(network: Network, held: Tensor) -> nn.Linear:
    """What standardises and PCA-whitens the network's rows of the cuts that it has learnt from, as a layer."""
    network.eval()
    with torch.inference_mode():
        parts = [network(held[at : at + _AT_ONCE].float() / 255) for at in range(0, len(held), _AT_ONCE)]
    mean, project = whitening(torch.cat(parts).numpy(), DIM)
    layer = nn.Linear(_WIDTH, DIM)
    weight = np.zeros((DIM, _WIDTH), np.float32)
    weight[: project.shape[1]] = project.T
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(-weight @ mean))
    return layer


def _exported(network: nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is pinned; its newer exporter needs one more package for the same graph
        torch.onnx.export(
            network, (torch.zeros(1, 2, SIDE_PX, SIDE_PX),), buffer, input_names=["cuts"], output_names=["rows"],
            opset_version=_OPSET, dynamo=False, dynamic_axes={"cuts": {0: "views"}, "rows": {0: "views"}},
        )  # fmt: skip
    return buffer.getvalue()
