"""The second look: labels that the alignment got wrong are mended by the pictures, and right ones are left alone.

The runs are invented, the golds' pictures are fitted as in service; what each test does wrong is said in labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from tests.sop.scoring_world import FPS, Do, Filmed, World
from tests.sop.test_scene import picture, texture

from genba_sop.gold_scene import Laid
from genba_sop.observation import relabelled
from genba_sop.reference import Gold, Reference, fit
from genba_sop.second_look import LEAST_S, looked_again
from genba_sop.segmentation import EXTRA, Run, runs_of

PLACES = {step: (12 + 8 * (n % 5), 10 + 9 * n) for n, step in enumerate("abcdefgh")}  # where the hand works, of 60×80
NOWHERE = (54, 8)  # where no step has it


def pictured(filmed: Filmed, seed: int, *, beside: str = "", aside_px: int = 0) -> Filmed:
    """The same run with pictures: the hand works where its step has it, so far aside in one step, and where no step has it otherwise."""
    rng, frames = np.random.default_rng((7, seed)), []
    for time_s in filmed.features.times_s[:: int(FPS / 2)]:
        span = next((span for span in filmed.spans if span.start_s <= time_s < span.end_s), None)
        y, x = (2 * c + int(rng.integers(-3, 4)) for c in (PLACES[span.step_id] if span else NOWHERE))
        y += (
            0 if span is None else round(36 * (time_s - span.start_s) / (span.end_s - span.start_s)) - 12
        )  # as it goes on
        x += aside_px if span is not None and span.step_id == beside else 0
        frame = texture(0)
        cv2.circle(frame, (x, y), 9, (40, 80, 200), -1)
        frames.append(frame)
    return replace(filmed, features=replace(filmed.features, pictures=picture(*frames)))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def reference(world: World) -> Reference:
    golds = [pictured(world.film(seed=1000 + n), n) for n in range(3)]
    return fit(world.procedure(), [Gold(gold.features, gold.spans) for gold in golds])


class Look:
    """A run, what is seen of it once these steps are taken for others, and what the second look makes of that."""

    def __init__(self, reference: Reference, filmed: Filmed, *wrong: tuple[str, int, int]) -> None:
        """``wrong``: step, which of its performances, and the label that it is given."""
        self.reference, self.filmed = reference, filmed
        features = filmed.features
        self.rows, seen = reference.observe(features)
        laid = reference.lay(features, self.rows)
        assert laid is not None
        changes = [(self.run(step, again), label) for step, again, label in wrong]
        self.before = relabelled(seen, self.rows, reference.golds, changes)
        self.after = looked_again(reference, self.rows, self.before, laid)

    def run(self, step: str, again: int = 0) -> Run:
        """The rows of a performance, as filmed."""
        span = [span for span in self.filmed.spans if span.step_id == step][again]
        first, end = np.searchsorted(self.filmed.features.times_s, [span.start_s, span.end_s])
        return Run(0, int(first), int(end) - 1)

    def label(self, step: str, again: int = 0) -> str | int:
        """What most rows of a performance are taken for after the second look."""
        run = self.run(step, again)
        values, count = np.unique(self.after.labels[run.first : run.last + 1], return_counts=True)
        label = int(values[count.argmax()])
        return self.reference.step_ids[label] if label >= 0 else label


def at(step: str) -> int:
    return "abcdefgh".index(step)


def test_a_stretch_in_no_step_that_looks_like_the_one_left_out_is_that_step(world: World, reference: Reference) -> None:
    look = Look(reference, pictured(world.film(seed=1), 1), ("d", 0, EXTRA))
    assert EXTRA in look.before.labels
    assert look.label("d") == "d"
    assert at("d") in look.after.labels
    assert EXTRA not in look.after.labels


def test_the_second_of_two_performances_is_the_missing_step_that_it_looks_like(
    world: World, reference: Reference
) -> None:
    look = Look(reference, pictured(world.film(seed=2), 2), ("f", 0, at("b")))
    assert at("f") not in look.before.labels
    assert look.label("f") == "f"
    assert look.label("b") == "b"


def test_a_step_taken_twice_where_nothing_looks_like_any_step_is_extra(world: World, reference: Reference) -> None:
    filmed = pictured(world.film("a", "b", "c", "d", Do(None, seconds=6), "e", "f", "g", "h", seed=3), 3)
    strange = next(span.end_s for span in filmed.spans if span.step_id == "d")
    look = Look(reference, filmed)
    first = int(np.searchsorted(filmed.features.times_s, strange + 0.5))
    told = relabelled(look.before, look.rows, reference.golds, [(Run(0, first, first + 18), at("b"))])
    laid = reference.lay(filmed.features, look.rows)
    assert laid is not None
    after = looked_again(reference, look.rows, told, laid)
    assert (told.labels[first : first + 19] == at("b")).all()
    assert (after.labels[first : first + 19] == EXTRA).all()
    assert look.label("b") == "b"


def test_of_two_strange_performances_the_stranger_one_is_extra(world: World, reference: Reference) -> None:
    """Who does a step beside its place does it all the same; what is farther from it than that is none."""
    filmed = pictured(world.film("a", "b", Do(None, seconds=6), *"cdefgh", seed=8), 8, beside="b", aside_px=40)
    look = Look(reference, filmed)
    own = look.run("b")
    strange = Run(0, own.last + 3, own.last + 3 + round(5 * FPS))
    told = relabelled(look.before, look.rows, reference.golds, [(own, at("b")), (strange, at("b"))])
    laid = reference.lay(filmed.features, look.rows)
    assert laid is not None
    off = laid.unlike([np.arange(run.first, run.last + 1) for run in (own, strange)])[:, at("b")]
    assert 1.5 * laid.scene.alike < off[0] < off[1]
    after = looked_again(reference, look.rows, told, laid).labels
    assert (after[own.first + 2 : own.last - 1] == at("b")).all()
    assert (after[strange.first + 2 : strange.last - 1] == EXTRA).all()


class Askance:
    """Pictures in which only one stretch looks like a step, and everything else a little like another one, and not very."""

    def __init__(self, reference: Reference, plain: Run, step: int, *, otherwise: int) -> None:
        assert reference.scene is not None
        self.scene, self._steps = replace(reference.scene, alike=0.1), len(reference.step_ids)
        self._plain, self._step, self._otherwise = plain, step, otherwise

    def unlike(self, stretches: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
        """As ``Laid.unlike``."""
        table = np.full((len(stretches), self._steps), 0.5)
        for row, own in zip(table, stretches, strict=True):
            inside = (own >= self._plain.first) & (own <= self._plain.last)
            row[self._step], row[self._otherwise] = 0.5 - 0.49 * inside.mean(), 0.3
        return table


def test_a_run_of_two_steps_is_cut_where_the_one_looks_strange_and_matches_well(
    world: World, reference: Reference
) -> None:
    look = Look(reference, pictured(world.film(seed=9), 9), ("g", 0, at("f")))
    assert at("g") not in look.before.labels
    askance = cast("Laid", Askance(reference, look.run("g"), at("g"), otherwise=at("b")))
    look.after = looked_again(reference, look.rows, look.before, askance)
    assert look.label("f") == "f"
    assert look.label("g") == "g"


def test_the_only_performance_of_a_step_is_not_taken_for_a_second_one_of_another(
    world: World, reference: Reference
) -> None:
    """A step done at another step's place looks like that one; but that one was done, and nothing else shows this one."""
    filmed = world.film(seed=4)
    shown = tuple(replace(span, step_id="b") if span.step_id == "e" else span for span in filmed.spans)
    misplaced = replace(pictured(replace(filmed, spans=shown), 4), spans=filmed.spans)
    look = Look(reference, misplaced)
    assert look.label("e") == "e"
    assert [run.label for run in runs_of(look.after.labels)].count(at("b")) == 1


