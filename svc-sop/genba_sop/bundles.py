"""Features and thumbnails as npz files, never pickled, and clips made of them. Knows nothing of where the files lie."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from genba_sop.features import Array, Features, no_pictures

CLIP_S: Final = 2.0
CLIP_STRIDE_S: Final = 1.0


@dataclass(frozen=True)
class Thumbnails:
    """Small JPEG pictures of one video, in time order."""

    times_s: npt.NDArray[np.float64]
    jpegs: tuple[bytes, ...]

    def nearest(self, time_s: float) -> bytes | None:
        """The picture nearest to ``time_s``; None when there are none."""
        if not self.jpegs:
            return None
        return self.jpegs[int(np.abs(self.times_s - time_s).argmin())]


@dataclass(frozen=True)
class Clip:
    """A window of a video and its mean vector, of unit length."""

    start_s: float
    end_s: float
    vector: Array  # (D,)


def pack_features(features: Features) -> bytes:
    """An npz of ``features``."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        encoder=np.array(features.encoder),
        times_s=features.times_s,
        values=features.values,
        local=features.local,
        motion=features.motion,
        duration_s=np.array(features.duration_s),
        pictures=features.pictures,
    )
    return buffer.getvalue()


def unpack_features(file: BinaryIO) -> Features:
    """The features in an npz. Raises ValueError for a file that is not one; a pickle inside is refused."""
    with np.load(file, allow_pickle=False) as data:
        return Features(
            encoder=str(data["encoder"]),
            times_s=data["times_s"],
            values=data["values"],
            local=data["local"],
            motion=data["motion"],
            duration_s=float(data["duration_s"]),
            pictures=data["pictures"] if "pictures" in data else no_pictures(),
        )


def pack_thumbnails(thumbnails: Sequence[tuple[float, bytes]]) -> bytes:
    """An npz: times, one run of JPEG bytes, and where each picture ends."""
    buffer = io.BytesIO()
    ordered = sorted(thumbnails)
    np.savez(
        buffer,
        times_s=np.array([time_s for time_s, _ in ordered], np.float64),
        ends=np.cumsum([len(jpeg) for _, jpeg in ordered], dtype=np.int64),
        data=np.frombuffer(b"".join(jpeg for _, jpeg in ordered), np.uint8),
    )
    return buffer.getvalue()


def unpack_thumbnails(file: BinaryIO) -> Thumbnails:
    """The pictures in an npz."""
    with np.load(file, allow_pickle=False) as bundle:
        data, ends = bundle["data"].tobytes(), bundle["ends"].tolist()
        starts = [0, *ends[:-1]]
        return Thumbnails(bundle["times_s"], tuple(data[a:b] for a, b in zip(starts, ends, strict=False)))


def clips(features: Features) -> Iterator[Clip]:
    """Windows of ``CLIP_S`` every ``CLIP_STRIDE_S``; a video shorter than a window is one clip."""
    last_start_s = max(0.0, features.duration_s - CLIP_S)
    for start_s in np.arange(0.0, last_start_s + 1e-9, CLIP_STRIDE_S):
        end_s = min(start_s + CLIP_S, features.duration_s)
        vector = mean_vector(features, float(start_s), float(end_s))
        if vector is not None:
            yield Clip(float(start_s), float(end_s), vector)


def mean_vector(features: Features, start_s: float, end_s: float) -> Array | None:
    """The mean of the rows in ``start_s`` ≤ t < ``end_s``, of unit length; None without rows or with a mean of zero."""
    low, high = np.searchsorted(features.times_s, [start_s, end_s])
    if high <= low:
        return None
    mean = features.values[low:high].mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    if length < 1e-12:
        return None
    unit: Array = (mean / length).astype(np.float32)
    return unit
