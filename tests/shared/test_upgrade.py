"""A database that an older release left is upgraded with all that is in it, on both databases."""

from __future__ import annotations

import lzma
import sqlite3
from collections import Counter
from pathlib import Path

from alembic import command
from sqlalchemy import Connection, MetaData, Table, create_engine, func, insert, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from genba_gateway.keys import Keys
from genba_shared import migrations
from genba_shared.audit import AuditLog
from genba_shared.db import Database, Record
from genba_shared.job_rows import JobRow
from genba_shared.job_upkeep import Upkeep
from genba_training.schedules import ScheduleRow

OLD = Path(__file__).parent / "homes" / "0017.sql.xz"
REVISION = "0017_labels_of_names"
HEAD = "6397352818938b62d6c3082fea05fa9837318def7e778e7fb0f248d63089cb60"  # of the log, as the old release said


def old_home(folder: Path) -> str:
    """The old database as its release left it."""
    path = folder / "old.db"
    with sqlite3.connect(path) as database:
        database.executescript(lzma.decompress(OLD.read_bytes()).decode())
    database.close()
    return f"sqlite:///{path}"


def move(old_url: str, url: str) -> None:
    """The same rows in another database at the same revision, as who moves to a server has them."""
    with migrations._locked(make_url(url)) as connection:
        command.upgrade(migrations._config(connection), REVISION)
    source = create_engine(old_url)
    target = create_engine(url)
    try:
        with source.connect() as reading, target.begin() as writing:
            theirs = MetaData()
            theirs.reflect(writing)
            for table in theirs.sorted_tables:
                if table.name != "alembic_version":
                    _copy(table, reading, writing)
    finally:
        source.dispose()
        target.dispose()


def _copy(table: Table, reading: Connection, writing: Connection) -> None:
    declared = Record.metadata.tables[table.name]  # its types read what the other database wrote
    columns = [declared.c[column.name] for column in table.columns if column.name in declared.c]
    rows = [dict(row) for row in reading.execute(select(*columns)).mappings()]
    if writing.scalar(select(func.count()).select_from(table)):  # what the migrations themselves put there
        writing.execute(table.delete())
    if rows:
        writing.execute(insert(declared).inline(), rows)


def counts(url: str) -> Counter[str]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            names = inspect(connection).get_table_names()
            return Counter({name: connection.scalar(text(f"SELECT count(*) FROM {name}")) or 0 for name in names})  # noqa: S608
    finally:
        engine.dispose()


def test_a_database_of_an_older_release_is_upgraded_with_all_that_is_in_it(
    empty_database_url: str, tmp_path: Path
) -> None:
    migrations.import_tables()
    old_url = url = old_home(tmp_path)
    if not empty_database_url.startswith("sqlite"):
        url = empty_database_url
        move(old_url, url)
    before = counts(url)
    assert sum(before.values()) > 400
    database = Database(url)
    try:
        database.upgrade()
        assert [str(each) for each in migrations.differences(database.url)] == []
        after = counts(url)
        assert {name: after[name] for name in before} == before
        with database.read() as session:
            _read_all(session)
        log = AuditLog(database).verify(expected_head=HEAD)
        assert (log.intact, log.entries, log.head) == (True, 60, HEAD)
        assert all(key.principal.subject for key in Keys(database, env="prod").list())
        _jobs_go_on(database)
    finally:
        database.close()


def _read_all(session: Session) -> None:
    """Every row as today's code reads it."""
    read = 0
    for mapper in Record.registry.mappers:
        rows = session.scalars(select(mapper.class_)).all()
        for row in rows:
            assert all(hasattr(row, attribute.key) for attribute in mapper.column_attrs)
        read += len(rows)
    assert read > 400
    for owned in (*session.scalars(select(JobRow)), *session.scalars(select(ScheduleRow))):
        assert owned.principal.tenant == "default"


def _jobs_go_on(database: Database) -> None:
    """What ran when the old release was killed has lost its worker and waits again, beside what waited."""
    with database.read() as session:
        running = session.scalar(select(func.count()).where(JobRow.status == "running"))
        queued = session.scalar(select(func.count()).where(JobRow.status == "queued"))
    assert (running, queued) == (1, 5)
    upkeep = Upkeep(database)
    assert [job.status for job in upkeep.expire_leases()] == ["queued"]
    assert len(upkeep.unpublished(limit=100, limits={})) == 6
