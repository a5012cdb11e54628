"""The simplest explanation of a doubtful stretch: which whole steps, in which order, it most likely shows.

Following frame by frame confuses steps that begin or end alike: two that may be swapped become three fragments, and a step out
of turn becomes one left out and another repeated. So wherever a run shows something twice, in no step, far too short or far too
long, whole steps are laid over that stretch in every order, and a simpler story is believed when it is also the cheaper one.
Knows nothing of pictures, p-values and scores: normalised costs and labels in, better labels out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from genba_sop._explaining import cheapest, segment_costs
from genba_sop.alignment import dtw
from genba_sop.segmentation import EXTRA, Run, runs_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Known = dict[tuple[int, int, int], Floats]  # by step and first and last border

GRID_S = 0.5
MOST_STEPS = 6  # at once
MOST_CELLS = 240  # of the grid in one stretch
EXTRA_S = 1.0
SHORT, LONG = 0.55, 1.8  # times the usual length, in the run's own tempo: then a run is doubted
FRAGMENT = 0.3  # less of a step does not count as having been done
TEMPO_FREE = 0.4  # of the logarithm of that is nobody's concern
SHORTEST, LONGEST = 0.2, 3.0  # times the usual length may a step take
NO_STEP = 0.55  # normalised cost of a row in no step that was taken for one so far, at least: it resembles one
STILL = 0.3  # of a step's usual motion: who moves less stands still
ALIKE = 0.8  # IoU of two runs that are the same one
MARGIN = 1.0  # by so much must the new story be cheaper
GOOD_MATCH = 0.1  # in normalised cost a row may be better than typical
FAR = 0.75  # of the price of doing a step again, added where all others that come after it were done meanwhile


@dataclass(frozen=True)
class Prices:
    """What is odd in a story costs, in rows of a random match at four a second: any of the deviations, a stretch in no step, each
    unit of tempo, and what is left out of a step that is begun.
    """

    odd: float = 4.0
    extra: float = 1.5
    leave: float = 0.8
    tempo: float = 3.0
    partial: float = 4.0


@dataclass(frozen=True)
class Told:
    """What a run looks like so far.

    costs: for each gold (N, M) normalised.   gold_labels: for each gold (N,).   votes: (G,).   elsewhere: (G,).
    path_costs: (G, M) of the path.   frames: (G, M) gold row or −1.   labels: (M,).
    motion: (M,), and for each gold (N,), as a share of the video's busy level.   order: (S, S) must come before.
    """

    costs: Sequence[Floats]
    gold_labels: Sequence[Ints]
    votes: Floats
    elsewhere: Floats
    path_costs: Floats
    frames: Ints
    labels: Ints
    motion: Floats
    gold_motion: Sequence[Floats]
    order: Mask
    frame_s: float


@dataclass(frozen=True)
class Piece:
    """A run of the simpler story; ``kept`` when it was told so before, with about the same borders."""

    run: Run
    kept: bool


def simplest(told: Told, known: Known) -> tuple[Piece, ...]:
    """The runs of the one stretch of which a simpler story gains most, with their new labels, perhaps ``EXTRA``; none where
    no story gains.

    Call it again after those are believed: a step that one stretch no longer shows may be the very reason why another one
    seemed to show it twice.

    Args: known: filled with what does not depend on the labels; keep it from call to call.
    """
    case = _Case(told, runs_of(told.labels), known)
    stories = [case.better(first, last) for first, last in case.stretches()]
    return max(stories, key=lambda story: story.gain, default=_NO_STORY).pieces


def warm_up() -> None:
    """Load or compile the inner loops now rather than in the first request."""
    table = segment_costs(np.zeros((2, 2)), 2)
    cheapest(table[:, :, None].copy(), table, np.zeros((2, 1)), np.zeros(2), np.inf)


class _Story(NamedTuple):
    """What a stretch shows by a simpler story, and by how much that is cheaper, the margin taken off."""

    gain: float
    pieces: tuple[Piece, ...]


_NO_STORY = _Story(0.0, ())


def _iou(run: Run, first: int, end: int) -> float:
    shared = min(run.last + 1, end) - max(run.first, first)
    return shared / (max(run.last + 1, end) - min(run.first, first))


class _Case:
    def __init__(self, told: Told, runs: Sequence[Run], known: Known) -> None:
        self.told, self.runs, self.known = told, runs, known
        self.rate = 0.25 / told.frame_s
        self.order: list[list[bool]] = told.order.tolist()
        self._moves: dict[int, float] = {}
        self.prices = Prices()
        self.often = Counter(run.label for run in runs)
        shown = {int(s) for labels in told.gold_labels for s in np.unique(labels) if s >= 0}
        self.usual = {
            step: float(np.mean([n for labels in told.gold_labels if (n := (labels == step).sum())])) for step in shown
        }
        lengths = [(run.last - run.first + 1) / self.usual[run.label] for run in runs if run.label in self.usual]
        self.tempo = float(np.median(lengths)) if lengths else 1.0
        self.missing = sorted(shown - self._done(runs))
        elsewhere = float(told.votes @ told.elsewhere)
        self.none = np.where(told.labels >= 0, max(elsewhere, NO_STEP), elsewhere)  # (M,)

    def _done(self, runs: Sequence[Run]) -> set[int]:
        """The steps of which these runs show more than a fragment."""
        rows = Counter[int]()
        for run in runs:
            rows[run.label] += run.last - run.first + 1
        return {step for step in self.usual if rows[step] >= FRAGMENT * self.usual[step] * self.tempo}

    def stretches(self) -> list[tuple[int, int]]:
        """First and last run of each doubtful stretch, with the run before and the run after."""
        doubted = [at for at, run in enumerate(self.runs) if self.doubted(run)]
        found: list[tuple[int, int]] = []
        for at in doubted:
            first, last = max(0, at - 1), min(len(self.runs) - 1, at + 1)
            if found and first <= found[-1][1]:
                found[-1] = (found[-1][0], last)
            else:
                found.append((first, last))
        return found

    def doubted(self, run: Run) -> bool:
        """Whether a run may well be something else than its label says."""
        length = run.last - run.first + 1
        if run.label < 0:
            return run.label == EXTRA and length * self.told.frame_s >= EXTRA_S
        ratio = length / (self.usual[run.label] * self.tempo) if run.label in self.usual else 1.0
        return self.often[run.label] > 1 or not SHORT <= ratio <= LONG or self._stands_still(run)

    def _stands_still(self, run: Run) -> bool:
        """Whether a run of a step shows too little movement for it."""
        moved = float(self.told.motion[run.first : run.last + 1].mean())
        return run.label in self.usual and moved < STILL * self._usual_motion(run.label)

    def _options(self, runs: Sequence[Run]) -> list[int]:
        """The steps that a stretch may show: those that it is said to show, those that are missing, and the one that each doubted
        run is most like, for two steps may be the very same action.
        """
        options = {run.label for run in runs if run.label >= 0} | set(self.missing)
        gold = int(self.told.votes.argmax())
        cost, labels = self.told.costs[gold], self.told.gold_labels[gold]
        for run in runs:
            if len(options) < MOST_STEPS and self.doubted(run) and not self._stands_still(run):
                block = cost[:, run.first : run.last + 1]
                paths = {step: dtw(block[labels == step]) for step in self.usual if (labels == step).any()}
                price = {step: path.total / len(path.path) for step, path in paths.items() if step not in options}
                options |= {min(price, key=lambda step: price[step])} if price else set()
        return sorted(options)

    def better(self, first: int, last: int) -> _Story:
        """A better story of one stretch; one without gain when the story so far is as good."""
        runs = self.runs[first : last + 1]
        options = self._options(runs)
        low, high = runs[0].first, runs[-1].last + 1
        stride = max(1, round(GRID_S / self.told.frame_s))
        borders = np.unique(np.r_[np.arange(low, high, stride), high])
        if not options or len(options) > MOST_STEPS or len(borders) > MOST_CELLS:
            return _NO_STORY
        before, after = self._done(self.runs[:first]), self._done(self.runs[last + 1 :])
        so_far = self._cost_so_far(runs, options, before, after)
        most = so_far + GOOD_MATCH * (high - low)  # the rest may be that much cheaper than nothing
        cost, cuts, steps = cheapest(*self._table(options, borders), *self._rules(options, before, after), most)
        gain = so_far - cost - MARGIN * self.rate
        if gain <= 0:
            return _NO_STORY
        pieces = [
            (EXTRA if k < 0 else options[k], int(borders[a]), int(borders[b]))
            for k, a, b in zip(steps, cuts[:-1], cuts[1:], strict=True)
        ]
        told = tuple(self._told(pieces))
        same = all(piece.kept for piece in told) and len(told) == len(runs)
        return _NO_STORY if same else _Story(gain, told)

    def _told(self, pieces: Sequence[tuple[int, int, int]]) -> Iterator[Piece]:
        """The pieces as runs; those that the labels show by and large already keep their borders."""
        ends = [end for _, _, end in pieces]
        kept: list[bool] = []
        start = pieces[0][1]
        for n, (label, first, end) in enumerate(pieces):
            same = [run for run in self.runs if run.label == label and run.first < end and run.last >= first]
            alike = len(same) == 1 and _iou(same[0], first, end) >= ALIKE
            kept.append(alike)
            if alike and n and pieces[n - 1][1] < same[0].first < end:
                ends[n - 1] = same[0].first
            if alike and n + 1 < len(pieces) and first < same[0].last + 1 < pieces[n + 1][2]:
                ends[n] = same[0].last + 1
        for (label, _, _), end, alike in zip(pieces, ends, kept, strict=True):
            if end > start:
                yield Piece(Run(label, start, end - 1), alike)
                start = end

    def _table(self, options: Sequence[int], borders: Ints) -> tuple[Floats, Floats]:
        """(B, B, K) cost of each step from one border to another, inf where it cannot be; (B, B) that of no step."""
        count = len(borders)
        table = np.zeros((count, count, len(options)))
        rows = np.subtract.outer(borders, borders).T.astype(np.float64)  # (from, to)
        stride = max(1, int(borders[1] - borders[0])) if count > 1 else 1
        summed = np.r_[0.0, np.cumsum(self.told.motion)][borders]
        moved = np.subtract.outer(summed, summed).T
        for k, step in enumerate(options):
            mean = self._whole(step, borders, stride).copy()
            with np.errstate(invalid="ignore", divide="ignore"):
                tempo = np.abs(np.log(rows / (self.usual[step] * self.tempo)))
            mean[rows < SHORTEST * self.usual[step] * min(1.0, self.tempo)] = np.inf
            mean[moved < STILL * self._usual_motion(step) * rows] = np.inf
            table[:, :, k] = mean * np.where(rows > 0, rows, 1.0) + self.rate * self.prices.tempo * np.maximum(
                0, tempo - TEMPO_FREE
            )
        summed = np.r_[0.0, np.cumsum(self.none)][borders]
        none = np.subtract.outer(summed, summed).T + self.rate * self._strange(rows)
        return np.where(np.isnan(table), np.inf, table), np.where(rows > 0, none, np.inf)

    def _whole(self, step: int, borders: Ints, stride: int) -> Floats:
        """(B, B) mean cost of doing the whole step from one border to another, by the golds' votes; inf where it cannot be."""
        key = (step, int(borders[0]), int(borders[-1]))
        if key not in self.known:
            total, weight = np.zeros((len(borders),) * 2), 0.0
            longest = int(LONGEST * self.usual[step] * max(1.0, self.tempo) / stride) + 1
            for cost, labels, vote in zip(self.told.costs, self.told.gold_labels, self.told.votes, strict=True):
                own = np.flatnonzero(labels == step)
                if own.size:
                    block = cost[own[::stride]][:, borders[:-1] + np.diff(borders) // 2]
                    total += vote * segment_costs(np.ascontiguousarray(block), longest)
                    weight += float(vote)
            self.known[key] = total / weight if weight else np.full_like(total, np.inf)
        return self.known[key]

    def _usual_motion(self, step: int) -> float:
        """How much the golds move in a step."""
        if step not in self._moves:
            self._moves[step] = self._motion_of(step)
        return self._moves[step]

    def _motion_of(self, step: int) -> float:
        shown = [
            motion[own]
            for motion, labels in zip(self.told.gold_motion, self.told.gold_labels, strict=True)
            if (own := labels == step).any()
        ]
        return float(np.mean([motion.mean() for motion in shown]))

    def _strange(self, rows: npt.ArrayLike) -> Floats:
        """The price of so many rows in no step; a transition is not odd."""
        odd = np.asarray(rows, np.float64) * self.told.frame_s >= EXTRA_S
        return np.asarray(self.prices.leave + self.prices.extra * odd, np.float64)

    def _rules(self, options: Sequence[int], before: set[int], after: set[int]) -> tuple[Floats, Floats]:
        """(2^K, K) price of doing a step after the others of a set; (2^K,) that of doing only these."""
        odd = self.rate * self.prices.odd
        sets = 1 << len(options)
        again, left = np.zeros((sets, len(options))), np.zeros(sets)
        for done in range(sets):
            earlier = before | {step for k, step in enumerate(options) if done >> k & 1}
            for k, step in enumerate(options):
                again[done, k] = odd * self._odd(step, earlier, after)
            left[done] = odd * sum(
                not done >> k & 1 and step not in before and step not in after for k, step in enumerate(options)
            )
        return again, left

    def _odd(self, step: int, earlier: set[int], later: set[int]) -> float:
        """How odd it is to do a step after some and before others: once for doing it twice, a little more the farther it was left
        behind, and once for doing it out of turn.
        """
        order = self.order
        passed = [other for other in earlier if other >= 0 and order[step][other]]
        early = any(order[other][step] for other in later - earlier if other >= 0)
        if step in earlier:
            return 1.0 + FAR * len(passed) / max(1, sum(order[step]))
        return float(step in later) + float(bool(passed) or early)

    def _cost_so_far(self, runs: Sequence[Run], options: Sequence[int], before: set[int], after: set[int]) -> float:
        """The price of the story that the labels tell."""
        told, prices, done = self.told, self.prices, set(before)
        cost = 0.0
        for at, run in enumerate(runs):
            rows = run.last - run.first + 1
            if run.label == EXTRA:
                cost += float(self.none[run.first] * rows) + self.rate * float(self._strange(rows))
                continue
            price = float(told.votes @ told.path_costs[:, run.first : run.last + 1].sum(axis=1))
            if self._stands_still(run):  # as dear as doing nothing, whatever it resembles
                price = max(price, float(self.none[run.first] * rows) + self.rate * float(self._strange(rows)))
            cost += price
            if run.label >= 0 and not self._resumed(runs, at):
                cost += self.rate * prices.odd * self._odd(run.label, done, after)
                done.add(run.label)
        for step in set(options):
            own = [run for run in runs if run.label == step]
            if not own and step not in before and step not in after:
                cost += self.rate * prices.odd
            elif own:
                rows = sum(run.last - run.first + 1 for run in own)
                off = abs(float(np.log(rows / (len(own) * self.usual[step] * self.tempo))))
                cost += self.rate * (
                    prices.tempo * max(0.0, off - TEMPO_FREE) + prices.partial * self._left_out(step, own)
                )
        return cost

    def _resumed(self, runs: Sequence[Run], at: int) -> bool:
        """Whether a step is only taken up where it was left."""
        run = runs[at]
        earlier = [other for other in runs[:at] if other.label == run.label]
        if not earlier:
            return False
        gold = int(self.told.votes.argmax())
        left = self.told.frames[gold, earlier[-1].first : earlier[-1].last + 1]
        right = self.told.frames[gold, run.first : run.last + 1]
        left, right = left[left >= 0], right[right >= 0]
        return bool(left.size and right.size and right[0] >= left[-1] and at - runs.index(earlier[-1]) <= 2)

    def _left_out(self, step: int, own: Sequence[Run]) -> float:
        """Share of the step's gold rows that these runs do not come to."""
        share = 0.0
        for labels, frames, vote in zip(self.told.gold_labels, self.told.frames, self.told.votes, strict=True):
            rows = np.flatnonzero(labels == step)
            if rows.size:
                met = np.concatenate([frames[run.first : run.last + 1] for run in own])
                met = np.unique(met[np.isin(met, rows)])
                passed = int(met[-1] - met[0] + 1) if met.size else 0
                share += float(vote) * (1 - min(1.0, passed / rows.size))
        return share
