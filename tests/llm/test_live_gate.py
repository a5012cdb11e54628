"""The gate asks the registry's champion: forwards, back, and never half."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from genba_llm.classifier import CHAMPION
from genba_llm.gate import Gate, GateRequest
from genba_llm.live_gate import MODEL, LiveGate
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.recipe import Registration
from genba_shared.registry import Registry


@pytest.fixture
def registry(database: Database, tmp_path: Path) -> Registry:
    return Registry(database, Artifacts(str(tmp_path / "artifacts")))


def register(registry: Registry, database: Database, folder: Path, number: int) -> None:
    """As a job does whose gates passed."""
    registration = Registration(MODEL, folder, {"macro_f1": 0.5 + number / 10}, data_hash=f"d{number}")
    stored = registry.store(registration)
    with database.transaction() as session:
        registry.register(session, registration, job_id=f"job_{number}", by="test", stored=stored)


def bundle(tmp_path: Path, number: int) -> Path:
    folder = tmp_path / f"bundle_{number}"
    shutil.copytree(CHAMPION, folder)
    (folder / "note.txt").write_text(str(number))
    return folder


def test_the_gate_follows_the_champion_and_the_answer_names_it(
    database: Database, registry: Registry, tmp_path: Path
) -> None:
    gate = Gate()
    live = LiveGate(gate, registry, cache=tmp_path / "cache", refresh_s=3600)
    live.follow()
    shipped = gate.model_version
    register(registry, database, bundle(tmp_path, 1), 1)
    live.follow()
    assert gate.decide(GateRequest("Hello")).model_version.startswith("gate@1")
    assert gate.model_version != shipped
    assert live.unwell() is None


def test_a_champion_that_does_not_load_leaves_the_one_before_deciding(
    database: Database, registry: Registry, tmp_path: Path
) -> None:
    gate = Gate()
    live = LiveGate(gate, registry, cache=tmp_path / "cache", refresh_s=3600)
    register(registry, database, bundle(tmp_path, 1), 1)
    live.follow()
    broken = bundle(tmp_path, 2)
    for weights in broken.glob("*.safetensors"):
        weights.write_bytes(b"torn")
    register(registry, database, broken, 2)
    live.follow()
    assert gate.decide(GateRequest("Hello")).model_version.startswith("gate@1")
    assert "does not load" in (live.unwell() or "")
