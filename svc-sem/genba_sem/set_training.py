"""Train the learnt fusions: the same three models in torch, on particles whose label is known. ``set_models`` serves them.

Each starts as the quality-weighted mean and is trained on the views in random subsets. Arrays in, a LearntFusion out: it knows no
table, no job and no file. Needs torch, which the service itself does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genba_sem.set_models import NOWHERE, Kind, LearntFusion
from genba_sem.views import view_weights

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_WIDTH: Final = 32
_STEPS: Final = 150
_RATE: Final = 3e-3
_SCALE: Final = 12.0
_DECAY: Final = 1e-2


class DeepSets(nn.Module):
    """The weighted mean plus what a network makes of the weighted mean of features (Zaheer et al. 2017)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(dim, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, _WIDTH), nn.GELU())
        self.all = nn.Linear(_WIDTH, dim)
        nn.init.zeros_(self.all.weight)
        nn.init.zeros_(self.all.bias)

    def forward(self, rows: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """rows: (B, V, D); prior: (B, V) that sum to 1. Returns (B, D) and the weights (B, V)."""
        shift = self.all((prior[..., None] * self.each(rows)).sum(1))
        return (prior[..., None] * rows).sum(1) + shift, prior


class GatedAttention(nn.Module):
    """The mean by learnt weights (Ilse et al. 2018), times the prior."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.value, self.gate, self.score = nn.Linear(dim, _WIDTH), nn.Linear(dim, _WIDTH), nn.Linear(_WIDTH, 1)
        nn.init.zeros_(self.score.weight)

    def forward(self, rows: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """rows: (B, V, D); prior: (B, V). Returns (B, D) and the weights (B, V)."""
        score = self.score(torch.tanh(self.value(rows)) * torch.sigmoid(self.gate(rows)))[..., 0]  # (B, V)
        weights = torch.softmax(score + _log(prior), dim=1)
        return (weights[..., None] * rows).sum(1), weights


class SetTransformer(nn.Module):
    """Views look at each other before they are pooled by attention (Lee et al. 2019)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, _WIDTH) for _ in range(3))
        self.back = nn.Linear(_WIDTH, dim)
        self.pool = GatedAttention(dim)
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)

    def forward(self, rows: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """rows: (B, V, D); prior: (B, V). Returns (B, D) and the weights (B, V)."""
        affinity = self.query(rows) @ self.key(rows).transpose(1, 2) / _WIDTH**0.5 + _log(prior)[:, None]  # (B, V, V)
        seen = rows + self.back(torch.softmax(affinity, dim=2) @ self.value(rows))
        pooled: tuple[Tensor, Tensor] = self.pool(seen, prior)
        return pooled


KINDS: Final[dict[Kind, type[nn.Module]]] = {
    "deep-sets": DeepSets,
    "gated-attention": GatedAttention,
    "set-transformer": SetTransformer,
}


def train(
    kind: Kind,
    particles: Sequence[Rows],
    qualities: Sequence[Rows],
    labels: Labels,
    *,
    seed: int = 0,
    steps: int = _STEPS,
) -> LearntFusion:
    """Train on masters: particles as (V, D) unit rows with qualities (V,), labels (N,).

    Each step fuses a random subset of every particle's views and pulls it to the mean of the other particles of its label.
    Raises: ValueError when no label has two masters.
    """
    if not (np.bincount(labels) > 1).any():
        raise ValueError("A fusion is learnt from labels of two masters or more.")
    generator = torch.Generator().manual_seed(seed)
    devised = torch.random.get_rng_state()
    torch.manual_seed(seed)
    dim = particles[0].shape[1]
    model = KINDS[kind](dim)
    torch.random.set_rng_state(devised)
    rows, prior = _padded(particles, qualities)
    truth = torch.from_numpy(labels)
    member = torch.nn.functional.one_hot(truth, int(labels.max()) + 1).float()  # (N, C)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY)
    for _ in range(steps):
        whole = nn.functional.normalize(model(rows, prior)[0], dim=1)
        part = nn.functional.normalize(model(rows, _some(prior, generator))[0], dim=1)
        loss = _towards_own(part, whole, member, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return LearntFusion(kind, {name: tensor.numpy() for name, tensor in model.state_dict().items()})


def _towards_own(part: Tensor, whole: Tensor, member: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of cosines to prototypes from which each particle itself is taken out."""
    sums, counts = member.T @ whole, member.sum(0)  # (C, D), (C,)
    cosines = part @ nn.functional.normalize(sums, dim=1).T  # (N, C)
    own = nn.functional.normalize(sums[truth] - whole, dim=1)
    cosines = torch.where(member.bool(), (part * own).sum(1, keepdim=True), cosines)
    usable = counts[truth] > 1
    return nn.functional.cross_entropy(_SCALE * cosines[usable], truth[usable])


def _padded(particles: Sequence[Rows], qualities: Sequence[Rows]) -> tuple[Tensor, Tensor]:
    """(N, V, D) and (N, V), missing views with prior 0; a particle without a view of quality weighs its views alike."""
    most = max(len(views) for views in particles)
    rows = np.zeros((len(particles), most, particles[0].shape[1]), np.float32)
    prior = np.zeros((len(particles), most), np.float32)
    for index, (views, quality) in enumerate(zip(particles, qualities, strict=True)):
        rows[index, : len(views)] = views
        weights = view_weights(views, quality)
        prior[index, : len(views)] = weights if weights.any() else 1 / len(views)
    return torch.from_numpy(rows), torch.from_numpy(prior)


def _some(prior: Tensor, generator: torch.Generator) -> Tensor:
    """A random half of the views, at least one."""
    draw = torch.rand(prior.shape, generator=generator).masked_fill(prior == 0, 2.0)
    keep = (draw < 0.5) | (draw == draw.min(1, keepdim=True).values)
    kept = prior * keep
    total: Tensor = kept / kept.sum(1, keepdim=True)
    return total


def _log(prior: Tensor) -> Tensor:
    logs: Tensor = torch.log(prior.clamp_min(1e-12)).masked_fill(prior == 0, NOWHERE)
    return logs
