from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.sem.sem_world import DATA

from genba_sem.instrument import read_sidecar
from genba_sem.micrograph import Limits, Unreadable, read_view, resampled

PACK = DATA / "vendor_tiff"
needs_pack = pytest.mark.skipif(not PACK.is_dir(), reason="the instrument pack is not on this machine (GENBA_DATA)")


def tiff(pixels: np.ndarray, **how: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **how)
    return file.getvalue()


def png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1])


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 80), np.uint8)


@needs_pack
@pytest.mark.parametrize(
    ("name", "size_nm", "shape"),
    [
        ("tiff_Zeiss_SEM/test_tiff_Zeiss_SEM_1k.tif", 2614.514, (692, 1024)),
        ("tiff_Zeiss_SEM/test_tiff_Zeiss_SEM_512pix.tif", 11.65, (351, 512)),
        ("tiff_FEI_Helios/FEI-Helios-Ebeam-8bits.tif", 3372.4, (442, 512)),
        ("tiff_FEI_Helios/FEI-Helios-Ebeam-16bits.tif", 3372.4, (442, 512)),
        ("tiff_FEI_Helios/FEI-Helios-navcam.tif", None, (512, 768)),
        ("tiff_FEI_Helios/FEI-Helios-navcam-with-no-IRBeam.tif", None, (512, 768)),
        ("tiff_FEI_Helios/FEI-Helios-navcam-with-no-IRBeam-bad-floats.tif", None, (512, 768)),
        ("hitachi_example_1.tif", 2.5, (480, 640)),
        ("hitachi_example_2.tif", 0.8, (480, 640)),
        ("hitachi_tem_example_1.tif", 0.45, (640, 640)),
        ("JEOL-SightX-TEM-mag-dummy.tif", 1.8208, (556, 556)),
        ("olympus_SIS.tif", 0.023928, (101, 112)),
    ],
)
def test_a_makers_file_gives_its_pixel_size_and_its_rows_without_the_banner(
    name: str, size_nm: float | None, shape: tuple[int, int]
) -> None:
    view = read_view((PACK / name).read_bytes())
    assert view.pixels.shape == shape
    assert view.pixel_size_nm == (None if size_nm is None else pytest.approx(size_nm, rel=1e-3))


@needs_pack
def test_a_magnification_alone_is_no_pixel_size_and_the_banner_is_found_in_the_picture() -> None:
    file = next(PACK.glob("ETRI*453.jpg"))
    view = read_view(file.read_bytes(), sidecar=Path(f"{file}.txt").read_text(encoding="utf-8"))
    assert view.pixel_size_nm is None
    assert view.file_size_px == (896, 1280)
    assert "magnification" in view.disagreements[0]
    told = read_view(file.read_bytes(), scale_bar_nm=100_000)
    assert told.pixel_size_source == "scale bar"
    assert told.file_pixel_size_nm == pytest.approx(264, rel=0.02)


@needs_pack
def test_the_monitors_pixel_size_is_named_as_a_disagreement() -> None:
    view = read_view((PACK / "tiff_Zeiss_SEM/test_tiff_Zeiss_SEM_512pix.tif").read_bytes())
    assert view.pixel_size_source == "Zeiss tag"
    assert "ap_pixel_size says 5.825" in view.disagreements[0]


def test_a_hitachi_sidecar_is_read_in_nanometres() -> None:
    header = read_sidecar("InstructName=TM3000\nDataSize=1280x1100\nPixelSize=506.25\n", width_px=1280)
    assert (header.pixel_size_nm, header.instrument.vendor, header.disagreements) == (506.25, "Hitachi", ())


def test_jeols_sem_text_is_read_by_its_micron_bar() -> None:
    text = "$CM_FORMAT JEOL-SEM\n$$SM_MICRON_BAR 100\n$$SM_MICRON_MARKER 10um\n"
    assert read_sidecar(text, width_px=1280).pixel_size_nm == pytest.approx(100)


def test_a_vendors_tag_is_trusted_before_the_users_word_and_the_difference_is_told(grey: np.ndarray) -> None:
    view = read_view(tiff(grey, description="[Condition.Screen]\nPixelSize=2.5 nm\n"), pixel_size_nm=3.0)
    assert (view.pixel_size_nm, view.pixel_size_source) == (2.5, "Hitachi tag")
    assert "user says 3 nm" in view.disagreements[0]


