"""Good runs as people really film them: none of this may raise an alarm.

Protocol. One clean run of each procedure (nothing planted; a calm camera, as golds have) is rendered, decoded, disturbed in one way
and written anew, and then evaluated against golds that were filmed well: a hand that shakes, an exposure that changes half-way, a
mirrored picture, a larger or smaller one, other frame rates, the first and last second cut off, people waiting before and after,
H.265 in MKV, VP9 in WebM, a telephone held upright, a picture that is out of focus, heavy compression, a black edge. Printed are the
deviations that were found (all of them false), the score, and the verdict.

Run: python benchmarks/sop_disturbed.py [--cache FOLDER] [--golds 5] [--kinds …]
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import numpy.typing as npt

from genba_sop import data
from genba_sop.scoring import evaluate
from genba_sop.video import extract

if TYPE_CHECKING:
    from benchmarks.sop_deviations import KINDS, PATIENT, TUNING, Corpus, gold_plan, prepare
else:  # beside this script
    from sop_deviations import KINDS, PATIENT, TUNING, Corpus, gold_plan, prepare

Image = npt.NDArray[np.uint8]
Film = Sequence[tuple[float, Image]]  # presentation time in seconds, (H, W, 3) blue, green, red
RUN = 4_711  # seed of the run that is disturbed


@dataclass(frozen=True)
class Written:
    """How a film is written: container, encoder and its options."""

    suffix: str = ".mp4"
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: {"preset": "veryfast", "crf": "23"})


@dataclass(frozen=True)
class Disturbance:
    """What happens to the film, and how it is written."""

    name: str
    change: Callable[[Film], Film]
    written: Written = Written()


def each(change: Callable[[Image, float], Image]) -> Callable[[Film], Film]:
    """Change picture by picture."""
    return lambda film: [(time_s, change(image, time_s)) for time_s, image in film]


def shaken(image: Image, time_s: float) -> Image:
    """A hand-held camera: up to 1.5 % of the picture and a degree, at 1 to 3 Hz."""
    height, width = image.shape[:2]
    sway = [math.sin(2 * math.pi * f * time_s + p) for f, p in ((1.1, 0.0), (1.7, 1.0), (2.9, 2.0), (0.7, 0.5))]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 0.8 * sway[3], 1.03)
    matrix[:, 2] += (0.010 * width * sway[0] + 0.005 * width * sway[2], 0.012 * height * sway[1])
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def lit(gain: float) -> Callable[[Image], Image]:
    """Brighter or darker."""
    return lambda image: np.asarray(cv2.convertScaleAbs(image, alpha=gain), np.uint8)


def exposed_anew(film: Film) -> Film:
    """The automatic exposure goes down by a third within a second, half-way."""
    half_s = film[-1][0] / 2
    gains = [1.0 - 0.35 * min(1.0, max(0.0, time_s - half_s)) for time_s, _ in film]
    return [(time_s, lit(gain)(image)) for gain, (time_s, image) in zip(gains, film, strict=True)]


def sized(width: int, height: int) -> Callable[[Film], Film]:
    """Another resolution."""
    return each(lambda image, _: np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8))


def at_rate(fps: float) -> Callable[[Film], Film]:
    """Another frame rate: the nearest picture is shown."""

    def change(film: Film) -> Film:
        times_s = np.array([time_s for time_s, _ in film])
        asked = np.arange(0, times_s[-1], 1 / fps)
        return [(float(t), film[int(abs(times_s - t).argmin())][1]) for t in asked]

    return change


def cut(first_s: float, last_s: float) -> Callable[[Film], Film]:
    """Without the first and last moments."""

    def change(film: Film) -> Film:
        end_s = film[-1][0] - last_s
        return [(time_s - first_s, image) for time_s, image in film if first_s <= time_s <= end_s]

    return change


def waiting(before_s: float, after_s: float) -> Callable[[Film], Film]:
    """The camera runs before the work begins and after it ended, with its noise."""

    def change(film: Film) -> Film:
        rng, step_s = np.random.default_rng(1), film[1][0] - film[0][0]

        def noisy(image: Image) -> Image:
            noise = rng.normal(0, 2, image.shape)
            return np.asarray(np.clip(image + noise, 0, 255), np.uint8)

        before = [(k * step_s, noisy(film[0][1])) for k in range(round(before_s / step_s))]
        start_s = len(before) * step_s
        moved = [(start_s + time_s, image) for time_s, image in film]
        end_s = moved[-1][0]
        after = [(end_s + (k + 1) * step_s, noisy(film[-1][1])) for k in range(round(after_s / step_s))]
        return [*before, *moved, *after]

    return change


def upright(image: Image, _: float) -> Image:
    """A telephone held upright: the middle 9:16 of a picture would lose the work, so people step back: all of it, small, with
    floor and ceiling.
    """
    height, width = image.shape[:2]
    wide = 360
    small = cv2.resize(image, (wide, height * wide // width), interpolation=cv2.INTER_AREA)
    above = (640 - small.shape[0]) // 2
    below = 640 - small.shape[0] - above
    return np.asarray(cv2.copyMakeBorder(small, above, below, 0, 0, cv2.BORDER_REFLECT_101), np.uint8)


def edged(image: Image, _: float) -> Image:
    """A black edge of a tenth, as screen recordings have."""
    y, x = image.shape[0] // 10, image.shape[1] // 10
    return np.asarray(cv2.copyMakeBorder(image, y, y, x, x, cv2.BORDER_CONSTANT), np.uint8)


def blurred(image: Image, _: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 2.0), np.uint8)


HEVC = Written(".mkv", "libx265", {"preset": "ultrafast", "crf": "26", "x265-params": "log-level=none:pools=1"})
VP9 = Written(".webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "34", "b": "0"})
POOR = Written(options={"preset": "veryfast", "crf": "40"})

DISTURBANCES = (
    Disturbance("as it is", lambda film: film),
    Disturbance("shaking hand", each(shaken)),
    Disturbance("exposure changes", exposed_anew),
    Disturbance("dark", each(lambda image, _: lit(0.5)(image))),
    Disturbance("mirrored", each(lambda image, _: np.asarray(image[:, ::-1], np.uint8))),
    Disturbance("1280×720, stretched", sized(1280, 720)),
    Disturbance("160×120", sized(160, 120)),
    Disturbance("30 frames/s", at_rate(30)),
    Disturbance("6 frames/s", at_rate(6)),
    Disturbance("first and last second cut off", cut(1.0, 1.0)),
    Disturbance("4 s of waiting at both ends", waiting(4.0, 4.0)),
    Disturbance("H.265 in MKV", lambda film: film, HEVC),
    Disturbance("VP9 in WebM", lambda film: film, VP9),
    Disturbance("telephone held upright", each(upright)),
    Disturbance("black edge", each(edged)),
    Disturbance("out of focus", each(blurred)),
    Disturbance("heavily compressed", lambda film: film, POOR),
)


def read(path: Path) -> Iterator[tuple[float, Image]]:
    """A film's pictures with their times."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield float(frame.time or 0.0), np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)


