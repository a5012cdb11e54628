"""Single pictures that nobody trusts, as pixels: sniffed, decoded in a limited child without network or files, sent over a pipe.

A picture that crashes, hangs or fills its child costs that child and is reported; the pictures after it get another. Knows nothing of
encoders or HTTP.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genba_sop.containers import name_of

Pixels = npt.NDArray[np.uint8]
ACCEPTED = "JPEG, PNG or WebP"
_LENGTH_BYTES, _SIZE_BYTES = 4, 4  # as in genba_sop.picture_decoder
_MOST_ANSWER_BYTES = 16 * 2**20
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Limits:
    """What one picture may cost."""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_memory_bytes: int = 2**30  # the child's address space
    max_cpu_s: int = 60  # of a child, over all its pictures
    silence_s: float = 10.0


@dataclass(frozen=True)
class Unreadable:
    """Why there are no pixels."""

    detail: str


def is_picture(head: bytes) -> bool:
    """Whether a file that begins so may be decoded."""
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def read_pictures(
    given: Sequence[bytes], *, width_px: int, height_px: int, limits: Limits | None = None
) -> list[Pixels | Unreadable]:
    """Each picture as (h, w, 3) pixels, upright: ``width_px`` by ``height_px``, or with a short side of ``height_px`` where no width is."""
    limits = limits or Limits()
    found: list[Pixels | Unreadable] = [_refused(each, limits) or Unreadable("") for each in given]
    waiting = [at for at, each in enumerate(given) if not _refused(each, limits)]
    while waiting:
        child = _Child(width_px, height_px, limits)
        try:
            for at, pixels in child.read((at, given[at]) for at in waiting):
                found[at] = pixels
                waiting = [later for later in waiting if later > at]
        except _Gone as why:
            found[waiting[0]] = Unreadable(str(why))
            waiting = waiting[1:]
        finally:
            child.end()
    return found


def _refused(data: bytes, limits: Limits) -> Unreadable | None:
    if len(data) > limits.max_bytes:
        return Unreadable(f"The picture has {len(data)} bytes; at most {limits.max_bytes} are accepted.")
    return None if is_picture(data[:16]) else Unreadable(f"The file is {name_of(data[:4096])}; send {ACCEPTED}.")


class _Gone(Exception):
    """The child ended, or did not get on with a picture."""


class _Child:
    def __init__(self, width_px: int, height_px: int, limits: Limits) -> None:
        self._limits = limits
        job = {
            "width_px": width_px, "height_px": height_px,
            "max_memory_bytes": limits.max_memory_bytes, "max_cpu_s": limits.max_cpu_s,
        }  # fmt: skip
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {
            "OPENCV_IO_MAX_IMAGE_PIXELS": str(limits.max_pixels),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "genba_sop.picture_decoder", json.dumps(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, env=environment,
        )  # fmt: skip

    def read(self, given: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, Pixels | Unreadable]]:
        """Raises: _Gone while it is at a picture."""
        for at, data in given:
            yield at, self._one(data)

    def _one(self, data: bytes) -> Pixels | Unreadable:
        stdin = self._process.stdin
        if stdin is None:
            raise AssertionError("It was asked for.")
        try:
            left = memoryview(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
            while left:
                left = left[stdin.write(left) :]
        except OSError as err:
            raise _Gone("The picture cannot be decoded.") from err
        length = int.from_bytes(self._exactly(_LENGTH_BYTES), "big")
        if not 1 <= length <= _MOST_ANSWER_BYTES:
            raise _Gone("The decoder's answer is beyond its limits.")
        said = self._exactly(length)
        if said[:1] == b"E":
            return Unreadable(said[1:301].decode("utf-8", "replace"))
        height, width = (int.from_bytes(said[start : start + 2], "big") for start in (1, 3))
        if said[:1] != b"P" or not height or not width or length != 1 + _SIZE_BYTES + 3 * height * width:
            raise _Gone("The decoder's answer is not understood.")
        return np.frombuffer(said, np.uint8, offset=1 + _SIZE_BYTES).reshape(height, width, 3)

    def _exactly(self, wanted: int) -> bytes:
        pipe = self._process.stdout
        if pipe is None:
            raise AssertionError("It was asked for.")
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        until_s, found = time.monotonic() + self._limits.silence_s, bytearray()
        while len(found) < wanted:
            if not poll.poll(1000 * max(0.0, until_s - time.monotonic())):
                raise _Gone(f"Decoding was stopped after {self._limits.silence_s:.0f} s: it does not get on.")
            chunk = os.read(pipe.fileno(), wanted - len(found))
            if not chunk:
                raise _Gone(
                    "Decoding broke off: the picture is damaged, or needs more memory or time than one may have."
                )
            found += chunk
        return bytes(found)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()
