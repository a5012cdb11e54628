"""SO8T: one learned block-diagonal rotation per decoder layer, put on a linear layer of a frozen model and taken off again.

y = R·(W x + b) with R of hidden/8 blocks of SO(8), and theta = 0 (R = I) at the start: attaching changes nothing. All
angles of a model are one parameter, and all rotations are made in one batched call per optimiser step: the forward
passes of an accumulation share them as a leaf, whose gradient is carried back to theta once.

Side ``"out"`` (default) turns what the layer gives, side ``"in"`` what it takes, y = W·R·x, which is peft's OFT with blocks
of eight. They burn into the weight differently, so a gate remembers its side. Knows no data, no loss and no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from genba_llm.refused import Refused
from genba_llm.rotations import BLOCK, N_ANGLES, Map, angles, orthogonality_error, rotate, rotations

Side = Literal["out", "in"]
THETA: Final = "theta"


class NoSuchLayer(Refused):
    """The model has no linear layer of that name, or one whose width is no multiple of eight."""


@dataclass(frozen=True)
class So8tConfig:
    """Where the rotations sit. ``layer`` is the last part of a linear layer's name, one in every decoder layer."""

    layer: str = "o_proj"
    side: Side = "out"
    map: Map = "cayley"

    def as_metadata(self) -> dict[str, str]:
        """What a file of angles has to say of itself."""
        return {"layer": self.layer, "side": self.side, "map": self.map}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> So8tConfig:
        """Raises: ValueError for metadata of something else."""
        side, how = metadata.get("side"), metadata.get("map")
        if side not in {"out", "in"} or how not in {"cayley", "exponential"} or "layer" not in metadata:
            raise ValueError("These angles do not say their layer, side and map; nothing can be done with them.")
        return cls(
            layer=metadata["layer"],
            side="in" if side == "in" else "out",
            map="exponential" if how == "exponential" else "cayley",
        )


