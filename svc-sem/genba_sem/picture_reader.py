"""Reads untrusted image files in children that may be killed: what crashes, eats memory or never ends costs one child and one view.

Children wait between files and serve some thousands each; there are as many as files are read at the same time. Knows nothing of
particles, HTTP or jobs: bytes in, a View or Unreadable out, as ``micrograph.read_view`` itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from genba_sem.instrument import Instrument
from genba_sem.micrograph import Limits, Unreadable, View, from_levels
from genba_sem.picture_child import Buffer, receive, send
from genba_shared.telemetry import get_logger

log = get_logger(__name__)

_FILES_A_CHILD: Final = 5000
_START_S: Final = 60.0
_PIPE_BYTES: Final = 1 << 20  # where the platform lets a pipe hold so much: a picture in one go
_MOST_SAID_BYTES: Final = 1 << 20  # beside the pixels


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
            "limits": vars(limits),
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
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=quiet, bufsize=0)
        self._pipes = _Pipes(self._process.stdin, self._process.stdout)
        self.files = 0
        try:
            self._pipes.until_s = time.monotonic() + _START_S
            said = receive(self._pipes)[0]
        except (EOFError, _Late) as err:
            self.end()
            raise RuntimeError("The picture decoder does not start; its standard error says why.") from err
        if not said["sandboxed"]:
            log.warning("pictures_without_sandbox")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, said: dict[str, Any], data: bytes, *, within_s: float) -> tuple[dict[str, Any], Buffer]:
        """One file. Raises: Unreadable where the child has gone or had to be killed."""
        self.files += 1
        self._pipes.until_s = time.monotonic() + within_s
        self._pipes.most_bytes = _MOST_SAID_BYTES + 4 * int(said["limits"]["max_pixels"])
        try:
            send(self._pipes, said, data)
            return receive(self._pipes)
        except _Late as err:
            self.end()
            raise Unreadable("broken", f"The picture could not be decoded within {within_s:g} s.") from err
        except (EOFError, BrokenPipeError) as err:
            self.end()
            if self.files > 1:
                raise _Gone from err
            raise Unreadable("broken", "The picture made its decoder fail; it is damaged or meant to.") from err

    def end(self) -> None:
        """Kill it, where it lives, and let go of its pipes."""
        self._process.kill()
        self._pipes.close()
        self._process.wait()


class _Late(Exception):
    """Time was up before the child had read or written what it should."""


class _Pipes:
    """Both pipes of a child, read and written until a moment and no longer. Used by one thread at a time."""

    def __init__(self, into: Any, out_of: Any) -> None:
        self._into, self._out_of = into, out_of
        self.until_s = 0.0  # of the monotonic clock
        self.most_bytes = _MOST_SAID_BYTES
        self._ready = {}
        for pipe, what in ((into, select.POLLOUT), (out_of, select.POLLIN)):
            os.set_blocking(pipe.fileno(), False)
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._ready[pipe] = select.poll()
            self._ready[pipe].register(pipe, what)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of it. Raises: _Late, BrokenPipeError."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._into.fileno(), rest) :]
            except BlockingIOError:
                self._wait(self._into)

    def flush(self) -> None:
        """Nothing is held back."""

    def read(self, size: int) -> bytearray:
        """So many bytes, fewer only at the end, or none where so many are not to be believed. Raises: _Late."""
        taken = bytearray(size if size <= self.most_bytes else 0)
        at = 0
        with memoryview(taken) as whole:
            while at < len(taken):
                try:
                    found = os.readv(self._out_of.fileno(), [whole[at:]])
                except BlockingIOError:
                    self._wait(self._out_of)
                    continue
                if not found:
                    break
                at += found
        return taken if at == size else taken[:at]

    def close(self) -> None:
        for pipe in (self._into, self._out_of):
            pipe.close()

    def _wait(self, pipe: Any) -> None:
        left_s = self.until_s - time.monotonic()
        if left_s <= 0 or not self._ready[pipe].poll(1000 * left_s):
            raise _Late


def _view(said: dict[str, Any], pixels: Buffer) -> View:
    facts = {name: value for name, value in said.items() if name not in {"shape", "bytes", "pixels"}}
    facts["instrument"] = Instrument(**facts["instrument"])
    facts["disagreements"] = tuple(facts["disagreements"])
    facts["full_size_px"] = facts["full_size_px"] and tuple(facts["full_size_px"])
    if said["pixels"] == "uint8":
        return View(from_levels(np.frombuffer(pixels, np.uint8).reshape(said["shape"])), **facts)
    return View(np.frombuffer(pixels, np.float32).reshape(said["shape"]), **facts)
