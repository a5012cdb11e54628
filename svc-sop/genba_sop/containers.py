"""Which demuxer a file may be read with, decided by its first bytes alone: never by its name, never by FFmpeg's own
guessing.

FFmpeg probes every format that it knows, among them playlists (HLS, DASH, concat) that name other files and addresses. Only
six containers are let through here, and the decoder is told which one it is.
"""

from __future__ import annotations

from typing import Final

SNIFFED_BYTES: Final = 4096
ACCEPTED: Final = "MP4, MOV, MKV, WebM, AVI or MPEG-TS"

_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"})
_EBML = b"\x1a\x45\xdf\xa3"
_TS_SYNC = 0x47

# Only to say what was sent instead.
_NAMED_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"RIFF", "a RIFF file without video"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"#EXTM3U", "an HLS playlist"),
    (b"ffconcat", "a list of files"),
    (b"#!", "a script"),
    (b"<?xml", "an XML document"),
    (b"<", "an XML or HTML document"),
    (b"v=0", "an SDP description"),
    (b"ID3", "an audio file"),
    (b"OggS", "an Ogg file"),
    (b"fLaC", "an audio file"),
    (b"\x00\x00\x01\xba", "an MPEG program stream"),
    (b"FLV\x01", "a Flash video"),
)


def demuxer_of(head: bytes) -> str | None:
    """The demuxer for a file that begins with ``head`` (its first ``SNIFFED_BYTES``), or None when it may not be
    read.
    """
    if head[4:8] in _FIRST_BOXES:
        return "mov"
    if head.startswith(_EBML):
        return "matroska" if b"matroska" in head[:64] or b"webm" in head[:64] else None
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    packet_lengths = ((0, 188), (4, 192))  # plain, and with the time code of Blu-ray and AVCHD before each packet
    if any(_is_transport_stream(head, start=start, step=step) for start, step in packet_lengths):
        return "mpegts"
    return None


def _is_transport_stream(head: bytes, *, start: int, step: int) -> bool:
    marks = head[start::step]
    return len(marks) >= 5 and all(mark == _TS_SYNC for mark in marks)


def name_of(head: bytes) -> str:
    """What a refused file seems to be, for the person who sent it."""
    if not head:
        return "empty"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((name for magic, name in _NAMED_MAGIC if text.startswith(magic)), "of no kind that is known here")
