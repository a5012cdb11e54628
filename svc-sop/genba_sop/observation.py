"""What can be measured of one run against gold runs, before anything is judged.

The golds vote on what the trainee does at each moment; per step it is measured how much of it was skipped, how far the
matched frames are from the golds', and where in the picture. Costs are normalised within each pair of videos (0 is that
pair's typical match, 1 a random pair of its frames), so another camera, operator or light moves the scale and not the answer.
Knows nothing of thresholds for deviations, of p-values or of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from genba_sop.alignment import dtw
from genba_sop.decoding import ELSEWHERE, Chart, Penalties, follow
from genba_sop.doubled import doubled
from genba_sop.explaining import NO_STEP, Known, Told, simplest
from genba_sop.free_order import standing_in
from genba_sop.hurried import FASTEST, evenly, hurried
from genba_sop.kernels import kernels_of
from genba_sop.medians import median, quantiles
from genba_sop.procedure import Procedure
from genba_sop.rows import Rows
from genba_sop.segmentation import BETWEEN, EXTRA, Run, absorb_short, runs_of

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SHORTEST_RUN_S = 0.75  # a shorter stretch of one label is a slip of the vote
SHORTEST_EXTRA_S = 1.0
SPREADS = 6.0  # between quartiles of the path's cost, above its median: where "elsewhere" begins
ELSEWHERE_LIMITS = (0.2, 0.6)
BORDER_S = 0.5  # near its borders a step's rows are mixed with its neighbours'
SAME_ACTION = 0.48  # normalised cost under which an extra run may be a step's action
ONCE_MORE = 0.22  # dearer than a step's first performance may a second one be
DISTINCT, LIKELIER_MISSING = 1.1, 1.4  # by so much cheaper than any other step's; in favour of a step not done yet
REPLACED = (0.4, 2.5)  # an extra run this many times as long as what is left out in its very place stands for that
MOST_STORIES = 6  # of doubtful stretches, one after the other
HELD = 0.9  # of the price of matching nothing: what a row of a pause costs in a step
DOMINANT = 0.6  # share of one step in what is left out


@dataclass(frozen=True)
class GoldRun:
    """A gold with the step (or ``BETWEEN``) of each row."""

    rows: Rows
    labels: Ints

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Its stretches of one label."""
        return runs_of(self.labels)

    @cached_property
    def motion(self) -> Floats:
        """(N,) motion as a share of its busy level."""
        return motion_of(self.rows)

    @cached_property
    def progress(self) -> Floats:
        """(N,) how far into its stretch each row is, in [0, 1]."""
        return np.concatenate([np.linspace(0, 1, run.last - run.first + 1) for run in self.runs])


@dataclass(frozen=True)
class Pauses:
    """Where a trainee stands still for long, and how long may be stood still at each gold row.

    length_s: (M,) of the pause that a trainee row is in, else 0.   allowed_s: for each gold (N,).
    """

    length_s: Floats
    allowed_s: tuple[Floats, ...]

    def beyond(self, gold: int) -> Mask:
        """(N, M) where the trainee pauses for longer than may be."""
        return np.asarray(self.length_s[None, :] > self.allowed_s[gold][:, None])


@dataclass(frozen=True)
class Observation:
    """One video against G golds and S steps.

    votes: (G,) sum 1.   frames: (G, M) gold row at each trainee row, or ``ELSEWHERE``.
    costs: (G, M) its normalised cost, or that of matching nothing.
    labels: (M,) voted step, ``BETWEEN`` or ``EXTRA``.   skipped: (G, S) share of the gold's rows of the step not passed.
    residual: (G, S) mean normalised cost of the step's rows, nan without any matched one.
    local: (G, S, 48) mean distance of the local grids of the matched rows, nan without any.
    distance: (G,) cost of the whole path by row, not normalised; the votes come from it.
    contrast: (G,) typical best match divided by typical pair: 1 when nothing in the video resembles the gold.
    between: for each gold the costs that the path goes through.
    """

    votes: Floats
    frames: Ints
    costs: Floats
    labels: Ints
    skipped: Floats
    residual: Floats
    local: Floats
    distance: Floats
    contrast: Floats
    between: tuple[PairCost, ...]


