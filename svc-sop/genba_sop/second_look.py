"""A second look, by the pictures, at what the alignment leaves doubtful: which step a stretch of a run really shows.

Features say well what is being done and badly where; pictures laid over the golds' say where. So they are asked about
stretches in no step, steps done twice, stretches of a step that hardly shows, and runs of two steps taken for one.
Knows nothing of deviations and scores: labels in, better labels out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from genba_sop.gold_scene import Laid
from genba_sop.observation import Observation, relabelled
from genba_sop.performances import Performance, performances
from genba_sop.reference import Reference
from genba_sop.rows import Rows
from genba_sop.segmentation import EXTRA, Run, runs_of

Floats = npt.NDArray[np.float64]

SKIPPED_SHARE = 0.5  # of a step's gold rows, from which on it counts as missing
LEAST_S = 1.5  # too little is seen of less
STRANGE = 1.5  # times what may be a step: that is none
CLEARLY = 1.6  # times as far is the step that it was taken for
LONG = 1.3  # times as long as usual is a run that may be of two steps
BADLY = 0.2  # by so much, in normalised cost, matches worse what is in no step
SHORTEST_REST = 0.6  # times as long as usual must a step be without what does not belong to it
PART_S = 2.0  # the least of either
CUT_EVERY_S = 0.5

Change = tuple[Run, int]


def looked_again(reference: Reference, rows: Rows, seen: Observation, laid: Laid) -> Observation:
    """What was observed, with the labels that the pictures mend."""
    for look in (_doubtful, _fragments, _two_in_one, _more_than_the_step):
        if changes := look(reference, rows, seen, laid):
            seen = relabelled(seen, rows, reference.golds, changes)
    return seen


def _unlike(laid: Laid, runs: Sequence[Run]) -> Floats:
    return laid.unlike([np.arange(run.first, run.last + 1) for run in runs])


def _seconds(rows: Rows, run: Run) -> float:
    return float(rows.edges[run.last + 1] - rows.edges[run.first])


def _doubtful(reference: Reference, rows: Rows, seen: Observation, laid: Laid) -> list[Change]:
    """Stretches in no step, steps done twice, and every stretch while a step is missing.

    What looks like another step is that step, unless that one is there and this is all there is of its own; what looks like none
    is extra, under the same condition.
    """
    done = performances(rows, seen, reference.golds)
    often = Counter(p.step for p in done)
    whole = len(often) == len(reference.step_ids)
    runs = [Run(p.step, p.first, p.last) for p in done if not whole or often[p.step] > 1]
    runs += [run for run in runs_of(seen.labels) if run.label == EXTRA]
    runs = [run for run in runs if _seconds(rows, run) >= LEAST_S]
    table, changes = _unlike(laid, runs), list[Change]()
    nearest = {
        run.label: min(table[n, run.label] for n in range(len(runs)) if runs[n].label == run.label)
        for run in runs
        if run.label >= 0
    }
    for run, off in zip(runs, table, strict=True):
        alike = laid.scene.alike
        best = _likeliest(off, alike, often, done, run)
        loses = often[run.label] == 1 and often[best] > 0  # a step, to show another one twice: no simpler story
        if off[best] <= alike and not loses and (run.label < 0 or _clearly(off[best], off[run.label], alike)):
            changes.append((run, best))
            often.subtract([run.label])
            often.update([best])
        elif run.label >= 0 and often[run.label] > 1 and max(STRANGE * alike, nearest[run.label]) < off[best] < np.inf:
            changes.append((run, EXTRA))
            often[run.label] -= 1
    return changes


def _clearly(best: float, other: float, alike: float) -> bool:
    """Whether one step is clearly nearer than another; between two that are both very near there is nothing to choose."""
    return other + alike / 4 >= CLEARLY * (best + alike / 4)


def _likeliest(off: Floats, alike: float, often: Counter[int], done: Sequence[Performance], run: Run) -> int:
    """The step that a stretch is nearest to; of those that are about as near one that is missing, else the one done last before."""
    best = int(off.argmin())
    near = [step for step in range(len(off)) if not _clearly(off[best], off[step], alike)]
    if len(near) < 2 or run.label in near:
        return best if run.label not in near else run.label
    ended = {p.step: p.last for p in done if p.last < run.first}
    return max(near, key=lambda step: (often[step] == 0, ended.get(step, -1), -off[step]))


def _fragments(reference: Reference, rows: Rows, seen: Observation, laid: Laid) -> list[Change]:
    """Stretches of a step of which too little shows to count, where the step beside it looks more complete with them."""
    del reference
    skipped = np.nansum(seen.votes[:, None] * seen.skipped, axis=0)
    runs = runs_of(seen.labels)
    found: list[Change] = []
    for at, run in enumerate(runs):
        if run.label < 0 or skipped[run.label] < SKIPPED_SHARE or _seconds(rows, run) < LEAST_S:
            continue
        beside = [
            runs[n] for n in (at - 1, at + 1) if 0 <= n < len(runs) and runs[n].label not in {run.label, -1, EXTRA}
        ]
        for other in beside:
            union = Run(other.label, min(run.first, other.first), max(run.last, other.last))
            alone, both, own = _unlike(laid, [other, union, run])
            step = other.label
            if both[step] < alone[step] and both[step] <= laid.scene.alike and own[step] < own[run.label]:
                found.append((union, step))  # matched as one, from beginning to end
                break
    return found


def _two_in_one(reference: Reference, rows: Rows, seen: Observation, laid: Laid) -> list[Change]:
    """Runs that last long while a step is missing, and look like both, one after the other."""
    missing = sorted(set(range(len(reference.step_ids))) - set(seen.labels.tolist()))
    usual_s = reference.expected_s
    changes: list[Change] = []
    for step in missing:
        taken = {run.first for run, _ in changes}
        long = [
            run
            for run in runs_of(seen.labels)
            if run.label >= 0 and run.first not in taken and _seconds(rows, run) >= LONG * usual_s[run.label]
        ]
        best = min(
            (cut for run in long for cut in _cuts(rows, seen, run, step, laid)), key=lambda cut: cut[0], default=None
        )
        if best is not None and best[0] <= laid.scene.alike:
            changes += [(best[1], step), (best[2], best[2].label)]
    return changes


def _more_than_the_step(reference: Reference, rows: Rows, seen: Observation, laid: Laid) -> list[Change]:
    """Parts of runs that last too long for the run's tempo and begin or end with what looks like no step: that is extra."""
    usual_s = reference.expected_s
    runs = [run for run in runs_of(seen.labels) if run.label >= 0]
    ratio = {run.first: _seconds(rows, run) / usual_s[run.label] for run in runs}
    tempo = float(np.median(list(ratio.values()))) if ratio else 1.0
    changes: list[Change] = []
    for run in runs:
        if ratio[run.first] >= LONG * tempo:
            best = max(
                _odd_ends(rows, seen, run, usual_s[run.label] * tempo, laid), key=lambda cut: cut[0], default=None
            )
            if best is not None:
                changes += [(best[1], EXTRA), (best[2], run.label)]
    return changes


