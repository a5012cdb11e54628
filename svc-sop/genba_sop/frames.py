"""The frames of a video file that nobody trusts: sniffed, decoded in a limited child process, sent over a pipe.

The bytes are decoded by ``genba_sop.decoder`` in a child without network or files; it is killed when it is silent for
too long or gets on too slowly. The pipe holds the child back while we are busy, so that decoding and describing overlap
on two cores and a long video needs no more memory than a short one. Knows nothing of features, steps or HTTP.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt
import structlog
from pydantic import TypeAdapter, ValidationError

from genba_shared.problems import Invalid, PayloadTooLarge, Problem, UnsupportedMedia
from genba_sop import motion_hog
from genba_sop.containers import ACCEPTED, SNIFFED_BYTES, demuxer_of, name_of

log = structlog.get_logger(__name__)

SAMPLE_FPS = 4.0

_Said = TypeVar("_Said")


class NotAVideo(UnsupportedMedia):
    """The file is not a video of an accepted kind."""


NotAVideo.code = "not-a-video"  # by the rule for class names it would be not-avideo


class VideoTooLarge(PayloadTooLarge):
    """The video has more bytes, pixels or frames a second than are accepted."""


class VideoTooLong(PayloadTooLarge):
    """The video lasts longer than is accepted."""


class VideoUnreadable(Invalid):
    """The video cannot be decoded."""


class VideoTruncated(VideoUnreadable):
    """Less than half of the video can be decoded."""


class DecodingStopped(VideoUnreadable):
    """Decoding took more time or memory than a video may have."""


_PROBLEMS: dict[str, type[Problem]] = {
    "unsupported": NotAVideo,
    "size": VideoTooLarge,
    "rate": VideoTooLarge,
    "long": VideoTooLong,
    "memory": DecodingStopped,
    "unreadable": VideoUnreadable,
}


@dataclass(frozen=True)
class Limits:
    """What one video may cost. Time in which the child waits for us is not counted against it."""

    max_bytes: int = 4 * 2**30
    max_width_px: int = 4096
    max_height_px: int = 2304
    max_fps: float = 240.0
    max_duration_s: float = 7200.0
    max_memory_bytes: int = 2**30  # the child's address space
    max_cpu_s: int = 3600
    silence_s: float = 8.0  # the child may send nothing for so long
    grace_s: float = 9.0  # and may fall behind four times the length of what it has decoded by so much
    threads: int = 2


@dataclass(frozen=True)
class Frame:
    """The picture on the screen at ``time_s``, shown since ``shown_s``; ``rgb`` is None when it is still the one
    before.
    """

    time_s: float
    shown_s: float
    rgb: npt.NDArray[np.uint8] | None  # (h, w, 3)


@dataclass(frozen=True)
class Thumbnail:
    """A picture for the evidence, upright, at most 320 px."""

    time_s: float
    jpeg: bytes


_RECORD = struct.Struct(">cddI")  # as in genba_sop.decoder, which is not imported here: it loads FFmpeg
_FRAME_SIZE = struct.Struct(">HH")
_MAX_PAYLOAD_BYTES = 16 * 2**20
_MAX_RECORDS = 500_000
_PIPE_BYTES = 2**20
_SLICE_S = 0.5
_SLOWEST = 4.0  # seconds of waiting per second of video


@dataclass(frozen=True)
class Claimed:
    """What the container says of its video stream."""

    width: int
    height: int
    fps: float
    frame_count: int
    codec: str
    has_audio: bool
    duration_s: float | None


@dataclass(frozen=True)
class Summary:
    """What the child says when it is done."""

    duration_s: float
    rotation: int
    variable_rate: bool
    pictures: int
    packets: int
    damaged_packets: int
    decode_ms: float
    scale_ms: float
    thumbnail_ms: float
    pipe_wait_ms: float
    sandboxed: bool


@dataclass(frozen=True)
class _Refusal:
    kind: str
    detail: str
    members: dict[str, float | str]


_claimed, _summary, _refusal = TypeAdapter(Claimed), TypeAdapter(Summary), TypeAdapter(_Refusal)


class Decoding:
    """A child at work: ``claimed`` comes first, ``thumbnails`` fill up on the way, ``summary`` is there at the end.

    Nothing that the child says is believed without a look: whoever wrote the video may have taken it over.
    """

    claimed: Claimed
    summary: Summary

    def __init__(self, process: subprocess.Popen[bytes], *, limits: Limits, errors: IO[bytes]) -> None:
        self._process, self._limits, self._errors = process, limits, errors
        self._pipe = process.stdout.fileno() if process.stdout else -1
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self._waited_s = self._decoded_s = 0.0
        self._records = 0
        self._buffer = bytearray()
        self.thumbnails: list[Thumbnail] = []
        kind, _, _, payload = self._record()
        if kind != b"I":
            raise _problem(kind, payload)
        self.claimed = _understood(_claimed, payload)

    def frames(self) -> Iterator[Frame]:
        """The frames at 0, 1/fps, 2/fps … seconds; each is gone when the next is asked for."""
        while True:
            kind, time_s, shown_s, payload = self._record()
            self._decoded_s = max(self._decoded_s, time_s)
            match kind:
                case b"F":
                    yield Frame(time_s, shown_s, _pixels(payload))
                case b"R":
                    yield Frame(time_s, shown_s, None)
                case b"J":
                    self.thumbnails.append(Thumbnail(time_s, payload))
                case b"E":
                    self.summary = _understood(_summary, payload)
                    if not self.summary.sandboxed:
                        _say_that_there_is_no_sandbox()
                    return
                case _:
                    raise _problem(kind, payload)

    def _record(self) -> tuple[bytes, float, float, bytes]:
        kind, time_s, shown_s, length = _RECORD.unpack(self._read(_RECORD.size))
        self._records += 1
        if (
            length > _MAX_PAYLOAD_BYTES
            or self._records > _MAX_RECORDS
            or not 0 <= time_s <= self._limits.max_duration_s
        ):
            raise VideoUnreadable("The decoder's answer is beyond its limits.")
        return kind, time_s, shown_s, self._read(length)

    def _read(self, wanted: int) -> bytes:
        while len(self._buffer) < wanted:
            self._buffer += self._chunk()
        taken = bytes(memoryview(self._buffer)[:wanted])
        del self._buffer[:wanted]
        return taken

    def _chunk(self) -> bytes:
        behind_s = self._limits.grace_s + _SLOWEST * self._decoded_s - self._waited_s
        patience_s = min(self._limits.silence_s, behind_s)
        while patience_s > 0:
            slice_s = min(patience_s, _SLICE_S)
            started = time.monotonic()
            ready = self._poll.poll(1000 * slice_s)
            # A machine that was suspended is not a child that was silent: no more than the slice is counted.
            self._waited_s += min(slice_s, time.monotonic() - started)
            if ready:
                break
            patience_s -= slice_s
        else:
            raise DecodingStopped(f"Decoding was stopped after {self._waited_s:.0f} s: it does not get on.")
        chunk = os.read(self._pipe, _PIPE_BYTES)
        if not chunk:
            raise self._died()
        return chunk

    def _died(self) -> DecodingStopped:
        exit_code = self._process.wait()
        self._errors.seek(0)
        log.warning("decoder_died", exit_code=exit_code, stderr=self._errors.read()[-2000:].decode(errors="replace"))
        return DecodingStopped(
            "Decoding broke off: the file is damaged, or needs more memory or time than a video may have."
        )


@functools.cache
def _say_that_there_is_no_sandbox() -> None:
    """Once a process: the operator should know, nobody else need wait for it."""
    log.warning("decoder_without_seccomp", remaining="resource limits, forced demuxer, closed file descriptors")


def _problem(kind: bytes, payload: bytes) -> Problem:
    if kind != b"P":
        return VideoUnreadable("The decoder's answer is not understood.")
    said = _understood(_refusal, payload)
    members: dict[str, Any] = {**said.members}
    return _PROBLEMS.get(said.kind, VideoUnreadable)(said.detail, **members)


def _understood(adapter: TypeAdapter[_Said], payload: bytes) -> _Said:
    try:
        return adapter.validate_json(payload)
    except ValidationError as err:
        raise VideoUnreadable("The decoder's answer is not understood.") from err


def _pixels(payload: bytes) -> npt.NDArray[np.uint8]:
    """(h, w, 3) of a frame's payload."""
    width, height = _FRAME_SIZE.unpack_from(payload) if len(payload) > _FRAME_SIZE.size else (0, 0)
    if not width or len(payload) != _FRAME_SIZE.size + 3 * width * height:
        raise VideoUnreadable("The decoder's answer is not understood.")
    return np.frombuffer(payload, np.uint8, offset=_FRAME_SIZE.size).reshape(height, width, 3)


