"""DINOv2 and DINOv3 as encoders of views, from weights that the user brings: by PyTorch from a folder or the local Hugging Face
cache, or by ONNX Runtime from a folder that ``export_onnx`` wrote.

The particle is cut out by its mask; the row is the class token beside the mean of the patch tokens inside the outline. Nothing is
downloaded and nothing is made up: without weights the encoder is unavailable (503), for random ones are worse than none. DINOv2 is
Apache-2.0, DINOv3's licence is its own: read it before you bring its weights.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from genba_sem import descriptors
from genba_sem.encoders import unit
from genba_shared.encoders import EncoderUnavailable
from genba_shared.torchvision import make_torchvision_importable

Rows = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Tokens = Callable[[Rows], Rows]  # (N, 3, side, side) normalised images → (N, 1 + registers + patches, D)

PREFIX: Final = "dino:"
ONNX_PREFIX: Final = "onnx:"
MODELS: Final = ("dinov2", "dinov2_with_registers", "dinov3_vit")
_GRAPH: Final = "model.onnx"
_SIDE_PX: Final = 224
_MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
_STD: Final = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
_SAMPLE_BYTES: Final = 2**20
_OPSET: Final = 17


@dataclass(frozen=True)
class _Layout:
    """How a model's tokens lie."""

    model_type: str
    patch_px: int
    registers: int
    hidden: int

    @property
    def side_px(self) -> int:
        return _SIDE_PX // self.patch_px * self.patch_px


class DinoEncoder:
    """Rows of a DINO vision transformer, whatever runs it. Threads may share it."""

    def __init__(self, name: str, layout: _Layout, tokens: Tokens, *, fingerprint: str) -> None:
        self.name = name
        self._layout, self._tokens = layout, tokens
        self.side_px = layout.side_px
        self.raw_dim: int = 2 * layout.hidden
        self.dim: int = self.raw_dim
        self.id = f"{name.partition(':')[0]}:{layout.model_type}@{fingerprint}"
        self.kind = self.id  # nothing is fitted: the weights alone make the rows

    def describe(self, pixels: Rows, mask: Mask) -> Rows:
        """(raw_dim,) of one picture (H, W) in [0, 1] and the particle's mask; the whole picture where the mask is empty."""
        if not mask.any():
            mask = np.ones_like(mask)
        crop, inside = descriptors.cut_out(pixels, mask, side_px=self.side_px)
        tokens = self._tokens(((crop[None] - _MEAN) / _STD)[None])  # (1, 1 + registers + patches, D)
        grid = self.side_px // self._layout.patch_px
        share = cv2.resize(inside.astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA).ravel()  # (patches,)
        weights = share if share.sum() > 0 else np.ones_like(share)
        patches = tokens[0, 1 + self._layout.registers :]
        pooled = weights @ patches / weights.sum()
        return np.concatenate([unit(tokens[0, :1])[0], unit(pooled[None])[0]]).astype(np.float32)

    def embed(self, raw: Rows) -> Rows:
        """(N, dim) unit rows."""
        return unit(raw)


def open_dino(name_or_folder: str | Path) -> DinoEncoder:
    """Open a folder with config.json and safetensors, or ``facebook/dinov2-small`` from the local cache.

    Raises: EncoderUnavailable (503) where there are none.
    """
    folder = _folder_of(name_or_folder)
    layout, weights = _described(folder, "*.safetensors")
    torch, model = _opened(folder)
    one_at_a_time = threading.Lock()

    def tokens(images: Rows) -> Rows:
        with one_at_a_time, torch.inference_mode():
            answer = model(pixel_values=torch.from_numpy(images))
        return np.asarray(answer.last_hidden_state.numpy(), np.float32)

    return DinoEncoder(f"{PREFIX}{name_or_folder}", layout, tokens, fingerprint=_fingerprint(weights))


def open_onnx(folder: Path) -> DinoEncoder:
    """Open what ``export_onnx`` wrote; PyTorch is not needed. Raises: EncoderUnavailable (503)."""
    layout, graph = _described(folder, _GRAPH)
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # the service's workers are the parallelism
    try:
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as err:
        raise EncoderUnavailable(f"{graph.name} cannot be read by ONNX Runtime.") from err

    def tokens(images: Rows) -> Rows:
        return np.asarray(session.run(None, {"pixel_values": images})[0], np.float32)

    return DinoEncoder(f"{ONNX_PREFIX}{folder}", layout, tokens, fingerprint=_fingerprint(graph))


