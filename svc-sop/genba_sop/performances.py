"""From frame labels to performances: where the trainee does a step, from its beginning to its end, once or again.

A step interrupted by something else and taken up where it was left is one performance; one that starts over is a second.
Knows nothing of what is right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from genba_sop.decoding import ELSEWHERE
from genba_sop.medians import quantiles
from genba_sop.observation import BORDER_S, GoldRun, Mask, Observation, Pauses, first_time
from genba_sop.rows import Rows
from genba_sop.segmentation import EXTRA, runs_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

START_OVER = 0.5  # share of a step by which the trainee falls back in it when starting over
STILL_WINDOW_S = 1.0
STILL_QUANTILE = 0.1
STILL_LEAST, STILL_MOST = (
    0.02,
    0.1,
)  # of the busy level: nobody is stiller than noise, and a tenth that is livelier is not still
BUSY_QUANTILE = 0.75
STILL_GAP_S = 0.5  # a shorter twitch does not end idling
LONGER_STILL_S = 3.0  # by so much may a person hold still for longer than the golds do, at the border of a step
MOSTLY = 0.8
STRETCHED = 1.5  # a step whose moving part takes so many times as long is slow, not interrupted
PAUSE_S = 3.0  # a shorter stillness is no pause
PAUSE_MOST = 0.05  # of the busy level: who pauses is stiller than who holds something
PAUSE_STRETCH, PAUSE_MORE_S = 3.0, 1.5  # times as long as golds, and so much longer, may be held still where they do
BRIEFLY_S = 1.75  # getting into a rest and out of it
EXPECTED_STILL = 0.5  # vote of the golds that are still themselves, from which on stillness is part of the step


@dataclass(frozen=True)
class Performance:
    """Rows ``first`` to ``last`` (both included) in which the trainee does a step, perhaps with something else in between."""

    step: int
    first: int
    last: int
    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """From beginning to end."""
        return self.end_s - self.start_s


def performances(rows: Rows, seen: Observation, golds: Sequence[GoldRun]) -> tuple[Performance, ...]:
    """Find every performance, in time order."""
    progress = step_progress(seen, golds)
    pieces: list[tuple[int, int, int]] = []
    for run in runs_of(seen.labels):
        if run.label >= 0:
            cuts = [run.first, *_starts_over(progress, run.first, run.last, rows.frame_s), run.last + 1]
            pieces += [(run.label, a, b - 1) for a, b in pairwise(cuts)]
    joined: list[tuple[int, int, int]] = []
    for step, first, last in pieces:
        same = joined and joined[-1][0] == step and first > joined[-1][2] + 1
        if same and _reached(progress, joined[-1]) <= _begun(progress, (step, first, last)) + 0.25:
            joined[-1] = (step, joined[-1][1], last)
        else:
            joined.append((step, first, last))
    edges = rows.edges
    return tuple(Performance(s, a, b, float(edges[a]), float(edges[b + 1])) for s, a, b in joined)


def step_progress(seen: Observation, golds: Sequence[GoldRun]) -> Floats:
    """(M,) how far into its step the trainee is, in [0, 1]: the golds' weighted mean; nan where none says."""
    total, weight = np.zeros(len(seen.labels)), np.zeros(len(seen.labels))
    for gold, frame, vote in zip(golds, seen.frames, seen.votes, strict=True):
        known = (frame != ELSEWHERE) & (gold.labels[np.maximum(frame, 0)] == seen.labels)
        total[known] += vote * gold.progress[frame[known]]
        weight[known] += vote
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(weight > 0, total / weight, np.nan))


def _starts_over(progress: Floats, first: int, last: int, frame_s: float) -> list[int]:
    """Rows at which the step is begun anew: the progress of the second before is ahead of that of the second after."""
    width = max(2, round(1.0 / frame_s))
    if last - first + 1 < 2 * width:
        return []
    piece = progress[first : last + 1]
    known = np.isfinite(piece)
    sums, counts = (np.concatenate([[0], np.cumsum(each)]) for each in (np.where(known, piece, 0.0), known))
    sums, counts = sums[width:] - sums[:-width], counts[width:] - counts[:-width]  # of the ``width`` rows from each on
    usable = np.flatnonzero((counts[:-width] > 0) & (counts[width:] > 0))
    falls = sums[usable] / counts[usable] - sums[usable + width] / counts[usable + width]
    usable += width
    deep = np.flatnonzero(falls >= START_OVER)
    found: list[int] = []
    for at in (usable[deep[np.argsort(-falls[deep], kind="stable")]] + first).tolist():
        if all(abs(at - other) > 2 * width for other in found):
            found.append(at)
    return sorted(found)


