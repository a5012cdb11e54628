"""How a step is done: whether the action and the objects in the picture look as they do among golds.

Two statistics for each step, both in spreads between golds and above the median step of the same run, so that a camera, an
operator or a light that differs throughout does not count: *action*, from the features of whole frames, and *item*, from the
cells of a 6×8 grid that differ most, so that a small object is not averaged away.
Knows nothing of limits and p-values.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_CELLS = 4  # of 48: about what a tool covers
LEAST_CELL_SPREAD = 0.1  # in spreads of the grid's channels
LEAST_RESIDUAL_SPREAD = 0.03


@dataclass(frozen=True)
class Spread:
    """Centre and spread of a statistic by step (and cell), over gold–gold comparisons or assumed from one gold."""

    centre: Floats
    scale: Floats


@dataclass(frozen=True)
class Manner:
    """(S,) action and item of each step, nan for a step that was not done."""

    action: Floats
    item: Floats


def spread_of(table: Floats, *, least: float) -> Spread:
    """Centre and spread over the first axis; the spread is that of all steps, or the step's own where that is larger.

    A step that no two golds show has the usual centre of the others. Without comparisons, which is to say with one gold, the centre
    is 0 and the spread twice ``least``: what is left then is how far a step stands out among those of its own run.

    Args: table: (P, S, …) with nan where a comparison lacks a step.
    """
    if not len(table):
        return Spread(np.zeros(table.shape[1:]), np.full(table.shape[1:], 2 * least))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a step that no gold shows
        centre, own = np.nanmean(table, axis=0), np.nanvar(table, axis=0)
        usual, pooled = np.nan_to_num(np.nanmean(centre, axis=0)), np.nanmean(own, axis=0)
    centre, own = np.where(np.isfinite(centre), centre, usual), np.where(np.isfinite(own), own, pooled)
    return Spread(centre, np.sqrt(np.maximum(own, pooled)) + least)


def manner(residual: Floats, local: Floats, action: Spread, item: Spread) -> Manner:
    """Standardise one run.

    Args: residual: (S,), local: (S, 48), nan for steps not done.
    """
    return Manner(
        _above_median((residual - action.centre) / action.scale),
        _above_median(_largest((local - item.centre) / item.scale)),
    )


def _largest(z: Floats) -> Floats:
    """(S,) mean of the cells that differ most, each cell first rid of its median over the steps."""
    done = np.isfinite(z[:, 0])
    if not done.any():
        return np.full(len(z), np.nan)
    z = z - np.median(z[done], axis=0)
    return np.where(done, np.sort(z, axis=1)[:, ::-1][:, :_CELLS].mean(axis=1), np.nan)


def _above_median(z: Floats) -> Floats:
    """Less the median over the steps, by the steps' own spread where that is larger than the golds'."""
    done = z[np.isfinite(z)]
    if not done.size:
        return z
    middle = float(np.median(done))
    scale = 1.4826 * float(np.median(np.abs(done - middle)))
    above: Floats = (z - middle) / max(1.0, scale)
    return above