def before(procedure: Procedure) -> Mask:
    """(S, S) whether the row's step must be done before the column's, through any chain of ``after``."""
    index = {step.id: at for at, step in enumerate(procedure.steps)}
    closed = np.eye(len(index), dtype=np.bool_)
    for step in procedure.steps:
        for name in step.after:
            closed[index[name], index[step.id]] = True
    for k in range(len(index)):
        closed |= closed[:, k : k + 1] & closed[k : k + 1, :]
    np.fill_diagonal(closed, val=False)
    return closed


def penalties_at(frame_s: float) -> Penalties:
    """The decoder's prices at a frame rate: those of a jump, a cut and a leave are worth a time, not a number of frames."""
    rate = 0.25 / frame_s
    base = Penalties()
    return Penalties(
        leave=base.leave * rate, jump=base.jump * rate, jump_free=base.jump_free * rate, cut=base.cut * rate
    )


def chart_of(golds: Sequence[GoldRun], order: Mask, penalties: Penalties) -> Chart:
    """Lay the golds end to end for the decoder. Stretches between steps may be left out freely."""
    owner: list[int] = []
    label: list[int] = []
    segment: list[int] = []
    for g, gold in enumerate(golds):
        for run in runs_of(gold.labels):
            segment += [len(owner)] * (run.last - run.first + 1)
            owner.append(g)
            label.append(run.label)
    jump, steps, held = np.full((len(owner),) * 2, np.inf), np.array(label), np.array(owner)
    bound = (order | order.T)[steps[:, None], steps[None, :]] | (steps[:, None] == steps[None, :])
    bound |= (steps[:, None] < 0) | (steps[None, :] < 0)
    same = held[:, None] == held[None, :]
    jump[same] = np.where(bound, penalties.jump, penalties.jump_free)[same]
    anywhere = steps >= 0
    first, last_of_all = anywhere & ~order[:, steps].any(axis=0), anywhere & ~order[steps].any(axis=1)
    enter = np.where(first, penalties.jump_free, penalties.jump)
    finish = np.where(last_of_all, penalties.jump_free, penalties.jump)
    for k in range(len(owner)):
        for onwards in _past_what_may_wait(k, steps, held, order):
            jump[k, onwards] = penalties.jump_free
        for onwards in (k + 1, k + 2):  # the next step, also across a stretch between steps
            if onwards < len(owner) and held[onwards] == held[k] and (onwards == k + 1 or steps[k + 1] < 0):
                jump[k, onwards] = 0.0
        if k == 0 or held[k - 1] != held[k] or (steps[k - 1] < 0 and (k == 1 or held[k - 2] != held[k])):
            enter[k] = 0.0
        last = k + 1 == len(owner) or held[k + 1] != held[k]
        if last or (steps[k + 1] < 0 and (k + 2 == len(owner) or held[k + 2] != held[k])):
            finish[k] = 0.0
    frames = np.repeat(np.arange(len(golds)), [len(gold.labels) for gold in golds])
    return Chart(frames, np.array(segment), jump, enter, finish)


def _past_what_may_wait(k: int, steps: Ints, held: Ints, order: Mask) -> Iterator[int]:
    """Segments that may follow ``k`` because what the gold shows between them need not come after it: perhaps it came before."""
    if steps[k] < 0:
        return
    for onwards in range(k + 1, len(steps)):
        if held[onwards] != held[k]:
            return
        if steps[onwards] >= 0:
            yield onwards
            if order[steps[k], steps[onwards]]:
                return


@dataclass(frozen=True)
class PairCost:
    """Costs between a gold's rows and a trainee's, normalised within the pair.

    cost: (N, M), 0 = typical best match, 1 = typical pair.   match, pair: the raw cosine costs behind 0 and 1.
    elsewhere: the normalised cost from which on a row rather matches nothing.
    """

    cost: Floats
    match: float
    pair: float
    elsewhere: float


def warm_up() -> None:
    """Load or compile the inner loops now rather than in the first request."""
    loops, one, at = kernels_of("observation"), np.zeros((1, 1, 1), np.float32), np.zeros(1, np.int64)
    loops.normalised(loops.smoothed(one[0])[0], 0.0, 1.0)
    loops.cells(one, one, one, one, at, at, at, 1)