def _reached(progress: Floats, piece: tuple[int, int, int]) -> float:
    known = progress[piece[1] : piece[2] + 1]
    known = known[np.isfinite(known)]
    return float(known[-4:].mean()) if known.size else 1.0


def _begun(progress: Floats, piece: tuple[int, int, int]) -> float:
    known = progress[piece[1] : piece[2] + 1]
    known = known[np.isfinite(known)]
    return float(known[:4].mean()) if known.size else 0.0


def smooth_motion(rows: Rows) -> Floats:
    """(T,) motion averaged over a second."""
    width = max(1, round(STILL_WINDOW_S / rows.frame_s))
    padded = np.pad(rows.motion.astype(np.float64), (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1.0 / width), "valid")


def stillness(rows: Rows) -> float:
    """How still a run's stillest tenth is, as a share of its busy level: independent of camera, distance and noise."""
    motion = smooth_motion(rows)[1:]
    if not motion.size:
        return 0.0
    busy = quantiles(motion, BUSY_QUANTILE)[0]
    share = quantiles(motion, STILL_QUANTILE)[0] / busy if busy > 0 else 0.0
    return min(STILL_MOST, max(STILL_LEAST, share)) if busy > 0 else 0.0


def still(rows: Rows, share: float) -> Mask:
    """(T,) where the motion is at most ``share`` of the run's busy level, short twitches filled."""
    motion = smooth_motion(rows)
    mask = motion <= share * quantiles(motion, BUSY_QUANTILE)[0]
    mask = fill_gaps(mask, longest=round(STILL_GAP_S / rows.frame_s))
    reach = round(STILL_WINDOW_S / 2 / rows.frame_s)
    for run in runs_of(mask.astype(np.int64)):  # the average over a second has eaten half of it at either end
        if run.label and run.last - run.first >= 2 * reach:
            mask[max(0, run.first - reach) : run.last + 1 + reach] = True
    return mask


def pauses(rows: Rows, holds: Sequence[Holds], share: float) -> Pauses:
    """Where a run pauses; a row's pause counts from the first to the last still row around it."""
    length_s = np.zeros(len(rows.motion))
    for run in runs_of(still(rows, min(share, PAUSE_MOST)).astype(np.int64)):
        seconds = float(rows.edges[run.last + 1] - rows.edges[run.first])
        if run.label and seconds >= PAUSE_S:
            length_s[run.first : run.last + 1] = seconds
    return Pauses(length_s, tuple(PAUSE_STRETCH * hold.length_s + PAUSE_MORE_S for hold in holds))


@dataclass(frozen=True)
class Holds:
    """Where a gold holds still, half a second around included (N,), for how many seconds there (N,), and for how many seconds
    it moves in each step.
    """

    near: Mask
    length_s: Floats
    moving_s: dict[int, float]


def holds_of(gold: GoldRun, share: float) -> Holds:
    """Find a gold's own holds."""
    rows, quiet = gold.rows, still(gold.rows, share)
    reach = max(1, round(0.5 / rows.frame_s))
    near = (
        np.convolve(quiet, np.ones(2 * reach + 1))[reach : reach + len(quiet)] > 0
    )  # "same" is longer for a short gold
    length_s = np.zeros(len(near))
    for run in runs_of(near.astype(np.int64)):
        if run.label:
            length_s[run.first : run.last + 1] = rows.edges[run.last + 1] - rows.edges[run.first]
    steps = {int(label) for label in gold.labels}
    return Holds(near, length_s, {s: rows.frame_s * float((~quiet & (gold.labels == s)).sum()) for s in steps})


