"""Views into unit rows: the seam between the descriptor that needs no weights and encoders whose weights the user brings.

An encoder works in two steps. ``describe`` makes the raw row of one picture, which is kept; ``embed`` turns raw rows into unit
rows with what was fitted to the lab's own pictures, so that a new fit needs no picture again. Raw rows are compared only under the
same ``kind``, unit rows under the same ``id``. Random weights are never used: an encoder without weights is unavailable (503), not worse.
"""

from __future__ import annotations

import hashlib
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

_DIMS: Final = {"fine": 64, "coarse": 64, "outline": 64, "polar": 64, "lbp": 28, "glcm": 30, "shape": 49}
_WEIGHTS: Final = {"fine": 1.0, "coarse": 1.0, "outline": 1.0, "polar": 1.0, "lbp": 0.7, "glcm": 0.7, "shape": 1.0}
_LEAST_VIEWS: Final = 8
_MOST_VIEWS: Final = 6000
_SHRINK: Final = 0.3
_LEAST_PARTICLES: Final = 12
_WITHIN_SHRINK: Final = 0.3
_BETWEEN_DIMS: Final = 40


class Encoder(Protocol):
    """Says what rows mean."""

    @property
    def id(self) -> str: ...

    @property
    def kind(self) -> str:
        """What raw rows mean: the same kind, whatever the fit, can be embedded."""

    @property
    def name(self) -> str:
        """What it is opened by."""

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


@dataclass(frozen=True)
class _Within:
    """centre: (d,); project: (d, k): whitens what differs between views of one particle, keeps what differs between particles."""

    centre: Rows
    project: Rows


class HlgShape:
    """hlg-shape-v1, the embedded default: gradients, LBP, GLCM and shape, each block standardised, PCA-whitened, made unit
    length and weighed, then put side by side.

    Where the lab's pictures come as particles of several views, these teach it, without any label, what a change of view
    does to a row: directions along which views of one particle scatter are shrunk, those along which particles differ
    are kept (within-class covariance normalisation with the particle as class, Hatch & Stolcke 2006).
    """

    name: Final = "hlg-shape-v1"
    kind: Final = name
    raw_dim: Final = descriptors.DIM

    def __init__(self, blocks: dict[str, _Block], within: _Within | None = None) -> None:
        self._blocks, self._within = blocks, within
        wide = sum(block.project.shape[1] for block in blocks.values())
        self.dim: int = wide if within is None else within.project.shape[1]
        digest = hashlib.sha256()
        for tensor in self._tensors().values():
            digest.update(tensor.tobytes())
        self.id = f"{self.name}@{digest.hexdigest()[:8]}"

    @classmethod
    def fit(cls, raw: Rows, particles: Sequence[str] | None = None) -> HlgShape:
        """Fit to the raw rows (N, raw_dim) of the lab's pictures, labelled or not; particles: whom each row shows, in N strings.

        From 12 particles of two views on, the scatter within particles is learnt too.
        Raises: ValueError for fewer than 8 rows, or another number of particles than rows.
        """
        if len(raw) < _LEAST_VIEWS or raw.ndim != 2 or raw.shape[1] != cls.raw_dim:
            raise ValueError(f"At least {_LEAST_VIEWS} rows of {cls.raw_dim} are needed to fit; there are {raw.shape}.")
        if particles is not None and len(particles) != len(raw):
            raise ValueError(f"{len(raw)} rows belong to {len(particles)} particles named.")
        if len(raw) > _MOST_VIEWS:  # more would not change it, and the fit stays a matter of seconds
            raw = raw[:_MOST_VIEWS]
            particles = None if particles is None else particles[:_MOST_VIEWS]
        blocks = {name: _whitening(raw[:, part], _DIMS[name]) for name, part in descriptors.BLOCKS.items()}
        plain = cls(blocks)
        return plain if particles is None else cls(blocks, _within_particles(plain.embed(raw), particles))

    def describe(self, pixels: Pixels, mask: Mask) -> Rows:
        """(raw_dim,) raw row."""
        return descriptors.describe(pixels, mask)

    def embed(self, raw: Rows) -> Rows:
        """(N, dim) unit rows."""
        parts = []
        for name, block in self._blocks.items():
            white = ((raw[:, descriptors.BLOCKS[name]] - block.mean) / block.scale) @ block.project
            parts.append(_WEIGHTS[name] * unit(white))
        rows = unit(np.concatenate(parts, axis=1))
        return rows if self._within is None else unit((rows - self._within.centre) @ self._within.project)

    def save(self, path: Path) -> None:
        """Write the fit as safetensors."""
        from safetensors.numpy import save_file

        save_file(self._tensors(), path, metadata={"encoder": self.name})

    def _tensors(self) -> dict[str, Rows]:
        tensors = {
            f"{name}.{part}": np.ascontiguousarray(getattr(block, part))
            for name, block in self._blocks.items()
            for part in ("mean", "scale", "project")
        }
        if self._within is not None:
            tensors |= {"within.centre": self._within.centre, "within.project": self._within.project}
        return tensors

    @classmethod
    def load(cls, path: Path) -> HlgShape:
        """Read what ``save`` wrote. Raises: ValueError for another encoder's file."""
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            wanted = {f"{name}.{part}" for name in descriptors.BLOCKS for part in ("mean", "scale", "project")}
            if (file.metadata() or {}).get("encoder") != cls.name or not wanted <= names:
                raise ValueError(f"{path.name} holds no fit of {cls.name}.")
            blocks = {
                name: _Block(*(file.get_tensor(f"{name}.{part}") for part in ("mean", "scale", "project")))
                for name in descriptors.BLOCKS
            }
            within = None
            if "within.project" in names:
                within = _Within(file.get_tensor("within.centre"), file.get_tensor("within.project"))
        return cls(blocks, within)


