"""Train the two towers: steps, epochs, early stopping on what came later, averaged weights, and a state that can be resumed.

``train(dataset, config)`` is the door. Three stages: *fit* learns from all but the newest events and stops when those are not
predicted better any more, once from recent moments and once from all of the log where that is another thing; *tune* weighs
towers, prior and neighbours on them; *refit* learns anew from everything, for as many epochs as were best, so that what is new
gets its vector. Every random number follows from seed, epoch and step, so a run that was killed
and goes on from its checkpoint ends with the same bits as one that was not. Knows no queue and no database: hooks report, and
may stop it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from genba_recommend.adam import Adam
from genba_recommend.batches import Batches, Step
from genba_recommend.blending import Blend
from genba_recommend.cold_start import new_users
from genba_recommend.dataset import Dataset, Ints, split_by_time
from genba_recommend.features import FIRST_KNOWN, Encoders, ItemFeatures
from genba_recommend.heads import Heads, Task
from genba_recommend.heads_training import (
    MOST_MOMENTS,
    Foreseen,
    Moments,
    averages_of,
    judge_heads,
    moments,
    teachable,
    train_heads,
)
from genba_recommend.metrics import ScoreUsers, quality, questions, rank
from genba_recommend.neighbours import Neighbours
from genba_recommend.objective import loss_of
from genba_recommend.premieres import Premieres
from genba_recommend.premieres import fit as fit_premieres
from genba_recommend.prior import DAY_S, Prior, tune_half_life
from genba_recommend.reranker import Reranker
from genba_recommend.reranker_fitting import fit_reranker
from genba_recommend.scoring import latest_vectors, popularity_now, tower_scores, with_prior
from genba_recommend.training_config import TrainingConfig
from genba_recommend.tuning import Tuned, fit_neighbours, half_lives_within, sample_questions, tune
from genba_recommend.two_tower import TableSizes, TwoTower, item_vectors, user_vectors

Stage = Literal["fit", "refit", "done"]
DeviceName = Literal["auto", "cpu", "cuda"]
Weights = dict[str, Tensor]
TENSORS = "training.safetensors"
REMEMBERED = 0.5  # of the log's events, by the half-life of moments: with less, the whole log is tried too


class TooFewEvents(ValueError):
    """There is too little to learn from."""

    def __init__(self, found: int, needed: int) -> None:
        super().__init__(f"Training needs {needed} positive events, found {found}.")
        self.found, self.needed = found, needed


class NoGpu(ValueError):
    """A GPU was asked for, and there is none."""


class SavedState(Protocol):
    """As ``genba_shared.recipe.Saved``."""

    @property
    def state(self) -> dict[str, Any]: ...
    @property
    def folder(self) -> Path: ...


class CheckpointStore(Protocol):
    """As ``genba_shared.recipe.Checkpoint``."""

    def load(self) -> SavedState | None: ...
    def save(self, state: Mapping[str, Any], fill: Callable[[Path], None] | None = None) -> None: ...


@dataclass(frozen=True)
class Hooks:
    """How a run is watched and stopped; any of them may raise, between two steps, to stop.

    progress: share done in [0, 1], and what is being done; after every step.   log: step, metrics; after every epoch.
    checkpoint: where the state goes after every epoch and every ``checkpoint_every_s``, and where it is found again.
    """

    progress: Callable[[float, str], None] = lambda _share, _what: None
    log: Callable[[int, Mapping[str, float]], None] = lambda _step, _metrics: None
    checkpoint: CheckpointStore | None = None
    checkpoint_every_s: float = 60.0


@dataclass(frozen=True)
class Trained:
    """A model that is ready to rank, and how it was made.

    vectors: (N, D) of the dataset's catalogue.   neighbours, reranker: of the same, empty where they do not help.
    first_prior, first_blend: how the first stage is weighed where it ranks alone, as in exports.
    premieres: what untouched items draw, none where that cannot be told.
    metrics: on the validation slice, before refit saw it; figures of popularity
    alone beside it.   epochs: one record for every epoch.   n_events: positive ones that were learnt from.
    """

    model: TwoTower
    encoders: Encoders
    prior: Prior
    blend: Blend
    first_prior: Prior
    first_blend: Blend
    items: ItemFeatures
    vectors: npt.NDArray[np.float32]
    neighbours: Neighbours
    reranker: Reranker
    heads: Heads
    premieres: Premieres
    metrics: Mapping[str, float]
    epochs: tuple[Mapping[str, float], ...]
    config: TrainingConfig
    data_hash: str
    n_events: int
    trained_until_s: float  # of the newest event
    cpu_seconds: float


def find_device(wanted: DeviceName) -> torch.device:
    """Raises: NoGpu."""
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise NoGpu("The device is cuda, and this machine has no CUDA GPU that torch can use.")
    return torch.device("cuda" if has_gpu and wanted != "cpu" else "cpu")


@dataclass
class _State:
    """Where training is; all that checkpoints hold beside tensors."""

    stage: Stage = "fit"
    epoch: int = 0  # of the stage
    step: int = 0
    steps_of_stage: int = 0
    trial: int = 0  # of the half-lives of moments, in fit
    trial_best_epoch: int = -1
    trial_best: float = -1.0
    best_trial: int = 0
    best_epoch: int = -1
    best: float = -1.0
    loss_sum: float = 0.0
    epochs: list[dict[str, float]] = field(default_factory=list)
    cpu_seconds: float = 0.0


def train(
    dataset: Dataset, config: TrainingConfig, hooks: Hooks | None = None, *, device: DeviceName = "auto"
) -> Trained:
    """Train on all positive events of a dataset.

    Args: device: auto takes a CUDA GPU where there is one. A seed gives the same bits on the same kind of device only.
    Raises: TooFewEvents; NoGpu; whatever a hook raises, with the last checkpoint in place.
    """
    n_events = len(dataset.interactions.positive)
    if n_events < config.least_events:
        raise TooFewEvents(n_events, config.least_events)
    training = _Training(dataset, config, hooks or Hooks(), find_device(device))
    training.resume()
    training.fit()
    tuned = training.tune()
    foreseen = training.judge_heads()
    training.refit()
    return training.result(tuned, foreseen, n_events)


class _Training:
    """A run in progress."""

    def __init__(self, dataset: Dataset, config: TrainingConfig, hooks: Hooks, device: torch.device) -> None:
        self._device = device
        self._config, self._hooks, self._dataset = config, hooks, dataset
        self._split = split_by_time(dataset, newest=config.validation)
        self._asked = sample_questions(questions(self._split), config.validation_users, seed=config.seed)
        self._half_lives_days = half_lives_within(config.half_lives_days, self._split.train.interactions)
        self._half_life_days = self._best_half_life_days()
        self._place_half_lives_days = self._tried_half_lives()
        self._encoders = Encoders.fit(dataset, config.encoders)
        self._items = self._encoders.items(dataset.catalogue)
        self._at = _State()
        self._begin("fit")
        self._best: Weights = self._average
        self._saved_s = time.monotonic()
        self._cpu_started_s = time.process_time()

    # stages

    def fit(self) -> None:
        if self._at.stage != "fit":
            return
        while self._at.trial < len(self._place_half_lives_days):
            self._fit_one(self._batches(self._split.train, self._at.trial))
            self._at.trial += 1
            self._begin("fit")
            self._save()
        self._begin("refit")
        self._save()

    def _fit_one(self, batches: Batches) -> None:
        """Under one half-life of moments, until validation stops growing."""
        at, config = self._at, self._config
        while at.epoch < config.max_epochs and at.epoch - at.trial_best_epoch <= config.patience:
            self._run_epoch(batches)
            found = self._validate()
            self._end_epoch(**({"ndcg_at_10": found} if len(self._asked) else {}))
            if found > at.trial_best:
                at.trial_best, at.trial_best_epoch = found, at.epoch - 1
            if found > at.best:
                at.best, at.best_epoch, at.best_trial = found, at.epoch - 1, at.trial
                self._best = _copy(self._average)
            self._save()

    def refit(self) -> None:
        """From the start again, over everything, for as many epochs as were best."""
        if self._at.stage != "refit":
            return
        batches = self._batches(self._dataset, self._at.best_trial)
        while self._at.epoch <= self._at.best_epoch:
            self._run_epoch(batches)
            self._end_epoch()
            self._save()
        self._at.stage = "done"
        self._save()

    def tune(self) -> Tuned | None:
        """By the weights that have not seen the validation slice; None where nobody can be asked."""
        if not len(self._asked):
            return None
        strangers = sample_questions(new_users(self._split), self._config.validation_users, seed=self._config.seed)
        return tune(
            self._validation_scores(self._best, np.union1d(self._asked.users, strangers.users)),
            self._split.train,
            self._asked,
            half_lives_days=self._half_lives_days,
            prior_weights=self._config.prior_weights,
            reranker=self._reranker(self._split.train),
            strangers=strangers,
        )

    def judge_heads(self) -> dict[Task, Foreseen]:
        """How well each head, learnt before the validation slice, foresees what came of the moments in it."""
        places = self._newest_places(self._split.train)
        found = self._moments(self._best, self._split.train, places)
        heads = train_heads(found, teachable(found), seed=self._config.seed)
        asked = np.flatnonzero(self._dataset.histories.time_s >= float(self._split.test.interactions.time_s.min()))
        later = self._moments(self._best, self._dataset, asked[: self._config.validation_moments])
        return judge_heads(heads, later, averages=averages_of(found))

    def _newest_places(self, dataset: Dataset) -> Ints:
        newest = np.argsort(-dataset.histories.time_s, kind="stable")[:MOST_MOMENTS]
        return np.sort(newest)

    def _moments(self, weights: Weights, dataset: Dataset, places: Ints) -> Moments:
        model = self._model_of(weights)
        vectors = item_vectors(model, self._items)
        return moments(
            dataset, places, lambda features, table: user_vectors(model, features, table),
            self._encoders, self._items, vectors,
        )  # fmt: skip

    def result(self, tuned: Tuned | None, foreseen: Mapping[Task, Foreseen], n_events: int) -> Trained:
        self._model.load_state_dict(self._average)
        self._model.eval()
        worth = tuple(task for task, found in foreseen.items() if found.is_worth_it)
        heads = Heads.none()
        if worth:
            found = self._moments(self._average, self._dataset, self._newest_places(self._dataset))
            heads = train_heads(found, worth, seed=self._config.seed)
        premieres = fit_premieres(self._dataset)
        metrics = {"best_epoch": float(self._at.best_epoch + 1), "premieres_gain": premieres.gain}
        metrics |= {f"head_{task}_auc": each.auc for task, each in foreseen.items() if np.isfinite(each.auc)}
        if tuned is not None:
            metrics |= tuned.blended.summary()
            metrics |= {f"popularity_{name}": value for name, value in tuned.alone.summary().items()}
        blend = tuned.blend if tuned else Blend()
        return Trained(
            model=self._model,
            encoders=self._encoders,
            prior=tuned.prior if tuned else Prior(),
            blend=blend,
            first_prior=tuned.first_prior if tuned else Prior(),
            first_blend=tuned.first_blend if tuned else Blend(),
            items=self._items,
            vectors=item_vectors(self._model, self._items),
            neighbours=self._neighbours(blend),
            reranker=self._reranker(self._dataset) if blend.reranker else Reranker.none(len(self._items)),
            heads=heads,
            premieres=premieres,
            metrics=metrics,
            epochs=tuple(self._at.epochs),
            config=self._config,
            data_hash=self._dataset.data_hash,
            n_events=n_events,
            trained_until_s=float(self._dataset.interactions.time_s.max()),
            cpu_seconds=self._cpu_seconds(),
        )

    def _neighbours(self, blend: Blend) -> Neighbours:
        n_items = len(self._items)
        if not blend.neighbours:
            return Neighbours.none(n_items)
        n_users = len(self._dataset.users)
        return fit_neighbours(blend.kind, self._dataset.interactions, n_users=n_users, n_items=n_items)

    def _reranker(self, dataset: Dataset) -> Reranker:
        return fit_reranker(
            dataset, self._items, n_genres=len(self._encoders.genres) + FIRST_KNOWN,
            half_life_days=self._half_life_days, seed=self._config.seed,
        )  # fmt: skip

    # an epoch

    def _run_epoch(self, batches: Batches) -> None:
        self._model.train()
        for step in batches.epoch(self._at.epoch, start=self._at.step):
            self._learn(step)
            self._at.step += 1
            share = min(1.0, (self._at.epoch + self._at.step / len(batches)) / self._n_epochs)
            n_trials = len(self._place_half_lives_days)
            share = (self._at.trial + share) / n_trials / 2 if self._at.stage == "fit" else (1 + share) / 2
            self._hooks.progress(share, f"{self._at.stage}, epoch {self._at.epoch + 1}")
            if time.monotonic() - self._saved_s > self._hooks.checkpoint_every_s:
                self._save()

    def _end_epoch(self, **metrics: float) -> None:
        record = {"epoch": self._at.epoch + 1.0, "loss": self._at.loss_sum / max(self._at.step, 1), **metrics}
        self._at.epochs.append(record)
        self._hooks.log(self._at.epoch + 1, record)
        self._at.epoch, self._at.step, self._at.loss_sum = self._at.epoch + 1, 0, 0.0

    def _learn(self, step: Step) -> None:
        self._adam.zero_grad()
        loss = loss_of(self._model, step, self._config, seed=self._dropout_seed())
        loss.backward()
        self._adam.step()
        self._at.loss_sum += float(loss.detach())
        self._at.steps_of_stage += 1
        self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged weights; the first steps count for more, or a short run would average its random start."""
        n_steps = self._at.steps_of_stage
        decay = min(self._config.ema_decay, (1 + n_steps) / (10 + n_steps))
        weights = self._model.state_dict()
        names = list(weights)
        torch._foreach_lerp_([self._average[name] for name in names], [weights[name] for name in names], 1 - decay)

    def _dropout_seed(self) -> int:
        return int(np.random.SeedSequence([self._config.seed, self._at.epoch, self._at.step]).generate_state(1)[0])

    def _begin(self, stage: Stage) -> None:
        """Random weights, the same for every stage of one seed."""
        torch.manual_seed(self._config.seed)
        self._model = TwoTower(self._config.towers, TableSizes.of(self._encoders)).to(self._device)
        self._average = _copy(self._model.state_dict())
        self._adam = self._new_adam()
        self._at.stage, self._at.epoch, self._at.step, self._at.steps_of_stage = stage, 0, 0, 0
        self._at.trial_best_epoch, self._at.trial_best = -1, -1.0

    @property
    def _n_epochs(self) -> int:
        """Of this stage, at most."""
        return self._config.max_epochs if self._at.stage == "fit" else self._at.best_epoch + 1

    def _new_adam(self) -> Adam:
        return Adam(dict(self._model.named_parameters()), learning_rate=self._config.learning_rate)

    def _batches(self, dataset: Dataset, trial: int) -> Batches:
        config = replace(self._config, place_half_life_days=self._place_half_lives_days[trial])
        return Batches(dataset, self._encoders, self._items, config, half_life_days=self._half_life_days)

    def _tried_half_lives(self) -> tuple[float, ...]:
        """Half-lives of moments to try: the configured one, and the length of the log where the first forgets most of it."""
        recent, events = self._config.place_half_life_days, self._split.train.interactions.positive
        if not len(self._asked) or not len(events):
            return (recent,)
        age_days = (events.time_s.max() - events.time_s) / DAY_S
        remembered = float(np.exp2(-age_days / recent).mean())
        return (recent, float(age_days.max())) if remembered < REMEMBERED else (recent,)

    # judging

    def _best_half_life_days(self) -> float:
        half_lives_days = self._half_lives_days
        if not len(self._asked):
            return half_lives_days[len(half_lives_days) // 2]
        return tune_half_life(self._split.train.interactions, self._asked, half_lives_days)[0]

    def _validate(self) -> float:
        """NDCG@10 of the averaged weights; where nobody can be asked, the latest epoch is the best."""
        if not len(self._asked):
            return float(self._at.epoch)
        scores = self._validation_scores(self._average, self._asked.users)
        prior = Prior(self._half_life_days, weight=self._config.prior_in_training)
        popular = popularity_now(prior, self._split.train.interactions, n_items=len(self._items))
        found = quality(rank(with_prior(scores, popular, prior.weight), self._asked), self._asked)
        return float(found.ndcg_at_10.mean())

    def _model_of(self, weights: Weights) -> TwoTower:
        model = TwoTower(self._config.towers, TableSizes.of(self._encoders))
        model.to(self._device).load_state_dict(weights)
        return model

    def _validation_scores(self, weights: Weights, asked: Ints) -> ScoreUsers:
        model = self._model_of(weights)
        vectors = item_vectors(model, self._items)
        users = latest_vectors(
            lambda features, table: user_vectors(model, features, table),
            self._encoders,
            self._items,
            vectors,
            self._split.train,
            asked,
        )
        return tower_scores(users, vectors, temperature=self._config.towers.temperature)

    # checkpoints

    def resume(self) -> None:
        """Go on from the last checkpoint, if it is of the same data and configuration."""
        saved = self._hooks.checkpoint.load() if self._hooks.checkpoint else None
        if saved is None or saved.state.get("fingerprint") != self._fingerprint:
            return
        found = load_file(saved.folder / TENSORS, device=str(self._device))
        self._at = _State(**saved.state["at"])
        self._model.load_state_dict(_below(found, "model."))
        self._average, self._best = _below(found, "average."), _below(found, "best.")
        self._adam.load_state(_below(found, "adam."))

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        if self._hooks.checkpoint is None:
            return
        at = {**vars(self._at), "cpu_seconds": self._cpu_seconds()}
        self._hooks.checkpoint.save(
            {"fingerprint": self._fingerprint, "at": at},
            lambda folder: save_file(self._tensors(), folder / TENSORS),
        )

    def _tensors(self) -> Weights:
        parts = {"model": self._model.state_dict(), "average": self._average, "best": self._best}
        parts["adam"] = self._adam.state()
        return {
            f"{part}.{name}": x.detach().cpu().clone() for part, found in parts.items() for name, x in found.items()
        }

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(f"{self._dataset.data_hash} {self._config.to_json()}".encode()).hexdigest()

    def _cpu_seconds(self) -> float:
        return self._at.cpu_seconds + time.process_time() - self._cpu_started_s


def _copy(weights: Mapping[str, Tensor]) -> Weights:
    return {name: value.detach().clone() for name, value in weights.items()}


def _below(weights: Mapping[str, Tensor], prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
