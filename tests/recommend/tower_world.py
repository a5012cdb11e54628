"""Towers with weights that are not at their quiet start, and users and items to run them on; for the tests of exports."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from genba_recommend.dataset import Catalogue, Dataset, Interactions, Item, User
from genba_recommend.features import EncoderConfig, Encoders, ItemFeatures, UserFeatures, Windows, latest_windows
from genba_recommend.training_config import Pooling, TowerConfig
from genba_recommend.two_tower import TableSizes, TwoTower, item_vectors, parameters, user_vectors

GENRES, TAGS = ("料理", "travel", "music", "自然"), ("癒やし", "short", "live")


@dataclass(frozen=True)
class Towers:
    """A model and what it says of a dataset."""

    dataset: Dataset
    encoders: Encoders
    model: TwoTower
    items: ItemFeatures
    windows: Windows
    users: UserFeatures
    vectors: npt.NDArray[np.float32]
    answers: npt.NDArray[np.float32]

    @property
    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        return parameters(self.model)


def towers(*, pooling: Pooling = "three_ways", history_len: int = 12, embedding_len: int = 0, seed: int = 0) -> Towers:
    """80 items and 40 users, the first without history, the last with more than fits."""
    rng = np.random.default_rng(seed)
    dataset = _dataset(rng, embedding_len)
    encoders = Encoders.fit(dataset, EncoderConfig(history_len=history_len, text_buckets=64))
    torch.manual_seed(seed)
    model = TwoTower(TowerConfig(dim=16, hidden=32, history_len=history_len, pooling=pooling), TableSizes.of(encoders))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mlp" in name or "attend" in name or "position" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    items = encoders.items(dataset.catalogue)
    windows = latest_windows(dataset.histories, np.arange(len(dataset.users)), length=history_len)
    users = encoders.users(dataset.users, windows, items)
    vectors = item_vectors(model, items)
    return Towers(dataset, encoders, model, items, windows, users, vectors, user_vectors(model, users, vectors))


def _dataset(rng: np.random.Generator, embedding_len: int) -> Dataset:
    items = tuple(
        Item(
            f"v{n}",
            title=f"静かな港 {n % 7} quiet harbour",
            description="夜の映像" if n % 2 else "a short film",
            genre=tuple(dict.fromkeys(rng.choice(GENRES, size=rng.integers(0, 3)).tolist())),
            maker=None if n % 9 == 0 else f"maker {n % 5}",
            performers=(f"p{n % 6}", f"p{n % 11}"),
            tags=tuple(dict.fromkeys(rng.choice(TAGS, size=2).tolist())),
            price=None if n % 8 == 0 else 110.0 * (n % 10),
            duration_s=60.0 + n,
            published_at_s=1.7e9 + 86_400 * n,
            embedding=tuple(rng.normal(size=embedding_len).tolist()) if embedding_len else None,
        )
        for n in range(80)
    )
    users = tuple(
        User(f"u{n}", "18-24" if n % 2 else None, "kanto" if n % 3 else None, float(n % 5) if n % 4 else None)
        for n in range(40)
    )
    counts = np.r_[0, rng.integers(1, 12, 38), 30]
    user = np.repeat(np.arange(40), counts)
    events = Interactions.of(
        user,
        rng.integers(0, 80, len(user)),
        1.7e9 + rng.uniform(0, 1e7, len(user)),
        weight=rng.choice([0.5, 1.0, 2.0], len(user)),
        watched_s=np.where(rng.random(len(user)) < 0.5, rng.uniform(1, 500, len(user)), np.nan),
    )
    return Dataset(Catalogue(items), users, events)
