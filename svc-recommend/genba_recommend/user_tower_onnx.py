"""Runs exported towers with onnxruntime: the user tower for one user at request time, either tower for a batch.

Needs numpy and onnxruntime, not torch. A process that serves many requests at once wants one thread a session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from genba_recommend.dataset import User
from genba_recommend.features import Encoders, ItemFeatures, UserFeatures, Windows

__all__ = ("OnnxTower", "OnnxUserTower")

Float32s = npt.NDArray[np.float32]
USER_TOWER, ENCODERS = "user_tower.onnx", "encoders.json"


class OnnxTower:
    """One graph with the output ``vector``; takes what it asks for by name and ignores the rest."""

    def __init__(self, path: Path | bytes, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 3
        model = path if isinstance(path, bytes) else str(path)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(each.name for each in self._session.get_inputs())

    def run(self, columns: Mapping[str, npt.NDArray[Any]]) -> Float32s:
        """columns: by name, B rows each. Returns: (B, D), unit length."""
        found: Float32s = self._session.run(("vector",), {name: columns[name] for name in self.inputs})[0]
        return found


class OnnxUserTower:
    """The user tower of a bundle, whose graph takes the vectors of a history as the input ``table``."""

    def __init__(self, tower: OnnxTower, encoders: Encoders | None = None) -> None:
        if "table" not in tower.inputs:
            message = "This graph has its item vectors in it; a service needs the one that takes them."
            raise ValueError(message)
        self._tower, self._encoders = tower, encoders

    @classmethod
    def load(cls, folder: Path) -> OnnxUserTower:
        """From user_tower.onnx and encoders.json."""
        encoders = Encoders.from_json((folder / ENCODERS).read_text("utf-8"))
        return cls(OnnxTower(folder / USER_TOWER), encoders)

    def __call__(self, features: Mapping[str, npt.NDArray[Any]], history: Float32s) -> Float32s:
        """Args: features: ``UserFeatures`` columns of one user, history counting from 1 in ``history``, (n, D). Returns: (D,)."""
        vector: Float32s = self.run(features, history)[0]
        return vector

    def of(self, users: Sequence[User], windows: Windows, items: ItemFeatures, vectors: Float32s) -> Float32s:
        """Args: windows: of B users, rows + 1 of ``items`` and of ``vectors``, (N, D). Returns: (B, D), unit length.

        Raises: ValueError when the tower was made without encoders.
        """
        if self._encoders is None:
            message = "Encoders are needed to read users; load the tower from its folder."
            raise ValueError(message)
        features: UserFeatures = self._encoders.users(users, windows, items)
        return self.run(features.columns(), vectors)

    def run(self, columns: Mapping[str, npt.NDArray[Any]], vectors: Float32s) -> Float32s:
        """Args: columns: ``UserFeatures`` of B users by name.   vectors: (N, D). Returns: (B, D), unit length."""
        table = np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])
        return self._tower.run({**columns, "table": table})
