"""The supervisor keeps real processes running, starts them behind gates and drains them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from genba_gateway.supervisor import FIRST_PAUSE_S, LONGEST_PAUSE_S, Program, StartFailed, Supervisor, pause_s

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


SERVES = """
import pathlib, signal, sys, time
mine = pathlib.Path(sys.argv[1])
def leave(*_):
    mine.with_suffix(".drained").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
with mine.open("a") as file:
    file.write(f"{__import__('os').getpid()}\\n")
while True:
    time.sleep(0.02)
"""
STUBBORN = SERVES.replace('    mine.with_suffix(".drained").touch()\n    sys.exit(0)', "    pass")


def program(name: str, folder: Path, *, source: str = SERVES, ready_within_s: float = 10.0) -> Program:
    """A process that notes its pid in ``folder/name`` and is ready once it has."""
    started = folder / name

    async def ready() -> bool:
        return started.exists() and started.read_text() != ""

    return Program(name, (sys.executable, "-c", source, str(started)), ready, ready_within_s=ready_within_s)


def pids(folder: Path, name: str) -> list[int]:
    return [int(line) for line in (folder / name).read_text().split()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: object, *, within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def test_programs_start_in_order_and_drain_on_stop(tmp_path: Path) -> None:
    ready = asyncio.Event()
    supervisor = Supervisor((program("api", tmp_path), program("worker", tmp_path)), on_ready=ready.set)
    running = asyncio.create_task(supervisor.run())
    await asyncio.wait_for(ready.wait(), 20)
    assert (tmp_path / "api").stat().st_mtime_ns <= (tmp_path / "worker").stat().st_mtime_ns
    supervisor.stop()
    await asyncio.wait_for(running, 20)
    assert (tmp_path / "api.drained").exists()
    assert (tmp_path / "worker.drained").exists()


async def test_a_killed_program_comes_back_and_its_neighbour_is_left_alone(tmp_path: Path) -> None:
    ready = asyncio.Event()
    supervisor = Supervisor((program("api", tmp_path), program("worker", tmp_path)), on_ready=ready.set)
    running = asyncio.create_task(supervisor.run())
    await asyncio.wait_for(ready.wait(), 20)
    os.kill(pids(tmp_path, "worker")[0], signal.SIGKILL)
    await until(lambda: len(pids(tmp_path, "worker")) == 2)
    assert len(pids(tmp_path, "api")) == 1
    supervisor.stop()
    await asyncio.wait_for(running, 20)
    assert not any(alive(pid) for pid in pids(tmp_path, "worker"))


async def test_a_program_that_cannot_be_started_anew_is_tried_until_it_can(tmp_path: Path) -> None:
    ready, command = asyncio.Event(), tmp_path / "python"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    command.chmod(0o700)
    api = program("api", tmp_path)
    supervisor = Supervisor((replace(api, argv=(str(command), *api.argv[1:])),), on_ready=ready.set)
    running = asyncio.create_task(supervisor.run())
    await asyncio.wait_for(ready.wait(), 20)
    command.chmod(0o600)
    with capture_logs() as said:
        os.kill(pids(tmp_path, "api")[0], signal.SIGKILL)
        await until(lambda: [line for line in said if line["event"] == "program_not_started"])
    command.chmod(0o700)
    await until(lambda: len(pids(tmp_path, "api")) == 2)
    supervisor.stop()
    await asyncio.wait_for(running, 20)


async def test_a_program_that_ends_before_it_was_ready_stops_the_start(tmp_path: Path) -> None:
    dies = program("api", tmp_path, source="raise SystemExit(3)")
    supervisor = Supervisor((dies, program("worker", tmp_path)))
    with pytest.raises(StartFailed, match="api ended with exit code 3 before it was ready"):
        await asyncio.wait_for(supervisor.run(), 20)
    assert not (tmp_path / "worker").exists()


async def test_a_program_that_never_becomes_ready_stops_the_start_and_is_ended(tmp_path: Path) -> None:
    started = tmp_path / "api"

    async def never() -> bool:
        return False

    mute = Program("api", (sys.executable, "-c", SERVES, str(started)), never, ready_within_s=1.5)
    with pytest.raises(StartFailed, match="did not become ready"):
        await asyncio.wait_for(Supervisor((mute,)).run(), 20)
    assert not any(alive(pid) for pid in pids(tmp_path, "api"))


async def test_a_program_that_ignores_the_drain_is_killed(tmp_path: Path) -> None:
    ready = asyncio.Event()
    supervisor = Supervisor((program("api", tmp_path, source=STUBBORN),), drain_s=0.3, on_ready=ready.set)
    running = asyncio.create_task(supervisor.run())
    await asyncio.wait_for(ready.wait(), 20)
    supervisor.stop()
    await asyncio.wait_for(running, 20)
    assert not any(alive(pid) for pid in pids(tmp_path, "api"))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_programs_do_not_outlive_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "supervise.py"
    script.write_text(
        "import asyncio, sys\n"
        "from genba_gateway.supervisor import Program, Supervisor\n"
        "async def ready(): return True\n"
        f"asyncio.run(Supervisor((Program('api', (sys.executable, '-c', {SERVES!r}, {str(tmp_path / 'api')!r}), ready),)).run())\n"
    )
    supervisor = await asyncio.create_subprocess_exec(sys.executable, str(script))
    await until(lambda: (tmp_path / "api").exists() and pids(tmp_path, "api"))
    supervisor.kill()
    await supervisor.wait()
    await until((tmp_path / "api.drained").exists)


@pytest.mark.parametrize("failures", [1, 2, 5, 20])
def test_the_pause_grows_and_is_capped(failures: int) -> None:
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (failures - 1))
    assert longest / 2 <= pause_s(failures) <= longest
