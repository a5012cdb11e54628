"""The child that touches untrusted video bytes: decodes, samples and shrinks, and writes small raw frames to a pipe.

Run as ``python -m genba_sop.decoder <video fd> <job JSON>`` by ``genba_sop.frames`` and by nobody else. It knows
nothing of features, HTTP or our problem classes: it writes records, the parent gives them meaning. When the first
byte of the video is read it has no network, may open no file, start no program, and runs under limits of memory, CPU
and file size.

A record is ``RECORD`` (kind, grid time, the picture's own time, payload length) and the payload:
``I`` what the container says (JSON) · ``F`` a frame: width, height, rgb24 · ``R`` the last frame is still on the
screen · ``J`` a thumbnail, JPEG · ``P`` a problem (JSON: kind, detail, members) · ``E`` the end (JSON: counts and timings).
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO

import av
import av.audio
import av.codec.context
import av.logging
import av.subtitles
import av.video
from av.video.reformatter import VideoReformatter

from genba_shared.sandbox import forbid, limit

RECORD = struct.Struct(">cddI")
FRAME_SIZE = struct.Struct(">HH")

CODECS = frozenset(
    "h264 hevc mpeg4 mpeg2video mpeg1video vp8 vp9 av1 libdav1d libvpx libvpx-vp9 mjpeg h263".split()  # noqa: SIM905 (reads better)
)
REFERENCE_SKIPPERS = frozenset({"h264", "hevc"})
MAX_GAP_S = 300.0
FALLBACK_STEP_S = 0.04
MAX_DAMAGED_PACKETS = 2000
MANY_THUMBNAILS = 1200  # from so many on they stand further apart


@dataclass(frozen=True)
class Job:
    """What the parent asks for. The limits on the video are checked here; the parent watches the clock."""

    demuxer: str
    sample_fps: float
    width_px: int  # of the frames sent; 0: keep the aspect, short side = height_px
    height_px: int
    thumbnail_px: int  # longest side; 0: none
    thumbnail_every_s: float
    max_width_px: int
    max_height_px: int
    max_fps: float
    max_duration_s: float
    max_memory_bytes: int
    max_cpu_s: int
    threads: int


class Refused(Exception):
    """The file breaks a limit or cannot be read."""

    def __init__(self, kind: str, detail: str, **members: float | str) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.members = kind, detail, members


class Out:
    """The pipe to the parent; writing blocks while the parent is busy."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self.waited_s = 0.0

    def write(self, kind: bytes, payload: bytes = b"", *, grid_s: float = 0.0, shown_s: float = 0.0) -> None:
        started = time.perf_counter()
        self._pipe.write(RECORD.pack(kind, grid_s, shown_s, len(payload)))
        self._pipe.write(payload)
        self._pipe.flush()
        self.waited_s += time.perf_counter() - started

    def write_json(self, kind: bytes, value: dict[str, Any]) -> None:
        self.write(kind, json.dumps(value).encode())


class Timeline:
    """Seconds since the first picture; where the clock of the file is set back, time goes on from where it was."""

    def __init__(self, rate_fps: float) -> None:
        self.step_s = 1 / rate_fps if rate_fps > 0 else FALLBACK_STEP_S
        self._offset_s: float | None = None
        self._last_s = 0.0
        self._steps_ms: dict[int, int] = {}

    def place(self, picture: Any) -> float:
        """When ``picture`` appears. Refused when the clock jumps too far ahead."""
        stamp = picture.pts if picture.pts is not None else picture.dts
        if stamp is None or picture.time_base is None:
            now_s = 0.0 if self._offset_s is None else self._last_s + self.step_s
            self._offset_s = self._offset_s or 0.0
        else:
            raw_s = float(stamp * picture.time_base)
            if self._offset_s is None:
                self._offset_s = raw_s
            now_s = raw_s - self._offset_s
            if now_s < self._last_s - 1.0:
                self._offset_s -= self._last_s + self.step_s - now_s
                now_s = self._last_s + self.step_s
        if now_s > self._last_s + MAX_GAP_S:
            raise Refused("unreadable", f"The time stamps jump from {self._last_s:.1f} s to {now_s:.1f} s.")
        return now_s

    def advance(self, now_s: float) -> None:
        step_ms = round((now_s - self._last_s) * 1000)
        self._steps_ms[step_ms] = self._steps_ms.get(step_ms, 0) + 1
        self._last_s = now_s

    @property
    def variable(self) -> bool:
        """Whether more than a twentieth of the steps are not near a whole multiple of the usual one."""
        counts = {step: count for step, count in self._steps_ms.items() if step > 0}
        total = sum(counts.values())
        if total < 5:
            return False
        usual_ms = max(counts, key=lambda step: counts[step])
        odd = sum(
            n
            for step, n in counts.items()
            if abs(step - max(1, round(step / usual_ms)) * usual_ms) > 0.2 * usual_ms + 1
        )
        return odd > 0.05 * total


