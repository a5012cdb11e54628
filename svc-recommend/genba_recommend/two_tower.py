"""The two towers: items and users as unit vectors in one space, whose dot product says how well they fit.

An item's vector comes from its id (often dropped while training, so that features can carry a new item) and its features; a
user's from the vectors of the items in their history, pooled three ways, and their profile. A user is thus never looked up:
a new like changes the next vector without any training. Popularity is not in here (prior.py says why).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from genba_recommend.features import FIRST_KNOWN, NUMBERS, PROFILE_NUMBERS, Encoders, ItemFeatures, UserFeatures
from genba_recommend.sparse_sums import places_of, weighted_sum
from genba_recommend.training_config import TowerConfig

CPU: Final = torch.device("cpu")


@dataclass(frozen=True)
class TableSizes:
    """How many rows each embedding table has; follows from the encoders."""

    ids: int
    genres: int
    makers: int
    performers: int
    tags: int
    text: int
    number_buckets: tuple[int, ...]
    embedding_len: int
    age_ranges: int
    regions: int

    @classmethod
    def of(cls, encoders: Encoders) -> TableSizes:
        return cls(
            ids=len(encoders.ids) + 1,
            genres=len(encoders.genres) + FIRST_KNOWN,
            makers=len(encoders.makers) + FIRST_KNOWN,
            performers=len(encoders.performers) + FIRST_KNOWN,
            tags=len(encoders.tags) + FIRST_KNOWN,
            text=len(encoders.idf) + 1,
            number_buckets=tuple(encoders.numbers[name].n_buckets for name in NUMBERS),
            embedding_len=encoders.embedding_len,
            age_ranges=len(encoders.age_ranges) + FIRST_KNOWN,
            regions=len(encoders.regions) + FIRST_KNOWN,
        )


class ResidualMlp(nn.Module):
    """x + W₂ relu(W₁ x)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.widen = nn.Linear(dim, hidden)
        self.narrow = nn.Linear(hidden, dim)
        nn.init.zeros_(self.narrow.weight)  # starts as the identity
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D). Returns: (..., D)."""
        out: Tensor = x + self.narrow(F.relu(self.widen(x)))
        return out


class ItemTower(nn.Module):
    """Sum of the embeddings of id, genre, maker, performers, tags, text and numbers → residual MLP → unit vector."""

    def __init__(self, config: TowerConfig, sizes: TableSizes) -> None:
        super().__init__()
        dim = config.dim
        self.id = _table(sizes.ids, dim)
        self.genre = _table(sizes.genres, dim)
        self.maker = _table(sizes.makers, dim)
        self.performers = _table(sizes.performers, dim)
        self.tags = _table(sizes.tags, dim)
        self.text = _table(sizes.text, dim)
        self.number_bucket = nn.ModuleList([_table(n, dim, missing="learnt") for n in sizes.number_buckets])
        self.number = _quiet(nn.Linear(len(NUMBERS), dim))
        self.embedding = nn.Linear(sizes.embedding_len, dim, bias=False) if sizes.embedding_len else None
        self.mlp = ResidualMlp(dim, config.hidden)

    def forward(self, items: Mapping[str, Tensor]) -> Tensor:
        """items: ``ItemFeatures`` of N items as tensors. Returns: (N, D) unit vectors."""
        x = self.id(items["id"]) + self.number(items["number"])  # (N, D)
        for name in ("genre", "maker", "performers", "tags"):
            x = x + mean_of(getattr(self, name), items[name])
        x = x + weighted_sum(self.text.weight, items["text"], items["text_weight"])
        for at, table in enumerate(self.number_bucket):
            x = x + table(items["number_bucket"][:, at])
        if self.embedding is not None:
            x = x + self.embedding(items["embedding"])
        return F.normalize(self.mlp(x), dim=-1)


class UserTower(nn.Module):
    """History pooled by recency-position attention, by its mean and by its last item; profile; residual MLP → unit vector."""

    def __init__(self, config: TowerConfig, sizes: TableSizes) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.position = nn.Parameter(-0.05 * torch.arange(config.history_len, dtype=torch.float32))
        self.attend = nn.Linear(dim, 1, bias=False)
        self.pool = _average_of(3 if config.pooling == "three_ways" else 1, dim)
        self.genre = _table(sizes.genres, dim)
        self.maker = _table(sizes.makers, dim)
        self.age_range = _table(sizes.age_ranges, dim)
        self.region = _table(sizes.regions, dim)
        self.number = _quiet(nn.Linear(len(PROFILE_NUMBERS), dim))
        self.mlp = ResidualMlp(dim, config.hidden)
        nn.init.zeros_(self.attend.weight)  # starts as attention by position alone

    def forward(self, users: Mapping[str, Tensor], table: Tensor) -> Tensor:
        """Args: users: ``UserFeatures`` of B users as tensors.   table: (N + 1, D), row 0 zeros, then item vectors by row.

        Returns: (B, D) unit vectors.
        """
        x = self.pool(self.pooled(users["history"], users["weight"], table))  # (B, D)
        for name in ("genre", "maker"):
            x = x + mean_of(getattr(self, name), users[name])
        x = x + self.age_range(users["age_range"]) + self.region(users["region"]) + self.number(users["number"])
        return F.normalize(self.mlp(x), dim=-1)

    def pooled(self, history: Tensor, weight: Tensor, table: Tensor) -> Tensor:
        """history: (B, T) rows of table, newest first.   weight: (B, T), 0 where there is nothing. Returns: (B, 3·D) or (B, D)."""
        share = weight / weight.sum(1, keepdim=True).clamp_min(1e-6)  # (B, T)
        places = places_of(history, weight) if table.device.type == "cpu" else None
        mean = weighted_sum(table, history, share, places)  # (B, D)
        if self.config.pooling == "mean":
            return mean
        content = F.embedding(history, self.attend(table)).squeeze(-1)  # (B, T); once an item, not once an event
        logits = self.position[: history.shape[1]] + content + torch.log(weight.clamp_min(1e-9))
        # Finite instead of -inf, so that a user without history gets zeros and not nan.
        attention = torch.softmax(logits, dim=1) * (weight > 0)
        attended = weighted_sum(table, history, attention, places)
        return torch.cat([attended, mean, F.embedding(history[:, 0], table)], dim=1)


class TwoTower(nn.Module):
    """Both towers, and what training moves beside them."""

    def __init__(self, config: TowerConfig, sizes: TableSizes) -> None:
        super().__init__()
        self.config = config
        self.sizes = sizes
        self.item_tower = ItemTower(config, sizes)
        self.user_tower = UserTower(config, sizes)

    def logits(self, users: Tensor, items: Tensor) -> Tensor:
        """users: (B, D); items: (N, D). Returns: (B, N), dot product over temperature."""
        return users @ items.T / self.config.temperature


def history_table(vectors: Tensor) -> Tensor:
    """vectors: (N, D). Returns: (N + 1, D), with zeros first: what the user tower looks a history up in."""
    return torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])


def tensors(features: ItemFeatures | UserFeatures, device: torch.device = CPU) -> dict[str, Tensor]:
    """Features as tensors, on the CPU sharing memory with the arrays; integers as int64, as embeddings want them."""
    columns = features.columns().items()
    found = {name: torch.from_numpy(np.ascontiguousarray(column)).to(device) for name, column in columns}
    return {name: x.long() if x.dtype == torch.int32 else x for name, x in found.items()}


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights lie."""
    return next(model.parameters()).device


