"""The audit log: durable appends, verification, the size of a proof, 10,000 tamperings, and kill -9 under load.

``make bench-audit``. Every append is synced to disk (SQLite WAL with full sync; Postgres as its server is set) and below a
signed checkpoint before it counts. Beside the group commit stands the same log written one entry at a time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from pydantic import JsonValue
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import make_url

from genba_shared import audit_drill
from genba_shared.audit import AuditLog, NewEntry
from genba_shared.audit_export import proof_text
from genba_shared.audit_tree import prove, rows_between
from genba_shared.audit_writer import AuditWriter
from genba_shared.db import Database
from genba_shared.tlog import NoteSigner

SIGNER = NoteSigner("bench.local/audit", bytes(range(32)))
POSTGRES_URL = os.environ.get("GENBA_TEST_POSTGRES_URL", "postgresql+psycopg://postgres@127.0.0.1:5432")
DETAIL: dict[str, JsonValue] = {
    "event_id": 1001,
    "decision": "ALLOW",
    "confidence": 0.97,
    "domain": "manufacturing",
    "policy_ref": "default/read-internal",
    "prompt": "5f" * 32,
    "model": "gate-1",
}
CONFIRM = """
import sys, threading
from genba_shared.audit_writer import AuditWriter
from genba_shared.db import Database
from genba_shared.tlog import NoteSigner
writer = AuditWriter(Database(sys.argv[1]), NoteSigner("bench.local/audit", bytes(range(32))))
say = threading.Lock()
def work(k):
    n = 0
    while True:
        found = writer.append("e", actor=str(k), subject=str(n))
        with say:
            sys.stdout.write(f"{found.seq} {found.hash}\\n"); sys.stdout.flush()
        n += 1
for k in range(8):
    threading.Thread(target=work, args=(k,)).start()
"""


def new(n: int) -> NewEntry:
    """An entry as svc-llm writes it."""
    return NewEntry("llm.decision", "key_01jd8w", f"dec_{n:012d}", DETAIL)


@contextmanager
def log_on(kind: str, folder: Path) -> Iterator[Database]:
    """An empty log on a database of its own."""
    if kind == "sqlite":
        database = Database(f"sqlite:///{folder}/{uuid4().hex}.db")
        database.upgrade()
        yield database
        database.close()
        return
    server = make_url(POSTGRES_URL)
    engine = create_engine(server.set(database="postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    name = f"genba_bench_{uuid4().hex[:12]}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        database = Database(server.set(database=name).render_as_string(hide_password=False))
        try:
            database.upgrade()
            yield database
        finally:
            database.close()
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def timed(work: Callable[[], int]) -> tuple[float, float]:
    """How many a second, by the wall and by this process's CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    done = work()
    return done / (time.perf_counter() - wall), done / (time.process_time() - cpu)


def appends(database: Database, *, batch: int, seconds: float) -> tuple[float, float]:
    """Durable appends a second, ``batch`` at a time in one transaction."""
    writer = AuditWriter(database, SIGNER)

    def work() -> int:
        done, deadline = 0, time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            writer.append_all([new(done + n) for n in range(batch)])
            done += batch
        return done

    found = timed(work)
    writer.close()
    return found


def from_threads(database: Database, *, threads: int, seconds: float) -> tuple[float, float]:
    """Durable appends a second by threads that each wait for their own."""
    writer = AuditWriter(database, SIGNER)
    deadline = time.perf_counter() + seconds

    def one(k: int) -> int:
        done = 0
        while time.perf_counter() < deadline:
            writer.append("llm.decision", actor="key_01jd8w", subject=f"dec_{k}_{done}", detail=DETAIL)
            done += 1
        return done

    def work() -> int:
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(one, range(threads)))

    found = timed(work)
    writer.close()
    return found


