"""Text against pictures by OpenCLIP, with a tiny model of the real classes: by a job, beside words, and never instead of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.sem.service.conftest import Service
from tests.sem.service.jobs_world import ended
from tests.sem.service.pictures import KINDS, views
from tests.shared.tiny_openclip import save_tiny

from genba_sem.app import create_app
from genba_sem.pictured import ClipEncoder
from genba_sem.segment import find_particle
from genba_sem.settings import Settings
from genba_shared.encoders import open_openclip
from genba_shared.settings import Platform
from genba_shared.torchvision import make_torchvision_importable

make_torchvision_importable()
pytest.importorskip("open_clip", reason="the extra openclip is not installed")
pytestmark = pytest.mark.openclip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, which only a test may have."""
    return save_tiny(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def settings(platform: Platform, database_url: str, weights: Path) -> Settings:
    own = platform.model_copy(update={"database_url": database_url})
    return Settings(platform=own, sweep_every_s=3600.0, text_encoder="openclip:tiny", text_encoder_weights=weights)


@pytest.fixture
def work(service: Service, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("GENBA_SEM_TEXT_ENCODER", str(settings.text_encoder))
    monkeypatch.setenv("GENBA_SEM_TEXT_ENCODER_WEIGHTS", str(settings.text_encoder_weights))
    return ended(service, settings)


def test_after_a_job_has_looked_text_finds_pictures_in_the_order_of_the_model(
    service: Service, work: Callable[..., Any], weights: Path
) -> None:
    service.lab(masters=2)
    sent = [service.particle(views(kind, seed=60), name=f"p {kind}", batch="b-1")["id"] for kind in KINDS]
    text = "glittering shards"
    before = service.post("/v1/sem/search", {"text": text, "batch": "b-1"}).json()
    assert (before["hits"], "0 particles" in before["notice"]) == ([], True)
    done = work("sem.index_pictures", batch="b-1").result["value"]
    assert (done["particles"], done["failed"]) == (3, 0)
    assert work("sem.index_pictures", batch="b-1").result["value"]["particles"] == 3  # nothing twice
    found = service.post("/v1/sem/search", {"text": text, "batch": "b-1"}).json()
    clip = ClipEncoder(open_openclip("openclip:tiny", weights))
    assert found["encoder"] == clip.id == done["encoder"]
    assert clip.id in found["notice"]
    cosines = {}
    for particle_id, kind in zip(sent, KINDS, strict=True):
        own = [service.sem.pictures.read_view(each, limits=service.sem.limits).pixels for each in views(kind, seed=60)]
        rows = np.stack([clip.describe(pixels, find_particle(pixels).mask) for pixels in own])
        cosines[particle_id] = float((rows @ clip.text_row([text])).max())
    above = [
        each for each in sorted(sent, key=lambda each: -cosines[each]) if cosines[each] > np.mean([*cosines.values()])
    ]
    assert [hit["particle"]["id"] for hit in found["hits"]] == above
    assert all("picture" in hit["matched"] or hit["score"] < 0.25 for hit in found["hits"])


def test_without_its_weights_words_are_searched_all_the_same(platform: Platform, signed: Any, tmp_path: Path) -> None:
    settings = Settings(
        platform=platform, sweep_every_s=3600.0, text_encoder="openclip:absent", text_encoder_weights=tmp_path
    )
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        service = Service(client, app.state.sem, signed)
        label = service.label("Needle", "針状")
        service.classified([[1, 0]], label)
        found = service.post("/v1/sem/search", {"text": "針状"}).json()
    assert found["hits"][0]["matched"][0].startswith("label:")
    assert found["encoder"] is None
    assert "no vision-language model looks at pictures" in found["notice"]
