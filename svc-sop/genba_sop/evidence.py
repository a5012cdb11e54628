"""How a step's pictures differ from the golds', as a few numbers, and what these say: as always, other object, other manner.

A difference counts only as far as it is the step's own: what differs in the whole run, in the step before or in the step
after is the operator, the light or the camera, and what stays different from a step on belongs to that step. The numbers
are relative to what golds show against each other, so they mean the same in every procedure; how they weigh was learnt on
generated runs (``benchmarks/sop_manner.py``).
Knows nothing of alignment, p-values and scores: maps of steps in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from genba_sop.kernels import kernels_of
from genba_sop.medians import median, medians
from genba_sop.sight import Activity, StepMaps

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NAMES = (
    "median_40", "mean_5", "mean_40", "lasting", "covers", "covers_most", "uncovered", "uncovered_most",
    "moves", "unmoved", "moves_elsewhere", "moves_aside", "covers_elsewhere", "action", "item", "for_good",
)  # fmt: skip
MEASURED = len(NAMES) - 3  # two more come from ``manner``, and the last from ``lasting``
UNIT: Floats = np.array(
    [1, 1, 1, 1, 1, 0.05, 1, 0.05, 0.3, 0.3, 0.05, 0.02, 0.05, 0.5, 0.5]
)  # a number's unit where golds show none of it
_COLOUR_FLOOR = 3.0  # CIE 1976; golds differ by so much at least
_USUAL_NOISE = 0.35  # median over pixels and steps of what golds show; a noisier run is measured by its own
_NEAR_PX = 1.5  # so far off, by and large, is one gold's picture from another's
_TOLERANCE_PX = 2  # so far off may an arm be
_SHARE_FLOOR = 0.04  # of the step's time
_MOST_LASTING, _LEAST_COST, _FARTHER = 6.0, 4.0, 2.0
_TOGETHER_PX = 2.0  # what lies so near and changes for good, changes in the same step
_ACTING, _LATER = (
    3.0,
    0.5,
)  # spreads by which a step may be the less clear one, where all the movement is in it; and for being later
_EMPTY = 1e-6  # spread of a map in which nothing is
_ASIDE_PX = 5  # of 30×40: how far aside the same movement is looked for
LASTING, FOR_GOOD = NAMES.index("lasting"), 0.8  # what was put on, down or away wrongly shows in nothing else

MANY_GOLDS = 3  # fewer say little of how golds differ
# Rows: NAMES and a constant; columns: log-odds of another object and of another manner, against neither.
WEIGHTS: Floats = np.array([
    (-1.24, -0.06),  # median_40
    (-0.24, -0.52),  # mean_5
    (-0.67, -0.74),  # mean_40
    (2.41, 0.60),  # lasting
    (1.22, 0.79),  # covers
    (1.84, 0.64),  # covers_most
    (0.40, 1.50),  # uncovered
    (1.65, 0.95),  # uncovered_most
    (-0.23, -0.68),  # moves
    (1.11, 1.05),  # unmoved
    (-1.84, 1.43),  # moves_elsewhere
    (0.64, 2.72),  # moves_aside
    (-1.58, -1.01),  # covers_elsewhere
    (1.05, 1.85),  # action
    (1.77, -0.09),  # item
    (8.00, 0.00),  # for_good
    (-9.74, -10.48),  # constant
])  # fmt: skip
WEIGHTS_OF_FEW: Floats = np.array([
    (-1.72, 1.25),  # median_40
    (2.63, 1.13),  # mean_5
    (1.59, 1.30),  # mean_40
    (1.16, 0.39),  # lasting
    (-0.14, -0.52),  # covers
    (2.82, 2.00),  # covers_most
    (1.11, 1.69),  # uncovered
    (0.27, 0.43),  # uncovered_most
    (-0.02, -0.47),  # moves
    (-0.32, 0.58),  # unmoved
    (2.56, 5.69),  # moves_elsewhere
    (0.15, 1.25),  # moves_aside
    (0.43, -0.86),  # covers_elsewhere
    (0.88, 1.54),  # action
    (-0.25, -0.30),  # item
    (0.56, -0.00),  # for_good
    (-5.37, -8.38),  # constant
])  # fmt: skip


@dataclass(frozen=True)
class Told:
    """(S,) log-odds that a step was done with another object, and in another manner, against neither; -inf where not seen."""

    item: Floats
    action: Floats


@dataclass(frozen=True)
class Usual:
    """What golds show in each step. mean, median: (S, 60, 80, 3) colour, and their spreads.   most, least: (S, 60, 80) share of
    the time that a pixel is covered near it in any gold, and in every gold; likewise lately, and moving.
    known: (S,) by two golds or more.
    """

    mean: Singles
    mean_spread: Singles
    median: Singles
    median_spread: Singles
    most_covered: Singles
    least_covered: Singles
    most_lately: Singles
    least_lately: Singles
    most_moving: Singles
    least_moving: Singles
    known: Mask

    @cached_property
    def divisors(self) -> tuple[Singles, Singles]:
        """(S, 60, 80) what divides differences of the median and of the mean: how much golds differ there."""
        return _divisor(self.median_spread), _divisor(self.mean_spread)

    @cached_property
    def going_on(self) -> Singles:
        """(4, S, 4800) most and least of what is covered lately, and of what moves."""
        maps = (self.most_lately, self.least_lately, self.most_moving, self.least_moving)
        return np.stack([each.reshape(len(each), -1) for each in maps])


def _divisor(spread: Singles) -> Singles:
    return np.asarray(np.sqrt(np.square(spread).mean(axis=-1)) + _COLOUR_FLOOR, np.float32)


def warm_up() -> None:
    """Load or compile the inner loops now rather than in the first request."""
    rows = np.ones((4, 3, 1), np.float32)
    kernels_of("evidence").unlike(
        rows[:1, :2], rows[:1, :2], rows[..., :1].swapaxes(1, 2).copy(), rows[0, 0], _SHARE_FLOOR
    )
    kernels_of("evidence").split(rows, rows[:, 0], _MOST_LASTING)
    kernels_of("evidence").own(*[rows.reshape(4, 1, 3)] * 2, rows[:, 0])
    kernels_of("evidence").off(rows.reshape(4, 1, 3), rows[0].T.copy(), rows[:, 0], _MOST_LASTING)


def usual_of(golds: Sequence[StepMaps]) -> Usual:
    """What these golds show; a step needs two of them."""
    shape = golds[0].covered.shape
    maps: dict[str, Singles] = {}
    for name in ("mean", "median"):
        maps[name], maps[f"{name}_spread"] = np.zeros((*shape, 3), np.float32), np.ones((*shape, 3), np.float32)
    for name in ("covered", "lately", "moving"):
        maps[f"most_{name}"], maps[f"least_{name}"] = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    known = np.sum([gold.done for gold in golds], axis=0) >= min(2, len(golds))
    for step in np.flatnonzero(known):
        shown = [gold for gold in golds if gold.done[step]]
        for name in ("mean", "median"):
            colour = np.stack([_smooth(getattr(gold, name)[step]) for gold in shown])
            maps[name][step] = colour.mean(axis=0)
            maps[f"{name}_spread"][step] = _spread(colour)
        for name in ("covered", "lately", "moving"):
            share = np.stack([getattr(gold, name)[step] for gold in shown])
            maps[f"most_{name}"][step], maps[f"least_{name}"][step] = _widened(share.max(axis=0)), share.min(axis=0)
    return Usual(**maps, known=known)


def _spread(colour: Singles) -> Singles:
    """(60, 80, 3) how much golds' (n, 60, 80, 3) pictures differ; of a single one, how much it differs from what is near."""
    if len(colour) > 1:
        return np.asarray(cv2.GaussianBlur(colour.std(axis=0, ddof=1), (0, 0), 1.0), np.float32)
    mean, square = (cv2.GaussianBlur(picture, (0, 0), _NEAR_PX) for picture in (colour[0], np.square(colour[0])))
    return np.asarray(np.sqrt(np.maximum(square - np.square(mean), 0)), np.float32)


