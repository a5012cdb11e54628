"""From a particle's files to what is kept of them: views read, brought to one scale, looked at once; the rest dropped with reasons.

A view that cannot be read costs that view and not the particle. Views of different pixel size are averaged down to the coarsest,
because texture can only be compared at one scale; how that was done is said. Bytes in, numbers out: no database, no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from genba_sem.encoders import Encoder
from genba_sem.lane import SeenView, see
from genba_sem.micrograph import Limits, Unreadable, View, read_view, resampled
from genba_sem.quality import Quality
from genba_sem.segment import Outline
from genba_sem.shape import Shape
from genba_shared.problems import Invalid

Rows = npt.NDArray[np.float32]
ReadView = Callable[..., View]  # micrograph.read_view, or the same in a child that may be killed

_SAME_SCALE: Final = 1.02
_MOST_SCALING: Final = 8.0  # beyond it nothing would be left of the finer view
_PICTURE_PX: Final = 512
_MOST_TEXT_BYTES: Final = 1 << 16
_NO_MASK: Final = np.zeros((1, 1), np.bool_)
_SIDECARS: Final = (".txt", ".hdr", ".ini", ".xml")


class NoReadableView(Invalid):
    """Too few of the particle's views can be read."""


@dataclass(frozen=True)
class File:
    """One file of a particle."""

    path: Path
    file_name: str


@dataclass(frozen=True)
class Hints:
    """What the sender knows: the pixel size, or the length written at the scale bar, in nm; and, by the stem of the image
    that they lie beside, the texts that an instrument wrote.
    """

    pixel_size_nm: float | None = None
    scale_bar_nm: float | None = None
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Looked:
    """A view that was read: which file it is, what was seen, a small JPEG of it, and what the wire shows."""

    index: int  # of the file among those given
    seen: SeenView
    described_by: str
    picture: bytes
    document: dict[str, Any]


@dataclass(frozen=True)
class Looks:
    """All of a particle that could be read; ``dropped`` says of each other file why."""

    views: tuple[Looked, ...]
    dropped: tuple[dict[str, str], ...]
    scaling: dict[str, Any] = field(default_factory=dict)


def texts_of(files: Sequence[File]) -> dict[str, str]:
    """The texts among the files, by their stem; what is longer than ``_MOST_TEXT_BYTES`` is cut."""
    found = {}
    for file in files:
        if is_sidecar(file.file_name):
            with file.path.open("rb") as opened:
                found[Path(file.file_name).stem] = (
                    opened.read(_MOST_TEXT_BYTES).decode("utf-8", "replace").replace("\0", "")
                )
    return found


def is_sidecar(file_name: str) -> bool:
    """Whether a file is a text of an instrument and no image."""
    return Path(file_name).suffix.lower() in _SIDECARS


def look(
    files: Sequence[File], encoder: Encoder, *, hints: Hints, limits: Limits, least: int, read: ReadView = read_view
) -> Looks:
    """Read and describe every image. ``read``: what touches the files' bytes.

    Raises: NoReadableView when fewer than ``least`` can be read; it says why of each.
    """
    found: list[tuple[int, View]] = []
    dropped: list[dict[str, str]] = []
    for index, file in enumerate(files):
        try:
            found.append((index, _read(file, hints, limits, read)))
        except Unreadable as why:
            dropped.append({"file_name": file.file_name, "reason": why.reason, "detail": why.detail})
    if len(found) < least:
        said = "; ".join(f"{each['file_name']}: {each['detail']}" for each in dropped) or "no image was sent"
        errors = [{"field": f"views[{each['file_name']}]", "message": each["detail"]} for each in dropped]
        raise NoReadableView(
            f"{len(found)} of {len(files)} views can be read, {least} needed. {said}",
            errors=errors or [{"field": "views", "message": "no image was sent"}],  # type: ignore[arg-type]
        )
    views, scaling = to_one_scale([view for _, view in found])
    looked = tuple(
        _looked(index, original, view, encoder) for (index, original), view in zip(found, views, strict=True)
    )
    return Looks(looked, tuple(dropped), scaling)


