"""A Chromium and an embedded API that every test of the console shares: a start costs seconds."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
SETTINGS = {
    "GENBA_TRAINING_RECIPES": '["genba_training.builtin:RECIPES", "genba_sop.training:RECIPES", "recipes_for_tests:RECIPES"]',
    "GENBA_TRAINING_HEARTBEAT_S": "0.2",
    "GENBA_TRAINING_EVENT_POLL_S": "0.1",
    "PYTHONPATH": str(Path(__file__).parents[1] / "training"),
}


@pytest.fixture(scope="session")
def genba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Embedded mode as ``genba up`` starts it: its url and the admin key of the first start."""
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "genba_gateway", "up", "--home", str(home), "--port", str(port)]
    env = {**os.environ, **SETTINGS}
    with (home / "log").open("w") as log, subprocess.Popen(argv, stdout=log, stderr=log, env=env) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_ready(url, process, home / "log")
            yield url, (home / "admin.key").read_text().strip()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    with httpx.Client(trust_env=False) as client:  # one: making it takes longer than asking
        for _ in range(600):
            if process.poll() is not None:
                break
            try:
                if client.get(f"{url}/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    pytest.fail(f"genba up did not become ready:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for a module, and not for the session: while its driver runs, nothing else can run an event loop in this thread."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, genba: tuple[str, str]) -> Iterator[Page]:
    """A person's own: nothing is stored in it that another one stored."""
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.set_default_timeout(90_000)  # only ends a test that is broken; a loaded machine is slow
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{genba[0]}/console")
    yield page
    context.close()
    assert errors == []
