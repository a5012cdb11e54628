"""Images are decoded in children: with the same answers, whatever a file does to its child."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from tests.sem.sem_world import DATA

from genba_sem.micrograph import Unreadable, read_view
from genba_sem.picture_child import LENGTH, receive
from genba_sem.picture_reader import PictureReader, _Pipes

VENDOR = sorted((DATA / "vendor_tiff").rglob("*.tif*"))
GIB = 2**30


@pytest.fixture(scope="module")
def reader() -> Iterator[PictureReader]:
    reader = PictureReader(memory_bytes=4 * GIB, timeout_s=60)
    yield reader
    reader.close()


def png(side_px: int = 64, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (side_px, side_px), np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def tiff(**how: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.arange(64 * 64, dtype=np.uint16).reshape(64, 64), **how)
    return file.getvalue()


def same(reader: PictureReader, data: bytes) -> None:
    direct, apart = read_view(data), reader.read_view(data)
    assert np.array_equal(apart.pixels, direct.pixels)
    facts = [{k: v for k, v in asdict(view).items() if k != "pixels"} for view in (direct, apart)]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "jpeg2000", "webp", "zstd", "lzma"])
def test_every_codec_is_loaded_before_the_child_gives_up_files(reader: PictureReader, compression: str | None) -> None:
    data = tiff(compression=compression) if compression != "webp" else None
    if data is None:
        file = io.BytesIO()
        tifffile.imwrite(file, np.zeros((64, 64, 3), np.uint8) + 9, compression="webp", photometric="rgb")
        data = file.getvalue()
    same(reader, data)


def test_texts_of_any_encoding_are_read_as_in_this_process(reader: PictureReader) -> None:
    said = "DP_STAGE_TYPE\r\nStage = 5.2 µm °C\r\n"
    for encoding in ("utf-8", "cp1252"):
        tags = [(34118, 2, 0, said.encode(encoding) + b"\0", True)]
        same(reader, tiff(extratags=tags))


@pytest.mark.skipif(not VENDOR, reason="no instrument files here")
def test_instrument_files_are_read_as_in_this_process(reader: PictureReader) -> None:
    for path in VENDOR:
        same(reader, path.read_bytes())


def test_what_is_no_picture_is_refused_with_the_same_reason(reader: PictureReader) -> None:
    for data in (b"nonsense", png()[:200], png(8), tiff()[:100]):
        with pytest.raises(Unreadable) as direct:
            read_view(data)
        with pytest.raises(Unreadable) as apart:
            reader.read_view(data)
        assert (apart.value.reason, apart.value.detail) == (direct.value.reason, direct.value.detail)


def children() -> list[int]:
    """Our own that decode."""
    mine = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(each) for path in mine for each in path.read_text().split()]
    return [pid for pid in pids if b"genba_sem.picture_child" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_a_child_lives_on_behind_a_filter_and_its_death_costs_nothing() -> None:
    reader = PictureReader(memory_bytes=4 * GIB, timeout_s=60)
    before = set(children())
    reader.read_view(png())
    [child] = set(children()) - before
    assert "Seccomp:\t2" in Path(f"/proc/{child}/status").read_text()
    reader.read_view(png(seed=1))
    assert set(children()) - before == {child}
    os.kill(child, signal.SIGKILL)
    assert reader.read_view(png(seed=2)).pixels.shape == (64, 64)
    [another] = set(children()) - before
    assert another != child
    reader.read_view(png())
    os.kill(another, signal.SIGKILL)
    os.waitid(os.P_PID, another, os.WEXITED | os.WNOWAIT)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    assert reader.read_view(png(seed=3)).pixels.shape == (64, 64)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors, "the dead one's pipes were let go"
    reader.close()
    assert set(children()) == before


def test_a_picture_that_takes_too_long_or_too_much_costs_its_child_and_nothing_else() -> None:
    hasty = PictureReader(memory_bytes=4 * GIB, timeout_s=0.02)
    with pytest.raises(Unreadable, match=r"within 0\.02 s"):
        hasty.read_view(png(6000))
    hasty.close()
    narrow = PictureReader(memory_bytes=GIB, timeout_s=60)
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((6200, 6200, 3), np.uint16), photometric="rgb", compression="zlib")
    with pytest.raises(Unreadable) as why:
        narrow.read_view(file.getvalue())
    assert why.value.reason in {"too_large", "broken"}
    assert narrow.read_view(png()).pixels.shape == (64, 64)
    narrow.close()


def test_a_child_that_announces_more_than_a_picture_may_be_is_not_believed() -> None:
    into, out_of = os.pipe(), os.pipe()
    with os.fdopen(into[1], "wb") as to_child, os.fdopen(out_of[0], "rb") as from_child:
        pipes = _Pipes(to_child, from_child)
        os.write(out_of[1], LENGTH.pack(1 << 60) + b"{}")
        with pytest.raises(EOFError):
            receive(pipes)
    for descriptor in (into[0], out_of[1]):
        os.close(descriptor)
