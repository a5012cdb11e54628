"""Views into unit rows: the seam between the descriptor that needs no weights and encoders whose weights the user brings.

An encoder works in two steps. ``describe`` makes the raw row of one picture, which is kept; ``embed`` turns raw rows into unit
rows with what was fitted to the lab's own pictures, so that a new fit needs no picture again. Rows are compared only under the
same ``id``. Random weights are never used: an encoder without weights is unavailable (503), not worse.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from genba_sem import descriptors

Rows = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_DIMS: Final = {"hog": 64, "mask_hog": 64, "lbp": 28, "glcm": 30, "shape": 49}
_WEIGHTS: Final = {"hog": 1.0, "mask_hog": 1.0, "lbp": 0.7, "glcm": 0.7, "shape": 1.0}
_LEAST_VIEWS: Final = 8
_SHRINK: Final = 0.05


class Encoder(Protocol):
    """Says what rows mean."""

    @property
    def id(self) -> str: ...

    @property
    def raw_dim(self) -> int: ...

    @property
    def dim(self) -> int: ...

    def describe(self, pixels: Pixels, mask: Mask) -> Rows:
        """(raw_dim,) of one picture (H, W) in [0, 1] and the particle's mask."""

    def embed(self, raw: Rows) -> Rows:
        """(N, dim) unit rows from (N, raw_dim)."""


@dataclass(frozen=True)
class _Block:
    """mean, scale: (d,) standardise; project: (d, k) whitens."""

    mean: Rows
    scale: Rows
    project: Rows


class HlgShape:
    """hlg-shape-v1, the embedded default: HOG, LBP, GLCM and shape, each block standardised, PCA-whitened, made unit
    length and weighed, then put side by side.
    """

    name: Final = "hlg-shape-v1"
    raw_dim: Final = descriptors.DIM

    def __init__(self, blocks: dict[str, _Block]) -> None:
        self._blocks = blocks
        self.dim = sum(block.project.shape[1] for block in blocks.values())
        digest = hashlib.sha256()
        for name in sorted(blocks):
            digest.update(np.ascontiguousarray(blocks[name].project).tobytes() + blocks[name].mean.tobytes())
        self.id = f"{self.name}@{digest.hexdigest()[:8]}"

    @classmethod
    def fit(cls, raw: Rows, particles: Sequence[str] | None = None) -> HlgShape:
        """Fit to the raw rows (N, raw_dim) of the lab's pictures, labelled or not; particles: which particle each shows.

        Raises: ValueError for fewer than 8 rows.
        """
        if len(raw) < _LEAST_VIEWS or raw.ndim != 2 or raw.shape[1] != cls.raw_dim:
            raise ValueError(f"At least {_LEAST_VIEWS} rows of {cls.raw_dim} are needed to fit; there are {raw.shape}.")
        return cls({name: _whitening(raw[:, part], _DIMS[name]) for name, part in descriptors.BLOCKS.items()})

    def describe(self, pixels: Pixels, mask: Mask) -> Rows:
        """(3635,) raw row."""
        return descriptors.describe(pixels, mask)

    def embed(self, raw: Rows) -> Rows:
        """(N, dim) unit rows."""
        parts = []
        for name, block in self._blocks.items():
            white = ((raw[:, descriptors.BLOCKS[name]] - block.mean) / block.scale) @ block.project
            parts.append(_WEIGHTS[name] * unit(white))
        return unit(np.concatenate(parts, axis=1))

    def save(self, path: Path) -> None:
        """Write the fit as safetensors."""
        from safetensors.numpy import save_file

        tensors = {
            f"{name}.{part}": np.ascontiguousarray(getattr(block, part))
            for name, block in self._blocks.items()
            for part in ("mean", "scale", "project")
        }
        save_file(tensors, path, metadata={"encoder": json.dumps({"name": self.name, "blocks": list(self._blocks)})})

    @classmethod
    def load(cls, path: Path) -> HlgShape:
        """Read what ``save`` wrote. Raises: ValueError for another encoder's file."""
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            said = json.loads((file.metadata() or {}).get("encoder", "{}"))
            if said.get("name") != cls.name or set(said.get("blocks", ())) != set(descriptors.BLOCKS):
                raise ValueError(f"{path.name} holds no fit of {cls.name}.")
            parts = {
                name: _Block(*(file.get_tensor(f"{name}.{part}") for part in ("mean", "scale", "project")))
                for name in said["blocks"]
            }
        return cls(parts)


def unit(rows: npt.ArrayLike) -> Rows:
    """(N, D) rows of length one; zero rows stay zero."""
    values = np.asarray(rows)
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray(values / np.maximum(lengths, 1e-9), np.float32)


def _whitening(rows: Rows, dims: int) -> _Block:
    """PCA-whitening of the standardised block, small variances lifted so that noise is not blown up."""
    values = rows.astype(np.float64)
    mean, scale = values.mean(0), np.maximum(values.std(0), 1e-4)
    _, singular, directions = np.linalg.svd((values - mean) / scale, full_matrices=False)
    variance = np.square(singular) / max(1, len(rows) - 1)
    keep = min(dims, int((variance > 1e-8 * variance[0]).sum()), max(2, len(rows) // 3))
    gain = 1 / np.sqrt(variance[:keep] + _SHRINK * variance[:keep].mean())
    project = directions[:keep].T * gain
    return _Block(*(np.ascontiguousarray(array, np.float32) for array in (mean, scale, project)))
