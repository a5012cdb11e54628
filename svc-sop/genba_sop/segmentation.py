"""Steps as labels and as spans, and the first cut of a gold that nobody has annotated.

Knows nothing of costs, votes or deviations: times and labels in, spans out, and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from genba_sop.features import Features
from genba_sop.procedure import Span

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BETWEEN = -1  # in no step: before, between or after them
EXTRA = -2  # something that no gold shows

_MAX_CUT_FRAMES = 1200  # change points look at every pair of frames


class Run(NamedTuple):
    """Frames ``first`` to ``last`` (both included) that carry one label."""

    label: int
    first: int
    last: int


def runs_of(labels: npt.ArrayLike) -> tuple[Run, ...]:
    """Cut a sequence of labels into its runs of equal ones."""
    row = np.asarray(labels)
    if not row.size:
        return ()
    lasts = [*np.flatnonzero(row[1:] != row[:-1]).tolist(), len(row) - 1]
    firsts = [0, *(last + 1 for last in lasts[:-1])]
    return tuple(map(Run, map(int, row[lasts].tolist()), firsts, lasts))


def edges_s(times_s: Floats, duration_s: float) -> Floats:
    """(T + 1,) borders of the sampled frames: half way between neighbours, 0 and the end outside."""
    if not times_s.size:
        return np.array([0.0, duration_s])
    return np.asarray(np.r_[0.0, (times_s[1:] + times_s[:-1]) / 2, max(duration_s, float(times_s[-1]))])


def labels_of(spans: Sequence[Span], step_ids: Sequence[str], times_s: Floats) -> Ints:
    """(T,) index of the step at each time, ``BETWEEN`` outside all spans; of overlapping spans the later one wins.

    Raises: ValueError for a span of an unknown step.
    """
    index = {step_id: at for at, step_id in enumerate(step_ids)}
    labels = np.full(len(times_s), BETWEEN, np.int64)
    for span in sorted(spans, key=lambda span: span.start_s):
        if span.step_id not in index:
            raise ValueError(f"A gold shows step {span.step_id!r}, which the procedure does not have.")
        labels[(times_s >= span.start_s) & (times_s < span.end_s)] = index[span.step_id]
    return labels


def spans_of(labels: npt.ArrayLike, step_ids: Sequence[str], edges: Floats) -> tuple[Span, ...]:
    """One span for each run of a step, in order."""
    return tuple(
        Span(step_ids[run.label], float(edges[run.first]), float(edges[run.last + 1]))
        for run in runs_of(labels)
        if run.label >= 0
    )


def absorb_short(labels: Ints, *, shortest: int) -> Ints:
    """Give every run of fewer than ``shortest`` frames to its longer neighbour, shortest first."""
    row = labels.copy()
    while True:
        runs = runs_of(row)
        short = [(run.last - run.first, at) for at, run in enumerate(runs) if run.last - run.first + 1 < shortest]
        if not short or len(runs) == 1:
            return row
        at = min(short)[1]
        neighbours = [runs[k] for k in (at - 1, at + 1) if 0 <= k < len(runs)]
        longer = max(neighbours, key=lambda run: run.last - run.first)
        row[runs[at].first : runs[at].last + 1] = longer.label


def propose(features: Features, step_ids: Sequence[str]) -> tuple[Span, ...]:
    """Cut a gold into as many stretches as the procedure has steps, named in the procedure's order.

    Kernel change points (Arlot, Celisse & Harchaoui 2019) under the cosine kernel, through ``ruptures``. Long videos are
    averaged down to at most 1200 rows first.

    Raises: ValueError when the video has fewer frames than two a step.
    """
    import ruptures  # brings scipy.stats along: a second that scoring does not need

    wanted = len(step_ids)
    if len(features.times_s) < 2 * wanted:
        raise ValueError(f"The gold has {len(features.times_s)} frames, too few to find {wanted} steps in it.")
    edges = edges_s(features.times_s, features.duration_s)
    pool = max(1, -(-len(features.times_s) // max(_MAX_CUT_FRAMES, 4 * wanted)))
    starts = np.arange(0, len(features.times_s), pool)
    rows = np.add.reduceat(features.values.astype(np.float64), starts, axis=0)
    smallest = max(2, len(rows) // (8 * wanted))
    if wanted == 1:
        cuts = [len(rows)]
    else:
        search = ruptures.KernelCPD(kernel="cosine", min_size=smallest).fit(rows)
        cuts = search.predict(n_bkps=wanted - 1)
    borders = [0.0, *(float(edges[starts[cut]]) for cut in cuts[:-1]), float(edges[-1])]
    return tuple(
        Span(step_id, start_s, end_s) for step_id, start_s, end_s in zip(step_ids, borders, borders[1:], strict=False)
    )
