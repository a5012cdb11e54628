"""Reads untrusted image files in children that may be killed: what crashes, eats memory or never ends costs one child and one view.

Children wait between files and serve some thousands each; there are as many as files are read at the same time. Knows nothing of
particles, HTTP or jobs: bytes in, a View or Unreadable out, as ``micrograph.read_view`` itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from genba_sem.instrument import Instrument
from genba_sem.micrograph import Limits, Unreadable, View
from genba_sem.picture_child import receive, send
from genba_shared.telemetry import get_logger

log = get_logger(__name__)

_FILES_A_CHILD: Final = 5000
_START_S: Final = 60.0


class PictureReader:
    """A few children, started when they are needed and shared by threads."""

    def __init__(self, *, memory_bytes: int, timeout_s: float) -> None:
        self._memory_bytes, self._timeout_s = memory_bytes, timeout_s
        self._idle: list[_Child] = []
        self._lock = threading.Lock()
        self._closed = False

    def read_view(
        self,
        data: bytes,
        *,
        limits: Limits | None = None,
        sidecar: str | None = None,
        pixel_size_nm: float | None = None,
        scale_bar_nm: float | None = None,
    ) -> View:
        """As ``micrograph.read_view``. Raises: Unreadable, also for a file that kills its child or takes too long."""
        limits = limits or Limits()
        if len(data) > limits.max_bytes:
            raise Unreadable("too_large", f"The file has {len(data):,} bytes; {limits.max_bytes:,} are allowed.")
        said = {
            "limits": asdict(limits),
            "sidecar": sidecar,
            "pixel_size_nm": pixel_size_nm,
            "scale_bar_nm": scale_bar_nm,
        }
        try:
            with self._child() as child:
                found, pixels = child.ask(said, data, within_s=self._timeout_s)
        except _Gone:  # a child that had served others: only a fresh one's end says something of this file
            with self._child(fresh=True) as child:
                found, pixels = child.ask(said, data, within_s=self._timeout_s)
        if "reason" in found:
            raise Unreadable(found["reason"], found["detail"])
        return _view(found, pixels)

    def close(self) -> None:
        """End the children that wait; those at work end with their file."""
        with self._lock:
            self._closed, idle = True, self._idle
            self._idle = []
        for child in idle:
            child.end()

    @contextlib.contextmanager
    def _child(self, *, fresh: bool = False) -> Iterator[_Child]:
        child = None
        with self._lock:
            while self._idle and not fresh and child is None:
                child = self._idle.pop()
                if not child.alive:
                    child.end()
                    child = None
        child = child or _Child(self._memory_bytes)
        try:
            yield child
        except BaseException:
            child.end()
            raise
        with self._lock:
            if child.files < _FILES_A_CHILD and not self._closed:
                self._idle.append(child)
                return
        child.end()


class _Gone(Exception):
    """A child ended that had served other files before."""


class _Child:
    """One process; used by one thread at a time."""

    def __init__(self, memory_bytes: int) -> None:
        argv = [sys.executable, "-m", "genba_sem.picture_child", str(memory_bytes)]
        quiet = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=quiet)
        self.files = 0
        try:
            with self._clock(_START_S):
                said = self._receive()[0]
        except EOFError as err:
            self.end()
            raise RuntimeError("The picture decoder does not start; its standard error says why.") from err
        if not said["sandboxed"]:
            log.warning("pictures_without_sandbox")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, said: dict[str, Any], data: bytes, *, within_s: float) -> tuple[dict[str, Any], bytes]:
        """One file. Raises: Unreadable where the child has gone or had to be killed."""
        self.files += 1
        with self._clock(within_s) as late:
            try:
                send(self._pipes()[0], said, data)
                return self._receive()
            except (EOFError, BrokenPipeError) as err:
                self.end()
                if late.is_set():
                    raise Unreadable("broken", f"The picture could not be decoded within {within_s:g} s.") from err
                if self.files > 1:
                    raise _Gone from err
                raise Unreadable("broken", "The picture made its decoder fail; it is damaged or meant to.") from err

    def end(self) -> None:
        """Kill it, where it lives, and let go of its pipes."""
        self._process.kill()
        for pipe in self._pipes():
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()

    def _pipes(self) -> tuple[Any, Any]:
        return self._process.stdin, self._process.stdout

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        return receive(self._pipes()[1])

    @contextlib.contextmanager
    def _clock(self, within_s: float) -> Iterator[threading.Event]:
        """Kills the child when time is up, which ends whatever waits for its pipes."""
        late = threading.Event()

        def up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(within_s, up)
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()


def _view(said: dict[str, Any], pixels: bytes) -> View:
    facts = {name: value for name, value in said.items() if name not in {"shape", "bytes"}}
    facts["instrument"] = Instrument(**facts["instrument"])
    facts["disagreements"] = tuple(facts["disagreements"])
    return View(np.frombuffer(pixels, np.float32).reshape(said["shape"]).copy(), **facts)
