"""Running processes of Genba and the people who use them. What a test starts here is gone when its block ends."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest
import yaml

from genba_gateway import cli
from genba_gateway.keys import Keys
from genba_shared import commands
from genba_shared.db import Database
from genba_shared.settings import Platform

START_WITHIN_S = 240.0
STOP_WITHIN_S = 60.0
T = TypeVar("T")
Json = dict[str, Any]
_numbers = itertools.count()


def until(look: Callable[[], T], *, within_s: float = 60.0, every_s: float = 0.02, what: str = "it") -> T:
    """The first true thing that ``look`` gives. Raises: AssertionError when there is none in time."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s:g} s"
        time.sleep(every_s)
    return found


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with ``settings`` in place of a developer's own GENBA_… variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GENBA_")}
    return {**kept, "COLUMNS": "300", "NO_COLOR": "1", **settings}


@dataclass
class Process:
    """A ``genba …`` process and its log."""

    popen: subprocess.Popen[bytes]
    log_file: Path
    family: set[psutil.Process] = field(default_factory=set)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def events(self, name: str) -> list[Json]:
        """The log's lines that tell of ``name``."""
        lines = [line for line in self.log.splitlines() if line.startswith("{") and f'"{name}"' in line]
        return [event for line in lines if (event := json.loads(line)).get("event") == name]

    def pid_of(self, program: str) -> int:
        """The pid with which the supervisor started a program last."""
        return [int(event["pid"]) for event in self.events("program_started") if event["program"] == program][-1]

    def note_family(self) -> None:
        """Remember every process below this one, to see later that they are gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            this = psutil.Process(self.popen.pid)
            self.family |= {this, *this.children(recursive=True)}

    def terminate(self) -> int:
        """Ask for a drain and wait for the exit code."""
        self.note_family()
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(STOP_WITHIN_S)

    def left_behind(self) -> list[psutil.Process]:
        """Processes of the family that still run, given a moment to end."""
        _gone, alive = psutil.wait_procs(self.family, timeout=15)
        return alive


@contextlib.contextmanager
def started(*arguments: str, log_file: Path, settings: Mapping[str, str]) -> Iterator[Process]:
    """``genba …`` until the block ends; then it is drained, and killed with its children if it does not obey."""
    argv = (sys.executable, "-m", "genba_gateway", *arguments)
    with log_file.open("ab") as log:
        popen = subprocess.Popen(argv, stdout=log, stderr=log, env=environment(settings), start_new_session=True)
    process = Process(popen, log_file)
    try:
        yield process
    finally:
        process.note_family()
        try:
            if popen.poll() is None:
                process.terminate()
        finally:
            for each in process.family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            popen.wait()


@dataclass
class Genba:
    """A running embedded mode."""

    process: Process
    home: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_key(self) -> str:
        return (self.home / "admin.key").read_text().strip()

    def kill(self, program: str) -> int:
        """``kill -9`` of a supervised process; its pid."""
        pid = self.process.pid_of(program)
        self.process.note_family()
        psutil.Process(pid).kill()
        return pid

    def wait_for_restart(self, program: str, old_pid: int) -> None:
        """Until the supervisor has a new one and the API answers."""
        until(lambda: self.process.pid_of(program) != old_pid, what=f"the restart of {program}")
        until(self._is_ready, within_s=START_WITHIN_S, what="readiness")

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/ready", trust_env=False, timeout=5).status_code == 200
        return False

    def new_key(self, role: str, **rights: Any) -> str:
        """A key made at the database, as ``genba keys`` makes them."""
        database = Database(Platform(home=self.home).database_url)
        try:
            return Keys(database, env="dev").create(f"a {role}", role=role, **rights)[1]
        finally:
            database.close()


@contextlib.contextmanager
def up(home: Path, *, settings: Mapping[str, str], until_logged: str = "Genba is up") -> Iterator[Genba]:
    """``genba up`` until the block ends."""
    port = free_port()
    arguments = ("up", "--home", str(home), "--port", str(port))
    with started(*arguments, log_file=home.with_suffix(".log"), settings=settings) as process:
        seen = process.log.count(until_logged)

        def is_up() -> bool:
            assert process.popen.poll() is None, process.log
            return process.log.count(until_logged) > seen

        until(is_up, within_s=START_WITHIN_S, what="the start")
        yield Genba(process, home, port)


@dataclass(frozen=True)
class User:
    """Somebody with a key."""

    http: httpx.Client

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def post(self, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
        return self.http.post(path, json=body, headers={"idempotency-key": key} if key else None)

    def upload(self, path: Path) -> httpx.Response:
        """As a web application would: a form with a file."""
        with path.open("rb") as file:
            return self.http.post("/v1/sop/videos", files={"file": (path.name, file, "video/mp4")})

    def video(self, path: Path) -> str:
        answer = self.upload(path)
        assert answer.status_code in {200, 201}, answer.text
        return str(answer.json()["id"])

    def procedure(self, steps_path: Path) -> str:
        """A steps file with its golds."""
        document = yaml.safe_load(steps_path.read_text(encoding="utf-8"))
        golds = [{**gold, "video": self.video(steps_path.parent / gold["video"])} for gold in document["golds"]]
        answer = self.post("/v1/sop/procedures", {**document, "golds": golds})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def evaluate(self, procedure_id: str, video_id: str, *, key: str | None = None) -> httpx.Response:
        body = {"procedure_id": procedure_id, "video_id": video_id}
        return self.post("/v1/sop/evaluations", body, key=key or fresh_key())

    def listed(self, path: str, **params: str) -> list[Json]:
        """Every record of a list, over all pages."""
        items: list[Json] = []
        cursor: str | None = None
        while True:
            page = self.get(path, params={**params, "limit": "200", **({"cursor": cursor} if cursor else {})}).json()
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items

    def job(self, job_id: str) -> Json:
        """A job as it stands; empty while nobody answers."""
        try:
            answer = self.get(f"/v1/jobs/{job_id}")
        except httpx.HTTPError:
            return {}
        document: Json = answer.json() if answer.status_code == 200 else {}
        return document

    def done(self, job_id: str, *, within_s: float = 90.0) -> Json:
        """The job when it is over."""
        over = {"succeeded", "failed", "dead", "cancelled"}
        until(lambda: self.job(job_id).get("status") in over, within_s=within_s, what="the job")
        return self.job(job_id)


def fresh_key() -> str:
    """An Idempotency-Key that nobody has used."""
    return f"key-{os.getpid()}-{next(_numbers)}"


@contextlib.contextmanager
def user(url: str, key: str | None) -> Iterator[User]:
    """Somebody who speaks to ``url``; without a key, anybody."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=url, headers=headers, timeout=120.0, trust_env=False) as client:
        yield User(client)