def pair_cost(gold: Rows, trainee: Rows) -> PairCost:
    """Cosine costs, averaged over three along the diagonal.

    What counts as no match follows from how much the cost varies along the warping path of this very pair: little where
    features are clear, up to six tenths of the way to a typical pair where they are not.
    """
    loops = kernels_of("observation")
    smooth, least = loops.smoothed(gold.values @ trainee.values.T)
    match, pair = median(least), median(smooth[::2, ::2])
    cost = loops.normalised(smooth, match, max(pair - match, 1e-3))
    path = dtw(cost).path
    low, middle = quantiles(cost[path[:, 0], path[:, 1]], 0.25, 0.5)
    return PairCost(cost, match, pair, float(np.clip(middle + SPREADS * (middle - low), *ELSEWHERE_LIMITS)))


def _paused(pair: PairCost, beyond: Mask, least: float) -> PairCost:
    """The same costs, at least so much where the trainee pauses: a little less than matching nothing, and a step may be held there;
    as much, and none is begun.
    """
    return replace(pair, cost=np.where(beyond, np.maximum(pair.cost, least), pair.cost)) if beyond.any() else pair


def observe(
    trainee: Rows,
    golds: Sequence[GoldRun],
    *,
    order: Mask,
    chart: Chart | None = None,
    pauses: Pauses | None = None,
) -> Observation:
    """Follow the trainee through every gold, let them vote, and measure each step. Who pauses does nothing, whatever it resembles."""
    penalties = penalties_at(trainee.frame_s)
    between = [pair_cost(gold.rows, trainee) for gold in golds]
    whole = [each.cost for each in between]  # of steps from beginning to end
    if pauses is not None:
        between = [_paused(each, pauses.beyond(g), HELD * each.elsewhere) for g, each in enumerate(between)]
        whole = [_paused(each, pauses.beyond(g), NO_STEP).cost for g, each in enumerate(between)]
    costs = [each.cost for each in between]
    scale = np.array([each.elsewhere for each in between]) / penalties.elsewhere
    scaled = np.concatenate([cost / s for cost, s in zip(costs, scale, strict=True)])
    paths = follow(scaled, chart or chart_of(golds, order, penalties), penalties)
    match, pair = np.array([each.match for each in between]), np.array([each.pair for each in between])
    distance = match + np.array([path.total for path in paths]) * scale / len(trainee.values) * (pair - match)
    votes = np.exp(-(distance - distance.min()) / max(0.1 * float(np.median(pair - match)), 1e-6))
    votes /= votes.sum()
    frames = np.stack([path.frame for path in paths])
    at = np.arange(len(trainee.values))
    path_costs = np.stack([cost[np.maximum(frame, 0), at] for cost, frame in zip(costs, frames, strict=True)])
    path_costs = np.where(frames == ELSEWHERE, np.array([[each.elsewhere] for each in between]), path_costs)
    labels = _vote(frames, golds, votes, steps=len(order))
    labels = absorb_short(labels, shortest=max(1, round(SHORTEST_RUN_S / trainee.frame_s)))
    resting = np.zeros(len(labels), np.bool_) if pauses is None else pauses.length_s > 0
    for run, step, rows in replacing(labels, frames, golds, votes, resting=resting):
        labels[run.first : run.last + 1] = step
        for cost, frame, path_cost, inside in zip(costs, frames, path_costs, rows, strict=True):
            _place(run, inside, cost, frame, path_cost)
    for run, step in completing(labels, golds):
        labels[run.first : run.last + 1] = step
    for run, step in recognised(labels, whole, golds, votes, frame_s=trainee.frame_s):
        labels[run.first : run.last + 1] = step
        for cost, gold, frame, path_cost in zip(costs, golds, frames, path_costs, strict=True):
            _place(run, gold.labels == step, cost, frame, path_cost)
    told = Told(
        whole, [gold.labels for gold in golds], votes, np.array([each.elsewhere for each in between]), path_costs, frames,
        labels, motion_of(trainee), [gold.motion for gold in golds], order, trainee.frame_s,
    )  # fmt: skip
    _simplify(told, between, golds)
    _look_elsewhere(told, between, golds)
    _tell_two(told, between, golds)
    tables = measured(trainee, golds, frames, path_costs, labels, steps=len(order))
    if _tell_hurried(told, between, golds, np.nansum(votes[:, None] * tables[0], axis=0)):
        tables = measured(trainee, golds, frames, path_costs, labels, steps=len(order))
    contrast = match / pair
    return Observation(votes, frames, path_costs, labels, *tables, distance, contrast, tuple(between))


