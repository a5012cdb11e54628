"""DINOv2 and DINOv3 as encoders of views, from weights that the user brings: a folder, or the local Hugging Face cache.

The particle is cut out by its mask; the row is the class token beside the mean of the patch tokens inside the outline. Nothing is
downloaded and nothing is made up: without weights the encoder is unavailable (503), for random ones are worse than none. DINOv2 is
Apache-2.0, DINOv3's licence is its own: read it before you bring its weights.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import threading
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from genba_sem import descriptors
from genba_sem.encoders import unit
from genba_shared.encoders import EncoderUnavailable
from genba_shared.torchvision import make_torchvision_importable

Rows = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

PREFIX: Final = "dino:"
MODELS: Final = ("dinov2", "dinov2_with_registers", "dinov3_vit")
_SIDE_PX: Final = 224
_MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
_STD: Final = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
_SAMPLE_BYTES: Final = 2**20


class DinoEncoder:
    """Rows of a DINO vision transformer. Threads may share it: one encodes at a time."""

    def __init__(self, folder: Path) -> None:
        self._torch, transformers = _libraries()
        config, weights = _described(folder)
        try:
            model = transformers.AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, RuntimeError, ValueError, KeyError) as err:
            raise EncoderUnavailable("The DINO weights do not fit their configuration, or cannot be read.") from err
        self._model = model.eval()
        self._one_at_a_time = threading.Lock()
        self._patch_px: int = config["patch_size"]
        self._registers: int = config.get("num_register_tokens", 0) or 0
        self.side_px = _SIDE_PX // self._patch_px * self._patch_px
        self.raw_dim: int = 2 * config["hidden_size"]
        self.dim: int = self.raw_dim
        self.id = f"{PREFIX}{config['model_type']}@{_fingerprint(weights)}"

    def describe(self, pixels: Rows, mask: Mask) -> Rows:
        """(raw_dim,) of one picture (H, W) in [0, 1] and the particle's mask; the whole picture where the mask is empty."""
        if not mask.any():
            mask = np.ones_like(mask)
        crop, inside = descriptors.cut_out(pixels, mask, side_px=self.side_px)
        tokens = self._tokens(((crop[None] - _MEAN) / _STD)[None])  # (1, 1 + registers + patches, D)
        grid = self.side_px // self._patch_px
        share = cv2.resize(inside.astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA).ravel()  # (patches,)
        weights = share if share.sum() > 0 else np.ones_like(share)
        patches = tokens[0, 1 + self._registers :]
        pooled = weights @ patches / weights.sum()
        return np.concatenate([unit(tokens[0, :1])[0], unit(pooled[None])[0]]).astype(np.float32)

    def embed(self, raw: Rows) -> Rows:
        """(N, dim) unit rows."""
        return unit(raw)

    def _tokens(self, images: Rows) -> Rows:
        with self._one_at_a_time, self._torch.inference_mode():
            answer = self._model(pixel_values=self._torch.from_numpy(images))
        return np.asarray(answer.last_hidden_state.numpy(), np.float32)


def open_dino(name_or_folder: str | Path) -> DinoEncoder:
    """Open a folder with config.json and safetensors, or ``facebook/dinov2-small`` from the local cache.

    Raises: EncoderUnavailable (503) where there are none.
    """
    folder = Path(name_or_folder)
    if folder.is_dir():
        return DinoEncoder(folder)
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
    return DinoEncoder(Path(found).parent)


def _libraries() -> tuple[Any, Any]:
    try:
        make_torchvision_importable()
        return importlib.import_module("torch"), importlib.import_module("transformers")
    except ImportError as err:
        raise EncoderUnavailable("DINO needs torch and transformers: install genba[so8t].") from err


def _described(folder: Path) -> tuple[dict[str, Any], Path]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise EncoderUnavailable("There is no readable config.json beside the DINO weights.") from err
    if config.get("model_type") not in MODELS:
        raise EncoderUnavailable(f"{config.get('model_type')!r} is no DINO model; {', '.join(MODELS)} are.")
    weights = next(iter(sorted(folder.glob("*.safetensors"))), None)
    if weights is None:
        raise EncoderUnavailable("There are no safetensors beside the configuration; random weights are never used.")
    return config, weights


def _fingerprint(weights: Path) -> str:
    """Eight hex digits of the weights' size and both ends: other weights, other rows, another encoder."""
    size_bytes = weights.stat().st_size
    digest = hashlib.sha256(str(size_bytes).encode())
    with weights.open("rb") as file:
        for start in (0, max(0, size_bytes // 2 - _SAMPLE_BYTES), max(0, size_bytes - _SAMPLE_BYTES)):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:8]
