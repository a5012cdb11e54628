"""The units for one machine: systemd reads them, and what they promise agrees with what Genba does."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genba_gateway.supervisor import DRAIN_S

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").iterdir())


def test_systemd_takes_every_unit(tmp_path: Path) -> None:
    """With the interpreter of this machine in place of the command that is not installed under /opt here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/genba/.venv/bin/genba", sys.executable)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    found = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    ours = [line for line in found.stderr.splitlines() if "genba" in line]
    assert (found.returncode, ours) == (0, [])


def test_stopping_waits_longer_than_a_drain_takes() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(ROOT / "deploy" / "systemd" / "genba.service")
    assert int(unit["Service"]["TimeoutStopSec"]) > 2 * DRAIN_S
    assert unit["Service"]["KillMode"] == "mixed"  # only the supervisor is asked: it stops its children in order


def test_the_page_installs_every_unit_and_makes_every_folder_that_they_name() -> None:
    page = (ROOT / "docs" / "how-to" / "start-at-boot.md").read_text(encoding="utf-8")
    assert "cp deploy/systemd/genba* /etc/systemd/system/" in page
    assert all(unit.name.startswith("genba") for unit in UNITS)
    text = "".join(unit.read_text(encoding="utf-8") for unit in UNITS)
    for folder in set(re.findall(r"/etc/genba|/var/backups/genba|/opt/genba", text)):
        assert f"{folder}\n" in page or f"{folder} " in page, folder


def test_what_a_killed_backup_left_goes_with_the_next_one_and_whole_ones_stay_their_time(tmp_path: Path) -> None:
    yesterday_s, old_s = time.time() - 25 * 3600, time.time() - 32 * 24 * 3600
    for name, made_s in {
        "genba-2026-11-26.tar": yesterday_s,
        "genba-2026-10-20.tar": old_s,
        ".genba-2026-11-26.tar.0011223344556677": yesterday_s,
        ".genba-2026-11-26.tar.0011223344556677.db": yesterday_s,
        ".genba-2026-11-27.tar.8899aabbccddeeff": time.time(),  # somebody makes one just now
    }.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (made_s, made_s))
    unit = (ROOT / "deploy" / "systemd" / "genba-backup.service").read_text(encoding="utf-8")
    for command in re.findall(r"^ExecStart(?:Pre|Post)=(.+)$", unit, re.MULTILINE):
        subprocess.run(shlex.split(command.replace("/var/backups/genba", str(tmp_path))), check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".genba-2026-11-27.tar.8899aabbccddeeff",
        "genba-2026-11-26.tar",
    ]
