"""The recommender's service over both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from tests.recommend.shop_world import Headers, Service

from genba_recommend.app import create_app
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