def write(film: Film, path: Path, written: Written) -> None:
    """Encode a film at its own times."""
    height, width = film[0][1].shape[:2]
    fps = Fraction(len(film) / max(film[-1][0], 1e-3)).limit_denominator(1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(written.codec, rate=fps, options=written.options)
        stream.width, stream.height, stream.pix_fmt = width - width % 2, height - height % 2, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.thread_count = 1
        for time_s, image in film:
            shown = np.ascontiguousarray(image[: stream.height, : stream.width])
            frame = av.VideoFrame.from_ndarray(shown, format="bgr24")
            frame.time_base, frame.pts = Fraction(1, 1000), round(1000 * time_s)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=None, help="where videos and features of golds are kept")
    parser.add_argument("--golds", type=int, nargs="+", default=[5])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--only", nargs="+", default=None, help="names of disturbances")
    arguments = parser.parse_args()
    default = Path(os.environ.get("XDG_CACHE_HOME", tempfile.gettempdir())) / "genba-sop-deviations"
    corpus = Corpus(arguments.cache or default, TUNING)
    corpus.folder.mkdir(parents=True, exist_ok=True)
    chosen = [d for d in DISTURBANCES if arguments.only is None or d.name in arguments.only]
    alarms: dict[tuple[str, int], int] = {}
    for kind in arguments.kinds:
        references = {golds: prepare(corpus, kind, golds) for golds in arguments.golds}
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "run.mp4"
            data.variant(kind, source, seed=RUN, conditions=gold_plan(RUN).conditions)
            film = list(read(source))
            for disturbance in chosen:
                path = Path(folder) / f"disturbed{disturbance.written.suffix}"
                write(disturbance.change(film), path, disturbance.written)
                features = extract(path, limits=PATIENT).features
                path.unlink()
                for golds, reference in references.items():
                    found = evaluate(reference, features)
                    shown = ", ".join(
                        f"{d.kind} {d.step_id or ''} {d.start_s:.0f}–{d.end_s:.0f} ({d.measure:.1f})"
                        for d in found.deviations
                    )
                    key = (disturbance.name, golds)
                    alarms[key] = alarms.get(key, 0) + len(found.deviations)
                    why = ", ".join(found.reasons) if found.verdict != "pass" and not found.deviations else shown
                    print(
                        f"{kind:<12}{golds} golds  {disturbance.name:<32}{found.score:>6.1f} {found.verdict:<13}{why}",
                        flush=True,
                    )
    print(f"\nFalse alarms in {len(arguments.kinds)} runs each")
    for (name, golds), count in alarms.items():
        print(f"  {name:<32}{golds} golds {count:>4}")


if __name__ == "__main__":
    main()
