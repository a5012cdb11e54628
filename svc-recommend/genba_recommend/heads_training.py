"""Train and judge the heads: what came of each moment at which a user turned to an item, from both towers' vectors then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

from genba_recommend.adam import Adam
from genba_recommend.dataset import Dataset, Floats, Ints
from genba_recommend.evidence import LIKE
from genba_recommend.features import Encoders, ItemFeatures, UserFeatures, windows
from genba_recommend.heads import TASKS, Heads, Task
from genba_recommend.prior import DAY_S

Float32s = npt.NDArray[np.float32]
EmbedUsers = Callable[[UserFeatures, Float32s], Float32s]

MOST_MOMENTS: Final = 40_000  # the newest are learnt from
LEAST_MOMENTS: Final = 200  # with fewer outcomes that are known, or of one kind, a head is not trained
SKIPPED_BELOW: Final = 0.1  # share watched
BACK_AFTER_DAYS, BACK_WITHIN_DAYS = 0.5, 7.0
HIDDEN, BATCH, EPOCHS, LEARNING_RATE, DECAY = 32, 512, 12, 3e-3, 1e-3


@dataclass(frozen=True)
class Moments:
    """n moments of users with items. user, item: (n, D) vectors.   outcome: (n, T) in [0, 1] by ``TASKS``, nan for unknown."""

    user: Float32s
    item: Float32s
    outcome: Float32s

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Foreseen:
    """How well a head foresees on moments that it has not learnt from.

    auc: of what was above half against what was not.   gain: of log loss per moment against the average outcome, in nats.
    """

    n: int
    auc: float
    gain: float
    gain_se: float

    @property
    def is_worth_it(self) -> bool:
        return self.gain > 2.0 * self.gain_se


def moments(
    dataset: Dataset,
    place: Ints,
    embed: EmbedUsers,
    encoders: Encoders,
    items: ItemFeatures,
    vectors: Float32s,
    *,
    batch: int = 2048,
) -> Moments:
    """Args: place: (n,) of the dataset's histories.   vectors: (N, D) of its catalogue."""
    past = dataset.histories
    owner, parts = past.user[place], []
    for at in range(0, len(place), batch):
        part = slice(at, at + batch)
        seen = windows(past, owner[part], place[part], length=encoders.config.history_len)
        parts.append(embed(encoders.users([dataset.users[row] for row in owner[part]], seen, items), vectors))
    user = np.concatenate(parts) if parts else np.zeros((0, vectors.shape[1]), np.float32)
    return Moments(user, vectors[past.item[place]], outcomes(dataset, place))


def outcomes(dataset: Dataset, place: Ints) -> Float32s:
    """What came of each moment, (n, T) by ``TASKS``; nan where that cannot be known."""
    past = dataset.histories
    duration_s = np.array([item.duration_s or np.nan for item in dataset.catalogue.items], np.float64)
    share = np.clip(past.watched_s[place] / duration_s[past.item[place]], 0.0, 1.0)
    skipped = np.where(np.isnan(share), np.nan, share < SKIPPED_BELOW)
    found = {
        "watched": share,
        "liked": past.weight[place] >= LIKE,
        "skipped": skipped,
        "returns": _back(dataset, place),
    }
    return np.stack([found[task] for task in TASKS], 1).astype(np.float32)


def _back(dataset: Dataset, place: Ints) -> Floats:
    """1 where the user did something on another day within a week, 0 where not, nan where the log ends before."""
    past = dataset.histories
    if not len(place):
        return np.zeros(0)
    start_s, end_s = float(past.time_s.min()), float(past.time_s.max())
    span = 2.0 * (end_s - start_s) + 2.0 * BACK_WITHIN_DAYS * DAY_S  # keeps users apart in one increasing column
    moment = past.time_s - start_s
    column, own = past.user * span + moment, past.user[place] * span
    after = np.searchsorted(column, own + moment[place] + BACK_AFTER_DAYS * DAY_S, side="right")
    within = np.searchsorted(column, own + moment[place] + BACK_WITHIN_DAYS * DAY_S, side="right")
    known = past.time_s[place] <= end_s - BACK_WITHIN_DAYS * DAY_S
    return np.where(known, (within > after).astype(np.float64), np.nan)


