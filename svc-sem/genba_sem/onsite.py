"""An encoder that has taught itself on a lab's own pictures: a small network as ONNX, and how pictures become its input.

``onsite_training`` makes it, from pictures without a label; a lane's bundle carries it. A row is the mean over the eight turns and mirror
images of the cut-out particle, for a particle has no up and no left. PyTorch is not needed here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from genba_sem import descriptors
from genba_sem.encoders import unit

Rows = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Cuts = npt.NDArray[np.uint8]

NAME: Final = "onsite-v1"
SIDE_PX: Final = 64
DIM: Final = 128


class OnsiteEncoder:
    """Rows of the network. Threads may share it."""

    name: Final = NAME
    raw_dim: Final = DIM
    dim: Final = DIM

    def __init__(self, graph: bytes) -> None:
        """graph: ONNX, (N, 2, 64, 64) float32 ``cuts`` → (N, 128). Raises: ValueError where it cannot be read."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # the service's workers are the parallelism
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as err:  # of the library's own kinds
            raise ValueError("The encoder's graph cannot be read.") from err
        self._graph = graph
        self.id = f"{NAME}@{hashlib.sha256(graph).hexdigest()[:8]}"
        self.kind = self.id  # the weights alone make the rows

    def describe(self, pixels: Rows, mask: Mask) -> Rows:
        """(128,) of one picture (H, W) in [0, 1] and the particle's mask; the whole picture where the mask is empty."""
        [turned] = self._session.run(None, {"cuts": _turned(cut(pixels, mask)).astype(np.float32) / 255})  # (8, 128)
        return np.asarray(turned.mean(0), np.float32)

    def embed(self, raw: Rows) -> Rows:
        """(N, 128) unit rows."""
        return unit(raw)

    def save(self, path: Path) -> None:
        """Write the graph."""
        path.write_bytes(self._graph)


def cut(pixels: Rows, mask: Mask) -> Cuts:
    """(2, 64, 64): the particle cut out with its ground dark, and its mask, in 8 bits."""
    inside = mask if mask.any() else np.ones_like(mask)
    crop, within = descriptors.cut_out(pixels, inside, side_px=SIDE_PX)
    return np.stack([np.where(within, crop * 255, 0), within * 255.0]).astype(np.uint8)


def _turned(one: Cuts) -> Cuts:
    quarter = [np.rot90(one, turns, axes=(1, 2)) for turns in range(4)]
    return np.stack([*quarter, *(each[:, :, ::-1] for each in quarter)])
