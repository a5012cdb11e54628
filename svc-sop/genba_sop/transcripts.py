"""Read the sidecars that transcribers write, WebVTT and SubRip: bytes in, cues out. Knows no video, row or HTTP.

Strict where a lenient reader would drop words in silence: what cannot be read is refused with the number of its line.
Libraries (webvtt-py, pysubs2, srt) pass malformed cues over, which is why none is used.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from genba_shared.problems import Invalid, fault

MOST_BYTES: Final = 2 * 1024**2
MOST_CUES: Final = 20_000
MOST_CHARS: Final = 2000  # of one cue
BEYOND_S: Final = 1.0  # by how much a cue may pass the end of its video

_TIME: Final = r"(?:(\d{1,3}):)?([0-5]?\d):([0-5]?\d)[.,](\d{1,3})"
_TIMING: Final = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?", re.ASCII)
_ARROW: Final = "-->"
_NO_GAP: Final = "a cue begins here, and the empty line above it is missing"
_ASIDE: Final = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_RUBY: Final = re.compile(r"<rt[^<>]*>[^<]*</rt>", re.IGNORECASE)  # readings: the words stand twice
_TAG: Final = re.compile(r"</?[a-zA-Z0-9][^<>]*>|\{\\[^{}]*\}")  # <i>, <v Anna>, <00:01.000>, {\an8}
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

Line = tuple[int, str]  # its number, from 1


@dataclass(frozen=True)
class Cue:
    """Words, and when they are said."""

    start_s: float
    end_s: float
    words: str


def read(body: bytes, *, duration_s: float) -> list[Cue]:
    """The cues of a transcript in the order of their starts; those without words are left out.

    Raises: Invalid, naming the line, for anything but a well-formed WebVTT or SubRip file in UTF-8 or Shift_JIS whose cues
    are in order and inside the video.
    """
    lines = [(number, line.rstrip()) for number, line in enumerate(re.split(r"\r\n|\n|\r", _decoded(body)), start=1)]
    blocks = list(_blocks(lines))
    if blocks and re.match(r"WEBVTT(\s|$)", blocks[0][0][1]):
        aside = [block for at, block in enumerate(blocks) if at == 0 or _ASIDE.match(block[0][1])]
        for number, line in (each for block in aside for each in block):
            if _ARROW in line:
                raise _wrong(number, _NO_GAP)
        blocks = [block for block in blocks[1:] if not _ASIDE.match(block[0][1])]
    cues: list[Cue] = []
    before_s = 0.0
    for block in blocks:
        number, cue = _cue(block)
        if cue.start_s < before_s:
            raise _wrong(number, f"the cue begins at {cue.start_s:g} s, before the one above it")
        if cue.end_s > duration_s + BEYOND_S:
            raise _wrong(number, f"the cue ends at {cue.end_s:g} s, and the video at {duration_s:.1f} s")
        before_s = cue.start_s
        if cue.words:
            cues.append(cue)
        if len(cues) > MOST_CUES:
            raise _wrong(number, f"a transcript may have at most {MOST_CUES} cues")
    if not cues:
        raise _wrong(1, "there is no cue in it: send a WebVTT or SubRip file")
    return cues


def _decoded(body: bytes) -> str:
    for encoding in ("utf-8-sig", "cp932"):  # cp932: Shift_JIS as Windows writes it
        try:
            return body.decode(encoding)
        except UnicodeDecodeError:
            continue
    said = "is neither UTF-8 nor Shift_JIS text"
    raise Invalid(f"The transcript {said}.", errors=[fault("body", said)])


def _blocks(lines: Sequence[Line]) -> Iterator[list[Line]]:
    block: list[Line] = []
    for number, line in lines:
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _cue(block: Sequence[Line]) -> tuple[int, Cue]:
    """A cue and the number of the line with its times; the line above them is its number or name."""
    at = 0 if _ARROW in block[0][1] else 1
    if at == len(block) or _ARROW not in block[at][1]:
        raise _wrong(block[0][0], "a cue's times are expected here, such as 00:01:02.500 --> 00:01:04.000")
    number, line = block[at]
    if (found := _TIMING.fullmatch(line)) is None:
        raise _wrong(number, "the times cannot be read: write them as 00:01:02.500 --> 00:01:04.000")
    start_s, end_s = _seconds(*found.groups()[:4]), _seconds(*found.groups()[4:])
    if end_s <= start_s:
        raise _wrong(number, "the cue ends before it begins")
    said = block[at + 1 :]
    for below, text in said:
        if _ARROW in text:
            raise _wrong(below, _NO_GAP)
    text = " ".join(text for _, text in said)
    if len(text) > MOST_CHARS:
        raise _wrong(number, f"a cue may have at most {MOST_CHARS} characters")
    return number, Cue(start_s, end_s, _words(text))


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000


def _words(text: str) -> str:
    plain = html.unescape(_TAG.sub("", _RUBY.sub("", text)))
    return " ".join(_CONTROL.sub(" ", plain).split())


def _wrong(number: int, said: str) -> Invalid:
    return Invalid(f"Line {number} of the transcript: {said}.", errors=[fault("body", f"line {number}: {said}")])
