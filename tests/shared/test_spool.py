"""What a killed process had half received goes with the next start; what another process has in hand stays."""

from __future__ import annotations

import subprocess
import sys
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
