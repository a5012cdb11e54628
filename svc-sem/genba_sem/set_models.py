"""Learnt fusions of views: Deep Sets, gated attention, Set Transformer, each starting as the quality-weighted mean.

All weigh views by quality before anything else, so a black view has no say and a view sent twice counts once; the order never matters.
They are trained on the masters' views in random subsets. With five masters a label they seldom pay, so they are challengers: who
promotes compares them with the mean on reviewed particles. Needs torch, loaded when a model is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genba_sem.encoders import unit
from genba_sem.views import Fused, view_weights

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Kind = Literal["deep-sets", "gated-attention", "set-transformer"]

_WIDTH: Final = 32
_STEPS: Final = 150
_RATE: Final = 3e-3
_SCALE: Final = 12.0
_DECAY: Final = 1e-2
_NOWHERE: Final = -1e9


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


KINDS: Final[dict[str, type[nn.Module]]] = {
    "deep-sets": DeepSets,
    "gated-attention": GatedAttention,
    "set-transformer": SetTransformer,
}


class LearntFusion:
    """A trained set model behind the call of every fusion (``views.Fusion``)."""

    def __init__(self, kind: Kind, model: nn.Module, dim: int) -> None:
        self.kind, self.dim, self._model = kind, dim, model.eval()
        digest = hashlib.sha256()
        for tensor in model.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        self.id = f"{kind}-v1@{digest.hexdigest()[:8]}"

    def fuse(self, rows: Rows, quality: Rows) -> Fused:
        """rows: (V, D) unit; quality: (V,). The row is zero when no view counts."""
        prior = view_weights(rows, quality)
        if not prior.any():
            return Fused(np.zeros(rows.shape[1], np.float32), prior)
        with torch.inference_mode():
            row, weights = self._model(torch.from_numpy(rows)[None], torch.from_numpy(prior)[None])
        return Fused(unit(row[0].numpy()), np.asarray(weights[0].numpy(), np.float32))

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        from safetensors.torch import save_file

        save_file(self._model.state_dict(), path, metadata={"fusion": self.kind, "dim": str(self.dim)})

    @classmethod
    def load(cls, path: Path) -> LearntFusion:
        """Read what ``save`` wrote. Raises: ValueError for another file."""
        from safetensors import safe_open
        from safetensors.torch import load_file

        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
        kind = said.get("fusion", "")
        if kind not in KINDS:
            raise ValueError(f"{path.name} holds no learnt fusion.")
        model = KINDS[kind](int(said["dim"]))
        model.load_state_dict(load_file(path))
        return cls(kind, model, int(said["dim"]))


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
    return LearntFusion(kind, model, dim)


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
    logs: Tensor = torch.log(prior.clamp_min(1e-12)).masked_fill(prior == 0, _NOWHERE)
    return logs
