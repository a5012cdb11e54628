"""One database, SQLite or Postgres, behind one door: short transactions that commit at the edge, and upgrades.

Stores derive their tables from ``Record`` and use only its portable types. Knows no table and no service.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, DateTime, Engine, MetaData, create_engine, event, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import URL, Connection, Dialect, make_url
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.types import TypeDecorator

from genba_shared.problems import DiskFull, Invalid, Overloaded, Unavailable

BUSY_TIMEOUT_S = 30.0
_PASSING_ON_SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED")
_FULL_ON_POSTGRES = "53100"
_NOT_TEXT_ON_POSTGRES = {"22P05", "22021"}  # untranslatable_character, character_not_in_repertoire
_PASSING_ON_POSTGRES = (
    "08",
    "40",
    "53",
    "57P",
)  # connection, rollback (deadlock), resources, operator: SQLSTATE classes
# For libpq: a server whose machine or line is gone says nothing, and TCP alone would wait for a quarter of an hour. How long a
# statement takes is not bounded by these. What the url says goes before.
_PATIENCE = {
    "connect_timeout": 10,
    "tcp_user_timeout": 20_000,  # milliseconds
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_WRITES = "genba_writes"  # execution option: this transaction means to write


class UtcDateTime(TypeDecorator[datetime]):
    """A moment. Aware in Python, always UTC; a naive datetime is refused rather than guessed at."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone.")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class Record(DeclarativeBase):
    """A row of a table. The tables of every service share one metadata, hence one migration history. Prefix tables by service."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime}  # noqa: RUF012 (SQLAlchemy's own name and shape)


def utc_now() -> datetime:
    return datetime.now(UTC)


def take_turns(session: Session, on: str) -> None:
    """Wait for any other transaction that took its turn ``on`` the same name, and hold the name until this one ends.

    For what a row's lock cannot guard, such as a count that must not grow past a limit. SQLite has one writer anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(on, 0))))


def share_turn(session: Session, on: str) -> None:
    """Like ``take_turns``, beside others that share it: only who takes the turn alone waits, and is waited for."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock_shared(func.hashtextextended(on, 0))))


class Database:
    """A pool of connections to one database. Safe to share between threads; make a new one after a fork."""

    def __init__(self, url: str) -> None:
        self.url: URL = make_url(url)
        self.engine: Engine = connect(self.url)
        self._write = sessionmaker(self.engine.execution_options(**{_WRITES: True}), expire_on_commit=False)
        self._read = sessionmaker(self.engine.execution_options(postgresql_readonly=True), expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One unit of work: committed when the block ends, undone if it raises.

        On SQLite it takes the one write lock at its start (BEGIN IMMEDIATE), so that no writer fails half way
        through for having read too early. Keep it short, and send messages only after it.
        """
        with _passing_failures(), self._write() as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent look. Never waits for a writer; writing in it is refused by the database."""
        with _passing_failures(), self._read() as session:
            yield session

    def upgrade(self) -> None:
        """Bring the schema to the newest revision. Any number of processes may call it at the same moment."""
        if self._is_at_head():
            return
        from genba_shared.migrations import upgrade  # importing Alembic takes longer than most commands do

        upgrade(self.url)

    def newer_revision(self) -> str | None:
        """The schema's revision, where this code does not know it: a newer Genba has been here."""
        with self.engine.connect() as connection:
            found = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return None if found in revisions() else str(found)

    def _is_at_head(self) -> bool:
        """Whether nothing is missing, as far as one look tells; what it does not tell the upgrade itself finds out."""
        if self.is_sqlite and not Path(str(self.url.database)).exists():
            return False  # to look would make the file
        try:
            with self.engine.connect() as connection:
                found = connection.scalar(text("SELECT version_num FROM alembic_version"))
        except DBAPIError:
            return False
        return bool(found == revisions()[-1])

    def close(self) -> None:
        self.engine.dispose()


@cache
def revisions() -> tuple[str, ...]:
    """This code's revisions of the schema, oldest first: they are named in their order, and their files after them."""
    return tuple(sorted(path.stem for path in (Path(__file__).parent / "migrations" / "versions").glob("[0-9]*.py")))


@contextmanager
def _passing_failures() -> Iterator[None]:
    """What may work the next time is Unavailable, what no Postgres can store is Invalid; anything else stays what it is."""
    try:
        yield
    except PoolTimeout as error:
        raise Overloaded("All connections to the database are in use.", retry_after_s=1) from error
    except OperationalError as error:
        name = getattr(error.orig, "sqlite_errorname", "")
        if name == "SQLITE_FULL" or getattr(error.orig, "sqlstate", "") == _FULL_ON_POSTGRES:
            raise DiskFull(
                "The database's disk is full: its operator has to make room. Nothing was stored.", retry_after_s=60
            ) from error
        state = getattr(error.orig, "sqlstate", "")  # psycopg has None where it reached no server
        if state is None or name.startswith(_PASSING_ON_SQLITE) or state.startswith(_PASSING_ON_POSTGRES):
            raise Unavailable("The database is busy or cannot be reached.", retry_after_s=1) from error
        raise
    except DataError as error:
        state = getattr(error.orig, "sqlstate", None)
        if state in _NOT_TEXT_ON_POSTGRES or (state is None and "NUL" in str(error.orig)):
            raise Invalid(
                "A text holds a character that cannot be stored: U+0000 or half of a surrogate pair."
            ) from error
        raise


def connect(url: URL, **options: Any) -> Engine:
    """An engine with the settings that both databases need here; ``options`` go to SQLAlchemy."""
    if url.get_backend_name() == "sqlite":
        return _connect_sqlite(url, **options)
    patience = {name: value for name, value in _PATIENCE.items() if name not in url.query}
    return create_engine(url, pool_pre_ping=True, connect_args=patience, **options)


def _connect_sqlite(url: URL, **options: Any) -> Engine:
    if url.database in {None, "", ":memory:"}:
        raise ValueError(
            "An in-memory SQLite database has one connection per thread and none shared; use sqlite:///<file>."
        )
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, **options)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # the driver must not open transactions of its own: _begin_sqlite does
    _write_ahead(dbapi_connection)
    for pragma in ("synchronous = FULL", "foreign_keys = ON"):
        dbapi_connection.execute(f"PRAGMA {pragma}").close()


def _write_ahead(dbapi_connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on. Where several processes do so at once, SQLite refuses all but one, whatever its timeout is."""
    deadline_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            dbapi_connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(random.uniform(0.002, 0.02))  # noqa: S311 - only so that they do not collide again
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if writes else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
