"""From a file to features: sampling by time stamps, the limited child, progress, and who pays for waiting."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import structlog.testing
from tests.sop.hostile_videos import Recording, changed, matrix

from genba_sop import frames
from genba_sop.encoders import MotionHogEncoder
from genba_sop.motion_hog import DIM, LOCAL_DIM
from genba_sop.video import DecodingStopped, Limits, VideoTooLarge, VideoUnreadable, decode, extract


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    Recording(frame_count=60, fps=15).write(path)
    return path


def test_a_video_becomes_one_row_of_features_for_each_quarter_of_a_second(clip: Path) -> None:
    features = extract(clip).features
    assert features.encoder == "motion-hog-v1"
    assert features.times_s.tolist() == [n / 4 for n in range(16)]
    assert features.values.shape == (16, DIM)
    assert features.local.shape == (16, 48, LOCAL_DIM)
    assert features.motion.shape == (16,)
    assert {features.values.dtype, features.local.dtype, features.motion.dtype} == {np.dtype(np.float32)}
    assert np.allclose(np.linalg.norm(features.values, axis=1), 1, atol=1e-5)
    assert features.duration_s == pytest.approx(4.0)


def test_the_same_file_gives_the_same_features_each_time(clip: Path) -> None:
    one, two = extract(clip).features, extract(clip).features
    assert np.array_equal(one.values, two.values)
    assert np.array_equal(one.local, two.local)


def test_the_sampling_rate_may_be_chosen(clip: Path) -> None:
    assert len(extract(clip, sample_fps=5.0).features.times_s) == 20


def test_what_is_sampled_is_the_picture_on_the_screen_at_that_time(tmp_path: Path) -> None:
    path = tmp_path / "variable.mp4"
    Recording(times_s=[0.0, 0.3, 0.31, 0.32, 0.9, 1.6], codec_options={"bf": "0"}).write(path)
    with decode(path, thumbnail_px=0) as decoding:
        frames = list(decoding.frames())
    assert [frame.time_s for frame in frames[:7]] == [0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
    assert [round(frame.shown_s, 3) for frame in frames[:7]] == [0, 0, 0.32, 0.32, 0.9, 0.9, 0.9]
    assert [frame.rgb is None for frame in frames[:7]] == [False, True, False, True, False, True, True]


def test_a_last_picture_that_the_file_holds_for_long_is_on_the_screen_for_as_long(tmp_path: Path) -> None:
    """Screen recorders write a picture when something changes: half a minute of nothing at the end is no damage."""
    path = tmp_path / "held.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pictures = [np.full((48, 64, 3), 60 * n, np.uint8) for n in range(4)]
        packets = [stream.encode(av.VideoFrame.from_ndarray(each, format="rgb24")) for each in pictures]
        *before, last = [packet for each in (*packets, stream.encode()) for packet in each]
        last.duration = round(30 / last.time_base)
        container.mux([*before, last])
    extraction = extract(path)
    assert extraction.info.duration_s == pytest.approx(30.75, abs=0.3)
    assert not extraction.info.truncated
    assert extraction.features.times_s[-1] > 30


def test_b_frames_are_left_out_only_while_enough_pictures_remain(tmp_path: Path) -> None:
    path = tmp_path / "far.mp4"
    Recording(
        fps=30, frame_count=90, codec_options={"bf": "16", "b_strategy": "0", "x264-params": "b-pyramid=0"}
    ).write(path)
    with decode(path, thumbnail_px=0) as decoding:
        late_s = [frame.time_s - frame.shown_s for frame in decoding.frames()]
    assert max(late_s[4:]) < 0.6 / 4 + 1 / 30


@pytest.mark.parametrize(("rows", "corner"), [((0, 1, -1, 0), 1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 3)])
def test_a_turned_picture_is_turned_upright(tmp_path: Path, rows: tuple[int, int, int, int], corner: int) -> None:
    """The white corner of the stored picture moves clockwise with the turn that the file asks for."""
    path = tmp_path / "turned.mp4"
    changed(matrix(*rows))(path)
    got = extract(path)
    assert (got.info.width, got.info.height) == ((120, 160) if corner % 2 else (160, 120))
    lightness = got.features.local[0, :, 8].reshape(6, 8)
    corners = [lightness[0, 0], lightness[0, -1], lightness[-1, -1], lightness[-1, 0]]
    assert int(np.argmax(corners)) == corner
    with av.open(io.BytesIO(got.thumbnails[0].jpeg), format="image2pipe") as shown:
        small = next(shown.decode(video=0)).to_ndarray(format="gray")
    height, width = small.shape
    assert (height > width) == bool(corner % 2)
    assert small[:: height - 1, :: width - 1].ravel()[[0, 1, 3, 2]].argmax() == corner


def test_a_picture_a_second_is_kept_as_jpeg(clip: Path) -> None:
    thumbnails = extract(clip).thumbnails
    assert [thumbnail.time_s for thumbnail in thumbnails] == [0, 1, 2, 3]
    assert all(thumbnail.jpeg.startswith(b"\xff\xd8\xff") for thumbnail in thumbnails)


def test_frames_for_an_encoder_with_weights_keep_their_aspect(clip: Path) -> None:
    with decode(clip, short_side_px=96, thumbnail_px=0) as decoding:
        shapes = {frame.rgb.shape for frame in decoding.frames() if frame.rgb is not None}
    assert shapes == {(96, 128, 3)}


def test_another_encoder_gives_the_rows_while_local_and_motion_stay(clip: Path) -> None:
    class Brightness:
        id, dim, short_side_px = "brightness", 1, 64

        def begin(self) -> Brightness:
            self.seen: list[float] = []
            return self

        def add(self, rgb: Any) -> None:
            assert rgb.shape == (64, 85, 3)
            self.seen.append(float(rgb.mean()))

        def repeat(self) -> None:
            self.seen.append(self.seen[-1])

        def values(self, _: Any) -> Any:
            return np.ones((len(self.seen), 1), np.float32)

    got, usual = extract(clip, encoder=Brightness()), extract(clip, encoder=MotionHogEncoder())
    assert got.features.encoder == "brightness"
    assert got.features.values.shape == (16, 1)
    assert np.corrcoef(got.features.motion, usual.features.motion)[0, 1] > 0.9
    assert got.features.local.shape == usual.features.local.shape


def test_progress_rises_to_one(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    Recording(frame_count=300, fps=15).write(path)
    seen: list[float] = []
    extract(path, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) > 3


def test_each_stage_is_timed(clip: Path) -> None:
    timings = extract(clip).timings_ms
    stages = {"decode_ms", "scale_ms", "thumbnail_ms", "pipe_wait_ms", "describe_ms", "encode_ms", "total_ms"}
    assert set(timings) == stages
    assert all(value >= 0 for value in timings.values())


def test_a_file_over_the_cap_is_refused_before_a_child_is_started(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(VideoTooLarge, match="1000 are accepted"):
        extract(clip, limits=Limits(max_bytes=1000))


def child(monkeypatch: pytest.MonkeyPatch, code: str) -> list[subprocess.Popen[bytes]]:
    """In place of the decoder, a child that runs ``code``."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen([sys.executable, "-c", textwrap.dedent(code)], **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


