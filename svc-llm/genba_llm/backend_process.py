"""A model of transformers behind a pipe: loaded and run in a process of its own, so that the one that serves stays quick.

Importing torch and transformers holds Python's lock for seconds, and so does much of a generation; in the process that
answers the web, everybody would wait. The child is started again when it died.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genba_llm.generation import BackendFailed, Feature, Piece, PromptTooLong, Task
from genba_llm.model_process import piece_of
from genba_shared.telemetry import get_logger

log = get_logger(__name__)
_PROGRAM = "genba_llm.model_process"


class ProcessModel:
    """One model in one child. Generations take turns. The child ends with this object, or with ``close``."""

    features: frozenset[Feature] = frozenset({"logprobs"})

    def __init__(self, folder: Path, *, name: str, calibration: float = 1.0, starts_hidden: bool = False) -> None:
        """Raises: ValueError for a folder whose model does not load, with the child's reason."""
        self.model, self.starts_hidden = name, starts_hidden
        self._command = [sys.executable, "-m", _PROGRAM, str(folder), name, repr(calibration)]
        self._turn = threading.Lock()
        self._child = self._start()

    def generate(self, task: Task) -> Iterator[Piece]:
        """See the seam."""
        with self._turn:
            child = self._alive()
            over = False
            try:
                for said in _asked(child, task):
                    if over := "over" in said:
                        return
                    if "too_long" in said:
                        raise PromptTooLong(said.pop("too_long"), **said)
                    if "failed" in said:
                        raise BackendFailed(said["failed"])
                    yield piece_of(said["piece"])
                _end(child)  # not only its output: the next question must find it dead
                raise BackendFailed("The language model's process ended.")
            finally:
                if not over and child.poll() is None:
                    _leave(child)

    def _alive(self) -> subprocess.Popen[str]:
        if self._child.poll() is not None:
            log.warning("model_process_restarted", model=self.model, status=self._child.returncode)
            self._finalizer()  # it died while nobody asked: its pipes are still open
            try:
                self._child = self._start()
            except ValueError as error:
                raise BackendFailed("The language model's process does not start again.") from error
        return self._child

    def _start(self) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        said = next(_heard(child), {"failed": "the process ended"})
        if "failed" in said:
            _end(child)
            raise ValueError(str(said["failed"]))
        self._finalizer = weakref.finalize(self, _end, child)
        return child

    def check(self) -> str | None:
        """A child that died is started again by the next question."""
        return None

    def close(self) -> None:
        self._finalizer()


def _tell(child: subprocess.Popen[str], document: dict[str, Any]) -> None:
    if child.stdin is None:  # it was opened as a pipe
        raise BrokenPipeError
    child.stdin.write(json.dumps(document) + "\n")
    child.stdin.flush()


def _asked(child: subprocess.Popen[str], task: Task) -> Iterator[dict[str, Any]]:
    """What the child says to a task; nothing if it is gone."""
    try:
        _tell(child, asdict(task))
    except BrokenPipeError:
        return
    yield from _heard(child)


def _heard(child: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    for line in child.stdout or ():
        yield json.loads(line)


def _leave(child: subprocess.Popen[str]) -> None:
    """Let a generation that nobody reads any more end, and pass over what it still says."""
    try:
        _tell(child, {"leave": True})
    except OSError:
        return
    for said in _heard(child):
        if "over" in said:
            return


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:
                continue
