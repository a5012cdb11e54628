"""What jobs_chaos.py and plain_celery.py kill: servers of their own and programs that come back, as under a service manager.

Nothing here touches a server that was there before: Redis and Postgres are started on free ports, in a temporary folder,
as a user without rights, and are gone when the block ends.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_COMES_BACK_AFTER_S = 0.2
_LOOK_S = 0.05


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Program:
    """A process that is started again whenever it is gone. ``kills`` are the moments (epoch seconds) of its -9s."""

    name: str
    argv: Sequence[str]
    log_file: Path
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    answers: Callable[[], bool] = lambda: True
    kills: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.popen: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_alive, name=f"keep-{self.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self.wait()

    def wait(self, within_s: float = 120.0) -> None:
        """Until it runs and answers. Raises: TimeoutError."""
        ends_s = time.monotonic() + within_s
        while not (self.popen is not None and self.popen.poll() is None and self.answers()):
            if time.monotonic() > ends_s:
                raise TimeoutError(f"{self.name} does not come up: {self.log_file.read_text(errors='replace')[-2000:]}")
            time.sleep(_LOOK_S)

    def kill(self, pid: int | None = None) -> bool:
        """-9 to the process, or to ``pid``, a child of it. False when there is nothing to kill."""
        with self._lock:
            victim = self.popen.pid if pid is None and self.popen is not None else pid
            if victim is None or self.popen is None or self.popen.poll() is not None:
                return False
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                self.kills.append(time.time())
                return True
        return False

    def children(self) -> set[int]:
        with suppress(psutil.NoSuchProcess):
            if self.popen is not None:
                return {child.pid for child in psutil.Process(self.popen.pid).children(recursive=True)}
        return set()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        if self.popen is not None and self.popen.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()

    def _keep_alive(self) -> None:
        while not self._over.is_set():
            if self.popen is None or self.popen.poll() is not None:
                if self.popen is not None:
                    self._over.wait(_COMES_BACK_AFTER_S)
                with self._lock, self.log_file.open("ab") as log:
                    self.popen = subprocess.Popen(
                        self.argv, env={**os.environ, **self.env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                        start_new_session=True, user=self.user, extra_groups=[] if self.user else None,
                    )  # fmt: skip
            self._over.wait(_LOOK_S)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
        return True
    return False


def redis_server(folder: Path) -> tuple[Program, str]:
    """A Redis without persistence: a -9 takes every message with it. The program and its url."""
    port = free_port()
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    argv += ["--dir", str(folder)]
    return Program("redis", argv, folder / "redis.log", answers=lambda: _listens(port)), f"redis://127.0.0.1:{port}/0"


def postgres_server(folder: Path) -> tuple[Program, str]:
    """A Postgres with its default durability, run by a user without rights. The program and its url."""
    home = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda found: int(found.parent.name))
    binaries = home if home is not None else Path(shutil.which("postgres") or "/nowhere/postgres").parent
    user = None if os.geteuid() else next(name for name in ("postgres", "nobody") if _is_user(name))
    data, port = folder / "postgres", free_port()
    data.mkdir(mode=0o700)
    if user:
        shutil.chown(data, user)
        folder.chmod(0o755)
    subprocess.run(
        [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True, stdout=subprocess.DEVNULL, user=user, extra_groups=[] if user else None,
    )  # fmt: skip
    argv = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(data)]
    argv += ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c", "log_min_messages=panic"]

    def answers() -> bool:
        asked = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        return subprocess.run(asked, check=False).returncode == 0

    program = Program("postgres", argv, folder / "postgres.log", user=user, answers=answers)
    return program, f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@contextmanager
def running(*programs: Program) -> Iterator[None]:
    """All of them until the block ends, started in this order and stopped in the other."""
    started: list[Program] = []
    try:
        for program in programs:
            started.append(program)
            program.start()
        yield
    finally:
        for program in reversed(started):
            program.stop()
