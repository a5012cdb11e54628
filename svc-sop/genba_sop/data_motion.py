"""How hands move: beats of a step, laid out on the clock, and the pose of both hands at any moment.

A step is a tuple of beats. In a beat each hand travels to its place (minimum jerk, Flash & Hogan 1985) and then works
there: turning, ratcheting, wiping, pouring. Knows nothing of drawing, of files, or of what a step means.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from genba_sop.data_shapes import Point

Motion = Literal["hold", "spin", "ratchet", "wipe", "rub", "pour", "scan", "pump"]
TOOL = "@tool"  # stands for the home of the tool that the beat names


@dataclass(frozen=True)
class Move:
    """What one hand does in a beat: go to the anchor ``at`` (moved by ``dx``, ``dy``), then work there.

    turn: +1 clockwise, -1 counter-clockwise; size in world units; rate_hz of one cycle; aim: direction of a held tool
    in degrees, None points a tool from the hand to the anchor (a wrench on its bolt).
    """

    at: str
    motion: Motion = "hold"
    size: float = 0.0
    rate_hz: float = 1.0
    turn: int = 1
    dx: float = 0.0
    dy: float = 0.0
    aim: float | None = -90.0


@dataclass(frozen=True)
class Effect:
    """Something flows from a height onto an anchor while the hands work."""

    at: str
    colour: tuple[int, int, int]
    height: float
    dx: float = 0.0


@dataclass(frozen=True)
class Beat:
    """A part of a step: ``share`` of its duration, what each hand does and holds, and what has changed at its end."""

    share: float
    right: Move
    left: Move
    tool: str | None = None  # in the right hand, or between both when ``both``
    both: bool = False
    left_tool: str | None = None
    sets: Mapping[str, str] = field(default_factory=dict)
    effect: Effect | None = None
    work: bool = False  # the part that an execution fault spoils


@dataclass(frozen=True)
class Stretch:
    """A stretch of the run: the beats of a step, of an extra action or of idling, from ``start_s`` to ``end_s``."""

    name: str
    beats: tuple[Beat, ...]
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Style:
    """How a person moves: all in world units, seconds and shares; sampled per operator."""

    rate: float = 1.0  # multiplies every rate_hz
    size: float = 1.0  # multiplies every size
    bulge: float = 0.1  # how far a reach bows out, as a share of its length
    tremor: float = 1.0
    offset: Point = (0.0, 0.0)  # grip habit, added to every anchor
    phase: float = 0.0
    reach_s: float = 0.9


@dataclass(frozen=True)
class Hand:
    """One hand at one moment; ``aim_rad`` is where a held tool points."""

    x: float
    y: float
    aim_rad: float


@dataclass(frozen=True)
class Moment:
    """Everything that moves at time t."""

    right: Hand
    left: Hand
    beat: Beat
    progress: float  # of the beat, in [0, 1)
    index: int  # of the beat in the whole run


def minimum_jerk(u: float) -> float:
    """From 0 to 1 with zero speed and acceleration at both ends."""
    u = min(1.0, max(0.0, u))
    return u * u * u * (10.0 - 15.0 * u + 6.0 * u * u)


def _saw(cycles: float, turn: int) -> float:
    """A ratchet's angle in [-1, 1]: a slow working stroke (70 % of the cycle), a quick return; ``turn`` mirrors it."""
    u = cycles % 1.0
    s = minimum_jerk(u / 0.7) if u < 0.7 else 1.0 - minimum_jerk((u - 0.7) / 0.3)
    return turn * (2.0 * s - 1.0)


