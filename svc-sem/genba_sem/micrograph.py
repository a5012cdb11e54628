"""One instrument file in, one View out: grey pixels without the banner, and the pixel size with where it came from.

Knows nothing of particles. A file is judged by its first bytes, never by its name; its header is held to the limits before
any pixel is decoded. Raises ``Unreadable`` for what is no picture, is broken, or is larger than the limits.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass, field, replace
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from genba_sem import banner
from genba_sem.instrument import Header, Instrument, agreed, read_sidecar, read_tiff_header

Pixels = npt.NDArray[np.float32]
Levels = npt.NDArray[np.uint8]

_MAGIC: Final = (
    ("tiff", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("png", (b"\x89PNG\r\n\x1a\n",)),
    ("jpeg", (b"\xff\xd8\xff",)),
)
MOST_SIDE_PX: Final = 1024  # that are looked at: an outline is not found finer, and a finer mask would be one of steps
_MOST_PAGES: Final = 64
_GREY: Final = np.array([0.299, 0.587, 0.114])
_NEAR_GREY: Final = 257 * 6  # of 65,535: a palette entry whose colours differ by less is a grey


class Unreadable(Exception):
    """A file that gives no picture; ``reason`` is one of no_picture, broken, too_large, too_small, unsupported."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Limits:
    """What is refused before decoding."""

    max_bytes: int = 256 * 2**20
    max_pixels: int = 40_000_000
    max_side_px: int = 16_384
    min_side_px: int = 16


@dataclass(frozen=True)
class View:
    """One picture of a particle.

    pixels: (H, W) float32 in [0, 1], the banner cropped. full_size_px: (height, width) of the file's picture without its banner, where
    pixels are a smaller copy of it. pixel_size_nm: of a pixel here; None where nothing trustworthy says it;
    pixel_size_source: ``Zeiss tag``, ``FEI tag``, ``Hitachi text``, ``TIFF resolution``, ``scale bar``, ``user`` …;
    disagreements: in words, what other sources say. banner_rows: rows cut from the bottom. scale_bar_px: length of a bar
    seen in the banner. dtype: of the file (``uint16`` …).
    """

    pixels: Pixels
    pixel_size_nm: float | None = None
    pixel_size_source: str | None = None
    disagreements: tuple[str, ...] = ()
    banner_rows: int = 0
    scale_bar_px: int | None = None
    dtype: str = "uint8"
    instrument: Instrument = field(default_factory=Instrument)
    full_size_px: tuple[int, int] | None = None

    @property
    def file_size_px(self) -> tuple[int, int]:
        """(height, width) of the file's picture without its banner."""
        return self.full_size_px or (self.pixels.shape[0], self.pixels.shape[1])

    @property
    def shrunk(self) -> float:
        """How many of the file's pixels lie along one of these."""
        return float(self.file_size_px[1] / self.pixels.shape[1])

    @property
    def file_pixel_size_nm(self) -> float | None:
        """The pixel size as the file has it."""
        return None if self.pixel_size_nm is None else self.pixel_size_nm / self.shrunk

    def sized(self, file_pixel_size_nm: float | None) -> View:
        """The same, the file's pixel size known from elsewhere."""
        return replace(self, pixel_size_nm=None if file_pixel_size_nm is None else file_pixel_size_nm * self.shrunk)


def read_view(
    data: bytes,
    *,
    limits: Limits | None = None,
    sidecar: str | None = None,
    pixel_size_nm: float | None = None,
    scale_bar_nm: float | None = None,
) -> View:
    """Decode a TIFF, PNG or JPEG.

    sidecar: text that the instrument wrote beside the file. pixel_size_nm: the user's word, the least trusted source;
    scale_bar_nm: the length that the user reads at the scale bar.
    Raises: Unreadable.
    """
    return read_levels(data, limits=limits, sidecar=sidecar, pixel_size_nm=pixel_size_nm, scale_bar_nm=scale_bar_nm)[0]


def read_levels(
    data: bytes,
    *,
    limits: Limits | None = None,
    sidecar: str | None = None,
    pixel_size_nm: float | None = None,
    scale_bar_nm: float | None = None,
) -> tuple[View, Levels | None]:
    """As ``read_view``; and the same pixels in [0, 255] where they are the file's own and it has eight bits: a fourth of the bytes."""
    limits = limits or Limits()
    if len(data) > limits.max_bytes:
        raise Unreadable("too_large", f"The file has {len(data):,} bytes; {limits.max_bytes:,} are allowed.")
    kind = next((name for name, starts in _MAGIC if data.startswith(starts)), None)
    if kind is None:
        raise Unreadable("no_picture", "The file is no TIFF, PNG or JPEG, whatever its name says.")
    raw, dtype, header = _decode_tiff(data, limits) if kind == "tiff" else _decode_common(data, kind, limits)
    if min(raw.shape) < limits.min_side_px:
        detail = f"The picture is {raw.shape[1]}×{raw.shape[0]} pixels; {limits.min_side_px} a side are needed."
        raise Unreadable("too_small", detail)
    pixels = from_levels(raw) if raw.dtype == np.uint8 else _scaled(raw, dtype)
    view = _view(pixels, dtype, header, sidecar=sidecar, user_nm=pixel_size_nm, bar_nm=scale_bar_nm)
    if max(view.pixels.shape) > MOST_SIDE_PX:
        return _smaller(view), None
    return view, raw[: len(view.pixels)] if raw.dtype == np.uint8 else None


