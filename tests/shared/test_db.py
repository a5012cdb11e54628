"""The database's promises, on SQLite and on Postgres."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, String, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from typer.testing import CliRunner

from genba_shared import db, migrations
from genba_shared.audit import AuditRow
from genba_shared.db import Database, UtcDateTime
from genba_shared.idempotency import IdempotencyRow
from genba_shared.migrations.__main__ import app
from genba_shared.problems import DiskFull, Invalid, Unavailable

MOMENT = datetime(2026, 11, 21, 12, 30, 0, 123456, tzinfo=timezone(timedelta(hours=9)))


def row(key: str, *, body: object = None) -> IdempotencyRow:
    return IdempotencyRow(
        tenant="default", subject="s", key=key, fingerprint="f", claimed_until=MOMENT, expires_at=MOMENT, body=body
    )


def keys(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(IdempotencyRow.key).order_by(IdempotencyRow.key)))


def test_a_transaction_commits_when_its_block_ends(database: Database) -> None:
    with database.transaction() as session:
        session.add(row("a"))
    assert keys(database) == ["a"]


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def write_and_fail() -> None:
        with database.transaction() as session:
            session.add(row("a"))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert keys(database) == []


def test_writing_inside_a_read_is_refused_by_the_database(database: Database) -> None:
    with database.read() as session, pytest.raises(DBAPIError):
        session.execute(text("DELETE FROM platform_idempotency"))
    with database.transaction() as session:  # the same pooled connection may write again
        session.add(row("a"))
    assert keys(database) == ["a"]


def test_a_reader_sees_one_state_and_does_not_wait_for_a_writer(database: Database) -> None:
    with database.transaction() as writing:
        writing.add(row("a"))
        writing.flush()
        assert keys(database) == []


def test_writers_of_many_threads_all_get_their_turn(database: Database) -> None:
    def increment() -> None:
        for _ in range(10):
            with database.transaction() as session:
                found = session.get(IdempotencyRow, ("default", "s", "n"), with_for_update=True)
                assert found is not None
                found.status = (found.status or 0) + 1

    with database.transaction() as session:
        session.add(row("n"))
    threads = [threading.Thread(target=increment) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.scalars(select(IdempotencyRow.status)).one() == 80


def test_a_moment_comes_back_in_utc_and_equal(database: Database) -> None:
    with database.transaction() as session:
        session.add(row("a"))
    with database.read() as session:
        found = session.scalars(select(IdempotencyRow.expires_at)).one()
    assert found == MOMENT
    assert found.tzinfo is UTC
    with database.read() as session:
        later = select(IdempotencyRow.key).where(IdempotencyRow.expires_at > MOMENT - timedelta(microseconds=1))
        assert session.scalars(later).all() == ["a"]


def test_a_moment_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        UtcDateTime().process_bind_param(datetime(2026, 11, 21), None)  # type: ignore[arg-type]  # noqa: DTZ001


@pytest.mark.parametrize("value", [None, 3, "text", [1, None], {"深い": {"a": 1.5}}])
def test_json_comes_back_as_it_went_in(database: Database, value: object) -> None:
    with database.transaction() as session:
        session.add(row("a", body=value))
    with database.read() as session:
        assert session.scalars(select(IdempotencyRow.body)).one() == value


def test_a_second_row_with_the_same_key_is_refused(database: Database) -> None:
    with database.transaction() as session:
        session.add(row("a"))
    with pytest.raises(IntegrityError), database.transaction() as session:
        session.add(row("a"))


def test_sqlite_runs_in_wal_with_foreign_keys_and_full_sync(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/deep/er/genba.db")
    with database.read() as session:
        pragmas = [
            session.execute(text(f"PRAGMA {n}")).scalar() for n in ("journal_mode", "foreign_keys", "synchronous")
        ]
    database.close()
    assert pragmas == ["wal", 1, 2]


def test_an_in_memory_database_is_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="in-memory"):
        Database("sqlite://")


def test_a_database_that_cannot_be_reached_is_unavailable() -> None:
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    for use in (database.read, database.transaction):
        with pytest.raises(Unavailable, match="cannot be reached"), use() as session:
            session.execute(text("SELECT 1"))


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(db._PATIENCE, "connect_timeout", 2)  # the least that libpq knows
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = Database(f"postgresql+psycopg://nobody@127.0.0.1:{silent.getsockname()[1]}/genba")
        with pytest.raises(Unavailable), database.read() as session:
            session.execute(text("SELECT 1"))
        database.close()


@pytest.mark.distributed
def test_a_line_that_was_cut_is_noticed_in_seconds_unless_the_url_says_otherwise(postgres_server_url: str) -> None:
    url = make_url(postgres_server_url)
    for asked, found in ((url, "20000"), (url.update_query_dict({"tcp_user_timeout": "5000"}), "5000")):
        database = Database(asked.render_as_string(hide_password=False))
        with database.engine.connect() as connection:
            parameters = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]  # connected
        assert (parameters["tcp_user_timeout"], parameters["keepalives_idle"]) == (found, "20")
        database.close()


def test_a_writer_that_waited_too_long_is_told_to_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0.0)
    url = f"sqlite:///{tmp_path}/genba.db"
    first, second = Database(url), Database(url)
    with first.transaction() as writing:
        writing.execute(text("CREATE TABLE t (n INTEGER)"))
        with pytest.raises(Unavailable) as told, second.transaction() as session:
            session.execute(text("SELECT 1"))
    assert told.value.headers["Retry-After"] == "1"
    first.close()
    second.close()


def test_a_full_disk_is_said_and_what_is_there_can_be_read(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/genba.db")
    with database.transaction() as session:
        session.execute(text("CREATE TABLE t (data BLOB)"))
        session.execute(text("INSERT INTO t VALUES ('kept')"))

    def fill() -> None:
        with database.transaction() as session:
            session.execute(text("PRAGMA max_page_count = 10"))  # as on a disk of 40 KB
            session.execute(text("INSERT INTO t VALUES (zeroblob(1000000))"))

    with pytest.raises(DiskFull, match="make room") as told:
        fill()
    assert (told.value.status, told.value.headers["Retry-After"]) == (503, "60")
    with database.read() as session:
        assert session.scalars(text("SELECT data FROM t")).all() == ["kept"]
    database.close()


def test_a_mistake_in_a_query_stays_a_mistake(database: Database) -> None:
    with pytest.raises(DBAPIError), database.read() as session:
        session.execute(text("SELECT * FROM no_such_table"))


def test_an_upgrade_from_empty_makes_what_the_code_declares(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    assert [str(d) for d in migrations.differences(database.url)] != []
    database.upgrade()
    assert [str(d) for d in migrations.differences(database.url)] == []
    database.upgrade()  # nothing to do the second time
    database.close()


def test_every_revision_continues_the_one_before_and_can_be_undone(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    database.upgrade()
    migrations.downgrade(database.url)
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}
    database.upgrade()
    database.close()
    in_order = [script.revision for script in ScriptDirectory(str(migrations.HISTORY)).walk_revisions()][::-1]
    assert list(db.revisions()) == in_order
    assert [name[:4] for name in in_order] == [f"{n:04}" for n in range(1, len(in_order) + 1)]


def test_a_schema_that_is_at_head_is_left_alone_without_alembic(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    database.upgrade()
    database.close()
    start = "import sys; from genba_shared.db import Database; Database(sys.argv[1]).upgrade(); print('alembic' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", start, empty_database_url], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
    migrations.downgrade(database.url, "0016_ordered_reads")
    migrated = Database(empty_database_url)
    migrated.upgrade()
    with migrated.read() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == db.revisions()[-1]
    migrated.close()


OPEN_TOGETHER = """
import sys, time
from sqlalchemy import NullPool, make_url
from genba_shared.db import connect