@contextlib.contextmanager
def decode(
    path: Path,
    *,
    limits: Limits | None = None,
    sample_fps: float = SAMPLE_FPS,
    short_side_px: int | None = None,
    thumbnail_px: int = 320,
    thumbnail_every_s: float = 1.0,
) -> Iterator[Decoding]:
    """Decode ``path`` in a child that ends with the block.

    Frames are 160×120, or have ``short_side_px`` and keep their aspect.
    Raises: NotAVideo (415), VideoTooLarge or VideoTooLong (413), VideoUnreadable or DecodingStopped (422).
    """
    limits = limits or Limits()
    with path.open("rb") as file, tempfile.TemporaryFile() as errors:
        job = {
            "demuxer": _demuxer(file, limits),
            "sample_fps": sample_fps,
            "width_px": 0 if short_side_px else motion_hog.WIDTH,
            "height_px": short_side_px or motion_hog.HEIGHT,
            "thumbnail_px": thumbnail_px,
            "thumbnail_every_s": thumbnail_every_s,
            "max_width_px": limits.max_width_px,
            "max_height_px": limits.max_height_px,
            "max_fps": limits.max_fps,
            "max_duration_s": limits.max_duration_s,
            "max_memory_bytes": limits.max_memory_bytes,
            "max_cpu_s": limits.max_cpu_s,
            "threads": limits.threads,
        }
        process = _start(file.fileno(), json.dumps(job), errors)
        try:
            yield Decoding(process, limits=limits, errors=errors)
        finally:
            process.kill()
            process.communicate()


def _demuxer(file: IO[bytes], limits: Limits) -> str:
    size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes > limits.max_bytes:
        detail = f"The file has {size_bytes} bytes; at most {limits.max_bytes} are accepted."
        raise VideoTooLarge(detail, max_bytes=limits.max_bytes)
    head = file.read(SNIFFED_BYTES)
    file.seek(0)
    demuxer = demuxer_of(head)
    if demuxer is None:
        raise NotAVideo(f"The file is {name_of(head)}; send {ACCEPTED}.")
    return demuxer


_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


def _start(video_fd: int, job: str, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "genba_sop.decoder", str(video_fd), job],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        bufsize=0,
        pass_fds=(video_fd,),
        env=environment | _ONE_THREAD,
    )
    if process.stdout and hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(
            OSError
        ):  # beyond the user's share of pipe memory: the usual 64 KiB do as well, slower
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return process