SPEAK = """
import json, struct, sys, time
def say(kind, payload=b"", at=0.0):
    sys.stdout.buffer.write(struct.pack(">cddI", kind, at, at, len(payload)) + payload)
    sys.stdout.buffer.flush()
info = json.dumps({"duration_s": 1000, "width": 4, "height": 4, "fps": 4, "frame_count": 4, "codec": "h264", "has_audio": False})
"""


def test_a_child_that_says_nothing_is_killed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = child(monkeypatch, "import time; time.sleep(600)")
    with pytest.raises(DecodingStopped, match="does not get on"):
        extract(clip, limits=Limits(silence_s=0.3))
    assert started[0].returncode == -9


def test_a_child_that_dribbles_is_killed_when_its_time_is_up(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = child(
        monkeypatch,
        SPEAK + "say(b'I', info.encode())\nwhile True:\n    say(b'J', b'', 0.0)\n    time.sleep(0.02)\n",
    )
    with pytest.raises(DecodingStopped, match="does not get on"):
        extract(clip, limits=Limits(silence_s=5.0, grace_s=0.5))
    assert started[0].returncode == -9


def test_time_in_which_the_child_waits_for_us_is_not_held_against_it(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    with decode(clip, thumbnail_px=0) as decoding:
        for _ in decoding.frames():
            now_s += 1000.0
    assert decoding.summary.pictures > 0


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.kill(os.getpid(), 11)",
        "raise SystemExit(1)",
        SPEAK + "say(b'I', info.encode()); sys.stdout.buffer.write(b'F'); sys.stdout.buffer.flush()",
    ],
    ids=["crash", "exit", "half a record"],
)
def test_a_child_that_dies_is_a_problem_of_the_file(clip: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    child(monkeypatch, code)
    with pytest.raises(DecodingStopped, match="broke off"):
        extract(clip)


@pytest.mark.parametrize(
    "said",
    ["say(b'?', b'')", "say(b'F', b'')", "say(b'P', b'not json')", "say(b'I', b'[]')"],
    ids=["kind", "early", "junk", "list"],
)
def test_a_child_that_talks_nonsense_is_not_believed(clip: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    child(monkeypatch, SPEAK + said)
    with pytest.raises(VideoUnreadable):
        extract(clip)


def test_the_child_runs_under_limits_of_its_own(clip: Path) -> None:
    limits = Limits(max_memory_bytes=900 * 2**20, max_cpu_s=77)
    with decode(clip, limits=limits, thumbnail_px=0) as decoding:
        child_pid = decoding._process.pid
        assert resource.prlimit(child_pid, resource.RLIMIT_AS) == (900 * 2**20, 900 * 2**20)
        assert resource.prlimit(child_pid, resource.RLIMIT_CPU) == (77, 77)
        assert resource.prlimit(child_pid, resource.RLIMIT_FSIZE)[1] <= 64 * 1024
        assert resource.prlimit(child_pid, resource.RLIMIT_NOFILE)[1] <= 32
        assert resource.prlimit(child_pid, resource.RLIMIT_CORE) == (0, 0)
    assert Limits().max_memory_bytes <= 1.2 * 2**30


def test_a_video_that_needs_too_much_memory_is_stopped(clip: Path) -> None:
    with pytest.raises(VideoUnreadable):
        extract(clip, limits=Limits(max_memory_bytes=200 * 2**20))


@pytest.mark.parametrize("held", [True, False])
def test_a_decoder_without_a_sandbox_is_said_once(clip: Path, monkeypatch: pytest.MonkeyPatch, *, held: bool) -> None:
    real = frames._understood

    def understood(adapter: Any, payload: bytes) -> Any:
        said = real(adapter, payload)
        return replace(said, sandboxed=held) if isinstance(said, frames.Summary) else said

    monkeypatch.setattr(frames, "_understood", understood)
    frames._say_that_there_is_no_sandbox.cache_clear()
    with structlog.testing.capture_logs() as logs:
        extract(clip)
        extract(clip)
    assert [log["event"] for log in logs].count("decoder_without_seccomp") == (0 if held else 1)
    frames._say_that_there_is_no_sandbox.cache_clear()


def in_the_sandbox(code: str) -> str:
    """What ``code`` says when it runs behind ``forbid``."""
    program = f"import os, socket, subprocess, sys\nfrom genba_shared.sandbox import forbid\nheld = forbid()\n{code}"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return run.stdout.strip() or run.stderr.strip().splitlines()[-1]


@pytest.mark.skipif(in_the_sandbox("print(held)") != "True", reason="this kernel or machine has no seccomp filter")
@pytest.mark.parametrize(
    "code",
    [
        "socket.socket()",
        "socket.socketpair()",
        "open('/etc/passwd')",
        "open('/tmp/genba-should-not-exist', 'w')",
        "os.execv('/bin/true', ['true'])",
        "subprocess.Popen(['/bin/true'])",
        "os.fork()",
        "os.kill(os.getppid(), 0)",
        "os.unlink('/tmp/genba-should-not-exist')",
    ],
)
def test_behind_the_sandbox_there_is_no_network_no_file_and_no_program(code: str) -> None:
    assert in_the_sandbox(code).startswith("PermissionError")


def test_threads_still_start_behind_the_sandbox() -> None:
    """Threads are what FFmpeg decodes with."""
    assert in_the_sandbox("import threading\nt = threading.Thread(target=print, args=('runs',)); t.start()") == "runs"


def test_the_parent_and_the_child_agree_on_records() -> None:
    code = "import json, genba_sop.decoder as d; print(json.dumps([d.RECORD.format, d.FRAME_SIZE.format]))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [frames._RECORD.format, frames._FRAME_SIZE.format]
