"""What runs, listens and talks on this host, held against a list of what may. Looks only; stops nothing.

The list is a YAML file: ``processes`` (names, ``*`` allowed), ``ports`` (that may listen beyond loopback), ``connections``
(destinations as for the egress guard). A part that is left out is not watched. Knows no database.
"""

from __future__ import annotations

import fnmatch
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genba_llm.egress import EgressGuard
from genba_shared import yaml_files

Finding = Literal["process", "port", "connection"]


class Allowed(BaseModel):
    """What may be there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    processes: tuple[str, ...] | None = Field(default=None, description="Names of programs; * stands for anything.")
    ports: tuple[int, ...] | None = Field(default=None, description="Ports that may listen beyond loopback.")
    connections: tuple[str, ...] | None = Field(default=None, description="Destinations: host, host:port or network.")


@dataclass(frozen=True, order=True)
class Violation:
    """Something that is not on the list."""

    kind: Finding
    what: str


@dataclass(frozen=True)
class Inventory:
    """What was there at one look."""

    processes: tuple[str, ...]
    ports: tuple[int, ...]
    connections: tuple[tuple[str, int], ...]
    complete: bool  # False: the operating system did not show everything to this user


def load_allowed(path: Path) -> Allowed:
    """Raises: ValueError with one line for a file that cannot be read or does not validate."""
    try:
        return Allowed.model_validate(yaml_files.load(path.read_text(encoding="utf-8")) or {})
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ValueError(f"{path} is no list for the host watch: {yaml_files.fault(error)}") from error


def look() -> Inventory:
    """One look at the host. Names of programs and numbers, never command lines: those hold secrets."""
    complete = True
    names = {str(process.info["name"] or "?") for process in psutil.process_iter(["name"])}
    ports: set[int] = set()
    connections: set[tuple[str, int]] = set()
    found: list[Any] = []
    try:
        found += psutil.net_connections(kind="inet")
    except psutil.AccessDenied:
        found += psutil.Process().net_connections(kind="inet")
        complete = False
    served = {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}  # their clients come in
    for each in found:
        if each.status == psutil.CONN_LISTEN or (each.type == socket.SOCK_DGRAM and not each.raddr):
            if each.laddr and not _is_loopback(each.laddr.ip):
                ports.add(each.laddr.port)
        elif each.raddr and each.laddr.port not in served:
            connections.add((each.raddr.ip, each.raddr.port))
    outgoing = sorted(peer for peer in connections if not _is_loopback(peer[0]))
    return Inventory(tuple(sorted(names)), tuple(sorted(ports)), tuple(outgoing), complete)


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in {"::1", "::ffff:127.0.0.1"}


def violations(seen: Inventory, allowed: Allowed) -> list[Violation]:
    """What of ``seen`` is not on the list."""
    found: list[Violation] = []
    if allowed.processes is not None:
        found += [Violation("process", name) for name in seen.processes if not _named(name, allowed.processes)]
    if allowed.ports is not None:
        found += [Violation("port", str(port)) for port in seen.ports if port not in allowed.ports]
    if allowed.connections is not None:
        guard = EgressGuard(allowed.connections)
        found += [
            Violation("connection", f"{host}:{port}")
            for host, port in seen.connections
            if not guard.permits(host, port)
        ]
    return sorted(set(found))


def _named(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)
