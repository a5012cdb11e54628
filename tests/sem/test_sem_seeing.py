from __future__ import annotations

import cv2
import numpy as np
import pytest
from tests.sem.sem_world import KINDS, picture

from genba_sem.micrograph import View
from genba_sem.quality import judge
from genba_sem.segment import find_particle, outline_of
from genba_sem.shape import measure, shape_of, size_distribution


def disc(radius: float, side_px: int = 256) -> np.ndarray:
    y, x = np.mgrid[:side_px, :side_px] - (side_px - 1) / 2
    return np.asarray(np.hypot(x, y) <= radius)


@pytest.mark.parametrize("kind", KINDS)
def test_the_particle_is_found(kind: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        pixels = picture(kind, rng)
        truth = cv2.GaussianBlur(pixels, (0, 0), 1) > 0.5
        found = find_particle(pixels)
        assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.75
        assert found.complete


def test_a_click_says_which_particle_is_meant() -> None:
    pixels = np.full((128, 128), 0.1, np.float32)
    cv2.circle(pixels, (40, 40), 20, 0.8, -1)
    cv2.circle(pixels, (95, 95), 14, 0.8, -1)
    found = find_particle(pixels, click=(95, 95))
    assert found.mask[95, 95]
    assert not found.mask[40, 40]
    with pytest.raises(ValueError, match="outside"):
        find_particle(pixels, click=(200, 3))


def test_an_empty_picture_has_no_particle_and_no_shape() -> None:
    found = find_particle(np.zeros((64, 64), np.float32))
    assert not found.found
    assert measure(found) is None


@pytest.mark.parametrize("radius", [11, 15, 40, 100])
def test_a_disc_is_measured_as_a_disc(radius: int) -> None:
    shape = shape_of(disc(radius))
    assert shape is not None
    assert shape.equivalent_diameter == pytest.approx(2 * radius, rel=0.02)
    assert shape.feret_max == pytest.approx(2 * radius, abs=1)
    assert shape.circularity > 0.96
    assert shape.solidity > 0.97
    assert shape.in_um(500).feret_max == pytest.approx(shape.feret_max / 2)


def test_a_rectangle_has_its_sides_and_its_aspect() -> None:
    mask = np.zeros((200, 200), bool)
    mask[80:120, 40:160] = True
    shape = shape_of(mask)
    assert shape is not None
    assert shape.feret_min == pytest.approx(40)
    assert shape.solidity == pytest.approx(1)
    assert shape.feret_max == pytest.approx(np.hypot(40, 120), rel=0.01)


def test_shape_is_refused_below_twenty_pixels_and_for_cut_outlines() -> None:
    assert shape_of(disc(8)) is None
    cut = np.zeros((64, 64), bool)
    cut[10:50, :40] = True
    assert not outline_of(cut).complete
    assert measure(outline_of(cut)) is None


def test_the_size_of_a_drawn_disc_is_within_a_percent_at_full_resolution() -> None:
    mask = disc(170, 512)
    pixels = cv2.GaussianBlur(np.where(mask, 0.7, 0.2).astype(np.float32), (0, 0), 1.5)
    pixels += np.random.default_rng(0).normal(0, 0.03, pixels.shape).astype(np.float32)
    shape = measure(find_particle(pixels))
    assert shape is not None
    assert shape.equivalent_diameter == pytest.approx(340, rel=0.01)


def test_covered_particles_are_left_out_of_the_sizes_and_counted() -> None:
    sizes = size_distribution([10, 10, 10, 2, 3], [False, False, False, True, True])
    assert sizes is not None
    assert (sizes.d50, sizes.counted, sizes.left_out) == (10, 3, 2)
    assert size_distribution([1.0], [True]) is None


def quality_of(pixels: np.ndarray) -> tuple[float, tuple[str, ...]]:
    judged = judge(View(pixels.astype(np.float32)), find_particle(pixels.astype(np.float32)))
    return judged.score, judged.reasons


def test_a_spoilt_view_scores_lower_and_says_why() -> None:
    rng = np.random.default_rng(2)
    good = picture("square", rng)
    assert quality_of(good)[0] > 0.8
    blurred, noisy = cv2.GaussianBlur(good, (0, 0), 6), np.clip(good + rng.normal(0, 0.25, good.shape), 0, 1)
    flat, burnt = 0.5 + 0.04 * good, np.clip(good * 4, 0, 1)
    for pixels, reason in ((blurred, "blurred"), (noisy, "noisy"), (flat, "flat"), (burnt, "saturated")):
        score, reasons = quality_of(pixels)
        assert score < 0.8
        assert reason in reasons
    assert quality_of(np.zeros((64, 64))) == (0.0, ("empty",))
