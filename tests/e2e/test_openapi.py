"""The whole documented API, over thousands of generated requests: every answer is documented, none is a 5xx."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import make_url
from tests.e2e.exploration import Found, explore

from genba_shared.settings import Platform

pytestmark = [pytest.mark.xdist_group("openapi"), pytest.mark.long]

LEAST_CASES = 2000


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.distributed)])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """An exploration, on each database."""
    folder = tmp_path_factory.mktemp(f"openapi_{request.param}")
    platform = Platform(home=folder / "home", log_level="error")
    if request.param == "sqlite":
        yield explore(platform, folder)
        return
    server = make_url(request.getfixturevalue("postgres_server_url"))
    name = f"genba_test_{secrets.token_hex(6)}"
    engine = create_engine(server.set(database="postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            url = server.set(database=name).render_as_string(hide_password=False)
            yield explore(platform.model_copy(update={"database_url": url}), folder)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


# They need a model of svc-recommend that serves, and an experiment that ran: tests/recommend/service asks for them.
ASKED_ELSEWHERE = {
    "POST /v1/recommend/users/{user_id}/embedding",
    "GET /v1/recommend/models/{version}/offpolicy",
    "GET /v1/recommend/users/{user_id}/items/{item_id}/explanation",
    "POST /v1/recommend/experiments/{experiment_id}/promote",
}


def test_every_answer_is_documented_none_is_a_server_error_and_every_operation_also_answers_well(found: Found) -> None:
    """One test, because an exploration takes minutes: its parts are said by the message of what fails."""
    assert not found.failures, found.report()
    assert not found.errors, found.report()
    assert not [label for label, statuses in found.statuses.items() if any(status >= 500 for status in statuses)]
    assert found.cases >= LEAST_CASES
    # An operation that only ever refused would have been tested in name only.
    well = {label for label, statuses in found.statuses.items() if any(200 <= status < 300 for status in statuses)}
    assert found.operations - well - found.seeded <= ASKED_ELSEWHERE
