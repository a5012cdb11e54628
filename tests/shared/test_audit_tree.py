"""The Merkle tree over the audit log: sealed, proven, exported, witnessed, and tampered with. On SQLite and on Postgres."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from tests.shared.test_audit import past_the_triggers
from tests.shared.test_merkle import mth
from typer.testing import CliRunner

from genba_shared import audit_drill, audit_verify, audit_writer
from genba_shared.audit import AuditEntry, AuditLog, AuditRow, NewEntry, append_in
from genba_shared.audit_cli import app
from genba_shared.audit_export import Witness, check_proof, export, proof_text, restrict
from genba_shared.audit_tree import AuditBroken, AuditCheckpoint, AuditTile, newest_note, prove, rows_between, seal_in
from genba_shared.audit_writer import AuditWriter, SyslogSink
from genba_shared.db import Database
from genba_shared.problems import Conflict, Draining, NotFound
from genba_shared.tlog import Checkpoint, NoteKey, NoteSigner, NotSigned, open_checkpoint, read_bundle, tile_path

SIGNER = NoteSigner("test.local/audit", bytes(range(32)))
RUN = CliRunner().invoke


def entry(n: int) -> NewEntry:
    return NewEntry("llm.decision", "key_1", f"dec_{n}", {"decision": "ALLOW", "event_id": 1001, "n": n})


@pytest.fixture
def writer(database: Database) -> Iterator[AuditWriter]:
    writer = AuditWriter(database, SIGNER)
    yield writer
    writer.close()


def verified(database: Database) -> AuditLog:
    return AuditLog(database, key=SIGNER.key)


def test_what_is_appended_is_durable_sealed_and_whole(writer: AuditWriter, database: Database) -> None:
    written = writer.append_all([entry(n) for n in range(600)])
    writer.append("llm.decision", actor="key_2", subject="dec_600")
    report = verified(database).verify()
    assert (report.intact, report.entries, report.sealed) == (True, 601, 601)
    assert [each.seq for each in written] == list(range(1, 601))
    with database.read() as session:
        leaves = [row.entry() for row in rows_between(session, 0, 601)]
        assert session.scalar(select(func.count()).select_from(AuditTile)) == 2
    assert report.root == mth(leaves).hex()


def test_checkpoints_are_read_along_the_way_however_many_there_are(
    writer: AuditWriter, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(40):
        writer.append_all([entry(n)])
    opened: list[str] = []

    def counted(note: str, keys: Sequence[NoteKey]) -> Checkpoint:
        opened.append(note)
        return open_checkpoint(note, keys)

    monkeypatch.setattr(audit_verify, "PAGE_ROWS", 8)
    monkeypatch.setattr(audit_verify, "open_checkpoint", counted)
    report = verified(database).verify()
    assert (report.intact, report.sealed, len(opened)) == (True, 40, 40)
    opened.clear()
    with past_the_triggers(database) as session:
        session.execute(text("UPDATE platform_audit SET actor = 'x' WHERE seq = 11"))
    assert verified(database).verify().broken_at == 11
    assert len(opened) == 16  # those of two pages: more than that is never held


def test_many_threads_share_few_transactions(database: Database) -> None:
    batches: list[int] = []
    writer = AuditWriter(database, SIGNER, on_batch=batches.append)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: writer.append("e", actor="a", subject=str(n)), range(300)))
    writer.close()
    assert sorted(each.seq for each in found) == list(range(1, 301))
    assert sum(batches) == 300
    assert len(batches) < 300
    assert verified(database).verify().sealed == 300


def test_what_meets_a_log_that_closes_is_refused_and_never_left_waiting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = AuditWriter(database, SIGNER)

    def closes_first() -> Future[list[AuditEntry]]:
        writer.close()
        return Future()

    monkeypatch.setattr(audit_writer, "Future", closes_first)
    with pytest.raises(Draining):
        writer.submit([entry(1)]).result(timeout=60)


def test_entries_that_others_append_are_taken_in_with_the_next_seal(writer: AuditWriter, database: Database) -> None:
    writer.append_all([entry(n) for n in range(250)])
    with database.transaction() as session:
        for n in range(20):
            append_in(session, "key_created", actor="key_1", subject=f"key_{n}")
    report = verified(database).verify()
    assert (report.intact, report.entries, report.sealed) == (True, 270, 250)
    writer.seal()
    writer.seal()  # nothing new: nothing to sign
    other = AuditWriter(database, SIGNER)  # another process, which has not seen the tree grow
    other.append_all([entry(n) for n in range(300)])
    other.close()
    writer.append("e", actor="a", subject="s")
    report = verified(database).verify()
    assert (report.intact, report.entries, report.sealed) == (True, 571, 571)


def test_the_tree_is_found_again_after_a_start_whatever_its_size(database: Database) -> None:
    for size in (1, 255, 256, 257, 512, 700):
        with database.transaction() as session:
            seal_in(session, SIGNER)
        writer = AuditWriter(database, SIGNER)
        with database.read() as session:
            there = session.scalar(select(func.count()).select_from(AuditRow)) or 0
        writer.append_all([entry(n) for n in range(size - there)])
        writer.close()
        report = verified(database).verify()
        assert (report.intact, report.sealed) == (True, size)


@pytest.mark.long
def test_a_tree_of_three_levels_of_tiles_proves_its_entries(tmp_path: Path) -> None:
    """66,000 entries would be slow to write one by one; tiles and proofs do not mind how they came."""
    database = Database(f"sqlite:///{tmp_path}/log.db")
    database.upgrade()
    writer = AuditWriter(database, SIGNER)
    writer.append_all([NewEntry("e", "a", str(n)) for n in range(66_000)])
    writer.close()
    with database.read() as session:
        assert session.scalars(select(AuditTile.level).distinct().order_by(AuditTile.level)).all() == [0, 1]
        for seq in (1, 256, 257, 65_536, 65_537, 66_000):
            found, head = check_proof(proof_text(prove(session, seq)), SIGNER.key)
            assert (found.seq, head.size) == (seq, 66_000)
    again = AuditWriter(database, SIGNER)
    again.append("e", actor="a", subject="after a start")
    again.close()
    assert verified(database).verify().sealed == 66_001
    database.close()


@pytest.mark.parametrize("table", ["platform_audit_tiles", "platform_audit_checkpoints"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET {}"])
def test_the_database_refuses_to_change_tiles_and_checkpoints(
    writer: AuditWriter, database: Database, table: str, statement: str
) -> None:
    writer.append_all([entry(n) for n in range(300)])
    column = "position = 9" if table.endswith("tiles") else "note = ''"
    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as session:
        session.execute(text(statement.format(table, column)))


@pytest.mark.parametrize("way", audit_drill.WAYS, ids=lambda way: way.__name__)
def test_no_way_of_tampering_goes_unnoticed(database: Database, way: audit_drill.Tamper) -> None:
    kept = audit_drill.prepare(database, SIGNER, entries=270)
    rng = random.Random(way.__name__)
    assert verified(database).verify(witnessed=[kept]).intact
    for _ in range(2):
        assert audit_drill.attempt(database, SIGNER, kept, way, rng) is not None
    assert verified(database).verify(witnessed=[kept]).intact
    if not database.is_sqlite:  # the next test gets this database too
        with database.transaction() as session:
            for table in ("platform_audit", "platform_audit_tiles", "platform_audit_checkpoints"):
                session.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER {table}_append_only"))


def test_a_log_cut_off_while_running_is_not_signed_on(writer: AuditWriter, database: Database) -> None:
    writer.append_all([entry(n) for n in range(5)])
    with past_the_triggers(database) as session:
        session.execute(delete(AuditRow).where(AuditRow.seq > 3))
    with pytest.raises(AuditBroken, match="genba audit verify"):
        writer.append("e", actor="a", subject="s")
    restarted = AuditWriter(database, SIGNER)
    with pytest.raises(AuditBroken, match="cut off"):
        restarted.append("e", actor="a", subject="s")
    restarted.close()
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(AuditRow)) == 3


def test_a_writer_that_is_closed_says_so(database: Database) -> None:
    writer = AuditWriter(database, SIGNER)
    writer.close()
    with pytest.raises(Draining):
        writer.append("e", actor="a", subject="s")


def test_a_proof_convinces_who_has_only_the_key(writer: AuditWriter, database: Database) -> None:
    writer.append_all([entry(n) for n in range(300)])
    with database.read() as session:
        proof = proof_text(prove(session, 77))
    found, head = check_proof(proof, SIGNER.key)
    assert (found.seq, found.subject, head.size) == (77, "dec_76", 300)
    assert len(proof.split("\n\n")[0].splitlines()) - 3 == 9  # ⌈log2 300⌉ hashes
    lines = proof.splitlines()
    for at in range(1, len(lines) - 1):
        if lines[at]:
            broken = [*lines[:at], lines[at][:-3] + ("AAA" if lines[at][-3:] != "AAA" else "BBB"), *lines[at + 1 :]]
            with pytest.raises((NotSigned, ValueError)):
                check_proof("\n".join(broken) + "\n", SIGNER.key)


def test_there_is_no_proof_of_what_is_not_there_or_not_sealed(writer: AuditWriter, database: Database) -> None:
    with database.read() as session, pytest.raises(NotFound, match="no entry 1"):
        prove(session, 1)
    with database.transaction() as session:
        append_in(session, "e", actor="a", subject="s")
    with database.read() as session, pytest.raises(NotFound, match="not sealed yet"):
        prove(session, 1)
    writer.seal()
    with database.read() as session:
        assert prove(session, 1).hashes == []


def test_an_export_is_tiles_that_anybody_can_check(writer: AuditWriter, database: Database, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        export(database, tmp_path / "none")
    writer.append_all([entry(n) for n in range(300)])
    folder = tmp_path / "log"
    export(database, folder)
    writer.append_all([entry(n) for n in range(300, 520)])
    head = export(database, folder)
    note = (folder / "checkpoint").read_text()
    assert open_checkpoint(note, [SIGNER.key]) == head
    entries = [
        each
        for position, width in ((0, 256), (1, 256), (2, 8))
        for each in read_bundle((folder / tile_path("entries", position, width)).read_bytes())
    ]
    assert mth(entries) == head.root
    assert (folder / tile_path(0, 2, 8)).read_bytes() == b"".join(mth([each]) for each in entries[512:])
    assert (folder / tile_path(1, 0, 2)).read_bytes() == mth(entries[:256]) + mth(entries[256:512])


def test_a_witness_takes_a_head_that_extends_and_no_fork(
    writer: AuditWriter, database: Database, tmp_path: Path
) -> None:
    signer = NoteSigner("witness.local/w", b"\x05" * 32)
    witness = Witness(tmp_path / "seen", log=SIGNER.key, signer=signer)
    with pytest.raises(NotFound):
        witness.look(database)
    for size in (5, 300, 300):
        with database.read() as session:
            there = session.scalar(select(func.count()).select_from(AuditRow)) or 0
        writer.append_all([entry(n) for n in range(size - there)])
        assert witness.look(database).size == size
    kept = witness.last()
    assert kept is not None
    with past_the_triggers(database) as session:
        for table in ("tiles", "checkpoints"):
            if database.is_sqlite:
                for change in ("update", "delete"):
                    session.execute(text(f"DROP TRIGGER platform_audit_{table}_no_{change}"))
        audit_drill.fork_with_the_key(session, random.Random(1), SIGNER, 300)
    assert verified(database).verify().intact  # in itself the forged log is whole
    assert not verified(database).verify(witnessed=[kept]).intact
    again = AuditWriter(database, SIGNER)
    again.append("e", actor="a", subject="s")
    again.close()
    with pytest.raises(Conflict, match="does not extend"):
        witness.look(database)
    assert witness.last() == kept


def test_a_witness_whose_file_was_edited_says_so(writer: AuditWriter, database: Database, tmp_path: Path) -> None:
    file = tmp_path / "seen"
    writer.append_all([entry(1)])
    Witness(file, log=SIGNER.key).look(database)
    file.write_text(file.read_text().replace("\n1\n", "\n2\n"))
    with pytest.raises(NotSigned):
        Witness(file, log=SIGNER.key).look(database)


@pytest.mark.distributed
def test_a_restricted_role_can_append_and_nothing_else(new_postgres_database: Callable[[], str]) -> None:
    url = make_url(new_postgres_database())
    owner = Database(url.render_as_string(hide_password=False))
    owner.upgrade()
    role = f"genba_test_{random.Random().randrange(10**9)}"
    with owner.transaction() as session:
        session.execute(text(f"CREATE ROLE {role} LOGIN"))
        session.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"))
    restrict(owner, role)
    writing = Database(url.set(username=role).render_as_string(hide_password=False))
    writer = AuditWriter(writing, SIGNER)
    try:
        writer.append("e", actor="a", subject="s")
        for statement in ("TRUNCATE platform_audit", "ALTER TABLE platform_audit DISABLE TRIGGER ALL"):
            with pytest.raises(DBAPIError, match=r"permission denied|must be owner"), writing.transaction() as session:
                session.execute(text(statement))
        for statement in ("DELETE FROM platform_audit", "UPDATE platform_audit_checkpoints SET note = ''"):
            with pytest.raises(DBAPIError, match="permission denied"), writing.transaction() as session:
                session.execute(text(statement))
        assert verified(writing).verify().sealed == 1
    finally:
        writer.close()
        writing.close()
        with owner.transaction() as session:
            session.execute(text(f"DROP OWNED BY {role}"))
            session.execute(text(f"DROP ROLE {role}"))
        owner.close()


def test_sqlite_has_no_roles_to_restrict(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(ValueError, match="no roles"):
        restrict(database, "anybody")
    database.close()


def test_syslog_hears_of_each_entry_and_a_deaf_one_loses_nothing(database: Database) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        writer = AuditWriter(database, SIGNER, sinks=[SyslogSink(f"udp://127.0.0.1:{ear.getsockname()[1]}")])
        writer.append_all([entry(1)])
        heard = ear.recv(4096).decode()
        writer.close()
    assert heard.startswith("<86>genba-audit: ")  # authpriv.info
    assert "event=llm.decision outcome=ALLOW subject=dec_1" in heard

    class Deaf:
        name = "deaf"

        def write(self, each: AuditEntry) -> None:
            if each.seq != 3:
                raise OSError("no route")
            heard_of.append(each.seq)

        def close(self) -> None:
            pass

    heard_of: list[int] = []
    missed: list[str] = []
    writer = AuditWriter(database, SIGNER, sinks=[Deaf()], on_sink_failure=missed.append)
    writer.append_all([entry(2), entry(3)])
    writer.append_all([entry(4)])
    writer.close()
    assert writer.sink_failures == 2
    assert missed == ["deaf", "deaf"]
    assert heard_of == [3]  # one that is not taken keeps none that follow
    assert verified(database).verify().entries == 4


def write_until_it_fails(sink: SyslogSink, entry: AuditEntry) -> None:
    """A first line to a connection that has just ended is lost, and nobody can tell."""
    for _ in range(100):
        sink.write(entry)


def test_a_collector_that_comes_late_or_anew_hears_of_what_follows_a_line_each() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    sink = SyslogSink(f"tcp://127.0.0.1:{address[1]}")
    decisions = [AuditEntry(n, "2026-11-27", "llm.decision", "gate", f"dec_{n}", {}, "0") for n in range(9)]
    for _ in range(2):
        with pytest.raises(OSError, match="refused"):  # nobody listens there
            write_until_it_fails(sink, decisions[0])
        with pytest.raises(OSError, match="a moment ago"):
            sink.write(decisions[0])
        sink._away_until_s = 0.0  # some seconds later
        with socket.create_server(address) as ear:
            ear.settimeout(10)
            for each in decisions[1:3]:
                sink.write(each)
            heard, _ = ear.accept()
            with heard, heard.makefile() as lines:
                assert ["subject=dec_1 " in lines.readline(), "subject=dec_2 " in lines.readline()] == [True, True]
    sink.close()


def test_a_collector_that_takes_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ear:
        sink = SyslogSink(f"tcp://127.0.0.1:{ear.getsockname()[1]}")
        much = AuditEntry(1, "2026-11-27", "llm.decision", "gate", "x" * 2**20, {}, "0")
        with pytest.raises(OSError, match="timed out"):
            write_until_it_fails(sink, much)
        with pytest.raises(OSError, match="a moment ago"):
            sink.write(much)
        sink.close()


KILLED = """
import sys, threading
from genba_shared.audit_writer import AuditWriter
from genba_shared.db import Database
from genba_shared.tlog import NoteSigner
writer = AuditWriter(Database(sys.argv[1]), NoteSigner("test.local/audit", bytes(range(32))))
say = threading.Lock()
def work(k):
    n = 0
    while True:
        found = writer.append("e", actor=str(k), subject=str(n))
        with say:
            sys.stdout.write(f"{found.seq} {found.hash}\\n"); sys.stdout.flush()
        n += 1
