"""Does the log notice? Tamper with a scratch log in every way that we know of, and count what verification finds.

A claim of tamper evidence is worth what was tried against it. Each way below acts as somebody with the database's password
and, for the last two, with the signing key as well. Used by the tests, ``genba audit drill`` and the benchmark.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import JsonValue
from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from genba_shared.audit import COLUMNS, GENESIS, AuditRow, Fields, NewEntry, append_after, hash_of, stand_in_line
from genba_shared.audit_tree import AuditCheckpoint, AuditTile, Tree, extend, newest_note, rows_between, seal
from genba_shared.audit_verify import verify_in
from genba_shared.db import Database
from genba_shared.tlog import Checkpoint, NoteSigner, open_checkpoint

Tamper = Callable[[Session, random.Random, NoteSigner, int], None]


def _all(session: Session) -> list[Fields]:
    return rows_between(session, 0, 2**62)


def _store(session: Session, rows: Sequence[Fields]) -> None:
    """Put ``rows`` in place of all rows."""
    session.execute(delete(AuditRow))
    session.execute(AuditRow.__table__.insert(), [row._asdict() for row in rows])  # type: ignore[attr-defined]


def _relinked(rows: Sequence[Fields], start: int) -> list[Fields]:
    """With numbers and chain made whole again from ``start`` on, as a careful forger would."""
    found = list(rows[:start])
    for row in rows[start:]:
        linked = row._replace(seq=len(found) + 1, previous_hash=found[-1].hash if found else GENESIS)
        found.append(linked._replace(hash=hash_of(linked.entry())))
    return found


def _another(text_: str, rng: random.Random, *, same_length: bool = False) -> str:
    """The text with one character changed, added or taken away."""
    at = rng.randrange(len(text_) + (not same_length))
    way = 2 if same_length else rng.randrange(3) if at < len(text_) else 0
    if way == 0:
        return text_[:at] + rng.choice(" 0aZ\u3042") + text_[at:]
    if way == 1:
        return text_[:at] + text_[at + 1 :]
    return text_[:at] + chr((ord(text_[at]) ^ 1) or 1) + text_[at + 1 :]


def edit_a_field(session: Session, rng: random.Random, _signer: NoteSigner, size: int) -> None:
    """Change one character of one column of one entry."""
    column = rng.choice(COLUMNS[1:])
    where = AuditRow.seq == rng.randint(1, size)
    value = session.scalars(select(column).where(where)).one()
    changed = _another(value, rng, same_length=column.key in {"hash", "previous_hash"})  # Postgres takes no longer one
    session.execute(update(AuditRow).where(where).values({column.key: changed}))


def edit_and_relink(session: Session, rng: random.Random, _signer: NoteSigner, size: int) -> None:
    """Change an entry and make the whole chain after it fit again."""
    rows, at = _all(session), rng.randrange(size)
    rows[at] = rows[at]._replace(detail=_another(rows[at].detail, rng))
    _store(session, _relinked(rows, at))


def delete_some(session: Session, rng: random.Random, _signer: NoteSigner, size: int) -> None:
    """Take entries out of the middle."""
    at = rng.randint(1, size - 1)
    session.execute(delete(AuditRow).where(AuditRow.seq >= at, AuditRow.seq < min(size, at + rng.randint(1, 9))))


def delete_and_relink(session: Session, rng: random.Random, _signer: NoteSigner, size: int) -> None:
    """Take entries out and close the gap."""
    rows, at = _all(session), rng.randrange(size)
    del rows[at : at + rng.randint(1, 9)]
    _store(session, _relinked(rows, at))


def swap_two(session: Session, rng: random.Random, _signer: NoteSigner, size: int) -> None:
    """Exchange two entries' numbers."""
    rows, (left, right) = _all(session), rng.sample(range(size), 2)
    rows[left], rows[right] = rows[right]._replace(seq=left + 1), rows[left]._replace(seq=right + 1)
    _store(session, rows)


def swap_and_relink(session: Session, rng: random.Random, _signer: NoteSigner, size: int) -> None:
    """Exchange two entries and make the chain fit again."""
    rows, (left, right) = _all(session), sorted(rng.sample(range(size), 2))
    rows[left], rows[right] = rows[right], rows[left]
    _store(session, _relinked(rows, left))


def insert_and_relink(session: Session, rng: random.Random, _signer: NoteSigner, size: int) -> None:
    """Slip a forged entry in and move the others up."""
    rows, at = _all(session), rng.randrange(size)
    rows.insert(at, rows[at]._replace(subject="forged"))
    _store(session, _relinked(rows, at))


def cut_off_the_end(session: Session, rng: random.Random, _signer: NoteSigner, size: int) -> None:
    """Delete the newest entries."""
    session.execute(delete(AuditRow).where(AuditRow.seq > size - rng.randint(1, size)))


def cut_off_with_what_belongs_to_it(session: Session, rng: random.Random, _signer: NoteSigner, size: int) -> None:
    """Delete the newest entries with their checkpoints and tiles: a shorter log that is whole in itself."""
    left = size - rng.randint(1, size)
    session.execute(delete(AuditRow).where(AuditRow.seq > left))
    session.execute(delete(AuditCheckpoint).where(AuditCheckpoint.size > left))
    session.execute(delete(AuditTile).where((AuditTile.position + 1) * 256 > left))


