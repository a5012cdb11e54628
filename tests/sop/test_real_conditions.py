"""What happens to films in the hands of people: they are mirrored, the exposure changes, the camera runs before and after the work."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from tests.sop.scoring_world import Do, World
from tests.sop.test_scene import picture, texture
from tests.sop.test_second_look import pictured

from genba_sop.mirroring import mirrored
from genba_sop.motion_hog import MotionHog
from genba_sop.performances import PAUSE_MORE_S, PAUSE_STRETCH, holds_of, pauses
from genba_sop.reference import Gold, Reference, fit
from genba_sop.scene import lay_over, place_of, steadied
from genba_sop.scoring import evaluate

Bytes = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def reference(world: World) -> Reference:
    return fit(world.procedure(), world.golds(4))


def moving(count: int) -> list[Bytes]:
    """A ball that crosses a bench, at 160×120."""
    frames = []
    for n in range(count):
        frame = texture(3).copy()
        cv2.circle(frame, (20 + 6 * n, 40 + 2 * n), 10, (240, 240, 40), -1)
        frames.append(frame)
    return frames


def described(frames: list[Bytes]) -> MotionHog:
    hog = MotionHog()
    for frame in frames:
        hog.add(frame)
    return hog


def test_features_turned_back_are_those_of_the_film_that_was_not_mirrored(world: World) -> None:
    frames = moving(16)
    here, there = described(frames), described([np.ascontiguousarray(frame[:, ::-1]) for frame in frames])
    plain, flipped = (
        replace(
            world.film(seed=1).features,
            encoder="motion-hog-v1",
            values=hog.values(),
            local=np.stack(hog.local),
            pictures=hog.album.stacked(),
        )
        for hog in (here, there)
    )
    back = mirrored(flipped)
    assert back is not None
    alike, unlike = (float((plain.values * rows).sum(axis=1).mean()) for rows in (back.values, flipped.values))
    assert alike > 0.97
    assert unlike < 0.8
    np.testing.assert_allclose(back.local, plain.local, atol=0.05)
    assert np.abs(back.pictures.astype(int) - plain.pictures).mean() < 1


def test_what_another_encoder_would_say_of_the_mirror_image_is_not_guessed(world: World) -> None:
    assert mirrored(world.film(seed=1).features) is None


def test_light_that_changes_while_the_camera_runs_is_set_back() -> None:
    bench, rng = texture(0), np.random.default_rng(1)
    frames = []
    for n in range(24):
        frame = bench.copy()
        cv2.circle(frame, (int(rng.integers(20, 140)), int(rng.integers(20, 100))), 12, (30, 60, 200), -1)
        frames.append(np.asarray(cv2.convertScaleAbs(frame, alpha=1.0 if n < 16 else 0.65), np.uint8))
    pictures = picture(*frames)
    steady = steadied(pictures)
    there = slice(0, 8)  # a corner that nothing covers
    before, after = (float(p[20:, there, there, 0].mean() - p[:12, there, there, 0].mean()) for p in (pictures, steady))
    assert before < -30
    assert abs(after) < 6
    assert (steady[:12] == pictures[:12]).all()  # what was right is left as it is


def test_a_camera_further_away_is_said_to_see_coarser() -> None:
    bench = texture(0)
    small = cv2.copyMakeBorder(cv2.resize(bench, (120, 90)), 15, 15, 20, 20, cv2.BORDER_REFLECT_101)
    same, far = (lay_over(place_of(picture(np.asarray(b, np.uint8))), place_of(picture(bench))) for b in (bench, small))
    assert same.coarser == pytest.approx(0.0, abs=0.05)
    if far.fits:
        assert far.coarser == pytest.approx(2 * np.log(4 / 3), abs=0.15)


@pytest.mark.parametrize("some", [Do(None, seconds=4.0, idle=True), Do(None, seconds=4.0)])
def test_before_the_first_step_and_after_the_last_the_camera_may_run_a_while(
    world: World, reference: Reference, some: Do
) -> None:
    evaluation = evaluate(reference, world.film(some, *"abcdefgh", some, seed=70).features)
    assert evaluation.deviations == ()
    assert evaluation.verdict == "pass"


def test_a_long_stillness_before_the_first_step_is_idling(world: World, reference: Reference) -> None:
    evaluation = evaluate(reference, world.film(Do(None, seconds=12.0, idle=True), *"abcdefgh", seed=71).features)
    assert [d.kind for d in evaluation.deviations] == ["idle"]


def test_a_step_may_be_held_as_long_as_golds_hold_it_and_a_pause_lasts_longer(world: World) -> None:
    gold = fit(world.procedure(), [world.film("a", "b", Do("c", idle=True), *"defgh", seed=5).gold()])
    rows, _ = gold.observe(world.film(*"abc", Do(None, seconds=9.0, idle=True), *"defgh", seed=6).features)
    holds = [holds_of(run, gold.stillness) for run in gold.golds]
    stopped = pauses(rows, holds, gold.stillness)
    paused = stopped.length_s > 0
    assert 8.0 < float(stopped.length_s.max()) < 11.0
    assert 30 < paused.sum() < 46  # nine seconds at four rows each
    held = gold.golds[0].labels == 2
    assert stopped.allowed_s[0][held].max() > PAUSE_STRETCH * 3.0
    assert stopped.allowed_s[0][gold.golds[0].labels == 6].max() == PAUSE_MORE_S
    beyond = stopped.beyond(0)
    assert beyond[gold.golds[0].labels == 6][:, paused].all()
    assert not beyond[:, ~paused].any()


def test_a_pause_that_looks_like_another_step_is_idling_and_that_step_is_not_moved(
    world: World, reference: Reference
) -> None:
    """The pause resembles the end of the first step: hands at rest."""
    filmed = world.film(*"abc", Do(None, seconds=8.0, idle=True), *"defgh", seed=72)
    features, first = filmed.features, next(span for span in filmed.spans if span.step_id == "a")
    still = features.motion < 0.05
    at = int(np.searchsorted(features.times_s, first.end_s - 0.5))
    values = features.values.copy()
    values[still] = values[at] + 0.02 * np.random.default_rng(1).normal(size=values[still].shape).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    evaluation = evaluate(reference, replace(features, values=values))
    assert [d.kind for d in evaluation.deviations] == ["idle"]


def test_a_video_of_the_mirror_image_is_scored_turned_back_and_somebody_is_asked(world: World) -> None:
    """Where the place fits badly as it is and well in the mirror."""
    golds = [pictured(world.film(seed=1000 + n), n) for n in range(3)]
    known = fit(world.procedure(), [Gold(gold.features, gold.spans) for gold in golds])
    filmed = pictured(world.film(seed=4), 4)
    flipped = replace(filmed.features, pictures=np.ascontiguousarray(filmed.features.pictures[:, :, ::-1]))
    rows, _ = known.observe(flipped)
    laid = known.lay(flipped, rows)
    assert known.turned_back(flipped, rows, laid) is None  # an encoder whose mirror image is not known
    assert laid is None or laid.sight.view.correlation < 0.65
