"""What tests of every package share: databases of both kinds, an embedded platform, principals.

A test that takes ``database`` or ``database_url`` runs once on SQLite and once on Postgres; the Postgres half is marked
``distributed``. Without its servers such a test is skipped on a person's machine and fails when CI=true.
"""

from __future__ import annotations

import functools
import gc
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import URL, make_url

from genba_shared import migrations
from genba_shared.db import Database
from genba_shared.principal import PRINCIPAL_HEADER, Clearance, Principal, scopes_of, sign
from genba_shared.settings import Platform

_MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes a folder there that nobody else can enter
_ENOUGH_BYTES = 2 << 30  # ten times what lies there at once


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free if folder.is_dir() else 0


# Two workers on two cores: with more threads, those of torch and numpy would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", ".venv/.cache/hypothesis")  # beside the tools' other caches
# What is stored is synced, as it must be, and a disk takes milliseconds for that: in memory the tests wait for none.
if psutil.virtual_memory().available > _ENOUGH_BYTES and _free_bytes(_MEMORY) > _ENOUGH_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
gc.disable()  # until all is collected: nothing that importing makes is garbage, and looking for it is a fifth of the time

POSTGRES_URL = os.environ.get("GENBA_TEST_POSTGRES_URL", "postgresql+psycopg://postgres@127.0.0.1:5432")
REDIS_URL = os.environ.get("GENBA_TEST_REDIS_URL", "redis://127.0.0.1:6379")

_EMPTY_ALL_TABLES = """
DO $$ DECLARE found record; BEGIN
  SET LOCAL session_replication_role = replica;  -- no triggers: the audit log refuses to be emptied otherwise
  FOR found IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
    EXECUTE format('DELETE FROM public.%I', found.tablename);
  END LOOP;
END $$
"""
_DISCONNECT_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a module run in one worker, so that what they share is made once; groups that start servers begin first."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_file(item)))
    items.sort(key=lambda item: _file(item) == _group(item))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What collecting has loaded stays to the end: no later collection of garbage need look through its millions of objects.

    And say so if this pytest and this xdist do not group: every worker would start every server, in silence.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    if session.config.getoption("loadgroup", default=False):
        ungrouped = [item.nodeid for item in session.items if not item.nodeid.endswith(f"@{_group(item)}")]
        if ungrouped:
            raise pytest.UsageError(
                f"pytest-xdist {version('pytest-xdist')} ignores groups with pytest {pytest.__version__}"
            )


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return "" if mark is None else str(mark.args[0])


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("distributed") is None:
        return
    missing = [url for url in (POSTGRES_URL, REDIS_URL) if not _listens(url)]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"CI must run this against real servers; nothing listens at {', '.join(missing)}.", pytrace=False)
    if missing:
        pytest.skip(f"needs servers; nothing listens at {', '.join(missing)}")


@functools.cache
def _listens(url: str) -> bool:
    parsed = make_url(url)
    default_port = 6379 if parsed.drivername.startswith("redis") else 5432
    try:
        socket.create_connection((parsed.host or "127.0.0.1", parsed.port or default_port), timeout=2).close()
    except OSError:
        return False
    return True


@pytest.fixture(autouse=True)
def _settings_come_from_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own GENBA_… variables do not reach the code under test."""
    for name in list(os.environ):
        if name.startswith("GENBA_") and not name.startswith("GENBA_TEST_") and name != "GENBA_DATA":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server_url() -> str:
    """The server's address, for tests marked ``distributed`` that make databases of their own."""
    return POSTGRES_URL


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A real Redis, shared with other test runs: use keys of your own. For tests marked ``distributed``."""
    return REDIS_URL


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of Prometheus's checker; Prometheus itself lies beside it."""
    found = shutil.which("promtool")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("CI must have promtool (Debian: apt-get install prometheus).", pytrace=False)
    if found is None:
        pytest.skip("needs promtool (Debian: apt-get install prometheus)")
    return found


def _on_server(*statements: str) -> None:
    engine = create_engine(
        make_url(POSTGRES_URL).set(database="postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.fixture
def new_postgres_database() -> Iterator[Callable[[], str]]:
    """Makes empty databases, thrown away after the test; dropping one takes half a second."""
    made: list[str] = []

    def make() -> str:
        name = f"genba_test_{secrets.token_hex(6)}"
        _on_server(f"CREATE DATABASE {name}", f"ALTER DATABASE {name} SET synchronous_commit = off")
        made.append(name)
        return make_url(POSTGRES_URL).set(database=name).render_as_string(hide_password=False)

    yield make
    for name in made:
        _on_server(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def _upgraded_postgres() -> Iterator[str]:
    """One throwaway database for the whole session, upgraded once."""
    name = f"genba_test_{secrets.token_hex(6)}"
    _on_server(f"CREATE DATABASE {name}", f"ALTER DATABASE {name} SET synchronous_commit = off")
    url = make_url(POSTGRES_URL).set(database=name).render_as_string(hide_password=False)
    database = Database(url)
    database.upgrade()
    database.close()
    yield url
    _on_server(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def _upgraded_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "genba.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.close()
    return path


@pytest.fixture(autouse=True)
def _new_sqlite_databases_are_copies(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _upgraded_sqlite: Path
) -> None:
    """What the revisions make of an empty file is always the same, and two thirds of the time of a test that opens a service: so
    they run once a session. Tests of the upgrade itself run them, and so do processes that tests start.
    """
    if "empty_database_url" in request.fixturenames:
        return
    upgrade = migrations.upgrade

    def copy_then_upgrade(url: URL) -> None:
        path = Path(url.database or "")
        if url.get_backend_name() == "sqlite" and path.parent.is_dir() and not path.exists():
            copied = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            shutil.copyfile(_upgraded_sqlite, copied)
            with suppress(FileExistsError):  # somebody else was quicker
                os.link(copied, path)
            copied.unlink()
        upgrade(url)

    monkeypatch.setattr(migrations, "upgrade", copy_then_upgrade)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.distributed)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An upgraded database without rows, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{shutil.copy(request.getfixturevalue('_upgraded_sqlite'), tmp_path / 'genba.db')}"
        return
    url: str = request.getfixturevalue("_upgraded_postgres")
    yield url
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(_DISCONNECT_OTHERS))
        connection.execute(text(_EMPTY_ALL_TABLES))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The same, opened."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.distributed)])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables, of each kind; for what concerns upgrades."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    make: Callable[[], str] = request.getfixturevalue("new_postgres_database")
    return make()


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """Embedded mode in a folder of its own; nothing is in it yet."""
    return Platform(home=tmp_path / "home", log_format="console")


@pytest.fixture
def principal() -> Callable[..., Principal]:
    """Builds principals: ``principal("viewer", clearance=Clearance.SECRET)``."""

    def build(
        *roles: str,
        subject: str = "key_test",
        clearance: Clearance = Clearance.INTERNAL,
        tenant: str = "default",
        compartments: frozenset[str] = frozenset(),
    ) -> Principal:
        return Principal(subject, roles, scopes_of(roles), clearance, compartments, tenant)

    return build


@pytest.fixture
def signed(platform: Platform, principal: Callable[..., Principal]) -> Callable[..., dict[str, str]]:
    """The headers with which the gateway would forward a request: ``client.get(url, headers=signed("viewer"))``."""

    def headers(*roles: str, **fields: object) -> dict[str, str]:
        return {PRINCIPAL_HEADER: sign(principal(*roles, **fields), platform.load_principal_secret())}

    return headers
