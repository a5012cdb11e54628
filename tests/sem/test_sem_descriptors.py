"""What is computed by hand for speed is what the libraries say."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern
from skimage.measure import perimeter_crofton

from genba_sem import descriptors
from genba_sem._patterns import uniform_patterns
from genba_sem.percentiles import median, percentile, percentiles
from genba_sem.perimeter import crofton_perimeter


def crops(rng: np.random.Generator) -> list[np.ndarray]:
    """Noise, smooth, stepped and even pictures, (64, 64) in [0, 1]."""
    noise = rng.random((64, 64)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return [
        noise,
        smooth,
        np.floor(smooth * 20) / np.float32(20),
        np.full_like(noise, 0.3),
        cv2.GaussianBlur(noise, (0, 0), 1),
    ]


def blob(rng: np.random.Generator, side_px: int = 64) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(rng.random((side_px, side_px)), (0, 0), float(rng.uniform(0.3, 6))) > 0.5)


@pytest.mark.parametrize(("points", "radius"), [(8, 1), (16, 2)])
def test_local_binary_patterns_are_those_of_scikit_image(points: int, radius: int) -> None:
    rng = np.random.default_rng(3)
    for crop in [crop for _ in range(4) for crop in crops(rng)]:
        grey = (crop * 255).astype(np.uint8)
        assert (uniform_patterns(grey, points, radius) == local_binary_pattern(grey, points, radius, "uniform")).all()


def test_perimeters_are_those_of_scikit_image() -> None:
    rng = np.random.default_rng(4)
    for side_px in range(3, 60):
        mask = blob(rng, side_px)
        assert crofton_perimeter(mask) == perimeter_crofton(np.pad(mask, 1), directions=4)


def test_pairs_of_grey_levels_are_judged_as_scikit_image_does() -> None:
    rng = np.random.default_rng(5)
    names = ("contrast", "homogeneity", "energy", "correlation", "dissimilarity")
    for crop in [crop for _ in range(3) for crop in crops(rng)]:
        inside = blob(rng)
        levels = np.where(inside, np.minimum((crop * 16).astype(np.uint8), 15) + 1, 0).astype(np.uint8)
        angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
        pairs = graycomatrix(levels, [1, 2, 4], angles, 17, symmetric=True)[1:, 1:].astype(np.float64)
        values = [graycoprops(pairs, name) for name in names]
        expected = np.concatenate([part for value in values for part in (value.mean(1), np.ptp(value, axis=1))])
        np.testing.assert_allclose(descriptors._glcm(crop, inside), expected, rtol=1e-5, atol=1e-6)


def test_coarse_cells_are_blurred_planes_of_gradients_averaged() -> None:
    rng = np.random.default_rng(6)
    for crop in crops(rng):
        strength, direction = descriptors._gradients(crop)
        which = np.floor(direction * (12 / np.pi)).astype(int) % 12
        planes = [
            cv2.GaussianBlur(np.where(which == index, strength, 0).astype(np.float32), (0, 0), 6.4)
            for index in range(12)
        ]
        cells = [cv2.resize(plane, (4, 4), interpolation=cv2.INTER_AREA) for plane in planes]
        grid = np.sqrt(np.stack(cells, axis=-1))
        expected = grid / max(float(np.linalg.norm(grid)), 1e-6)
        np.testing.assert_allclose(descriptors._coarse_grid(strength, direction), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_percentiles_and_medians_are_numpys(dtype: type) -> None:
    rng = np.random.default_rng(7)
    for size in (1, 2, 7, 8, 46, 2304):
        values: np.ndarray = rng.normal(size=size).astype(dtype)
        assert percentiles(values, 0, 5, 50, 95, 100) == np.percentile(values, (0, 5, 50, 95, 100)).tolist()
        assert [percentile(values, share) for share in (1, 80, 90)] == [
            np.percentile(values, share) for share in (1, 80, 90)
        ]
        assert median(values) == np.median(values)
