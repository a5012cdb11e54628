"""``recommend.federated`` under Flower's engine, as a job: from params to a version, stopped, killed, and without Flower."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.recommend.model_world import Trained
from tests.recommend.test_flower import children_of, members, needs_flower

SITES = 2
LONG = {"sites": SITES, "rounds": 100, "share": 1.0, "steps": 1_000, "processes": True, "engine": "flwr"}


@needs_flower
def test_flower_learns_the_champion_further_and_the_version_serves(trained: Trained) -> None:
    job = trained.run("recommend.federated", sites=3, rounds=2, share=1.0, steps=3, engine="flwr")
    assert job.status == "succeeded", job.error
    assert job.result["value"] == {"from_version": 1, "sites": 3, "rounds": 2, "engine": "flwr"}
    service = trained.service
    one, two = (service.shop.load_version(number).loaded for number in (1, 2))
    assert two.metrics["received_bytes"] > 0
    assert one.vectors.shape == two.vectors.shape
    service.recommend.registry.promote(service.shop.model, 2, by="test", reason="learnt at sites", gates="overridden")
    trained.take_up()
    assert service.list(trained.world.user_id(0))["model_version"] == 2


def until(found: Callable[[], list[int]]) -> list[int]:
    """What ``found`` gives once it is not empty; how long that takes is not looked at."""
    for _ in range(9_000):
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError("Fifteen minutes, and nothing.")


def simulation_below(worker: int) -> list[int]:
    """The leader of the simulation's process group, once its sites are there."""
    below, leaders = [worker], list[int]()
    while below:
        parent = below.pop()
        with contextlib.suppress(FileNotFoundError):
            below += children_of(parent)
        leaders += [parent] if parent != worker and parent in members(parent) else []
    return [leader for leader in leaders if len(members(leader)) > SITES]


@needs_flower
@pytest.mark.long
def test_a_cancelled_simulation_ends_in_the_middle_of_a_round_and_leaves_no_process(trained: Trained) -> None:
    job_id = trained.submit("recommend.federated", **LONG)
    with trained.worker(job_id) as worker:
        [leader] = until(lambda: simulation_below(worker.pid))
        trained.runner.jobs.cancel(job_id, principal=trained.principal)
        until(lambda: [1] if not members(leader) else [])
        until(lambda: [1] if trained.runner.jobs.peek(job_id).status == "cancelled" else [])  # type: ignore[union-attr]


@needs_flower
@pytest.mark.long
def test_a_worker_killed_in_the_middle_of_a_round_leaves_no_process_and_another_finishes(trained: Trained) -> None:
    job_id = trained.submit("recommend.federated", **{**LONG, "rounds": 1, "steps": 200})
    with trained.worker(job_id) as worker:
        [leader] = until(lambda: simulation_below(worker.pid))
        os.killpg(worker.pid, signal.SIGKILL)  # of which the simulation is no member
        until(lambda: [1] if not members(leader) else [])
    assert trained.again().status == "succeeded"


def test_a_worker_without_flower_fails_the_job_at_once_and_says_what_installs_it(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for python, why in ((tmp_path / "python", "is missing"), (Path(sys.executable), "No module named 'flwr'")):
        monkeypatch.setenv("GENBA_RECOMMEND_FLOWER_PYTHON", str(python))
        job = trained.run("recommend.federated", sites=2, rounds=1, engine="flwr")
        assert (job.status, job.attempt) == ("failed", 1)
        assert why in job.error["detail"]
        assert "deploy/setup.sh flower" in job.error["detail"]
    assert len(trained.service.recommend.registry.versions(trained.service.shop.model)) == 1
