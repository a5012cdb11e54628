"""Real video files with known truth: gold runs, a trainee, and seeded variants with planted deviations.

Used by ``genba sop demo-videos``, by the demo and by the benchmarks. Knows nothing of how a run is scored.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from genba_sop.data_brake_pad import BRAKE_PAD
from genba_sop.data_hand_wash import HAND_WASH
from genba_sop.data_kit_packing import KIT_PACKING
from genba_sop.data_motion import Choreography
from genba_sop.data_oil_change import OIL_CHANGE
from genba_sop.data_plan import (
    Conditions,
    Plan,
    Planted,
    Run,
    Truth,
    lay_out,
    sample_conditions,
    sample_operator,
    sample_plans,
)
from genba_sop.data_ppe import PPE
from genba_sop.data_render import Light, Painter, Rotation, draw_person, render
from genba_sop.data_scene import Kind
from genba_sop.procedure import Procedure, Span, Step

__all__ = (
    "KINDS",
    "Conditions",
    "DemoSet",
    "Light",
    "Plan",
    "Planted",
    "Rotation",
    "Truth",
    "VariantTruth",
    "generate",
    "lay_out_run",
    "plans",
    "procedure",
    "variant",
)

KINDS: dict[str, Kind] = {kind.id: kind for kind in (OIL_CHANGE, BRAKE_PAD, PPE, HAND_WASH, KIT_PACKING)}
DEMO_SIZE, DEMO_FPS = (640, 480), 25.0
BENCHMARK_SIZE, BENCHMARK_FPS = (320, 240), 15.0
Progress = Callable[[float, str], None]  # share done in [0, 1], what is being made


@dataclass(frozen=True)
class VariantTruth:
    """One rendered video and all that is known of it. ``spans`` are the steps as performed, ``truth`` the planted
    deviations.
    """

    path: Path
    kind: str
    seed: int
    duration_s: float
    frame_count: int
    spans: tuple[Span, ...]
    truth: tuple[Truth, ...]
    conditions: Conditions

    def document(self) -> dict[str, Any]:
        """As JSON; the path is only the file's name."""
        return {**asdict(self), "path": self.path.name}


@dataclass(frozen=True)
class DemoSet:
    """What ``generate`` has written."""

    kind: str
    procedure: Procedure
    golds: tuple[VariantTruth, ...]
    trainee: VariantTruth
    steps_path: Path
    truth_path: Path


def procedure(kind: str) -> Procedure:
    """The procedure of a generated set as the service knows it."""
    made = _kind(kind)
    steps = tuple(
        Step(
            id=act.id,
            name=act.name,
            after=made.after(act.id),
            critical=act.critical,
            optional=act.optional,
            min_s=round(0.45 * act.base_s, 1),
            max_s=round(2.1 * act.base_s, 1),
            tool=act.tool,
            severity=act.severity,
            action=act.action,
        )
        for act in made.acts
    )
    return Procedure(made.id, 1, made.title, steps)