def _read(file: File, hints: Hints, limits: Limits, read: ReadView) -> View:
    size_bytes = file.path.stat().st_size
    if size_bytes > limits.max_bytes:
        raise Unreadable("too_large", f"The file has {size_bytes:,} bytes; {limits.max_bytes:,} are allowed.")
    return read(
        file.path.read_bytes(),
        limits=limits,
        sidecar=hints.texts.get(Path(file.file_name).stem),
        pixel_size_nm=hints.pixel_size_nm,
        scale_bar_nm=hints.scale_bar_nm,
    )


def to_one_scale(views: Sequence[View]) -> tuple[list[View], dict[str, Any]]:
    """The views at the coarsest pixel size among them, and what was done; views without a size stay as they are."""
    known = [view.pixel_size_nm for view in views if view.pixel_size_nm is not None]
    sizes = [view.file_pixel_size_nm for view in views]
    said: dict[str, Any] = {"pixel_sizes_nm": sizes, "to_nm": None, "scaled_views": [], "left_views": []}
    if not known or max(known) <= min(known) * _SAME_SCALE:
        return list(views), said
    target = max(known)
    said["to_nm"] = target
    scaled = []
    for index, view in enumerate(views):
        if view.pixel_size_nm is None or target / view.pixel_size_nm > _MOST_SCALING:
            said["left_views"].append(index)
            scaled.append(view)
        elif target / view.pixel_size_nm > _SAME_SCALE:
            said["scaled_views"].append(index)
            scaled.append(resampled(view, target))
        else:
            scaled.append(view)
    return scaled, said


def _looked(index: int, original: View, view: View, encoder: Encoder) -> Looked:
    seen = see(view, encoder)
    quality, outline = seen.quality, seen.outline
    document = {
        "width_px": original.file_size_px[1],
        "height_px": original.file_size_px[0],
        "dtype": original.dtype,
        "pixel_size_nm": original.file_pixel_size_nm,
        "pixel_size_source": original.pixel_size_source,
        "disagreements": list(original.disagreements),
        "banner_rows": original.banner_rows,
        "scale_bar_px": original.scale_bar_px,
        "instrument": {"vendor": original.instrument.vendor, "model": original.instrument.model},
        "quality": {**quality.__dict__, "reasons": list(quality.reasons)},
        "outline": {
            "found": outline.found,
            "complete": outline.complete,
            "border_share": outline.border_share,
            "how": outline.how,
            "polygon": polygon(outline, scale=view.shrunk),
        },
        "shape": None if seen.shape is None else dict(seen.shape.__dict__),
    }
    kept = replace(
        seen, outline=replace(outline, mask=_NO_MASK)
    )  # which is in the document: a page of particles is held at once
    return Looked(index, kept, encoder.kind, picture_of(original), document)


def polygon(outline: Outline, *, scale: float = 1.0) -> list[list[float]]:
    """The outline as [x, y] corners in pixels, simplified to half a pixel; empty where none was found."""
    contours, _ = cv2.findContours(outline.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return []
    corners = cv2.approxPolyDP(max(contours, key=cv2.contourArea), 0.5, closed=True)[:, 0]
    found: list[list[float]] = np.round(corners * scale, 1).tolist()
    return found


def picture_of(view: View) -> bytes:
    """A JPEG of at most ``_PICTURE_PX`` a side."""
    factor = min(1.0, _PICTURE_PX / max(view.pixels.shape))
    size = (max(1, round(view.pixels.shape[1] * factor)), max(1, round(view.pixels.shape[0] * factor)))
    small = cv2.resize(view.pixels, size, interpolation=cv2.INTER_AREA) if factor < 1 else view.pixels
    done, jpeg = cv2.imencode(".jpg", np.asarray(small * 255, np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise RuntimeError("The picture could not be written as JPEG.")
    return bytes(jpeg.tobytes())


def pack(raw: Rows) -> bytes:
    """A raw row for the table: half precision, which moves a cosine by less than 1e-3."""
    return np.asarray(raw, np.float16).tobytes()


def remembered(raw: bytes, described_by: str, document: dict[str, Any]) -> SeenView:
    """A view as it was seen, from what is kept of it: deciding again needs no picture."""
    quality = dict(document["quality"])
    quality["reasons"] = tuple(quality["reasons"])
    shape = document["shape"]
    outline = Outline(_NO_MASK, document["outline"]["border_share"], "given")
    return SeenView(
        np.frombuffer(raw, np.float16).astype(np.float32),
        described_by,
        Quality(**quality),
        outline,
        None if shape is None else Shape(**shape),
        document["pixel_size_nm"],
    )
