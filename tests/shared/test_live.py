"""What a service serves follows the alias: forwards, back, never half, and never without saying what went wrong."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.live import Live
from genba_shared.problems import Unavailable
from genba_shared.readiness import Degraded
from genba_shared.recipe import Registration
from genba_shared.registry import Registry, Version
from genba_shared.service import create_service
from genba_shared.settings import Platform

MODEL = "test.toy"
Lives = Callable[..., Live[str]]


@pytest.fixture
def registry(database: Database, tmp_path: Path) -> Registry:
    return Registry(database, Artifacts(str(tmp_path / "artifacts")))


@pytest.fixture
def register(registry: Registry, tmp_path: Path) -> Callable[..., Version]:
    """``register("hello")``: a version whose bundle says hello, promoted unless told otherwise."""

    def register(says: str, **fields: Any) -> Version:
        folder = tmp_path / "bundle"
        folder.mkdir(exist_ok=True)
        (folder / "bundle.json").write_text(json.dumps({"says": says, "code_commit": "abc"}))
        registration = Registration(MODEL, folder, {}, data_hash="d1", **fields)
        with registry.database.transaction() as session:
            return registry.register(session, registration, job_id=None, by="key_1")

    return register


def read(folder: Path, _version: Version) -> str:
    """The toy's loader. Raises: ValueError for a bundle that says so."""
    says: str = json.loads((folder / "bundle.json").read_text())["says"]
    if says == "broken":
        raise ValueError("the weights have the wrong shape")
    return says


@pytest.fixture
def live(registry: Registry, tmp_path: Path) -> Iterator[Lives]:
    """``live(load=…)``; stopped after the test."""
    made: list[Live[str]] = []

    def build(load: Callable[[Path, Version], str] = read, **options: Any) -> Live[str]:
        settings: dict[str, Any] = {"cache": tmp_path / "cache", "refresh_s": 0.01, **options}
        made.append(Live(registry, MODEL, load, **settings))
        return made[-1]

    yield build
    for each in made:
        each.stop()


def serving(live: Live[str]) -> tuple[str, int] | None:
    return None if live.current is None else (live.current.value, live.current.version.number)


def wait_until(condition: Callable[[], object], *, at_most_s: float = 60.0) -> None:
    """For what another thread does; the limit only ends a test that is broken."""
    ends_s = time.monotonic() + at_most_s
    while not condition():
        assert time.monotonic() < ends_s, "it never happened"
        threading.Event().wait(0.005)


def test_a_service_without_a_model_is_well_and_serves_none(live: Lives) -> None:
    toy = live()
    assert toy.refresh() is False
    assert (toy.current, toy.unwell()) == (None, None)


def test_it_follows_the_champion_forwards_and_back(
    register: Callable[..., Version], registry: Registry, live: Lives
) -> None:
    toy = live()
    register("one")
    assert toy.refresh() is True
    assert serving(toy) == ("one", 1)
    assert toy.refresh() is False
    register("two")
    assert toy.refresh() is True
    assert serving(toy) == ("two", 2)
    registry.rollback(MODEL, by="key_1", reason="bad")
    assert toy.refresh() is True
    assert serving(toy) == ("one", 1)
    registry.clear(MODEL, "champion", by="key_1", reason="none")
    assert toy.refresh() is True
    assert (toy.current, toy.unwell()) == (None, None)


def test_a_challenger_is_followed_like_a_champion(
    register: Callable[..., Version], registry: Registry, live: Lives
) -> None:
    champion, challenger = live(), live(alias="challenger")
    register("one")
    register("two", promote="never")
    registry.promote(MODEL, 2, alias="challenger", by="key_1", reason="try")
    for each in (champion, challenger):
        each.refresh()
    assert (serving(champion), serving(challenger)) == (("one", 1), ("two", 2))


def test_a_request_in_flight_keeps_the_pair_that_it_took(register: Callable[..., Version], live: Lives) -> None:
    toy = live()
    register("one")
    toy.refresh()
    taken = toy.current
    register("two")
    toy.refresh()
    assert taken is not None
    assert (taken.value, taken.version.number) == ("one", 1)