def measure(mine: StepMaps, usual: Usual, sequence: Sequence[int]) -> Floats:
    """(S, 13) how each step differs from the golds' in the picture; 0 for a step that was not seen, or by fewer than two golds.

    Args:
        sequence: the steps in the order in which this run shows them.

    """
    table = np.zeros((len(mine.done), MEASURED))
    at = [step for step in sequence if mine.done[step] and usual.known[step]]
    if not at:
        return table
    seen = np.repeat(mine.seen[..., None], 3, axis=-1).astype(np.float32)
    of_median, of_mean = usual.divisors
    median = _Difference(_less(mine.median, usual.median, at, seen), of_median[at])
    mean = _Difference(_less(mine.mean, usual.mean, at, seen), of_mean[at])
    levels = _levels(median, mean, mine.moving[at])
    own = _own(mean, levels.mean)
    table[at, 0] = [_tops(picture, 40)[0] for picture in _own(median, levels.median)]
    table[at, 1], table[at, 2] = np.transpose([_tops(picture, 5, 40) for picture in own])
    table[at, 3] = [_tops(_smooth(picture), 5)[0] for picture in levels.away]
    same = (levels.since < 0) | (levels.since == np.arange(len(at))[:, None, None])  # elsewhere it is another place
    more, less = (
        share * same for share in _shares(mine.covered[at], usual.most_covered[at], usual.least_covered[at], mine.seen)
    )
    table[at, 4], table[at, 5] = more.sum(axis=(1, 2)), _most(more)
    table[at, 6], table[at, 7] = less.sum(axis=(1, 2)), _most(less)
    more, less = _shares(mine.moving[at], usual.most_moving[at], usual.least_moving[at], mine.seen)
    table[at, 8], table[at, 9] = more.sum(axis=(1, 2)), less.sum(axis=(1, 2))
    for n, step in enumerate(at):
        place = mine.seen * same[n]
        moving = (usual.most_moving[step] + usual.least_moving[step]) / 2 * mine.seen
        covered = (usual.most_covered[step] + usual.least_covered[step]) / 2 * place
        here, aside = likeness(mine.moving[step] * mine.seen, moving, aside_px=_ASIDE_PX)
        table[step, 10], table[step, 11] = 1 - here, aside - here
        table[step, 12] = 1 - likeness(mine.covered[step] * place, covered, aside_px=0).here
    return table