def _simplify(told: Told, between: Sequence[PairCost], golds: Sequence[GoldRun]) -> None:
    """Tell doubtful stretches more simply, one after the other, in the labels and paths of ``told``."""
    known: Known = {}
    for _ in range(MOST_STORIES):
        for piece in (pieces := simplest(told, known)):
            run = piece.run
            told.labels[run.first : run.last + 1] = run.label
            for each, gold, frame, path_cost in zip(between, golds, told.frames, told.path_costs, strict=True):
                if not piece.kept:
                    _match_anew(run, run.label, each, gold, frame, path_cost)
        if not pieces:
            return


def _look_elsewhere(told: Told, between: Sequence[PairCost], golds: Sequence[GoldRun]) -> None:
    """Find steps that seem to be missing where another permitted order puts them, in the labels and paths of ``told``."""
    usual = _usual_rows(golds)
    for _ in range(MOST_STORIES):
        found = standing_in(told.labels, usual, told.order, _pricing(told, golds), frame_s=told.frame_s)
        if found is None:
            return
        _believe((found.run._replace(label=found.step), *found.left), told, between, golds)


def _tell_two(told: Told, between: Sequence[PairCost], golds: Sequence[GoldRun]) -> None:
    """Tell two performances where one that takes as long hides them, in the labels and paths of ``told``."""
    for two in doubled(
        told.labels, _usual_rows(golds), _pricing(told, golds), motion=told.motion, frame_s=told.frame_s
    ):
        _believe(two, told, between, golds)


def _tell_hurried(told: Told, between: Sequence[PairCost], golds: Sequence[GoldRun], skipped: Floats) -> bool:
    """Match steps done in a hurry from beginning to end, in the paths of ``told``; whether there are any."""
    runs = hurried(told, _pricing(told, golds), skipped)
    for run in runs:
        for each, gold, frame, path_cost in zip(between, golds, told.frames, told.path_costs, strict=True):
            rows, columns = evenly(run, gold.labels == run.label)
            frame[columns], path_cost[columns] = rows, each.cost[rows, columns]
    return bool(runs)


def _believe(runs: Sequence[Run], told: Told, between: Sequence[PairCost], golds: Sequence[GoldRun]) -> None:
    """Give runs their labels, each matched to the golds' whole step."""
    for run in runs:
        told.labels[run.first : run.last + 1] = run.label
        for each, gold, frame, path_cost in zip(between, golds, told.frames, told.path_costs, strict=True):
            _match_anew(run, run.label, each, gold, frame, path_cost)


def motion_of(rows: Rows) -> Floats:
    """(T,) motion as a share of the run's busy level."""
    return np.asarray(rows.motion / max(quantiles(rows.motion, 0.75)[0], 1e-9), np.float64)


def relabelled(
    seen: Observation, trainee: Rows, golds: Sequence[GoldRun], changes: Sequence[tuple[Run, int]]
) -> Observation:
    """The same observation with other labels in these runs, matched to the golds anew there."""
    labels, frames, path_costs = seen.labels.copy(), seen.frames.copy(), seen.costs.copy()
    for run, step in changes:
        inside = slice(run.first, run.last + 1)
        labels[inside] = step
        for pair, gold, frame, path_cost in zip(seen.between, golds, frames, path_costs, strict=True):
            _match_anew(run, step, pair, gold, frame, path_cost)
    skipped, residual, local = measured(trainee, golds, frames, path_costs, labels, steps=seen.skipped.shape[1])
    return replace(
        seen, frames=frames, costs=path_costs, labels=labels, skipped=skipped, residual=residual, local=local
    )


