"""The host watch sees what really runs, listens and talks here, and says what is not on the list."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from genba_llm.host_watch import Allowed, Inventory, Violation, load_allowed, look, violations


def test_a_port_that_really_listens_and_this_program_are_seen() -> None:
    with socket.socket() as listening:
        listening.bind(("0.0.0.0", 0))  # noqa: S104 - beyond loopback is the point
        listening.listen()
        port = listening.getsockname()[1]
        seen = look()
        assert port in seen.ports
        assert psutil.Process().name() in seen.processes
        found = violations(seen, Allowed(ports=(), processes=("*",)))
        assert Violation("port", str(port)) in found
        assert not [each for each in found if each.kind == "process"]
    assert port not in look().ports


def test_loopback_is_nobodys_business() -> None:
    with socket.socket() as listening, socket.socket() as talking:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        talking.connect(listening.getsockname())
        seen = look()
        assert listening.getsockname()[1] not in seen.ports
        assert listening.getsockname() not in seen.connections


def test_what_is_not_on_the_list_is_named_once() -> None:
    seen = Inventory(
        ("nginx", "python3", "xmrig"), (443, 4444), (("10.0.0.5", 5432), ("198.51.100.7", 443)), complete=True
    )
    allowed = Allowed(processes=("python*", "nginx"), ports=(443,), connections=("10.0.0.0/8",))
    assert violations(seen, allowed) == [
        Violation("connection", "198.51.100.7:443"),
        Violation("port", "4444"),
        Violation("process", "xmrig"),
    ]
    assert violations(seen, Allowed()) == []


@pytest.mark.parametrize("text", ["processes: 3", "unknown: []", "[", "ports: [http]"])
def test_a_list_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "watch.yml").write_text(text)
    with pytest.raises(ValueError, match=r"is no list for the host watch") as told:
        load_allowed(tmp_path / "watch.yml")
    assert "\n" not in str(told.value)
    with pytest.raises(ValueError, match="host watch"):
        load_allowed(tmp_path / "absent.yml")