def teachable(found: Moments) -> tuple[Task, ...]:
    """The tasks of which enough outcomes are known, and not all alike."""
    kept = []
    for at, task in enumerate(TASKS):
        outcome = found.outcome[:, at]
        known = outcome[~np.isnan(outcome)]
        high = int((known > 0.5).sum())
        if min(high, len(known) - high) >= LEAST_MOMENTS // 4 and len(known) >= LEAST_MOMENTS:
            kept.append(task)
    return tuple(kept)


def train_heads(found: Moments, tasks: Sequence[Task], *, seed: int) -> Heads:
    """Cross-entropy of each outcome that is known, all tasks alike. Every random number follows from the seed."""
    if not tasks:
        return Heads.none()
    generator = torch.Generator().manual_seed(seed)
    columns = [TASKS.index(task) for task in tasks]
    outcome = torch.from_numpy(found.outcome[:, columns])
    known = ~torch.isnan(outcome)
    user, item = torch.from_numpy(found.user), torch.from_numpy(np.ascontiguousarray(found.item))
    pairs = torch.cat([user, item, user * item * item.shape[1]], dim=1)  # (n, 3·D)
    average = torch.nan_to_num(outcome).sum(0) / known.sum(0)
    weights = {
        "widen": torch.randn(pairs.shape[1], HIDDEN, generator=generator) * (2.0 / pairs.shape[1]) ** 0.5,
        "widen_bias": torch.zeros(HIDDEN),
        "narrow": torch.zeros(HIDDEN, len(tasks)),
        "narrow_bias": torch.logit(average.clamp(1e-3, 1 - 1e-3)),
    }
    for x in weights.values():
        x.requires_grad_()
    adam = Adam(weights, learning_rate=LEARNING_RATE)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(found), generator=generator).split(BATCH):
            adam.zero_grad()
            wide = F.relu(pairs[rows] @ weights["widen"] + weights["widen_bias"])
            logits = wide @ weights["narrow"] + weights["narrow_bias"]
            each = F.binary_cross_entropy_with_logits(logits, torch.nan_to_num(outcome[rows]), reduction="none")
            loss = (each * known[rows]).sum(0) / known[rows].sum(0).clamp_min(1)
            (loss.sum() + DECAY * (weights["widen"].square().sum() + weights["narrow"].square().sum())).backward()
            adam.step()
    return Heads(tuple(tasks), **{name: x.detach().numpy() for name, x in weights.items()})


def judge_heads(heads: Heads, found: Moments, *, averages: Mapping[Task, float]) -> dict[Task, Foreseen]:
    """Args: averages: of each task's outcome where it was learnt, which a head has to beat."""
    said = heads.predict(found.user, found.item)
    judged = {}
    for at, task in enumerate(heads.tasks):
        outcome = found.outcome[:, TASKS.index(task)].astype(np.float64)
        known = ~np.isnan(outcome)
        gain = _log_loss(np.full(known.sum(), averages[task]), outcome[known]) - _log_loss(
            said[known, at], outcome[known]
        )
        n = len(gain)
        se = float(gain.std() / np.sqrt(n)) if n else float("nan")
        auc = area_under_curve(said[known, at], outcome[known] > 0.5)
        judged[task] = Foreseen(n, auc, float(gain.mean()) if n else float("nan"), se)
    return judged


def averages_of(found: Moments) -> dict[Task, float]:
    with np.errstate(invalid="ignore"):
        known = (~np.isnan(found.outcome)).sum(0)
        means = np.nansum(found.outcome, 0) / np.maximum(known, 1)
    return {task: float(np.clip(means[at], 1e-3, 1 - 1e-3)) for at, task in enumerate(TASKS)}


def _log_loss(said: npt.NDArray[np.floating], outcome: Floats) -> Floats:
    p = np.clip(said.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(-(outcome * np.log(p) + (1 - outcome) * np.log1p(-p)))


def area_under_curve(said: npt.NDArray[np.floating], high: npt.NDArray[np.bool_]) -> float:
    """The chance that something high is put above something that is not, ties half (Hanley & McNeil 1982); nan without both."""
    n_high = int(high.sum())
    n_low = len(high) - n_high
    if not n_high or not n_low:
        return float("nan")
    values, which = np.unique(said, return_inverse=True)
    counts = np.bincount(which, minlength=len(values))
    rank = (np.cumsum(counts) - (counts - 1) / 2.0)[which]
    return float((rank[high].sum() - n_high * (n_high + 1) / 2.0) / (n_high * n_low))