def unit(rows: npt.ArrayLike) -> Rows:
    """(N, D) rows of length one; zero rows stay zero."""
    values = np.asarray(rows)
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray(values / np.maximum(lengths, 1e-9), np.float32)


def _whitening(rows: Rows, dims: int) -> _Block:
    """PCA-whitening of the standardised block, small variances lifted so that noise is not blown up."""
    from sklearn.utils.extmath import randomized_svd  # loads pandas, and only what fits needs it

    values = rows.astype(np.float64)
    mean, scale = values.mean(0), np.maximum(values.std(0), 1e-4)
    most = min(dims, len(rows) - 1, rows.shape[1])
    _, singular, directions = randomized_svd((values - mean) / scale, most, n_iter=3, random_state=0)
    variance = np.square(singular) / max(1, len(rows) - 1)
    keep = min(int((variance > 1e-8 * variance[0]).sum()), max(2, len(rows) // 3))
    gain = 1 / np.sqrt(variance[:keep] + _SHRINK * variance[:keep].mean())
    project = directions[:keep].T * gain
    return _Block(*(np.ascontiguousarray(array, np.float32) for array in (mean, scale, project)))


def whitening(rows: Rows, dims: int) -> tuple[Rows, Rows]:
    """Mean (d,) and project (d, k ≤ dims): ``(rows - mean) @ project`` is standardised and PCA-whitened, as a block is."""
    block = _whitening(rows, dims)
    return block.mean, np.ascontiguousarray(block.project / block.scale[:, None])


def _within_particles(rows: Rows, particles: Sequence[str]) -> _Within | None:
    """Learn what a change of view does; None with too few particles of several views."""
    _, which, counts = np.unique(np.asarray(particles), return_inverse=True, return_counts=True)
    if int((counts > 1).sum()) < _LEAST_PARTICLES:
        return None
    values = rows.astype(np.float64)
    centre = values.mean(0)
    means = np.zeros((len(counts), values.shape[1]))
    np.add.at(means, which, values - centre)
    means /= counts[:, None]  # (P, d)
    several = counts[which] > 1
    scatter = (values - centre - means[which])[several]
    covariance = scatter.T @ scatter / max(1, int(several.sum() - (counts > 1).sum()))
    covariance += _WITHIN_SHRINK * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    variance, directions = np.linalg.eigh(covariance)
    whiten = directions / np.sqrt(variance)  # (d, d)
    between = (means[counts > 1] @ whiten) - (means[counts > 1] @ whiten).mean(0)
    _, singular, axes = np.linalg.svd(between, full_matrices=False)
    keep = min(_BETWEEN_DIMS, int((singular > 1e-6 * singular[0]).sum()))
    return _Within(centre.astype(np.float32), np.ascontiguousarray(whiten @ axes[:keep].T, np.float32))