def test_a_run_of_two_steps_is_cut_where_the_pictures_change(world: World, reference: Reference) -> None:
    look = Look(reference, pictured(world.film(seed=5), 5), ("g", 0, at("f")))
    assert at("g") not in look.before.labels
    assert look.label("f") == "f"
    assert look.label("g") == "g"
    borders = [run.first for run in runs_of(look.after.labels) if run.label == at("g")]
    assert abs(borders[0] - look.run("g").first) <= FPS  # within a second of where it was


def test_a_fragment_of_a_step_that_hardly_shows_goes_to_the_step_beside_it(world: World, reference: Reference) -> None:
    filmed = pictured(world.film(*"abcefgh", seed=6), 6)  # d is left out
    look = Look(reference, filmed)
    whole = look.run("e")
    fragment = Run(0, whole.first, whole.first + max(round(LEAST_S * FPS), (whole.last - whole.first) // 3))
    told = relabelled(look.before, look.rows, reference.golds, [(fragment, at("d"))])
    skipped = told.skipped.copy()
    skipped[:, at("d")] = 0.7  # of the step's gold rows the path came to a few
    told = replace(told, skipped=skipped)
    laid = reference.lay(filmed.features, look.rows)
    assert laid is not None
    assert at("d") in told.labels
    assert at("d") not in looked_again(reference, look.rows, told, laid).labels


def test_a_run_in_which_nothing_is_doubtful_is_left_as_it_is(world: World, reference: Reference) -> None:
    look = Look(reference, pictured(world.film(seed=7), 7))
    assert look.after is look.before


def test_a_procedure_of_one_step_is_looked_at_where_a_stretch_is_in_no_step() -> None:
    world = World(steps=("a",))
    golds = [pictured(world.film(seed=1000 + n), n) for n in range(3)]
    reference = fit(world.procedure(), [Gold(gold.features, gold.spans) for gold in golds])
    filmed = pictured(world.film("a", Do(None, seconds=8.0), seed=3), 3)
    look = Look(reference, filmed, ("a", 0, EXTRA))
    assert look.label("a") in {"a", EXTRA}
