"""What a killed process had half received goes with the next start; what another process has in hand stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from genba_shared.spool import open_spool

_HOLDS = """
import sys, pathlib
from genba_shared.spool import open_spool
with open_spool(pathlib.Path(sys.argv[1]), "sop") as folder:
    (folder / "upload-half").write_bytes(b"half a film")
    print(folder, flush=True)
    sys.stdin.read()
"""


def holder(home: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_goes_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    killed, left = holder(tmp_path)
    living, kept = holder(tmp_path)
    killed.kill()
    killed.communicate()
    assert (left / "upload-half").exists()
    with open_spool(tmp_path, "sem"):
        assert left.exists(), "another service's"
    with open_spool(tmp_path, "sop") as folder:
        assert not left.exists()
        assert (kept / "upload-half").exists()
        assert folder.exists()
        assert folder != kept
    assert not folder.exists()
    living.communicate("")
    assert living.returncode == 0
    assert not kept.exists()


def test_what_older_releases_left_goes_after_a_day_whoever_starts(tmp_path: Path) -> None:
    """They put ``upload-…`` and ``particle-…`` into the folder itself and held no lock."""
    living, kept = holder(tmp_path)
    spool = tmp_path / "spool"
    old, fresh, folder = spool / "upload-old", spool / "upload-fresh", spool / "particle-old"
    for file in (old, fresh):
        file.write_bytes(b"half a film")
    folder.mkdir()
    (folder / "001").write_bytes(b"half a picture")
    long_ago_s = time.time() - 2 * 24 * 3600
    for each in (old, folder, kept):
        os.utime(each, (long_ago_s, long_ago_s))
    with open_spool(tmp_path, "sem") as mine:
        assert sorted(spool.iterdir()) == sorted([fresh, kept, mine])
    living.communicate("")
