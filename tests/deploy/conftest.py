"""Processes of Genba whose metrics can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from tests.e2e.world import START_WITHIN_S, free_port, started, until, user

from genba_gateway.keys import Keys
from genba_shared.db import Database


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """``/metrics`` of embedded mode, which holds every service, and of a worker, after some traffic. By process."""
    home = tmp_path_factory.mktemp("live")
    api, worker = free_port(), free_port()
    settings = {"GENBA_HOME": str(home), "GENBA_TRAINING_OPERATIONS_PORT": str(worker)}
    key = _first_key(home)
    with (
        started("run", "embedded", "--port", str(api), log_file=home / "api.log", settings=settings),
        started("run", "worker", log_file=home / "worker.log", settings=settings),
        httpx.Client(trust_env=False, timeout=60) as client,  # one: making it takes longer than asking
    ):
        for port in (api, worker):
            until(lambda port=port: _is_ready(client, port), within_s=START_WITHIN_S, what="a start")  # type: ignore[misc]
        with user(f"http://127.0.0.1:{api}", key) as admin:
            for path in ("/v1/jobs", "/v1/recipes", "/v1/sop/procedures", "/v1/nothing"):
                admin.get(path)
            admin.done(admin.post("/v1/jobs", {"recipe": "platform.verify_audit"}, key="metrics").json()["id"])
        yield {
            name: client.get(f"http://127.0.0.1:{port}/metrics").text
            for name, port in (("embedded", api), ("worker", worker))
        }


def _first_key(home: Path) -> str:
    database = Database(f"sqlite:///{home}/genba.db")
    database.upgrade()
    key = Keys(database, env="dev").create("admin", role="admin", clearance="secret")[1]
    database.close()
    return key


def _is_ready(client: httpx.Client, port: int) -> bool:
    try:
        return client.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    except httpx.HTTPError:
        return False