def idling(rows: Rows, seen: Observation, holds: Sequence[Holds], share: float) -> Mask:
    """(M,) where the run is still although the golds, at the place that they are matched with, are not.

    Holding still while oil runs in is part of that step; doing so elsewhere, or in a place that no gold shows, is idling.
    """
    mask = still(rows, share)
    again = ~first_time(seen.labels) & _mostly(mask, seen.labels)
    expected, allowed_s = np.zeros(len(mask)), np.zeros(len(mask))
    for hold, frame, vote in zip(holds, seen.frames, seen.votes, strict=True):
        matched = (frame != ELSEWHERE) & ~again
        expected += vote * (hold.near[np.maximum(frame, 0)] & matched)
        allowed_s += vote * hold.length_s[np.maximum(frame, 0)] * matched
    idle = mask & (expected < EXPECTED_STILL)
    stretch, border = (
        _stretch(rows, seen.labels, holds, moving=~mask),
        _near_border(seen.labels, round(BORDER_S / rows.frame_s)),
    )
    for run in runs_of(mask.astype(np.int64)):
        inside = slice(run.first, run.last + 1)
        rest_s = float(rows.edges[run.last + 1] - rows.edges[run.first]) - float(allowed_s[inside].max())
        if run.label and rest_s >= LONGER_STILL_S and stretch[inside].max() < STRETCHED and border[inside].any():
            idle[inside] = True
    idle &= (seen.labels != EXTRA) | rests(rows, mask, seen.labels)  # who holds a telephone still does not idle
    return fill_gaps(idle, longest=round(STILL_GAP_S / rows.frame_s))


def _mostly(mask: Mask, labels: Ints) -> Mask:
    """(M,) rows of the runs of a label that the mask covers by and large."""
    rows = np.zeros(len(mask), np.bool_)
    for run in runs_of(labels):
        rows[run.first : run.last + 1] = mask[run.first : run.last + 1].mean() >= MOSTLY
    return rows


def rests(rows: Rows, mask: Mask, labels: Ints) -> Mask:
    """(M,) rows of the runs of a label that the mask covers by and large, or all but getting there and back."""
    resting = _mostly(mask, labels)
    for run in runs_of(labels):
        inside = slice(run.first, run.last + 1)
        covered_s = float(np.diff(rows.edges)[inside][mask[inside]].sum())
        rest_s = float(rows.edges[run.last + 1] - rows.edges[run.first]) - covered_s
        resting[inside] |= covered_s >= PAUSE_S and rest_s <= BRIEFLY_S
    return resting


def _near_border(labels: Ints, reach: int) -> Mask:
    """(M,) rows at most ``reach`` away from a change of label or an end of the video."""
    near = np.zeros(len(labels), np.bool_)
    for run in runs_of(labels):
        near[run.first : run.first + reach + 1] = True
        near[max(0, run.last - reach) : run.last + 1] = True
    return near


def _stretch(rows: Rows, labels: Ints, holds: Sequence[Holds], *, moving: Mask) -> Floats:
    """(M,) how many times as long as in the golds the moving part of each row's step takes; at least 1."""
    stretch = np.ones(len(labels))
    for step in {int(label) for label in labels if label >= 0}:
        inside = labels == step
        mine_s = rows.frame_s * float((moving & inside).sum())
        theirs_s = float(np.mean([hold.moving_s.get(step, 0.0) for hold in holds]))
        stretch[inside] = max(1.0, mine_s / max(theirs_s, rows.frame_s))
    return stretch


def fill_gaps(mask: Mask, *, longest: int) -> Mask:
    """Close gaps of at most ``longest`` rows between two stretches."""
    filled = mask.copy()
    for run in runs_of(mask.astype(np.int64)):
        inner = run.first > 0 and run.last < len(mask) - 1
        if not run.label and inner and run.last - run.first + 1 <= longest:
            filled[run.first : run.last + 1] = True
    return filled


def lasting(mask: Mask, rows: Rows, least_s: float) -> Mask:
    """(M,) only the stretches of a mask that last so long."""
    kept = np.zeros(len(mask), np.bool_)
    for run in runs_of(mask.astype(np.int64)):
        if run.label and rows.edges[run.last + 1] - rows.edges[run.first] >= least_s:
            kept[run.first : run.last + 1] = True
    return kept


def stretches_s(mask: Mask, rows: Rows) -> Floats:
    """Lengths in seconds of the stretches of a mask."""
    return np.array([rows.edges[r.last + 1] - rows.edges[r.first] for r in runs_of(mask.astype(np.int64)) if r.label])
