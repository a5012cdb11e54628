"""An encoder whose weights the user brings: described beside the one that serves, gated, swapped in, and never mixed with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.sem.dino_world import saved
from tests.sem.service.conftest import Service
from tests.sem.service.jobs_world import ended, promoted_anyway, reviewed
from tests.sem.service.pictures import KINDS, views

from genba_sem.dino import export_onnx
from genba_sem.settings import Settings
from genba_sem.tables import DescriptionRow, ParticleRow
from genba_shared.settings import Platform


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of encoders: one for PyTorch, and its export."""
    folder = tmp_path_factory.mktemp("encoders")
    export_onnx(saved("dinov2", folder / "tiny"), folder / "tiny-onnx")
    return folder


@pytest.fixture
def settings(platform: Platform, database_url: str, weights: Path) -> Settings:
    own = platform.model_copy(update={"database_url": database_url})
    return Settings(platform=own, sweep_every_s=3600.0, encoders_dir=weights)


@pytest.fixture
def work(service: Service, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a recipe to its end; the job."""
    monkeypatch.setenv("GENBA_SEM_ENCODERS_DIR", str(settings.encoders_dir))
    return ended(service, settings)


@pytest.mark.long
def test_another_encoder_looks_beside_the_one_that_serves_and_nothing_is_mixed(
    service: Service, work: Callable[..., Any]
) -> None:
    labels = service.lab(masters=3)
    reviewed(service, labels, each=1)
    proposed = work("sem.encoder", encoder="onnx:tiny-onnx").result
    onnx = proposed["value"]["encoder"]
    assert onnx.startswith("onnx:dinov2@")
    assert proposed["value"]["instead_of"].startswith("hlg-shape-v1@")
    assert proposed["metrics"]["accuracy_gain"] < 0  # its weights are random, so the gate holds it back
    service.sem.lanes.refresh("default")
    assert service.get("/v1/sem/lane").json()["encoder"].startswith("hlg-shape-v1@")
    before = service.particle(views("disc", seed=60), name="before")

    promoted_anyway(service, 1)
    assert service.get("/v1/sem/lane").json()["encoder"] == onnx
    after = service.particle(views("disc", seed=61), name="after")
    assert after["decided_from"]["encoder"] == onnx
    refused = service.post(f"/v1/sem/particles/{before['id']}/decide", None)
    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:genba:problem:encoder-mismatch"
    assert refused.json()["encoder"] == onnx
    hits = service.post("/v1/sem/search", {"particle_id": after["id"]}).json()
    assert hits["encoder"] == onnx
    assert before["id"] not in {hit["particle"]["id"] for hit in hits["hits"]}

    done = work("sem.reembed").result["value"]
    assert done["failed"] == 0
    hits = service.post("/v1/sem/search", {"particle_id": after["id"]}).json()["hits"]
    assert before["id"] in {hit["particle"]["id"] for hit in hits}
    again = service.get(f"/v1/sem/particles/{before['id']}").json()
    assert again["decided_from"]["encoder"] == onnx
    with service.sem.database.read() as session:
        kept = session.scalars(select(ParticleRow.label_id).where(ParticleRow.status == "reviewed")).all()
    assert set(kept) == set(labels.values())  # what people said stays
    refreshed = work("sem.refresh").result["value"]
    assert refreshed["encoder"] == onnx
    service.delete(f"/v1/sem/particles/{after['id']}")
    service.delete(f"/v1/sem/particles/{before['id']}")
    assert before["id"] not in described(service, onnx)


def described(service: Service, kind: str) -> set[str]:
    """Particles that an encoder described as a second one."""
    with service.sem.database.read() as session:
        query = select(DescriptionRow.particle_id).where(DescriptionRow.described_by == kind)
        return set(session.scalars(query))


def test_without_its_weights_an_encoder_is_not_proposed(service: Service, work: Callable[..., Any]) -> None:
    service.lab(masters=2)
    for name in ("onnx:absent", "dino:nobody/nothing"):
        failed = work("sem.encoder", ends="failed", encoder=name)
        assert failed.error["status"] == 409  # trying again would not bring them
        assert name.partition(":")[2] in failed.error["detail"]


@pytest.mark.long
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_lab_s_own_pictures_teach_an_encoder_that_serves_only_behind_the_gate(
    service: Service, work: Callable[..., Any]
) -> None:
    labels = service.lab(masters=3)
    few = work("sem.encoder", ends="failed", encoder="onsite-v1", steps=20)
    assert "too few to learn from" in few.error["detail"]
    for number in range(24):
        service.particle(views(KINDS[number % 3], seed=200 + number), decide="now", name=f"p-{number}")
    job = work("sem.encoder", encoder="onsite-v1", steps=20)
    taught = job.result
    assert taught["value"]["encoder"].startswith("onsite-v1@")
    service.sem.lanes.refresh("default")
    serving = service.get("/v1/sem/lane").json()["encoder"]
    assert (serving == taught["value"]["encoder"]) == (taught["metrics"]["accuracy_gain"] >= 0)

    promoted_anyway(service, 1)
    assert service.get("/v1/sem/lane").json()["encoder"] == taught["value"]["encoder"]
    found = service.particle(views("needle", seed=900))
    assert found["decided_from"]["encoder"] == taught["value"]["encoder"]
    assert found["label"] is None or found["label"]["id"] in labels.values()
    again = work("sem.encoder", encoder="hlg-shape-v1").result["value"]
    assert again["encoder"].startswith("hlg-shape-v1@")
    assert again["instead_of"] == taught["value"]["encoder"]