def unlike(mine: Activity, usual: Usual) -> Floats:
    """(n, S) how far each of n stretches is from what golds show in each step, as a share of what is covered and moves; inf where
    unknown.
    """
    table = np.full((len(mine.done), len(usual.known)), np.inf)
    done = np.flatnonzero(mine.done)
    if not done.size:
        return table
    pixels, seen = mine.seen.size, mine.seen.ravel().astype(np.float32)
    lately, moving = (
        np.stack([np.stack([share[n], _widened(share[n])]) for n in done]).reshape(len(done), 2, pixels)
        for share in (mine.lately, mine.moving)
    )
    off = kernels_of("evidence").unlike(lately, moving, usual.going_on, seen, _SHARE_FLOOR)
    least = (usual.going_on[1] + usual.going_on[3]) @ seen  # (S,)
    activity = (lately[:, 0] + moving[:, 0]) @ seen
    share = off / np.maximum(least + activity[:, None], 1.0)
    table[done] = np.where(usual.known, share, np.inf)
    return table


def scale_of(tables: Sequence[Floats]) -> Floats:
    """(15,) what is usual among golds, from ``measure`` of each against the others; the last two are units as they are."""
    usual = np.zeros(len(UNIT))
    usual[:MEASURED] = np.quantile(np.concatenate(tables), 0.75, axis=0)
    return np.asarray(usual + UNIT)


