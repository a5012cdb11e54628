"""A picture larger than seeing needs is seen in a smaller copy, and told in the file's own pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.random import default_rng

from genba_sem import generator
from genba_sem.encoders import HlgShape
from genba_sem.lane import see
from genba_sem.looking import File, Hints, Looks, look
from genba_sem.micrograph import MOST_SIDE_PX, Limits, read_view
from genba_sem.picture_reader import PictureReader

_SIDE_PX = 1024


def file(folder: Path, *, times: int, banner: bool = False) -> File:
    """A cube, and the same cube by an instrument of so many times the pixels."""
    shot = generator.photograph(
        generator.make_particle("cube", default_rng(3)),
        default_rng(4),
        side_px=_SIDE_PX,
        condition=generator.Condition(banner=banner),
    )
    grey = np.asarray(shot.pixels * 255, np.uint8)
    large = np.kron(grey, np.ones((times, times), np.uint8))
    path = folder / f"{times}.png"
    path.write_bytes(bytes(cv2.imencode(".png", large)[1].tobytes()))
    return File(path, path.name)


@pytest.mark.parametrize("side_px", [1024, 1280, 2048])
def test_a_disc_is_as_round_in_a_large_picture(side_px: int) -> None:
    y, x = np.mgrid[:side_px, :side_px].astype(np.float32)
    inside = np.clip((0.3 * side_px - np.hypot(x - 0.5 * side_px - 3.3, y - 0.5 * side_px + 1.7)) + 0.5, 0, 1)
    grey = np.asarray((0.2 + 0.6 * inside + default_rng(0).normal(0, 0.02, inside.shape)).clip(0, 1) * 255, np.uint8)
    shape = see(read_view(bytes(cv2.imencode(".png", grey)[1].tobytes())), HlgShape({})).shape
    assert shape is not None
    assert shape.circularity > 0.99
    assert shape.equivalent_diameter == pytest.approx(0.6 * side_px, rel=0.003)


def seen(sent: File, hints: Hints) -> Looks:
    return look([sent], HlgShape({}), hints=hints, limits=Limits(), least=1)


def test_a_large_picture_is_looked_at_in_a_smaller_copy_that_knows_the_file(tmp_path: Path) -> None:
    data = file(tmp_path, times=4).path.read_bytes()
    view = read_view(data, pixel_size_nm=5.0)
    assert max(view.pixels.shape) == MOST_SIDE_PX
    assert view.file_size_px == (4 * _SIDE_PX, 4 * _SIDE_PX)
    assert view.pixel_size_nm == pytest.approx(20)
    assert view.file_pixel_size_nm == pytest.approx(5)
    reader = PictureReader(memory_bytes=4 * 2**30, timeout_s=60)
    apart = reader.read_view(data, pixel_size_nm=5.0)
    reader.close()
    assert np.array_equal(apart.pixels, view.pixels)
    assert (apart.full_size_px, apart.pixel_size_nm) == (view.full_size_px, view.pixel_size_nm)


@pytest.mark.parametrize("known", [True, False])
def test_sizes_and_outlines_are_those_of_the_file(tmp_path: Path, *, known: bool) -> None:
    small, large = (
        seen(file(tmp_path, times=times), Hints(pixel_size_nm=20 / times if known else None)).views[0]
        for times in (1, 4)
    )
    assert (large.document["width_px"], large.document["height_px"]) == (4 * _SIDE_PX, 4 * _SIDE_PX)
    assert large.document["pixel_size_nm"] == (5.0 if known else None)
    longer = 1 if known else 4  # in µm they are the same; in pixels of the file not
    assert large.document["shape"]["unit"] == ("µm" if known else "px")
    for name in ("equivalent_diameter", "feret_max", "perimeter"):
        assert large.document["shape"][name] == pytest.approx(longer * small.document["shape"][name], rel=0.01)
    assert large.document["shape"]["area"] == pytest.approx(longer**2 * small.document["shape"]["area"], rel=0.02)
    reach = [np.ptp(np.array(each.document["outline"]["polygon"]), axis=0) for each in (small, large)]
    assert reach[1] == pytest.approx(4 * reach[0], rel=0.01)


def test_the_banner_of_a_large_picture_weighs_as_much_as_that_of_a_small_one(tmp_path: Path) -> None:
    small, large = (seen(file(tmp_path, times=times, banner=True), Hints()).views[0] for times in (1, 4))
    assert small.document["banner_rows"] > 0
    assert large.document["banner_rows"] == pytest.approx(4 * small.document["banner_rows"], abs=8)
    shares = [each.document["quality"]["banner_share"] for each in (small, large)]
    assert shares[1] == pytest.approx(shares[0], abs=0.005)


def test_views_of_one_particle_by_a_large_and_a_small_picture_say_the_pixel_sizes_of_their_files(
    tmp_path: Path,
) -> None:
    looks = look(
        [file(tmp_path, times=1), file(tmp_path, times=4)],
        HlgShape({}),
        hints=Hints(pixel_size_nm=10.0),
        limits=Limits(),
        least=1,
    )
    assert looks.scaling["pixel_sizes_nm"] == [pytest.approx(10), pytest.approx(10)]
    assert looks.scaling["to_nm"] == pytest.approx(40)
    assert looks.scaling["scaled_views"] == [0]