class So8tGates(nn.Module):
    """The rotations of a whole model: (L·B, 28) angles for L layers of B blocks.

    ``attach`` hooks them on; ``build`` makes the rotations from the angles (call it after every optimiser step);
    ``collect`` carries the gradient of the rotations back to the angles (call it before every optimiser step).
    """

    def __init__(self, config: So8tConfig, *, n_layers: int, width: int) -> None:
        super().__init__()
        if width % BLOCK:
            message = f"The width {width} is no multiple of {BLOCK}."
            raise NoSuchLayer(message)
        self.config = config
        self.n_layers = n_layers
        self.n_blocks = width // BLOCK
        self.theta = nn.Parameter(torch.zeros(n_layers * self.n_blocks, N_ANGLES))
        self._made: Tensor | None = None  # with the graph to theta
        self._leaf: Tensor | None = None  # what the forward passes use
        self._handles: list[Any] = []

    @classmethod
    def for_model(cls, model: nn.Module, config: So8tConfig | None = None) -> So8tGates:
        """Gates for every layer of ``model`` that ``config`` names, on its device, not attached yet.

        Raises: NoSuchLayer (a ValueError) when nothing matches or the widths differ.
        """
        config = config or So8tConfig()
        layers = gated_layers(model, config.layer)
        widths = {_width(layer, config.side) for layer in layers.values()}
        if len(widths) != 1:
            message = f"The layers {config.layer!r} have different widths {sorted(widths)}; one gate cannot serve them."
            raise NoSuchLayer(message)
        gates = cls(config, n_layers=len(layers), width=widths.pop())
        device = next(iter(layers.values())).weight.device
        gates.to(device if device.type != "meta" else "cpu")
        return gates

    def attach(self, model: nn.Module) -> So8tGates:
        """Hook the rotations onto ``model``. Raises: NoSuchLayer if its layers are not those of these gates; RuntimeError if attached."""
        if self._handles:
            raise RuntimeError("These gates are attached already.")
        layers = gated_layers(model, self.config.layer)
        if len(layers) != self.n_layers or any(
            _width(each, self.config.side) != self.n_blocks * BLOCK for each in layers.values()
        ):
            message = (
                f"The gates are for {self.n_layers} layers of width {self.n_blocks * BLOCK}; the model is another."
            )
            raise NoSuchLayer(message)
        self.build()
        for index, name in enumerate(layers):
            # A wrapped layer (LoRA) is turned as a whole: merge the adapter first, burn the rotation after.
            module = _outermost(model, name)
            if self.config.side == "out":
                self._handles.append(module.register_forward_hook(self._turn_output(index)))
            else:
                self._handles.append(module.register_forward_pre_hook(self._turn_input(index)))
        return self

    def detach(self) -> None:
        """Take the hooks off; the model is what it was, the angles stay here."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def build(self) -> None:
        """Make all rotations from the angles, in single precision or wider."""
        wide = self.theta.float() if self.theta.dtype in {torch.float16, torch.bfloat16} else self.theta
        if torch.is_grad_enabled() and self.theta.requires_grad:
            self._made = rotations(wide, self.config.map)
            self._leaf = self._made.detach().requires_grad_()
        else:
            self._made, self._leaf = None, rotations(wide.detach(), self.config.map)

    def collect(self) -> None:
        """Add the gradient that the rotations gathered to ``theta.grad``. Rotations must be built anew afterwards."""
        if self._made is None or self._leaf is None or self._leaf.grad is None:
            return
        torch.autograd.backward(self._made, self._leaf.grad)
        self._made = self._leaf = None

    def blocks(self) -> Tensor:
        """The rotations of the present angles, (L, B, 8, 8), without a graph."""
        with torch.no_grad():
            return rotations(self.theta.detach().float(), self.config.map).view(
                self.n_layers, self.n_blocks, BLOCK, BLOCK
            )

    def _current(self, index: int) -> Tensor:
        if self._leaf is None:
            self.build()
        leaf = self._leaf
        if leaf is None:  # pragma: no cover - build sets it
            raise RuntimeError("No rotations were made.")
        return leaf.view(self.n_layers, self.n_blocks, BLOCK, BLOCK)[index]

    def _turn_output(self, index: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            return rotate(output, self._current(index))

        return hook

    def _turn_input(self, index: int) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (rotate(inputs[0], self._current(index)), *inputs[1:])

        return hook


@dataclass(frozen=True)
class Spectrum:
    """How far the rotations have turned, in radians over all four angles of all blocks."""

    mean_rad: float
    p50_rad: float
    p95_rad: float
    max_rad: float
    orthogonality_error: float

    def as_metrics(self) -> dict[str, float]:
        """Named for a training log."""
        return {
            "so8t_angle_mean_rad": self.mean_rad,
            "so8t_angle_p50_rad": self.p50_rad,
            "so8t_angle_p95_rad": self.p95_rad,
            "so8t_angle_max_rad": self.max_rad,
            "so8t_orthogonality_error": self.orthogonality_error,
        }


def spectrum(gates: So8tGates) -> Spectrum:
    """The rotation angles of ``gates`` as they are now."""
    blocks = gates.blocks().flatten(0, 1)
    turned = angles(blocks).flatten()
    p50, p95 = torch.quantile(turned, torch.tensor([0.5, 0.95], dtype=turned.dtype)).tolist()
    return Spectrum(float(turned.mean()), p50, p95, float(turned.max()), orthogonality_error(blocks))


def gated_layers(model: nn.Module, layer: str) -> dict[str, Any]:
    """Every linear layer of ``model`` whose name ends in ``layer``, in the order of the model, by the name without adapters.

    Raises: NoSuchLayer, with the names that exist, when there is none.
    """
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        plain = name.replace(".base_layer", "")
        if plain.rsplit(".", 1)[-1] == layer and getattr(module, "weight", None) is not None and plain not in found:
            found[plain] = module
    if not found:
        message = f"The model has no layer {layer!r}; it has {', '.join(linear_names(model))}."
        raise NoSuchLayer(message)
    return found


def linear_names(model: nn.Module) -> list[str]:
    """The last parts of the names of all linear layers, sorted."""
    return sorted(
        {
            name.replace(".base_layer", "").rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if _is_linear(module)
        }
    )


def _is_linear(module: nn.Module) -> bool:
    """True for nn.Linear and for the quantised layers that derive from it."""
    return isinstance(module, nn.Linear)


def _width(layer: Any, side: Side) -> int:
    return int(layer.out_features if side == "out" else layer.in_features)


def _outermost(model: nn.Module, name: str) -> nn.Module:
    module: nn.Module = model.get_submodule(name)
    return module