def numbers(
    table: Floats, action: Floats, item: Floats, scale: Floats, *, done: Mask, settled: Mask, golds: int
) -> Floats:
    """(S, 17) log ratios to what is usual, by how much what lasts is beyond that, and a constant 1. Where golds are few, what half
    of a run's own steps show is usual.

    Args:    table: (S, 13) of ``measure``.   action, item: (S,) of ``manner``, nan where a step was not done.   scale: (15,).
        done: (S,) which steps were seen.   settled: (S,) which of them lie between the steps that golds show before and after, so
        that what lasts is their own.   golds: how many there are.

    """
    whole = np.maximum(np.column_stack([table, np.nan_to_num(action), np.nan_to_num(item)]), 0)
    if golds < MANY_GOLDS and done.any():
        scale = np.maximum(scale, np.median(whole[done], axis=0) + UNIT)
    ratio = np.log((whole + UNIT) / scale)
    for_good = np.maximum(ratio[:, LASTING] - FOR_GOOD, 0) * settled
    return np.column_stack([ratio, for_good, np.ones(len(whole))])


def told(given: Floats, seen: Mask, *, golds: int) -> Told:
    """What the numbers say of each step, measured against so many golds."""
    odds = np.where(seen[:, None], given @ (WEIGHTS if golds >= MANY_GOLDS else WEIGHTS_OF_FEW), -np.inf)
    return Told(odds[:, 0], odds[:, 1])


def _less(mine: Singles, usual: Singles, at: Sequence[int], seen: Singles) -> Singles:
    """(n, 60, 80, 3) of the steps ``at``: what is seen of the one less the other."""
    less = np.empty((len(at), *seen.shape), np.float32)
    for row, step in zip(less, at, strict=True):
        np.subtract(_smooth(mine[step]), usual[step], out=row)
        np.multiply(row, seen, out=row)
    return less


def _smooth(picture: Singles) -> Singles:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.7), np.float32)


class _Difference(NamedTuple):
    """(n, 60, 80, 3) colour of each step less the golds' mean, and (n, 60, 80) what divides it: how much golds differ there."""

    colour: Singles
    spread: Singles


def _own(difference: _Difference, level: Singles) -> Singles:
    """(n, 60, 80) by how many spreads each step is from its level: the least of what is left, and of how that differs from the step
    before and after.
    """
    n, *shape, _ = level.shape
    colour, level = difference.colour.reshape(n, -1, 3), level.reshape(n, -1, 3)
    length = kernels_of("evidence").own(colour, level, difference.spread.reshape(n, -1))
    return np.asarray(length / max(1.0, median(length) / _USUAL_NOISE), np.float32).reshape(n, *shape)


@dataclass(frozen=True)
class _Levels:
    """How each pixel's differences run through the steps: one level, or one before a step and another one after it.

    median, mean: (n, 60, 80, 3) levels.   since: (60, 80) the row from which on they are others, −1 where they stay.
    away: (n, 60, 80) by how many spreads the median differs more from there on; nothing where it comes nearer to the golds.
    """

    median: Singles
    mean: Singles
    since: Ints
    away: Singles


def _levels(median: _Difference, mean: _Difference, moving: Singles) -> _Levels:
    """Explain differences by one level in each pixel, or by two where these say much more.

    The change lies in the step that is neither like what is before nor like what is after it; where several may be that one, in
    that in which more moves near there, (n, 60, 80), or else the later one, which shows it first.
    """
    n, *shape = moving.shape
    levels = [np.repeat(medians(each.colour, axis=0)[None], n, axis=0) for each in (median, mean)]
    since, away = np.full(shape, -1, np.int64), np.zeros((n, *shape), np.float32)
    rows = median.colour.reshape(n, -1, 3), levels[0][0].reshape(-1, 3), median.spread.reshape(n, -1)
    whole: Singles = kernels_of("evidence").off(*rows, _MOST_LASTING).reshape(shape)
    y, x = np.nonzero(whole > _LEAST_COST)  # a few pixels; elsewhere nothing changes
    if n < 5 or not len(y):
        return _Levels(levels[0], levels[1], since, away)
    steps, at = range(1, n - 2), np.arange(len(y))
    splits = [
        kernels_of("evidence").split(
            np.ascontiguousarray(each.colour[:, y, x].swapaxes(1, 2)), each.spread[:, y, x], _MOST_LASTING
        )
        for each in (median, mean)
    ]
    before, after, costs = zip(*splits, strict=True)  # (S, 3, P) twice and (S, P), of each
    acting = np.stack([cv2.GaussianBlur(each, (0, 0), _TOGETHER_PX) for each in moving])[1:-2, y, x]
    likely = _ACTING * acting / np.maximum(acting.max(axis=0), _SHARE_FLOOR) + _LATER * np.arange(len(steps))[:, None]
    best = (costs[0] + costs[1] - likely).argmin(axis=0)
    votes = np.zeros((len(steps), *shape), np.float32)
    votes[best, y, x] = (whole[y, x] - costs[0][best, at]).clip(0)
    best = np.stack([cv2.GaussianBlur(each, (0, 0), _TOGETHER_PX) for each in votes])[:, y, x].argmax(axis=0)
    gain = (whole[y, x] - costs[0][best, at]).clip(0)
    unit = medians(median.spread[:, y, x], axis=0)
    earlier, later = before[0][best, :, at], after[0][best, :, at]
    farther = _length(later) - _length(earlier)
    step = 1 + best
    away[step, y, x] = np.minimum(np.minimum(_length(later - earlier), _FARTHER * farther) / unit, gain).clip(0)
    kept = gain >= _LEAST_COST
    since[y[kept], x[kept]] = step[kept]
    for level, b, a in zip(levels, before, after, strict=True):
        earlier, later = b[best, :, at], a[best, :, at]
        for s in range(n):
            now = np.where(((s < step) | ((s == step) & (farther > 0)))[:, None], earlier, later)
            level[s, y[kept], x[kept]] = now[kept]
    return _Levels(levels[0], levels[1], since, away)


