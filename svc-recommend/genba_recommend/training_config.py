"""What a training run of the towers may vary. Written into every bundle as config.json, read back by whoever retrains.

The defaults are the recipe that was best on public film ratings under a temporal split (docs/explanation/recommender.md);
``loss="hinge"`` with ``pooling="mean"`` is the classic alternative: a margin over random, hard and popular negatives.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from genba_recommend.features import EncoderConfig

Pooling = Literal["three_ways", "mean"]
Loss = Literal["sampled_softmax", "hinge"]


@dataclass(frozen=True)
class TowerConfig:
    """Sizes and habits of the towers. temperature divides the dot product in the loss and in ranking."""

    dim: int = 64
    hidden: int = 128
    history_len: int = 100
    temperature: float = 0.07
    item_id_dropout: float = 0.15
    pooling: Pooling = "three_ways"


@dataclass(frozen=True)
class TrainingConfig:
    """Raises ValueError for what cannot be trained. Shares lie in (0, 1)."""

    towers: TowerConfig = field(default_factory=lambda: TowerConfig(history_len=50))
    encoders: EncoderConfig = field(default_factory=lambda: EncoderConfig(history_len=50))
    loss: Loss = "sampled_softmax"
    max_epochs: int = 20
    patience: int = 2  # epochs without a better validation before training stops
    places_per_epoch: int = 60_000
    batch: int = 512
    learning_rate: float = 4e-3
    uniform_negatives: int = 256
    hard_negatives: int = 8  # a row, the highest of those sampled; 0 without
    hard_weight: float = 0.1  # of their loss
    place_half_life_days: float = 30.0  # of the chance that a moment is trained on; the whole log is tried as well
    skip_days: int = 14  # at the start of the log, while popularity is not known yet
    prior_in_training: float = 0.75  # how much the towers may take popularity for given while they learn
    ema_decay: float = 0.995  # a step, of the averaged weights that are evaluated and kept
    hinge_margin: float = 0.3
    hinge_negatives: int = 100  # a row: 60 % random, 30 % hard, 10 % popular
    validation: float = 0.1  # the newest share of events, for early stopping and for tuning the prior
    validation_users: int = 2_000  # at most
    validation_moments: int = 10_000  # at most, on which the heads are judged
    half_lives_days: tuple[float, ...] = (1.0, 2.0, 3.0, 7.0, 14.0, 30.0, 90.0, 365.0)  # and no fading; within the log
    prior_weights: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    least_events: int = 200  # positive ones; with fewer nothing can be learnt
    seed: int = 0

    def __post_init__(self) -> None:
        if self.towers.history_len != self.encoders.history_len:
            raise ValueError(
                f"history_len is {self.towers.history_len} for the towers and {self.encoders.history_len} for the encoders."
            )
        if not 0 < self.validation < 1:
            raise ValueError(f"validation is {self.validation}, must lie between 0 and 1.")
        for name in (
            "max_epochs",
            "patience",
            "places_per_epoch",
            "batch",
            "least_events",
            "validation_users",
            "validation_moments",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1.")
        if not self.half_lives_days or not self.prior_weights:
            raise ValueError("At least one half-life and one weight of the prior must be given.")

    def with_history_len(self, history_len: int) -> Self:
        return replace(
            self,
            towers=replace(self.towers, history_len=history_len),
            encoders=replace(self.encoders, history_len=history_len),
        )

    def to_json(self) -> str:
        return json.dumps({"format": 1, **asdict(self)}, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises: ValueError for a file of another format."""
        raw: dict[str, Any] = json.loads(text)
        if raw.pop("format", None) != 1:
            raise ValueError("config.json is of a format that this version does not read.")
        towers, encoders = TowerConfig(**raw.pop("towers")), EncoderConfig(**raw.pop("encoders"))
        lists: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()
        }
        return cls(towers=towers, encoders=encoders, **lists)


def hinge_config(base: TrainingConfig) -> TrainingConfig:
    """Return the plan's classic model: mean pooling, hinge loss, 60/30/10 negatives, no prior while learning."""
    return replace(base, loss="hinge", towers=replace(base.towers, pooling="mean"), prior_in_training=0.0)