@dataclass
class Sampler:
    """Sends the picture that is on the screen at 0, 1/fps, 2/fps … seconds."""

    job: Job
    out: Out
    rotation: int = 0
    scale_s: float = 0.0
    thumbnail_s: float = 0.0
    _sent: int = 0
    _sent_shown_s: float = -1.0
    _next_thumbnail_s: float = 0.0
    _scaler: VideoReformatter = field(default_factory=VideoReformatter)
    _jpeg: Jpeg | None = None

    def show(self, picture: Any, shown_s: float, until_s: float) -> None:
        """``picture`` is on the screen from ``shown_s`` to ``until_s``: send it for each grid time in between."""
        while (grid_s := self._sent / self.job.sample_fps) < until_s:
            if self._sent_shown_s == shown_s:
                self.out.write(b"R", grid_s=grid_s, shown_s=shown_s)
            else:
                self._send(picture, grid_s, shown_s)
            self._sent += 1

    def _send(self, picture: Any, grid_s: float, shown_s: float) -> None:
        if not self._sent:
            self.rotation = round(picture.rotation / 90) * 90 % 360
        self._sent_shown_s = shown_s
        with stopwatch() as spent:
            size_px, pixels = self._pixels(picture)
        self.scale_s += spent[0]
        self.out.write(b"F", FRAME_SIZE.pack(*size_px) + pixels, grid_s=grid_s, shown_s=shown_s)
        if self.job.thumbnail_px and grid_s >= self._next_thumbnail_s:
            self._next_thumbnail_s = grid_s + max(self.job.thumbnail_every_s, grid_s / MANY_THUMBNAILS)
            with stopwatch() as spent:
                jpeg = self._thumbnail(picture)
            self.thumbnail_s += spent[0]
            self.out.write(b"J", jpeg, grid_s=grid_s, shown_s=shown_s)

    def _pixels(self, picture: Any) -> tuple[tuple[int, int], bytes]:
        """Upright size and pixels of the frame to send."""
        upright = (picture.height, picture.width) if self.rotation % 180 else (picture.width, picture.height)
        width, height = self.job.width_px, self.job.height_px
        if not width:
            scale = height / min(upright)
            width, height = max(1, round(upright[0] * scale)), max(1, round(upright[1] * scale))
        stored = (height, width) if self.rotation % 180 else (width, height)
        rgb = self._scaler.reformat(picture, *stored, "rgb24", interpolation="AREA")
        return (width, height), turned(rgb, self.rotation).tobytes() if self.rotation else packed(rgb)

    def _thumbnail(self, picture: Any) -> bytes:
        scale = min(1.0, self.job.thumbnail_px / max(picture.width, picture.height))
        width, height = (max(16, round(side * scale / 2) * 2) for side in (picture.width, picture.height))
        if self._jpeg is None or self._jpeg.stored_px != (width, height):
            self._jpeg = Jpeg((width, height), self.rotation)
        return self._jpeg.encode(picture)


class Jpeg:
    """Makes JPEG pictures of one size; one encoder for all of them, for opening one costs more than a picture."""

    def __init__(self, stored_px: tuple[int, int], rotation: int) -> None:
        self.stored_px, self._rotation = stored_px, rotation
        self._shrink, self._convert = VideoReformatter(), VideoReformatter()
        self._encoder: Any = av.codec.context.CodecContext.create("mjpeg", "w")
        self._encoder.width, self._encoder.height = stored_px[::-1] if rotation % 180 else stored_px
        self._encoder.pix_fmt, self._encoder.thread_count = "yuvj420p", 1
        self._encoder.time_base = Fraction(1, 25)
        self._encoder.flags |= av.codec.context.Flags.qscale
        self._encoder.global_quality = 5 * 118  # FF_QP2LAMBDA times the quantiser: about JPEG quality 80
        self._count = 0

    def encode(self, picture: Any) -> bytes:
        if self._rotation:
            rgb = self._shrink.reformat(picture, *self.stored_px, "rgb24", interpolation="AREA")
            picture = av.VideoFrame.from_ndarray(turned(rgb, self._rotation), format="rgb24")
        size = (self._encoder.width, self._encoder.height)
        yuv = self._convert.reformat(picture, *size, "yuvj420p", dst_color_range="JPEG", interpolation="AREA")
        yuv.pts, yuv.time_base = self._count, self._encoder.time_base
        self._count += 1
        return b"".join(bytes(packet) for packet in self._encoder.encode(yuv))


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    spent = [0.0]
    started = time.perf_counter()
    yield spent
    spent[0] = time.perf_counter() - started


