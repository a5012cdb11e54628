"""A service on a real socket, behind what stands for the gateway: it signs every request as one caller's."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn


@contextmanager
def signing(service: Any, headers: Mapping[str, str]) -> Iterator[str]:
    """Its address. Args: headers: of the caller, put on every request."""
    signed = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def gateway(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], *signed]}
        await service(scope, receive, send)

    running = uvicorn.Server(uvicorn.Config(gateway, host="127.0.0.1", port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        assert thread.is_alive(), "the server did not start"
        thread.join(0.01)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join()