class Choreography:
    """The hands' path through a whole run."""

    def __init__(
        self, stretches: Sequence[Stretch], *, anchors: Mapping[str, Point], homes: Mapping[str, Point], style: Style
    ) -> None:
        """``anchors`` are places of work, ``homes`` where each tool lies."""
        self._anchors, self._homes, self._style = anchors, homes, style
        self.beats: list[Beat] = []
        self.starts_s: list[float] = []
        self.ends_s: list[float] = []
        for stretch in stretches:
            total, at = sum(beat.share for beat in stretch.beats), stretch.start_s
            for beat in stretch.beats:
                self.beats.append(beat)
                self.starts_s.append(at)
                at += (stretch.end_s - stretch.start_s) * beat.share / total
                self.ends_s.append(at)
        rest_right = Hand(*anchors["rest_right"], -math.pi / 2)
        rest_left = Hand(*anchors["rest_left"], -math.pi / 2)
        self._from: list[tuple[Hand, Hand]] = [(rest_right, rest_left)]
        for index in range(len(self.beats)):
            end = self._at(index, self.ends_s[index])
            self._from.append((end.right, end.left))

    def at(self, time_s: float) -> Moment:
        """Both hands at ``time_s``, clamped to the run."""
        index = min(max(bisect.bisect_right(self.starts_s, time_s) - 1, 0), len(self.beats) - 1)
        return self._at(index, time_s)

    def _at(self, index: int, time_s: float) -> Moment:
        beat, start_s, end_s = self.beats[index], self.starts_s[index], self.ends_s[index]
        length_s = max(end_s - start_s, 1e-6)
        elapsed_s = min(max(time_s - start_s, 0.0), length_s)
        reach_s = min(self._style.reach_s, 0.45 * length_s)
        before = self._from[index]
        right = self._hand(beat.right, beat.tool, before[0], elapsed_s, length_s, reach_s, side=1)
        left = self._hand(
            beat.left, beat.tool if beat.both else beat.left_tool, before[1], elapsed_s, length_s, reach_s, side=-1
        )
        return Moment(
            self._tremble(right, time_s, 0.0), self._tremble(left, time_s, 1.7), beat, elapsed_s / length_s, index
        )

    def _tremble(self, hand: Hand, time_s: float, phase: float) -> Hand:
        amount, phase = self._style.tremor, phase + self._style.phase
        dx = amount * (math.sin(2.1 * time_s + phase) + 0.6 * math.sin(5.3 * time_s + 2.0 * phase))
        dy = amount * (math.sin(1.7 * time_s + 1.3 * phase) + 0.6 * math.sin(6.1 * time_s + phase))
        return Hand(hand.x + dx, hand.y + dy, hand.aim_rad)

    def _place(self, move: Move, tool: str | None) -> Point:
        x, y = self._homes[tool] if move.at == TOOL and tool is not None else self._anchors[move.at]
        return x + move.dx + self._style.offset[0], y + move.dy + self._style.offset[1]

    def _hand(
        self,
        move: Move,
        tool: str | None,
        before: Hand,
        elapsed_s: float,
        length_s: float,
        reach_s: float,
        *,
        side: int,
    ) -> Hand:
        place = self._place(move, tool)
        if elapsed_s >= reach_s:
            return self._work(move, place, elapsed_s - reach_s, length_s - reach_s, side)
        goal = self._work(move, place, 0.0, length_s - reach_s, side)
        u = minimum_jerk(elapsed_s / reach_s)
        bow = self._style.bulge * math.sin(math.pi * u) * side
        dx, dy = goal.x - before.x, goal.y - before.y
        turn = (goal.aim_rad - before.aim_rad + math.pi) % (2 * math.pi) - math.pi
        return Hand(before.x + u * dx - bow * dy, before.y + u * dy + bow * dx, before.aim_rad + u * turn)

    def _work(self, move: Move, place: Point, elapsed_s: float, length_s: float, side: int) -> Hand:
        aim = math.radians(-90.0 if move.aim is None else move.aim)
        stroke = _Stroke(
            *place,
            size=move.size * self._style.size,
            cycles=move.rate_hz * self._style.rate * elapsed_s,
            elapsed_s=elapsed_s,
            length_s=max(length_s, 1e-6),
            aim_rad=aim,
            turn=move.turn,
            side=side,
        )
        return _STROKES[move.motion](stroke)


@dataclass(frozen=True)
class _Stroke:
    """Where a working hand is in its motion: around (x, y), so many cycles in."""

    x: float
    y: float
    size: float
    cycles: float
    elapsed_s: float
    length_s: float
    aim_rad: float
    turn: int
    side: int

    @property
    def wave(self) -> float:
        return math.sin(2 * math.pi * self.cycles)


def _hold(s: _Stroke) -> Hand:
    return Hand(s.x, s.y, s.aim_rad)


def _spin(s: _Stroke) -> Hand:
    angle = s.turn * 2 * math.pi * s.cycles
    return Hand(s.x + s.size * math.cos(angle), s.y + 0.8 * s.size * math.sin(angle), s.aim_rad + 0.5 * math.sin(angle))


def _ratchet(s: _Stroke) -> Hand:
    angle = math.radians(55.0 + 32.0 * _saw(s.cycles, s.turn))
    x, y = s.x + s.size * math.cos(angle), s.y + s.size * math.sin(angle)
    return Hand(x, y, math.atan2(s.y - y, s.x - x))  # the tool's head stays on the bolt


def _wipe(s: _Stroke) -> Hand:
    drift = 0.4 * s.size * math.sin(0.9 * s.elapsed_s)
    return Hand(s.x + s.size * s.wave, s.y + drift + 0.25 * s.size * s.wave, s.aim_rad + 0.3 * s.wave)


def _rub(s: _Stroke) -> Hand:
    swing = s.size * s.side * s.wave  # the hands work against each other
    return Hand(s.x + 0.5 * swing, s.y + swing, s.aim_rad + 0.2 * s.wave)


def _pour(s: _Stroke) -> Hand:
    share = s.elapsed_s / s.length_s
    tilt = minimum_jerk(4.0 * share) * (1.0 - minimum_jerk(6.0 * share - 5.0))
    return Hand(s.x + 0.2 * s.size * s.wave, s.y - 0.5 * s.size * tilt, s.aim_rad + 0.9 * tilt)


def _scan(s: _Stroke) -> Hand:
    eight = math.sin(4 * math.pi * s.cycles + 0.8)
    return Hand(s.x + s.size * s.wave, s.y + 0.5 * s.size * eight, s.aim_rad + 0.4 * s.wave)


def _pump(s: _Stroke) -> Hand:
    return Hand(s.x, s.y + s.size * s.wave, s.aim_rad)


_STROKES: Mapping[Motion, Callable[[_Stroke], Hand]] = {
    "hold": _hold,
    "spin": _spin,
    "ratchet": _ratchet,
    "wipe": _wipe,
    "rub": _rub,
    "pour": _pour,
    "scan": _scan,
    "pump": _pump,
}