def _smaller(view: View) -> View:
    factor = MOST_SIDE_PX / max(view.pixels.shape)
    height, width = (max(1, round(side * factor)) for side in view.pixels.shape)
    pixels = cv2.resize(view.pixels, (width, height), interpolation=cv2.INTER_AREA)
    smaller = replace(view, pixels=np.asarray(pixels, np.float32), full_size_px=view.file_size_px)
    return smaller.sized(view.pixel_size_nm)


def from_levels(levels: Levels) -> Pixels:
    """Pixels in [0, 1] of those in [0, 255]."""
    return np.asarray(levels.astype(np.float32) / 255)


def resampled(view: View, pixel_size_nm: float) -> View:
    """The view at another pixel size, for particles whose views differ; pixels are averaged, never invented in detail."""
    if view.pixel_size_nm is None:
        raise ValueError("A view without pixel size cannot be resampled to one.")
    factor = view.pixel_size_nm / pixel_size_nm
    size = tuple(max(1, round(side * factor)) for side in view.pixels.shape[::-1])
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    pixels = np.asarray(np.clip(cv2.resize(view.pixels, size, interpolation=how), 0, 1), np.float32)
    return replace(view, pixels=pixels, pixel_size_nm=pixel_size_nm, full_size_px=view.file_size_px)


def _view(
    pixels: Pixels, dtype: str, header: Header, *, sidecar: str | None, user_nm: float | None, bar_nm: float | None
) -> View:
    height, width = pixels.shape
    beside = read_sidecar(sidecar, width_px=width) if sidecar else Header()
    rows = header.image_rows if header.image_rows is not None else banner.image_rows(pixels)
    bar_px = banner.scale_bar_px(pixels[rows:]) if rows < height else None
    bar = Header(pixel_size_nm=bar_nm / bar_px, pixel_size_source="scale bar") if bar_nm and bar_px else Header()
    user = Header(pixel_size_nm=user_nm, pixel_size_source="user") if user_nm else Header()
    is_plain = header.pixel_size_source == "TIFF resolution"
    order = (beside, header, bar, user) if is_plain else (header, beside, bar, user)
    trusted = agreed(*order)
    return View(
        np.ascontiguousarray(pixels[:rows]),
        trusted.pixel_size_nm,
        trusted.pixel_size_source,
        trusted.disagreements,
        height - rows,
        bar_px,
        dtype,
        trusted.instrument,
    )


def _checked(width_px: int, height_px: int, limits: Limits) -> None:
    if max(width_px, height_px) > limits.max_side_px or width_px * height_px > limits.max_pixels:
        detail = f"The picture is {width_px:,}×{height_px:,} pixels; {limits.max_pixels:,} in all are allowed."
        raise Unreadable("too_large", detail)


def _decode_common(data: bytes, kind: str, limits: Limits) -> tuple[npt.NDArray[Any], str, Header]:
    """PNG and JPEG, after their own header has been held to the limits."""
    width, height = _png_size(data) if kind == "png" else _jpeg_size(data)
    _checked(width, height, limits)
    try:
        how = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION  # as the instrument scanned it
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error as err:
        raise Unreadable("broken", f"The {kind.upper()} cannot be decoded.") from err
    if decoded is None or decoded.shape != (height, width):
        raise Unreadable("broken", f"The {kind.upper()} breaks off or is damaged.")
    if kind == "jpeg" and not data.rstrip(b"\0")[-4096:].count(b"\xff\xd9"):
        raise Unreadable("broken", "The JPEG breaks off before its end.")
    if kind == "png" and b"IEND" not in data[-64:]:
        raise Unreadable("broken", "The PNG breaks off before its end.")
    return decoded, str(decoded.dtype), Header()


def _png_size(data: bytes) -> tuple[int, int]:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise Unreadable("broken", "The PNG has no header.")
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        at += 1 if marker == 0xFF else 2 + length
    raise Unreadable("broken", "The JPEG has no frame header.")


def _decode_tiff(data: bytes, limits: Limits) -> tuple[npt.NDArray[Any], str, Header]:
    import tifffile

    try:
        with warnings.catch_warnings(), tifffile.TiffFile(io.BytesIO(data)) as tiff:
            warnings.simplefilter("ignore")
            page, tags = _choose_page(tiff, limits)
            raw = page.asarray(maxworkers=1)
            grey = _grey_of(raw, page)
            header = read_tiff_header(page, tags, width_px=page.imagewidth, height_px=page.imagelength)
    except Unreadable:
        raise
    except MemoryError as err:
        raise Unreadable("too_large", "The TIFF needs more memory than there is.") from err
    except Exception as err:  # tifffile and its codecs raise what they like at damaged files
        raise Unreadable("broken", "The TIFF cannot be decoded; it is damaged or of a kind that is not known.") from err
    return grey, str(raw.dtype), header


