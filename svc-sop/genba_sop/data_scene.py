"""What a scene and a procedure of the generated videos consist of: places, tools, objects with states, and the acts of
each step.

Pure values. The scenes themselves stand in modules of their own (``data_oil_change`` and others).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from genba_sop.data_motion import TOOL, Beat, Move
from genba_sop.data_shapes import Point, Shape, Sprite
from genba_sop.evaluation import DeviationKind
from genba_sop.procedure import Severity, Text


@dataclass(frozen=True)
class Scene:
    """A place of work in world units (640 × 480).

    base: what never changes.   objects: name → state → shapes, drawn over the base; the first state named is the
    initial one.
    tools: name → sprite; homes: where each lies while no hand holds it (a tool whose state is "gone" is not drawn).
    """

    base: tuple[Shape, ...]
    objects: Mapping[str, Mapping[str, Sprite]]
    tools: Mapping[str, Sprite]
    homes: Mapping[str, Point]
    home_angles: Mapping[str, float]
    anchors: Mapping[str, Point]
    shoulders: tuple[Point, Point]  # left, right
    arm_length: float = 300.0
    frontal: bool = False  # the person faces the camera (putting on PPE), else the camera looks over the shoulder
    head: Point = (322.0, 500.0)

    def initial_state(self) -> dict[str, str]:
        """Every object in the first of its states."""
        return {name: next(iter(states)) for name, states in self.objects.items()}


@dataclass(frozen=True)
class Act:
    """A step as it is performed and as it is described.

    base_s: its usual duration.   group: steps of one group may be done in any order.   after: overrides the default order.
    swaps: the tool that a careless operator takes instead (planted as wrong_tool).
    swap_states: (object, state) → the state that the wrong part leaves behind.
    """

    id: str
    name: Text
    action: Text
    base_s: float
    beats: tuple[Beat, ...]
    tool: str | None = None
    swaps: Mapping[str, str] = field(default_factory=dict)
    swap_states: Mapping[tuple[str, str], str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    group: str | None = None
    critical: bool = False
    optional: bool = False
    severity: Severity = "major"

    def with_swaps(self) -> tuple[Beat, ...]:
        """The same beats with the wrong tool in the hand, and with what the wrong part leaves behind."""
        return tuple(
            replace(
                beat,
                tool=self.swaps.get(beat.tool or "", beat.tool),
                left_tool=self.swaps.get(beat.left_tool or "", beat.left_tool),
                sets={self.swaps.get(k, k): self.swap_states.get((k, v), v) for k, v in beat.sets.items()},
            )
            for beat in self.beats
        )

    def spoilable(self) -> bool:
        """Whether there is work in this step that can be done badly."""
        return any(beat.work for beat in self.beats)

    def spoiled(self, dx: float, dy: float) -> tuple[Beat, ...]:
        """The same tools and about the same time, but the work is done badly: beside its place, and by dabbing instead
        of the proper motion.
        """
        return tuple(_spoil(beat, dx, dy) if beat.work else beat for beat in self.beats)


def _spoil(beat: Beat, dx: float, dy: float) -> Beat:
    def bad(move: Move) -> Move:
        if move.at.startswith("rest") or move.at == TOOL:
            return move
        moved = replace(move, dx=move.dx + dx, dy=move.dy + dy)
        if move.motion in {"hold", "pour"}:
            return moved
        if move.motion == "pump":
            return replace(moved, motion="wipe", size=0.8 * move.size)
        return replace(moved, motion="pump", size=max(14.0, 0.4 * move.size), rate_hz=0.6 * move.rate_hz, aim=-60.0)

    effect = None if beat.effect is None else replace(beat.effect, dx=beat.effect.dx + dx)
    return replace(beat, right=bad(beat.right), left=bad(beat.left), effect=effect)


@dataclass(frozen=True)
class Kind:
    """One procedure of the generated set."""

    id: str
    title: Text
    scene: Scene
    acts: tuple[Act, ...]
    extras: Mapping[str, tuple[Beat, ...]]  # actions that no step contains
    trainee: tuple[tuple[DeviationKind, str], ...]  # what the demo trainee does wrong: (deviation kind, step id)

    def act(self, step_id: str) -> Act:
        """The act of one step."""
        return next(act for act in self.acts if act.id == step_id)

    def after(self, step_id: str) -> tuple[str, ...]:
        """The direct preconditions of a step: named ones, else the group or the single step before its own group."""
        ids = [act.id for act in self.acts]
        index = ids.index(step_id)
        act = self.acts[index]
        if act.after:
            return act.after
        while act.group is not None and index > 0 and self.acts[index - 1].group == act.group:
            index -= 1
        if index == 0:
            return ()
        previous = self.acts[index - 1]
        if previous.group is None:
            return (previous.id,)
        return tuple(other.id for other in self.acts[:index] if other.group == previous.group)