def _length(rows: Singles) -> Singles:
    """(…,) Euclidean length of the last axis, (…, 3)."""
    return np.asarray(np.sqrt(np.einsum("...c,...c->...", rows, rows)), np.float32)


def _shares(mine: Singles, most: Singles, least: Singles, seen: Mask) -> tuple[Singles, Singles]:
    """(n, 60, 80) twice: share of the time by which a pixel is covered more than near it in any gold, and less than in every gold."""
    widened = np.stack([_widened(share) for share in mine])
    return (
        _own_share((mine - most - _SHARE_FLOOR).clip(0) * seen),
        _own_share((least - widened - _SHARE_FLOOR).clip(0) * seen),
    )


def _own_share(rows: Singles) -> Singles:
    """What is the step's own of a share, as in ``_own``."""
    own = (rows - medians(rows, axis=0)).clip(0)
    own[1:] = np.minimum(own[1:], (rows[1:] - rows[:-1]).clip(0))
    own[:-1] = np.minimum(own[:-1], (rows[:-1] - rows[1:]).clip(0))
    return np.asarray(own, np.float32)


def _widened(picture: Singles) -> Singles:
    size = 2 * _TOLERANCE_PX + 1
    return np.asarray(cv2.dilate(picture, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))), np.float32)


class Likeness(NamedTuple):
    """Correlation of two maps as they lie, and the best one with the first a little aside."""

    here: float
    aside: float


def likeness(mine: Singles, usual: Singles, *, aside_px: int) -> Likeness:
    """How alike two maps are, at half their size; the first may lie up to so many pixels of that aside. 0 for an empty map."""
    one, other = (_half(picture) for picture in (mine, usual))
    if min(float(cv2.meanStdDev(each)[1].item()) for each in (one, other)) < _EMPTY:
        return Likeness(0.0, 0.0)
    wide = cv2.copyMakeBorder(other, *[aside_px] * 4, cv2.BORDER_CONSTANT, value=0)
    found = cv2.matchTemplate(wide, one, cv2.TM_CCOEFF_NORMED)
    return Likeness(float(found[aside_px, aside_px]), float(found.max()))


def _half(picture: Singles) -> Singles:
    small = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 0.8), np.float32)


def _tops(picture: Singles, *counts: int) -> list[float]:
    """Mean of so many of the largest numbers, fewest first."""
    largest = np.sort(np.partition(picture.ravel(), -counts[-1])[-counts[-1] :])
    return [float(largest[-count:].mean()) for count in counts]


def _most(rows: Singles) -> list[float]:
    return [float(cv2.GaussianBlur(row, (0, 0), 1.5).max()) for row in rows]
