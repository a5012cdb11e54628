"""The golds' pictures, step by step, in one place's pixels, and what a run's pictures say beside them.

Needs three golds that show the same place from about the same side; otherwise there is nothing to compare, and whoever
asks is told so.
Knows nothing of p-values' limits and of scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from genba_sop.evidence import LEAST_GOLDS, Told, Usual, measure, numbers, scale_of, told, usual_of
from genba_sop.features import Features
from genba_sop.observation import Rows
from genba_sop.scene import Filmstrip, Place, StepMaps, lay_over, place_of, step_maps

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def filmstrip(features: Features, rows: Rows) -> Filmstrip:
    """A video's pictures beside its rows."""
    count = len(features.pictures)
    return Filmstrip(features.pictures, np.arange(len(rows.values), dtype=np.int64) * count // len(rows.values))


def rows_by_step(labels: Ints, steps: int) -> list[Ints]:
    """The rows of each step, in order."""
    return [np.flatnonzero(labels == step) for step in range(steps)]


def in_order(rows: Sequence[Ints]) -> list[int]:
    """The steps that have rows, by their first."""
    return sorted((step for step, own in enumerate(rows) if len(own)), key=lambda step: int(rows[step][0]))


@dataclass(frozen=True)
class GoldScene:
    """place: the golds' common place.   usual: what they show of each step.   scale: what is usual among them, see ``scale_of``.
    pool: (n,) sorted, the greater of the log-odds of each gold's steps against the other golds.
    """

    place: Place
    usual: Usual
    scale: Floats
    pool: Floats

    def numbers(
        self, strip: Filmstrip, rows: Sequence[Ints], *, action: Floats, item: Floats
    ) -> tuple[Floats, Mask] | None:
        """(S, 13) of ``evidence.numbers`` and (S,) which steps were seen; None when a run does not show the golds' place.

        Args:
            rows: for each step the rows of the performance that counts.   action, item: (S,) of ``manner``.

        """
        maps = _maps(strip, rows, self.place)
        if maps is None:
            return None
        return numbers(measure(maps, self.usual, in_order(rows)), action, item, self.scale), maps.done

    def ask(self, strip: Filmstrip, rows: Sequence[Ints], *, action: Floats, item: Floats) -> Told | None:
        """What a run's pictures say of its steps; as ``numbers``."""
        given = self.numbers(strip, rows, action=action, item=item)
        return None if given is None else told(*given)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything, maps in half precision."""
        arrays: dict[str, npt.NDArray[Any]] = {"place": self.place.lab, "scale": self.scale, "pool": self.pool}
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
        return GoldScene(Place(arrays["scene_place"]), Usual(**maps), arrays["scene_scale"], arrays["scene_pool"])


def fit_scene(
    strips: Sequence[Filmstrip], rows: Sequence[Sequence[Ints]], manners: Sequence[Floats]
) -> GoldScene | None:
    """Prepare the golds' pictures; None with fewer than three golds in one place.

    Args:
        rows: for each gold the rows of each step.   manners: for each gold (S, 2) item and action against the others.

    """
    if len(strips) < LEAST_GOLDS or not all(len(strip.pictures) for strip in strips):
        return None
    place = place_of(strips[0].pictures)
    laid = [_maps(strip, own, place) for strip, own in zip(strips, rows, strict=True)]
    known = [(maps, g) for g, maps in enumerate(laid) if maps is not None]
    if len(known) < LEAST_GOLDS:
        return None
    tables = [
        measure(maps, usual_of([other for other, _ in known if other is not maps]), in_order(rows[g]))
        for maps, g in known
    ]
    scale = scale_of(tables)
    pool = []
    for (maps, g), table in zip(known, tables, strict=True):
        heard = told(numbers(table, manners[g][:, 1], manners[g][:, 0], scale), maps.done)
        pool.append(np.maximum(heard.item, heard.action)[maps.done])
    return GoldScene(place, usual_of([maps for maps, _ in known]), scale, np.sort(np.concatenate(pool)))


def _maps(strip: Filmstrip, rows: Sequence[Ints], place: Place) -> StepMaps | None:
    if not len(strip.pictures):
        return None
    own = place_of(strip.pictures)
    view = lay_over(own, place)
    return step_maps(strip, rows, own, view) if view.fits else None
