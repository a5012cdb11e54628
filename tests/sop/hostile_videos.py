"""Builds broken, lying and malicious video files, and odd but honest ones, each with the answer that it must get.

Everything is made here at run time; nothing binary is committed. ``CORPUS`` is used by ``test_video_hostile.py`` and by
``benchmarks/sop_speed.py --hostile``, which prints time and memory for each.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from genba_shared.problems import Problem
from genba_sop.video import Extraction, NotAVideo, VideoTooLarge, VideoTooLong, VideoTruncated, VideoUnreadable

Image = npt.NDArray[np.uint8]
Check = Callable[[Extraction], bool]


@dataclass(frozen=True)
class Case:
    """One file. ``refused`` names the problems that are right; ``answered`` is what a right answer looks like."""

    name: str
    build: Callable[[Path], None]
    refused: tuple[type[Problem], ...] = ()
    answered: Check | None = None
    says: str = ""  # must stand in the problem's detail

    def __str__(self) -> str:
        return self.name


def picture(index: int, width: int = 160, height: int = 120) -> Image:
    """A ball that moves over a gradient; the top left corner is white, so that rotation shows."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([columns * 200 // width, rows * 200 // height, np.full_like(rows, 60)], axis=2).astype(np.uint8)
    centre = (width * (0.2 + 0.6 * ((index * 0.02) % 1)), height * 0.6)
    image[(columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < (height * 0.15) ** 2] = (250, 220, 40)
    image[: height // 4, : width // 4] = 255
    return image


@dataclass
class Recording:
    """How to write an honest file; the cases change one thing each."""

    container: str = "mp4"
    codec: str = "libx264"
    size: tuple[int, int] = (160, 120)
    fps: int = 15
    frame_count: int = 45
    times_s: Iterable[float] | None = None
    options: dict[str, str] = field(default_factory=dict)
    codec_options: dict[str, str] = field(default_factory=lambda: {"g": "15"})
    pix_fmt: str = "yuv420p"
    audio: bool = False
    video: bool = True
    title: str = ""  # of the film and of its only chapter

    def write(self, path: Path) -> None:
        with av.open(str(path), "w", format=self.container, options=self.options) as out:
            if self.title:
                out.metadata["title"] = self.title
                named = {"title": self.title}
                out.set_chapters([{"id": 1, "start": 0, "end": 1, "time_base": Fraction(1), "metadata": named}])
            stream = self._video(out) if self.video else None
            sound = out.add_stream("aac", rate=16000, layout="mono") if self.audio else None
            out.start_encoding()
            if stream is not None:
                self._pictures(out, stream)
            if sound is not None:
                tone(out, sound, self.frame_count / self.fps)

    def _video(self, out: Any) -> Any:
        stream = out.add_stream(self.codec, rate=self.fps, options=self.codec_options)
        stream.width, stream.height, stream.pix_fmt = *self.size, self.pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000 if self.times_s else self.fps)
        return stream

    def _pictures(self, out: Any, stream: Any) -> None:
        times = self.times_s or [n / self.fps for n in range(self.frame_count)]
        for index, time_s in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(index, *self.size), format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(time_s / frame.time_base)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def tone(out: Any, stream: Any, duration_s: float) -> None:
    wave = (8000 * np.sin(np.arange(int(16000 * duration_s)) * 0.17)).astype(np.int16)
    for start in range(0, len(wave) - 1024, 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16000, start
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


FASTSTART = {"movflags": "faststart"}


def recording(**changes: Any) -> Callable[[Path], None]:
    return Recording(**changes).write


def content(data: bytes) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        path.write_bytes(data)

    return build


def changed(change: Callable[[bytes], bytes], **recorded: Any) -> Callable[[Path], None]:
    """An honest file, then its bytes changed."""

    def build(path: Path) -> None:
        Recording(**recorded).write(path)
        path.write_bytes(change(path.read_bytes()))

    return build


def kept(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


def scrambled(start: float, end: float, seed: int) -> Callable[[bytes], bytes]:
    """Random bytes over a tenth of what lies between the two shares of the file."""

    def change(data: bytes) -> bytes:
        rng = np.random.default_rng(seed)
        spoilt = np.frombuffer(data, np.uint8).copy()
        low, high = int(len(data) * start), int(len(data) * end)
        places = rng.integers(low, high, (high - low) // 10)
        spoilt[places] = rng.integers(0, 256, len(places))
        return spoilt.tobytes()

    return change


def patched(box: bytes, offset: int, value: bytes) -> Callable[[bytes], bytes]:
    """Overwrite bytes at ``offset`` from the name of the first such MP4 box."""

    def change(data: bytes) -> bytes:
        at = data.index(box) + offset
        return data[:at] + value + data[at + len(value) :]

    return change


def box(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), name) + payload


FTYP = box(b"ftyp", b"isom\x00\x00\x02\x00isomiso2avc1mp41")


def matrix(a: int, b: int, c: int, d: int) -> Callable[[bytes], bytes]:
    """The display matrix of the track header, in sixteenths of bits: a phone held on its side."""
    rows = (a, b, 0, c, d, 0, 0, 0, 0x4000)
    packed = struct.pack(">9i", *[value << 16 for value in rows])
    return patched(b"tkhd", 4 + 40, packed)


def jpegs(container: str, *, side_px: int, stamps_ms: Iterable[int]) -> Callable[[Path], None]:
    """Says 160×120; each frame is the same black JPEG with sides of ``side_px``."""

    def build(path: Path) -> None:
        jpeg = black_jpeg(side_px)
        with av.open(str(path), "w", format=container) as out:
            stream = out.add_stream("mjpeg", rate=5)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuvj420p"
            for stamp_ms in stamps_ms:
                packet = av.Packet(jpeg)
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, stamp_ms, stamp_ms, Fraction(1, 1000)
                packet.is_keyframe = True
                out.mux(packet)

    return build


@cache
def black_jpeg(side_px: int) -> bytes:
    encoder: Any = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = side_px, side_px, "yuvj420p", Fraction(1, 5)
    encoder.thread_count = 1
    black = av.VideoFrame(side_px, side_px, "yuvj420p")
    for plane in black.planes:
        plane.update(bytes(plane.buffer_size))
    black.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(black), *encoder.encode(None)])


def titled(title: bytes, container: str) -> Callable[[Path], None]:
    """A film whose title, and that of its chapter, is in these bytes, whatever they mean."""
    plain = "Q" * len(title)
    return changed(lambda data: data.replace(plain.encode(), title), container=container, title=plain)


def subtitled(path: Path) -> None:
    """A film with a stream of subtitles in Shift-JIS."""
    text, film = path.with_suffix(".srt"), path.with_suffix(".film")
    text.write_text("1\n00:00:00,500 --> 00:00:02,000\nQQQQ\n")
    Recording().write(film)
    with av.open(str(film)) as pictures, av.open(str(text)) as words, av.open(str(path), "w", format="matroska") as out:
        sources = (pictures.streams.video[0], words.streams.subtitles[0])
        for source, stream in [(source, out.add_stream_from_template(source)) for source in sources]:
            for packet in source.container.demux(source):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"QQQQ", "手順".encode("shift_jis")))


