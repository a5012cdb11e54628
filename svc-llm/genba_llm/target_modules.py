"""Which linear layers an adapter goes on: every name that is asked for exists, or nothing is trained.

peft raises only when nothing matches. Asked for ``q_proj … down_proj`` on a Phi-3 model, whose attention is one
``qkv_proj`` and whose gate is one ``gate_up_proj``, it would train two of four layers and say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from genba_llm.refused import Refused
from genba_llm.so8t import gated_layers, linear_names

PHI3 = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


class UnknownTargets(Refused):
    """A layer that was asked for does not exist in this model."""

    def __init__(self, missing: Sequence[str], existing: Sequence[str]) -> None:
        super().__init__(
            f"The model has no layer named {', '.join(missing)}. Its linear layers are {', '.join(existing)}."
        )
        self.missing = tuple(missing)
        self.existing = tuple(existing)


def resolve_targets(model: nn.Module, names: Sequence[str] | None = None) -> list[str]:
    """The names, each of which matches at least one linear layer; without names, all but the output head.

    Raises: UnknownTargets (a ValueError) that lists what is missing and what exists.
    """
    existing = linear_names(model)
    if names is None:
        return [name for name in existing if name != "lm_head"]
    missing = [name for name in names if name not in existing]
    if missing or not names:
        raise UnknownTargets(missing or ["(none given)"], existing)
    return list(dict.fromkeys(names))


def lora_parameters(model: nn.Module, names: Sequence[str], *, rank: int) -> int:
    """Trainable parameters of LoRA at ``rank`` on every layer of these names; works on the meta device."""
    layers = [layer for name in names for layer in gated_layers(model, name).values()]
    return sum(rank * (int(layer.in_features) + int(layer.out_features)) for layer in layers)
