"""Real footage against itself: a film that a camera took is cut into steps, and edited films of it have known deviations.

Protocol. ``--video`` is cut into ``--steps`` equal steps. The golds are the film itself, and with ``--golds 3`` two more that are
cropped, lit and paced a little otherwise. A trainee is the film in other light, crop, noise and codec, with one edit: a step cut out,
two segments swapped, one slowed 2.5 times or hurried, one shown twice, the picture frozen for 6 s, a foreign film put in between
(``--foreign``); and twice nothing, once with more shaking. Everything is written as video, decoded and scored. It shows how the
scoring bears real texture, light and noise, not how people differ: for that other operators must be filmed.

Figures in docs/reference/measured.md are of ``vtest.avi`` (people crossing a yard, 79 s, camera on a mast; Debian's package
opencv-doc) with ``box.mp4`` of the same package put in.

Run: python benchmarks/sop_real.py --video FILE [--foreign FILE] [--steps 8] [--golds 1 3]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from genba_sop.data_plan import Truth
from genba_sop.features import Features
from genba_sop.metrics import Comparison, compare
from genba_sop.procedure import Procedure, Span, Step, Text
from genba_sop.reference import Gold, fit
from genba_sop.scoring import evaluate
from genba_sop.video import extract

if TYPE_CHECKING:
    from benchmarks.sop_deviations import PATIENT
    from benchmarks.sop_disturbed import Film, Written, read, shaken, write
else:  # beside this script
    from sop_deviations import PATIENT
    from sop_disturbed import Film, Written, read, shaken, write

Image = npt.NDArray[np.uint8]
FPS, SIZE = 10.0, (320, 240)
MPEG4 = Written(".mp4", "mpeg4", {"qscale": "4"})


@dataclass(frozen=True)
class Piece:
    """A stretch of a source: from and to in its seconds, at which speed; frozen: its first picture for so long."""

    start_s: float
    end_s: float
    step: str | None = None
    speed: float = 1.0
    foreign: bool = False
    frozen: bool = False

    @property
    def length_s(self) -> float:
        """Seconds that it takes in the edited film."""
        return (self.end_s - self.start_s) / self.speed


@dataclass(frozen=True)
class Look:
    """How a film is shown: crop in shares of the picture, gain, noise in grey levels, shaking."""

    crop: float = 0.0
    gain: float = 1.0
    noise: float = 0.0
    shaking: bool = False


@dataclass(frozen=True)
class Edit:
    """A trainee's film and what is planted in it."""

    name: str
    pieces: tuple[Piece, ...]
    truth: tuple[Truth, ...] = ()
    look: Look = Look(0.03, 0.88, 4.0)


def steps_of(length_s: float, count: int) -> tuple[Piece, ...]:
    """The film as steps of equal length."""
    cuts = np.linspace(0, length_s, count + 1)
    return tuple(Piece(a, b, f"s{n + 1}") for n, (a, b) in enumerate(pairwise(cuts.tolist())))


def spans_of(pieces: Sequence[Piece]) -> tuple[Span, ...]:
    """Where the steps lie in an edited film."""
    spans, now_s = [], 0.0
    for piece in pieces:
        if piece.step is not None:
            spans.append(Span(piece.step, now_s, now_s + piece.length_s))
        now_s += piece.length_s
    return tuple(spans)


def planted(kind: str, pieces: Sequence[Piece], at: int, step: str | None) -> tuple[Truth, ...]:
    """The truth of the piece ``at`` of an edited film."""
    start_s = sum(piece.length_s for piece in pieces[:at])
    return (Truth(kind, step, start_s, start_s + pieces[at].length_s),)  # type: ignore[arg-type]


