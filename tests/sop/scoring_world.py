"""Feature sequences of invented procedures, for tests of scoring that need no video: every step is a random path through
feature space with its tool in some cells of the grid; an operator adds an offset, a pace and noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from genba_sop.features import Features
from genba_sop.motion_hog import smoothed
from genba_sop.procedure import Procedure, Span, Step, Text
from genba_sop.reference import Gold

FPS = 4.0
DIM, LOCAL = 64, 6
ENCODER = "invented-v1"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Do:
    """One thing that happens in a run. ``step`` None is an action that no step contains, or idling."""

    step: str | None
    pace: float = 1.0  # 2 takes half as long
    seconds: float = 5.0  # only without a step
    idle: bool = False
    tool: int = 0  # another number is another tool
    sloppy: bool = False  # the action itself is another one in its middle half


@dataclass(frozen=True)
class Filmed:
    """A run as features, with what is known of it."""

    features: Features
    spans: tuple[Span, ...]

    def gold(self) -> Gold:
        """This run as an annotated gold."""
        return Gold(self.features, self.spans)


@dataclass
class World:
    """An invented procedure of ``steps`` steps and how its runs look."""

    steps: tuple[str, ...] = ("a", "b", "c", "d", "e", "f", "g", "h")
    seed: int = 0
    noise: float = 1.0
    operator: float = 0.3
    blend: float = 0.0  # frames over which features run into each other, as a standard deviation
    after: dict[str, tuple[str, ...]] = field(default_factory=dict)
    critical: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    alike: dict[str, str] = field(default_factory=dict)  # a step that looks much like another one

    def __post_init__(self) -> None:
        rng = np.random.default_rng((self.seed, 1))
        self._paths = {step: self._path(rng) for step in self.steps}
        for step, other in self.alike.items():
            self._paths[step] = self._paths[other] + 0.25 * rng.normal(size=self._paths[other].shape)
        self._seconds = {step: float(rng.uniform(4.0, 9.0)) for step in self.steps}
        self._cells = {step: rng.choice(48, 8, replace=False) for step in self.steps}
        self._tools = {(step, n): rng.normal(0, 1.0, LOCAL) for step in self.steps for n in range(3)}

    def procedure(self) -> Procedure:
        """Each step after the one before, unless ``after`` says otherwise."""
        chain = {step: (before,) for before, step in zip(self.steps, self.steps[1:], strict=False)}
        return Procedure(
            "invented",
            1,
            Text("Invented"),
            tuple(
                Step(
                    step,
                    Text(step),
                    after=self.after.get(step, chain.get(step, ())),
                    critical=step in self.critical,
                    optional=step in self.optional,
                    severity="critical" if step in self.critical else "major",
                )
                for step in self.steps
            ),
        )

    def film(self, *doings: Do | str, seed: int, pace: float = 1.0, noise: float | None = None) -> Filmed:
        """Film a run; without ``doings`` every step in order."""
        rng = np.random.default_rng((self.seed, 2, seed))
        values, local, motion, spans, now_s = [], [], [], [], 0.0
        for do in [Do(d) if isinstance(d, str) else d for d in doings or self.steps]:
            usual_s = do.seconds if do.step is None else self._seconds[do.step] / (pace * do.pace)
            count = max(2, round(usual_s * float(np.exp(0.06 * rng.normal())) * FPS))
            values.append(self._rows(do, count, rng))
            local.append(self._grid(do, count, rng))
            motion.append(np.full(count, 0.005) if do.idle else rng.uniform(0.5, 1.5, count))
            if do.step is not None:
                spans.append(Span(do.step, now_s, now_s + count / FPS))
            now_s += count / FPS
        rows = np.concatenate(values) + self.operator * rng.normal(size=DIM)
        rows += (self.noise if noise is None else noise) * rng.normal(size=rows.shape)
        rows = smoothed(rows.astype(np.float32), sigma_frames=self.blend).astype(np.float64)
        rows -= rows.mean(axis=0)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        features = Features(
            encoder=ENCODER,
            times_s=np.arange(len(rows)) / FPS,
            values=rows.astype(np.float32),
            local=np.concatenate(local).astype(np.float32),
            motion=np.concatenate(motion).astype(np.float32),
            duration_s=len(rows) / FPS,
        )
        return Filmed(features, tuple(spans))

    def golds(self, count: int) -> list[Gold]:
        """Annotated golds of different operators."""
        return [self.film(seed=1000 + n).gold() for n in range(count)]

    def _rows(self, do: Do, count: int, rng: np.random.Generator) -> Floats:
        if do.idle:
            return np.repeat(rng.normal(size=(1, DIM)), count, axis=0)
        path = self._path(rng) if do.step is None else self._paths[do.step]
        rows = _along(path, np.linspace(0, 1, count))
        if do.sloppy:
            rows[count // 4 : -(count // 4)] = _along(self._path(rng), np.linspace(0, 1, count))[
                count // 4 : -(count // 4)
            ]
        return np.asarray(rows)

    def _grid(self, do: Do, count: int, rng: np.random.Generator) -> Floats:
        grid = 0.3 * rng.normal(size=(count, 48, LOCAL))
        if do.step is not None:
            grid[:, self._cells[do.step]] += self._tools[do.step, do.tool]
        return np.asarray(grid)

    @staticmethod
    def _path(rng: np.random.Generator) -> Floats:
        return np.asarray((rng.normal(size=DIM) + rng.normal(size=(5, DIM))) / np.sqrt(2))


def _along(path: Floats, progress: Sequence[float] | Floats) -> Floats:
    at = np.asarray(progress) * (len(path) - 1)
    low = np.minimum(at.astype(np.int64), len(path) - 2)
    share = (at - low)[:, None]
    return np.asarray(path[low] * (1 - share) + path[low + 1] * share)
