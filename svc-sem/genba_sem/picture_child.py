"""The child that touches untrusted image bytes: reads files from a pipe, one after the other, and writes pictures to another.

Run as ``python -m genba_sem.picture_child <most bytes of memory>`` by ``genba_sem.picture_reader`` and by nobody else. Before the first
byte of a file is read it has no network, may open no file, start no program, and runs under limits of memory and file size. It outlives
a file, because a start costs more than a hundred pictures do; whoever reads ends it when a file takes too long.

A message is its length (8 bytes, big-endian) and JSON, then as many bytes as the JSON says under ``bytes``: of a file on the way in,
of pixels on the way out: uint8 where the file has eight bits, else float32.
"""

from __future__ import annotations

import codecs
import contextlib
import encodings.aliases
import importlib
import json
import struct
import sys
from typing import Any, Final, Protocol

import cv2
import numpy as np

from genba_sem.micrograph import Limits, Unreadable, View, read_levels, read_view
from genba_shared.sandbox import forbid, limit

Buffer = bytes | bytearray
LENGTH: Final = struct.Struct(">Q")


class Sink(Protocol):
    """Where a message is written to."""

    def write(self, data: bytes | memoryview, /) -> object: ...

    def flush(self) -> object: ...


class Source(Protocol):
    """Where a message is read from; fewer bytes than asked for are the end."""

    def read(self, size: int, /) -> Buffer: ...


def send(pipe: Sink, said: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    """Write one message."""
    text = json.dumps({**said, "bytes": len(payload)}).encode()
    pipe.write(LENGTH.pack(len(text)) + text)
    pipe.write(payload)
    pipe.flush()


def receive(pipe: Source) -> tuple[dict[str, Any], Buffer]:
    """Read one message. Raises: EOFError where the other side has gone."""
    (size,) = LENGTH.unpack(_exactly(pipe, LENGTH.size))
    said = json.loads(_exactly(pipe, size))
    return said, _exactly(pipe, int(said["bytes"]))


def _exactly(pipe: Source, size: int) -> Buffer:
    found = pipe.read(size)
    if len(found) < size:
        raise EOFError
    return found


def warm_up() -> None:
    """Load what is loaded late: after ``forbid`` no file can be opened, not even a module."""
    import tifffile

    for encoding in set(encodings.aliases.aliases.values()):  # Python imports each when a text is first in it
        with contextlib.suppress(LookupError):  # of another platform
            codecs.lookup(encoding)
    for module in ("xml.etree.ElementTree", "defusedxml.ElementTree", "copy", "mmap"):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    for codec in tifffile.COMPRESSION:
        with contextlib.suppress(Exception):  # some have no decoder in this build
            tifffile.TIFF.DECOMPRESSORS[codec]
    for predictor in tifffile.PREDICTOR:
        with contextlib.suppress(Exception):
            tifffile.TIFF.UNPREDICTORS[predictor]
    buffer = np.full((32, 32), 7, np.uint8)
    for suffix in (".png", ".jpg"):
        read_view(bytes(cv2.imencode(suffix, buffer)[1].tobytes()))
    import io

    for dtype in (np.uint8, np.uint16, np.float32):
        for compression in (None, "zlib"):
            file = io.BytesIO()
            tifffile.imwrite(file, buffer.astype(dtype), compression=compression)
            read_view(file.getvalue())


def answer(said: dict[str, Any], data: bytes) -> tuple[dict[str, Any], memoryview]:
    """The picture, or why there is none."""
    try:
        hints = {name: value for name, value in said.items() if name not in {"bytes", "limits"}}
        view, levels = read_levels(data, limits=Limits(**said["limits"]), **hints)
    except Unreadable as why:
        return {"reason": why.reason, "detail": why.detail}, memoryview(b"")
    except MemoryError:
        return {"reason": "too_large", "detail": "The picture needs more memory than one may have."}, memoryview(b"")
    sent = np.ascontiguousarray(view.pixels if levels is None else levels)
    return {**_facts(view), "shape": sent.shape, "pixels": str(sent.dtype)}, sent.data.cast("B")


def _facts(view: View) -> dict[str, Any]:
    facts = {name: value for name, value in vars(view).items() if name != "pixels"}
    return {**facts, "instrument": vars(view.instrument)}


def main() -> int:
    cv2.setNumThreads(1)
    warm_up()
    limit(memory_bytes=int(sys.argv[1]))
    sandboxed = forbid()
    pipe_in, pipe_out = sys.stdin.buffer, sys.stdout.buffer
    send(pipe_out, {"sandboxed": sandboxed})
    while True:
        try:
            said, data = receive(pipe_in)
        except EOFError:
            return 0
        try:
            send(pipe_out, *answer(said, bytes(data)))
        except BrokenPipeError:
            return 0


if __name__ == "__main__":
    sys.exit(main())