folder = sys.argv[1]
print(flush=True)
start_s = float(sys.stdin.readline())
for at in range(250):
    while time.time() < start_s + at / 100:
        pass
    with connect(make_url(f"sqlite:///{folder}/{at}.db"), poolclass=NullPool).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
"""


@pytest.mark.long
def test_processes_that_open_a_new_sqlite_file_at_the_same_moment_all_get_it(tmp_path: Path) -> None:
    """Turning the write-ahead log on needs the file alone, and SQLite refuses some of those who want it at once without waiting."""
    argv = [sys.executable, "-c", OPEN_TOGETHER, str(tmp_path)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    start = f"{time.time() + 0.5}\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(start)
        process.stdin.flush()
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said


@pytest.mark.long
def test_processes_that_upgrade_at_the_same_moment_make_one_schema(empty_database_url: str) -> None:
    upgrade = [sys.executable, "-m", "genba_shared.migrations", "upgrade", "--url", empty_database_url]
    processes = [subprocess.Popen(upgrade, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert migrations.differences(make_url(empty_database_url)) == []


def test_the_release_before_starts_on_a_schema_that_a_newer_one_has_expanded(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    database.upgrade()
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    database.upgrade()
    with database.read() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "9999_later"
    database.close()


def test_an_upgrade_that_fails_half_way_leaves_the_schema_as_it_was(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upgrade_and_fail(config: Config, revision: str) -> None:
        upgrade_really(config, revision)
        raise RuntimeError("the lights go out")

    upgrade_really = command.upgrade
    monkeypatch.setattr(command, "upgrade", upgrade_and_fail)
    database = Database(empty_database_url)
    with pytest.raises(RuntimeError, match="lights"):
        database.upgrade()
    assert inspect(database.engine).get_table_names() == []
    database.close()


def test_the_command_upgrades_and_says_what_differs(tmp_path: Path) -> None:
    url, run = f"sqlite:///{tmp_path}/genba.db", CliRunner().invoke
    before = run(app, ["check", "--url", url])
    assert before.exit_code == 1
    assert "The code would add_table platform_audit." in before.output
    assert run(app, ["upgrade", "--url", url]).exit_code == 0
    assert run(app, ["check", "--url", url]).exit_code == 0


def test_the_check_finds_a_column_that_no_migration_makes(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    database.upgrade()
    column: Column[str] = Column("never_migrated", String)
    AuditRow.metadata.tables["platform_audit"].append_column(column)
    try:
        assert "never_migrated" in str(migrations.differences(database.url))
    finally:
        AuditRow.metadata.tables["platform_audit"]._columns.remove(column)
        database.close()


def test_every_module_that_declares_a_table_is_known_to_the_check() -> None:
    assert {"genba_shared.audit", "genba_shared.idempotency"} <= set(migrations.import_tables())


@pytest.mark.distributed
def test_a_text_that_postgres_cannot_store_is_the_callers_to_mend(new_postgres_database: Callable[[], str]) -> None:
    database = Database(new_postgres_database())
    try:
        for statement in ("SELECT CAST(:text AS jsonb)", "SELECT CAST(:text AS text)"):
            with pytest.raises(Invalid, match=r"U\+0000"), database.transaction() as session:
                session.execute(text(statement), {"text": '"\\u0000"' if "jsonb" in statement else "\x00"})
    finally:
        database.close()