def packed(rgb: Any) -> bytes:
    """The pixels of an rgb24 frame without the padding of its lines."""
    plane = rgb.planes[0]
    line, used = plane.line_size, rgb.width * 3
    if line == used:
        return bytes(plane)[: used * rgb.height]
    view = memoryview(plane)
    return b"".join(view[row * line : row * line + used] for row in range(rgb.height))


def turned(rgb: Any, rotation: int) -> Any:
    """(h, w, 3) pixels of an rgb24 frame turned counter-clockwise by 90, 180 or 270 degrees."""
    import numpy as np

    pixels = np.frombuffer(packed(rgb), dtype=np.uint8).reshape(rgb.height, rgb.width, 3)
    return np.ascontiguousarray(np.rot90(pixels, rotation // 90))


def check_size(width: int, height: int, job: Job) -> None:
    if width <= 0 or height <= 0:
        raise Refused("unreadable", "The video has no picture size.")
    if max(width, height) > job.max_width_px or min(width, height) > job.max_height_px:
        accepted = f"{job.max_width_px}×{job.max_height_px}"
        raise Refused(
            "size", f"The picture is {width}×{height}; at most {accepted} is accepted.", width=width, height=height
        )


def check_duration(duration_s: float, job: Job) -> None:
    if duration_s > job.max_duration_s:
        detail = f"The video lasts {duration_s:.0f} s; at most {job.max_duration_s:.0f} s is accepted."
        raise Refused("long", detail, duration_s=round(duration_s, 1))


def check_rate(rate_fps: float, job: Job) -> None:
    if rate_fps > job.max_fps:
        detail = f"The video has {rate_fps:.0f} frames a second; at most {job.max_fps:.0f} are accepted."
        raise Refused("rate", detail, fps=round(rate_fps, 1))


def claims(container: Any, stream: Any, job: Job) -> dict[str, Any]:
    """What the container says of the stream; refused here, before anything is decoded, when it breaks a limit."""
    name = stream.codec_context.name if stream.codec_context else "unknown"
    if name not in CODECS:
        raise Refused("unsupported", f"The video codec {name!r} is not accepted; send H.264, HEVC, VP9 or AV1.")
    width, height = stream.codec_context.width, stream.codec_context.height
    check_size(width, height, job)
    rate_fps = float(stream.average_rate or 0)
    check_rate(rate_fps, job)
    duration_s = float(stream.duration * stream.time_base) if stream.duration is not None and stream.time_base else None
    if duration_s is None and container.duration:
        duration_s = container.duration / av.time_base
    check_duration(duration_s or 0.0, job)
    return {
        "width": width,
        "height": height,
        "fps": rate_fps,
        "frame_count": stream.frames,
        "codec": stream.codec_context.codec.canonical_name,
        "has_audio": bool(container.streams.audio),
        "duration_s": duration_s,
    }


class Pictures:
    """The decoded pictures of one stream; a damaged packet is passed over, a damaged end is an end."""

    def __init__(self, container: Any, stream: Any, job: Job) -> None:
        self._container, self._stream, self._job = container, stream, job
        self.packets = self.damaged = self.decoded = 0

    def __iter__(self) -> Iterator[Any]:
        for packet in self._packets():
            for picture in self._decoded(packet):
                check_size(picture.width, picture.height, self._job)
                self.decoded += 1
                self.damaged += bool(picture.is_corrupt)
                yield picture

    def decode_all(self) -> None:
        """Decode also the pictures that no other picture refers to."""
        self._stream.codec_context.skip_frame = "DEFAULT"

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, ValueError, LookupError):  # PyAV loses count when a damaged file grows a stream
                self.damaged += 1
                return
            if packet is None:
                return
            self.packets += packet.size > 0  # the last one is empty and only asks for what is still inside
            yield packet

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            return list(packet.decode())
        except av.FFmpegError as err:
            self.damaged += 1
            if self.damaged > MAX_DAMAGED_PACKETS:
                raise Refused("unreadable", "The video is damaged throughout.") from err
            return []


def run(container: Any, job: Job, out: Out, *, sandboxed: bool) -> None:
    """Decode the best video stream of ``container`` to the end."""
    if not container.streams.video:
        raise Refused("unsupported", "The file holds no video stream.")
    stream = container.streams.best("video") or container.streams.video[0]
    claimed = claims(container, stream, job)
    out.write_json(b"I", claimed)
    context = stream.codec_context
    context.thread_count, context.thread_type = job.threads, "FRAME" if job.threads > 1 else "SLICE"
    context.options = {"max_pixels": str(job.max_width_px * job.max_height_px)}
    if context.name in REFERENCE_SKIPPERS and claimed["fps"] >= 5 * job.sample_fps:
        context.skip_frame = "NONREF"
    sampler, timeline, pictures = Sampler(job, out), Timeline(claimed["fps"]), Pictures(container, stream, job)
    with stopwatch() as spent:
        duration_s = sample(pictures, timeline, sampler, claimed_s=claimed["duration_s"] or 0.0)
    described_s = sampler.scale_s + sampler.thumbnail_s + out.waited_s
    summary = {
        "duration_s": duration_s,
        "rotation": sampler.rotation,
        "variable_rate": timeline.variable,
        "pictures": pictures.decoded,
        "packets": pictures.packets,
        "damaged_packets": pictures.damaged,
        "decode_ms": 1000 * (spent[0] - described_s),
        "scale_ms": 1000 * sampler.scale_s,
        "thumbnail_ms": 1000 * sampler.thumbnail_s,
        "pipe_wait_ms": 1000 * out.waited_s,
        "sandboxed": sandboxed,
    }
    out.write_json(b"E", summary)


def sample(pictures: Pictures, timeline: Timeline, sampler: Sampler, *, claimed_s: float) -> float:
    """Send what is to be seen of ``pictures``; seconds from the first picture to the end of the last."""
    job = sampler.job
    shown: Any = None
    shown_s = 0.0
    for picture in pictures:
        now_s = timeline.place(picture)
        check_duration(now_s, job)
        if claimed_s and now_s > 4 * claimed_s + 60:  # edit lists can play three seconds a hundred thousand times
            raise Refused("unreadable", f"The video says that it lasts {claimed_s:.1f} s and does not end.")
        if pictures.packets > job.max_fps * (now_s + 4):
            check_rate(pictures.packets / (now_s + 1), job)
        if shown is not None:
            if now_s <= shown_s:
                continue
            timeline.advance(now_s)
            if now_s - shown_s > 0.6 / job.sample_fps:  # too few reference pictures to sample well: decode them all
                pictures.decode_all()
            sampler.show(shown, shown_s, now_s)
        shown, shown_s = picture, now_s
    if shown is None:
        raise Refused("unreadable", "No picture of the video could be decoded.", damaged_packets=pictures.damaged)
    last_s = float(shown.duration * shown.time_base) if shown.duration and shown.time_base else timeline.step_s
    held_s = max(
        1.0, min(claimed_s - shown_s, MAX_GAP_S)
    )  # where the file says so too, the last picture stands for long
    end_s = shown_s + min(max(last_s, 1e-3), held_s)
    sampler.show(shown, shown_s, end_s)
    return end_s


def warm_up() -> None:
    """Load what PyAV and we load late: after ``forbid`` no file can be opened, not even a module."""
    late = ["av.sidedata.sidedata", "av.container.input", "numpy"]
    for package in (av.audio, av.subtitles, av.video):
        late += [module.name for module in pkgutil.iter_modules(package.__path__, package.__name__ + ".")]
    for name in late:
        importlib.import_module(name)


def main() -> int:
    fd, job = int(sys.argv[1]), Job(**json.loads(sys.argv[2]))
    out = Out(os.fdopen(1, "wb"))
    av.logging.set_level(None)
    warm_up()
    limit(memory_bytes=job.max_memory_bytes, cpu_s=job.max_cpu_s)
    sandboxed = forbid()
    options = {"fd": str(fd), "protocol_whitelist": "fd", "max_streams": "64"}
    refused: Refused | None = None
    try:
        with av.open("fd:", format=job.demuxer, options=options, metadata_errors="replace") as container:
            run(container, job, out, sandboxed=sandboxed)
    except Refused as err:
        refused = err
    except MemoryError:
        refused = Refused("memory", "Decoding needs more memory than a video may have.")
    except BrokenPipeError:
        return 2  # the parent has gone: nobody to tell
    except (av.FFmpegError, ValueError, LookupError) as err:
        refused = Refused("unreadable", f"The file cannot be read as a video: {getattr(err, 'strerror', None) or err}.")
    if refused:
        out.write_json(b"P", {"kind": refused.kind, "detail": refused.detail, "members": refused.members})
    return 0


if __name__ == "__main__":
    sys.exit(main())
