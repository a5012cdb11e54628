"""Turns the frames of one video into unit rows: the seam between our own descriptor and encoders with weights.

Knows nothing of files and containers; weights are the business of ``genba_shared.encoders``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from genba_shared.encoders import PREFIX, OpenClip, open_openclip
from genba_sop import motion_hog
from genba_sop.motion_hog import MotionHog

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class Encoding(Protocol):
    """The encoding of one video: frames come in order, the rows at the end."""

    def add(self, rgb: Pixels) -> None:
        """Take the next frame, (h, w, 3)."""

    def repeat(self) -> None:
        """The last frame is still on the screen."""

    def values(self, seen: MotionHog, /) -> Array:
        """(T, dim) rows of unit length; ``seen`` has taken the same frames."""


class FrameEncoder(Protocol):
    """Says what rows mean: rows are compared only when the ``id`` is the same."""

    @property
    def id(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def short_side_px(self) -> int | None:
        """Size of the frames it wants, aspect kept; None: the 160×120 frame is enough."""

    def begin(self) -> Encoding: ...


class PictureEncoder(Protocol):
    """Single pictures to unit rows."""

    @property
    def id(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def needs_weights(self) -> bool: ...

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the pictures that it wants; no width: a short side, aspect kept."""

    def rows(self, pictures: Sequence[Pixels], /) -> Array:
        """(N, dim) rows of unit length from N pictures, (h, w, 3) each."""


class PictureHogEncoder:
    """picture-hog-v1, without weights: which way edges run and which colours lie in each of 3×4 cells."""

    id, dim, needs_weights = "picture-hog-v1", motion_hog.PICTURE_DIM, False
    size_px = (motion_hog.WIDTH, motion_hog.HEIGHT)

    def rows(self, pictures: Sequence[Pixels], /) -> Array:
        found = [motion_hog.described(each).ravel() for each in pictures]
        rows = np.stack(found) if found else np.zeros((0, self.dim), np.float32)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), np.float32)


class ClipPictureEncoder:
    """Pictures as an OpenCLIP model sees them, in the space of its frames and texts."""

    needs_weights = True

    def __init__(self, clip: OpenClip) -> None:
        self._clip = clip
        self.id, self.dim, self.size_px = clip.id, clip.dim, (0, clip.image_px)

    def rows(self, pictures: Sequence[Pixels], /) -> Array:
        return self._clip.encode_images(pictures)


class MotionHogEncoder:
    """motion-hog-v1, the embedded default: no weights, made of the descriptors that every video gets anyway."""

    id = motion_hog.ENCODER_ID
    dim = motion_hog.DIM
    short_side_px = None

    def begin(self) -> Encoding:
        return _MotionHogEncoding()


class _MotionHogEncoding:
    def add(self, rgb: Pixels) -> None: ...

    def repeat(self) -> None: ...

    def values(self, seen: MotionHog, /) -> Array:
        return seen.values()


class OpenClipEncoder:
    """Rows of an OpenCLIP image encoder; texts for the same space come from ``clip.encode_texts``."""

    def __init__(self, clip: OpenClip) -> None:
        self.clip = clip
        self.id, self.dim, self.short_side_px = clip.id, clip.dim, clip.image_px

    def begin(self) -> Encoding:
        return _OpenClipEncoding(self.clip)


class _OpenClipEncoding:
    """Encodes batch by batch, so that a long video's frames never lie in memory together."""

    def __init__(self, clip: OpenClip) -> None:
        self._clip = clip
        self._waiting: list[Pixels] = []
        self._rows: list[Array] = []
        self._row_of: list[int] = []  # of each frame; a frame that is still on the screen has its predecessor's

    def add(self, rgb: Pixels) -> None:
        self._row_of.append(self._row_of[-1] + 1 if self._row_of else 0)
        self._waiting.append(rgb)
        if len(self._waiting) >= self._clip.batch:
            self._encode()

    def repeat(self) -> None:
        self._row_of.append(self._row_of[-1])

    def values(self, _: MotionHog, /) -> Array:
        self._encode()
        return np.asarray(np.concatenate(self._rows)[self._row_of], np.float32)

    def _encode(self) -> None:
        if self._waiting:
            self._rows.append(self._clip.encode_images(self._waiting))
            self._waiting = []


def picture_encoder(frames: FrameEncoder) -> PictureEncoder:
    """What turns single pictures into rows, beside an encoder of videos; motion-hog-v1 sees a frame with those around it only."""
    return ClipPictureEncoder(frames.clip) if isinstance(frames, OpenClipEncoder) else PictureHogEncoder()


def open_encoder(name: str, *, weights: Path | None = None, device: str = "auto") -> FrameEncoder:
    """The encoder of a setting: ``motion-hog-v1``, ``openclip:ViT-H-14`` or ``openclip:ViT-B-32``.

    ``weights``: a checkpoint or a folder; the local Hugging Face cache when None. Nothing is ever downloaded.
    Raises: ValueError for a name that is not known; EncoderUnavailable (503) without weights, torch or open_clip.
    """
    if name == MotionHogEncoder.id:
        return MotionHogEncoder()
    if name.startswith(PREFIX):
        return OpenClipEncoder(open_openclip(name, weights, device=device))
    message = f"{name!r} is no encoder; {MotionHogEncoder.id}, {PREFIX}ViT-H-14 and {PREFIX}ViT-B-32 are"
    raise ValueError(message)
