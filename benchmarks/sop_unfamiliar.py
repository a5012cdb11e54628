"""Real films that nobody chose: each as gold against copies of itself, and against quite other films.

Protocol. A film is cut into ``--steps`` equal steps, fewer where they would be shorter than 2 s, and is the only gold. Trainees are
the film itself, the film encoded anew, darker, cropped by 4 % on every side, mirrored, and with 6 and 30 frames a second: the score is
to be near 100 and the verdict a pass (mirrored: a person looks). Then come all the other films, of which none shows the procedure: the
score is to be low, and none may pass. Films are shortened to ``--longest`` seconds.

Figures in docs/reference/measured.md are of ``vtest.avi``, ``Megamind.avi``, ``tree.avi``, ``box.mp4`` and ``cup.mp4`` of Debian's package
opencv-doc.

Run: python benchmarks/sop_unfamiliar.py FILM FILM … [--steps 6] [--longest 30]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from genba_sop.evaluation import Evaluation
from genba_sop.features import Features
from genba_sop.procedure import Procedure, Step, Text
from genba_sop.reference import Gold, Reference, fit
from genba_sop.scoring import evaluate
from genba_sop.video import extract

if TYPE_CHECKING:
    from benchmarks.sop_deviations import PATIENT
    from benchmarks.sop_disturbed import POOR, Disturbance, Film, Image, at_rate, each, lit, read, write
    from benchmarks.sop_real import spans_of, steps_of
else:  # beside this script
    from sop_deviations import PATIENT
    from sop_disturbed import POOR, Disturbance, Film, Image, at_rate, each, lit, read, write
    from sop_real import spans_of, steps_of

CROP, WIDE = 0.04, 320
LEAST_STEP_S = 2.0
NEAR, FAR = 90.0, 65.0  # a copy scores at least so much, another film at most


def cropped(image: Image, _: float) -> Image:
    """Without a little on every side."""
    y, x = (round(CROP * side) for side in image.shape[:2])
    return np.ascontiguousarray(image[y:-y, x:-x])


COPIES = (
    Disturbance("as it is", lambda film: film),
    Disturbance("encoded anew, poorly", lambda film: film, POOR),
    Disturbance("darker", each(lambda image, _: lit(0.65)(image))),
    Disturbance("cropped", each(cropped)),
    Disturbance("mirrored", each(lambda image, _: np.ascontiguousarray(image[:, ::-1]))),
    Disturbance("6 frames/s", at_rate(6)),
    Disturbance("30 frames/s", at_rate(30)),
)


def shortened(path: Path, longest_s: float) -> Film:
    """A film's beginning, in the order of its times: those of old containers are not always in order, nor distinct."""
    film = {time_s: small(image) for time_s, image in read(path) if time_s <= longest_s}
    return [(time_s, film[time_s]) for time_s in sorted(film)]


def small(image: Image) -> Image:
    """At most 320 pixels wide: what is scored is smaller still."""
    height, width = (side // 2 * 2 for side in (image.shape[0] * WIDE // image.shape[1], WIDE))
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def copies(film: Film, folder: Path) -> Iterator[tuple[str, Features]]:
    """Every copy, written and described."""
    for copy in COPIES:
        path = folder / f"copy{copy.written.suffix}"
        write(copy.change(film), path, copy.written)
        yield copy.name, extract(path, limits=PATIENT).features


def reference_of(name: str, shown: Features, count: int) -> Reference:
    """A film as the only gold of a procedure of equal steps."""
    pieces = steps_of(shown.duration_s, max(2, min(count, int(shown.duration_s / LEAST_STEP_S))))
    ids = [str(piece.step) for piece in pieces]
    steps = tuple(Step(step, Text(step), after=(ids[n - 1],) if n else ()) for n, step in enumerate(ids))
    return fit(Procedure(name, 1, Text(name), steps), [Gold(shown, spans_of(pieces))])


def line(name: str, found: Evaluation) -> str:
    """One row of the table."""
    said = ", ".join(f"{d.kind} {d.step_id or ''} {d.start_s:.0f}–{d.end_s:.0f}" for d in found.deviations)
    return f"  {name:<24}{found.score:>6.1f} {found.verdict:<13}{said or ', '.join(found.reasons)}"


def sensible(name: str, found: Evaluation) -> bool:
    """Whether a copy's score and verdict are those of a copy."""
    wanted = {"pass", "needs_review"} if name == "mirrored" else {"pass"}
    return found.score >= NEAR and found.verdict in wanted


def main(given: Sequence[str] | None = None) -> None:
    """Print what was said of every pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--longest", type=float, default=30.0)
    arguments = parser.parse_args(given)
    shown: dict[str, dict[str, Features]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in arguments.films:
            shown[path.name] = dict(copies(shortened(path, arguments.longest), Path(folder)))
    good = bad = passed = low = 0
    for name, own in shown.items():
        reference = reference_of(name, own["as it is"], arguments.steps)
        print(f"\n{name}, {own['as it is'].duration_s:.0f} s, the only gold, {len(reference.step_ids)} steps")
        for copy, features in own.items():
            found = evaluate(reference, features)
            good, bad = good + sensible(copy, found), bad + (not sensible(copy, found))
            print(line(copy, found))
        for other in shown:
            if other != name:
                found = evaluate(reference, shown[other]["as it is"])
                passed, low = passed + (found.verdict == "pass"), low + (found.score <= FAR)
                print(line(f"another: {other}", found))
    others = len(shown) * (len(shown) - 1)
    print(
        f"\n{good} of {good + bad} copies score {NEAR:.0f} or more and pass (mirrored: or are sent to a person); of {others} other films "
        f"{passed} pass, {low} score {FAR:.0f} or less"
    )


if __name__ == "__main__":
    main()