def test_a_printers_resolution_is_no_pixel_size_but_a_microscopes_is(grey: np.ndarray) -> None:
    assert read_view(tiff(grey, resolution=(300, 300), resolutionunit=2)).pixel_size_nm is None
    small = read_view(tiff(grey, resolution=(2e6, 2e6), resolutionunit=3))
    assert small.pixel_size_nm == pytest.approx(5.0)
    assert small.pixel_size_source == "TIFF resolution"


@pytest.mark.parametrize(
    ("said", "size_nm"),
    [("2,480469", 2.480469), ("2,5 nm", 2.5), ("2.5", 2.5), ("1,024", None), ("0,8 nm", 0.8), ("12,5 um", 12_500)],
)
def test_a_decimal_comma_is_read_as_one_and_what_may_be_thousands_is_not_guessed(
    said: str, size_nm: float | None
) -> None:
    assert read_sidecar(f"InstructName=SU8000\nPixelSize={said}", width_px=640).pixel_size_nm == size_nm


def test_pixels_that_are_not_square_have_no_size(grey: np.ndarray) -> None:
    view = read_view(tiff(grey, resolution=(1e6, 5e5), resolutionunit=3))
    assert view.pixel_size_nm is None
    assert "not square" in view.disagreements[0]


def test_imagejs_scale_is_read_with_the_unit_of_its_description(grey: np.ndarray) -> None:
    for unit, size_nm in (("um", 40.0), ("\\u00B5m", 40.0), ("nm", 0.04), ("pixel", None), ("inch", None)):
        view = read_view(tiff(grey, imagej=True, resolution=(25, 25), metadata={"unit": unit}))
        assert view.pixel_size_nm == (None if size_nm is None else pytest.approx(size_nm)), unit
    skewed = read_view(tiff(grey, imagej=True, resolution=(25, 50), metadata={"unit": "um"}))
    assert skewed.pixel_size_nm is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_read_as_it_was_scanned_whatever_a_viewer_turned_it_to(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    ramp = np.tile(np.linspace(20, 230, 80).astype(np.uint8), (60, 1))
    Image.fromarray(ramp).save(file, "JPEG", exif=exif, quality=95)
    pixels = read_view(file.getvalue()).pixels
    assert pixels.shape == (60, 80)
    assert (pixels[:, 0].mean() < 0.15, pixels[:, -1].mean() > 0.8) == (True, True)


def four_bits(pixels: np.ndarray, photometric: int) -> bytes:
    """A TIFF with two pixels a byte; 0 is white where ``photometric`` is 0."""
    height, width = pixels.shape
    strip = (pixels[:, ::2] << 4 | pixels[:, 1::2]).tobytes()
    tags = {256: width, 257: height, 258: 4, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head, count = struct.pack("<2sHI", b"II", 42, 8 + len(strip)), struct.pack("<H", len(tags))
    return b"".join((head, strip, count, entries, bytes(4)))


def test_inks_are_no_light_and_four_bits_fill_their_range() -> None:
    ramp = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (60, 1))
    file = io.BytesIO()
    Image.fromarray(ramp).convert("CMYK").save(file, "TIFF")
    assert np.abs(read_view(file.getvalue()).pixels - ramp / 255).max() < 0.02
    for photometric, wanted in ((1, ramp / 255), (0, 1 - ramp / 255)):
        assert np.abs(read_view(four_bits(ramp // 16, photometric)).pixels - wanted).max() < 0.07


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "int16"])
def test_every_sample_type_becomes_grey_between_0_and_1(dtype: str) -> None:
    ramp = np.tile(np.linspace(0, 200, 80), (60, 1)).astype(dtype)
    view = read_view(tiff(ramp))
    assert (view.dtype, str(view.pixels.dtype), view.pixels.shape) == (dtype, "float32", (60, 80))
    assert 0 <= view.pixels.min() < 0.05
    assert 0.7 < view.pixels.max() <= 1
    assert (np.diff(view.pixels, axis=1) >= -1e-6).all()


def test_nan_in_a_float_picture_is_healed_and_a_picture_of_nan_is_broken() -> None:
    pixels = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (40, 1))
    pixels[3, 3] = np.nan
    assert np.isfinite(read_view(tiff(pixels)).pixels).all()
    with pytest.raises(Unreadable) as caught:
        read_view(tiff(np.full((40, 40), np.nan, np.float32)))
    assert caught.value.reason == "broken"


def test_writing_that_a_palette_lays_over_the_picture_is_healed() -> None:
    index = np.tile(np.arange(20, 100, dtype=np.uint8), (60, 1))
    index[30, 40] = 200
    colours = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
    colours[:, 200] = (65535, 0, 0)
    view = read_view(tiff(index, photometric="palette", colormap=colours))
    assert view.pixels[30, 40] == pytest.approx(60 / 255, abs=0.02)


def test_a_coloured_picture_becomes_its_luminance(grey: np.ndarray) -> None:
    view = read_view(png(np.dstack([grey, grey, grey])))
    assert np.abs(view.pixels - grey / 255).max() < 0.01


def a_bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims a large picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")):
        parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)