def joined(path: Path) -> None:
    """Two transport streams end to end: the clock starts again in the middle."""
    parts = []
    for _ in range(2):
        Recording("mpegts").write(path)
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))


def same_instant(path: Path) -> None:
    """A picture, then the first second again and again: two thousand packets that never get on."""
    Recording("mpegts").write(path)
    path.write_bytes(path.read_bytes()[: 188 * 40] * 400)


def many_streams(path: Path) -> None:
    with av.open(str(path), "w", format="matroska") as out:
        streams = [out.add_stream("aac", rate=16000, layout="mono") for _ in range(120)]
        for stream in streams:
            tone(out, stream, 0.2)


def external_reference(path: Path) -> None:
    """A QuickTime track whose samples are said to lie in another file of the machine."""
    Recording("mov").write(path)
    data = path.read_bytes()
    at = data.index(b"dref")
    entry = data.index(b"url " if b"url " in data[at : at + 40] else b"alis", at)
    local = b"/etc/passwd\x00"
    reference = box(b"url ", b"\x00\x00\x00\x00" + local)
    path.write_bytes(data[: entry - 4] + reference + data[entry - 4 + 12 :])


def sample_table_bomb(path: Path) -> None:
    """Chunk offsets for four thousand million chunks in a file of a kilobyte."""
    Recording().write(path)
    data = path.read_bytes()
    at = data.index(b"stco") + 8
    path.write_bytes(data[:at] + struct.pack(">I", 0xFFFFFFFF) + data[at + 4 :])


