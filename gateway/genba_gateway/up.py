"""``genba up``: the API and a worker as processes of their own, and what a person is told of them. Loads neither, only starts them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from rich.console import Console

from genba_gateway.cli import Failed
from genba_gateway.home import admin_key_file, first_admin_key, only_one, platform_at
from genba_gateway.settings import Settings
from genba_gateway.supervisor import DRAIN_S, Program, StartFailed, Supervisor
from genba_shared.settings import Platform
from genba_shared.telemetry import configure_logging
from genba_training import worker_ready


def up(home: Path | None, *, host: str, port: int, console: Console) -> None:
    """Supervise the API and a worker until SIGTERM or Ctrl-C. Raises Failed with one line that says what to do."""
    platform = platform_at(home)
    configure_logging(level=platform.log_level, log_format=platform.log_format)
    with _private(), only_one(platform.home):
        if not _free(host, port):
            raise Failed(f"{host}:{port} is in use; choose another with --port.")
        first_key = first_admin_key(platform)
        url, own = addresses(Settings(platform=platform), host, port)
        try:
            asyncio.run(
                _supervise(platform, host, port, url=own, on_ready=lambda: _greet(console, platform, url, first_key))
            )
        except StartFailed as failure:
            raise Failed(str(failure), exit_code=1) from failure


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """Files of this process, and of those that it starts, are its owner's alone: a home that was there may be open to all."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


async def _supervise(platform: Platform, host: str, port: int, *, url: str, on_ready: Callable[[], None]) -> None:
    this = (sys.executable, "-m", "genba_gateway", "run")
    env = {"GENBA_HOME": str(platform.home.resolve())}
    # Its own child on this machine, asked without a key: the certificate is in another name.
    async with httpx.AsyncClient(base_url=url, timeout=2.0, trust_env=False, verify=False) as client:  # noqa: S501

        async def api_ready() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return (await client.get("/ready")).status_code == 200
            return False

        async def worker_takes_jobs() -> bool:
            return await asyncio.to_thread(worker_ready.is_ready, platform)

        programs = (
            Program("api", (*this, "embedded", "--host", host, "--port", str(port)), api_ready, env),
            Program("worker", (*this, "worker", "--host", host, "--queues", "cpu,gpu"), worker_takes_jobs, env),
        )
        await Supervisor(programs, drain_s=DRAIN_S, on_ready=on_ready).run()


def _greet(console: Console, platform: Platform, url: str, first_key: Path | None) -> None:
    console.print(
        f"[bold green]Genba is up[/] at {url} · API: {url}/docs · data: {platform.home}",
        highlight=False,
        soft_wrap=True,
    )
    if first_key is not None:
        console.print(
            f"An admin key was made for you: {first_key} (readable by you only). Use it like this:", highlight=False
        )
    key_file = first_key or admin_key_file(platform)
    if key_file.exists():
        console.print(
            f'  export GENBA_URL={url} GENBA_API_KEY="$(cat {shlex.quote(str(key_file))})"',
            highlight=False,
            soft_wrap=True,
        )
        console.print(
            '  curl -H "Authorization: Bearer $GENBA_API_KEY" $GENBA_URL/v1/whoami', highlight=False, soft_wrap=True
        )
    console.print("Stop with Ctrl-C: what is in hand is finished first.", highlight=False, soft_wrap=True)


def _free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def addresses(settings: Settings, host: str, port: int) -> tuple[str, str]:
    """Where people find it, and where this machine asks whether it is ready."""
    scheme = "http" if settings.tls is None else "https"
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what a person may have asked for
    named, reachable = (f"[{name}]" if ":" in name else name for name in (host, here))
    return f"{scheme}://{named}:{port}", f"{scheme}://{reachable}:{settings.operations_port or port}"