class HalfUpload:
    """An upload of which the first half has been sent."""

    def __init__(self, port: int, key: str, body: bytes) -> None:
        self._rest = body[len(body) // 2 :]
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        head = (
            f"POST /v1/sop/videos HTTP/1.1\r\nHost: genba.test\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: video/mp4\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body[: len(body) // 2])

    def finish(self) -> int:
        """Send the rest; the answer's status."""
        self._socket.sendall(self._rest)
        return self.status()

    def status(self) -> int:
        """The status of the answer; 0 when the connection ended without one."""
        with self._socket, contextlib.suppress(ConnectionError):
            line = self._socket.makefile("rb").readline()
            return int(line.split()[1]) if line else 0
        return 0


def problem(answer: httpx.Response, status: int) -> Json:
    """The problem document of a refusal: with its request id, and without anything of our insides."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: Json = answer.json()
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return document


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


def here(*arguments: str | Path, settings: Mapping[str, str]) -> Said:
    """``genba …`` in this process, for what a command says and does: a process of its own takes longer than most of them."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        for name, value in {"COLUMNS": "300", "NO_COLOR": "1", **settings}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["genba", *map(str, arguments)])
        for console in (cli.out, cli.err, commands.out, commands.err):
            patch.setattr(console, "width", 300)  # it was told another one when it was made: xdist sets COLUMNS
        patch.setattr(cli.app, "registered_groups", [])  # ``main`` adds them
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return Said(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Shell:
    """Runs ``genba <command> …`` against a running Genba; ``argv`` and ``env`` are for who wants a process."""

    genba: Genba
    command: str

    def argv(self, *arguments: str) -> Sequence[str]:
        return [sys.executable, "-m", "genba_gateway", self.command, *arguments]

    @property
    def env(self) -> dict[str, str]:
        return {**environment({}), "GENBA_URL": self.genba.url, "GENBA_API_KEY": self.genba.admin_key}

    def __call__(self, *arguments: str) -> Said:
        return here(
            self.command, *arguments, settings={"GENBA_URL": self.genba.url, "GENBA_API_KEY": self.genba.admin_key}
        )

    def json(self, *arguments: str) -> Any:
        said = self(*arguments)
        assert said.code == 0, said.err
        return json.loads(said.out)
