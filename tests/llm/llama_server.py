"""A real ``llama_cpp.server`` with a model of the test's own, in a process of its own; skips where the extra is not installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.llm.service.model_server import closed_port

NAME = "genba-gguf"
_STARTS_WITHIN_S = 120.0  # only ends a test that is broken


def need_llama() -> None:
    """Skip the test that asks, with what to install."""
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("the extra gguf is not installed: make gguf-test")


@contextmanager
def llama_serving(gguf: Path, *, n_ctx: int = 256) -> Iterator[str]:
    """The server's address up to ``/v1`` while it serves ``gguf``."""
    need_llama()
    port = closed_port()
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--model_alias", NAME]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", str(n_ctx), "--n_threads", "1"]
    command += ["--logits_all", "true"]  # without it llama-cpp-python refuses log-probabilities
    log = gguf.with_suffix(".log")
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            _wait(process, f"http://127.0.0.1:{port}/v1/models", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    gives_up_s = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < gives_up_s and process.poll() is None:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"llama_cpp.server did not start:\n{log.read_text(errors='replace')[-2000:]}")