def measured(
    trainee: Rows, golds: Sequence[GoldRun], frames: Ints, costs: Floats, labels: Ints, *, steps: int
) -> tuple[Floats, Floats, Floats]:
    """``Observation.skipped``, ``residual`` and ``local`` for these labels."""
    tables = [
        _measure(trainee, gold, frame, cost, labels, steps=steps)
        for gold, frame, cost in zip(golds, frames, costs, strict=True)
    ]
    skipped, residual, local = zip(*tables, strict=True)
    return np.stack(skipped), np.stack(residual), np.stack(local)


def without(seen: Observation, trainee: Rows, golds: Sequence[GoldRun], idle: Mask) -> Observation:
    """The same observation with idling taken out of the steps that it was counted to."""
    if not (idle & (seen.labels >= 0)).any():
        return seen
    labels = np.where(idle, EXTRA, seen.labels)
    _, residual, local = measured(trainee, golds, seen.frames, seen.costs, labels, steps=seen.skipped.shape[1])
    return replace(seen, labels=labels, residual=residual, local=local)


def mean_over_golds(table: Floats, votes: Floats) -> Floats:
    """(S, …) weighted mean over the golds of (G, S, …), leaving out those that are nan; nan where all are."""
    known = np.isfinite(table)
    weight = (votes.reshape(-1, *[1] * (table.ndim - 1)) * known).sum(axis=0)
    total = (votes.reshape(-1, *[1] * (table.ndim - 1)) * np.where(known, table, 0.0)).sum(axis=0)
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)


def _vote(frames: Ints, golds: Sequence[GoldRun], votes: Floats, *, steps: int) -> Ints:
    """(M,) the label with the most weight at each trainee row."""
    ballots = np.zeros((steps + 2, frames.shape[1]))
    at = np.arange(frames.shape[1])
    for gold, frame, vote in zip(golds, frames, votes, strict=True):
        label = np.where(frame == ELSEWHERE, EXTRA, gold.labels[np.maximum(frame, 0)])
        ballots[label + 2, at] += vote
    return np.asarray(ballots.argmax(axis=0) - 2)


def replacing(
    labels: Ints, frames: Ints, golds: Sequence[GoldRun], votes: Floats, *, resting: Mask
) -> tuple[tuple[Run, int, tuple[Mask, ...]], ...]:
    """The extra runs that stand in the place of a part of a step and take about its time: that step, done unlike any gold.

    Who rests, (M,), before or after it is not still doing it.

    Returns: each run with its step and, for every gold, the rows of it that were left out there.
    """
    found = []
    for run in runs_of(np.where(resting & (labels == EXTRA), BETWEEN, labels)):
        if run.label != EXTRA:
            continue
        gaps = [_left_out(run, frame, gold) for frame, gold in zip(frames, golds, strict=True)]
        seconds: dict[int, float] = {}
        for gap, gold, vote in zip(gaps, golds, votes, strict=True):
            for step in np.unique(gold.labels[gap]):
                share = vote * float(np.diff(gold.rows.edges)[gap & (gold.labels == step)].sum())
                seconds[int(step)] = seconds.get(int(step), 0.0) + share
        total = sum(seconds.values())
        best = max(seconds, key=lambda step: seconds[step], default=-1)
        length = run.last - run.first + 1
        usual = total / golds[0].rows.frame_s
        if best >= 0 and seconds[best] >= DOMINANT * total and REPLACED[0] * usual <= length <= REPLACED[1] * usual:
            rows = tuple(gap & (gold.labels == best) for gap, gold in zip(gaps, golds, strict=True))
            found.append((run, best, rows))
    return tuple(found)