def edits(plain: tuple[Piece, ...], foreign_s: float) -> list[Edit]:
    """Every edit, each at two places."""
    made = [Edit("nothing", plain), Edit("nothing, shaking", plain, (), Look(0.05, 1.1, 3.0, shaking=True))]
    count = len(plain)
    for at in (count // 3, 2 * count // 3):
        step = plain[at].step
        cut = (*plain[:at], *plain[at + 1 :])
        missing_s = plain[at].start_s
        made.append(Edit("cut out", cut, (Truth("missing", step, missing_s, missing_s),)))
        early = (*plain[: at - 2], plain[at], *plain[at - 2 : at], *plain[at + 1 :])
        made.append(Edit("too early by two", early, planted("moved", early, at - 2, step)))
        for kind, speed in (("too_slow", 0.4), ("too_fast", 2.8)):
            paced = (*plain[:at], replace(plain[at], speed=speed), *plain[at + 1 :])
            made.append(Edit(kind, paced, planted(kind, paced, at, step)))
        again = (*plain[: at + 1], plain[at], *plain[at + 1 :])
        made.append(Edit("shown twice", again, planted("repeated", again, at + 1, step)))
        still = Piece(plain[at].start_s, plain[at].start_s + 6.0, frozen=True)
        frozen = (*plain[:at], still, *plain[at:])
        made.append(Edit("frozen for 6 s", frozen, planted("idle", frozen, at, None)))
        if foreign_s:
            put_in = (*plain[:at], Piece(0.0, min(7.0, foreign_s), foreign=True), *plain[at:])
            made.append(Edit("foreign film", put_in, planted("extra", put_in, at, None)))
    return made


def shown(film: Film, foreign: Film, edit: Edit, seed: int) -> Film:
    """The edited film, picture by picture."""
    rng, out, now_s = np.random.default_rng(seed), [], 0.0
    for piece in edit.pieces:
        source = foreign if piece.foreign else film
        times_s = np.array([time_s for time_s, _ in source])
        for k in range(round(piece.length_s * FPS)):
            at_s = piece.start_s + (0.0 if piece.frozen else k / FPS * piece.speed)
            image = source[int(abs(times_s - at_s).argmin())][1]
            out.append((now_s + k / FPS, _looking(image, edit.look, now_s + k / FPS, rng)))
        now_s += piece.length_s
    return out


def _looking(image: Image, look: Look, time_s: float, rng: np.random.Generator) -> Image:
    y, x = (round(look.crop * side) for side in image.shape[:2])
    cropped = image[y : image.shape[0] - y or None, x : image.shape[1] - x or None]
    picture = cv2.resize(cropped, SIZE, interpolation=cv2.INTER_AREA).astype(np.float32) * look.gain
    if look.noise:
        picture += rng.normal(0, look.noise, picture.shape[:2]).astype(np.float32)[..., None]
    eight_bit = np.asarray(np.clip(picture, 0, 255), np.uint8)
    return shaken(eight_bit, time_s) if look.shaking else eight_bit


def features_of(film: Film, path: Path, written: Written) -> Features:
    """Write, decode, describe."""
    write(film, path, written)
    return extract(path, limits=PATIENT).features


def small(path: Path) -> Film:
    """A film's pictures at the size that is worked with."""
    return [
        (time_s, np.asarray(cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA), np.uint8))
        for time_s, image in read(path)
    ]


def main() -> None:
    """Print what was found in every edit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--foreign", type=Path, default=None, help="another film, of which 7 s are put in")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--golds", type=int, nargs="+", default=[1, 3])
    arguments = parser.parse_args()
    film = small(arguments.video)
    foreign = small(arguments.foreign) if arguments.foreign else []
    plain = steps_of(film[-1][0], arguments.steps)
    ids = [str(piece.step) for piece in plain]
    steps = tuple(Step(step, Text(step), after=(ids[n - 1],) if n else ()) for n, step in enumerate(ids))
    procedure = Procedure("real", 1, Text("Real footage"), steps)
    looks = (Look(), Look(0.02, 1.08, 2.0), Look(0.01, 0.94, 1.0))
    paces = (1.0, 1.06, 0.95)
    with tempfile.TemporaryDirectory() as folder:
        golds = []
        for n in range(max(arguments.golds)):
            pieces = tuple(replace(piece, speed=paces[n % 3]) for piece in plain)
            filmed = shown(film, foreign, Edit("gold", pieces, (), looks[n % 3]), n)
            golds.append(Gold(features_of(filmed, Path(folder) / "gold.mp4", Written()), spans_of(pieces)))
        trainees = [
            (edit, features_of(shown(film, foreign, edit, 100 + n), Path(folder) / "run.mp4", MPEG4))
            for n, edit in enumerate(edits(plain, foreign[-1][0] if foreign else 0.0))
        ]
    for count in arguments.golds:
        reference, total = fit(procedure, golds[:count]), Comparison()
        print(f"\n{count} gold{'s' * (count > 1)} of {arguments.video.name}, {arguments.steps} steps")
        for edit, features in trainees:
            found = evaluate(reference, features)
            total += compare(found.deviations, edit.truth)
            said = ", ".join(f"{d.kind} {d.step_id or ''} {d.start_s:.1f}–{d.end_s:.1f}" for d in found.deviations)
            true = ", ".join(f"{t.kind} {t.step_id or ''} {t.start_s:.1f}–{t.end_s:.1f}" for t in edit.truth)
            print(
                f"  {edit.name:<18}{found.score:>6.1f} {found.verdict:<13} planted: {true or '–'}   found: {said or '–'}"
            )
        right, wrong, missed = (
            sum(getattr(tally, name) for tally in total.tallies.values())
            for name in ("true_positives", "false_positives", "false_negatives")
        )
        print(
            f"  macro-F1 {total.macro_f1:.3f}, {right} right, {wrong} wrong, {missed} missed, time IoU {total.mean_iou:.2f}"
        )


if __name__ == "__main__":
    main()
