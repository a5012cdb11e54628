"""The masters of a lab: labelled particles of several views, as raw rows. A set is immutable and versioned; names are not here.

A label is an immutable id; what it is called, and that it was renamed, never reaches the numerics.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]


class TooFewMasters(ValueError):
    """Labels without enough masters; ``labels`` names them."""

    def __init__(self, labels: Sequence[str], needed: int) -> None:
        super().__init__(f"Too few masters: {', '.join(labels)} need {needed} each.")
        self.labels, self.needed = tuple(labels), needed


@dataclass(frozen=True, eq=False)
class MasterParticle:
    """One labelled particle. raw: (V, raw_dim); quality: (V,) in [0, 1]."""

    particle_id: str
    label_id: str
    raw: Rows
    quality: Rows

    def __post_init__(self) -> None:
        if self.raw.ndim != 2 or len(self.raw) == 0 or len(self.raw) != len(self.quality):
            raise ValueError(f"Master {self.particle_id} has {self.raw.shape} rows and {self.quality.shape} qualities.")


@dataclass(frozen=True, eq=False)
class MasterSet:
    """All masters that decide together; ``version`` is the service's number of the set."""

    particles: tuple[MasterParticle, ...]
    version: str = ""

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The label ids, sorted."""
        return tuple(sorted({particle.label_id for particle in self.particles}))

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Masters by label id."""
        return Counter(particle.label_id for particle in self.particles)

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits of who is in the set under which label."""
        lines = sorted(
            f"{particle.particle_id}\t{particle.label_id}\t{len(particle.raw)}" for particle in self.particles
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

    def checked(self, *, least: int = 1, least_labels: int = 2) -> MasterSet:
        """Itself. Raises: TooFewMasters for labels with fewer than ``least``, or when there are too few labels."""
        thin = [label for label in self.labels if self.counts[label] < least]
        if thin or len(self.labels) < least_labels:
            raise TooFewMasters(thin or list(self.labels), least)
        return self

    def relabelled(self, successors: Mapping[str, str]) -> MasterSet:
        """After a merge: the same particles under the labels that took their labels' place."""
        moved = tuple(replace(p, label_id=successors.get(p.label_id, p.label_id)) for p in self.particles)
        return MasterSet(moved, self.version)

    def without(self, particle_ids: set[str]) -> MasterSet:
        """Without some particles, for leave-one-out."""
        return MasterSet(tuple(p for p in self.particles if p.particle_id not in particle_ids), self.version)
