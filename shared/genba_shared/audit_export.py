"""The audit log for others: exported as tlog-tiles, one entry's proof as a text, and a witness who remembers what it saw.

What is written here can be checked with any tool that reads C2SP's formats; ``check_proof`` does it without a database.
"""

from __future__ import annotations

import base64
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
from sqlalchemy import text

from genba_shared.audit import AuditEntry, Fields, entry_of
from genba_shared.audit_tree import Proof, TileReader, head_of, newest_note, prove_consistency, rows_between
from genba_shared.db import Database
from genba_shared.merkle import extends, includes, leaf_hash
from genba_shared.problems import Conflict, NotFound
from genba_shared.tlog import (
    TILE_WIDTH,
    Checkpoint,
    NoteKey,
    NoteSigner,
    NotSigned,
    decode_base64,
    entry_bundle,
    open_checkpoint,
    tile_path,
)

_PROOF_HEAD = "c2sp.org/tlog-proof@v1"


def export(database: Database, folder: Path) -> Checkpoint:
    """Write the newest checkpoint and every tile below it into ``folder``, as tlog-tiles lays them out.

    Exporting again into the same folder writes only what is new. Raises: NotFound if nothing was ever sealed.
    """
    with database.read() as session:
        note = newest_note(session)
        if note is None:
            raise NotFound("Nothing has been sealed yet.")
        head = head_of(note)
        for position in range(-(-head.size // TILE_WIDTH)):
            start = position * TILE_WIDTH
            width = min(TILE_WIDTH, head.size - start)
            path = folder / tile_path("entries", position, width)
            if not path.exists():
                rows = rows_between(session, start, start + width)
                _put(path, entry_bundle([row.entry() for row in rows]))
        reader, level = TileReader(session, head.size), 0
        while below := head.size >> (8 * level):
            for position in range(-(-below // TILE_WIDTH)):
                path = folder / tile_path(level, position, min(TILE_WIDTH, below - position * TILE_WIDTH))
                if not path.exists():
                    _put(path, b"".join(reader.tile(level, position)))
            level += 1
        _put(folder / "checkpoint", note.encode())  # last: whoever sees it finds everything below it
    return head


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    aside.write_bytes(data)
    os.replace(aside, path)  # noqa: PTH105 - Path.replace is the same call


def proof_text(proof: Proof) -> str:
    """A proof as C2SP's tlog-proof writes it, with the entry itself as its extra data."""
    lines = [_PROOF_HEAD, f"extra {base64.b64encode(proof.entry).decode()}", f"index {proof.leaf}"]
    return "\n".join([*lines, *(base64.b64encode(each).decode() for each in proof.hashes), "", proof.note])


def check_proof(text: str, key: NoteKey) -> tuple[AuditEntry, Checkpoint]:
    """The entry that a proof speaks for and the head it is below, with nothing but the log's public key.

    Raises: NotSigned if anything about it does not hold.
    """
    above, _, note = text.partition("\n\n")
    try:
        head, extra, index, *hashes = above.split("\n")
        entry = decode_base64(extra.removeprefix("extra "))
        at, proof = int(index.removeprefix("index ")), [decode_base64(each) for each in hashes]
        fields = Fields(*[*orjson.loads(entry), ""])
    except (ValueError, TypeError) as error:
        raise NotSigned("This is no proof.") from error
    checkpoint = open_checkpoint(note, [key])
    leaf = leaf_hash(entry)
    if head != _PROOF_HEAD or not includes(proof, leaf=leaf, index=at, size=checkpoint.size, root=checkpoint.root):
        raise NotSigned("The proof does not lead to the signed root.")
    return entry_of(fields), checkpoint


class Witness:
    """Remembers, in a file away from the database, the newest head that it saw, and takes only heads that extend it.

    An administrator who rewrites the log and signs it anew shows two histories; whoever holds such a file can tell.
    """

    def __init__(self, file: Path, *, log: NoteKey, signer: NoteSigner | None = None) -> None:
        self._file, self._log, self._signer = file, log, signer

    def last(self) -> Checkpoint | None:
        """What was seen. Raises: NotSigned if the file was tampered with."""
        if not self._file.exists():
            return None
        keys = [self._log] if self._signer is None else [self._log, self._signer.cosigning_key]
        return open_checkpoint(self._file.read_text(encoding="utf-8"), keys)

    def see(self, note: str, proof: Sequence[bytes]) -> Checkpoint:
        """Remember a newer head. Raises: NotSigned, or Conflict if it does not extend what was seen: a fork, or a log cut off."""
        seen, new = self.last(), open_checkpoint(note, [self._log])
        if seen is not None:
            holds = extends(proof, old=seen.size, old_root=seen.root, new=new.size, new_root=new.root)
            if not holds:
                raise Conflict(
                    f"The log of {new.size} entries does not extend the one of {seen.size} that was seen before.",
                    seen=seen.size,
                    shown=new.size,
                )
        cosigned = self._signer.cosign(note, at_s=int(time.time())) if self._signer else note
        _put(self._file, cosigned.encode())
        return new

    def look(self, database: Database) -> Checkpoint:
        """Fetch the newest head with its proof, and see it."""
        seen = self.last()
        with database.read() as session:
            note = newest_note(session)
            if note is None:
                raise NotFound("Nothing has been sealed yet.")
            size = head_of(note).size
            proof = prove_consistency(session, seen.size, size) if seen and seen.size <= size else []
        return self.see(note, proof)


def restrict(database: Database, role: str) -> None:
    """On Postgres: let ``role`` read and append to the log's tables and nothing else. The owner must be another role.

    Raises: ValueError on SQLite, which has no roles.
    """
    if database.is_sqlite:
        raise ValueError("SQLite has no roles: its file's owner may do anything; keep checkpoints elsewhere.")
    with database.transaction() as session:
        name = session.get_bind().dialect.identifier_preparer.quote(role)
        for table in ("platform_audit", "platform_audit_tiles", "platform_audit_checkpoints"):
            session.execute(text(f"REVOKE ALL ON {table} FROM {name}"))
            session.execute(text(f"GRANT SELECT, INSERT ON {table} TO {name}"))
