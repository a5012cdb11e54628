"""The audit log: append-only, one chain, and no change to it goes unnoticed. On SQLite and on Postgres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from genba_shared import audit_verify
from genba_shared.audit import COLUMNS, GENESIS, AuditLog, AuditRow, Fields, append_in, hash_of
from genba_shared.db import Database


@contextmanager
def past_the_triggers(database: Database) -> Iterator[Session]:
    """What an attacker with the database's password can do."""
    with database.transaction() as session:
        if database.is_sqlite:
            for name in ("platform_audit_no_update", "platform_audit_no_delete"):
                session.execute(text(f"DROP TRIGGER {name}"))
        else:
            session.execute(text("SET LOCAL session_replication_role = replica"))
        yield session


def row_fields(row: AuditRow) -> Fields:
    return Fields(*(getattr(row, column.key) for column in COLUMNS))


@pytest.fixture
def log(database: Database) -> AuditLog:
    log = AuditLog(database)
    for n in range(1, 6):
        log.append("job_submitted", actor="key_1", subject=f"job_{n}", detail={"recipe": "sem.train", "n": n})
    return log


def test_an_intact_log_verifies_and_says_its_head(log: AuditLog) -> None:
    report = log.verify()
    assert report.intact
    assert report.entries == 5
    assert report.head == log.entries()[-1].hash


def test_an_empty_log_is_intact(database: Database) -> None:
    report = AuditLog(database).verify()
    assert (report.intact, report.entries, report.head) == (True, 0, GENESIS)


def test_entries_come_back_as_they_were_written_a_page_at_a_time(log: AuditLog) -> None:
    first, second = log.entries(after_seq=1, limit=2)
    assert (first.seq, first.event, first.actor, first.subject) == (2, "job_submitted", "key_1", "job_2")
    assert first.detail == {"recipe": "sem.train", "n": 2}
    assert second.seq == 3


@pytest.mark.parametrize(
    "statement",
    ["UPDATE platform_audit SET actor = 'somebody else' WHERE seq = 2", "DELETE FROM platform_audit WHERE seq = 5"],
)
def test_the_database_refuses_to_change_or_delete_an_entry(log: AuditLog, database: Database, statement: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as session:
        session.execute(text(statement))
    assert log.verify().intact


def test_postgres_refuses_to_empty_the_log_at_once(log: AuditLog, database: Database) -> None:
    if database.is_sqlite:
        return  # has no TRUNCATE
    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as session:
        session.execute(text("TRUNCATE platform_audit"))


def edit(session: Session) -> None:
    session.execute(update(AuditRow).where(AuditRow.seq == 3).values(actor="somebody else"))


def remove(session: Session) -> None:
    session.execute(delete(AuditRow).where(AuditRow.seq == 3))


def swap(session: Session) -> None:
    for before, after in ((3, 99), (4, 3), (99, 4)):
        session.execute(update(AuditRow).where(AuditRow.seq == before).values(seq=after))


def slip_in(session: Session) -> None:
    """A forged third entry whose own hash is right, with the later ones moved up."""
    for seq in (5, 4, 3):
        session.execute(update(AuditRow).where(AuditRow.seq == seq).values(seq=seq + 1))
    before = session.scalars(select(AuditRow).where(AuditRow.seq == 2)).one()
    forged = AuditRow(
        seq=3, at=before.at, event="e", actor="a", subject="s", detail="{}", previous_hash=before.hash, hash=""
    )
    forged.hash = hash_of(row_fields(forged).entry())
    session.add(forged)


def rewrite_one_with_its_hash(session: Session) -> None:
    row = session.scalars(select(AuditRow).where(AuditRow.seq == 3)).one()
    row.detail = '{"n":0}'
    row.hash = hash_of(row_fields(row).entry())


def put_before_the_first(session: Session) -> None:
    values = {"seq": 0, "at": "", "event": "e", "actor": "a", "subject": "s", "detail": "{}"}
    session.execute(insert(AuditRow).values(**values, previous_hash=GENESIS, hash=GENESIS))


@pytest.mark.parametrize(
    ("tamper", "broken_at"),
    [(edit, 3), (remove, 3), (swap, 3), (slip_in, 4), (rewrite_one_with_its_hash, 4), (put_before_the_first, 1)],
)
def test_verify_finds_where_the_log_was_tampered_with(
    log: AuditLog, database: Database, tamper: Callable[[Session], None], broken_at: int
) -> None:
    with past_the_triggers(database) as session:
        tamper(session)
    report = log.verify()
    assert not report.intact
    assert report.broken_at == broken_at
    assert report.reason


def test_a_cut_off_end_is_found_by_who_kept_the_head(log: AuditLog, database: Database) -> None:
    head = log.verify().head
    log.append("later", actor="a", subject="s")
    assert log.verify(expected_head=head).intact
    with past_the_triggers(database) as session:
        session.execute(delete(AuditRow).where(AuditRow.seq >= 5))
    assert log.verify().intact
    assert not log.verify(expected_head=head).intact


def test_verify_walks_a_log_longer_than_a_page(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_verify, "PAGE_ROWS", 2)
    assert log.verify().entries == 5


def test_concurrent_appenders_make_one_chain(database: Database) -> None:
    log = AuditLog(database)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: log.append("e", actor="a", subject=str(n)), range(100)))
    assert log.verify().entries == 100
    assert log.verify().intact


def test_an_entry_shares_the_fate_of_the_effect_it_tells_of(log: AuditLog, database: Database) -> None:
    def fail() -> None:
        with database.transaction() as session:
            append_in(session, "never_happened", actor="a", subject="s")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert log.verify().entries == 5
    log.append("goes_on", actor="a", subject="s")
    assert log.verify().intact
