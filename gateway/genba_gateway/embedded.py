"""Embedded mode: every service's application in one API process, one worker process, no server. The only importer of services.

Also the table of what ``genba run`` starts, because both are composition: which application, on which address, with which settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import httpx
import uvicorn
from rich.console import Console

from genba_gateway import app as gateway
from genba_gateway import settings as gateway_settings
from genba_gateway.app import Gateway
from genba_gateway.cli import Failed
from genba_gateway.home import admin_key_file, first_admin_key, migrate, only_one, platform_at
from genba_gateway.mounted import reason_of
from genba_gateway.server import serve
from genba_gateway.supervisor import Program, StartFailed, Supervisor
from genba_shared.settings import Platform
from genba_shared.telemetry import configure_logging

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAIN_S = 30


def _sop(platform: Platform) -> FastAPI:
    from genba_sop import app, settings

    return app.create_app(settings.Settings(platform=platform))


def _llm(platform: Platform) -> FastAPI:
    from genba_llm import app, settings

    return app.create_app(settings.Settings(platform=platform))


def _recommend(platform: Platform) -> FastAPI:
    from genba_recommend import app, settings

    return app.create_app(settings.Settings(platform=platform))


def _sem(platform: Platform) -> FastAPI:
    from genba_sem import app, settings

    return app.create_app(settings.Settings(platform=platform))


def _training(platform: Platform) -> FastAPI:
    from genba_training import app, settings

    return app.create_app(settings.Settings(platform=platform))


# Every service's application, by the name under which the gateway's route table knows it.
SERVICES: Mapping[str, Callable[[Platform], FastAPI]] = {
    "sop": _sop,
    "llm": _llm,
    "recommend": _recommend,
    "sem": _sem,
    "training": _training,
}


class Served:
    """A service's application that remembers why it did not start, so that this can be said last and in one line."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.not_started: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                self.not_started = reason_of(message)
            await send(message)

        await self._app(scope, receive, watched)


def create_app(platform: Platform) -> Gateway:
    """The gateway with every service mounted where its proxy would stand."""
    mounts = {name: make(platform) for name, make in SERVICES.items()}
    return gateway.create_app(gateway_settings.Settings(platform=platform), mounts=mounts)


def up(home: Path | None, *, host: str, port: int, console: Console) -> None:
    """Supervise the API and a worker until SIGTERM or Ctrl-C. Raises Failed with one line that says what to do."""
    platform = platform_at(home)
    configure_logging(level=platform.log_level, log_format=platform.log_format)
    with only_one(platform.home):
        if not _free(host, port):
            raise Failed(f"{host}:{port} is in use; choose another with --port.")
        first_key = first_admin_key(platform)
        scheme = "http" if gateway_settings.Settings(platform=platform).tls is None else "https"
        url = f"{scheme}://{host}:{port}"
        own = f"{scheme}://{_reachable(host)}:{port}"
        try:
            asyncio.run(
                _supervise(platform, host, port, url=own, on_ready=lambda: _greet(console, platform, url, first_key))
            )
        except StartFailed as failure:
            raise Failed(str(failure), exit_code=1) from failure


def run_service(service: str, *, host: str, port: int, queues: str) -> None:
    """Run one service in this process until SIGTERM, as a container does."""
    platform = platform_at(None)
    configure_logging(level=platform.log_level, log_format=platform.log_format)
    starts: dict[str, Callable[[], None]] = {
        **{name: partial(_serve_service, name, platform, host, port) for name in SERVICES},
        "worker": lambda: _run_worker(queues, host),
        "gateway": lambda: serve(_gateway(platform), host=host, port=port),
        "embedded": lambda: serve(create_app(platform), host=host, port=port),
    }
    if service not in starts:
        raise Failed(f"There is no service {service!r}; there are {', '.join(sorted(starts))}.")
    signal.signal(signal.SIGTERM, _leave)
    if service != "worker":
        migrate(platform).close()
    starts[service]()


def _leave(_signum: int, _frame: FrameType | None) -> None:
    """A drain that was asked for is no failure: uvicorn raises the signal again when it is done, and this makes it exit code 0."""
    sys.exit(0)


def _gateway(platform: Platform) -> Gateway:
    return gateway.create_app(gateway_settings.Settings(platform=platform))


def _serve_service(name: str, platform: Platform, host: str, port: int) -> None:
    service = Served(SERVICES[name](platform))
    try:
        uvicorn.run(
            service,
            host=host,
            port=port,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_S,
        )
    except SystemExit as ended:
        if service.not_started is None:
            raise
        raise Failed(f"The service {name} did not start: {service.not_started}", exit_code=1) from ended


def _run_worker(queues: str, host: str) -> None:
    from genba_training import worker

    worker.main(["--queues", queues, "--host", host])


async def _supervise(platform: Platform, host: str, port: int, *, url: str, on_ready: Callable[[], None]) -> None:
    this = (sys.executable, "-m", "genba_gateway", "run")
    env = {"GENBA_HOME": str(platform.home.resolve())}
    # Its own child on this machine, asked without a key: the certificate is in another name.
    async with httpx.AsyncClient(base_url=url, timeout=2.0, trust_env=False, verify=False) as client:  # noqa: S501

        async def api_ready() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return (await client.get("/ready")).status_code == 200
            return False

        async def worker_ready() -> bool:
            return await asyncio.to_thread(_worker_answers, platform)

        programs = (
            Program("api", (*this, "embedded", "--host", host, "--port", str(port)), api_ready, env),
            Program("worker", (*this, "worker", "--host", host, "--queues", "cpu,gpu"), worker_ready, env),
        )
        await Supervisor(programs, drain_s=DRAIN_S, on_ready=on_ready).run()


def _worker_answers(platform: Platform) -> bool:
    from genba_training import worker

    return worker.is_ready(platform)


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
        console.print(f'  export GENBA_URL={url} GENBA_API_KEY="$(cat {key_file})"', highlight=False, soft_wrap=True)
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


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - what a person may have asked for
