"""Append to the audit log from many threads at the cost of few disk syncs: what waits is written, sealed and synced together.

``append`` returns when its entry is durable and below a signed checkpoint, never before. Sinks (syslog, ``windows_events``) get
each entry after that; what one does not take is counted and delays nobody. Knows no event's meaning.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from pydantic import JsonValue
from sqlalchemy.orm import Session

from genba_shared.audit import AuditEntry, Fields, NewEntry, append_after, entry_of, stand_in_line
from genba_shared.audit_tree import Tree, catch_up, extend, seal
from genba_shared.db import Database
from genba_shared.problems import Draining
from genba_shared.settings import Platform
from genba_shared.telemetry import get_logger
from genba_shared.tlog import NoteSigner

log = get_logger(__name__)

_AUTHPRIV = 10
_ANSWER_S, _AWAY_S = 1.0, 5.0  # of a syslog collector: how long it is waited for, and left alone when it did not answer


class Sink(Protocol):
    """Somewhere else that hears of each entry."""

    name: str

    def write(self, entry: AuditEntry, /) -> None: ...

    def close(self) -> None: ...


Also = Callable[[Session, list[AuditEntry]], None]
"""Further rows for the same transaction: they and the entries share one fate."""


class _Waiting(NamedTuple):
    entries: Sequence[NewEntry]
    also: Also | None
    written: Future[list[AuditEntry]]


class AuditWriter:
    """One per process. Threads call ``append``; one thread of its own writes."""

    def __init__(
        self,
        database: Database,
        signer: NoteSigner,
        *,
        sinks: Sequence[Sink] = (),
        largest_batch: int = 1024,
        on_batch: Callable[[int], None] = lambda _: None,
        on_sink_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._database, self._signer, self._sinks = database, signer, sinks
        self._largest_batch, self._on_batch, self._on_sink_failure = largest_batch, on_batch, on_sink_failure
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._tree: Tree | None = None
        self._closed, self._closing = False, threading.RLock()  # the garbage collector may run within it
        self.sink_failures = 0
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)
        self._thread.start()

    def append(
        self, event: str, *, actor: str, subject: str, detail: Mapping[str, JsonValue] | None = None
    ) -> AuditEntry:
        """Write one entry; back when it is durable. Raises: Unavailable when it could not be written."""
        [entry] = self.append_all([NewEntry(event, actor, subject, detail or {})])
        return entry

    def append_all(self, entries: Sequence[NewEntry], *, also: Also | None = None) -> list[AuditEntry]:
        """Write entries one after the other, and what ``also`` adds, all of it or nothing.

        Raises: RuntimeError within ``also``, or in what the garbage collector ends meanwhile: the writer would wait for itself.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("The writer of the audit log cannot wait for itself; submit and go on.")
        return self.submit(entries, also=also).result()

    def submit(self, entries: Sequence[NewEntry], *, also: Also | None = None) -> Future[list[AuditEntry]]:
        """The same, for who can wait elsewhere."""
        written: Future[list[AuditEntry]] = Future()
        with self._closing:  # nothing comes after the end, where nobody would write it
            if self._closed:
                raise Draining("The audit log is closed.")
            self._queue.put(_Waiting(entries, also, written))
        return written

    @property
    def sink_names(self) -> list[str]:
        """Who else hears of entries."""
        return [sink.name for sink in self._sinks]

    def seal(self) -> None:
        """Sign what others have appended since; a log whose head is signed already is left alone."""
        self.append_all([])

    def close(self) -> None:
        """Write what waits, then end."""
        with self._closing:
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        for sink in self._sinks:
            with contextlib.suppress(OSError):
                sink.close()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, last = [first], False
            while len(batch) < self._largest_batch:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    last = True
                    break
                batch.append(following)
            self._write(batch)
            if last:
                return

    def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            written, tree = self._commit(batch)
        except BaseException as error:  # noqa: BLE001 - whoever waits must be told, whatever it was
            if len(batch) > 1:  # one that cannot be written must not take the others with it
                for waiting in batch:
                    self._write([waiting])
            else:
                batch[0].written.set_exception(error)
            return
        self._tree = tree
        self._on_batch(sum(map(len, written)))
        for waiting, entries in zip(batch, written, strict=True):
            waiting.written.set_result(entries)
        for sink in self._sinks:
            self._tell(sink, [entry for entries in written for entry in entries])

    def _commit(self, batch: Sequence[_Waiting]) -> tuple[list[list[AuditEntry]], Tree]:
        new = [entry for waiting in batch for entry in waiting.entries]
        with self._database.transaction() as session:
            last = stand_in_line(session)
            tree = catch_up(session, self._tree, last)
            rows: list[Fields] = append_after(session, last, new) if new else []
            extend(session, tree, rows, fresh=True)
            seal(session, tree, self._signer)
            entries, at, written = [entry_of(row) for row in rows], 0, []
            for waiting in batch:
                written.append(entries[at : at + len(waiting.entries)])
                at += len(waiting.entries)
                if waiting.also is not None:
                    waiting.also(session, written[-1])
        return written, tree

    def _tell(self, sink: Sink, entries: Sequence[AuditEntry]) -> None:
        failed = 0
        for entry in entries:
            try:
                sink.write(entry)
            except Exception as error:  # noqa: BLE001 - the entry is safe; a sink that is down must not stop the work
                if not failed:
                    log.warning("audit_sink_failed", sink=sink.name, error=type(error).__name__)
                failed += 1
                self._on_sink_failure(sink.name)
        self.sink_failures += failed