for k in range(4):
    threading.Thread(target=work, args=(k,)).start()
"""


def test_nothing_that_was_confirmed_is_lost_by_kill_9(database: Database) -> None:
    url = database.url.render_as_string(hide_password=False)
    process = subprocess.Popen([sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    confirmed = [process.stdout.readline() for _ in range(200)]
    process.kill()
    confirmed += process.stdout.read().splitlines(keepends=True)
    process.wait()
    process.stdout.close()
    told = dict(line.split() for line in confirmed if line.endswith("\n"))
    with database.read() as session:
        kept = {str(row.seq): row.hash for row in rows_between(session, 0, 2**62)}
    assert len(told) >= 200
    assert told.items() <= kept.items()
    assert verified(database).verify().intact


def test_the_command_verifies_proves_exports_and_witnesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENBA_HOME", str(tmp_path / "home"))
    database = Database(f"sqlite:///{tmp_path}/home/genba.db")
    database.upgrade()
    with database.transaction() as session:
        for n in range(300):
            append_in(session, "key_created", actor="cli", subject=f"key_{n}")
    verdict = RUN(app, ["verify"])
    assert (verdict.exit_code, "300 entries" in verdict.output) == (0, True)
    assert "the last 300 not below a signed checkpoint" in verdict.output.replace("\n", " ")
    assert RUN(app, ["prove", "12", "--out", str(tmp_path / "p")]).exit_code == 0
    key = RUN(app, ["key"]).output.strip()
    checked = RUN(app, ["check", str(tmp_path / "p"), "--key", key])
    assert (checked.exit_code, "entry 12 of 300" in checked.output) == (0, True)
    assert RUN(app, ["witness", str(tmp_path / "seen")]).exit_code == 0
    assert RUN(app, ["export", str(tmp_path / "tiles")]).exit_code == 0
    assert (tmp_path / "tiles" / "key").read_text().strip() == key
    with past_the_triggers(database) as session:
        session.execute(delete(AuditRow).where(AuditRow.seq == 100))
    broken = RUN(app, ["verify", "--checkpoint", str(tmp_path / "seen")])
    assert broken.exit_code == 1
    assert RUN(app, ["prove", "100"]).exit_code == 1
    assert RUN(app, ["prove", "9" * 26]).exit_code == 2
    unknown = RUN(app, ["check", str(tmp_path / "p"), "--key", "nonsense"])
    assert (unknown.exit_code, "This is no public key of a log" in unknown.output) == (2, True)
    assert RUN(app, ["check", str(tmp_path / "tiles" / "key"), "--key", key]).exit_code == 1
    database.close()


def test_the_drill_counts_what_it_tried() -> None:
    result = RUN(app, ["drill", "--times", "13"])
    assert result.exit_code == 0, result.output
    assert result.output.count("│ 1 ") == 13


def test_a_checkpoint_is_kept_for_every_batch(writer: AuditWriter, database: Database) -> None:
    for n in range(3):
        writer.append_all([entry(n)])
    with database.read() as session:
        assert session.scalars(select(AuditCheckpoint.size).order_by(AuditCheckpoint.size)).all() == [1, 2, 3]
        note = newest_note(session)
    assert note is not None
    assert open_checkpoint(note, [SIGNER.key]).size == 3


def test_a_writer_that_would_wait_for_itself_says_so_and_goes_on(database: Database) -> None:
    writer = AuditWriter(database, SIGNER)

    def wait_within(_session: Session, _entries: list[AuditEntry]) -> None:
        writer.append("b", actor="somebody", subject="something")

    try:
        with pytest.raises(RuntimeError, match="wait for itself"):
            writer.append_all([NewEntry("a", "somebody", "something", {})], also=wait_within)
        assert writer.append("c", actor="somebody", subject="something").seq == 1
    finally:
        writer.close()
