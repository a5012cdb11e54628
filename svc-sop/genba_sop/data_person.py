"""The person in the picture: arms by two-bone inverse kinematics, hands with fingers, a head that leans, clothes and
gloves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genba_sop.data_motion import Hand
from genba_sop.data_shapes import Bar, Canvas, Colour, Disc, Point, Poly, Pose, Sprite, shade


@dataclass(frozen=True)
class Looks:
    """Colours of one operator."""

    skin: Colour
    sleeve: Colour
    cuff: Colour
    glove: Colour
    cap: Colour
    build: float = 1.0  # thickness of arms, size of hands


def _hand_sprite(colour: Colour, *, grip: bool) -> Sprite:
    dark = shade(colour, 0.72)
    if grip:
        fingers = tuple(
            Bar(((8, -12 + 8 * i), (19, -10 + 7 * i), (14, -6 + 6 * i)), 7.5, shade(colour, 0.94)) for i in range(4)
        )
    else:
        fingers = tuple(
            Bar(((6, -12 + 8 * i), (30 - 2.5 * abs(i - 1), -15 + 10 * i)), 7, shade(colour, 0.96)) for i in range(4)
        )
    return (
        Disc((0, 0), 17, 17, dark),
        Disc((0, -1), 16, 15, colour),
        *fingers,
        Bar(((-4, 12), (10, 21), (18, 17)), 7.5, dark),
    )


def elbow(shoulder: Point, wrist: Point, length: float, side: int) -> Point:
    """The elbow of an arm of two equal bones; ``side`` +1 bends it to the right of the picture, -1 to the left."""
    across, middle, rise = _bones(shoulder, wrist, length)
    return middle[0] - across[0] * rise * side, middle[1] - across[1] * rise * side


def hanging_elbow(shoulder: Point, wrist: Point, length: float, side: int) -> Point:
    """The elbow of a person who faces the camera: outwards and down, towards the camera where neither is possible."""
    across, middle, rise = _bones(shoulder, wrist, length)
    bend = min(1.0, max(-1.0, 2.0 * (0.85 * side * across[0] + 0.53 * across[1])))
    return middle[0] + across[0] * rise * bend, middle[1] + across[1] * rise * bend


def _bones(shoulder: Point, wrist: Point, length: float) -> tuple[Point, Point, float]:
    """Unit vector across the arm, its middle, and how far the elbow stands off the middle."""
    dx, dy = wrist[0] - shoulder[0], wrist[1] - shoulder[1]
    distance = max(math.hypot(dx, dy), 1e-6)
    rise = math.sqrt(max((length / 2) ** 2 - (distance / 2) ** 2, 0.0))
    return (dy / distance, -dx / distance), (shoulder[0] + dx / 2, shoulder[1] + dy / 2), rise


class Person:
    """Draws one operator onto a canvas."""

    def __init__(self, looks: Looks, *, shoulders: tuple[Point, Point], arm_length: float, frontal: bool) -> None:
        self._looks, self._shoulders, self._arm_length, self._frontal = looks, shoulders, arm_length, frontal
        self._hands = {
            (gloved, grip): _hand_sprite(looks.glove if gloved else looks.skin, grip=grip)
            for gloved in (False, True)
            for grip in (False, True)
        }

    def arm(self, canvas: Canvas, hand: Hand, *, right: bool) -> None:
        """Sleeve, forearm and cuff up to the wrist."""
        looks = self._looks
        shoulder, (ex, ey) = self._joints(hand, right=right)
        dx, dy = hand.x - ex, hand.y - ey
        canvas.stroke(np.array((shoulder, (ex, ey))), 56 * looks.build, shade(looks.sleeve, 0.82))
        middle = (ex + 0.5 * dx, ey + 0.5 * dy)
        canvas.stroke(np.array(((ex, ey), middle)), 46 * looks.build, looks.sleeve)
        canvas.stroke(np.array((middle, (ex + 0.8 * dx, ey + 0.8 * dy))), 38 * looks.build, looks.sleeve)
        canvas.stroke(
            np.array(((ex + 0.72 * dx, ey + 0.72 * dy), (ex + 0.84 * dx, ey + 0.84 * dy))), 41 * looks.build, looks.cuff
        )

    def _joints(self, hand: Hand, *, right: bool) -> tuple[Point, Point]:
        shoulder = self._shoulders[1 if right else 0]
        bend = hanging_elbow if self._frontal else elbow
        return shoulder, bend(shoulder, (hand.x, hand.y), self._arm_length, 1 if right else -1)

    def hand(self, canvas: Canvas, hand: Hand, *, right: bool, gloved: bool, grip: bool) -> None:
        """Wrist, palm, fingers and thumb, in line with the forearm."""
        looks = self._looks
        _, (ex, ey) = self._joints(hand, right=right)
        dx, dy = hand.x - ex, hand.y - ey
        colour = looks.glove if gloved else looks.skin
        canvas.stroke(
            np.array(((ex + 0.82 * dx, ey + 0.82 * dy), (hand.x, hand.y))), 27 * looks.build, shade(colour, 0.9)
        )
        pose = Pose(hand.x, hand.y, math.atan2(dy, dx), looks.build)
        sprite = self._hands[gloved, grip]
        if not right:
            sprite = _mirrored(sprite)
        canvas.sprite(sprite, pose)

    def head(self, canvas: Canvas, x: float, y: float, *, glasses: bool) -> None:
        """The top of the head as seen over the shoulder: cap, neck, and the temples of the glasses."""
        looks = self._looks
        canvas.shapes(
            (
                Disc((x, y + 40), 60, 34, shade(looks.sleeve, 0.7)),
                Disc((x, y), 40, 36, shade(looks.cap, 0.75)),
                Disc((x, y - 2), 37, 32, looks.cap),
                Poly(((x - 26, y - 22), (x + 26, y - 22), (x + 20, y - 40), (x - 20, y - 40)), shade(looks.cap, 0.85)),
            )
        )
        if glasses:
            canvas.shapes(
                (
                    Bar(((x - 42, y + 6), (x - 36, y - 22), (x - 20, y - 32)), 5, (215, 205, 170)),
                    Bar(((x + 42, y + 6), (x + 36, y - 22), (x + 20, y - 32)), 5, (215, 205, 170)),
                )
            )

    def body(self, canvas: Canvas, dx: float, dy: float, worn: Sequence[Sprite]) -> None:
        """The whole person facing the camera, swaying by (dx, dy), with what is worn on top."""
        looks, pose = self._looks, Pose(dx, dy)
        (left, top), (right, _) = self._shoulders
        middle, wide = (left + right) / 2, 20 * looks.build
        canvas.sprite(
            (
                Poly(((left, 390), (right, 390), (right + 6, 480), (left - 6, 480)), shade(looks.cuff, 0.6)),
                Poly(
                    ((left - wide, top - 8), (middle, top - 26), (right + wide, top - 8), (right, 400), (left, 400)),
                    shade(looks.sleeve, 0.95),
                ),
                Bar(((middle, top - 20), (middle, 396)), 3, shade(looks.sleeve, 0.6)),
                Bar(((middle, top - 50), (middle, top - 14)), 34, shade(looks.skin, 0.85)),
                Disc((middle, 152), 40, 50, looks.skin),
                Disc((middle, 118), 41, 22, shade(looks.cap, 0.5)),
                Disc((middle - 15, 148), 5, 4, (60, 50, 50)),
                Disc((middle + 15, 148), 5, 4, (60, 50, 50)),
                Bar(((middle - 12, 180), (middle + 12, 180)), 4, (90, 90, 150)),
            ),
            pose,
        )
        for sprite in worn:
            canvas.sprite(sprite, pose)


def _mirrored(sprite: Sprite) -> Sprite:
    flipped: list[Bar | Disc | Poly] = []
    for shape in sprite:
        match shape:
            case Disc(centre=(x, y), rx=rx, ry=ry, colour=colour):
                flipped.append(Disc((x, -y), rx, ry, colour))
            case Bar(points=points, width=width, colour=colour):
                flipped.append(Bar(tuple((x, -y) for x, y in points), width, colour))
            case Poly(points=points, colour=colour):
                flipped.append(Poly(tuple((x, -y) for x, y in points), colour))
    return tuple(flipped)