def mean_of(table: nn.Embedding, index: Tensor) -> Tensor:
    """index: (N, L), 0 for nothing. Returns: (N, D), the mean of what is there, zeros without."""
    there = (index > 0).to(table.weight.dtype)  # (N, L)
    return weighted_sum(table.weight, index, there / there.sum(1, keepdim=True).clamp_min(1))


@torch.inference_mode()
def item_vectors(model: TwoTower, items: ItemFeatures, *, batch: int = 8192) -> npt.NDArray[np.float32]:
    """Run the item tower over a catalogue. Returns: (N, D) float32 unit vectors."""
    model.eval()
    starts, device = range(0, len(items), batch), device_of(model)
    parts = [model.item_tower(tensors(items.take(slice(at, at + batch)), device)) for at in starts]
    return np.asarray(torch.cat(parts).cpu().numpy()) if parts else np.zeros((0, model.config.dim), np.float32)


@torch.inference_mode()
def user_vectors(
    model: TwoTower, users: UserFeatures, vectors: npt.NDArray[np.float32], *, batch: int = 4096
) -> npt.NDArray[np.float32]:
    """Run the user tower. Args: vectors: (N, D) of the items that histories refer to. Returns: (B, D) float32 unit vectors."""
    model.eval()
    device = device_of(model)
    table, starts = history_table(torch.from_numpy(vectors).to(device)), range(0, len(users), batch)
    parts = [model.user_tower(tensors(users.take(slice(at, at + batch)), device), table) for at in starts]
    return np.asarray(torch.cat(parts).cpu().numpy()) if parts else np.zeros((0, model.config.dim), np.float32)


def _table(n_rows: int, dim: int, *, missing: Literal["zeros", "learnt"] = "zeros") -> nn.Embedding:
    """Small at the start, so that no feature outweighs the others before it has learnt anything."""
    table = nn.Embedding(n_rows, dim, padding_idx=0 if missing == "zeros" else None)
    nn.init.normal_(table.weight, std=0.1)
    if missing == "zeros":
        with torch.no_grad():
            table.weight[0].zero_()
    return table


def _quiet(linear: nn.Linear) -> nn.Linear:
    """As small as a table at the start."""
    nn.init.normal_(linear.weight, std=0.03)
    nn.init.zeros_(linear.bias)
    return linear


def _average_of(n_pools: int, dim: int) -> nn.Linear:
    """(n·D) → (D): the mean of the pools at the start, so that users begin among what they chose."""
    linear = nn.Linear(n_pools * dim, dim)
    with torch.no_grad():
        linear.weight.mul_(0.1).add_(torch.eye(dim).repeat(1, n_pools) / n_pools)
        linear.bias.zero_()
    return linear


def parameters(model: nn.Module) -> dict[str, Any]:
    """Return weights by name as float32 arrays, for a bundle."""
    return {name: value.detach().cpu().numpy().astype(np.float32) for name, value in model.state_dict().items()}
