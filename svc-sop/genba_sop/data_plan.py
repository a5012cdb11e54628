"""What is planted in a generated run, and who performs it under which conditions. Sampled by seed; knows nothing of
pixels.

A run is a list of performances (a step, an extra action, idling) laid out on the clock; the truth of every planted
deviation follows from that layout, so it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, get_args

import numpy as np

from genba_sop.data_motion import Beat, Move, Stretch, Style
from genba_sop.data_person import Looks
from genba_sop.data_render import Clip, Codec, Light, Rotation
from genba_sop.data_scene import Kind
from genba_sop.evaluation import DeviationKind
from genba_sop.order import moved_steps, transitive_closure
from genba_sop.procedure import Span

_Row = TypeVar("_Row")
_IDLE = (Beat(1.0, Move("rest_right", dx=-6), Move("rest_left", dx=6)),)
_SKINS = ((120, 160, 205), (96, 130, 180), (150, 186, 228), (64, 92, 138), (82, 112, 160), (134, 172, 214))
_SLEEVES = ((120, 84, 54), (70, 70, 76), (54, 92, 60), (60, 60, 130), (140, 118, 96), (84, 64, 84))
_GLOVES = ((150, 95, 40), (52, 50, 52), (60, 130, 215), (90, 150, 90), (170, 170, 176))
_CAPS = ((110, 70, 40), (40, 90, 160), (60, 60, 64), (180, 180, 184), (50, 110, 60))


@dataclass(frozen=True)
class Planted:
    """A deviation to plant.

    amount:  too_fast, too_slow: ratio to the usual duration; idle, extra: seconds.   place: moved: the index among the
    performed steps where the step ends up; idle, extra: the index of the step before which it happens; repeated: how
    many steps later (0 = at once).
    name:    extra: which action.
    """

    kind: DeviationKind
    step_id: str | None = None
    amount: float = 0.0
    place: int = 0
    name: str = ""


@dataclass(frozen=True)
class Conditions:
    """How a run is recorded and at what pace: speed multiplies the tempo (1.4 = shorter), the rest goes into the clip."""

    speed: float = 1.0
    pan: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    tilt_rad: float = 0.0
    shake: float = 0.0
    light: Light = field(default_factory=Light)
    noise: float = 1.5
    variable_rate: bool = False
    rotation: Rotation = 0
    codec: Codec = "h264"
    free_order: bool = False  # steps that may swap are performed in another permitted order: no deviation

    def clip(self, size: tuple[int, int], fps: float) -> Clip:
        """The recording of these conditions at ``size`` (width, height)."""
        return Clip(
            *size,
            fps,
            self.pan,
            self.zoom,
            self.tilt_rad,
            self.shake,
            self.light,
            self.noise,
            self.variable_rate,
            self.rotation,
            self.codec,
        )


@dataclass(frozen=True)
class Plan:
    """What one variant of a benchmark is made of."""

    seed: int
    planted: tuple[Planted, ...]
    conditions: Conditions


@dataclass(frozen=True)
class Operator:
    """One person: looks, movement and tempo."""

    looks: Looks
    style: Style
    tempo: float
    tints: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Truth:
    """One planted deviation as it stands in the rendered video; a missing step has the moment where it should have
    been (start = end).
    """

    kind: DeviationKind
    step_id: str | None
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Run:
    """A run laid out on the clock."""

    stretches: tuple[Stretch, ...]
    spans: tuple[Span, ...]
    truth: tuple[Truth, ...]
    duration_s: float


def _pick(rows: Sequence[_Row], rng: np.random.Generator) -> _Row:
    return rows[int(rng.integers(len(rows)))]


def sample_operator(kind: Kind, rng: np.random.Generator) -> Operator:
    """A person by chance."""
    looks = Looks(
        _pick(_SKINS, rng),
        _pick(_SLEEVES, rng),
        _pick(_SLEEVES, rng),
        _pick(_GLOVES, rng),
        _pick(_CAPS, rng),
        float(rng.uniform(0.9, 1.12)),
    )
    style = Style(
        rate=float(rng.uniform(0.85, 1.2)),
        size=float(rng.uniform(0.88, 1.12)),
        bulge=float(rng.uniform(0.02, 0.2)),
        tremor=float(rng.uniform(0.5, 1.4)),
        offset=(float(rng.normal(0, 4)), float(rng.normal(0, 4))),
        phase=float(rng.uniform(0, 6.28)),
        reach_s=float(rng.uniform(0.7, 1.05)),
    )
    tints = {tool: float(rng.uniform(0.86, 1.12)) for tool in kind.scene.tools}
    return Operator(looks, style, float(rng.uniform(0.94, 1.06)), tints)


def sample_conditions(rng: np.random.Generator, *, strength: float = 1.0) -> Conditions:
    """Camera, light, noise and speed by chance; strength 0 is the gold's studio, 1 the benchmark's spread."""

    def spread(width: float) -> float:
        return float(rng.uniform(-width, width)) * strength

    return Conditions(
        speed=float(np.exp(rng.uniform(math.log(0.7), math.log(1.4)) * strength)),
        pan=(spread(16), spread(12)),
        zoom=1.0 + abs(spread(0.1)),
        tilt_rad=spread(0.03),
        shake=abs(spread(0.8)),
        light=Light(1.0 + spread(0.2), 1.0 + spread(0.2), spread(0.8), abs(spread(0.03))),
        noise=1.0 + abs(spread(5.0)),
        variable_rate=bool(rng.random() < 0.25 * strength),
        codec="mpeg4" if rng.random() < 0.2 * strength else "h264",
        rotation=_pick((90, 180, 270), rng) if rng.random() < 0.08 * strength else 0,
    )


@dataclass
class _Performance:
    """One thing done: a step (perhaps with a fault), an extra action or idling."""

    name: str
    beats: tuple[Beat, ...]
    length_s: float
    step_id: str | None
    planted: Planted | None = None


def sample_plans(kind: Kind, n: int, seed: int, *, clean_share: float = 0.12) -> tuple[Plan, ...]:
    """Plans of ``n`` runs: every deviation type in turn, alone or with up to two others elsewhere, and clean runs
    between them.
    """
    rng = np.random.default_rng((seed, 7))
    clean = round(n * clean_share)
    types = list(get_args(DeviationKind))
    plans = []
    for index in range(n):
        planted: tuple[Planted, ...] = ()
        if index >= clean:
            wanted = [types[index % len(types)]]
            others = [t for t in types if t != wanted[0] and t != "moved"]
            wanted += [str(t) for t in rng.choice(others, int(rng.choice([0, 0, 1, 1, 2])), replace=False)]
            planted = _plant(kind, wanted, rng)
        run_seed = int(rng.integers(1, 2**31))
        conditions = sample_conditions(np.random.default_rng((run_seed, 2)))
        plans.append(Plan(run_seed, planted, replace(conditions, free_order=not planted and index % 2 == 1)))
    return tuple(plans)


def _plant(kind: Kind, wanted: Sequence[str], rng: np.random.Generator) -> tuple[Planted, ...]:
    """One deviation per wanted type, on different steps that are not neighbours, so that no two truths touch."""
    free = set(range(len(kind.acts)))
    planted: list[Planted] = []
    for deviation in wanted:
        plant = _plant_one(kind, deviation, sorted(free), rng)
        if plant is None:
            continue
        planted.append(plant)
        ids = [act.id for act in kind.acts]
        places = [ids.index(plant.step_id)] if plant.step_id else [plant.place]
        if plant.kind in {"moved", "repeated"}:
            places.append(places[0] + plant.place + 1 if plant.kind == "repeated" else plant.place)
        free -= {place + shift for place in places for shift in (-1, 0, 1)}
    return tuple(planted)


def _plant_one(kind: Kind, deviation: str, free: Sequence[int], rng: np.random.Generator) -> Planted | None:
    acts = kind.acts
    match deviation:
        case "moved":
            return _some(_clear_moves(kind), rng)
        case "idle" | "extra":
            name = str(rng.choice(sorted(kind.extras))) if deviation == "extra" else ""
            spots = [Planted(deviation, None, float(rng.uniform(4.0, 8.0)), place, name) for place in free if place > 0]
        case "repeated":
            spots = [
                Planted(deviation, acts[at].id, 0.0, later)
                for at in free
                for later in (0, 1, 2)
                if at + later + 1 < len(acts) and set(range(at, at + later + 2)) <= set(free)
            ]
        case "wrong_tool":
            spots = [Planted(deviation, acts[at].id) for at in free if acts[at].swaps]
        case "execution":
            side = float(rng.choice([-1.0, 1.0]))
            spots = [Planted(deviation, acts[at].id, side) for at in free if acts[at].spoilable()]
        case "too_fast":
            spots = [Planted(deviation, acts[at].id, float(rng.uniform(0.27, 0.42))) for at in free]
        case "too_slow":
            spots = [Planted(deviation, acts[at].id, float(rng.uniform(2.3, 3.0))) for at in free]
        case _:
            spots = [Planted("missing", acts[at].id) for at in free]
    return _some(spots, rng)


def _some(spots: Sequence[Planted], rng: np.random.Generator) -> Planted | None:
    return spots[int(rng.integers(len(spots)))] if spots else None


def _clear_moves(kind: Kind) -> list[Planted]:
    """Every move of one step that inverts at least two bound pairs: then no other single step explains the new order."""
    ids = [act.id for act in kind.acts]
    closed = transitive_closure({step_id: kind.after(step_id) for step_id in ids})
    moves = []
    for step_id in ids:
        rest = [other for other in ids if other != step_id]
        for place in range(len(ids)):
            found = moved_steps(closed, [*rest[:place], step_id, *rest[place:]])
            if [v.step_id for v in found] == [step_id] and len(found[0].unmet) + len(found[0].blocked) >= 2:
                moves.append(Planted("moved", step_id, place=place))
    return moves


def permitted_order(kind: Kind, rng: np.random.Generator) -> tuple[str, ...]:
    """Step ids in an order that the procedure permits, by chance swaps of neighbours that do not bind each other."""
    ids = [act.id for act in kind.acts]
    closed = transitive_closure({step_id: kind.after(step_id) for step_id in ids})
    for _ in range(8 * len(ids)):
        at = int(rng.integers(len(ids) - 1))
        if ids[at] not in closed[ids[at + 1]]:
            ids[at], ids[at + 1] = ids[at + 1], ids[at]
    return tuple(ids)


def lay_out(
    kind: Kind, planted: Sequence[Planted], *, tempo: float, rng: np.random.Generator, free_order: bool = False
) -> Run:
    """Perform the procedure once with the planted deviations; ``tempo`` > 1 is quicker. Durations vary by about 7 %
    from step to step.
    """
    ids = permitted_order(kind, rng) if free_order else tuple(act.id for act in kind.acts)
    order = [_performance(kind, step_id, tempo, rng) for step_id in ids]
    for plant in planted:
        if plant.kind in {"too_fast", "too_slow", "wrong_tool", "execution"}:
            _alter(kind, order, plant, rng)
    missing = [plant for plant in planted if plant.kind == "missing"]
    for plant in planted:
        if plant.kind == "moved":
            source = _index(order, plant.step_id)
            moved = order.pop(source)
            moved.planted = plant
            order.insert(plant.place, moved)
    for plant in planted:
        if plant.kind in {"extra", "idle", "repeated"}:
            _insert(kind, order, plant, tempo, rng)
    anchors = [(plant, _neighbour(kind, order, plant, {m.step_id for m in missing})) for plant in missing]
    order = [item for item in order if item.step_id not in {plant.step_id for plant in missing}]
    return _clocked(order, anchors)


def _performance(kind: Kind, step_id: str, tempo: float, rng: np.random.Generator) -> _Performance:
    act = kind.act(step_id)
    length_s = act.base_s / tempo * float(np.exp(np.clip(rng.normal(0, 0.07), -0.15, 0.15)))
    return _Performance(step_id, _uneven(act.beats, rng), length_s, step_id)


def _uneven(beats: tuple[Beat, ...], rng: np.random.Generator) -> tuple[Beat, ...]:
    """Nobody spends the same share on each part twice."""
    return tuple(replace(beat, share=beat.share * float(rng.uniform(0.85, 1.18))) for beat in beats)


def _alter(kind: Kind, order: list[_Performance], plant: Planted, rng: np.random.Generator) -> None:
    item = order[_index(order, plant.step_id)]
    act = kind.act(str(plant.step_id))
    item.planted = plant
    match plant.kind:
        case "wrong_tool":
            item.beats = _uneven(act.with_swaps(), rng)
        case "execution":
            side = 1 if plant.amount >= 0 else -1
            item.beats = _uneven(act.spoiled(side * 58.0, 44.0), rng)
        case _:
            item.length_s = act.base_s * plant.amount


def _insert(kind: Kind, order: list[_Performance], plant: Planted, tempo: float, rng: np.random.Generator) -> None:
    if plant.kind == "repeated":
        again = _performance(kind, str(plant.step_id), tempo, rng)
        again.planted = plant
        order.insert(min(_index(order, plant.step_id) + 1 + plant.place, len(order)), again)
        return
    beats = _IDLE if plant.kind == "idle" else _uneven(kind.extras[plant.name], rng)
    steps = [index for index, item in enumerate(order) if item.step_id is not None]
    at = steps[plant.place] if plant.place < len(steps) else len(order)
    order.insert(at, _Performance(plant.name or plant.kind, beats, plant.amount, None, plant))


def _index(order: Sequence[_Performance], step_id: str | None) -> int:
    for index, item in enumerate(order):
        if item.step_id == step_id:
            return index
    message = f"step {step_id!r} is not in this run"
    raise ValueError(message)


def _neighbour(kind: Kind, order: Sequence[_Performance], plant: Planted, missing: set[str | None]) -> str | None:
    """The step after which a missing step should have been: the nearest earlier one that is performed."""
    ids = [act.id for act in kind.acts]
    performed = {item.step_id for item in order} - missing
    for step_id in reversed(ids[: ids.index(str(plant.step_id))]):
        if step_id in performed:
            return step_id
    return None


def _clocked(order: Sequence[_Performance], missing: Sequence[tuple[Planted, str | None]]) -> Run:
    stretches, spans, truth, now_s = [], [], [], 0.0
    for item in order:
        end_s = now_s + item.length_s
        stretches.append(Stretch(item.name, item.beats, now_s, end_s))
        if item.step_id is not None:
            spans.append(Span(item.step_id, now_s, end_s))
        if item.planted is not None:
            truth.append(Truth(item.planted.kind, item.step_id, now_s, end_s))
        now_s = end_s
    for plant, before in missing:
        at_s = next((span.end_s for span in spans if span.step_id == before), 0.0)
        truth.append(Truth("missing", plant.step_id, at_s, at_s))
    truth.sort(key=lambda item: (item.start_s, item.kind))
    return Run(tuple(stretches), tuple(spans), tuple(truth), now_s)