def test_no_reader_ever_sees_a_value_with_another_versions_number(
    register: Callable[..., Version], registry: Registry, live: Lives
) -> None:
    toy, over, mixed = live(), threading.Event(), []
    register("1")
    register("2")
    toy.refresh()

    def look() -> None:
        while not over.is_set():
            pair = toy.current
            if pair is None or pair.value != str(pair.version.number):
                mixed.append(pair)

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(10):
        registry.promote(MODEL, 1 + turn % 2, by="key_1", reason="flip")
        toy.refresh()
    over.set()
    for reader in readers:
        reader.join()
    assert mixed == []


def test_a_version_that_fails_to_load_leaves_the_old_one_serving_and_says_so(
    register: Callable[..., Version], registry: Registry, live: Lives
) -> None:
    toy = live()
    register("one")
    toy.refresh()
    register("broken")
    assert toy.refresh() is False
    assert serving(toy) == ("one", 1)
    said = toy.unwell()
    assert isinstance(said, Degraded)
    assert said == (
        f"version 2 of {MODEL} does not load: ValueError: the weights have the wrong shape; version 1 serves"
    )
    registry.rollback(MODEL, by="key_1", reason="it does not load")
    assert toy.refresh() is False
    assert (serving(toy), toy.unwell()) == (("one", 1), None)


def test_a_first_version_that_does_not_load_keeps_the_service_from_being_ready(
    register: Callable[..., Version], live: Lives
) -> None:
    toy = live()
    register("broken")
    toy.refresh()
    assert toy.current is None
    said = toy.unwell()
    assert said is not None
    assert not isinstance(said, Degraded)
    register("mended")
    toy.refresh()
    assert (serving(toy), toy.unwell()) == (("mended", 2), None)


def test_a_process_that_starts_on_a_champion_that_does_not_load_serves_the_one_before(
    register: Callable[..., Version], live: Lives
) -> None:
    for says in ("one", "two", "broken"):
        register(says)
    toy = live()
    assert toy.refresh() is True
    assert serving(toy) == ("two", 2)
    assert isinstance(toy.unwell(), Degraded)
    assert toy.refresh() is False
    register("mended")
    toy.refresh()
    assert (serving(toy), toy.unwell()) == (("mended", 4), None)


def test_a_version_that_does_not_survive_its_warm_up_is_not_served(
    register: Callable[..., Version], live: Lives
) -> None:
    def warm_up(value: str) -> None:
        if value == "two":
            raise RuntimeError("nan in the first list")

    toy = live(warm_up=warm_up)
    for says in ("one", "two"):
        register(says)
        toy.refresh()
    assert serving(toy) == ("one", 1)
    assert "nan in the first list" in str(toy.unwell())