def export_onnx(name_or_folder: str | Path, into: Path, *, precision: Literal["fp32", "int8"] = "fp32") -> Path:
    """Write a DINO model as ONNX beside a config.json, for ``open_onnx``; int8: weights in eight bits, about twice as fast.

    Raises: EncoderUnavailable (503) without weights, torch, transformers or onnx.
    """
    folder = _folder_of(name_or_folder)
    layout, weights = _described(folder, "*.safetensors")
    torch, model = _opened(folder)
    try:
        importlib.import_module("onnx")
    except ImportError as err:
        raise EncoderUnavailable("An export needs onnx: install genba[recommend].") from err
    model.set_attn_implementation("eager")
    into.mkdir(parents=True, exist_ok=True)
    graph = into / _GRAPH
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is pinned; its newer exporter needs one more package for the same graph
        torch.onnx.export(
            _last_hidden_state(torch, model), (torch.zeros(1, 3, layout.side_px, layout.side_px),), str(graph),
            input_names=["pixel_values"], output_names=["last_hidden_state"], opset_version=_OPSET, dynamo=False,
            dynamic_axes={"pixel_values": {0: "images"}, "last_hidden_state": {0: "images"}},
        )  # fmt: skip
    if precision == "int8":
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(graph, graph)
    about = {
        "model_type": layout.model_type,
        "patch_size": layout.patch_px,
        "num_register_tokens": layout.registers,
        "hidden_size": layout.hidden,
        "exported_from": f"{PREFIX}{layout.model_type}@{_fingerprint(weights)}",
        "precision": precision,
    }
    (into / "config.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    return graph


def _last_hidden_state(torch: Any, model: Any) -> Any:
    class LastHiddenState(torch.nn.Module):  # type: ignore[misc]  # torch is loaded when it is needed
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            return self.model(pixel_values=pixel_values).last_hidden_state

    return LastHiddenState().eval()


def _folder_of(name_or_folder: str | Path) -> Path:
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    _libraries()
    hub = importlib.import_module("huggingface_hub")
    try:
        found = hub.try_to_load_from_cache(str(name_or_folder), "config.json")
    except ValueError as err:
        raise EncoderUnavailable(f"{name_or_folder} is neither a folder nor a model's name.") from err
    if not isinstance(found, str):
        raise EncoderUnavailable(
            f"The weights of {name_or_folder} are not on this machine and nothing is downloaded: "
            "put them into the Hugging Face cache, or name their folder."
        )
    return Path(found).parent


def _opened(folder: Path) -> tuple[Any, Any]:
    """torch, and the model."""
    torch, transformers = _libraries()
    from safetensors import SafetensorError  # comes with transformers

    try:
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as err:
        raise EncoderUnavailable("The DINO weights do not fit their configuration, or cannot be read.") from err
    return torch, model.eval()


def _libraries() -> tuple[Any, Any]:
    try:
        make_torchvision_importable()
        return importlib.import_module("torch"), importlib.import_module("transformers")
    except ImportError as err:
        raise EncoderUnavailable("DINO needs torch and transformers: install genba[so8t].") from err


def _described(folder: Path, weights: str) -> tuple[_Layout, Path]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise EncoderUnavailable("There is no readable config.json beside the DINO weights.") from err
    if config.get("model_type") not in MODELS:
        raise EncoderUnavailable(f"{config.get('model_type')!r} is no DINO model; {', '.join(MODELS)} are.")
    found = next(iter(sorted(folder.glob(weights))), None)
    if found is None:
        raise EncoderUnavailable(f"There is no {weights} beside the configuration; random weights are never used.")
    registers = config.get("num_register_tokens", 0) or 0
    return _Layout(config["model_type"], config["patch_size"], registers, config["hidden_size"]), found


def _fingerprint(weights: Path) -> str:
    """Eight hex digits of the weights' size, middle and both ends: other weights, other rows, another encoder."""
    size_bytes = weights.stat().st_size
    digest = hashlib.sha256(str(size_bytes).encode())
    with weights.open("rb") as file:
        for start in (0, max(0, size_bytes // 2 - _SAMPLE_BYTES), max(0, size_bytes - _SAMPLE_BYTES)):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:8]
