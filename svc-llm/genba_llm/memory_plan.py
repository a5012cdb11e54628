"""What a fine-tuning will take of a device's memory, before a byte is loaded. Computed from a model on the meta device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genba_llm.base_model import compute_dtype
from genba_llm.finetune_config import FinetuneConfig
from genba_llm.so8t import linear_names
from genba_llm.target_modules import lora_parameters, resolve_targets
from genba_llm.token_loss import CHUNK

_QUANTISED = {"int8": 1.0, "nf4": 0.5 + 4.0 / 64.0}  # bytes of a linear weight; nf4 adds a scale for each 64
_GIB = float(1 << 30)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by what holds them. Activations are an estimate: what a decoder layer keeps, with checkpointing one of them whole."""

    weights: float
    adapters: float
    gradients: float
    optimiser: float
    activations: float
    logits: float
    n_trainable: int

    @property
    def total(self) -> float:
        """Bytes, with a tenth on top for the allocator and the CUDA context."""
        return 1.1 * (self.weights + self.adapters + self.gradients + self.optimiser + self.activations + self.logits)

    def table(self) -> str:
        """One line each, in GiB; in MiB where all is less than one."""
        parts = ("weights", "adapters", "gradients", "optimiser", "activations", "logits", "total")
        unit, size = ("GiB", _GIB) if self.total >= _GIB else ("MiB", _GIB / 1024)
        lines = [f"{name:<12} {getattr(self, name) / size:8.2f} {unit}" for name in parts]
        return "\n".join([*lines, f"{'trainable':<12} {self.n_trainable:>12,} parameters"])


def memory_plan(model: Any, config: FinetuneConfig, *, device: str = "cuda") -> MemoryPlan:
    """The plan for ``model`` (its weights may be on the meta device). Raises: UnknownTargets for a layer that does not exist."""
    value_bytes = compute_dtype(device, config).itemsize
    shape = model.config
    all_weights = sum(p.numel() for p in model.parameters())
    layers, hidden = shape.num_hidden_layers, shape.hidden_size
    tokens = config.batch_size * config.max_tokens
    if config.train == "all":
        weights, trainable, adapters = 4.0 * all_weights, all_weights, 0.0
    else:
        names = resolve_targets(model, config.lora.targets)
        linear = sum(_linear_weights(model).values())
        weights = value_bytes * (all_weights - linear) + _QUANTISED.get(config.quantise, value_bytes) * linear
        trainable = lora_parameters(model, names, rank=config.lora.rank)
        if config.so8t is not None:
            trainable += layers * (hidden // 8) * 28
        adapters = 4.0 * trainable
    states = 2.0 * trainable * (1.0 if _eight_bit(config, device) else 4.0)
    width = (
        hidden * 2
        + shape.intermediate_size * 3
        + (shape.num_attention_heads + 2 * shape.num_key_value_heads) * (hidden // shape.num_attention_heads)
    )
    per_layer = float(value_bytes * tokens * width)
    activations = (
        value_bytes * tokens * hidden * layers + per_layer if config.gradient_checkpointing else layers * per_layer
    )
    logits = 2.0 * min(CHUNK, tokens * shape.vocab_size) * (value_bytes + 4.0)  # and fp32, each with its gradient
    return MemoryPlan(weights, adapters, 4.0 * trainable, states, activations, logits, trainable)


def _linear_weights(model: Any) -> dict[str, int]:
    names = [name for name in linear_names(model) if name != "lm_head"]
    return {name: module.weight.numel() for name, module in model.named_modules() if name.rsplit(".", 1)[-1] in names}


def _eight_bit(config: FinetuneConfig, device: str) -> bool:
    chosen = config.optimiser in {"adamw_8bit", "paged_adamw_8bit"}
    return chosen or (config.optimiser == "auto" and device.startswith("cuda"))