def _choose_page(tiff: Any, limits: Limits) -> tuple[Any, dict[str, Any]]:
    """The page to use and the tags of all pages of its size: the one that carries the maker's tag, else the first."""
    pages = []
    for index, page in enumerate(tiff.pages):
        if index >= _MOST_PAGES:
            break
        pages.append(page if hasattr(page, "tags") else page.aspage())
    if not pages:
        raise Unreadable("broken", "The TIFF has no picture.")
    made = [page for page in pages if any(tag.code in {33560, 33471} for tag in page.tags.values())]
    page = made[0] if made else pages[0]
    _checked(page.imagewidth, page.imagelength, limits)
    samples = math.prod(page.shape)
    if samples > 4 * limits.max_pixels or samples * page.dtype.itemsize > 16 * limits.max_pixels:
        raise Unreadable("too_large", "The TIFF's samples exceed what is allowed.")
    tags: dict[str, Any] = {}
    for tag in page.tags.values():
        tags.setdefault(tag.name, tag.value)
    return page, tags


def _grey_of(raw: npt.NDArray[Any], page: Any) -> npt.NDArray[Any]:
    """(H, W) of the file's own range from what a page holds: grey, palette, RGB(A) or a stack, whose first plane counts."""
    import tifffile

    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        return _from_palette(raw, np.asarray(page.colormap))
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED and page.samplesperpixel == 4 and raw.dtype.kind == "u":
        raw = _from_inks(raw if raw.shape[-1] == 4 else np.moveaxis(raw, 0, -1))
    elif raw.ndim == 3 and raw.shape[-1] in {3, 4} and page.samplesperpixel >= 3:
        raw = raw[..., :3] @ _GREY
    elif raw.ndim == 3 and page.samplesperpixel >= 3 and raw.shape[0] in {3, 4}:
        raw = np.tensordot(_GREY, raw[:3].astype(np.float64), axes=1)
    while raw.ndim > 2:
        raw = raw[..., 0] if raw.shape[-1] <= 4 else raw[0]
    if raw.ndim != 2 or raw.dtype.kind not in "uifb":
        raise Unreadable("unsupported", "The TIFF holds no two-dimensional grey picture.")
    if raw.dtype == np.uint8 and page.bitspersample in {2, 4}:
        raw = raw * np.uint8(255 // (2**page.bitspersample - 1))
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and raw.dtype.kind == "u":
        raw = np.iinfo(raw.dtype).max - raw
    return raw


def _from_inks(inks: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(H, W) luminance of (H, W, 4) cyan, magenta, yellow and black, in the file's own range; printing leaves such files."""
    most = np.iinfo(inks.dtype).max
    left = 1 - inks / most
    return np.asarray(most * (left[..., :3] @ _GREY) * left[..., 3])


def _from_palette(index: npt.NDArray[Any], colormap: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Instruments store grey as a palette and use a few entries for writing over the image (Zeiss): those are healed.

    colormap: (3, n) of 16 bits.
    """
    is_grey = np.ptp(colormap.astype(np.int64), axis=0) <= _NEAR_GREY
    ramp = (colormap[1] // 257).astype(np.uint8)
    expected = np.arange(colormap.shape[1])
    if colormap.shape[1] != 256 or is_grey.mean() < 0.5:
        return np.asarray((_GREY @ colormap)[index] / 257)
    odd = ~is_grey | (np.abs(ramp.astype(np.int64) - expected) > 8)
    if (np.abs(ramp.astype(np.int64) - expected) <= 8).mean() < 0.5:  # a grey palette in another order: take its word
        return np.asarray(ramp[index])
    drawn = odd[index]
    grey = np.where(drawn, 0, index).astype(np.uint8)
    return (
        np.asarray(cv2.inpaint(grey, drawn.astype(np.uint8), 2, cv2.INPAINT_TELEA))
        if 0 < drawn.mean() < 0.05
        else index
    )


def _scaled(raw: npt.NDArray[Any], dtype: str) -> Pixels:
    """(H, W) float32 in [0, 1]: by the type's range for 8 bits, by what the picture holds for wider types.

    A 16-bit picture seldom fills its range, and a float one has none: the .1 and 99.9 percentiles become 0 and 1.
    """
    values = raw.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        if not finite.any():
            raise Unreadable("broken", "The picture holds no number.")
        values = np.where(finite, values, np.float32(np.median(values[finite])))
    if dtype == "uint8":
        return np.asarray(np.clip(values / 255, 0, 1), np.float32)
    if dtype == "bool":
        return values
    low, high = (float(value) for value in np.percentile(values[:: max(1, len(values) // 1000)], (0.1, 99.9)))
    return np.asarray(np.clip((values - low) / max(high - low, 1e-12), 0, 1), np.float32)
