"""From a video file to what is kept of it: features, a picture a second, and what each stage took.

Knows nothing of containers and child processes (``frames``), of weights (``encoders``), of steps, scores or HTTP. The
problems and limits of ``frames`` are offered here as well: this is the door to a video.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from genba_sop import motion_hog
from genba_sop.encoders import FrameEncoder, MotionHogEncoder
from genba_sop.features import Features
from genba_sop.frames import (
    SAMPLE_FPS,
    Claimed,
    DecodingStopped,
    Frame,
    Limits,
    NotAVideo,
    Summary,
    Thumbnail,
    VideoTooLarge,
    VideoTooLong,
    VideoTruncated,
    VideoUnreadable,
    decode,
)

__all__ = [
    "DecodingStopped",
    "Extraction",
    "Limits",
    "NotAVideo",
    "Thumbnail",
    "VideoInfo",
    "VideoTooLarge",
    "VideoTooLong",
    "VideoTruncated",
    "VideoUnreadable",
    "decode",
    "extract",
]

Progress = Callable[[float], None]  # called now and then with the share that is done, 0 to 1


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video once it has been decoded. Width and height are upright."""

    duration_s: float
    width: int
    height: int
    fps: float
    frame_count: int
    codec: str
    rotation: int  # degrees counter-clockwise that were applied: 0, 90, 180 or 270
    has_audio: bool
    variable_rate: bool
    truncated: bool = False  # the container promises more than could be decoded
    damaged_packets: int = 0  # passed over


@dataclass(frozen=True)
class Extraction:
    """Everything that is kept of an ingested video."""

    info: VideoInfo
    features: Features
    thumbnails: tuple[Thumbnail, ...]
    timings_ms: dict[str, float]  # decode, scale, thumbnail and pipe_wait ran beside describe and encode


@dataclass
class _Describing:
    """What grows while frames come in."""

    encoder: FrameEncoder
    sample_fps: float
    times_s: list[float] = field(default_factory=list)
    describe_s: float = 0.0
    encode_s: float = 0.0
    _shown_s: float = 0.0

    def __post_init__(self) -> None:
        self.descriptors = motion_hog.MotionHog(self.sample_fps)
        self._encoding = self.encoder.begin()

    def add(self, frame: Frame) -> None:
        started = time.perf_counter()
        self.times_s.append(frame.time_s)
        if frame.rgb is None:
            self.descriptors.repeat()
            self._encoding.repeat()
            return
        step_s, self._shown_s = frame.shown_s - self._shown_s, frame.shown_s
        small = frame.rgb
        if small.shape != (motion_hog.HEIGHT, motion_hog.WIDTH, 3):
            small = cv2.resize(small, (motion_hog.WIDTH, motion_hog.HEIGHT), interpolation=cv2.INTER_AREA)
        self.descriptors.add(small, scale=float(np.clip(1 / (self.sample_fps * step_s), 0.5, 2)) if step_s > 0 else 1.0)
        described = time.perf_counter()
        self._encoding.add(frame.rgb)
        self.describe_s += described - started
        self.encode_s += time.perf_counter() - described

    def features(self, duration_s: float) -> Features:
        started = time.perf_counter()
        values = self._encoding.values(self.descriptors)
        self.encode_s += time.perf_counter() - started
        return Features(
            encoder=self.encoder.id,
            times_s=np.asarray(self.times_s, np.float64),
            values=values,
            local=np.stack(self.descriptors.local),
            motion=np.asarray(self.descriptors.motion, np.float32),
            duration_s=duration_s,
            pictures=self.descriptors.album.stacked(),
        )


def extract(
    path: Path,
    *,
    encoder: FrameEncoder | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
    sample_fps: float = SAMPLE_FPS,
) -> Extraction:
    """Ingest one video: its features, a picture a second, and what each stage took. ``encoder`` is motion-hog-v1
    unless given.

    Raises: NotAVideo (415), VideoTooLarge or VideoTooLong (413), VideoUnreadable, VideoTruncated or DecodingStopped (422).
    """
    started = time.perf_counter()
    encoder = encoder or MotionHogEncoder()
    describing = _Describing(encoder, sample_fps)
    with decode(path, limits=limits, sample_fps=sample_fps, short_side_px=encoder.short_side_px) as decoding:
        claimed_s = decoding.claimed.duration_s or 0.0
        for count, frame in enumerate(decoding.frames()):
            describing.add(frame)
            if progress and claimed_s and count % 16 == 0:
                progress(min(0.99, frame.time_s / claimed_s))
    info = _info(decoding.claimed, decoding.summary)
    features = describing.features(info.duration_s)
    if progress:
        progress(1.0)
    timings_ms = {name: value for name, value in asdict(decoding.summary).items() if name.endswith("_ms")}
    timings_ms |= {"describe_ms": 1000 * describing.describe_s, "encode_ms": 1000 * describing.encode_s}
    timings_ms["total_ms"] = 1000 * (time.perf_counter() - started)
    return Extraction(info, features, tuple(decoding.thumbnails), timings_ms)


def _info(claimed: Claimed, summary: Summary) -> VideoInfo:
    promised_s = claimed.duration_s or 0.0
    if summary.damaged_packets > 0.5 * summary.packets:
        detail = f"{summary.damaged_packets} of {summary.packets} parts of the video are damaged."
        raise VideoUnreadable(detail, damaged_packets=summary.damaged_packets)
    if summary.duration_s < 0.5 * promised_s:
        raise VideoTruncated(
            f"Only {summary.duration_s:.1f} s of {promised_s:.1f} s can be decoded: the file is cut off or damaged.",
            decoded_s=round(summary.duration_s, 2),
            promised_s=round(promised_s, 2),
        )
    on_its_side = summary.rotation % 180 != 0
    return VideoInfo(
        duration_s=summary.duration_s,
        width=claimed.height if on_its_side else claimed.width,
        height=claimed.width if on_its_side else claimed.height,
        fps=claimed.fps,
        frame_count=claimed.frame_count or summary.packets,
        codec=claimed.codec,
        rotation=summary.rotation,
        has_audio=claimed.has_audio,
        variable_rate=summary.variable_rate,
        truncated=summary.duration_s < promised_s - 1.0,
        damaged_packets=summary.damaged_packets,
    )
