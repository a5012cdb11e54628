"""WebVTT and SubRip as transcribers write them, and what is wrong with one."""

from __future__ import annotations

import pytest

from genba_shared.problems import Invalid
from genba_sop.transcripts import Cue, read

VTT = """WEBVTT - of a shift

STYLE
::cue { color: red }

NOTE written by hand

first
00:00.500 --> 00:02.000 align:start
<v Anna>Open the <b>lid</b> &amp; look.

00:00:02.000 --> 00:00:04.000
<ruby>漢字<rt>かんじ</rt></ruby>を
読む
"""
SRT = "1\r\n00:00:00,500 --> 00:00:02,000\r\n{\\an8}<i>蓋を開ける</i>\r\n\r\n2\r\n00:00:02,000 --> 00:00:04,000\r\nTorque < 5 Nm\r\n"


def test_webvtt_is_read_without_its_markup() -> None:
    assert read(VTT.encode(), duration_s=4.0) == [
        Cue(0.5, 2.0, "Open the lid & look."),
        Cue(2.0, 4.0, "漢字を 読む"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
def test_subrip_is_read_in_the_encodings_that_people_have(encoding: str) -> None:
    assert read(SRT.encode(encoding), duration_s=4.0) == [Cue(0.5, 2.0, "蓋を開ける"), Cue(2.0, 4.0, "Torque < 5 Nm")]


def test_cues_may_overlap_pass_the_end_by_a_second_and_say_nothing() -> None:
    body = "WEBVTT\n\n00:01.000 --> 00:04.000\na\n\n00:01.500 --> 00:02.000\n\n00:03.000 --> 00:05.000\nb"
    assert [cue.words for cue in read(body.encode(), duration_s=4.0)] == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "line", "said"),
    [
        ("WEBVTT\n\n00:02.000 --> 00:01.000\na", 3, "ends before it begins"),
        ("WEBVTT\n\n00:02.000 --> 00:03.000\na\n\n00:01.000 --> 00:03.000\nb", 6, "before the one above"),
        ("WEBVTT\n\n00:02.000 --> 00:09.000\na", 3, "the video at 4.0 s"),
        ("WEBVTT\n\n00:02 --> 00:03\na", 3, "cannot be read"),
        ("WEBVTT\n\n00:61.000 --> 01:71.000\na", 3, "cannot be read"),
        ("WEBVTT\n00:01.000 --> 00:02.000\na", 2, "empty line above"),
        ("WEBVTT\n\nNOTE\n00:01.000 --> 00:02.000\na", 4, "empty line above"),
        ("1\n00:00:01,000 --> 00:00:02,000\na\n2\n00:00:02,000 --> 00:00:03,000\nb", 5, "empty line above"),
        ("1\n00:00:01,000 --> 00:00:02,000\na\n\nand more of a", 5, "times are expected"),
        ("just prose", 1, "times are expected"),
        ("WEBVTT\n", 1, "no cue"),
        ("", 1, "no cue"),
        (f"WEBVTT\n\n00:01.000 --> 00:02.000\n{'a' * 2001}", 3, "2000 characters"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(body: str, line: int, said: str) -> None:
    with pytest.raises(Invalid, match=f"Line {line} of") as refused:
        read(body.encode(), duration_s=4.0)
    assert said in refused.value.detail
    assert refused.value.members["errors"] == [
        {"field": "body", "message": f"line {line}: {refused.value.detail.split(': ', 1)[1].removesuffix('.')}"}
    ]


@pytest.mark.parametrize("body", [VTT.encode("utf-16"), b"WEBVTT\n\n\xff\xfe\x81"])
def test_bytes_that_are_no_text_are_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        read(body, duration_s=4.0)


def test_markup_that_never_ends_is_read_in_linear_time() -> None:
    hostile = "WEBVTT\n\n00:01.000 --> 00:02.000\n" + "<rt>" * 500
    body = hostile + "\n\n00:01.000 --> 00:02.000\n<v a" * 10_000
    assert len(read(body.encode(), duration_s=4.0)) == 10_000
