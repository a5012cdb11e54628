"""Keep the processes of embedded mode running: start in order behind health gates, restart with back-off, drain on SIGTERM.

Knows programs as command lines and nothing of what they do. POSIX only: children are told by the kernel when the supervisor dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger(__name__)

DRAIN_S = 30  # what every process of ours gets to finish what it has in hand
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
SETTLED_S = 60.0  # a child that ran this long starts again with the shortest pause
_PR_SET_PDEATHSIG = 1


class StartFailed(Exception):
    """A program ended or stayed unready before it had ever been ready: restarting would only repeat it."""


@dataclass(frozen=True)
class Program:
    """A command line and the question whether it is ready to work."""

    name: str
    argv: Sequence[str]
    ready: Callable[[], Awaitable[bool]]
    env: Mapping[str, str] = field(default_factory=dict)
    ready_within_s: float = 180.0


def pause_s(failures: int) -> float:
    """Seconds to wait before restart number ``failures`` (1, 2, …): exponential, capped, with full jitter on the upper half."""
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (failures - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads restarts, guards nothing


class Supervisor:
    """Runs programs until told to stop. ``on_ready`` is called once, when every program has passed its gate."""

    def __init__(
        self, programs: Sequence[Program], *, drain_s: float = DRAIN_S, on_ready: Callable[[], None] | None = None
    ) -> None:
        self._programs = programs
        self._drain_s = drain_s
        self._on_ready = on_ready
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Start everything, keep it running, return after a drain. Raises StartFailed when the first start fails."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        watchers: list[asyncio.Task[None]] = []
        try:
            for program in self._programs:
                process = await self._start_behind_gate(program)
                if self._stopping.is_set():
                    return
                watchers.append(asyncio.create_task(self._keep(program, process), name=program.name))
            if self._on_ready is not None:
                self._on_ready()
            await self._stopping.wait()
        finally:
            self._stopping.set()
            for watcher in watchers:
                watcher.cancel()
            await self._drain()
            await asyncio.gather(*watchers, return_exceptions=True)

    def stop(self) -> None:
        """Ask for a drain; safe to call twice (the second call changes nothing)."""
        if not self._stopping.is_set():
            log.info("supervisor_stopping", drain_s=self._drain_s)
            self._stopping.set()

    async def _start(self, program: Program) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *program.argv,
            env={**os.environ, **program.env},
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal reaches the supervisor alone, which then drains in order
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        self._running[program.name] = process
        log.info("program_started", program=program.name, pid=process.pid)
        return process

    async def _start_behind_gate(self, program: Program) -> asyncio.subprocess.Process:
        process = await self._start(program)
        if await self._becomes_ready(program, process) or self._stopping.is_set():
            return process
        if process.returncode is not None:
            raise StartFailed(
                f"{program.name} ended with exit code {process.returncode} before it was ready; the lines above say why."
            )
        raise StartFailed(f"{program.name} did not become ready within {program.ready_within_s:g} s; its log is above.")

    async def _becomes_ready(self, program: Program, process: asyncio.subprocess.Process) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(program.ready_within_s):
                while process.returncode is None and not self._stopping.is_set():
                    if await program.ready():
                        log.info("program_ready", program=program.name)
                        return True
                    await asyncio.sleep(0.1)
        return False

    async def _keep(self, program: Program, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started = loop.time()
            code = await process.wait()
            failures = 1 if loop.time() - started > SETTLED_S else failures + 1
            wait_s = pause_s(failures)
            log.error(
                "program_ended", program=program.name, exit_code=code, restart_in_s=round(wait_s, 2), failures=failures
            )
            await asyncio.sleep(wait_s)
            try:
                process = await self._start(program)
            except OSError as error:  # no memory or no descriptor for a moment: the one that ended is waited for again
                log.warning("program_not_started", program=program.name, error=str(error))
                continue
            if not await self._becomes_ready(program, process) and process.returncode is None:
                log.error("program_not_ready", program=program.name, within_s=program.ready_within_s)
                await _end(process, within_s=5.0)

    async def _drain(self) -> None:
        """Every program gets SIGTERM at once and ``drain_s`` to finish what it has in hand."""
        await asyncio.gather(*(_end(process, within_s=self._drain_s) for process in self._running.values()))
        log.info("supervisor_stopped")


async def _end(process: asyncio.subprocess.Process, *, within_s: float) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), within_s)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