def ebml(identifier: bytes, payload: bytes) -> bytes:
    return identifier + struct.pack(">Q", len(payload) | 1 << 56) + payload


MATROSKA_HEAD = ebml(b"\x1a\x45\xdf\xa3", ebml(b"\x42\x82", b"matroska"))


def nested_matroska() -> bytes:
    """Tags within tags, two thousand deep."""
    inner = b""
    for _ in range(2000):
        inner = ebml(b"\x67\xc8", inner)
    return MATROSKA_HEAD + ebml(b"\x18\x53\x80\x67", ebml(b"\x12\x54\xc3\x67", ebml(b"\x73\x73", inner)))


def lying_matroska() -> bytes:
    """A segment that says it is an exabyte long, with an endless void in it."""
    return (
        MATROSKA_HEAD
        + b"\x18\x53\x80\x67\x01\x0f\xff\xff\xff\xff\xff\xff\xec\x01\x0f\xff\xff\xff\xff\xff\xff"
        + b"\0" * 9000
    )


def edit_list_bomb(path: Path) -> None:
    """A track with a hundred thousand edits that each play the whole track again."""
    Recording().write(path)
    data = path.read_bytes()
    at = data.index(b"edts") - 4
    (old_bytes,) = struct.unpack_from(">I", data, at)
    edits = struct.pack(">IIHH", 3000, 0, 1, 0) * 100_000
    new = box(b"edts", box(b"elst", struct.pack(">II", 0, 100_000) + edits))
    data = data[:at] + new + data[at + old_bytes :]
    grown = len(new) - old_bytes
    for parent in (b"moov", b"trak"):
        where = data.index(parent) - 4
        data = data[:where] + struct.pack(">I", struct.unpack_from(">I", data, where)[0] + grown) + data[where + 4 :]
    path.write_bytes(data)


HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
DASH = b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>'
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
PNG = b"\x89PNG\r\n\x1a\n" + box(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0)) + b"\0" * 64
GIF = b"GIF89a\xff\xff\xff\xff\x80\0\0" + b"\0" * 64
ZIP = b"PK\x03\x04" + zlib.compress(b"\0" * 10_000_000)


def upright(extraction: Extraction) -> bool:
    """The white corner is at the top left again, also in the thumbnail."""
    rgb = extraction.features.local[0, :, 8].reshape(6, 8)  # lightness
    return bool(rgb[0, 0] > 2.9 and max(rgb[0, 7], rgb[5, 0], rgb[5, 7]) < 2.9)


def lasts(duration_s: float, *, within_s: float = 0.15, codec: str | None = None) -> Check:
    def check(extraction: Extraction) -> bool:
        info, features = extraction.info, extraction.features
        right_length = abs(info.duration_s - duration_s) <= within_s and len(features.times_s) == len(features.values)
        return right_length and codec in (None, info.codec)

    return check


def anything(extraction: Extraction) -> bool:
    """What can be saved is luck; that an answer comes is not."""
    return len(extraction.features.times_s) > 0


