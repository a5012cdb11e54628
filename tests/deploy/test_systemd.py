"""The units for one machine: systemd reads them, and what they promise agrees with what Genba does."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
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
