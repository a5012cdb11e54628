"""The child that touches untrusted bytes of pictures: reads one after the other from a pipe and writes small pixels to another.

Run as ``python -m genba_sop.picture_decoder <job JSON>`` by ``genba_sop.pictures`` and by nobody else. Before the first byte is read it
has no network, may open no file and start no program, and runs under limits of memory, time and pixels.

In and out a message is its length (4 bytes, big-endian) and as many bytes: a picture on the way in; on the way out a letter, ``P`` with
height, width (2 bytes each) and RGB pixels, or ``E`` with what is wrong.
"""

from __future__ import annotations

import json
import struct
import sys
from typing import IO, Final

import cv2
import numpy as np

from genba_shared.sandbox import forbid, limit

LENGTH: Final = struct.Struct(">I")
SIZE: Final = struct.Struct(">HH")


def shrunk(data: bytes, *, width_px: int, height_px: int) -> bytes:
    """A message for a picture: as large as asked for, or with a short side of ``height_px`` where no width is."""
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return b"EThe picture has more pixels than are accepted, or cannot be decoded."
    except MemoryError:
        return b"EThe picture needs more memory than one may have."
    if found is None:
        return b"EThe picture cannot be decoded."
    if not width_px:
        scale = height_px / min(found.shape[:2])
        height_px, width_px = (max(1, min(4 * height_px, round(side * scale))) for side in found.shape[:2])
    small = cv2.resize(found, (width_px, height_px), interpolation=cv2.INTER_AREA)
    return b"P" + SIZE.pack(*small.shape[:2]) + np.ascontiguousarray(small).tobytes()


def warm_up(size: tuple[int, int]) -> None:
    """Load every codec: after ``forbid`` no file can be opened."""
    plain = np.full((8, 8, 3), 7, np.uint8)
    for suffix in (".jpg", ".png", ".webp"):
        shrunk(cv2.imencode(suffix, plain)[1].tobytes(), width_px=size[0], height_px=size[1])


def _read(pipe: IO[bytes]) -> bytes | None:
    head = pipe.read(LENGTH.size)
    return pipe.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else None


def main() -> int:
    job = json.loads(sys.argv[1])
    cv2.setNumThreads(1)
    size = (job["width_px"], job["height_px"])
    warm_up(size)
    limit(memory_bytes=job["max_memory_bytes"], cpu_s=job["max_cpu_s"])
    forbid()
    pipe_in, pipe_out = sys.stdin.buffer, sys.stdout.buffer
    while (data := _read(pipe_in)) is not None:
        said = shrunk(data, width_px=size[0], height_px=size[1])
        pipe_out.write(LENGTH.pack(len(said)) + said)
        pipe_out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