def open_writer(
    database: Database,
    platform: Platform,
    *,
    on_batch: Callable[[int], None],
    on_sink_failure: Callable[[str], None] = lambda _: None,
) -> AuditWriter:
    """With the key and the sinks that the platform's settings name."""
    sinks: list[Sink] = []
    if platform.audit_syslog:
        sinks.append(SyslogSink(platform.audit_syslog))
    if sys.platform == "win32":
        from genba_shared.windows_events import WindowsEventSink

        sinks.append(WindowsEventSink())
    return AuditWriter(
        database, audit_signer(platform), sinks=sinks, on_batch=on_batch, on_sink_failure=on_sink_failure
    )


def audit_signer(platform: Platform) -> NoteSigner:
    """Who signs this installation's checkpoints."""
    return NoteSigner(platform.audit_origin, platform.load_audit_seed())


def line_of(entry: AuditEntry) -> str:
    """An entry as one line for logs of others: no text of users is in an entry, so none is in the line."""
    outcome = entry.detail.get("decision", "")
    return f"seq={entry.seq} event={entry.event} outcome={outcome} subject={entry.subject} actor={entry.actor} hash={entry.hash}"


def one_line_of(entry: AuditEntry) -> str:
    """The same for logs in which a line feed would begin another entry."""
    return " ".join(line_of(entry).splitlines())


def event_id_of(entry: AuditEntry) -> int:
    """The id under which Windows files it; 1000 for entries that bring none."""
    found = entry.detail.get("event_id")
    return found if isinstance(found, int) else 1000


def severity_of(entry: AuditEntry) -> int:
    """A level of ``logging``."""
    return {"DENY": logging.WARNING, "REFUSE": logging.WARNING, "ERROR": logging.ERROR}.get(
        str(entry.detail.get("decision", "")), logging.INFO
    )


class SyslogSink:
    """RFC 3164 syslog, facility ``authpriv``: ``udp://host:514``, ``tcp://host:514`` or a socket's path such as ``/dev/log``.

    Connected with the first entry, and anew when that is lost; a collector that is away is asked again every few seconds and
    waited for no longer than one. On TCP a line ends with a line feed (RFC 6587), by which collectors tell lines apart.
    """

    name = "syslog"

    def __init__(self, address: str) -> None:
        """Raises: ValueError for an address with a port that is none."""
        parts = urlsplit(address)
        self._path = None if parts.scheme else address
        self._host, self._port = parts.hostname or "", parts.port or 514
        self._kind = socket.SOCK_STREAM if parts.scheme == "tcp" else socket.SOCK_DGRAM
        self._end = b"\n" if parts.scheme == "tcp" else b"\0"
        self._socket: socket.socket | None = None
        self._away_until_s = 0.0

    def write(self, entry: AuditEntry) -> None:
        severity = {logging.WARNING: 4, logging.ERROR: 3}.get(severity_of(entry), 6)
        said = f"<{_AUTHPRIV * 8 + severity}>genba-audit: {one_line_of(entry)}".encode() + self._end
        if time.monotonic() < self._away_until_s:
            raise ConnectionError("the collector was away a moment ago")
        try:
            self._send(said)
        except OSError:
            self._away_until_s = time.monotonic() + _AWAY_S
            self.close()
            raise

    def _send(self, said: bytes) -> None:
        if self._socket is not None:
            try:
                self._socket.sendall(said)
            except TimeoutError:
                raise
            except OSError:  # the collector was started anew
                self.close()
            else:
                return
        self._socket = self._connected()
        self._socket.sendall(said)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._path is None:
            (family, kind, protocol, _, where), *_ = socket.getaddrinfo(self._host, self._port, type=self._kind)
            return _connected(socket.socket(family, kind, protocol), where)
        try:
            return _connected(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), self._path)
        except OSError:  # some listen for streams there
            return _connected(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), self._path)


def _connected(new: socket.socket, where: Any) -> socket.socket:
    try:
        new.settimeout(_ANSWER_S)
        new.connect(where)
    except OSError:
        new.close()
        raise
    return new
