"""Run by a Windows Python: the audit log with its Event Log sink. First argument: a library to call in advapi32's place.

Prints one line of JSON with what it saw; ``test_windows_events.py`` starts it and judges.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("This is for Windows.")

import json
import tempfile
import winreg
from pathlib import Path

from pydantic import JsonValue, SecretStr

from genba_shared.audit import AuditEntry, AuditLog, NewEntry
from genba_shared.audit_writer import audit_signer, open_writer
from genba_shared.db import Database
from genba_shared.settings import Platform
from genba_shared.windows_events import WindowsEventSink

DECISIONS = {"ALLOW": 1001, "ESCALATE": 1002, "DENY": 1003, "ERROR": 1004, "REFUSE": 1005}


def entry(decision: str, subject: str) -> AuditEntry:
    detail: dict[str, JsonValue] = {"decision": decision, "event_id": DECISIONS[decision]}
    return AuditEntry(1, "2026-11-28T00:00:00Z", "llm.decision", "営業一課", subject, detail, "ab" * 32)


def recorded(library: str) -> dict[str, object]:
    sink = WindowsEventSink(library=library)
    for decision in DECISIONS:
        sink.write(entry(decision, "dec_1"))
    sink.write(AuditEntry(2, "", "models.promoted", "a\nb\0c%1 %%7", "𠮷\ud800", {}, "cd"))
    sink.write(entry("ALLOW", "x" * 40_000))
    errors = []
    try:
        sink.write(entry("DENY", "FULL"))
    except OSError as error:
        errors.append(error.winerror)
    sink.write(entry("DENY", "after"))
    sink.close()
    return {"errors": errors}


def written(home: Path) -> dict[str, object]:
    platform = Platform(home=home, principal_secret=SecretStr("x" * 32))
    database = Database(f"sqlite:///{home}/genba.db")
    database.upgrade()
    writer = open_writer(database, platform, on_batch=lambda _: None)
    for decision, event_id in DECISIONS.items():
        new = NewEntry("llm.decision", "key_1", f"dec_{event_id}", {"decision": decision, "event_id": event_id})
        writer.append_all([new])
    writer.close()
    report = AuditLog(database, key=audit_signer(platform).key).verify()
    database.close()
    path = r"SYSTEM\CurrentControlSet\Services\EventLog\Application\SO8T"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
        source = {name: winreg.QueryValueEx(key, name)[0] for name in ("EventMessageFile", "TypesSupported")}
    return {
        "intact": report.intact,
        "entries": report.entries,
        "failures": writer.sink_failures,
        "source": source,
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        seen = recorded(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            seen = written(Path(folder))
    sys.stdout.write(json.dumps(seen))
