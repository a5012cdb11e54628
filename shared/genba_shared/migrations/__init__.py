"""The one history of the schema, and its moves: upgrade, check, revision. ``python -m genba_shared.migrations --help``.

Revisions are linear and named (0001_platform, 0002_jobs …); tables are prefixed per service; change is
expand → migrate → contract, so that the release before still runs on the newer schema.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import NullPool, text
from sqlalchemy.engine import URL, Connection

from genba_shared.db import Record, connect, revisions
from genba_shared.telemetry import get_logger

HISTORY = Path(__file__).parent
_ADVISORY_LOCK = 0x67656E6261  # "genba": any number that every process of ours agrees on
log = get_logger(__name__)

_in_this_process = threading.Lock()  # Alembic keeps its context in module globals
_DOMAINS = ("shared", "gateway", "training", "sop", "llm", "recommend", "sem")


def upgrade(url: URL) -> None:
    """Run what is missing. A schema newer than this code is left alone: contracting waits a release, so it serves us too."""
    with _locked(url) as connection:
        config = _config(connection)
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision is not None and revision not in revisions():
            log.warning("schema_is_newer_than_the_code", revision=revision)
            return
        command.upgrade(config, "head")


def downgrade(url: URL, revision: str = "base") -> None:
    """Undo revisions down to ``revision``, with the data they held. For tests and for people in need."""
    with _locked(url) as connection:
        command.downgrade(_config(connection), revision)


@contextmanager
def _locked(url: URL) -> Iterator[Connection]:
    """One transaction under one lock: all of a move or nothing of it, by one process at a time."""
    sqlite = url.get_backend_name() == "sqlite"
    engine = connect(url, poolclass=NullPool)
    try:
        with _in_this_process, engine.connect() as connection:
            if sqlite:
                # A batch migration rebuilds tables; with foreign keys on, dropping the old would delete its children.
                connection.connection.cursor().execute("PRAGMA foreign_keys = OFF").close()
            connection.execution_options(genba_writes=True)
            with connection.begin():  # on SQLite this is the lock: BEGIN IMMEDIATE
                if not sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
                yield connection
                if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()):
                    raise RuntimeError(f"The move would leave {len(broken)} rows without their parent: {broken[:3]}.")
    finally:
        engine.dispose()


def differences(url: URL) -> list[Any]:
    """What the tables in code have and the upgraded database has not, or the other way; empty when they agree."""
    import_tables()
    engine = connect(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            return list(compare_metadata(context, Record.metadata))
    finally:
        engine.dispose()


def write_revision(url: URL, revision: str, message: str) -> None:
    """Write the next revision from what the code has and the database lacks; a draft to be read, not a result."""
    import_tables()
    engine = connect(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            command.revision(_config(connection), message=message, rev_id=revision, autogenerate=True)
    finally:
        engine.dispose()


def import_tables() -> list[str]:
    """Import every module of Genba that declares a table, wherever it lives; the names imported."""
    found = []
    for domain in _DOMAINS:
        package = importlib.util.find_spec(f"genba_{domain}")
        for folder in (package.submodule_search_locations or []) if package else []:
            found += [
                f"genba_{domain}.{module.stem}"
                for module in sorted(Path(folder).glob("*.py"))
                if "__tablename__" in module.read_text(encoding="utf-8")
            ]
    for name in found:
        importlib.import_module(name)
    return found


def _config(connection: Connection) -> Config:
    config = Config(stdout=sys.stderr)
    config.set_main_option("script_location", str(HISTORY).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(rev)s")
    config.attributes["connection"] = connection
    return config