def test_what_failed_is_not_tried_at_every_look_but_a_new_promotion_is(
    register: Callable[..., Version], registry: Registry, live: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba_shared.live._RETRY_FIRST_S", 3600.0)
    monkeypatch.setattr("genba_shared.live._RETRY_CAP_S", 3600.0)
    tried: list[int] = []

    def load(folder: Path, version: Version) -> str:
        tried.append(version.number)
        return read(folder, version)

    toy = live(load)
    register("one")
    toy.refresh()
    register("broken")
    for _ in range(5):
        toy.refresh()
    assert tried == [1, 2]
    registry.rollback(MODEL, by="key_1", reason="?")
    registry.promote(MODEL, 2, by="key_1", reason="try that again")
    toy.refresh()
    assert tried == [1, 2, 2]


def test_what_failed_is_tried_again_after_a_while(
    register: Callable[..., Version], live: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba_shared.live._RETRY_FIRST_S", 0.0)
    fails = [True]

    def load(folder: Path, version: Version) -> str:
        if fails:
            raise Unavailable("The artifact store cannot be reached.")
        return read(folder, version)

    toy = live(load)
    register("one")
    toy.refresh()
    assert toy.current is None
    fails.clear()
    assert toy.refresh() is True
    assert (serving(toy), toy.unwell()) == (("one", 1), None)


def test_a_pointer_that_moves_back_while_its_version_loads_is_not_followed(
    register: Callable[..., Version], registry: Registry, live: Lives
) -> None:
    def load(folder: Path, version: Version) -> str:
        if version.number == 2:
            registry.rollback(MODEL, by="key_1", reason="changed my mind")
        return read(folder, version)

    toy = live(load)
    register("one")
    toy.refresh()
    register("two")
    assert toy.refresh() is False
    assert (serving(toy), toy.unwell()) == (("one", 1), None)


def test_a_pointer_that_never_rests_does_not_hold_a_refresh_for_ever(
    register: Callable[..., Version], registry: Registry, live: Lives
) -> None:
    def load(folder: Path, version: Version) -> str:
        registry.promote(MODEL, 5 - version.number, by="key_1", reason="flip")
        return read(folder, version)

    toy = live(load)
    for says in ("one", "two", "three"):
        register(says)
    registry.promote(MODEL, 2, by="key_1", reason="start")
    toy.refresh()
    assert toy.current is None
    assert toy.unwell() is None


def test_a_bundle_whose_bytes_were_changed_is_never_loaded(
    register: Callable[..., Version], registry: Registry, live: Lives, tmp_path: Path
) -> None:
    toy = live()
    register("one")
    toy.refresh()
    version = register("two")
    store = tmp_path / "artifacts" / "models" / MODEL
    (store / version.files["bundle.json"]).write_text(json.dumps({"says": "evil"}))
    toy.refresh()
    assert serving(toy) == ("one", 1)
    assert "arrived damaged" in str(toy.unwell())


def test_a_bundle_that_a_dead_process_left_half_fetched_is_fetched_anew(
    register: Callable[..., Version], registry: Registry, live: Lives, tmp_path: Path
) -> None:
    folder = registry.fetch(register("one"), tmp_path / "cache")
    (folder / "bundle.json").write_text('{"sa')
    toy = live()
    toy.refresh()
    assert serving(toy) == ("one", 1)


def test_bundles_that_nobody_has_used_for_a_day_leave_the_cache(
    register: Callable[..., Version], live: Lives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = live()
    for says in ("one", "two"):
        register(says)
        toy.refresh()
    folders = tmp_path / "cache" / MODEL
    assert len(list(folders.iterdir())) == 2
    for name in "abcdefgh":  # as if another process took them away while this one looks
        (folders / name).symlink_to(tmp_path / "nothing")
    monkeypatch.setattr("genba_shared.live._FORGET_AFTER_S", -1.0)
    toy.refresh()
    assert [folder.name[:6] for folder in folders.iterdir() if folder.exists()] == ["000002"]


def test_a_started_one_follows_by_itself_and_survives_a_database_that_is_away(
    register: Callable[..., Version], registry: Registry, live: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("one")
    toy = live()
    toy.start()
    assert serving(toy) == ("one", 1)
    asked = threading.Event()

    def away(*_args: object) -> tuple[int | None, int]:
        asked.set()
        raise Unavailable("The database is busy or cannot be reached.")

    with monkeypatch.context() as patched:
        patched.setattr(registry, "peek", away)
        asked.wait(20)
        patched.setattr("genba_shared.live._BLIND_AFTER_S", -1.0)
        wait_until(lambda: isinstance(toy.unwell(), Degraded))
        assert "could not look" in str(toy.unwell())
    register("two")
    wait_until(lambda: serving(toy) == ("two", 2))
    toy.stop()
    register("three")
    assert serving(toy) == ("two", 2)


def test_readiness_shows_what_is_degraded_and_takes_out_only_what_cannot_serve(
    register: Callable[..., Version], live: Lives, platform: Platform
) -> None:
    toy = live()
    app = create_service("toy", title="Toy", platform=platform, lifespan=_nothing)
    app.state.readiness.add("model", toy.unwell)
    register("one")
    toy.refresh()
    register("broken")
    toy.refresh()
    with TestClient(app) as client:
        answer = client.get("/ready")
        assert answer.status_code == 200
        assert "version 1 serves" in answer.json()["degraded"]["model"]
        toy._loaded = None  # as if the one before did not load either
        assert client.get("/ready").status_code == 503


@asynccontextmanager
async def _nothing(_app: FastAPI) -> AsyncIterator[None]:
    yield
