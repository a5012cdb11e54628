"""Serve the gateway with uvicorn: its own listener, and a shutdown that fails nobody.

On SIGTERM readiness goes off and answers ask clients to close; after ``drain_notice_s`` the listening socket closes, requests in
work are finished, then the process exits. A second signal does not wait.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import math
import os
import socket
import ssl
import struct
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from genba_gateway.app import Gateway
from genba_gateway.listener import listener_for
from genba_shared.telemetry import get_logger
from genba_shared.tls import Tls

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger(__name__)

_SO_ATTACH_FILTER = 26
# Classic BPF on the TCP header: (operation, jump if true, jump if false, operand).
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x45, 0, 1, 0x02),  # is SYN set?
    (0x06, 0, 0, 0),  # yes: drop
    (0x06, 0, 0, 0xFFFFFFFF),  # no: pass
)
_CERTIFICATE_TICKS = 300
_LAST_S = 5  # beyond the notice and the drain, for what shuts down after them
_DOORWAY_S = 0.1  # for what the kernel has accepted to be accepted by us


class Server(uvicorn.Server):
    """uvicorn's server, with a notice before it closes the door, and an eye on its certificate."""

    def __init__(
        self, config: uvicorn.Config, *, on_drain: Callable[[], None], notice_s: float, tls: Tls | None = None
    ) -> None:
        super().__init__(config)
        self._on_drain = on_drain
        self._tls, self._shown = tls, None if tls is None else tls.changed_at
        self._notice_ticks = math.ceil(notice_s * 10)  # uvicorn ticks ten times a second
        self._is_draining = False
        self._last_s = notice_s + (config.timeout_graceful_shutdown or 0) + _LAST_S

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the drain; the second ends it. A process that hangs does not outlive it: its stacks are its last words.

        A supervisor or Kubernetes would kill it, but whoever lost its supervisor has nobody.
        """
        faulthandler.dump_traceback_later(self._last_s, exit=True)
        if self._is_draining:
            super().handle_exit(sig, frame)
            self.force_exit = True
        self.drain()
        if sig not in self._captured_signals:
            self._captured_signals.append(sig)

    def drain(self) -> None:
        """Begin to shut down."""
        self._is_draining = True

    async def on_tick(self, counter: int) -> bool:
        """Count the notice down; every half minute, see whether the certificate was renewed."""
        if counter % _CERTIFICATE_TICKS == 0:
            self.renew_certificate()
        if self._is_draining and not self.should_exit:
            self._on_drain()
            self.should_exit = self._notice_ticks <= 0
            self._notice_ticks -= 1
        return await super().on_tick(counter)

    def renew_certificate(self) -> None:
        """Show newcomers what is on the disk now; what is half written or does not fit leaves the old one."""
        if self._tls is None or self.config.ssl is None:
            return
        try:
            changed_at = self._tls.changed_at
            if changed_at == self._shown:
                return
            self._tls.load_into(
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            )  # loading what does not fit would spoil the one in use
            self._tls.load_into(self.config.ssl)
        except OSError as error:  # ssl's errors are some
            log.warning("certificate_not_renewed", reason=str(error))
            return
        self._shown = changed_at
        log.info("certificate_renewed", file=str(self._tls.certificate_file))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door behind those who are in the doorway: closing a listening socket resets what it has not accepted yet."""
        for server in self.servers:
            for listening in server.sockets:
                with socket.socket(fileno=os.dup(listening.fileno())) as same:
                    _turn_newcomers_away(same)
        await asyncio.sleep(_DOORWAY_S)
        await super().shutdown(sockets)


def server_for(gateway: Gateway, *, host: str, port: int) -> Server:
    """A server that is not running yet."""
    settings = gateway.settings
    config = uvicorn.Config(
        gateway,
        host=host,
        port=port,
        http=listener_for(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=math.ceil(settings.resilience.drain_s),
        ssl_certfile=None if settings.tls is None else settings.tls.certificate_file,
        ssl_keyfile=None if settings.tls is None else settings.tls.key_file,
    )
    notice_s = settings.resilience.drain_notice_s
    return Server(config, on_drain=gateway.drain, notice_s=notice_s, tls=settings.tls)


def serve(gateway: Gateway, *, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; on a second port too, if the settings name one for operators."""
    operations_port = gateway.settings.operations_port
    server = server_for(gateway, host=host, port=port)
    if operations_port is None:
        server.run()
    else:
        server.run([listen(host, port), listen(host, operations_port)])


def _turn_newcomers_away(listening: socket.socket) -> None:
    """Let no handshake begin any more, and those that have begun end: a client whose first packet is lost tries again by itself.

    A backlog of zero alone still lets one connection in at a time, which the close would reset.
    """
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN)
    kept = ctypes.create_string_buffer(program)
    try:
        listening.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(_DROP_SYN), ctypes.addressof(kept))
        )
    except OSError:
        listening.listen(0)  # not Linux, or not allowed: nearly as good


def listen(host: str, port: int) -> socket.socket:
    """A bound socket that the server will listen on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    bound.setblocking(False)  # noqa: FBT003 - the socket's own signature
    return bound
