"""One document describes a fine-tuning: what is trained, on what, how long. Pure values, with the presets that ship."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Quantise = Literal["none", "int8", "nf4"]
Optimiser = Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraPart(_Part):
    """The adapter. Without ``targets`` it goes on every linear layer but the head; a name that does not exist is refused."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 64
    alpha: Annotated[float, Field(gt=0)] = 128.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    targets: list[str] | None = None


class So8tPart(_Part):
    """The rotations."""

    layer: str = "o_proj"
    side: Literal["out", "in"] = "out"
    map: Literal["cayley", "exponential"] = "cayley"


class FinetuneConfig(_Part):
    """What a run does. ``train: adapter`` keeps the base and learns LoRA and rotations; ``all`` learns every weight."""

    train: Literal["adapter", "all"] = "adapter"
    quantise: Quantise = "int8"
    lora: LoraPart = LoraPart()
    so8t: So8tPart | None = So8tPart()
    pet: bool = True
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    optimiser: Optimiser = "auto"
    learning_rate: Annotated[float, Field(gt=0, le=1.0)] = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    warmup: Share = 0.1
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    noise_eta: Annotated[float, Field(ge=0.0)] = 0.0
    swa_from: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    swa_lr: Annotated[float, Field(ge=0.0)] = 1e-5
    max_tokens: Annotated[int, Field(ge=8, le=131_072)] = 2048
    batch_size: Annotated[int, Field(ge=1)] = 2
    accumulation: Annotated[int, Field(ge=1)] = 8
    epochs: Annotated[float, Field(gt=0)] = 3.0
    max_steps: Annotated[int, Field(ge=1)] | None = None
    gradient_checkpointing: bool = True
    validation_share: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.02
    token_splits: Annotated[
        Share,
        Field(description="How many of a prompt's tokens are learnt in two pieces, so that other spellings are read."),
    ] = 0.0
    max_bad_rows: Annotated[int, Field(ge=0)] = 100
    checkpoint_every_s: Annotated[float, Field(gt=0)] = 180.0
    checkpoints_kept: Annotated[int, Field(ge=1)] = 5
    gpu_max_celsius: Annotated[float, Field(gt=0)] = 85.0
    gpu_memory_share: Annotated[float, Field(gt=0.0, le=1.0, description="Of a GPU's memory, what a run may take.")] = (
        0.95
    )

    @model_validator(mode="after")
    def _whole_models_are_not_quantised(self) -> FinetuneConfig:
        if self.train == "all" and self.quantise != "none":
            raise ValueError(
                "quantise must be none where every weight is trained: int8 and nf4 weights have no gradient"
            )
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "phi-4-mini": {
        "quantise": "int8",
        "max_tokens": 2048,
        "lora": {"rank": 64, "alpha": 128.0, "dropout": 0.1},
        "swa_from": 0.75,
    },
    "phi-3.5-mini": {
        "quantise": "nf4",
        "max_tokens": 2048,
        "lora": {"rank": 64, "alpha": 128.0, "dropout": 0.1},
        "swa_from": 0.75,
    },
    "tiny": {
        "train": "all",
        "quantise": "none",
        "so8t": None,
        "pet": False,
        "label_smoothing": 0.0,
        "learning_rate": 2e-3,
        "max_tokens": 256,
        "batch_size": 16,
        "accumulation": 1,
        "gradient_checkpointing": False,
        "checkpoint_every_s": 30.0,
    },
}


def config_of(document: dict[str, Any]) -> FinetuneConfig:
    """The configuration of a document; nested parts change the preset's parts field by field."""
    rest = dict(document)
    preset = rest.pop("preset", None)
    if preset is None:
        return FinetuneConfig.model_validate(rest)
    if preset not in PRESETS:
        message = f"There is no preset {preset!r}; there are {', '.join(PRESETS)}."
        raise ValueError(message)
    merged = dict(PRESETS[preset])
    for name, value in rest.items():
        old = merged.get(name)
        merged[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return FinetuneConfig.model_validate(merged)
