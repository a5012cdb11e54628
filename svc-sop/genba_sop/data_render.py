"""Turn a choreography into frames and frames into a video file: scene, state of the objects, light, noise, clock,
encoder.

Knows nothing of procedures or deviations; the choreography already says who does what when.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
import numpy.typing as npt

from genba_sop.data_motion import Choreography, Effect, Hand, Moment
from genba_sop.data_person import Looks, Person
from genba_sop.data_scene import Scene
from genba_sop.data_shapes import Camera, Canvas, Colour, Disc, Image, Pose, Sprite, shade

Codec = Literal["h264", "mpeg4"]
Rotation = Literal[0, 90, 180, 270]
_TIME_BASE = Fraction(1, 90_000)
_NOISE_FIELDS = 6
_STILL = 0.2  # pixels of shake that a tripod has; not worth a resampling


@dataclass(frozen=True)
class Light:
    """gain multiplies, gamma bends, warmth in [-1, 1] shifts blue to red, flicker is a slow share of the gain."""

    gain: float = 1.0
    gamma: float = 1.0
    warmth: float = 0.0
    flicker: float = 0.0


@dataclass(frozen=True)
class Clip:
    """How the video is recorded. ``shake`` in pixels of a 320-wide frame; ``noise`` is the standard deviation of the
    sensor in grey levels.
    """

    width: int
    height: int
    fps: float
    camera_pan: tuple[float, float] = (0.0, 0.0)
    camera_zoom: float = 1.0
    camera_tilt_rad: float = 0.0
    shake: float = 0.0
    light: Light = field(default_factory=Light)
    noise: float = 1.5
    variable_rate: bool = False
    rotation: Rotation = 0
    codec: Codec = "h264"


class Painter:
    """Draws the picture of one moment. Keeps the still part of the scene per state of its objects."""

    def __init__(
        self,
        scene: Scene,
        choreography: Choreography,
        person: Person,
        clip: Clip,
        *,
        rng: np.random.Generator,
        tints: Mapping[str, float],
    ) -> None:
        self._scene, self._choreography, self._person = scene, choreography, person
        camera = Camera(clip.width, clip.height, *clip.camera_pan, clip.camera_zoom, clip.camera_tilt_rad)
        self._canvas = Canvas(camera, _bench(clip.width, clip.height, rng))
        self._canvas.shapes(scene.base)
        _grain(self._canvas.image, rng)
        if not scene.frontal:
            self._clutter(rng)
        self._tints = tints
        self._stills: dict[tuple[tuple[str, str], ...], Image] = {}
        self._states = self._per_beat_states()

    def frame(self, time_s: float) -> Image:
        """The picture at ``time_s``, before light and noise: (height, width, 3) uint8 in blue, green, red."""
        moment = self._choreography.at(time_s)
        state = self._states[moment.index]
        canvas = self._canvas.over(self._still(state, moment))
        if moment.beat.effect is not None:
            self._flow(canvas, moment.beat.effect, moment, time_s)
        gloved = state.get("gloves") == "on"
        if self._scene.frontal:
            self._body(canvas, state, time_s)
        else:
            self._head(canvas, moment, glasses=state.get("glasses_on") == "on")
        beat = moment.beat
        for hand, right in ((moment.left, False), (moment.right, True)):
            self._person.arm(canvas, hand, right=right)
        if beat.tool is not None and beat.both:
            between = Hand((moment.left.x + moment.right.x) / 2, (moment.left.y + moment.right.y) / 2 - 6, 0.0)
            self._tool(canvas, beat.tool, between, 0.0)
        elif beat.tool is not None:
            self._tool(canvas, beat.tool, moment.right, moment.right.aim_rad)
        if beat.left_tool is not None:
            self._tool(canvas, beat.left_tool, moment.left, moment.left.aim_rad)
        self._person.hand(canvas, moment.left, right=False, gloved=gloved, grip=beat.left_tool is not None or beat.both)
        self._person.hand(canvas, moment.right, right=True, gloved=gloved, grip=beat.tool is not None)
        return canvas.image

    def _head(self, canvas: Canvas, moment: Moment, *, glasses: bool) -> None:
        """The head leans towards the hands."""
        x, y = self._scene.head
        x += 0.06 * (moment.right.x + moment.left.x - 640)
        y += 0.05 * (moment.right.y + moment.left.y - 860)
        self._person.head(canvas, x, y, glasses=glasses)

    def _body(self, canvas: Canvas, state: Mapping[str, str], time_s: float) -> None:
        worn = [states[state[name]] for name, states in self._scene.objects.items()]
        self._person.body(canvas, 1.6 * math.sin(0.9 * time_s), 1.2 * math.sin(1.4 * time_s + 0.7), worn)

    def _tool(self, canvas: Canvas, tool: str, hand: Hand, angle_rad: float) -> None:
        tint = self._tints.get(tool, 1.0)
        sprite = self._scene.tools[tool]
        canvas.sprite(sprite if tint == 1.0 else _tinted(sprite, tint), Pose(hand.x, hand.y, angle_rad))

    def _per_beat_states(self) -> list[dict[str, str]]:
        state, states = self._scene.initial_state(), []
        for beat in self._choreography.beats:
            states.append(dict(state))
            state.update(beat.sets)
        return states

    def _still(self, state: Mapping[str, str], moment: Moment) -> Image:
        held = {moment.beat.tool, moment.beat.left_tool}
        key = (*sorted(state.items()), *sorted(("held", tool) for tool in held if tool is not None))
        if key not in self._stills:
            canvas = self._canvas.over(self._canvas.image)
            if not self._scene.frontal:
                for name, states in self._scene.objects.items():
                    canvas.shapes(states[state[name]])
            for tool, (x, y) in self._scene.homes.items():
                if tool not in held and state.get(tool) != "gone":
                    self._tool(canvas, tool, Hand(x, y, 0.0), self._scene.home_angles.get(tool, 0.0))
            self._stills[key] = canvas.image
        return self._stills[key]

    def _flow(self, canvas: Canvas, effect: Effect, moment: Moment, time_s: float) -> None:
        x, y = self._scene.anchors[effect.at]
        x += effect.dx
        swing = 1.5 * math.sin(9.0 * time_s)
        if 0.12 < moment.progress < 0.97:
            stream = np.array(((x, y - effect.height), (x + swing, y - 0.5 * effect.height), (x - swing, y)))
            canvas.stroke(stream, 6, effect.colour)
            ripple = 10 + 6 * math.sin(5.0 * time_s) + 26 * moment.progress
            canvas.shapes((Disc((x, y + 2), ripple, 0.4 * ripple, effect.colour),))

    def _clutter(self, rng: np.random.Generator) -> None:
        """A few bolts, washers and spots that differ from bench to bench."""
        for _ in range(int(rng.integers(4, 10))):
            x, y = float(rng.uniform(10, 630)), float(rng.choice([rng.uniform(120, 150), rng.uniform(340, 470)]))
            size = float(rng.uniform(3, 9))
            tone = int(rng.integers(60, 190))
            self._canvas.shapes((Disc((x, y), size, 0.8 * size, (tone, tone, min(255, tone + 12))),))


def _tinted(sprite: Sprite, factor: float) -> Sprite:
    return tuple(replace(shape, colour=shade(shape.colour, factor)) for shape in sprite)


def _bench(width: int, height: int, rng: np.random.Generator) -> Image:
    """A worn bench: planks with grain, drawn once."""
    colour: Colour = (104, 128, 150)
    image = np.empty((height, width, 3), np.float32)
    image[:] = colour
    coarse = rng.normal(0, 1, (max(2, height // 6), max(2, width // 48))).astype(np.float32)
    image += 11 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    plank = max(8, height // 7)
    image[::plank] -= 26
    return np.clip(image, 0, 255).astype(np.uint8)


def _grain(image: Image, rng: np.random.Generator) -> None:
    """Stains and wear over everything that stands still, in place."""
    height, width = image.shape[:2]
    stains = rng.normal(0, 1, (12, 16)).astype(np.float32)
    fine = rng.normal(0, 1, (height, width)).astype(np.float32)
    wear = 5 * cv2.resize(stains, (width, height), interpolation=cv2.INTER_CUBIC) + 3 * cv2.GaussianBlur(
        fine, (0, 0), 1.0
    )
    image[:] = np.clip(image + wear[..., None], 0, 255).astype(np.uint8)


class Sensor:
    """Light, shake and noise of the camera, applied to a drawn frame."""

    def __init__(self, clip: Clip, rng: np.random.Generator) -> None:
        self._clip = clip
        self._phase = float(rng.uniform(0, 6.28))
        side = max(clip.height, clip.width) + 16
        grey_levels = max(clip.noise, 1e-3)
        self._noise = [rng.normal(0, grey_levels, (side, side)).astype(np.float32) for _ in range(_NOISE_FIELDS)]
        self._rng = rng
        self._table = self._lookup(1.0)

    def __call__(self, image: Image, time_s: float) -> Image:
        """The frame as recorded: (height, width, 3) uint8."""
        clip = self._clip
        if clip.shake > _STILL:
            amount = clip.shake * clip.width / 320
            dx = amount * (math.sin(1.9 * time_s + self._phase) + 0.5 * math.sin(4.3 * time_s))
            dy = amount * (math.sin(1.6 * time_s + 2 * self._phase) + 0.5 * math.sin(5.1 * time_s))
            image = cv2.warpAffine(
                image, np.array(((1, 0, dx), (0, 1, dy))), (clip.width, clip.height), borderMode=cv2.BORDER_REPLICATE
            )
        if clip.light.flicker > 0:
            self._table = self._lookup(1.0 + clip.light.flicker * math.sin(0.7 * time_s + self._phase))
        recorded: Image = cv2.LUT(image, self._table)
        return recorded

    def grain(self, luma: npt.NDArray[np.uint8]) -> None:
        """Sensor noise on the luma plane, in place."""
        if self._clip.noise <= 0:
            return
        field = self._noise[int(self._rng.integers(_NOISE_FIELDS))]
        y, x = (int(v) for v in self._rng.integers(0, 16, 2))
        height, width = luma.shape
        cv2.add(luma, field[y : y + height, x : x + width], dst=luma, dtype=cv2.CV_8U)

    def _lookup(self, factor: float) -> Image:
        light = self._clip.light
        ramp = (np.arange(256) / 255.0) ** light.gamma * 255.0 * light.gain * factor
        channels = (ramp * (1 - 0.12 * light.warmth), ramp, ramp * (1 + 0.12 * light.warmth))
        return np.clip(np.stack(channels, 1), 0, 255).astype(np.uint8)[None]


def clock(duration_s: float, clip: Clip, rng: np.random.Generator) -> list[float]:
    """The presentation times: even, or irregular as a phone writes them (rate drifts, frames are dropped, stalls of up
    to 0.3 s).
    """
    step_s = 1.0 / clip.fps
    if not clip.variable_rate:
        return [index * step_s for index in range(max(1, round(duration_s * clip.fps)))]
    times_s, now_s = [], 0.0
    drift = float(rng.uniform(0, 6.28))
    while now_s < duration_s - 1e-9:
        times_s.append(now_s)
        pace = 1.0 + 0.45 * math.sin(0.25 * now_s + drift)
        gap_s = step_s * pace * float(rng.uniform(0.7, 1.3))
        if rng.random() < 0.03:
            gap_s += float(rng.uniform(0.05, 0.3))
        now_s += gap_s
    return times_s


def write_video(path: Path, frames: Iterator[tuple[float, Image]], clip: Clip, sensor: Sensor) -> int:
    """Encode frames at their times; returns how many. A rotation is stored as a flag over turned pixels, as phones do."""
    turned = clip.rotation in {90, 270}
    count = 0
    with av.open(str(path), "w", format="mp4") as container:
        rate = Fraction(clip.fps).limit_denominator(1001)
        stream = container.add_stream("libx264" if clip.codec == "h264" else "mpeg4", rate=rate)
        stream.width, stream.height = (clip.height, clip.width) if turned else (clip.width, clip.height)
        stream.pix_fmt = "yuv420p"
        stream.time_base = _TIME_BASE
        context = stream.codec_context
        context.time_base = _TIME_BASE if clip.codec == "h264" else Fraction(1, 1000)
        context.gop_size = max(1, round(2 * clip.fps))
        if clip.codec == "h264":
            stream.options = {"preset": "ultrafast", "crf": "26", "threads": "1"}
        else:
            stream.options = {"qscale": "5"}
            context.flags |= 2  # AV_CODEC_FLAG_QSCALE
            context.global_quality = 5 * 118
        if clip.rotation:
            stream.set_display_rotation(-clip.rotation)
        for time_s, image in frames:
            recorded = sensor(image, time_s)
            if clip.rotation:
                recorded = np.ascontiguousarray(np.rot90(recorded, clip.rotation // 90))
            planes = cv2.cvtColor(recorded, cv2.COLOR_BGR2YUV_I420)
            sensor.grain(planes[: recorded.shape[0]])
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.time_base = context.time_base
            frame.pts = round(time_s / context.time_base)
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode())
    return count


def render(
    path: Path,
    *,
    painter: Painter,
    clip: Clip,
    duration_s: float,
    rng: np.random.Generator,
    progress: Callable[[float], None] | None = None,
) -> int:
    """Draw and encode a whole run; ``progress`` gets the share done. Returns the number of frames."""
    times_s = clock(duration_s, clip, rng)

    def frames() -> Iterator[tuple[float, Image]]:
        for index, time_s in enumerate(times_s):
            yield time_s, painter.frame(time_s)
            if progress is not None and index % 50 == 0:
                progress(index / len(times_s))

    return write_video(path, frames(), clip, Sensor(clip, rng))


def draw_person(scene: Scene, looks: Looks) -> Person:
    """The operator of a scene."""
    return Person(looks, shoulders=scene.shoulders, arm_length=scene.arm_length, frontal=scene.frontal)
