"""Pictures of items: kept, embedded by svc-sop's encoder, and worth something for items that nobody has touched."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import uvicorn
from pydantic import SecretStr
from starlette.testclient import TestClient
from tests.recommend.model_world import SMALL, Trained, runner_for, somebody
from tests.recommend.shop_world import Headers, Service, event, item
from tests.sop.service.test_service_embed import HOSTILE, a_png_of, encoded, scene

import genba_sop.app
import genba_sop.service
import genba_sop.settings
from genba_recommend.app import create_app
from genba_recommend.generator import generate
from genba_recommend.settings import Settings
from genba_recommend.sop_door import NoEncoder
from genba_shared.principal import PRINCIPAL_HEADER, Clearance, sign
from genba_shared.settings import Platform


@dataclass(frozen=True)
class OtherEncoder:
    """An encoder of another space, as long as the one that ships."""

    id: str = "other-v1"
    dim: int = 132
    needs_weights: bool = False
    size_px: tuple[int, int] = (16, 16)

    def rows(self, pictures: list[Any]) -> Any:
        found = np.stack([np.resize(each.astype(np.float32).ravel(), self.dim) + 1 for each in pictures])
        return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def sop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """svc-sop whole, over a home of its own. Signed as the recommender signs."""
    platform = Platform(home=tmp_path_factory.mktemp("sop"), log_format="console")
    app = genba_sop.app.create_app(genba_sop.settings.Settings(platform=platform))
    with TestClient(app):
        yield app


@contextmanager
def serving(platform: Platform, signed: Headers, sop: Any) -> Iterator[Service]:
    app = create_app(Settings(platform=platform, poll_s=60.0))
    app.state.sop_app = sop
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Service(client, app.state.recommend, signed)


@pytest.fixture
def home(platform: Platform, database_url: str, sop: Any) -> Platform:
    """One secret for both services."""
    _share_secret(sop, platform)
    return platform.model_copy(update={"database_url": database_url})


def _share_secret(sop: Any, platform: Platform) -> None:
    shared = sop.state.sop.settings.platform.home / "secrets" / "principal"
    mine = platform.home / "secrets" / "principal"
    mine.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(shared, mine)


@pytest.fixture
def service(home: Platform, signed: Headers, sop: Any) -> Iterator[Service]:
    """svc-recommend beside svc-sop, over both databases."""
    with serving(home, signed, sop) as found:
        yield found


def put(
    service: Service, item_id: str, data: bytes, *roles: str, kind: str = "image/jpeg", query: str = "", **who: Any
) -> Any:
    headers = service.headers(*roles, **who) | {"content-type": kind}
    return service.client.put(f"/v1/recommend/items/{item_id}/picture{query}", content=data, headers=headers)


def embedding(service: Service, item_id: str) -> tuple[str | None, int]:
    """By whom, and how long."""
    shelf = service.shop.view.shelf
    found = shelf.entries[shelf.row_by_id[item_id]].item
    return found.embedding_by, len(found.embedding or ())


def embed_what_waits(service: Service) -> None:
    """The service does it by itself every two seconds; this does it at once, and lets it finish what it is at."""
    for _ in range(600):
        with contextlib.suppress(NoEncoder):
            service.client.portal.call(service.recommend.picturing.round)  # type: ignore[union-attr]
        if not service.get("/pictures").json()["waiting"]:
            break
        time.sleep(0.1)
    service.follow()


def test_a_picture_is_embedded_at_once_shown_kept_through_another_put_and_erased(service: Service) -> None:
    service.items(item(1), item(2))
    picture = encoded(scene(1, 1))
    made = put(service, "v1", picture)
    assert made.status_code == 200, made.text
    assert made.json() | {"sha256": ""} == {
        "item_id": "v1", "sha256": "", "media_type": "image/jpeg", "size_bytes": len(picture),
        "state": "embedded", "note": None, "encoder": "picture-hog-v1", "dim": 132,
    }  # fmt: skip
    assert embedding(service, "v1") == ("picture-hog-v1", 132)
    assert embedding(service, "v2") == (None, 0)
    shown = service.get("/items/v1/picture", "viewer")
    assert (shown.content, shown.headers["content-type"]) == (picture, "image/jpeg")
    service.items(item(1, title="Another title"))
    assert embedding(service, "v1") == ("picture-hog-v1", 132)
    first = service.shop.view.shelf.entries[service.shop.view.shelf.row_by_id["v1"]]
    assert put(service, "v1", encoded(scene(2, 2), ".png"), kind="image/png").json()["media_type"] == "image/png"
    second = service.shop.view.shelf.entries[service.shop.view.shelf.row_by_id["v1"]]
    assert first.content_hash != second.content_hash
    status = service.get("/pictures").json()
    assert (status["encoder"], status["embedded"], status["waiting"]) == ("picture-hog-v1", 1, 0)
    assert service.delete("/items/v1/picture").status_code == 204
    assert embedding(service, "v1") == (None, 0)
    assert service.get("/items/v1/picture").status_code == 404
    assert service.delete("/items/v1/picture").status_code == 404
    store = service.recommend.picturing.store_of("default")
    assert not store.exists(f"{made.json()['sha256'][:2]}/{made.json()['sha256']}.jpg")


def test_a_form_carries_a_picture_too_and_the_same_one_may_be_of_two_items(service: Service) -> None:
    service.items(item(1), item(2))
    picture = encoded(scene(0, 3))
    for item_id in ("v1", "v2"):
        path, files = f"/v1/recommend/items/{item_id}/picture", {"file": ("cover.jpg", picture)}
        assert service.client.put(path, files=files, headers=service.headers()).status_code == 200
    service.delete("/items/v1/picture")
    assert service.get("/items/v2/picture").content == picture
    assert embedding(service, "v2") == ("picture-hog-v1", 132)


@pytest.mark.parametrize(("name", "data", "why"), [pytest.param(*each, id=each[0]) for each in HOSTILE])
def test_a_hostile_picture_is_refused_and_nothing_of_it_is_kept(
    service: Service, name: str, data: bytes, why: str
) -> None:
    service.items(item(1))
    refused = put(service, "v1", data)
    assert refused.status_code in {415, 422}, name
    assert refused.status_code == 415 or why in refused.json()["detail"]
    assert service.get("/items/v1/picture").status_code == 404
    assert service.get("/pictures").json()["waiting"] == 0


def test_who_may_and_how_much(service: Service) -> None:
    service.items(item(1), item(2, clearance="secret"), clearance=Clearance.SECRET)
    picture = encoded(scene(0, 0))
    assert put(service, "v1", picture, "viewer").status_code == 403
    assert put(service, "v9", picture).status_code == 404
    for method in ("GET", "PUT", "DELETE"):
        path, headers = "/v1/recommend/items/v2/picture", service.headers() | {"content-type": "image/jpeg"}
        assert service.client.request(method, path, headers=headers, content=picture).status_code == 404
    assert put(service, "v1", picture + b"\0" * 11 * 2**20).status_code == 413
    assert put(service, "v1", picture, kind="text/html").status_code == 415
    assert service.client.get("/v1/recommend/items/v1/picture").status_code == 401


def test_without_an_encoder_a_picture_waits_and_is_embedded_when_there_is_one(
    home: Platform, signed: Headers, sop: Any
) -> None:
    with serving(home, signed, None) as alone:
        alone.items(item(1), item(2))
        made = put(alone, "v1", encoded(scene(1, 1))).json()
        assert (made["state"], made["note"], made["encoder"]) == ("waiting", "no_encoder", None)
        bad = put(alone, "v2", a_png_of(60_000, 60_000), kind="image/png").json()
        assert bad["state"] == "waiting"
        assert alone.get("/pictures").json()["waiting_for"] == {"no_encoder": 2}
        assert {each["item_id"] for each in alone.get("/popular").json()["items"]} == {"v1", "v2"}
    with serving(home, signed, sop) as together:
        embed_what_waits(together)
        assert embedding(together, "v1") == ("picture-hog-v1", 132)
        status = together.get("/pictures").json()
        assert (status["embedded"], status["waiting"], status["unreadable"]) == (1, 0, 1)
        assert status["unreadable_items"][0]["item_id"] == "v2"
        assert "more pixels" in status["unreadable_items"][0]["why"]


def test_an_encoder_that_breaks_is_waited_for(service: Service, sop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(OtherEncoder):
        def rows(self, pictures: list[Any]) -> Any:
            raise RuntimeError(f"no memory for {len(pictures)} pictures")

    service.items(item(1))
    with monkeypatch.context() as broken:
        broken.setattr(sop.state, "sop", replace(sop.state.sop, pictures=Broken()))
        assert put(service, "v1", encoded(scene(0, 1))).json()["note"] == "encoder_unreachable"
        assert embedding(service, "v1") == (None, 0)
    embed_what_waits(service)
    assert embedding(service, "v1") == ("picture-hog-v1", 132)


@pytest.fixture
def address(sop: Any) -> Iterator[str]:
    """svc-sop at an address of its own, as a container has it."""
    config = uvicorn.Config(sop, host="127.0.0.1", port=0, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_svc_sop_at_an_address_embeds_for_whoever_has_its_secret(home: Platform, signed: Headers, address: str) -> None:
    for secret, state, note in ((None, "embedded", None), (SecretStr("x" * 40), "waiting", "encoder_refused")):
        own = home if secret is None else home.model_copy(update={"principal_secret": secret})
        app = create_app(Settings(platform=own, poll_s=60.0, sop_url=address))
        with TestClient(app) as client:
            mine = (
                signed if secret is None else lambda *roles, **_: {PRINCIPAL_HEADER: sign(somebody(*roles), b"x" * 40)}
            )
            service = Service(client, app.state.recommend, mine)
            service.items(item(1))
            made = put(service, "v1", encoded(scene(0, 1)), "engineer").json()
            assert (made["state"], made["note"]) == (state, note)


def test_another_encoder_mixes_nothing_until_all_pictures_are_embedded_anew(
    service: Service, sop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Trained(service, generate(SMALL, seed=0), runner_for(service), somebody("engineer"))
    service.items(item(1), item(2))
    put(service, "v1", encoded(scene(1, 1)))
    monkeypatch.setattr(sop.state, "sop", replace(sop.state.sop, pictures=OtherEncoder()))
    made = put(service, "v2", encoded(scene(2, 2))).json()
    assert (made["state"], made["note"]) == ("waiting", "other_encoder")
    assert embedding(service, "v2") == (None, 0)

    refused = trained.run("recommend.pictures")
    assert refused.status == "failed"
    assert "what = all" in refused.error["detail"]
    assert embedding(service, "v1") == ("picture-hog-v1", 132)
    done = trained.run("recommend.pictures", what="all")
    assert done.status == "succeeded", done.error
    assert done.result["value"] == {"encoder": "other-v1", "embedded": 2, "unreadable": 0}
    service.follow()
    assert {embedding(service, each) for each in ("v1", "v2")} == {("other-v1", 132)}


def test_pictures_that_nobody_embeds_fail_the_job_and_wait_on(home: Platform, signed: Headers) -> None:
    with serving(home, signed, None) as service:
        trained = Trained(service, generate(SMALL, seed=0), runner_for(service), somebody("engineer"))
        service.items(item(1))
        put(service, "v1", encoded(scene(1, 1)))
        job = trained.run("recommend.pictures", patience_s=5)
        assert job.status == "failed"
        assert "1 pictures wait" in job.error["detail"]
        assert service.get("/pictures").json()["waiting"] == 1


def test_sent_embeddings_and_pictures_are_not_mixed(service: Service) -> None:
    service.items(item(1, embedding=[0.1, 0.2]), item(2))
    assert put(service, "v2", encoded(scene(0, 0))).status_code == 409
    service.items(item(1))
    assert put(service, "v2", encoded(scene(0, 0))).status_code == 200
    said = service.put("/items", {"items": [item(1, embedding=[0.1, 0.2]), item(3)]}).json()
    assert said["accepted"] == 1
    assert said["rejected"][0]["errors"][0]["field"] == "embedding"


def ranked_by_look(service: Service, trained: Trained, *, pictures: bool) -> float:
    """How often a never-seen item of the look that a user likes stands before one of another look (AUC)."""
    looks, rng = 4, np.random.default_rng(7)
    known, unseen = range(120), range(200, 240)
    plain: dict[str, Any] = {
        "genre": [],
        "maker": None,
        "tags": [],
        "price": None,
        "published_at": None,
        "title": "",
        "duration_s": None,
    }
    service.items(*(item(n) | plain for n in [*known, *unseen]))
    if pictures:
        for n in [*known, *unseen]:
            answer = put(service, f"v{n}", encoded(scene(n % looks, n)), query="?embed=later")
            assert answer.json()["state"] == "waiting", answer.text
        embed_what_waits(service)
        assert service.get("/pictures").json()["embedded"] == 160
    likes = []
    for user in range(80):
        liked = rng.permutation([n for n in known if n % looks == user % looks])[:12]
        likes += [
            event(1000 * user + k, f"u{user}", f"v{n}", days_ago=30 - 2 * k - rng.random()) for k, n in enumerate(liked)
        ]
    service.events(*likes)
    service.follow()
    trained.train(max_epochs=8, places_per_epoch=4000, gate_over_popularity=None)
    view = service.shop.view
    assert view.champion is not None
    aligned = view.models[view.champion]
    rows = [view.shelf.row_by_id[f"v{n}"] for n in unseen]
    right = []
    for user in range(0, 80, 2):
        vector = aligned.model.embed_user(service.shop.person(f"u{user}"), aligned)
        scores = aligned.vectors[rows] @ vector
        own = np.array([n % looks == user % looks for n in unseen])
        right.append((scores[own][:, None] > scores[~own][None, :]).mean())
    return float(np.mean(right))


@pytest.mark.long
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_never_seen_items_with_a_telling_picture_are_ranked_better_than_without(
    home: Platform, signed: Headers, sop: Any
) -> None:
    found = {}
    for pictures in (False, True):
        own = home.model_copy(
            update={"home": home.home / str(pictures), "database_url": f"sqlite:///{home.home / f'{pictures}.db'}"}
        )
        _share_secret(sop, own)
        with serving(own, signed, sop) as service:
            trained = Trained(service, generate(SMALL, seed=0), runner_for(service), somebody("engineer"))
            found[pictures] = ranked_by_look(service, trained, pictures=pictures)
    assert found[True] > 0.8
    assert found[True] > found[False] + 0.25
