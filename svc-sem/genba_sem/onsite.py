"""An encoder that has taught itself on a lab's own pictures: a small network as ONNX beside the embedded descriptors.

``onsite_training`` makes the network, from pictures without a label; a lane's bundle carries it. What it says of a view is the mean over
the eight turns and mirror images of the cut-out particle, for a particle has no up and no left. PyTorch is not needed here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from genba_sem import descriptors
from genba_sem.encoders import HlgShape, unit

Rows = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Cuts = npt.NDArray[np.uint8]

NAME: Final = "onsite-v1"
SIDE_PX: Final = 64
DIM: Final = 64


class OnsiteEncoder:
    """The descriptors of ``HlgShape`` with their fit, and the network's row beside them with an equal say. Threads may share it."""

    name: Final = NAME
    raw_dim: Final = HlgShape.raw_dim + DIM

    def __init__(self, graph: bytes, descriptors_fit: HlgShape | None = None) -> None:
        """graph: ONNX, (N, 2, 64, 64) float32 ``cuts`` → (N, 64), whitened; without a fit it describes and does not embed yet.

        Raises: ValueError for a graph that cannot be read.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # the service's workers are the parallelism
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as err:  # of the library's own kinds
            raise ValueError("The encoder's graph cannot be read.") from err
        self._graph, self._fit = graph, descriptors_fit or HlgShape({})
        digest = hashlib.sha256(graph)
        self.kind = f"{NAME}@{digest.hexdigest()[:8]}"  # raw rows know nothing of the fit
        digest.update(self._fit.id.encode())
        self.id = f"{NAME}@{digest.hexdigest()[:8]}"
        self.dim: int = self._fit.dim + DIM

    def fitted(self, raw: Rows, particles: Sequence[str]) -> OnsiteEncoder:
        """The same network, the descriptors fitted to raw rows (N, raw_dim). Raises: ValueError as ``HlgShape.fit``."""
        return OnsiteEncoder(self._graph, HlgShape.fit(raw[:, : HlgShape.raw_dim], particles))

    def describe(self, pixels: Rows, mask: Mask) -> Rows:
        """(raw_dim,) of one picture (H, W) in [0, 1] and the particle's mask; the whole picture where the mask is empty."""
        return np.concatenate([self._fit.describe(pixels, mask), self.taught(cut(pixels, mask))]).astype(np.float32)

    def taught(self, one: Cuts) -> Rows:
        """(64,) what the network alone says of a ``cut``."""
        [turned] = self._session.run(None, {"cuts": _turned(one).astype(np.float32) / 255})  # (8, 64)
        return np.asarray(turned.mean(0), np.float32)

    def embed(self, raw: Rows) -> Rows:
        """(N, dim) unit rows."""
        described, taught = raw[:, : HlgShape.raw_dim], raw[:, HlgShape.raw_dim :]
        return unit(np.concatenate([self._fit.embed(described), unit(taught)], axis=1))

    def save(self, graph: Path, fit: Path) -> None:
        """Write both parts."""
        graph.write_bytes(self._graph)
        self._fit.save(fit)

    @classmethod
    def load(cls, graph: Path, fit: Path) -> OnsiteEncoder:
        """Read what ``save`` wrote. Raises: ValueError."""
        return cls(graph.read_bytes(), HlgShape.load(fit))


def cut(pixels: Rows, mask: Mask) -> Cuts:
    """(2, 64, 64): the particle cut out with its ground dark, and its mask, in 8 bits."""
    inside = mask if mask.any() else np.ones_like(mask)
    crop, within = descriptors.cut_out(pixels, inside, side_px=SIDE_PX)
    return np.stack([np.where(within, crop * 255, 0), within * 255.0]).astype(np.uint8)


def _turned(one: Cuts) -> Cuts:
    quarter = [np.rot90(one, turns, axes=(1, 2)) for turns in range(4)]
    return np.stack([*quarter, *(each[:, :, ::-1] for each in quarter)])