def verification(database: Database, entries: int) -> tuple[float, float, int, int]:
    """Rows verified a second, and the hashes and bytes of one inclusion proof."""
    writer = AuditWriter(database, SIGNER)
    for start in range(0, entries, 64):
        writer.append_all([new(start + n) for n in range(min(64, entries - start))])
    writer.close()

    def work() -> int:
        report = AuditLog(database, key=SIGNER.key).verify()
        assert report.intact
        return report.entries

    rate, cpu_rate = timed(work)
    with database.read() as session:
        proof = prove(session, entries // 3)
    return rate, cpu_rate, len(proof.hashes), len(proof_text(proof))


def killed(kind: str, folder: Path, *, kills: int, load_s: float) -> tuple[int, int]:
    """Appends confirmed to their callers, and how many of those are gone after ``kill -9`` under load."""
    confirmed = lost = 0
    with log_on(kind, folder) as database:
        url = database.url.render_as_string(hide_password=False)
        for _ in range(kills):
            with subprocess.Popen([sys.executable, "-c", CONFIRM, url], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                lines = [process.stdout.readline()]
                time.sleep(load_s)
                process.kill()
                lines += process.stdout.read().splitlines(keepends=True)
            told = dict(line.split() for line in lines if line.endswith("\n"))
            with database.read() as session:
                kept = {str(row.seq): row.hash for row in rows_between(session, 0, 2**62)}
            confirmed += len(told)
            lost += sum(kept.get(seq) != found for seq, found in told.items())
            assert AuditLog(database, key=SIGNER.key).verify().intact
    return confirmed, lost


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each rate of appends")
    parser.add_argument("--entries", type=int, default=50_000, help="to verify")
    parser.add_argument("--tamperings", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgres"])
    options = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory(
        dir=Path.cwd()
    ) as name:  # a real disk: /tmp may be memory, where a sync costs nothing
        folder = Path(name)
        rates = Table("database", "appends", "per second", "per second of CPU", title="Durable and sealed appends")
        checks = Table("database", "entries", "rows/s", "rows/s of CPU", "proof", title="Verification")
        for kind in options.databases:
            for label, batch in (
                ("one by one", 1),
                ("batches of 64", 64),
                ("batches of 1,024", 1024),
                ("16 threads", 0),
            ):
                with log_on(kind, folder) as database:
                    wall, cpu = (
                        appends(database, batch=batch, seconds=options.seconds)
                        if batch
                        else from_threads(database, threads=16, seconds=options.seconds)
                    )
                rates.add_row(kind, label, f"{wall:,.0f}", f"{cpu:,.0f}")
            with log_on(kind, folder) as database:
                rate, cpu_rate, hashes, size = verification(database, options.entries)
            checks.add_row(
                kind, f"{options.entries:,}", f"{rate:,.0f}", f"{cpu_rate:,.0f}", f"{hashes} hashes, {size:,} bytes"
            )
        console.print(rates, checks)
        for kind in options.databases:
            confirmed, lost = killed(kind, folder, kills=options.kills, load_s=1.0)
            console.print(f"kill -9 × {options.kills} under load on {kind}: {confirmed:,} confirmed, {lost} lost")
        scratch = Database(f"sqlite:///{folder}/drill.db")
        scratch.upgrade()
        found = tamper(scratch, options.tamperings)
        console.print(found)
        scratch.close()


def tamper(database: Database, times: int) -> Table:
    """Try every way of tampering in turn."""
    import random

    kept, rng = audit_drill.prepare(database, SIGNER, entries=300), random.Random(20261126)
    tried, noticed = dict.fromkeys(audit_drill.WAYS, 0), dict.fromkeys(audit_drill.WAYS, 0)
    for number in track(range(times), description="Tampering"):
        way = audit_drill.WAYS[number % len(audit_drill.WAYS)]
        tried[way] += 1
        noticed[way] += audit_drill.attempt(database, SIGNER, kept, way, rng) is not None
    table = Table("way", "tried", "noticed", title=f"{times:,} random tamperings of a log of 300 entries")
    for way, count in tried.items():
        table.add_row(way.__name__.replace("_", " "), f"{count:,}", f"{noticed[way]:,}")
    table.add_row("all", f"{sum(tried.values()):,}", f"{sum(noticed.values()):,}")
    return table


if __name__ == "__main__":
    main()
