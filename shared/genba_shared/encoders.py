"""Images and texts into one space: OpenCLIP models from weights on this machine, for every domain that compares the
two.

Never downloads anything, never unpickles anything but tensors. Knows nothing of videos, indexes or services; torch and
open_clip are loaded when a model is opened and not before.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # only to catch it: tensors alone are loaded
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from genba_shared.problems import Unavailable
from genba_shared.torchvision import make_torchvision_importable

Rows = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Precision = Literal["fp32", "fp16", "bf16"]

_Item = TypeVar("_Item")

PREFIX: Final = "openclip:"
DIMS: Final = {"ViT-H-14": 1024, "ViT-B-32": 512}
_HUB: Final = {
    "ViT-H-14": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "ViT-B-32": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
}
_CONFIG: Final = "open_clip_config.json"
_WEIGHTS: Final = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
_SAMPLE_BYTES: Final = 2**20
_NOT_INSTALLED: Final = "This encoder needs torch and open_clip: install genba[openclip]."


class EncoderUnavailable(Unavailable):
    """The encoder cannot be opened on this machine."""


@dataclass(frozen=True)
class Source:
    """Where a model's weights lie: ``folder`` has the model's own configuration, ``architecture`` is a built-in one."""

    architecture: str
    weights: Path
    folder: Path | None = None

    def fingerprint(self) -> str:
        """Eight hex digits of the weights' size and samples: other weights, other vectors, another encoder."""
        size_bytes = self.weights.stat().st_size
        digest = hashlib.sha256(str(size_bytes).encode())
        with self.weights.open("rb") as file:
            for share in (0.0, 0.25, 0.5, 0.75, 1.0):
                file.seek(int(share * max(0, size_bytes - _SAMPLE_BYTES)))
                digest.update(file.read(_SAMPLE_BYTES))
        return digest.hexdigest()[:8]


def find_source(name: str, path: Path | None = None) -> Source:
    """The weights of ``openclip:<architecture>``.

    ``path`` is a checkpoint, or a folder with one and its open_clip_config.json; without it the local Hugging Face
    cache is looked through. Raises: ValueError for a name that is no OpenCLIP encoder; EncoderUnavailable (503) when
    there are no weights.
    """
    architecture = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or not architecture:
        message = f"{name!r} is no OpenCLIP encoder; {PREFIX}<architecture> is one"
        raise ValueError(message)
    if path is None:
        return _from_cache(architecture)
    if path.is_file():
        return Source(architecture, path, path.parent if (path.parent / _CONFIG).is_file() else None)
    weights = _weights_in(path)
    if weights is None:
        raise EncoderUnavailable(
            f"There are no weights of {name} at {path}; a file or a folder with a checkpoint is wanted."
        )
    return Source(architecture, weights, path if (path / _CONFIG).is_file() else None)


def _weights_in(folder: Path) -> Path | None:
    named = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    return next(iter([*named, *sorted(folder.glob("*.safetensors"))]), None)


def _from_cache(architecture: str) -> Source:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError as err:
        raise EncoderUnavailable(_NOT_INSTALLED) from err
    repository = _HUB.get(architecture)
    for name in (_CONFIG, *_WEIGHTS):
        cached = try_to_load_from_cache(repository, name) if repository else None
        weights = _weights_in(Path(cached).parent) if isinstance(cached, str) else None
        if weights is not None:
            folder = weights.parent
            return Source(architecture, weights, folder if (folder / _CONFIG).is_file() else None)
    raise EncoderUnavailable(
        f"The weights of {PREFIX}{architecture} are not on this machine and nothing is downloaded: "
        "put them into the Hugging Face cache, or name their file or folder in the settings."
    )


