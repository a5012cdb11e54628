"""What an artifact store promises, in a folder and in S3."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from genba_shared.artifacts import Artifacts
from genba_shared.problems import NotFound, Unavailable

CONTENT = "手順の動画".encode() * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
KEY = f"{DIGEST[:2]}/{DIGEST}.mp4"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "folder":
        return str(tmp_path / "artifacts")
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_endpoint"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"test-{uuid4().hex}"
    fsspec.filesystem("s3").mkdir(bucket)
    return f"s3://{bucket}/genba"


@pytest.fixture
def artifacts(url: str, tmp_path: Path) -> Artifacts:
    return Artifacts(url, cache=tmp_path / "cache")


def stored(artifacts: Artifacts) -> list[str]:
    root = artifacts._root
    return sorted(path.removeprefix(root).lstrip("/") for path in artifacts._fs.find(root))


def test_a_key_is_the_address_of_the_content(artifacts: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "in.mp4").write_bytes(CONTENT)
    assert artifacts.put(CONTENT, suffix=".mp4") == KEY
    assert artifacts.put(tmp_path / "in.mp4", suffix=".mp4") == KEY
    assert artifacts.put(io.BytesIO(CONTENT), suffix=".mp4") == KEY
    assert stored(artifacts) == [KEY]


def test_what_was_put_can_be_read_measured_and_found_as_a_file(artifacts: Artifacts) -> None:
    key = artifacts.put(CONTENT, suffix=".mp4")
    with artifacts.open(key) as reader:
        assert reader.read(9) == CONTENT[:9]
        reader.seek(0)
        assert reader.read() == CONTENT
    assert artifacts.size_bytes(key) == len(CONTENT)
    assert artifacts.exists(key)
    path = artifacts.local_path(key)
    assert path.read_bytes() == CONTENT
    assert path.suffix == ".mp4"
    assert artifacts.local_path(key) == path


def test_an_empty_file_is_a_file(artifacts: Artifacts) -> None:
    key = artifacts.put(b"")
    assert artifacts.size_bytes(key) == 0
    assert artifacts.local_path(key).read_bytes() == b""


def test_a_deleted_artifact_is_gone_and_deleting_again_is_no_error(artifacts: Artifacts) -> None:
    key = artifacts.put(CONTENT)
    artifacts.local_path(key)
    artifacts.delete(key)
    artifacts.delete(key)
    assert not artifacts.exists(key)
    for use in (artifacts.open, artifacts.local_path, artifacts.size_bytes):
        with pytest.raises(NotFound):
            use(key)


HOSTILE = [
    "../../etc/passwd",
    "/etc/passwd",
    f"{DIGEST[:2]}/../{DIGEST}",
    f"{DIGEST[:2]}/{DIGEST}/..",
    f"{DIGEST[:2]}/{DIGEST}.mp4/../../x",
    f"00/{DIGEST}",
    f"{DIGEST[:2]}/{DIGEST}\n",
    f"{DIGEST[:2]}/{DIGEST}.MP4",
    f"{DIGEST[:2]}/{DIGEST}.a/b",
    f"{DIGEST[:2]}/{DIGEST[:-1]}",
    f"s3://other/{DIGEST[:2]}/{DIGEST}",
    "",
    ".incoming/x",
    "ab",
]


def test_a_key_that_nobody_was_given_leads_nowhere(artifacts: Artifacts) -> None:
    artifacts.put(CONTENT, suffix=".mp4")
    for key in HOSTILE:
        assert not artifacts.exists(key), key
        for use in (artifacts.open, artifacts.local_path, artifacts.size_bytes, artifacts.delete):
            with pytest.raises(NotFound):
                use(key)
    assert stored(artifacts) == [KEY]


def test_a_suffix_is_a_file_extension_and_nothing_else(artifacts: Artifacts) -> None:
    for suffix in ("mp4", ".MP4", "/../x", ".a/b", "..", ".a.b.c", ".", ".mp4\n"):
        with pytest.raises(ValueError, match="suffix"):
            artifacts.put(CONTENT, suffix=suffix)
    assert stored(artifacts) == []


def test_a_source_that_breaks_off_leaves_nothing_behind(artifacts: Artifacts, tmp_path: Path) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise ConnectionError("the client hung up")
            return super().read(size)

    with pytest.raises(ConnectionError):
        artifacts.put(Breaking(b"x" * (3 << 20)))
    assert stored(artifacts) == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_same_content_put_by_many_at_once_is_stored_once_and_whole(artifacts: Artifacts) -> None:
    start = threading.Barrier(4)

    def put(_: int) -> str:
        start.wait()
        return artifacts.put(CONTENT, suffix=".mp4")

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(put, range(4))) == {KEY}
    assert stored(artifacts) == [KEY]
    assert artifacts.local_path(KEY).read_bytes() == CONTENT


def test_two_stores_on_one_url_see_the_same_artifacts(artifacts: Artifacts, url: str, tmp_path: Path) -> None:
    other = Artifacts(url, cache=tmp_path / "other")
    key = artifacts.put(CONTENT)
    assert other.exists(key)
    assert other.local_path(key).read_bytes() == CONTENT
    other.delete(key)
    assert not artifacts.exists(key)


def test_a_remote_artifact_that_arrives_damaged_is_refused_and_not_kept(artifacts: Artifacts, tmp_path: Path) -> None:
    key = artifacts.put(CONTENT)
    if artifacts._is_local:
        return  # nothing is fetched from a folder
    artifacts.local_path(key).unlink()
    artifacts._fs.pipe_file(artifacts._path(key), b"bit rot")
    with pytest.raises(OSError, match="damaged"):
        artifacts.local_path(key)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_full_disk_is_said_and_leaves_nothing(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="no space left"):
        artifacts.put(CONTENT)
    assert stored(artifacts) == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_s3_that_does_not_answer_is_unavailable_rather_than_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    artifacts = Artifacts("s3://nowhere/genba", cache=tmp_path)
    for use in (artifacts.exists, artifacts.open, artifacts.local_path, artifacts.size_bytes):
        with pytest.raises(Unavailable, match="cannot be reached"):
            use(KEY)
    with pytest.raises(Unavailable):
        artifacts.put(CONTENT)
    fsspec.filesystem("s3").clear_instance_cache()


def test_copies_of_remote_artifacts_do_not_fill_the_disk(url: str, tmp_path: Path) -> None:
    cache, an_hour_ago_s = tmp_path / "cache", time.time() - 3600
    keys = [Artifacts(url, cache=cache).put(bytes([n]) * 1000) for n in range(5)]
    if not url.startswith("s3"):
        assert not cache.exists()
        return
    for n, key in enumerate(keys):
        os.utime(cache / key, (an_hour_ago_s + n,) * 2)
    os.utime(cache / keys[4], (an_hour_ago_s - 25 * 3600,) * 2)
    assert Artifacts(url, cache=cache).local_path(keys[0]).read_bytes() == bytes(1000)  # used just now
    bounded = Artifacts(url, cache=cache, cache_bytes=2500)
    assert [(cache / key).exists() for key in keys] == [True, False, False, True, False]
    assert [bounded.local_path(key).stat().st_size for key in keys] == [1000] * 5, "and each can be had again"


def test_copies_of_many_small_remote_artifacts_are_bounded_by_their_number(url: str, tmp_path: Path) -> None:
    if not url.startswith("s3"):
        return
    cache, an_hour_ago_s = tmp_path / "cache", time.time() - 3600
    keys = [Artifacts(url, cache=cache).put(bytes([n])) for n in range(4)]
    for n, key in enumerate(keys[:3]):
        os.utime(cache / key, (an_hour_ago_s + n,) * 2)
    Artifacts(url, cache=cache, cache_files=2)
    assert [(cache / key).exists() for key in keys] == [False, False, True, True], "the last one is in use"


def test_the_default_cache_is_private_to_this_user(url: str) -> None:
    artifacts = Artifacts(url)
    if not artifacts._is_local:
        assert artifacts._here.stat().st_mode & 0o077 == 0
        assert artifacts._here.stat().st_uid == os.getuid()


DIES_WHILE_WRITING = """
import os, sys
from genba_shared.artifacts import Artifacts
class Endless:
    def read(self, size):
        self.calls = getattr(self, "calls", 0) + 1
        return b"x" * size if self.calls < 4 else os.kill(os.getpid(), 9)
Artifacts(sys.argv[1]).put(Endless(), suffix=".mp4")
"""


def test_a_process_killed_while_writing_leaves_no_artifact_and_its_orphan_goes_in_a_day(tmp_path: Path) -> None:
    root = tmp_path / "a"
    killed = subprocess.run([sys.executable, "-c", DIES_WHILE_WRITING, str(root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (orphan,) = (path for path in root.rglob("*") if path.is_file())
    Artifacts(str(root))
    assert orphan.exists()  # it might still be somebody's
    os.utime(orphan, (0, 0))
    Artifacts(str(root))
    assert not orphan.exists()
