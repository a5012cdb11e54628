from __future__ import annotations

import numpy as np
import pytest

from genba_sem.generator import (
    KINDS,
    SPOILT,
    Condition,
    as_tiff,
    field_of_particles,
    make_particle,
    photograph,
    six_views,
)
from genba_sem.micrograph import View, read_view
from genba_sem.quality import judge
from genba_sem.segment import find_particle
from genba_sem.shape import shape_of


def test_the_same_seed_draws_the_same_picture() -> None:
    first, second = (
        photograph(make_particle("dendrite", np.random.default_rng(3)), np.random.default_rng(4), side_px=96)
        for _ in range(2)
    )
    assert np.array_equal(first.pixels, second.pixels)
    with pytest.raises(ValueError, match="none of"):
        make_particle("teapot", np.random.default_rng(0))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_six_views_that_fit_the_frame(kind: str) -> None:
    rng = np.random.default_rng(5)
    views = six_views(make_particle(kind, rng), rng, side_px=96)
    assert len(views) == 6
    for view in views:
        assert 0.005 < view.mask.mean() < 0.7
        assert not view.mask[[0, -1]].any()
        assert 0 <= view.pixels.min() <= view.pixels.max() <= 1


@pytest.mark.parametrize("maker", ["FEI", "Hitachi"])
def test_an_instrument_file_gives_back_pixel_size_and_rows(maker: str) -> None:
    rng = np.random.default_rng(6)
    shot = photograph(make_particle("cube", rng), rng, side_px=160)
    view = read_view(as_tiff(shot, maker="FEI" if maker == "FEI" else "Hitachi"))
    assert view.pixel_size_nm == pytest.approx(shot.pixel_size_nm, rel=1e-6)
    assert view.instrument.vendor == maker
    assert (view.pixels.shape, view.banner_rows) == ((160, 160), shot.banner_rows)
    assert view.scale_bar_px == shot.scale_bar_px


def test_shapes_differ_as_their_names_say() -> None:
    rng = np.random.default_rng(8)

    def shapes(kind: str) -> list[tuple[float, float]]:
        masks = [photograph(make_particle(kind, rng), rng, side_px=256).mask for _ in range(6)]
        return [(s.aspect_ratio, s.solidity) for s in map(shape_of, masks) if s is not None]

    assert np.median([aspect for aspect, _ in shapes("sphere")]) > 0.85
    assert np.median([solidity for _, solidity in shapes("agglomerate")]) < 0.92
    assert np.median([solidity for _, solidity in shapes("dendrite")]) < 0.7


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_views_are_trusted_less(name: str) -> None:
    rng = np.random.default_rng(7)
    good: list[float] = []
    bad: list[float] = []
    for kind in ("sphere", "cube", "broken"):
        solid = make_particle(kind, rng)
        for condition, scores in (
            (Condition(banner=False), good),
            (Condition(**{**vars(SPOILT[name]), "banner": False}), bad),
        ):
            shot = photograph(solid, rng, side_px=128, condition=condition)
            scores.append(judge(View(shot.pixels), find_particle(shot.pixels)).score)
    assert np.mean(bad) < 0.85 * np.mean(good)


def test_a_cut_outline_is_called_incomplete() -> None:
    rng = np.random.default_rng(9)
    condition = Condition(crop=0.5, banner=False)
    kinds = ("sphere", "cube", "porous")
    cut = [photograph(make_particle(kind, rng), rng, side_px=160, condition=condition) for kind in kinds]
    assert not any(find_particle(shot.pixels).complete for shot in cut)


def test_covered_particles_of_a_field_are_known() -> None:
    pixels, labels, covered, diameters = field_of_particles(np.random.default_rng(1), count=25, side_px=400)
    assert pixels.shape == labels.shape == (400, 400)
    assert 0 < covered.sum() < 25
    visible = np.bincount(labels.ravel(), minlength=26)[1:]
    whole = 2 * np.sqrt(visible[~covered] / np.pi)
    assert whole == pytest.approx(diameters[~covered], rel=0.06)