def forge_a_tile(session: Session, rng: random.Random, _signer: NoteSigner, _size: int) -> None:
    """Change a byte of a stored tile."""
    tile = rng.choice(session.execute(select(AuditTile.level, AuditTile.position, AuditTile.hashes)).all())
    hashes = bytearray(tile.hashes)
    hashes[rng.randrange(len(hashes))] ^= 1 << rng.randrange(8)
    where = (AuditTile.level == tile.level, AuditTile.position == tile.position)
    session.execute(update(AuditTile).where(*where).values(hashes=bytes(hashes)))


def forge_a_checkpoint(session: Session, rng: random.Random, _signer: NoteSigner, _size: int) -> None:
    """Change a character of a signed note."""
    found = rng.choice(session.execute(select(AuditCheckpoint.size, AuditCheckpoint.note)).all())
    session.execute(
        update(AuditCheckpoint).where(AuditCheckpoint.size == found.size).values(note=_another(found.note, rng))
    )


def _fork(session: Session, rng: random.Random, signer: NoteSigner, size: int) -> None:
    edit_and_relink(session, rng, signer, size)
    session.execute(delete(AuditTile))
    session.execute(delete(AuditCheckpoint))
    tree = Tree()
    extend(session, tree, _all(session), fresh=True)
    seal(session, tree, signer)


def fork_with_another_key(session: Session, rng: random.Random, _signer: NoteSigner, size: int) -> None:
    """Write history anew and sign it with a key of one's own."""
    _fork(session, rng, NoteSigner(_signer.key.name, rng.randbytes(32)), size)


def fork_with_the_key(session: Session, rng: random.Random, signer: NoteSigner, size: int) -> None:
    """Write history anew and sign it with the log's key: only who kept a checkpoint can tell."""
    _fork(session, rng, signer, size)


WAYS: tuple[Tamper, ...] = (
    edit_a_field,
    edit_and_relink,
    delete_some,
    delete_and_relink,
    swap_two,
    swap_and_relink,
    insert_and_relink,
    cut_off_the_end,
    cut_off_with_what_belongs_to_it,
    forge_a_tile,
    forge_a_checkpoint,
    fork_with_another_key,
    fork_with_the_key,
)


def prepare(database: Database, signer: NoteSigner, *, entries: int, seed: int = 0) -> Checkpoint:
    """Fill an empty log with made-up decisions, sealed in batches, and lift its triggers; the head that a witness would keep."""
    rng, tree = random.Random(seed), Tree()  # noqa: S311 - a scratch log
    while tree.size < entries:
        new = [_made_up(rng) for _ in range(min(rng.randint(1, 64), entries - tree.size))]
        with database.transaction() as session:
            extend(session, tree, append_after(session, stand_in_line(session), new), fresh=True)
            seal(session, tree, signer)
    with database.transaction() as session:
        for table in ("platform_audit", "platform_audit_tiles", "platform_audit_checkpoints"):
            if database.is_sqlite:
                session.execute(text(f"DROP TRIGGER {table}_no_update"))
                session.execute(text(f"DROP TRIGGER {table}_no_delete"))
            else:
                session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER {table}_append_only"))
        note = newest_note(session)
    return open_checkpoint(note or "", [signer.key])


def _made_up(rng: random.Random) -> NewEntry:
    decision = rng.choice(("ALLOW", "ESCALATE", "DENY", "REFUSE"))
    detail: dict[str, JsonValue] = {
        "decision": decision,
        "prompt": rng.randbytes(32).hex(),
        "confidence": rng.random(),
    }
    return NewEntry("llm.decision", f"key_{rng.randrange(9)}", f"dec_{rng.randrange(10**9)}", detail)


def attempt(database: Database, signer: NoteSigner, kept: Checkpoint, way: Tamper, rng: random.Random) -> str | None:
    """Tamper once, verify, undo; why verification found fault, or None if it noticed nothing."""
    with database.transaction() as session:
        way(session, rng, signer, kept.size)
        reason = verify_in(session, key=signer.key, witnessed=[kept]).reason
        session.rollback()
        return reason


def drill(folder: Path, *, times: int, entries: int = 300, seed: int = 0) -> tuple[Counter[str], Counter[str]]:
    """Tamper ``times`` times with a scratch log in ``folder``: how often each way was tried, and how often it went unnoticed."""
    database, signer = Database(f"sqlite:///{folder}/drill.db"), NoteSigner("drill.local/audit", bytes(range(32)))
    rng = random.Random(seed)  # noqa: S311 - which row to forge is no secret
    try:
        database.upgrade()
        kept = prepare(database, signer, entries=entries, seed=seed)
        tried, missed = Counter[str](), Counter[str]()
        for number in range(times):
            way = WAYS[number % len(WAYS)]
            tried[way.__name__] += 1
            missed[way.__name__] += attempt(database, signer, kept, way, rng) is None
        return tried, +missed
    finally:
        database.close()
