"""Words of both languages and pictures find particles; each hit says what matched, and what may not be seen is not found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.sem.service.pictures import views

Service = Any  # of conftest, which tests cannot import

SHAPES = {
    "needle": {"aspect_ratio": 0.2, "circularity": 0.4, "solidity": 0.97, "diameter_um": 1.0},
    "ball": {"aspect_ratio": 0.97, "circularity": 0.96, "solidity": 0.985, "diameter_um": 2.0},
    "clump": {"aspect_ratio": 0.7, "circularity": 0.45, "solidity": 0.7, "diameter_um": 9.0},
}


def populate(service: Service, each: int = 30) -> dict[str, set[str]]:
    """Particles of three shapes without a label; their ids by shape."""
    rng = np.random.default_rng(0)
    found: dict[str, set[str]] = {}
    for name, shape in SHAPES.items():
        found[name] = set()
        for _ in range(each):
            noisy = {key: float(value * rng.normal(1, 0.02)) for key, value in shape.items()}
            found[name] |= set(service.classified([[1, 0]], None, **noisy))
    return found


def search(service: Service, text: str, **body: Any) -> Any:
    answer = service.post("/v1/sem/search", {"text": text, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("needle-like", "needle"), ("針状", "needle"), ("spherical particles", "ball"), ("球状", "ball"),
        ("agglomerate", "clump"), ("凝集した粒子", "clump"), ("大きい粒子", "clump"), ("small", "needle"),
    ],
)  # fmt: skip
def test_shape_words_find_shapes_that_nobody_labelled(sqlite_service: Service, text: str, shape: str) -> None:
    ids = populate(sqlite_service)
    found = search(sqlite_service, text, k=20)
    hits = [hit["particle"]["id"] for hit in found["hits"]]
    assert len(set(hits)) == 20
    assert np.mean([hit in ids[shape] for hit in hits]) >= 0.85
    assert all(any(each.startswith("shape:") for each in hit["matched"]) for hit in found["hits"][:15])
    assert "no vision-language model" in found["notice"]


def test_names_synonyms_and_definitions_of_either_language_find_a_labels_particles(service: Service) -> None:
    whisker = service.label("Whisker", "ウィスカー", synonyms={"en": ["tin hair"], "ja": ["ひげ結晶"]},
                            definition={"en": "a filament that grows out of a plated surface"})  # fmt: skip
    other = service.label("Slag", "スラグ")
    mine = set(service.classified([[1, 0]] * 5, whisker))
    service.classified([[1, 0]] * 5, other)
    for text in ("whiskers", "ウィスカー", "tin hair", "ひげ結晶", "filament grown from a plated surface"):
        found = search(service, text)
        hits = [hit["particle"]["id"] for hit in found["hits"]]
        assert set(hits[:5]) == mine, text
        assert found["labels"][0]["id"] == whisker, text
        assert "label:Whisker" in found["hits"][0]["matched"]


def test_what_people_wrote_is_found_in_either_language(service: Service) -> None:
    label = service.label("Any")
    [english] = service.classified([[1, 0]], label, note="contaminated by the grinder")
    [japanese] = service.classified([[1, 0]], label, tags=["研磨粉の混入"])
    service.classified([[1, 0]] * 3, label)
    assert search(service, "grinder")["hits"][0]["particle"]["id"] == english
    hits = search(service, "研磨粉")["hits"]
    assert [hits[0]["particle"]["id"], hits[0]["matched"]] == [japanese, ["written"]]
    assert search(service, "zebra")["hits"] == []


def test_a_merged_labels_words_find_the_successors_particles(service: Service) -> None:
    rod, needle = service.label("Rod"), service.label("Acicular")
    mine = service.classified([[1, 0]], rod)
    service.post(f"/v1/sem/labels/{rod}/merge", {"into": needle, "reason": "same"}, version=1)
    for text in ("rod", "acicular"):
        assert [hit["particle"]["id"] for hit in search(service, text)["hits"]] == mine


def test_a_picture_and_a_particle_find_their_like(sqlite_service: Service) -> None:
    service = sqlite_service
    service.lab(masters=2)
    mine = {kind: service.particle(views(kind, seed=60), name=kind)["id"] for kind in ("disc", "needle", "square")}
    files = [("views", ("a.png", views("needle", seed=61)[0], "image/png"))]
    by_image = service.client.post("/v1/sem/search/image?k=1", files=files, headers=service.headers("viewer"))
    assert by_image.status_code == 200, by_image.text
    assert by_image.json()["hits"][0]["particle"]["id"] == mine["needle"]
    twin = service.particle(views("square", seed=62))["id"]
    by_particle = service.post("/v1/sem/search", {"particle_id": twin, "k": 1}).json()
    assert by_particle["hits"][0]["particle"]["id"] == mine["square"]
    masters = service.get("/v1/sem/masters", params={"limit": 50}).json()["items"]
    needle = service.get(f"/v1/sem/particles/{mine['needle']}").json()["label"]["id"]
    master = next(each["particle_id"] for each in masters if each["label_id"] == needle)
    by_master = service.post("/v1/sem/search", {"particle_id": master, "k": 1}).json()
    assert by_master["hits"][0]["particle"]["id"] == mine["needle"]
    both = service.post("/v1/sem/search", {"particle_id": twin, "text": "needle", "k": 5}).json()
    assert both["hits"][0]["particle"]["id"] == mine["needle"]
    assert "picture" in both["hits"][0]["matched"]


def test_search_finds_nothing_that_the_caller_may_not_see(service: Service) -> None:
    label = service.label("Any")
    service.classified([[1, 0]], label, note="grinder", clearance=3)
    assert search(service, "grinder")["hits"] == []
    assert service.post("/v1/sem/search", {}).status_code == 422
