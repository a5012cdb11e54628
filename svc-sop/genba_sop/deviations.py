"""Turn what was measured into named deviations with times and p-values.

Every kind needs two things: an effect that matters (a limit that a trainer would name) and, with several golds, evidence
that golds do not look like that among themselves: p-values from gold–gold nulls, false discoveries held to 10 % a video.
Knows nothing of scores and verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from genba_sop.evaluation import Deviation, DeviationKind
from genba_sop.evidence import MANY_GOLDS, Told
from genba_sop.features import Features
from genba_sop.gold_scene import Laid
from genba_sop.manner import Manner, manner
from genba_sop.nulls import discoveries, tail_p
from genba_sop.observation import SHORTEST_EXTRA_S, Observation, mean_over_golds, without
from genba_sop.order import violations
from genba_sop.performances import BRIEFLY_S, Performance, idling, lasting, performances
from genba_sop.reference import Reference, relative_tempo
from genba_sop.rows import Rows
from genba_sop.second_look import SKIPPED_SHARE, looked_again
from genba_sop.segmentation import EXTRA, Run, runs_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FALSE_DISCOVERY_RATE = 0.1
TEMPO_RATIO = 2.0  # with one gold: twice or half as long, in the run's own tempo
TEMPO_LEAST = 1.6  # with several golds, whatever their spread
TEMPO_Z = 3.0
IDLE_S, IDLE_OF_ONE_S = 3.0, 3.5  # with one gold
LAST_HOLD_S = 4.0  # shorter stillness at the end of a slow step is its last hold
SLOW_HOLD = 2.5  # times as long as usual may a step take with a hold of that; with a longer one in proportion
TRANSITION_S = 1.75  # getting from a step to one out of turn may take so long without being an extra action
NEAR_S = 1.5  # other deviations so near disturb what is measured of a step
DOUBTFUL, ALONE = 2.5, 4.0  # times the usual limit for a step that is disturbed, and with one gold
LAGGING = 1.25  # a step that takes so many times as long without its pauses is slow, and they are a part of that
HELD_SHARE = 0.8  # of a stillness that was matched to a step
STILL_SHARE = 0.7  # of a run that no gold shows, from which on it is idling and not an extra action
ACTION_Z, ITEM_Z = 2.2, 2.5  # in spreads between golds, above the run's own median step; together as an ellipse
ITEM_SHARE = 1.0  # of the action, from which on the object is what differs
OTHER_HISTORY = (
    3.0  # log-odds that the pictures must reach for a step before which something was done that no gold had done
)
ONE_GOLD = 3.0  # times the limits of several golds: one says nothing of how golds differ
LEAST_ODDS = 0.7  # log-odds of another object or manner against neither: a good run is worth more than a doubtful find
LEAST_ODDS_OF_FEW = 1.8  # with one gold or two
STRANGE_FREE, STRANGE_ODDS = (
    0.25,
    10.0,
)  # typical best match by typical pair with these; what each unit beyond adds to their odds
COARSE_FREE, COARSE_ODDS = (
    0.35,
    6.0,
)  # log of the area of a pixel beside the golds'; what each unit beyond adds to these odds
LEAD_S = 5.0  # before the first step and after the last one may so much pass: the camera is started and stopped
AGAIN_SHARE = 0.4  # of the step's usual time, from which on a second performance is a repetition


@dataclass(frozen=True)
class Findings:
    """The deviations, in time order, and what they stand on.

    main: by step, its first performance of some length, None when missing.   performances: all, in time order.
    """

    deviations: tuple[Deviation, ...]
    main: tuple[Performance | None, ...]
    performances: tuple[Performance, ...]


def find(reference: Reference, rows: Rows, seen: Observation, laid: Laid | None) -> Findings:
    """Find what differs from the golds."""
    case = _Case(reference, rows, seen, laid)
    candidates = [
        *case.missing,
        *case.order,
        *case.again,
        *case.extra,
        *case.idle,
        *case.tempo,
        *case.manner(),
    ]
    tested = 4 * len(reference.step_ids) + sum(c.step_id is None for c in candidates)
    p_values = [c.p_value for c in candidates if c.p_value is not None]
    kept = iter(discoveries(p_values, tests=tested, rate=FALSE_DISCOVERY_RATE))
    chosen = [c for c in candidates if c.p_value is None or next(kept)]
    chosen = [c for c in chosen if not any(case.explains(other, c) for other in chosen)]
    return Findings(tuple(sorted(chosen, key=lambda d: (d.start_s, d.kind))), case.main, case.performances)


def numbers_of(reference: Reference, trainee: Features) -> dict[str, Floats]:
    """What ``evidence`` weighs, (17,) by step that was done in its order and tempo; for learning the weights.

    Raises: ValueError for golds or a trainee that do not show one place.
    """
    rows, seen = reference.observe(trainee)
    laid = reference.lay(trainee, rows)
    if laid is None:
        raise ValueError("The videos do not show one place.")
    case = _Case(reference, rows, seen, laid)
    given = laid.numbers(**case.shown())
    explained = {d.step_id for d in (*case.order, *case.tempo)}
    return {
        step.id: row for step, row, done in zip(case.steps, *given, strict=True) if done and step.id not in explained
    }


def _within(inner: Deviation, outer: Deviation) -> bool:
    """Whether most of one deviation lies in the other: standing still in a step that is slow without that is a part of it, and the
    slower the step, the longer is its last hold.
    """
    shared_s = min(inner.end_s, outer.end_s) - max(inner.start_s, outer.start_s)
    length_s = inner.end_s - inner.start_s
    hold_s = LAST_HOLD_S * max(1.0, outer.measure / SLOW_HOLD)
    return shared_s > 0.5 * length_s or (shared_s > -0.5 and length_s < hold_s)


def part_of(extra: Deviation, other: Deviation) -> bool:
    """Whether a short stretch in no step is a part of a step that was done slowly or otherwise: who takes long over a step has moments
    in it that no gold shows.
    """
    length_s = extra.end_s - extra.start_s
    if other.kind == "too_slow":
        inside = other.start_s < extra.start_s and extra.end_s < other.end_s
        return (inside and length_s < LAST_HOLD_S) or (length_s < TRANSITION_S and _within(extra, other))
    return length_s < TRANSITION_S and other.kind in {"wrong_tool", "execution"} and _touches(extra, other)


def _touches(one: Deviation, other: Deviation) -> bool:
    """Whether one begins where the other ends, by and large."""
    return min(abs(one.start_s - other.end_s), abs(one.end_s - other.start_s)) < 0.5


def adjoins(deviation: Deviation, performance: Performance) -> bool:
    """Whether a performance begins where a deviation ends, or ends where it begins, by and large."""
    gaps_s = deviation.start_s - performance.end_s, performance.start_s - deviation.end_s
    return min(abs(gap_s) for gap_s in gaps_s) < NEAR_S


def happened_before(before: set[int], later: set[int], histories: Sequence[frozenset[int]]) -> bool:
    """Whether a gold had done all that was done before, and nothing more that is done only later; what is left out does not count."""
    return any(before <= earlier and not earlier & later for earlier in histories)


class _Shown(TypedDict):
    rows: list[Ints]
    settled: Mask
    action: Floats
    item: Floats


def _once(find_kind: Callable[[_Case], Iterator[Deviation]]) -> cached_property[tuple[Deviation, ...]]:
    """A kind's candidates, found once: other kinds ask for them too."""
    return cached_property(lambda case: tuple(find_kind(case)))


