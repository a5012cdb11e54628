"""The address at which the Model Context Protocol is spoken. Knows no tool and, until somebody calls, no SDK.

Loading the SDK takes as long as loading half of this service, and many installations never call it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import anyio
from anyio.abc import TaskGroup, TaskStatus
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from genba_llm.service import Llm
from genba_shared.problems import Unavailable

PATH = "/v1/llm/mcp"


class McpEndpoint:
    """An ASGI application, so that starlette hands over the raw request."""

    def __init__(self) -> None:
        self._tools: _Tools | None = None

    def mount(self, app: FastAPI) -> None:
        """Add the endpoint. Only POST: without sessions there is nothing to listen to or to end."""
        app.router.routes.append(Route(PATH, endpoint=self, methods=["POST"], include_in_schema=False))

    @contextlib.asynccontextmanager
    async def running(self, llm: Llm) -> AsyncIterator[None]:
        """Serve while the block runs."""
        async with anyio.create_task_group() as group:
            self._tools = _Tools(llm, group)
            yield
            self._tools = None
            group.cancel_scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._tools is None:
            raise Unavailable("The tools are not up yet.", retry_after_s=1)
        await (await self._tools.app())(scope, receive, send)


class _Tools:
    """The SDK's server, started by the first caller in a task of its own: what it opens must be closed where it was opened."""

    def __init__(self, llm: Llm, group: TaskGroup) -> None:
        self._llm, self._group = llm, group
        self._first = anyio.Lock()
        self._app: ASGIApp | None = None

    async def app(self) -> ASGIApp:
        async with self._first:
            if self._app is None:
                self._app = await self._group.start(self._serve)
            return self._app

    async def _serve(self, *, task_status: TaskStatus[ASGIApp]) -> None:
        serving = await run_in_threadpool(_load)
        async with serving(self._llm) as app:
            task_status.started(app)
            await anyio.sleep_forever()


def _load() -> Callable[[Llm], AbstractAsyncContextManager[ASGIApp]]:
    from genba_llm.mcp_server import serving

    return serving
