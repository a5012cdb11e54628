"""The geometry of the report's two pictures, in units of the SVG's view box. Draws nothing: the template does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Placed = tuple[str, float, float]  # id, start_s, end_s

WIDTH: Final = 1000.0
COLOURS: Final = 10  # classes c0 … c9 of the style sheet, distinguishable without red and green
_MOST_DOTS: Final = 1500
_LABEL: Final = 18.0  # a deviation's number under its mark


@dataclass(frozen=True)
class Bar:
    """A step in the timeline."""

    step_id: str
    number: int  # in the procedure's order, from 1
    colour: int
    x: float
    width: float
    start_s: float
    end_s: float

    @property
    def centre(self) -> float:
        """Where a link starts."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class Link:
    """The same step in both rows."""

    colour: int
    gold_x: float
    trainee_x: float


@dataclass(frozen=True)
class Mark:
    """A deviation under the trainee's row."""

    number: int
    kind: str
    severity: str
    x: float
    width: float
    lane: int  # marks that would cover each other lie one below the other


@dataclass(frozen=True)
class Tick:
    """A label of an axis."""

    at: float
    time_s: float


@dataclass(frozen=True)
class Timeline:
    """Gold above, trainee below, one scale of time."""

    gold: tuple[Bar, ...]
    trainee: tuple[Bar, ...]
    links: tuple[Link, ...]
    marks: tuple[Mark, ...]
    lanes: int
    missing: frozenset[str]
    ticks: tuple[Tick, ...]


def timeline(
    gold: Sequence[Placed],
    trainee: Sequence[Placed],
    deviations: Sequence[tuple[str, str, float, float]],
    *,
    order: Sequence[str],
    gold_s: float,
    trainee_s: float,
) -> Timeline:
    """Place the steps of both runs.

    Args:  deviations: (kind, severity, start_s, end_s).   order: step ids, which give the colours.
    """
    scale = WIDTH / max(gold_s, trainee_s, 1e-9)
    numbers = {step_id: number for number, step_id in enumerate(order, start=1)}
    gold_bars = tuple(_bar(span, scale, numbers) for span in gold)
    trainee_bars = tuple(_bar(span, scale, numbers) for span in sorted(trainee, key=lambda span: span[1]))
    first = {bar.step_id: bar for bar in reversed(gold_bars)}
    marks = _marks(deviations, scale)
    return Timeline(
        gold=gold_bars,
        trainee=trainee_bars,
        links=tuple(
            Link(bar.colour, first[bar.step_id].centre, bar.centre) for bar in trainee_bars if bar.step_id in first
        ),
        marks=marks,
        lanes=max([1, *(mark.lane + 1 for mark in marks)]),
        missing=frozenset(first) - {bar.step_id for bar in trainee_bars},
        ticks=ticks(max(gold_s, trainee_s), WIDTH),
    )


def _bar(span: Placed, scale: float, numbers: dict[str, int]) -> Bar:
    step_id, start_s, end_s = span
    number = numbers.get(step_id, 0)
    width = max((end_s - start_s) * scale, 1.0)
    return Bar(step_id, number, (number - 1) % COLOURS, start_s * scale, width, start_s, end_s)


def _marks(deviations: Sequence[tuple[str, str, float, float]], scale: float) -> tuple[Mark, ...]:
    """Each deviation in the first lane in which it covers none before it."""
    free_from: list[float] = []
    marks = []
    for number, (kind, severity, start_s, end_s) in enumerate(deviations, start=1):
        x, width = start_s * scale, max((end_s - start_s) * scale, 3.0)
        reach = max(x + width, x + width / 2 + _LABEL / 2)
        begins = min(x, x + width / 2 - _LABEL / 2)
        lane = next((at for at, free in enumerate(free_from) if begins >= free), len(free_from))
        if lane == len(free_from):
            free_from.append(reach)
        free_from[lane] = reach
        marks.append(Mark(number, kind, severity, x, width, lane))
    return tuple(marks)


def ticks(duration_s: float, length: float) -> tuple[Tick, ...]:
    """Between 4 and 10 round times over an axis of ``length``."""
    if duration_s <= 0:
        return ()
    rough_s = duration_s / 8
    choices = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200)
    step_s = next((choice for choice in choices if choice >= rough_s), choices[-1])
    count = math.floor(duration_s / step_s)
    return tuple(Tick(k * step_s / duration_s * length, float(k * step_s)) for k in range(count + 1))


HEIGHT: Final = 420.0  # of the path's field
COST_HEIGHT: Final = 110.0


@dataclass(frozen=True)
class AlignmentFigure:
    """The matched moments over both times, and the cost of each under them on the trainee's time."""

    dots: tuple[tuple[float, float], ...]
    cost_line: str  # points of an SVG polyline
    cost_most: float
    steps: tuple[tuple[str, float, float], ...]  # gold steps: id, y of their end and start
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def alignment_figure(
    path_s: Sequence[tuple[float, float]],
    cost: Sequence[float],
    gold_steps: Sequence[Placed],
    *,
    gold_s: float,
    trainee_s: float,
) -> AlignmentFigure | None:
    """Place the path, thinned to what an eye can tell apart; None without one."""
    if not path_s or gold_s <= 0 or trainee_s <= 0:
        return None
    every = max(1, math.ceil(len(path_s) / _MOST_DOTS))
    across, up = WIDTH / trainee_s, HEIGHT / gold_s
    least = min(*cost, 0.0)
    most = max(*cost, least + 1e-9)
    kept = list(zip(path_s, cost, strict=False))[::every]
    line = " ".join(
        f"{trainee * across:.1f},{COST_HEIGHT * (most - value) / (most - least):.1f}" for (_, trainee), value in kept
    )
    return AlignmentFigure(
        dots=tuple((round(trainee * across, 1), round(HEIGHT - gold * up, 1)) for (gold, trainee), _ in kept),
        cost_line=line,
        cost_most=most,
        steps=tuple((step_id, HEIGHT - end_s * up, HEIGHT - start_s * up) for step_id, start_s, end_s in gold_steps),
        x_ticks=ticks(trainee_s, WIDTH),
        y_ticks=ticks(gold_s, HEIGHT),
    )