class _Case:
    """One trainee's case: the candidates of every kind."""

    def __init__(self, reference: Reference, rows: Rows, seen: Observation, laid: Laid | None) -> None:
        if laid is not None and laid.scene.golds >= MANY_GOLDS:
            seen = looked_again(reference, rows, seen, laid)
        self.taken_for = seen.labels  # (M,) before idling is taken out
        self.idle_rows = idling(rows, seen, reference.holds, reference.stillness)
        seen = without(seen, rows, reference.golds, lasting(self.idle_rows, rows, IDLE_S))
        self.reference, self.rows, self.seen, self.laid = reference, rows, seen, laid
        self.steps = reference.procedure.steps
        self.known = len(reference.golds) > 1
        self.expected_s = reference.expected_s
        self.skipped = np.nansum(seen.votes[:, None] * seen.skipped, axis=0)  # (S,)
        self.performances = performances(rows, seen, reference.golds)

    def explains(self, other: Deviation, c: Deviation) -> bool:
        """Whether a short stretch in no step, or a stillness, is a part of something else that is wrong.

        Getting to and from what is done out of turn or otherwise takes a moment; and who does a step otherwise, or out of turn,
        holds still elsewhere in it.
        """
        length_s = c.end_s - c.start_s
        if c.kind == "extra":
            return part_of(c, other)
        if c.kind != "idle":
            return False
        if other.kind == "too_slow":
            return _within(c, other) or (_touches(c, other) and self._held(c, other))
        inside = other.start_s < c.start_s and c.end_s < other.end_s
        usual = other.step_id is not None and other.end_s - other.start_s <= LAGGING * self._usual_s(other.step_id)
        return inside and (
            (other.kind in {"repeated", "moved", "execution"} and length_s < LAST_HOLD_S)
            or (other.kind == "execution" and usual)
        )

    def _held(self, idle: Deviation, slow: Deviation) -> bool:
        """Whether a stillness looks like the slow step beside it, held: a part of that."""
        rows = (self.rows.edges[:-1] >= idle.start_s) & (self.rows.edges[:-1] < idle.end_s)
        step = self.reference.step_ids.index(str(slow.step_id))
        return bool(rows.any() and (self.taken_for[rows] == step).mean() >= HELD_SHARE)

    def _usual_s(self, step_id: str) -> float:
        """A step's length at the run's own tempo."""
        whole_s = np.array([np.nan if main is None else self._whole_s(main) for main in self.main])
        with np.errstate(invalid="ignore"):
            ratio = np.nanmedian(whole_s / self.expected_s) if np.isfinite(whole_s).any() else 1.0
        return float(self.expected_s[self.reference.step_ids.index(step_id)] * ratio)

    @cached_property
    def main(self) -> tuple[Performance | None, ...]:
        """By step the performance that counts: the first that takes at least ``AGAIN_SHARE`` of the longest."""
        chosen: list[Performance | None] = []
        for step in range(len(self.steps)):
            own = [p for p in self.performances if p.step == step]
            longest = max((p.length_s for p in own), default=0.0)
            first = next((p for p in own if p.length_s >= AGAIN_SHARE * longest), None)
            chosen.append(None if self.skipped[step] >= SKIPPED_SHARE else first)
        return tuple(chosen)

    @_once
    def missing(self) -> Iterator[Deviation]:
        """Steps of which the golds show mostly what the trainee does not."""
        for at, step in enumerate(self.steps):
            if self.main[at] is None and not step.optional and np.isfinite(self.expected_s[at]):
                share = float(self.skipped[at])
                own = [p for p in self.performances if p.step == at]
                when = own[0].start_s if own else self._place_of(at)
                p = self._p(self._skipped_among_golds(at), share, 0.05)
                yield self._deviation("missing", at, when, when, p=p, measure=share, expected=0.0)

    def _skipped_among_golds(self, step: int) -> Floats:
        """(P,) the most that a gold skips of another: of this step, or of any that golds agree on. A step that some golds leave out,
        because they may or because it is marked in the wrong place there, says nothing of the others.
        """
        skipped = np.nan_to_num(self.reference.skipped)
        binds = np.array([not each.optional for each in self.steps]) & (skipped < SKIPPED_SHARE).all(axis=0)
        binds[step] = True
        return np.asarray(skipped[:, binds].max(axis=1), np.float64)

    def _place_of(self, step: int) -> float:
        """Where a missing step should have been: after the last earlier step, in the golds' order, that was done."""
        ends = [p.end_s for p in self.main[:step] if p is not None]
        return ends[-1] if ends else 0.0

    @_once
    def order(self) -> Iterator[Deviation]:
        """Steps done before something that must come first, fewest possible."""
        done = sorted((p for p in self.main if p is not None), key=lambda p: p.start_s)
        for violation in violations(self.reference.procedure, [self.steps[p.step].id for p in done]):
            performance = done[violation.index]
            p = self._p(self.reference.misplaced_s, performance.length_s, 0.5)
            yield self._of(performance, "moved", p=p, measure=performance.length_s, expected=0.0)

    @_once
    def again(self) -> Iterator[Deviation]:
        """Steps done once more, in full or for the better part."""
        for step, main in enumerate(self.main):
            shown = self.reference.shown[step]
            others = [
                p for p in self.performances if p.step == step and p is not main and not self._idles(p.first, p.last)
            ]
            others = others if main is not None else []
            least_s = max(AGAIN_SHARE * float(self.expected_s[step]), SHORTEST_EXTRA_S)
            for performance in [p for p in others if p.length_s >= least_s][max(0, shown - 1) :]:
                p = self._p(self.reference.misplaced_s, performance.length_s, 0.5)
                yield self._of(performance, "repeated", p=p, measure=performance.length_s, expected=0.0)

    @_once
    def extra(self) -> Iterator[Deviation]:
        """What no gold shows, for a second or more, while something moves."""
        starts = {d.start_s for d in (*self.again, *self.order)} | {d.end_s for d in (*self.again, *self.order)}
        for run in runs_of(self.seen.labels):
            start_s, end_s = self._times(run)
            if self._leads(run) or (end_s - start_s < TRANSITION_S and {start_s, end_s} & starts):
                continue
            if run.label == EXTRA and end_s - start_s >= SHORTEST_EXTRA_S and not self._idles(run.first, run.last):
                p = self._p(self.reference.extra_s, end_s - start_s, 0.5)
                yield self._deviation("extra", None, start_s, end_s, p=p, measure=end_s - start_s, expected=0.0)

    def _leads(self, run: Run) -> bool:
        """Whether a run lies before the first step or after the last one, and not for long."""
        start_s, end_s = self._times(run)
        first = min((p.first for p in self.performances), default=0)
        last = max((p.last for p in self.performances), default=len(self.rows.motion))
        return end_s - start_s <= LEAD_S and (run.last < first or run.first > last)

    def _idles(self, first: int, last: int) -> bool:
        inside = slice(first, last + 1)
        idle_s = float(np.diff(self.rows.edges)[inside][self.idle_rows[inside]].sum())
        rest_s = float(self.rows.edges[last + 1] - self.rows.edges[first]) - idle_s
        return idle_s >= STILL_SHARE * (idle_s + rest_s) or (idle_s >= IDLE_S and rest_s <= BRIEFLY_S)

    @_once
    def idle(self) -> Iterator[Deviation]:
        """Stretches in which nothing moves where something does in the golds."""
        for run in runs_of(self.idle_rows.astype(np.int64)):
            start_s, end_s = self._times(run)
            least_s = IDLE_S if self.known else IDLE_OF_ONE_S
            if run.label and end_s - start_s >= least_s and not self._leads(run):
                p = self._p(self.reference.idle_s, end_s - start_s, 0.5)
                yield self._deviation("idle", None, start_s, end_s, p=p, measure=end_s - start_s, expected=0.0)

    @_once
    def tempo(self) -> Iterator[Deviation]:
        """Steps that take much less or more time than the golds', in the run's own tempo, or outside the procedure's limits."""
        active_s = np.array([np.nan if main is None else self._active_s(main) for main in self.main])
        whole_s = np.array([np.nan if main is None else self._whole_s(main) for main in self.main])
        lagging = relative_tempo(active_s, self.expected_s) > math.log(LAGGING)
        hasty = relative_tempo(active_s, self.expected_s) < -math.log(TEMPO_LEAST)
        held = hasty & (
            np.abs(relative_tempo(whole_s, self.expected_s)) < math.log(TEMPO_LEAST)
        )  # not fast with its pauses
        lagging |= np.array([main is not None and self._halts(main) for main in self.main])
        tempo = relative_tempo(np.where(lagging | held, np.fmax(active_s, whole_s), active_s), self.expected_s)
        null = self.reference.tempo_null if len(self.reference.golds) > 2 else None
        for at, main in enumerate(self.main):
            if main is None or not np.isfinite(tempo[at]):
                continue
            ratio = float(np.exp(tempo[at]))
            if limit := self._beyond_limit(at, float(whole_s[at] if self._halts(main) else active_s[at])):
                yield self._of(main, limit, p=None, measure=ratio, expected=1.0)
                continue
            p = None
            if null is not None:
                z = abs(float(null.z(tempo)[at]))
                p = tail_p(np.sort(np.abs(null.pool)), z, least_scale=0.25)
                if z < TEMPO_Z or abs(tempo[at]) < math.log(TEMPO_LEAST):
                    continue
            elif abs(tempo[at]) < math.log(TEMPO_RATIO):
                continue
            yield self._of(main, "too_fast" if tempo[at] < 0 else "too_slow", p=p, measure=ratio, expected=1.0)

    def _halts(self, performance: Performance) -> bool:
        """Whether somebody stops several times in a step, never for long: who does that is slow and does not idle."""
        inside = self.idle_rows[performance.first : performance.last + 1].astype(np.int64)
        halts = [run for run in runs_of(inside) if run.label]
        longest = max((run.last - run.first + 1 for run in halts), default=0)
        return len(halts) > 1 and longest * self.rows.frame_s < LAST_HOLD_S

    def _beyond_limit(self, step: int, seconds: float) -> DeviationKind | None:
        """The author's own limits in seconds, less a row's length on either side: a rule, not a matter of evidence."""
        least_s, most_s = self.steps[step].min_s, self.steps[step].max_s
        if least_s is not None and seconds < least_s - self.rows.frame_s:
            return "too_fast"
        if most_s is not None and seconds > most_s + self.rows.frame_s:
            return "too_slow"
        return None

    def _active_s(self, performance: Performance) -> float:
        """Seconds of a performance without idling and without what came between its parts."""
        return self._seconds_of(performance, (self.seen.labels == performance.step) & ~self.idle_rows)

    def _whole_s(self, performance: Performance) -> float:
        """Seconds of a performance with its idling and without what came between its parts."""
        return self._seconds_of(performance, (self.seen.labels == performance.step) | self.idle_rows)

    def _seconds_of(self, performance: Performance, counted: Mask) -> float:
        rows = slice(performance.first, performance.last + 1)
        return max(float(np.diff(self.rows.edges)[rows][counted[rows]].sum()), self.rows.frame_s)

    def manner(self) -> Iterator[Deviation]:
        """Steps done in their place but not as the golds do them: with another object, or otherwise."""
        measured = self._measured
        explained = {d.step_id for d in (*self.order, *self.tempo)}
        if self.laid is not None:
            yield from self._told(self.laid.ask(**self.shown()), self.laid.scene.pool, explained)
            return
        for at, main in enumerate(self.main):
            if main is None or self.steps[at].id in explained or not np.isfinite(measured.action[at]):
                continue
            item, action = max(0.0, float(measured.item[at])), max(0.0, float(measured.action[at]))
            elsewhere = self.reference.scene is not None  # the golds show one place, and this video another
            doubtful = elsewhere or self._disturbed(main)
            least = ONE_GOLD if not self.known else 2.0 if doubtful else 1.0
            if math.hypot(item / ITEM_Z, action / ACTION_Z) < least:
                continue
            kind: DeviationKind = "wrong_tool" if item >= ITEM_SHARE * action else "execution"
            column, measure = (0, item) if kind == "wrong_tool" else (1, action)
            p = self._p(self.reference.manner[:, column], measure, 0.25)
            yield self._of(main, kind, p=p, measure=measure, expected=0.0)

    @cached_property
    def _measured(self) -> Manner:
        done = np.array([main is not None for main in self.main])
        return manner(
            np.where(done, mean_over_golds(self.seen.residual, self.seen.votes), np.nan),
            np.where(done[:, None], mean_over_golds(self.seen.local, self.seen.votes), np.nan),
            self.reference.action_spread,
            self.reference.item_spread,
        )

    def shown(self) -> _Shown:
        """What the golds' pictures are asked about."""
        rows = []
        for at, main in enumerate(self.main):
            own = np.arange(main.first, main.last + 1) if main is not None else np.zeros(0, np.int64)
            rows.append(own[self.seen.labels[own] == at])
        return {"rows": rows, "settled": self._settled(), "action": self._measured.action, "item": self._measured.item}

    def _settled(self) -> Mask:
        """(S,) the steps between two others, or an end, that golds show before and after them."""
        done = [step for _, step in sorted((p.first, p.step) for p in self.main if p is not None)]
        usual = [pair in self.reference.transitions for pair in pairwise((None, *done, None))]
        settled = np.zeros(len(self.main), np.bool_)
        settled[done] = [before and after for before, after in pairwise(usual)]
        return settled

    def _told(self, heard: Told, pool: Floats, explained: set[str | None]) -> Iterator[Deviation]:
        """Steps whose pictures say that another object or another manner is likelier than neither."""
        for at, main in enumerate(self.main):
            item, action = float(heard.item[at]), float(heard.action[at])
            odds = float(np.logaddexp(item, action))
            least = self._least_odds(main) if main is not None else 0.0
            if main is None or self.steps[at].id in explained or odds < least:
                continue
            p = self._p(pool, max(item, action), 1.0)
            yield self._of(main, "wrong_tool" if item >= action else "execution", p=p, measure=odds, expected=0.0)

    def _least_odds(self, performance: Performance) -> float:
        """How sure the pictures must be, by what was done before: gloves that are on, or not yet, change what a picture shows. What was
        done once more right before or after is in no gold there either, and what it put down lies where the step is judged.
        """
        earlier_ones = sorted((p for p in self.main if p and p.start_s < performance.start_s), key=lambda p: p.start_s)
        before, last = {p.step for p in earlier_ones}, earlier_ones[-1].step if earlier_ones else None
        few = len(self.reference.golds) < MANY_GOLDS
        if few and (last, performance.step) not in self.reference.transitions:
            return math.inf  # where one step ends and another begins that no gold shows after it, is not sure enough
        beside = any(adjoins(again, performance) for again in self.again)
        histories = self.reference.histories[performance.step]
        coarser = 0.0 if self.laid is None else self.laid.sight.view.coarser
        strange = max(0.0, float(np.median(self.seen.contrast)) - STRANGE_FREE) if few else 0.0
        least = (LEAST_ODDS_OF_FEW if few else LEAST_ODDS) + STRANGE_ODDS * strange
        least += COARSE_ODDS * max(0.0, coarser - COARSE_FREE)
        later = {at for at, main in enumerate(self.main) if main is not None} - before - {performance.step}
        # What was merely left out asks for no more: both margins are against the same error, so they do not add up.
        return least if happened_before(before, later, histories) and not beside else max(least, OTHER_HISTORY)

    @cached_property
    def _borders_s(self) -> Floats:
        """Where something begins or ends that is wrong and changes what is around it."""
        wrong = (*self.missing, *self.order, *self.again, *self.extra, *self.idle, *self.tempo)
        return np.array([moment for deviation in wrong for moment in (deviation.start_s, deviation.end_s)])

    def _disturbed(self, performance: Performance) -> bool:
        """Whether something else that is wrong touches a performance: rows near it are mixed with what golds never show there."""
        near = [np.abs(self._borders_s - at) <= NEAR_S for at in (performance.start_s, performance.end_s)]
        return bool(np.any(near))

    def _p(self, pool: Floats, value: float, least_scale: float) -> float | None:
        return tail_p(np.sort(pool), value, least_scale=least_scale) if self.known and len(pool) else None

    def _times(self, run: Run) -> tuple[float, float]:
        return float(self.rows.edges[run.first]), float(self.rows.edges[run.last + 1])

    def _of(
        self, performance: Performance, kind: DeviationKind, *, p: float | None, measure: float, expected: float
    ) -> Deviation:
        start_s, end_s = performance.start_s, performance.end_s
        return self._deviation(kind, performance.step, start_s, end_s, p=p, measure=measure, expected=expected)

    def _deviation(
        self,
        kind: DeviationKind,
        step: int | None,
        start_s: float,
        end_s: float,
        *,
        p: float | None,
        measure: float,
        expected: float,
    ) -> Deviation:
        gold_start_s, gold_end_s = self._in_gold(step)
        return Deviation(
            kind=kind,
            step_id=None if step is None else self.steps[step].id,
            start_s=start_s,
            end_s=end_s,
            gold_start_s=gold_start_s,
            gold_end_s=gold_end_s,
            severity="minor" if step is None else self.steps[step].severity,
            p_value=p,
            measure=measure,
            expected=expected,
        )

    def _in_gold(self, step: int | None) -> tuple[float | None, float | None]:
        """Where the reference gold, the one with the most weight, shows the step."""
        gold = self.reference.golds[int(self.seen.votes.argmax())]
        at = np.flatnonzero(gold.labels == step) if step is not None else np.zeros(0, np.int64)
        if not at.size:
            return None, None
        return float(gold.rows.edges[at[0]]), float(gold.rows.edges[at[-1] + 1])
