"""A service in this process, as an ASGI application: what ``ReverseProxy`` is for a service in another one.

Runs the service's own lifespan, which mounting alone would not, and gives each request the state that the lifespan left.
The service's streams stay streams, because nothing stands between. Knows nothing of what the service does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from genba_gateway.headers import BODY_BYTES
from genba_shared.readiness import Readiness
from genba_shared.telemetry import get_logger

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = get_logger(__name__)


class StartFailed(RuntimeError):
    """A mounted service did not start."""


def reason_of(failed: Message) -> str:
    """Why an application did not start, in one line: frameworks send the whole traceback, whose last line says it."""
    lines = str(failed.get("message") or "").strip().splitlines()
    return lines[-1] if lines else "see the log"


class Mounted:
    """One service's application with its lifespan."""

    def __init__(self, service: str, app: ASGIApp) -> None:
        self.service = service
        self.app = app
        self._state: dict[str, Any] = {}
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._lifespan: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["state"] = dict(self._state)
        length = scope[BODY_BYTES]
        if length > 0:  # the server in front has already held the client to it
            scope["headers"].append((b"content-length", b"%d" % length))
        await self.app(scope, receive, send)

    def drain(self) -> None:
        """Let the application end what would go on for minutes, such as event streams."""
        readiness = getattr(getattr(self.app, "state", None), "readiness", None)
        if isinstance(readiness, Readiness):
            readiness.drain()

    async def start(self) -> None:
        """Run the application's start-up. Raises: StartFailed with its reason."""
        self._lifespan = asyncio.get_running_loop().create_task(self._run_lifespan())
        await self._to_app.put({"type": "lifespan.startup"})
        answer = await self._from_app.get()
        if answer["type"] == "lifespan.startup.failed":
            log.error("service_not_started", service=self.service, traceback=answer.get("message"))
            raise StartFailed(f"The service {self.service} did not start: {reason_of(answer)}")

    async def stop(self) -> None:
        """Run the application's shutdown; a failure is logged, because the others must stop too."""
        if self._lifespan is None or self._lifespan.done():
            return
        await self._to_app.put({"type": "lifespan.shutdown"})
        answer = await self._from_app.get()
        if answer["type"] == "lifespan.shutdown.failed":
            log.error("service_stop_failed", service=self.service, reason=answer.get("message"))
        await asyncio.gather(self._lifespan, return_exceptions=True)

    async def _run_lifespan(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self.app(scope, self._to_app.get, self._from_app.put)
        except Exception as error:  # noqa: BLE001 - an application without lifespan raises at once, which the specification allows
            log.debug("lifespan_ended", service=self.service, reason=repr(error))
        await self._from_app.put({"type": "lifespan.ended"})