def test_pictures_beyond_the_limits_are_refused_by_their_header() -> None:
    for data in (a_bomb(30_000, 30_000), a_bomb(2**31 - 1, 2**31 - 1)):
        with pytest.raises(Unreadable) as caught:
            read_view(data)
        assert caught.value.reason == "too_large"
    with pytest.raises(Unreadable) as caught:
        read_view(tiff(np.zeros((400, 400), np.uint8), compression="zlib"), limits=Limits(max_pixels=1000))
    assert caught.value.reason == "too_large"


def test_a_picture_of_one_pixel_is_too_small() -> None:
    with pytest.raises(Unreadable) as caught:
        read_view(png(np.zeros((1, 1), np.uint8)))
    assert caught.value.reason == "too_small"


def test_what_is_no_picture_is_refused_whatever_it_claims() -> None:
    for data in (b"", b"II*\0", b"%PDF-1.7", b"\xff\xd8\xff\xe0 no jpeg", b"\x89PNG\r\n\x1a\n", b"II*\0" + bytes(64)):
        with pytest.raises(Unreadable) as caught:
            read_view(data)
        assert caught.value.reason in {"no_picture", "broken"}


@pytest.mark.parametrize("kind", ["tiff", "png", "jpeg"])
def test_a_truncated_file_is_broken_and_not_half_a_picture(kind: str, grey: np.ndarray) -> None:
    big = cv2.resize(grey, (300, 300))
    data = {"tiff": tiff(big), "png": png(big), "jpeg": bytes(cv2.imencode(".jpg", big)[1])}[kind]
    assert read_view(data).pixels.shape == (300, 300)
    with pytest.raises(Unreadable) as caught:
        read_view(data[: len(data) * 2 // 3])
    assert caught.value.reason == "broken"


def test_flipped_bytes_never_raise_anything_but_unreadable(grey: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    for data in (tiff(grey, compression="lzw"), tiff(grey), png(grey), bytes(cv2.imencode(".jpg", grey)[1])):
        for _ in range(40):
            damaged = bytearray(data)
            for at in rng.integers(0, len(data), 6):
                damaged[at] = rng.integers(256)
            with contextlib.suppress(Unreadable):
                assert read_view(bytes(damaged)).pixels.ndim == 2


def with_banner(dark: float, light: float) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(76, 180, (240, 320)).astype(np.uint8)
    pixels[210:] = int(255 * dark)
    cv2.putText(pixels, "15.0 kV x500", (150, 230), cv2.FONT_HERSHEY_SIMPLEX, 0.5, int(255 * light), 1)
    pixels[222:224, 20:84] = int(255 * light)
    return pixels


@pytest.mark.parametrize(("dark", "light"), [(0.0, 1.0), (1.0, 0.0)])
def test_a_banner_is_cropped_and_its_scale_bar_measured(dark: float, light: float) -> None:
    view = read_view(png(with_banner(dark, light)), scale_bar_nm=6400)
    assert view.pixels.shape == (210, 320)
    assert (view.banner_rows, view.scale_bar_px) == (30, 64)
    assert view.pixel_size_nm == pytest.approx(100)


def test_an_empty_dark_ground_is_no_banner() -> None:
    pixels = np.zeros((240, 320), np.uint8)
    cv2.circle(pixels, (160, 90), 60, 200, -1)
    assert read_view(png(pixels)).banner_rows == 0


def test_a_view_can_be_brought_to_another_pixel_size(grey: np.ndarray) -> None:
    view = read_view(tiff(grey, description="PixelSize=2 nm"))
    assert resampled(view, 4.0).pixels.shape == (30, 40)
    with pytest.raises(ValueError, match="without pixel size"):
        resampled(read_view(png(grey)), 4.0)
