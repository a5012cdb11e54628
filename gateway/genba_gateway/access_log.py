"""One line for each request, cheap enough to have always: lines are gathered and written a few times a second.

Names paths by their route, never whole, and callers by their subject: no user content gets into it. Lines that the process
did not get to write when it is killed are lost; the audit log, not this one, is the record of who did what.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from typing import BinaryIO, Literal

import orjson

_FLUSH_S = 0.2
_FLUSH_LINES = 1000


class AccessLog:
    """Writes to ``stream``, standard error by default, in the format of the process's other lines."""

    def __init__(self, log_format: Literal["json", "console"], stream: BinaryIO | None = None) -> None:
        self._stream = stream or sys.stderr.buffer
        self._is_json = log_format == "json"
        self._lines: list[bytes] = []
        self._flush_handle: asyncio.TimerHandle | None = None
        self._beginnings: dict[tuple[str, str, int], bytes] = {}  # of lines, by method, route and status
        self._stamp = b""
        self._stamp_until_s = 0.0

    def write(
        self,
        *,
        method: str,
        route: str,
        status: int,
        seconds: float,
        request_id: bytes,
        trace_id: bytes,
        subject: str | None,
    ) -> None:
        """Note one answered request."""
        now_s = time.time()
        # To the tenth of a second, formatted once for all lines of it; anew as well when the clock was set back.
        if not self._stamp_until_s - 0.1 <= now_s < self._stamp_until_s:
            self._stamp_until_s = now_s + 0.1
            self._stamp = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
        if self._is_json:  # only the subject can hold what JSON must escape; the rest is ours or was checked
            beginning = self._beginnings.get((method, route, status))
            if beginning is None:
                said = '{"event":"request","service":"gateway","method":"%s","route":"%s","status":%d,"duration_ms":'
                beginning = (said % (method, route, status)).encode()
                self._beginnings[method, route, status] = beginning
            line = b'%b%.3f,"subject":%b,"request_id":"%b","trace_id":"%b","level":"info","timestamp":"%b"}\n' % (
                beginning,
                seconds * 1000,
                b"null" if subject is None else orjson.dumps(subject),
                request_id,
                trace_id,
                self._stamp,
            )
        else:
            who = subject or "-"
            line = f"{self._stamp.decode()} {status} {method:6} {route} {seconds * 1000:.1f} ms {who} {request_id.decode()}\n".encode()
        self._lines.append(line)
        if len(self._lines) >= _FLUSH_LINES:
            self.flush()
        elif self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)

    def flush(self) -> None:
        """Write what was gathered."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        lines, self._lines = self._lines, []
        if lines:
            self._stream.write(b"".join(lines))
            self._stream.flush()