def completing(labels: Ints, golds: Sequence[GoldRun]) -> tuple[tuple[Run, int], ...]:
    """The extra runs that touch a step which is too short without them and of the usual length with them.

    The length is measured in the run's own tempo. An extra run longer than what there is of the step stays extra.
    """
    usual = _usual_rows(golds)
    runs = runs_of(labels)
    lengths = np.array([run.last - run.first + 1 for run in runs], np.float64)
    known = [lengths[k] / usual[run.label] for k, run in enumerate(runs) if run.label in usual]
    if not known:
        return ()
    tempo = float(np.median(known))
    found: dict[Run, int] = {}
    for k, run in enumerate(runs):
        if run.label not in usual:
            continue
        resumed = k + 2 < len(runs) and runs[k + 1].label == EXTRA and runs[k + 2].label == run.label
        touching = [
            n for n in (k - 1, k + 1, *([k + 3] if resumed else [])) if 0 <= n < len(runs) and runs[n].label == EXTRA
        ]
        alone = lengths[k] + (lengths[k + 2] if resumed else 0.0)
        extra = float(sum(lengths[n] for n in touching))
        off = [abs(float(np.log(rows / (usual[run.label] * tempo)))) for rows in (alone, alone + extra)]
        if touching and extra <= alone and off[1] < off[0] - 0.05:
            found |= {runs[n]: run.label for n in touching if runs[n] not in found}
    return tuple(found.items())


def _usual_rows(golds: Sequence[GoldRun]) -> dict[int, float]:
    """Mean length in rows of a run of each step."""
    lengths: dict[int, list[int]] = {}
    for gold in golds:
        for run in gold.runs:
            if run.label >= 0:
                lengths.setdefault(run.label, []).append(run.last - run.first + 1)
    return {step: float(np.mean(rows)) for step, rows in lengths.items()}


def _left_out(run: Run, frame: Ints, gold: GoldRun) -> Mask:
    """(N,) the gold's rows between where the path leaves it before the run and where it comes back after."""
    gap = np.zeros(len(gold.labels), np.bool_)
    earlier = np.flatnonzero(frame[: run.first] != ELSEWHERE)
    later = np.flatnonzero(frame[run.last + 1 :] != ELSEWHERE)
    first = frame[earlier[-1]] + 1 if earlier.size else 0
    last = frame[run.last + 1 + later[0]] if later.size else len(gap)
    gap[first:last] = True
    return gap


def recognised(
    labels: Ints, costs: Sequence[Floats], golds: Sequence[GoldRun], votes: Floats, *, frame_s: float
) -> tuple[tuple[Run, int], ...]:
    """The extra runs of a second or more that are a step's whole action, each with that step.

    A person who does a step once more does it about as like the golds as the first time; what is less like it is something else.
    """
    steps = sorted({int(step) for gold in golds for step in gold.labels if step >= 0})
    found = []
    runs = runs_of(labels)
    done = {run.label: max((r for r in runs if r.label == run.label), key=_length) for run in runs}
    for run in runs:
        length = run.last - run.first + 1
        if run.label != EXTRA or length * frame_s < SHORTEST_EXTRA_S:
            continue
        price = np.array([_price(run, step, costs, golds, votes) for step in steps])
        ease = np.array([1.0 if step in done else LIKELIER_MISSING for step in steps])
        best = int((price / ease).argmin())
        others = float(np.delete(price / ease, best).min(initial=np.inf))
        again = done.get(steps[best])
        if again is not None and price[best] > _price(again, again.label, costs, golds, votes) + ONCE_MORE:
            continue
        if price[best] < SAME_ACTION * ease[best] and others >= DISTINCT * price[best] / ease[best]:
            found.append((run, steps[best]))
    return tuple(found)


def _length(run: Run) -> int:
    return run.last - run.first + 1


def _pricing(told: Told, golds: Sequence[GoldRun]) -> Callable[[Run, int], float]:
    return lambda run, step: _price(run, step, told.costs, golds, told.votes)


def _price(run: Run, step: int, costs: Sequence[Floats], golds: Sequence[GoldRun], votes: Floats) -> float:
    """Mean cost on the warping path of the run through the whole step, averaged over the golds that show the step."""
    columns = slice(run.first, run.last + 1)
    shown = [
        (cost, gold, vote) for cost, gold, vote in zip(costs, golds, votes, strict=True) if (gold.labels == step).any()
    ]
    total = 0.0
    for cost, gold, vote in shown:
        path = dtw(cost[gold.labels == step][:, columns])
        total += float(vote) * path.total / len(path.path)
    return total / float(sum(vote for _, _, vote in shown))


