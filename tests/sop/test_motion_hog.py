"""What motion-hog-v1 sees, and what it must not see: camera shake, light, the length of a step."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from genba_sop import motion_hog
from genba_sop.motion_hog import DIM, FLOW_DIM, HOG_DIM, LOCAL_DIM, MotionHog, flow_grid, hog_grid, smoothed

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]


def texture(seed: int, height: int = 200, width: int = 240) -> Pixels:
    rough = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8), dtype=np.uint8)
    return np.asarray(cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def halved(image: Pixels) -> Pixels:
    return np.asarray(cv2.resize(image, (80, 60), interpolation=cv2.INTER_AREA), np.uint8)


BENCH = texture(1)[:120, :160]


def patch_moved(dx: int, dy: int) -> Pixels:
    """The bench with a textured hand in its middle cell, moved by (dx, dy)."""
    image = BENCH.copy()
    image[45 + dy : 75 + dy, 85 + dx : 115 + dx] = texture(2)[:30, :30]
    return image


@pytest.mark.parametrize(("dx", "dy", "direction"), [(4, 0, 0), (0, 4, 2), (-4, 0, 4), (0, -4, 6)])
def test_movement_is_gathered_by_its_direction_where_it_happens(dx: int, dy: int, direction: int) -> None:
    grid, _ = flow_grid(halved(patch_moved(0, 0)), halved(patch_moved(dx, dy)))
    cell = grid[1 * 4 + 2]
    assert int(np.argmax(grid[:, -1])) == 6
    assert int(np.argmax(cell[:8])) == direction
    assert cell[8] == pytest.approx(cell[:8].sum(), rel=1e-5)


def test_a_camera_that_moves_as_a_whole_is_not_movement() -> None:
    wide = texture(3)
    before, after = wide[20:140, 20:180], wide[23:143, 24:184]
    assert flow_grid(halved(before), halved(after))[1] < 0.4
    assert flow_grid(halved(patch_moved(0, 0)), halved(patch_moved(6, 0)))[1] > 0.1


def test_a_longer_step_between_frames_is_scaled_back() -> None:
    before, after = halved(patch_moved(0, 0)), halved(patch_moved(6, 0))
    assert flow_grid(before, after, scale=0.5)[1] < 0.6 * flow_grid(before, after)[1]


@pytest.mark.parametrize(("angle_deg", "orientation"), [(0, 0), (45, 2), (90, 4), (135, 6)])
def test_edges_are_gathered_by_orientation_whatever_their_sign(angle_deg: int, orientation: int) -> None:
    rows, columns = np.mgrid[0:120, 0:160]
    angle = np.radians(angle_deg)
    wave = np.sin((columns * np.cos(angle) + rows * np.sin(angle)) / 3)
    hog = hog_grid((127 + 100 * wave).astype(np.uint8))
    assert set(hog[9:15].argmax(axis=1)) == {orientation}
    assert np.allclose(hog, hog_grid((127 - 100 * wave).astype(np.uint8)), rtol=0.05, atol=1)


def test_the_histogram_agrees_with_a_plain_loop() -> None:
    rng = np.random.default_rng(5)
    angle, weight = rng.random(300, dtype=np.float32), rng.random(300, dtype=np.float32)
    angle[:3] = (0.0, 1.0, 0.999999)
    cell = rng.integers(0, 6, 300).astype(np.int32)
    expected = np.zeros((6, 8))
    for place, value, where in zip(angle * 8, weight, cell, strict=True):
        low = int(place)
        expected[where, low % 8] += value * (1 - (place - low))
        expected[where, (low + 1) % 8] += value * (place - low)
    got = motion_hog._histogram(angle, weight, cell, cells=6, bins=8)
    assert np.allclose(got, expected, atol=1e-4)


def play(seed: int, steps: list[int], *, frames_each: int = 16, brightness: float = 1.0, noise: float = 0.0) -> Rows:
    """Features of a run of ``steps``: step k waves its tool k over place k of the bench."""
    rng = np.random.default_rng(seed)
    described = MotionHog(4.0)
    for step in steps:
        tool = texture(100 + step)[:26, :26]
        for index in range(frames_each):
            phase = 2 * np.pi * index / 6 + rng.normal(0, 0.1)
            x = 15 + 22 * (step % 5) + int(6 * np.cos(phase) * (step % 2) + rng.integers(-1, 2))
            y = 15 + 40 * (step % 2) + int(6 * np.sin(phase) + rng.integers(-1, 2))
            image = BENCH.astype(np.float32)
            image[y : y + 26, x : x + 26] = tool
            image = np.clip(image * brightness + rng.normal(0, noise, image.shape), 0, 255)
            described.add(np.repeat(image.astype(np.uint8)[:, :, None], 3, axis=2))
    return described.values()


def nearest_agrees(gold: Rows, trainee: Rows, steps: list[int], shown: list[int], *, each: int = 16) -> float:
    nearest = (trainee @ gold.T).argmax(axis=1)
    return float(np.mean(np.repeat(steps, each)[nearest] == np.repeat(shown, len(trainee) // len(shown))))


STEPS = [0, 1, 2, 3, 4, 5]


def test_the_nearest_frame_of_another_run_shows_the_same_step() -> None:
    gold = play(1, STEPS)
    assert nearest_agrees(gold, play(2, STEPS), STEPS, STEPS) > 0.95


def test_it_does_so_in_another_light_with_more_noise_and_another_speed() -> None:
    gold = play(1, STEPS)
    dim = play(2, STEPS, brightness=0.6, noise=8)
    slow = play(3, STEPS, frames_each=26)
    assert nearest_agrees(gold, dim, STEPS, STEPS) > 0.9
    assert nearest_agrees(gold, slow, STEPS, STEPS) > 0.9


def test_it_does_so_in_another_order() -> None:
    shown = [3, 0, 5, 1, 4, 2]
    assert nearest_agrees(play(1, STEPS), play(2, shown), STEPS, shown) > 0.9


def test_rows_are_unit_length_and_finite() -> None:
    rows = play(1, STEPS)
    assert rows.shape == (96, DIM)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_video_in_which_nothing_happens_still_has_unit_rows(count: int) -> None:
    described = MotionHog(4.0)
    for _ in range(count):
        described.add(np.zeros((120, 160, 3), np.uint8))
    described.repeat()
    rows = described.values()
    assert rows.shape == (count + 1, DIM)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.allclose(described.motion, 0)


def test_a_repeated_frame_looks_the_same_and_does_not_move() -> None:
    described = MotionHog(4.0)
    image = np.repeat(patch_moved(0, 0)[:, :, None], 3, axis=2)
    described.add(image)
    described.add(np.repeat(patch_moved(5, 0)[:, :, None], 3, axis=2))
    described.repeat()
    assert np.array_equal(described.local[1], described.local[2])
    assert described.motion[1] > 0
    assert described.motion[2] == 0


def test_local_appearance_shows_where_a_colour_is() -> None:
    described = MotionHog(4.0)
    image = np.full((120, 160, 3), 90, np.uint8)
    image[60:80, 100:120] = (220, 30, 30)
    described.add(image)
    local = described.local[0]
    assert local.shape == (48, LOCAL_DIM)
    assert int(local[:, 9].argmax()) == 3 * 8 + 5  # the reddest cell


def test_smoothing_keeps_a_constant_and_a_short_video() -> None:
    constant = np.full((9, 3), 2.5, np.float32)
    assert np.allclose(smoothed(constant, sigma_frames=2.0), constant)
    two = np.array([[0.0], [1.0]], np.float32)
    assert smoothed(two, sigma_frames=2.0).shape == (2, 1)
    assert np.array_equal(smoothed(two[:1], sigma_frames=2.0), two[:1])


def test_both_halves_weigh_the_same() -> None:
    rows = play(1, STEPS)
    flow, hog = np.square(rows[:, :FLOW_DIM]).sum(), np.square(rows[:, FLOW_DIM:]).sum()
    assert rows.shape[1] - FLOW_DIM == HOG_DIM
    assert 0.1 < flow / hog < 3