def _odd_ends(rows: Rows, seen: Observation, run: Run, usual_s: float, laid: Laid) -> Iterator[tuple[float, Run, Run]]:
    """(by how much the one part is stranger than the other, the part in no step, the step) of every cut that leaves a step of about
    the usual length. What a step shows for a while need not look like all of it, so the part in no step is to match badly as well.
    """
    part, every = (max(1, round(s / rows.frame_s)) for s in (PART_S, CUT_EVERY_S))
    cuts = range(run.first + part, run.last + 2 - part, every)
    parts = [Run(run.label, a, b - 1) for cut in cuts for a, b in pairwise((run.first, cut, run.last + 1))]
    cost = _mean_costs(seen, parts)
    pairs = [pair for n in range(0, len(parts), 2) for pair in ((n, n + 1), (n + 1, n))]
    pairs = [(odd, own) for odd, own in pairs if cost[odd] - cost[own] >= BADLY]
    pairs = [pair for pair in pairs if SHORTEST_REST <= _seconds(rows, parts[pair[1]]) / usual_s <= LONG]
    table, alike = _unlike(laid, [parts[n] for pair in pairs for n in pair]), laid.scene.alike
    for (odd, own), strange, mine in zip(pairs, table[::2], table[1::2], strict=True):
        if np.isfinite(strange).all() and strange.min() > STRANGE * alike and mine[run.label] <= alike:
            yield float(strange[run.label] - mine[run.label]), parts[odd], parts[own]


def _cuts(rows: Rows, seen: Observation, run: Run, step: int, laid: Laid) -> Iterator[tuple[float, Run, Run]]:
    """(how far the one part is from ``step``, that part, the other) of every cut in two that looks like both, or like ``step`` where
    it matches badly and the other part well.
    """
    part, every = (max(1, round(s / rows.frame_s)) for s in (PART_S, CUT_EVERY_S))
    cuts = range(run.first + part, run.last + 2 - part, every)
    parts = [Run(run.label, a, b - 1) for cut in cuts for a, b in pairwise((run.first, cut, run.last + 1))]
    table, cost = _unlike(laid, parts), _mean_costs(seen, parts)
    for n in range(0, len(parts), 2):
        for new, old in ((n, n + 1), (n + 1, n)):
            kept = table[old].argmin() == run.label or cost[new] - cost[old] >= BADLY
            if table[new].argmin() == step and kept:
                yield float(table[new, step]), parts[new], parts[old]


def _mean_costs(seen: Observation, parts: Sequence[Run]) -> list[float]:
    """What each part costs in its step, by row."""
    cost = seen.votes @ seen.costs  # (M,)
    return [float(cost[part.first : part.last + 1].mean()) for part in parts]
