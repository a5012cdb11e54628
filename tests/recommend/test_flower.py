"""Flower's engine, in its own environment and process, averages what ours does, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.recommend.test_federated import ROUNDS, outset, split, trained

from genba_recommend.dataset import Dataset, Split
from genba_recommend.federated import Federated, FederatedConfig, NearSite, Round, SiteGone, federate, split_by_site
from genba_recommend.flower import FlowerFailed, FlowerMissing, federate_with_flower, python_of
from genba_recommend.training_loop import Trained

__all__ = ["split", "trained"]  # the world of test_federated.py
HERE = Path(sys.prefix) / "flower" / "bin" / "python"
needs_flower = pytest.mark.skipif(not HERE.exists(), reason="needs Flower's environment: make flower-test")


@pytest.fixture(scope="module")
def parts(split: Split) -> list[Dataset]:
    return split_by_site(split.train, 4)


@needs_flower
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(replace(ROUNDS, rounds=3, steps=3), id="all sites"),
        pytest.param(replace(ROUNDS, rounds=3, steps=2, share=0.5, seed=5), id="half of the sites"),
        pytest.param(replace(ROUNDS, rounds=2, steps=2, noise=0.3), id="noise"),
    ],
)
def test_flower_s_average_is_ours(
    trained: Trained, parts: list[Dataset], config: FederatedConfig, tmp_path: Path
) -> None:
    start, given = trained.model.user_tower.state_dict(), outset(trained, config)
    ours: Federated = federate(start, [NearSite(own, given) for own in parts], config)
    theirs = federate_with_flower(start, parts, given, HERE, tmp_path)
    assert max(float((ours.user_tower[name] - x).abs().max()) for name, x in start.items()) > 1e-2
    for name, x in ours.user_tower.items():
        torch.testing.assert_close(theirs.user_tower[name], x, rtol=0, atol=1e-5)
    for mine, flower in zip(ours.rounds, theirs.rounds, strict=True):
        assert (mine.number, mine.sites, mine.places, mine.lost) == (flower.number, flower.sites, flower.places, 0)
        assert flower.loss == pytest.approx(mine.loss, abs=1e-4)
        assert flower.sent_bytes == pytest.approx(mine.sent_bytes, rel=0.1)
        assert flower.received_bytes == pytest.approx(mine.received_bytes, rel=0.1)


def members(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def children_of(pid: int) -> list[int]:
    """Of all its threads."""
    return [
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    ]


@needs_flower
def test_a_site_that_is_killed_is_left_out_and_a_stop_ends_them_all(
    trained: Trained, parts: list[Dataset], tmp_path: Path
) -> None:
    config, rounds = replace(ROUNDS, rounds=6, steps=2), list[Round]()
    groups: set[int] = set()

    class Enough(Exception):
        pass

    def look() -> None:
        groups.update(child for child in children_of(os.getpid()) if os.getpgid(child) == child)

    def on_round(each: Round) -> None:
        rounds.append(each)
        [leader] = groups
        sites = [pid for pid in members(leader) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if each.number == 1:
            assert len(sites) == len(parts)
            os.kill(sites[0], signal.SIGKILL)
        if each.number == 4:
            raise Enough

    with pytest.raises(Enough):
        federate_with_flower(
            trained.model.user_tower.state_dict(), parts, outset(trained, config), HERE, tmp_path,
            processes=True, on_round=on_round, look=look,
        )  # fmt: skip
    assert [(each.sites, each.lost) for each in rounds] == [(4, 0), (3, 1), (3, 0), (3, 0)]
    [leader] = groups
    assert members(leader) == []


@needs_flower
def test_sites_that_are_all_gone_and_a_client_that_breaks_are_told(
    trained: Trained, parts: list[Dataset], tmp_path: Path
) -> None:
    start, given = trained.model.user_tower.state_dict(), outset(trained, replace(ROUNDS, rounds=2, steps=1))

    def kill(_round: Round) -> None:
        for group in {child for child in children_of(os.getpid()) if os.getpgid(child) == child}:
            for pid in members(group):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    with pytest.raises(SiteGone, match="round 2"):
        federate_with_flower(start, parts, given, HERE, tmp_path, processes=True, on_round=kill)
    other = {name: x[..., :1].contiguous() for name, x in start.items()}  # a tower of another shape
    with pytest.raises(FlowerFailed, match="size mismatch"):
        federate_with_flower(other, parts, given, HERE, tmp_path)


def test_without_sites_or_without_flower_it_says_so(trained: Trained, parts: list[Dataset], tmp_path: Path) -> None:
    start, given = trained.model.user_tower.state_dict(), outset(trained)
    with pytest.raises(ValueError, match="no site"):
        federate_with_flower(start, [], given, Path(sys.executable), tmp_path)
    with pytest.raises(FlowerMissing, match=r"deploy/setup\.sh flower"):
        python_of(tmp_path / "python")
    with pytest.raises(FlowerMissing, match="No module named 'flwr'"):
        federate_with_flower(start, parts, given, Path(sys.executable), tmp_path)  # this Python has all but Flower


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Python that notes its environment and ends."""
    noted, python = tmp_path / "noted", tmp_path / "python"
    python.write_text(f"#!/bin/sh\nenv >{noted}\n")
    python.chmod(0o755)
    monkeypatch.setenv("GENBA_DATABASE_URL", "postgresql://somebody:secret@db/genba")
    return noted


def test_the_process_is_told_no_secret_of_the_platform_and_does_not_phone_home(
    trained: Trained, parts: list[Dataset], secrets: Path, tmp_path: Path
) -> None:
    with pytest.raises(FlowerFailed, match="status 0"):
        federate_with_flower(
            trained.model.user_tower.state_dict(), parts, outset(trained), secrets.with_name("python"), tmp_path
        )
    said = secrets.read_text()
    assert "FLWR_TELEMETRY_ENABLED=0" in said
    assert "postgresql://somebody" not in said


@needs_flower
def test_the_simulation_reaches_no_network() -> None:
    tried = (
        "import sys, socket; from genba_recommend.flower_simulation import _stay_here; sys.addaudithook(_stay_here)\n"
        "socket.create_connection(('127.0.0.1', 9))"
    )
    done = subprocess.run([HERE, "-c", tried], capture_output=True, text=True, check=False)
    assert "PermissionError: The simulation needs no network." in done.stderr
