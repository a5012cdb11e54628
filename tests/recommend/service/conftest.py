"""The recommender's service over both databases."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.recommend.model_world import SMALL, Trained, fill, runner_for, serving, somebody
from tests.recommend.shop_world import Headers, Service

from genba_recommend.app import create_app
from genba_recommend.generator import generate
from genba_recommend.settings import Settings
from genba_shared.settings import Platform


@pytest.fixture
def settings(platform: Platform, database_url: str) -> Settings:
    return Settings(platform=platform.model_copy(update={"database_url": database_url}), poll_s=60.0)


@pytest.fixture
def service(settings: Settings, signed: Headers) -> Iterator[Service]:
    """svc-recommend, over SQLite and over Postgres."""
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Service(client, app.state.recommend, signed)


@pytest.fixture
def sqlite_service(platform: Platform, signed: Headers) -> Iterator[Service]:
    """svc-recommend in embedded mode, for what has nothing to do with the database."""
    app = create_app(Settings(platform=platform, poll_s=60.0))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Service(client, app.state.recommend, signed)


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A service's home after a world was sent to it, and after one version was trained too: made once, copied for each test."""
    folder = tmp_path_factory.mktemp("homes")
    homes = {"filled": folder / "filled", "trained": folder / "trained"}
    with serving(homes["filled"]) as service:
        fill(service, SMALL)
    shutil.copytree(homes["filled"], homes["trained"])
    with serving(homes["trained"]) as service:
        made(service).train()
    return homes


def made(service: Service) -> Trained:
    return Trained(service, generate(SMALL, seed=0), runner_for(service), somebody("engineer"))


@pytest.fixture
def untrained(_homes: dict[str, Path], tmp_path: Path) -> Iterator[Trained]:
    """A service over a generated world, with no model yet."""
    with serving(shutil.copytree(_homes["filled"], tmp_path / "home")) as service:
        yield made(service)


@pytest.fixture
def trained(_homes: dict[str, Path], tmp_path: Path) -> Iterator[Trained]:
    """A service over a generated world, with version 1 serving."""
    with serving(shutil.copytree(_homes["trained"], tmp_path / "home")) as service:
        yield made(service)