class OpenClip:
    """An image encoder and a text encoder with one space: rows are unit length, compare them by their dot product.

    Threads may share it: one encodes at a time.
    """

    def __init__(self, name: str, source: Source, *, device: str = "auto", batch: int = 64) -> None:
        torch, open_clip = _load_libraries()
        self._torch = torch
        self._one_at_a_time = threading.Lock()
        self._device = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        self.precision: Precision = _precision(torch, self._device)
        self.id = f"{name}@{source.fingerprint()}"
        self.batch = batch
        opened = _open_model(open_clip, source, device=self._device, precision=self.precision)
        self._model, self._tokenize = opened
        preprocess = self._model.visual.preprocess_cfg
        if preprocess["resize_mode"] != "shortest":
            raise EncoderUnavailable(
                f"{name} wants its images resized by {preprocess['resize_mode']!r}, which is not known."
            )
        size = preprocess["size"]
        self.image_px: int = size if isinstance(size, int) else size[0]
        self._mode: str = preprocess["interpolation"]
        self._mean, self._std = (
            torch.tensor(preprocess[key], device=self._device).view(1, 3, 1, 1) for key in ("mean", "std")
        )
        self.dim: int = self.encode_texts([""]).shape[1]

    def encode_images(self, images: Sequence[Pixels]) -> Rows:
        """(N, dim) float32 from N images of any sizes, each (h, w, 3); the middle square of each is seen."""
        rows = [self._image_rows(self._prepared(part)) for part in _batches(images, self.batch)]
        return np.concatenate(rows) if rows else np.zeros((0, self.dim), np.float32)

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        """(N, dim) float32; what is longer than the model's context is cut off."""
        rows = [self._text_rows(part) for part in _batches(texts, self.batch)]
        return np.concatenate(rows) if rows else np.zeros((0, self.dim), np.float32)

    def _image_rows(self, images: Any) -> Rows:
        with self._one_at_a_time, self._torch.inference_mode():
            return _unit(self._model.encode_image(images.to(self._dtype)).float().cpu().numpy())

    def _text_rows(self, texts: Sequence[str]) -> Rows:
        with self._one_at_a_time, self._torch.inference_mode():
            tokens = self._tokenize(list(texts)).to(self._device)
            return _unit(self._model.encode_text(tokens).float().cpu().numpy())

    @property
    def _dtype(self) -> Any:
        return {"fp32": self._torch.float32, "fp16": self._torch.float16, "bf16": self._torch.bfloat16}[self.precision]

    def _prepared(self, images: Sequence[Pixels]) -> Any:
        """(N, 3, image_px, image_px) float32 on the device: short side to ``image_px``, middle cut out, normalised.

        Images of one size, such as the frames of a video, go through as one batch.
        """
        torch = self._torch
        sizes = {image.shape for image in images}
        groups = [np.stack(images)] if len(sizes) == 1 else [image[None] for image in images]
        return torch.cat([self._resized(torch.from_numpy(group).to(self._device)) for group in groups])

    def _resized(self, images: Any) -> Any:
        """(N, 3, px, px) float32 from (N, h, w, 3) uint8; as open_clip's own transform, within a grey level."""
        pixels = images.permute(0, 3, 1, 2).float()
        height, width = pixels.shape[-2:]
        scale = self.image_px / min(height, width)
        size = (max(self.image_px, int(height * scale)), max(self.image_px, int(width * scale)))
        if size != (height, width):
            resize = self._torch.nn.functional.interpolate
            pixels = (
                resize(pixels, size=size, mode=self._mode, antialias=True, align_corners=False).clamp(0, 255).round()
            )
        top, left = (round((side - self.image_px) / 2) for side in size)
        pixels = pixels[:, :, top : top + self.image_px, left : left + self.image_px]
        return (pixels / 255 - self._mean) / self._std


def open_openclip(name: str, path: Path | None = None, *, device: str = "auto", batch: int = 64) -> OpenClip:
    """Open ``openclip:ViT-H-14``, ``openclip:ViT-B-32`` or another architecture whose folder is given.

    On a GPU in half precision, on a CPU in single. Raises: EncoderUnavailable (503).
    """
    return OpenClip(name, find_source(name, path), device=device, batch=batch)


def _open_model(open_clip: Any, source: Source, *, device: Any, precision: Precision) -> tuple[Any, Any]:
    """The model, ready to encode, and its tokenizer."""
    config = _configuration(source)
    if config is not None and ("hf_model_name" in config["text_cfg"] or "timm_model_name" in config["vision_cfg"]):
        raise EncoderUnavailable(f"{source.architecture} is built of parts that would have to be downloaded.")
    from safetensors import SafetensorError  # comes with open_clip

    try:
        with _as_open_clip_wants(source) as (name, pretrained):
            model = open_clip.create_model(
                name, pretrained, precision=precision, device=device, require_pretrained=True
            )
            return model.eval(), open_clip.get_tokenizer(name)
    except (  # open_clip asserts that sizes fit
        AssertionError, EOFError, RuntimeError, ValueError, OSError, KeyError, SafetensorError, UnpicklingError,
    ) as err:  # fmt: skip
        detail = f"The weights given for {source.architecture} do not fit it, or cannot be read safely."
        raise EncoderUnavailable(detail) from err


@contextlib.contextmanager
def _as_open_clip_wants(source: Source) -> Iterator[tuple[str, str | None]]:
    """Name and checkpoint for ``open_clip.create_model``, which picks the weights in a folder by itself: so a folder
    with ours alone.
    """
    if source.folder is None:
        yield source.architecture, str(source.weights)
        return
    safe = source.weights.suffix == ".safetensors"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _CONFIG).symlink_to((source.folder / _CONFIG).resolve())
        (Path(folder) / (_WEIGHTS[0] if safe else _WEIGHTS[-1])).symlink_to(source.weights.resolve())
        yield f"local-dir:{folder}", None


def _configuration(source: Source) -> dict[str, Any] | None:
    if source.folder is None:
        return None
    try:
        config = json.loads((source.folder / _CONFIG).read_text(encoding="utf-8"))["model_cfg"]
        return {"vision_cfg": dict(config["vision_cfg"]), "text_cfg": dict(config["text_cfg"])}
    except (ValueError, KeyError, TypeError) as err:
        raise EncoderUnavailable(f"The {_CONFIG} of {source.architecture} cannot be read.") from err


def _precision(torch: Any, device: Any) -> Precision:
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _unit(rows: Any) -> Rows:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)


def _load_libraries() -> tuple[Any, Any]:
    """Torch and open_clip, which imports torchvision."""
    try:
        torch = importlib.import_module("torch")
        make_torchvision_importable()
        return torch, importlib.import_module("open_clip")
    except ImportError as err:
        raise EncoderUnavailable(_NOT_INSTALLED) from err
