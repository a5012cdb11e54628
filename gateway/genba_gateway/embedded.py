"""Embedded mode: every service's application in one API process, one worker process, no server. The only importer of services.

Also the table of what ``genba run`` starts, because both are composition: which application, on which address, with which settings.
A process imports what it serves and nothing else: a worker no web framework, one service no other.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from genba_gateway.cli import Failed
from genba_gateway.home import migrate, platform_at
from genba_gateway.mounted import reason_of
from genba_gateway.supervisor import DRAIN_S
from genba_shared.settings import Platform
from genba_shared.telemetry import configure_logging

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from genba_gateway.app import Gateway


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
    mounts["recommend"].state.sop_app = mounts["sop"]  # an address elsewhere: GENBA_RECOMMEND_SOP_URL
    return _gateway(platform, mounts=mounts)


def run_service(service: str, *, host: str, port: int, queues: str) -> None:
    """Run one service in this process until SIGTERM, as a container does."""
    platform = platform_at(None)
    configure_logging(level=platform.log_level, log_format=platform.log_format)
    starts: dict[str, Callable[[], None]] = {
        **{name: partial(_serve_service, name, platform, host, port) for name in SERVICES},
        "worker": lambda: _run_worker(queues, host),
        "gateway": lambda: _serve_gateway(_gateway(platform), host, port),
        "embedded": lambda: _serve_gateway(create_app(platform), host, port),
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


def _gateway(platform: Platform, *, mounts: Mapping[str, FastAPI] | None = None) -> Gateway:
    from genba_gateway import app, settings

    return app.create_app(settings.Settings(platform=platform), mounts=mounts)


def _serve_gateway(app: Gateway, host: str, port: int) -> None:
    from genba_gateway.server import serve

    serve(app, host=host, port=port)


def _serve_service(name: str, platform: Platform, host: str, port: int) -> None:
    import uvicorn

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
