"""Nothing leaves the closed network: every outgoing connection is held against a list of destinations that may be reached.

``EgressGuard.transport`` guards this service's own HTTP clients. ``EgressGuard.enforce`` guards the whole process below
Python's socket module, whichever library connects; it cannot be lifted again, so it is for a process that runs this service
alone. A program started by the process is another process: containers need their network policy as well.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpx

from genba_shared.problems import Forbidden
from genba_shared.telemetry import get_logger

log = get_logger(__name__)
_DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "redis": 6379, "rediss": 6379, "s3": 443}


class EgressRefused(Forbidden):
    """This destination is not on the list of those that may be reached."""


class EgressGuard:
    """Destinations that may be reached: ``host``, ``host:port``, a network such as ``10.1.0.0/16``. Loopback always may."""

    def __init__(self, allowed: Iterable[str], *, on_refused: Callable[[str], None] = lambda _: None) -> None:
        """Raises: ValueError for an entry that cannot be read."""
        self._names: set[tuple[str, int | None]] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._resolved: set[tuple[str, int | None]] = set()
        self._on_refused = on_refused
        for entry in allowed:
            self._allow(entry.strip())

    def _allow(self, entry: str) -> None:
        if "/" in entry and "://" not in entry:
            self._networks.append(ipaddress.ip_network(entry, strict=False))
            return
        parts = urlsplit(entry if "://" in entry else f"//{entry}")
        if not parts.hostname:
            raise ValueError(f"{entry!r} names no destination: use host, host:port, a url or a network.")
        self._names.add((parts.hostname.lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme.partition("+")[0])))

    def permits(self, host: str, port: int | None) -> bool:
        """Whether ``host`` may be reached at ``port``. Never asks a name server."""
        name = host.lower().rstrip(".")
        if name == "localhost" or (name, port) in self._names or (name, None) in self._names:
            return True
        try:
            address = ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped or address
        return address.is_loopback or any(address in network for network in self._networks)

    def check(self, host: str, port: int | None) -> None:
        """Raises: EgressRefused."""
        if not self.permits(host, port):
            self._on_refused(host)
            log.warning("egress_refused", host=host, port=port)
            raise EgressRefused(f"{host}:{port} may not be reached from here: it is not in GENBA_LLM_EGRESS_ALLOWED.")

    def transport(self) -> httpx.BaseTransport:
        """For an ``httpx.Client``: follows no proxy of the environment and checks each request's destination."""
        return _Guarded(self, httpx.HTTPTransport(trust_env=False, retries=0))

    def enforce(self) -> None:
        """From now on no socket of this process connects elsewhere.

        A name that is allowed is resolved as ever, and what it stands for may be reached at the name's port.
        """
        resolve = socket.getaddrinfo

        def remember(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            found = resolve(host, port, *args, **kwargs)
            name = host.decode() if isinstance(host, bytes) else str(host)
            for *_, address in found:
                to, at = str(address[0]), int(address[1])
                if self.permits(name, at):
                    self._resolved.add((to, at))
            return found

        socket.getaddrinfo = remember
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
            address = arguments[1]
            if isinstance(address, tuple) and address:
                self._check_raw(str(address[0]), int(address[1]))
        elif event == "socket.getaddrinfo" and arguments[0] is not None:
            host = arguments[0].decode() if isinstance(arguments[0], bytes) else str(arguments[0])
            port = arguments[1] if isinstance(arguments[1], int) else None
            self._check_raw(host, port)

    def _check_raw(self, host: str, port: int | None) -> None:
        known = any(name == host.lower() for name, _ in self._names)
        if (host, port) in self._resolved:
            return
        if host not in {"", "0.0.0.0", "::"} and not self.permits(host, port) and not (port is None and known):  # noqa: S104 - no destination
            self._on_refused(host)
            raise PermissionError(f"Egress to {host}:{port} is refused.")


class _Guarded(httpx.BaseTransport):
    def __init__(self, guard: EgressGuard, inner: httpx.BaseTransport) -> None:
        self._guard, self._inner = guard, inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        default = _DEFAULT_PORTS.get(request.url.scheme)
        self._guard.check(request.url.host, request.url.port or default)
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()
