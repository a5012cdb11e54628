"""The Windows Event Log as a sink of the audit, through advapi32 itself: a package for it would be one that nobody misses until
a decision is not there. Exists on Windows only.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("This is for Windows.")

import contextlib
import ctypes
import logging
import re
import winreg
from ctypes import wintypes

from genba_shared.audit import AuditEntry
from genba_shared.audit_writer import event_id_of, one_line_of, severity_of
from genba_shared.telemetry import get_logger

log = get_logger(__name__)

_ERROR, _WARNING, _INFORMATION = 0x0001, 0x0002, 0x0004
_KEY = r"SYSTEM\CurrentControlSet\Services\EventLog\Application"
# Comes with .NET Framework 4, and so with Windows since 8: "%1" for each id up to 65,535. EventCreate.exe ends at 1000.
_MESSAGES = r"%SystemRoot%\Microsoft.NET\Framework64\v4.0.30319\EventLogMessages.dll"
_LONGEST_UNITS = 31_839  # of UTF-16 in one string, by ReportEvent's documentation
_INSERTION = re.compile(r"%(?=[%\d])")  # the viewer would put other text there


class WindowsEventSink:
    """One source in the log ``Application``. Opened with the first entry, and anew after one that failed."""

    name = "windows"

    def __init__(self, source: str = "SO8T", *, library: str = "advapi32") -> None:
        api = ctypes.WinDLL(library, use_last_error=True)
        self._open, self._report, self._close = api.RegisterEventSourceW, api.ReportEventW, api.DeregisterEventSource
        text, texts, blob = wintypes.LPCWSTR, ctypes.POINTER(wintypes.LPCWSTR), ctypes.c_void_p
        handle, word, dword = wintypes.HANDLE, wintypes.WORD, wintypes.DWORD
        self._open.argtypes, self._open.restype = [text, text], handle  # left to ctypes it is an int of 32 bits
        self._report.argtypes = [handle, word, word, dword, blob, word, dword, texts, blob]
        self._report.restype = self._close.restype = wintypes.BOOL
        self._close.argtypes = [handle]
        self._source = source
        self._handle: int | None = None
        _describe(source)

    def write(self, entry: AuditEntry) -> None:
        """Raises: OSError for what Windows does not take, such as a log that is full."""
        kind = {logging.WARNING: _WARNING, logging.ERROR: _ERROR}.get(severity_of(entry), _INFORMATION)
        if self._handle is None:
            self._handle = self._open(None, self._source)
            if self._handle is None:
                raise ctypes.WinError(ctypes.get_last_error())
        said = (wintypes.LPCWSTR * 1)(_shown(one_line_of(entry)))
        if not self._report(self._handle, kind, 0, event_id_of(entry), None, 1, 0, said, None):
            error = ctypes.WinError(ctypes.get_last_error())
            self.close()
            raise error

    def close(self) -> None:
        if self._handle is not None:
            self._close(self._handle)
            self._handle = None


def _shown(text: str) -> str:
    """``text`` as the viewer shows it whole: no NUL, no place for other text, not too long."""
    units = _INSERTION.sub("% ", text.replace("\0", " ")).encode("utf-16-le", "surrogatepass")
    return units[: _LONGEST_UNITS * 2].decode("utf-16-le", "replace")


def _describe(source: str) -> None:
    """Tell the viewer how to show the source's events. Takes an administrator once; without, it adds a sentence about that."""
    path = rf"{_KEY}\{source}"
    with contextlib.suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path):
        return
    try:
        with winreg.CreateKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
            winreg.SetValueEx(key, "EventMessageFile", 0, winreg.REG_EXPAND_SZ, _MESSAGES)
            winreg.SetValueEx(key, "TypesSupported", 0, winreg.REG_DWORD, _ERROR | _WARNING | _INFORMATION)
    except OSError as error:
        log.warning("event_source_not_described", source=source, error=type(error).__name__)
