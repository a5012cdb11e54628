"""What a version foresees of a pair beside whether the user turns to the item: how it goes on then.

    watched   the share that is watched          liked     whether it is liked, not only looked at
    skipped   whether it is left at once         returns   whether the user is back on another day within a week

The heads read both towers' vectors and move neither, so a list by fit is the same with and without them. They share a layer; each
has its own last row. A head that foresees no better than the average is not in the bundle. Numpy only; heads_training.py trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

Float32s = npt.NDArray[np.float32]
Task = Literal["watched", "liked", "skipped", "returns"]
TASKS: Final[tuple[Task, ...]] = get_args(Task)
FILE: Final = "heads.safetensors"
LEAST_PROBABILITY: Final = 1e-4  # of what a list is ordered by, so that its logarithm is bounded


@dataclass(frozen=True)
class Heads:
    """tasks: T names.   widen: (3·D, H), widen_bias: (H,).   narrow: (H, T), narrow_bias: (T,)."""

    tasks: tuple[Task, ...]
    widen: Float32s
    widen_bias: Float32s
    narrow: Float32s
    narrow_bias: Float32s

    @classmethod
    def none(cls) -> Heads:
        empty = np.zeros((0, 0), np.float32)
        return cls((), empty, empty[0:0, 0:0].ravel(), empty, empty.ravel())

    def predict(self, user: Float32s, items: Float32s) -> Float32s:
        """Args: user: (D,) or (B, D).   items: (B, D). Returns: (B, T) probabilities, in the order of ``tasks``."""
        if not self.tasks:
            return np.zeros((len(items), 0), np.float32)
        users = np.broadcast_to(user, items.shape)
        pairs = np.concatenate([users, items, users * items * np.float32(items.shape[1])], axis=1)  # (B, 3·D)
        wide = np.maximum(pairs @ self.widen + self.widen_bias, 0.0)
        return np.asarray(1.0 / (1.0 + np.exp(-(wide @ self.narrow + self.narrow_bias))), np.float32)

    def of(self, task: Task, user: Float32s, items: Float32s) -> Float32s:
        """(B,) probabilities of one task. Raises: ValueError for a head that is not here."""
        return np.asarray(self.predict(user, items)[:, self.tasks.index(task)])

    @classmethod
    def read(cls, path: Path, tasks: tuple[Task, ...]) -> Heads:
        """What ``write`` has written; none where there is no such file. Raises: OSError, KeyError, ValueError."""
        if not path.is_file():
            return cls.none()
        found = load_file(path)
        heads = cls(tasks, *(found[name] for name in ("widen", "widen_bias", "narrow", "narrow_bias")))
        if heads.narrow.shape != (len(heads.widen_bias), len(tasks)):
            raise ValueError(f"{path.name} has heads of {heads.narrow.shape}, the bundle names {len(tasks)}.")
        return heads

    def write(self, path: Path) -> None:
        names = ("widen", "widen_bias", "narrow", "narrow_bias")
        save_file({name: np.ascontiguousarray(getattr(self, name)) for name in names}, path)
