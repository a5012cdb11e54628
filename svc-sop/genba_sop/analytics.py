"""Figures over many evaluations: how long steps take, how an operator develops, what the customer saves. Numbers in,
numbers out.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np

LIMIT_FACTOR: Final = 2.66  # 3 / d2 for moving ranges of two (Montgomery, Statistical Quality Control)
LEAST_POINTS: Final = 8  # below, limits would be noise
RUN_LENGTH: Final = 9  # Nelson's second rule


@dataclass(frozen=True)
class Scored:
    """What analytics reads of one evaluation."""

    id: str
    procedure_id: str
    operator: str | None
    created_at: datetime
    score: float
    verdict: str  # the reviewers' where there is one
    reviewed: bool
    compute_s: float
    steps: Sequence[Mapping[str, Any]]
    deviations: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class StepFigures:
    """One step over all evaluations; times in seconds, None where nobody did it."""

    procedure_id: str
    step_id: str
    name: Mapping[str, str]
    performed: int
    missing: int
    deviating: int
    p10_s: float | None
    median_s: float | None
    p90_s: float | None
    gold_median_s: float | None


@dataclass(frozen=True)
class Point:
    """One evaluation on the chart."""

    evaluation_id: str
    created_at: datetime
    score: float
    beyond_limits: bool
    in_run: bool


@dataclass(frozen=True)
class Trend:
    """An individuals chart; without limits while there are fewer than ``LEAST_POINTS`` evaluations."""

    operator: str
    procedure_id: str
    centre: float
    lower_limit: float | None
    upper_limit: float | None
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Figures:
    """The customer's own: what judging a run by hand costs."""

    manual_minutes: float
    review_minutes: float = 0.0
    hourly_cost: float | None = None


@dataclass(frozen=True)
class Saved:
    """Hours and money, from the customer's own figures."""

    evaluations: int
    manual_hours: float
    machine_hours: float
    review_hours: float
    saved_hours: float
    saved_cost: float | None


def step_figures(scored: Sequence[Scored]) -> list[StepFigures]:
    """A row for each step, in the order in which the procedures list them."""
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for each in scored:
        for step in each.steps:
            rows[each.procedure_id, step["step_id"]].append(step)
    return [_step(key, table) for key, table in rows.items()]


def _step(key: tuple[str, str], table: Sequence[Mapping[str, Any]]) -> StepFigures:
    times = [float(step["duration_s"]) for step in table if step["spans"]]
    golds = [float(step["gold_duration_s"]) for step in table if step["gold_duration_s"] > 0]
    low, middle, high = (float(x) for x in np.quantile(times, [0.1, 0.5, 0.9])) if times else (None, None, None)
    statuses = Counter(step["status"] for step in table)
    return StepFigures(
        procedure_id=key[0],
        step_id=key[1],
        name=table[0]["name"],
        performed=len(times),
        missing=statuses["missing"],
        deviating=statuses["deviates"] + statuses["moved"],
        p10_s=low,
        median_s=middle,
        p90_s=high,
        gold_median_s=statistics.median(golds) if golds else None,
    )


def trends(scored: Sequence[Scored]) -> list[Trend]:
    """A chart for each operator and procedure, oldest evaluation first."""
    groups: dict[tuple[str, str], list[Scored]] = defaultdict(list)
    for each in sorted(scored, key=lambda row: (row.created_at, row.id)):
        if each.operator is not None:
            groups[each.operator, each.procedure_id].append(each)
    return [_trend(operator, procedure_id, rows) for (operator, procedure_id), rows in sorted(groups.items())]


def _trend(operator: str, procedure_id: str, rows: Sequence[Scored]) -> Trend:
    scores = [row.score for row in rows]
    centre, limits = control_limits(scores)
    runs = in_runs(scores, centre)
    points = tuple(
        Point(
            row.id,
            row.created_at,
            row.score,
            beyond_limits=limits is not None and not limits[0] <= row.score <= limits[1],
            in_run=runs[at],
        )
        for at, row in enumerate(rows)
    )
    low, high = limits or (None, None)
    return Trend(operator, procedure_id, centre, low, high, points)


def control_limits(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Centre line, and limits from the mean moving range; None while there are too few values."""
    centre = min(
        max(statistics.fmean(values), min(values)), max(values)
    )  # the mean of equal floats may miss them by a bit
    if len(values) < LEAST_POINTS:
        return centre, None
    spread = LIMIT_FACTOR * statistics.fmean(np.abs(np.diff(values)).tolist())
    return centre, (centre - spread, centre + spread)


def in_runs(values: Sequence[float], centre: float) -> list[bool]:
    """Whether each value is one of ``RUN_LENGTH`` or more in a row on one side of the centre."""
    marked = [False] * len(values)
    start = 0
    for at in range(1, len(values) + 1):
        if at == len(values) or np.sign(values[at] - centre) != np.sign(values[start] - centre):
            if at - start >= RUN_LENGTH and values[start] != centre:
                marked[start:at] = [True] * (at - start)
            start = at
    return marked


def time_saved(scored: Sequence[Scored], figures: Figures) -> Saved:
    """Judging every run by hand, less what the machine took and what reviewing took."""
    manual = len(scored) * figures.manual_minutes / 60
    machine = sum(each.compute_s for each in scored) / 3600
    review = sum(each.reviewed for each in scored) * figures.review_minutes / 60
    saved = manual - review
    cost = None if figures.hourly_cost is None else saved * figures.hourly_cost
    return Saved(len(scored), manual, machine, review, saved, cost)