def turned(rotation: int) -> Check:
    return lambda extraction: extraction.info.rotation == rotation and upright(extraction)


ANY_REFUSAL = (VideoUnreadable, NotAVideo, VideoTooLarge, VideoTooLong)

CORPUS: tuple[Case, ...] = (
    # What is not a video at all
    Case("an empty file", content(b""), (NotAVideo,), says="empty"),
    Case("a text file", content(b"step one: put on gloves\n" * 50), (NotAVideo,)),
    Case("an HLS playlist named mp4", content(HLS), (NotAVideo,), says="HLS"),
    Case("a DASH manifest named mp4", content(DASH), (NotAVideo,), says="XML"),
    Case("an ffconcat list", content(b"ffconcat version 1.0\nfile /etc/passwd\n"), (NotAVideo,), says="list of files"),
    Case("an SDP description", content(b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 9 RTP/AVP 96\r\n"), (NotAVideo,)),
    Case("an SVG picture", content(SVG), (NotAVideo,)),
    Case("a PNG of 50000 pixels a side", content(PNG), (NotAVideo,), says="PNG"),
    Case("a GIF", content(GIF), (NotAVideo,), says="GIF"),
    Case("a ZIP bomb", content(ZIP), (NotAVideo,), says="ZIP"),
    Case("random bytes", content(np.random.default_rng(1).bytes(50_000)), (NotAVideo,)),
    Case("sound only", recording(video=False, audio=True), (NotAVideo,), says="no video stream"),
    Case("sound only in Matroska", recording(container="matroska", video=False, audio=True), (NotAVideo,)),
    Case("a codec that is not accepted", recording(container="matroska", codec="ffv1"), (NotAVideo,), says="ffv1"),
    # Containers that lie
    Case("a playlist behind an MP4 magic", content(FTYP + HLS), (VideoUnreadable,)),
    Case("an MP4 of nothing but its first box", content(FTYP), (VideoUnreadable,)),
    Case(
        "a box of nine exabytes", content(FTYP + b"\0\0\0\x01moov" + b"\x7f" + b"\xff" * 7 + b"\0" * 999), ANY_REFUSAL
    ),
    Case("a sample table bomb", sample_table_bomb, ANY_REFUSAL, lasts(3)),
    Case("an edit list bomb", edit_list_bomb, ANY_REFUSAL, lasts(3)),
    Case("a track in another file", external_reference, ANY_REFUSAL),
    Case("Matroska tags two thousand deep", content(nested_matroska()), ANY_REFUSAL),
    Case("a Matroska segment of an exabyte", content(lying_matroska()), ANY_REFUSAL),
    Case("a hundred and twenty streams", many_streams, ANY_REFUSAL),
    Case("no frame at all", recording(frame_count=0), ANY_REFUSAL),
    # Absurd sizes, rates and lengths
    Case(
        "a picture of 5120×2880",
        recording(size=(5120, 2880), codec="mpeg4", frame_count=1),
        (VideoTooLarge,),
        says="5120×2880",
    ),
    Case("JPEGs of 256 megapixels in AVI", jpegs("avi", side_px=16000, stamps_ms=range(0, 2000, 200)), ANY_REFUSAL),
    Case(
        "JPEGs of 256 megapixels in Matroska",
        jpegs("matroska", side_px=16000, stamps_ms=range(0, 2000, 200)),
        ANY_REFUSAL,
    ),
    Case(
        "a thousand frames a second",
        recording(size=(64, 48), fps=1000, frame_count=900),
        (VideoTooLarge,),
        says="frames a second",
    ),
    Case(
        "ten thousand frames in a second",
        jpegs("matroska", side_px=32, stamps_ms=[n // 10 for n in range(10000)]),
        (VideoTooLarge,),
        says="frames a second",
    ),
    Case("time that never gets on", same_instant, ANY_REFUSAL, anything),
    Case("three hours in two frames", recording(times_s=[0.0, 10800.0]), (VideoTooLong,), says="at most 7200 s"),
    Case("a duration of 38 hours", changed(patched(b"mdhd", 20, b"\x7f" + b"\xff" * 3)), ANY_REFUSAL, lasts(3)),
    Case("a jump of ten minutes", recording(times_s=[0, 0.1, 0.2, 600]), (VideoUnreadable,), says="jump"),
    # Cut off and damaged
    Case("MP4 cut before its index", changed(kept(0.6)), (VideoUnreadable,)),
    Case(
        "MP4 cut at a quarter",
        changed(kept(0.25), options=FASTSTART, frame_count=150),
        (VideoTruncated,),
        says="cut off",
    ),
    Case("MP4 cut at four fifths", changed(kept(0.8), options=FASTSTART, frame_count=150), (), lasts(8, within_s=2)),
    Case(
        "Matroska cut at four fifths",
        changed(kept(0.8), container="matroska", frame_count=150),
        (),
        lasts(8, within_s=2),
    ),
    Case("a damaged middle", changed(scrambled(0.5, 0.7, 2), options=FASTSTART), ANY_REFUSAL, lasts(3, within_s=1.6)),
    Case("a damaged index", changed(scrambled(0.02, 0.2, 3), options=FASTSTART), ANY_REFUSAL, anything),
    Case("all of it damaged", changed(scrambled(0.3, 1, 4), options=FASTSTART), ANY_REFUSAL, anything),
    # Odd, and honest
    Case("turned by 90", changed(matrix(0, 1, -1, 0)), (), lambda e: e.info.rotation == 270 and e.info.width == 120),
    Case("turned by 180", changed(matrix(-1, 0, 0, -1)), (), lambda e: e.info.rotation == 180),
    Case("turned by 270", changed(matrix(0, -1, 1, 0)), (), lambda e: e.info.rotation == 90 and e.info.height == 160),
    Case(
        "variable frame rate",
        recording(times_s=[n * 0.033 + 0.2 * (n // 7) for n in range(60)]),
        (),
        lasts(3.6, within_s=0.2),
    ),
    Case("a title and a chapter in Shift-JIS", titled("手順書・保護具".encode("shift_jis"), "mp4"), (), lasts(3)),
    Case("a title and a chapter in Latin-1", titled("Ölwechsel".encode("latin-1"), "mov"), (), lasts(3)),
    Case("a title in no encoding", titled(b"\xff\xfe\x80\x81\xf5", "matroska"), (), lasts(3)),
    Case("subtitles in Shift-JIS", subtitled, (), lasts(3)),
    Case("a still of twenty seconds", recording(times_s=[0, 0.5, 20.5, 21]), (), lasts(21, within_s=1.1)),
    Case("time before zero", recording(times_s=[n / 10 - 1 for n in range(30)], container="matroska"), (), lasts(3)),
    Case("a clock that starts again", joined, (), lasts(6, within_s=0.5)),
    Case("seventeen by thirteen pixels", recording(size=(18, 14), codec="mpeg4"), (), lasts(3)),
    Case("a strip of 4096×16", recording(size=(4096, 16)), (), lasts(3)),
    Case("a single frame", recording(frame_count=1), (), lasts(0.07)),
    Case(
        "HEVC in 10 bits",
        recording(codec="libx265", pix_fmt="yuv420p10le", codec_options={"x265-params": "log-level=0"}),
        (),
        lasts(3),
    ),
    Case("VP9 in WebM", recording(container="webm", codec="libvpx-vp9"), (), lasts(3, codec="vp9")),
    Case("AV1 in Matroska", recording(container="matroska", codec="libsvtav1"), (), lasts(3, codec="av1")),
    Case("MPEG-4 in AVI", recording(container="avi", codec="mpeg4"), (), lasts(3)),
    Case("H.264 in a transport stream", recording(container="mpegts"), (), lasts(3)),
    Case("with sound", recording(audio=True), (), lambda extraction: extraction.info.has_audio),
)
