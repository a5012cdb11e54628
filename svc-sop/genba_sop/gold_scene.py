"""The golds' pictures, step by step, in one place's pixels, and what a run's pictures say beside them.

Needs golds that show the same place from about the same side; otherwise there is nothing to compare, and whoever asks is told
so. One or two golds say little of how golds differ: what is usual is then what half of a run's own steps show.
Knows nothing of p-values' limits and of scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from genba_sop.evidence import UNIT, Told, Usual, measure, numbers, scale_of, told, unlike, usual_of
from genba_sop.features import Features
from genba_sop.rows import Rows
from genba_sop.scene import Filmstrip, Place, lay_over, place_of, steadied
from genba_sop.sight import Sight, StepMaps

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

RECENT_STEPS = 2.5  # what lies so many mean step lengths back is no longer recent
_ALIKE = 0.6  # of how far a gold's step is from the nearest other step, by the median; a step done well is nearer


def filmstrip(features: Features, rows: Rows) -> Filmstrip:
    """A video's pictures beside its rows."""
    count = len(features.pictures)
    return Filmstrip(
        steadied(features.pictures), np.arange(len(rows.values), dtype=np.int64) * count // len(rows.values)
    )


def rows_by_step(labels: Ints, steps: int) -> list[Ints]:
    """The rows of each step, in order."""
    return [np.flatnonzero(labels == step) for step in range(steps)]


def in_order(rows: Sequence[Ints]) -> list[int]:
    """The steps that have rows, by their first."""
    return sorted((step for step, own in enumerate(rows) if len(own)), key=lambda step: int(rows[step][0]))


@dataclass(frozen=True)
class GoldScene:
    """place: the golds' common place.   usual: what they show of each step.   scale: what is usual among them, see ``scale_of``.
    pool: (n,) sorted, the greater of the log-odds of each gold's steps against the other golds; none with one gold.
    golds: how many show it.
    alike: what is nearer than this to a step may be that step, see ``unlike``.
    """

    place: Place
    usual: Usual
    scale: Floats
    pool: Floats
    alike: float
    golds: int

    def lay(self, strip: Filmstrip) -> Laid | None:
        """Lay a run's pictures over the golds'; None when they do not show the same place."""
        laid = _laid(strip, self.place, steps=len(self.usual.known))
        return None if laid is None else Laid(self, laid)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything, maps in half precision."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "place": self.place.lab,
            "scale": self.scale,
            "pool": self.pool,
            "alike": np.array(self.alike),
            "golds": np.array(self.golds),
        }
        for field in fields(Usual):
            array = getattr(self.usual, field.name)
            arrays[field.name] = array.astype(np.float16) if array.dtype == np.float32 else array
        return {f"scene_{name}": array for name, array in arrays.items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> GoldScene | None:
        """Read what ``to_arrays`` wrote; None where nobody wrote any."""
        if "scene_place" not in arrays:
            return None
        stored = {field.name: arrays[f"scene_{field.name}"] for field in fields(Usual)}
        maps: dict[str, Any] = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in stored.items()}
        return GoldScene(
            Place(arrays["scene_place"]),
            Usual(**maps),
            arrays["scene_scale"],
            arrays["scene_pool"],
            float(arrays["scene_alike"]),
            int(arrays["scene_golds"]),
        )


def fit_scene(
    strips: Sequence[Filmstrip], rows: Sequence[Sequence[Ints]], manners: Sequence[Floats]
) -> GoldScene | None:
    """Prepare the golds' pictures; None with fewer than three golds in one place.

    Args:
        rows: for each gold the rows of each step.   manners: for each gold (S, 2) item and action against the others.

    """
    if not all(len(strip.pictures) for strip in strips):
        return None
    place = place_of(strips[0].pictures)
    laid = [_laid(strip, place, steps=len(rows[0])) for strip in strips]
    known = [(sight.maps(rows[g]), g) for g, sight in enumerate(laid) if sight is not None]
    if len(known) < min(3, len(strips)):
        return None
    if len(known) == 1:
        return _scene_of_one(place, known[0][0])
    pool, tables, unlikeness = [], [], []
    for maps, g in known:
        others = usual_of([other for other, _ in known if other is not maps])
        tables.append(measure(maps, others, in_order(rows[g])))
        unlikeness.append(unlike(maps, others))
    scale = scale_of(tables)
    for (maps, g), table in zip(known, tables, strict=True):
        given = numbers(
            table, manners[g][:, 1], manners[g][:, 0], scale, done=maps.done, settled=maps.done, golds=len(known)
        )
        heard = told(given, maps.done, golds=len(known))
        pool.append(np.maximum(heard.item, heard.action)[maps.done])
    usual = usual_of([maps for maps, _ in known])
    return GoldScene(place, usual, scale, np.sort(np.concatenate(pool)), _alike(np.stack(unlikeness)), len(known))


def _scene_of_one(place: Place, maps: StepMaps) -> GoldScene:
    """What a single gold tells: how its steps differ from each other, and nothing of how golds do."""
    usual = usual_of([maps])
    return GoldScene(place, usual, UNIT, np.zeros(0), _alike(unlike(maps, usual)[None]), 1)


def _alike(off: Floats) -> float:
    """From ``unlike`` of each gold's steps, (G, S, S): well nearer than the nearest other step is."""
    steps = np.arange(off.shape[1])
    other = off.copy()
    other[:, steps, steps] = np.inf
    return max(_ALIKE * _finite_quantile(other.min(axis=2), 0.5), 2 * _finite_quantile(off[:, steps, steps], 0.9))


def _finite_quantile(values: Floats, share: float) -> float:
    values = values[np.isfinite(values)]
    return float(np.quantile(values, share)) if values.size else 0.0


@dataclass(frozen=True)
class Laid:
    """A run's pictures laid over the golds'."""

    scene: GoldScene
    sight: Sight

    def unlike(self, stretches: Sequence[Ints]) -> Floats:
        """(n, S) of ``evidence.unlike`` for stretches of rows."""
        return unlike(self.sight.activity(stretches), self.scene.usual)

    def numbers(self, rows: Sequence[Ints], *, settled: Mask, action: Floats, item: Floats) -> tuple[Floats, Mask]:
        """(S, 17) of ``evidence.numbers`` and (S,) which steps were seen.

        Args:
            rows: for each step the rows of the performance that counts.   settled: (S,) as there.   action, item: (S,) of ``manner``.

        """
        maps = self.sight.maps(rows)
        table = measure(maps, self.scene.usual, in_order(rows))
        scale, golds = self.scene.scale, self.scene.golds
        return numbers(table, action, item, scale, done=maps.done, settled=settled, golds=golds), maps.done

    def ask(self, rows: Sequence[Ints], *, settled: Mask, action: Floats, item: Floats) -> Told:
        """What the pictures say of each step; as ``numbers``."""
        return told(*self.numbers(rows, settled=settled, action=action, item=item), golds=self.scene.golds)


def _laid(strip: Filmstrip, place: Place, *, steps: int) -> Sight | None:
    if not len(strip.pictures):
        return None
    own = place_of(strip.pictures)
    view = lay_over(own, place)
    recent = math.ceil(len(strip.pictures) * min(1.0, RECENT_STEPS / steps))
    return Sight(strip, own, view, recent=recent) if view.fits else None
