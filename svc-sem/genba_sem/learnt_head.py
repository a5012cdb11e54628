"""A head that learnt from unlabelled particles too, as a lane keeps it: its weights, and what it said of masters left out.

The other classifiers are made of the masters whenever a lane is built; this one cannot be, because what it learnt from is not in the
bundle. So it carries the logits by which it is calibrated. It steps aside for a lane with a label that it has not learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from genba_sem.classifier import Floats, Labels, LeftOut, Prototypes, folds_of, greatest_cosine
from genba_sem.semi_supervised import cosine_logits

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LearntHead:
    """method: how it learnt; columns: (C,) the label id of each column, the same one twice after a merge; weights: (D, C);
    left_out: (C,) logits of each master, by its particle's id, from a head that had not seen it.
    """

    method: str
    columns: tuple[str, ...]
    weights: Floats
    left_out: Mapping[str, Floats]

    @property
    def id(self) -> str:
        """As answers name it."""
        return f"{self.method}-head-v1"

    def speaks_for(self, labels: Sequence[str], dim: int) -> bool:
        """Whether it knows all these labels, on rows of this width."""
        return set(labels) <= set(self.columns) and len(self.weights) == dim

    def relabelled(self, now: Callable[[str], str | None]) -> LearntHead:
        """After merges: the columns under the labels that stand for theirs now; a label that none stands for keeps its own."""
        return replace(self, columns=tuple(now(each) or each for each in self.columns))

    def over(self, labels: Sequence[str]) -> HeadOver:
        """The classifier for these labels."""
        return HeadOver(self, tuple(labels))

    def calibrates(self, particle_ids: Sequence[str], rows: Rows, truth: Labels, labels: Sequence[str]) -> LeftOut:
        """What leaving masters out says: the logits as kept, the similarities from the other masters' prototypes."""
        place = folds_of(truth, len(labels))
        kept = np.array([each in self.left_out for each in particle_ids], bool) & (place >= 0)
        similarity = np.zeros(len(rows))
        for fold in np.unique(place[kept]):
            out = kept & (place == fold)
            others = Prototypes(rows[place != fold], truth[place != fold], len(labels)).rows
            similarity[out] = greatest_cosine(rows[out], others)
        said = np.array([self.left_out[each] for each, keep in zip(particle_ids, kept, strict=True) if keep])
        logits = self._of_labels(said.reshape(-1, len(self.columns)), labels)
        return LeftOut(logits, similarity[kept], truth[kept])

    def logits(self, rows: Rows, labels: Sequence[str]) -> Floats:
        """(N, len(labels)) of fused unit rows (N, D)."""
        return self._of_labels(cosine_logits(self.weights, rows), labels)

    def _of_labels(self, logits: Floats, labels: Sequence[str]) -> Floats:
        own = [[at for at, column in enumerate(self.columns) if column == label] for label in labels]
        return np.stack([logsumexp(logits[:, each], axis=1) for each in own], axis=1)

    def save(self, path: Path) -> dict[str, Any]:
        """Write the arrays as safetensors; what the bundle's manifest says of them."""
        from safetensors.numpy import save_file

        ids = sorted(self.left_out)
        said = np.array([self.left_out[each] for each in ids], np.float64).reshape(-1, len(self.columns))
        save_file({"weights": np.ascontiguousarray(self.weights), "left_out": said}, path)
        return {"method": self.method, "columns": list(self.columns), "left_out": ids}

    @classmethod
    def load(cls, path: Path, said: Mapping[str, Any]) -> LearntHead:
        """Read what ``save`` wrote."""
        from safetensors.numpy import load_file

        held = load_file(path)
        left_out = dict(zip(said["left_out"], held["left_out"], strict=True))
        return cls(said["method"], tuple(said["columns"]), held["weights"], left_out)


@dataclass(frozen=True, eq=False)
class HeadOver:
    """A learnt head as the classifier of some labels."""

    head: LearntHead
    labels: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.head.id

    def logits(self, rows: Rows) -> Floats:
        """(N, C)."""
        return self.head.logits(rows, self.labels)
