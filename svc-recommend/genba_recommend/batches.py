"""From a drawn place to tensors: who the user was then, what they chose, what it is compared with. Seeded by epoch and step alone.

Each step runs the item tower only over the items that it touches, numbered anew from 0 ("near" rows), so that a step costs the
same in a large catalogue as in a small one. Because nothing is carried from step to step, training resumes at any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genba_recommend.dataset import Bools, Dataset, Ints
from genba_recommend.features import Encoders, ItemFeatures, UserFeatures, windows
from genba_recommend.prior import Prior
from genba_recommend.sampling import Batch, Places, PriorByDay
from genba_recommend.training_config import TrainingConfig

POPULAR_POWER = 0.75  # word2vec's: popular negatives, but not only the few at the top
SHARES = (0.6, 0.3, 0.1)  # random, hard, popular negatives of the hinge loss
HARD_POOL = 512  # random items of which the hinge loss takes the hardest


@dataclass(frozen=True)
class Step:
    """What one step of training reads; M samples, V near items.

    items: their features, V rows.   users: B rows, whose histories refer to near rows + 1.
    positive: (B,) and negative: (M,) near rows.   mask: (B, M) True where a sample is no negative for the row.
    frequency: (M,) how often it is a positive around here.   prior_positive: (B,), prior_negative: (B, M) log-popularity.
    """

    items: ItemFeatures
    users: UserFeatures
    positive: Tensor
    negative: Tensor
    mask: Tensor
    frequency: Tensor
    prior_positive: Tensor
    prior_negative: Tensor
    n_known: int  # items that uniform samples come from

    def on(self, device: torch.device) -> Step:
        """The same with its tensors on a device; features stay arrays."""
        moved = {name: x.to(device) for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **moved)


class Batches:
    """All steps over a dataset, by epoch and number."""

    def __init__(
        self,
        dataset: Dataset,
        encoders: Encoders,
        items: ItemFeatures,
        config: TrainingConfig,
        *,
        half_life_days: float,
    ) -> None:
        """Args: half_life_days: of the popularity that the towers may take for given."""
        self._config, self._encoders, self._items, self._users = config, encoders, items, dataset.users
        self._histories = dataset.histories
        self._owner = self._histories.user
        n_items = len(dataset.catalogue)
        self.places = Places.of(
            self._histories,
            n_items=n_items,
            half_life_days=config.place_half_life_days,
            skip_days=config.skip_days,
        )
        counts = np.bincount(self._histories.item, minlength=n_items)
        self._known = np.flatnonzero(counts)  # nobody chose the others, so they are no news as negatives
        self._popular = np.cumsum(counts[self._known] ** POPULAR_POWER)
        self._prior = PriorByDay.of(self._histories, Prior(half_life_days), n_items=n_items)

    def __len__(self) -> int:
        """Steps an epoch."""
        batch = self.batch
        return max(self._n_places, batch) // batch

    @property
    def batch(self) -> int:
        return min(self._config.batch, max(16, len(self.places) // 4))

    @property
    def _n_places(self) -> int:
        return min(self._config.places_per_epoch, 4 * len(self.places))

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Step]:
        """Args: epoch: over all stages.   start: the first step that is still wanted."""
        rng = np.random.default_rng([self._config.seed, epoch])
        for at, batch in enumerate(self.places.epoch(self._n_places, batch=self.batch, rng=rng)):
            if at >= start:
                yield self._step(batch, np.random.default_rng([self._config.seed, epoch, at]))

    def _step(self, batch: Batch, rng: np.random.Generator) -> Step:
        config = self._config
        user = self._owner[batch.place]
        seen = windows(self._histories, user, batch.place, length=config.encoders.history_len)
        users = self._encoders.users([self._users[row] for row in user], seen, self._items)
        sampled = self._sample(batch, rng)
        near, number = self._near(batch.item, sampled, seen.history)
        used = max(1, int((seen.history > 0).sum(1).max()))  # columns that hold anything
        history = np.where(seen.history > 0, number[seen.history - 1] + 1, 0)[:, :used].astype(np.int32)
        positive, negative = number[batch.item], number[sampled]
        return Step(
            items=self._items.take(near),
            users=replace(users, history=history, weight=users.weight[:, :used]),
            positive=torch.from_numpy(positive),
            negative=torch.from_numpy(negative),
            mask=torch.from_numpy(_no_negatives(positive, negative, history, len(near))),
            frequency=torch.from_numpy(batch.frequency[sampled].astype(np.float32)),
            prior_positive=torch.from_numpy(self._prior_of_positive(batch)),
            prior_negative=torch.from_numpy(self._prior.at(batch.day, sampled)),
            n_known=len(self._known),
        )

    def _sample(self, batch: Batch, rng: np.random.Generator) -> Ints:
        config, known = self._config, self._known
        if config.loss == "sampled_softmax":
            return np.concatenate([batch.item, known[rng.integers(0, len(known), config.uniform_negatives)]])
        n_random, _, n_popular = (round(share * config.hinge_negatives) for share in SHARES)
        drawn = np.searchsorted(self._popular, rng.random(n_popular) * self._popular[-1], side="right")
        popular = known[np.minimum(drawn, len(known) - 1)]
        pool = known[rng.integers(0, len(known), HARD_POOL)]
        return np.concatenate([known[rng.integers(0, len(known), n_random)], popular, pool])

    def _near(self, positive: Ints, sampled: Ints, history: npt.NDArray[np.int32]) -> tuple[Ints, Ints]:
        """The items that this step touches, and the number of each among them by its row in the catalogue, (N,)."""
        touched = np.zeros(len(self._items) + 1, np.bool_)
        touched[history.ravel()] = True
        touched[positive + 1] = touched[sampled + 1] = True
        near = np.flatnonzero(touched[1:])
        number = np.zeros(len(self._items), np.int64)
        number[near] = np.arange(len(near))
        return near, number

    def _prior_of_positive(self, batch: Batch) -> npt.NDArray[np.float32]:
        return np.asarray(self._prior.log_popularity[batch.day // self._prior.days_each, batch.item])


def _no_negatives(positive: Ints, negative: Ints, history: npt.NDArray[np.int32], n_near: int) -> Bools:
    """(B, M): the row's own positive, and what the user has had already (it is never listed again)."""
    had = np.zeros((len(positive), n_near + 1), np.bool_)
    rows = np.arange(len(positive))
    had[rows[:, None], history] = True
    had[rows, positive + 1] = True
    return np.asarray(had[:, negative + 1])
