"""The audit's Event Log sink, run by CPython for Windows under Wine: ``make windows-test`` brings both.

Wine takes events and keeps none, so what is judged here is each call that Windows would get, by Windows's own prototypes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WINE = Path("/usr/lib/wine/wine64")
WINDOWS = Path(sys.prefix) / "windows"
SCRIPT = Path(__file__).parents[1] / "windows" / "audit_on_windows.py"
KINDS = {1001: 4, 1002: 4, 1003: 2, 1004: 1, 1005: 2}  # EVENTLOG_INFORMATION_TYPE, _WARNING_, _ERROR_


def on_windows(prefix: Path, *arguments: str, debug: str = "-all", **environment: str) -> tuple[Any, str]:
    """What ``audit_on_windows.py`` prints, and what Wine says."""
    if not (WINE.exists() and (WINDOWS / "python" / "python.exe").exists()):
        pytest.skip("needs a Windows Python and Wine (make windows-test)")
    made = os.environ | {"WINEPREFIX": str(prefix), "WINEDEBUG": debug, "PYTHONDONTWRITEBYTECODE": "1"} | environment
    run = subprocess.run(
        [str(WINE), str(WINDOWS / "python" / "python.exe"), of_wine(SCRIPT), *arguments],
        env=made, stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    said = run.stderr.decode("utf-8", "replace")
    assert run.returncode == 0, said
    return json.loads(run.stdout.decode().splitlines()[-1]), said


def of_wine(path: Path) -> str:
    return "Z:" + str(path).replace("/", "\\")


def test_each_call_is_as_windows_declares_it(tmp_path: Path) -> None:
    recorded = tmp_path / "recorded"
    seen, _ = on_windows(tmp_path / "wine", of_wine(WINDOWS / "recorder.dll"), RECORDED=of_wine(recorded))
    calls = [line.split() for line in recorded.read_text().splitlines()]
    assert [call[0] for call in calls] == ["open", *["report"] * 7, "close", "open", "report", "close"]
    reports = [(int(call[1]), int(call[2]), text_of(call[3])) for call in calls if call[0] == "report"]
    assert {event_id: kind for kind, event_id, _ in reports[:5]} == KINDS
    assert reports[0][2] == f"seq=1 event=llm.decision outcome=ALLOW subject=dec_1 actor=営業一課 hash={'ab' * 32}"
    assert reports[5][1] == 1000  # an entry that brings no id
    assert reports[5][2].endswith("subject=𠮷\ufffd actor=a b c% 1 % % 7 hash=cd")
    assert len(calls[7][3]) == 31_839 * 4
    assert text_of(calls[0][1]) == "SO8T"
    assert seen == {"errors": [1502]}  # a log that is full is said, and the next entry opens it anew
    assert reports[-1][2].split()[3] == "subject=after"


def text_of(units: str) -> str:
    return bytes.fromhex(units).decode("utf-16-be")


def test_a_log_on_windows_tells_the_event_log_and_describes_its_source(tmp_path: Path) -> None:
    seen, said = on_windows(tmp_path / "wine", debug="-all,+eventlog")
    assert seen["failures"] == 0
    assert (seen["intact"], seen["entries"]) == (True, 5)
    assert seen["source"]["EventMessageFile"].endswith("EventLogMessages.dll")
    assert seen["source"]["TypesSupported"] == 7
    told = [line.split(":eventlog:ReportEventW ") for line in said.splitlines() if "ReportEventW" in line]
    assert [level.split(":")[-1] for level, _ in told] == ["trace", "trace", "warn", "err", "warn"]
    assert [f"subject=dec_{event_id} " in text for (_, text), event_id in zip(told, KINDS, strict=True)] == [True] * 5