def _place(run: Run, rows: Mask, cost: Floats, frame: Ints, path_cost: Floats) -> None:
    """Match the run to the step's rows of one gold, in ``frame`` and ``path_cost``."""
    if not rows.any():
        return
    at = np.flatnonzero(rows)
    block = cost[at, run.first : run.last + 1]
    for i, j in dtw(block).path:
        frame[run.first + j] = at[i]
        path_cost[run.first + j] = block[i, j]


def _match_anew(run: Run, step: int, pair: PairCost, gold: GoldRun, frame: Ints, path_cost: Floats) -> None:
    """Match the run to one gold's whole step, or to nothing."""
    inside = slice(run.first, run.last + 1)
    frame[inside], path_cost[inside] = ELSEWHERE, pair.elsewhere
    if step >= 0:
        _place(run, gold.labels == step, pair.cost, frame, path_cost)


def _measure(
    trainee: Rows, gold: GoldRun, frame: Ints, cost: Floats, labels: Ints, *, steps: int
) -> tuple[Floats, Floats, Floats]:
    """(S,) skipped share, (S,) residual and (S, 48) local residual of one gold."""
    matched = np.flatnonzero((frame != ELSEWHERE) & (labels >= 0))
    matched = matched[gold.labels[frame[matched]] == labels[matched]]
    passed = _passed(gold, frame, matched)
    size = np.bincount(gold.labels[gold.labels >= 0], minlength=steps).astype(np.float64)
    seen = np.bincount(gold.labels[passed & (gold.labels >= 0)], minlength=steps)
    skipped = np.where(size > 0, 1.0 - seen / np.maximum(size, 1), np.nan)
    counted = _inner(labels, round(BORDER_S / trainee.frame_s)) & first_time(labels)
    inner = matched[counted[matched]]
    mine, theirs, step = (np.ascontiguousarray(each, np.int64) for each in (inner, frame[inner], labels[inner]))
    rows = trainee.local, trainee.recent, gold.rows.local, gold.rows.recent
    total = kernels_of("observation").cells(*rows, mine, theirs, step, steps)
    local = _mean(total, np.bincount(step, minlength=steps)[:, None])
    near = np.concatenate([inner, np.flatnonzero(counted & (labels >= 0) & (frame == ELSEWHERE))])
    sums = np.asarray(np.bincount(labels[near], cost[near], minlength=steps), np.float64)
    residual = _mean(sums, np.bincount(labels[near], minlength=steps))
    return skipped, np.where(np.isfinite(local[:, 0]), residual, np.nan), local


def _mean(total: Floats, count: Ints) -> Floats:
    """What sums of so many numbers are on average; nan of none."""
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def first_time(labels: Ints) -> Mask:
    """(M,) rows of the first run of each label that is at least 0.4 times as long as its longest."""
    first = np.zeros(len(labels), np.bool_)
    runs = runs_of(labels)
    for label in {run.label for run in runs}:
        own = [run for run in runs if run.label == label]
        longest = max(run.last - run.first + 1 for run in own)
        run = next(run for run in own if run.last - run.first + 1 >= 0.4 * longest)
        first[run.first : run.last + 1] = True
    return first


def _inner(labels: Ints, margin: int) -> Mask:
    """(M,) rows at least ``margin`` rows away from a change of label, or in the middle half of a short run."""
    inner = np.zeros(len(labels), np.bool_)
    for run in runs_of(labels):
        kept = min(margin, (run.last - run.first + 1) // 4)
        inner[run.first + kept : run.last + 1 - kept] = True
    return inner


def _passed(gold: GoldRun, frame: Ints, matched: Ints) -> Mask:
    """(N,) gold rows that are matched, or passed over between two matches as a quicker person does."""
    passed = np.zeros(len(gold.labels), np.bool_)
    passed[frame[matched]] = True
    jumps = frame[matched[1:]] - frame[matched[:-1]]
    for j in np.flatnonzero((jumps > 1) & (jumps <= FASTEST)):
        passed[frame[matched[j]] : frame[matched[j + 1]]] = True
    return passed