def generate(
    kind: str,
    out: Path,
    *,
    seed: int = 0,
    golds: int = 3,
    size: tuple[int, int] = DEMO_SIZE,
    fps: float = DEMO_FPS,
    progress: Progress | None = None,
) -> DemoSet:
    """Write a demo set into ``out``: gold_1.mp4 …, trainee.mp4, steps.yaml with the golds' spans, truth.json.

    Raises: ValueError for an unknown kind or golds < 1.
    """
    made = _kind(kind)
    if golds < 1:
        message = f"golds is {golds}, needs at least 1"
        raise ValueError(message)
    out.mkdir(parents=True, exist_ok=True)
    shown = _Shown(golds + 1, progress)
    planted = tuple(Planted(deviation, step_id) for deviation, step_id in made.trainee)

    def gold(n: int) -> VariantTruth:
        path, own = out / f"gold_{n + 1}.mp4", _seed(seed, n)
        return _make(made, path, own, (), _gold_conditions(own), size, fps, shown.part(n, path.name))

    def trainee_run() -> VariantTruth:
        path, own = out / "trainee.mp4", _seed(seed, 1000)
        conditions = replace(_gold_conditions(own), speed=1.03)
        return _make(made, path, own, planted, conditions, size, fps, shown.part(golds, path.name))

    # OpenCV and FFmpeg let go of the interpreter's lock, so threads use all cores; every run has its own generators.
    with ThreadPoolExecutor(max_workers=min(golds + 1, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(gold, n) for n in range(golds)]
        trainee = pool.submit(trainee_run).result()
        gold_truths = tuple(future.result() for future in futures)
    demo = DemoSet(kind, procedure(kind), gold_truths, trainee, out / "steps.yaml", out / "truth.json")
    demo.steps_path.write_text(_steps_yaml(made, gold_truths), encoding="utf-8")
    document = {
        "kind": kind,
        "seed": seed,
        "golds": [gold.document() for gold in gold_truths],
        "trainee": trainee.document(),
    }
    demo.truth_path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if progress is not None:
        progress(1.0, "done")
    return demo


def variant(
    kind: str,
    out: Path,
    *,
    seed: int,
    plan: Sequence[Planted] | None = None,
    conditions: Conditions | None = None,
    size: tuple[int, int] = BENCHMARK_SIZE,
    fps: float = BENCHMARK_FPS,
) -> VariantTruth:
    """Write one run to the file ``out``. Without ``plan`` nothing is planted; without ``conditions`` they are sampled
    from the seed.
    """
    made = _kind(kind)
    out.parent.mkdir(parents=True, exist_ok=True)
    chosen = sample_conditions(np.random.default_rng((seed, 2))) if conditions is None else conditions
    return _make(made, out, seed, tuple(plan or ()), chosen, size, fps, None)


def plans(kind: str, n: int, seed: int = 0) -> tuple[Plan, ...]:
    """Seeded plans of ``n`` variants that cover every deviation type, and clean runs. Render one with::

    variant(kind, out, seed=plan.seed, plan=plan.planted, conditions=plan.conditions)
    """
    return sample_plans(_kind(kind), n, seed)


class _Shown:
    """Progress of several runs at once as one rising share."""

    def __init__(self, parts: int, progress: Progress | None) -> None:
        self._shares, self._progress, self._lock = [0.0] * parts, progress, threading.Lock()

    def part(self, index: int, name: str) -> Callable[[float], None] | None:
        """Where run ``index`` reports."""
        progress = self._progress
        if progress is None:
            return None

        def report(share: float) -> None:
            with self._lock:
                self._shares[index] = share
                progress(sum(self._shares) / len(self._shares), name)

        return report


def _kind(kind: str) -> Kind:
    if kind not in KINDS:
        message = f"unknown kind {kind!r}; one of {', '.join(KINDS)}"
        raise ValueError(message)
    return KINDS[kind]


def _seed(seed: int, index: int) -> int:
    return seed * 100_003 + index


def _gold_conditions(seed: int) -> Conditions:
    return replace(
        sample_conditions(np.random.default_rng((seed, 2)), strength=0.25), speed=1.0, variable_rate=False, codec="h264"
    )


def lay_out_run(kind: str, *, seed: int, plan: Sequence[Planted] = (), conditions: Conditions | None = None) -> Run:
    """The run that ``variant`` renders for the same arguments, without rendering it."""
    made = _kind(kind)
    chosen = sample_conditions(np.random.default_rng((seed, 2))) if conditions is None else conditions
    operator = sample_operator(made, np.random.default_rng((seed, 0)))
    rng = np.random.default_rng((seed, 1))
    return lay_out(made, plan, tempo=operator.tempo * chosen.speed, rng=rng, free_order=chosen.free_order)


def _make(
    made: Kind,
    path: Path,
    seed: int,
    planted: tuple[Planted, ...],
    conditions: Conditions,
    size: tuple[int, int],
    fps: float,
    progress: Callable[[float], None] | None,
) -> VariantTruth:
    operator = sample_operator(made, np.random.default_rng((seed, 0)))
    run = lay_out_run(made.id, seed=seed, plan=planted, conditions=conditions)
    rng = np.random.default_rng((seed, 3))
    clip = conditions.clip(size, fps)
    choreography = Choreography(run.stretches, anchors=made.scene.anchors, homes=made.scene.homes, style=operator.style)
    painter = Painter(
        made.scene, choreography, draw_person(made.scene, operator.looks), clip, rng=rng, tints=operator.tints
    )
    count = render(path, painter=painter, clip=clip, duration_s=run.duration_s, rng=rng, progress=progress)
    return VariantTruth(path, made.id, seed, run.duration_s, count, run.spans, run.truth, conditions)


def _steps_yaml(made: Kind, golds: Sequence[VariantTruth]) -> str:
    steps = []
    for step in procedure(made.id).steps:
        act = made.act(step.id)
        steps.append(
            {
                "id": step.id,
                "name": asdict(step.name),
                "order": "any" if act.group is not None else "ordered",
                "after": list(step.after),
                "optional": step.optional,
                "critical": step.critical,
                "min_s": step.min_s,
                "max_s": step.max_s,
                "tool": step.tool,
                "weight": step.weight,
                "severity": step.severity,
                "action": asdict(step.action),
            }
        )
    document = {
        "title": asdict(made.title),
        "steps": steps,
        "golds": [
            {
                "video": gold.path.name,
                "steps": [
                    {"id": span.step_id, "start_s": round(span.start_s, 3), "end_s": round(span.end_s, 3)}
                    for span in gold.spans
                ],
            }
            for gold in golds
        ],
    }
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False, width=120)
