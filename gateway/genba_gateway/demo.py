"""``genba demo``: start embedded mode as a user would, then let each service tell its main story through the gateway.

A service brings its story through the entry points ``genba.demos``: a function ``(client, folder, console) -> bool`` that says
whether what it planted was found. This module knows how to start, wait and stop, and nothing of any story.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

import httpx
from rich.console import Console

from genba_gateway.cli import Failed
from genba_gateway.home import only_one

START_WITHIN_S = 90.0
REQUEST_WITHIN_S = 300.0
ASK_AGAIN = 20
_MARK = "made-by-demo"


def run(folder: Path, *, console: Console) -> int:
    """Tell every story; 0 when each found what it planted, else 1."""
    folder.mkdir(parents=True, exist_ok=True)
    stories = sorted(entry_points(group="genba.demos"), key=lambda entry: entry.name)
    with _embedded(folder, console) as client:
        told = {entry.name: bool(entry.load()(client, folder / entry.name, console)) for entry in stories}
    for name, found in told.items():
        console.print(
            f"{name}: [bold]{'what was planted was found' if found else '[red]something planted was missed[/]'}[/]"
        )
    return 0 if told and all(told.values()) else 1


class Patient(httpx.HTTPTransport):
    """Asks again when the server says when: a story is one caller in a hurry, and the limits of callers hold for it too."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, after at most twenty that said 429 or 503."""
        request.read()  # so that it can be sent again
        for _ in range(ASK_AGAIN):
            response = super().handle_request(request)
            if response.status_code not in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}:
                return response
            response.close()
            time.sleep(max(0.05, float(response.headers.get("retry-after", "1"))))
        return super().handle_request(request)


@contextmanager
def _embedded(folder: Path, console: Console) -> Iterator[httpx.Client]:
    """Embedded mode on a free port, with its data in the demo's folder and its log beside it; stopped by SIGTERM as a user would."""
    home, log_file, port = fresh_home(folder), folder / "genba.log", _free_port()
    url = f"http://127.0.0.1:{port}"
    console.print(f"Starting Genba at {url} (log: {log_file})", highlight=False)
    argv = (sys.executable, "-m", "genba_gateway", "up", "--home", str(home), "--port", str(port))
    with log_file.open("w") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            _wait_until_up(process, log_file)
            key = (home / "admin.key").read_text().strip()
            headers = {"authorization": f"Bearer {key}"}
            with httpx.Client(base_url=url, headers=headers, timeout=REQUEST_WITHIN_S, transport=Patient()) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def fresh_home(folder: Path) -> Path:
    """An empty home in the demo's folder, for stories begin at the beginning; what an earlier demo left there goes.

    Raises: Failed for a home that no demo made, or that is in use.
    """
    home = folder / "home"
    if home.exists() and any(home.iterdir()):
        if not (home / _MARK).exists():
            raise Failed(f"{home} was not made by a demo: name another folder with --folder, or move it away.")
        with only_one(home):
            shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / _MARK).touch()
    return home


def _wait_until_up(process: subprocess.Popen[bytes], log_file: Path) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while "Genba is up" not in log_file.read_text():
        if process.poll() is not None:
            raise Failed(
                f"Genba ended with exit code {process.returncode} before it was up; see {log_file}.", exit_code=1
            )
        if time.monotonic() > deadline:
            raise Failed(f"Genba was not up within {START_WITHIN_S:g} s; see {log_file}.", exit_code=1)
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
