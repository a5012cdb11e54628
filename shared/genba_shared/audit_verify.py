"""Walk the whole audit log and believe nothing: every hash is computed anew from the rows, every signature is checked.

One pass, a page of rows at a time. Says the first entry that is not as it was written, and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from genba_shared.audit import COLUMNS, GENESIS, AuditReport, AuditRow, Fields, hash_of
from genba_shared.audit_tree import AuditCheckpoint, AuditTile, Tree
from genba_shared.db import Database
from genba_shared.merkle import leaf_hash
from genba_shared.tlog import TILE_WIDTH, Checkpoint, NoteKey, NotSigned, open_checkpoint

PAGE_ROWS = 10 * TILE_WIDTH
_BEFORE_ALL = -(2**63)


class _Broken(Exception):
    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(reason)
        self.seq, self.reason = seq, reason


@dataclass
class _Walk:
    """What has been walked, and what is still to be met on the way."""

    session: Session
    key: NoteKey | None
    expected_head: str | None
    heads: dict[int, list[tuple[Checkpoint, str]]]  # by size: checkpoints to compare with, and where they are from
    sealed: int
    tree: Tree = field(default_factory=Tree)
    tiles_seen: int = 0

    def run(self) -> None:
        for page in _pages(self.session):
            self._meet(AuditCheckpoint.size <= self.tree.size + len(page))
            stored = self._stored_tiles(self.tree.size, self.tree.size + len(page))
            for row in page:
                self._step(row, stored)

    def _step(self, row: Fields, stored: dict[tuple[int, int], bytes]) -> None:
        seq, tree = self.tree.size + 1, self.tree
        entry = row.entry()
        if row.seq != seq:
            raise _Broken(seq, f"entry {seq} is missing")
        if row.previous_hash != tree.last_hash:
            raise _Broken(seq, "it does not continue the entry before it")
        if row.hash != hash_of(entry):
            raise _Broken(seq, "its content does not match its hash")
        for tile in tree.append(leaf_hash(entry), row.hash):
            found = stored.get((tile.level, tile.position))
            if found is None and seq > self.sealed:
                continue  # nobody has sealed so far yet
            if found != tile.hashes:
                raise _Broken(seq, f"tile {tile.position} of level {tile.level} is not what the entries make")
            self.tiles_seen += 1
        if row.hash == self.expected_head:
            self.expected_head = None
        for checkpoint, origin in self.heads.pop(tree.size, ()):
            if checkpoint.root != tree.root():
                raise _Broken(seq, f"the log up to here is not what {origin} signed")

    def _stored_tiles(self, start: int, end: int) -> dict[tuple[int, int], bytes]:
        found: dict[tuple[int, int], bytes] = {}
        level, width = 0, TILE_WIDTH
        while end >= width:
            query = select(AuditTile.position, AuditTile.hashes).where(
                AuditTile.level == level, AuditTile.position >= start // width, AuditTile.position < end // width
            )
            found |= {(level, position): bytes(hashes) for position, hashes in self.session.execute(query)}
            level, width = level + 1, width * TILE_WIDTH
        return found

    def _meet(self, which: ColumnElement[bool]) -> None:
        """Expect the heads of further checkpoints; a page's at a time, for there may be as many as entries."""
        notes = select(AuditCheckpoint.size, AuditCheckpoint.note).order_by(AuditCheckpoint.size)
        for size, note in self.session.execute(notes.where(AuditCheckpoint.size > self.tree.size, which)):
            self.heads.setdefault(size, []).append((self._signed(size, note), "the checkpoint stored"))

    def _signed(self, size: int, note: str) -> Checkpoint:
        try:
            checkpoint = open_checkpoint(note, [] if self.key is None else [self.key])
        except NotSigned as error:
            raise _Broken(size, f"the checkpoint at {size} is not signed by this log's key") from error
        if checkpoint.size != size or size < 1 or (self.key is not None and checkpoint.origin != self.key.name):
            raise _Broken(size, f"the checkpoint at {size} is another's")
        return checkpoint

    def begin(self, witnessed: Sequence[Checkpoint]) -> None:
        """What has to be known before the first entry: how far checkpoints go, and what was kept elsewhere."""
        below = select(AuditCheckpoint.size, AuditCheckpoint.note).where(AuditCheckpoint.size < 1)
        for size, note in self.session.execute(below):
            self._signed(size, note)
        self.sealed = self.session.scalar(select(func.max(AuditCheckpoint.size))) or 0
        for checkpoint in witnessed:
            if checkpoint.size:
                self.heads.setdefault(checkpoint.size, []).append(
                    (checkpoint, "the checkpoint that was kept elsewhere")
                )

    def finish(self) -> None:
        """What must have been met by now."""
        after = self.tree.size + 1
        if self.sealed > self.tree.size:
            self._meet(AuditCheckpoint.size == self.sealed)
        if self.heads:
            size = max(self.heads)
            raise _Broken(after, f"{self.heads[size][0][1]} signed {size} entries: the end was cut off")
        if self.expected_head not in {None, GENESIS}:
            raise _Broken(after, "the expected head is not in the chain")
        stored = self.session.scalar(select(func.count()).select_from(AuditTile)) or 0
        if stored != self.tiles_seen:
            raise _Broken(after, f"there are {stored} tiles, and the entries make {self.tiles_seen}")


def verify(
    database: Database,
    *,
    key: NoteKey | None = None,
    expected_head: str | None = None,
    witnessed: Sequence[Checkpoint] = (),
) -> AuditReport:
    """Check the chain, the tree, its tiles and its checkpoints. Without ``key`` signatures are not looked at, roots are.

    Reads one snapshot, so that others may append meanwhile.
    """
    with database.read() as session:
        if not database.is_sqlite:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        return verify_in(session, key=key, expected_head=expected_head, witnessed=witnessed)


def verify_in(
    session: Session,
    *,
    key: NoteKey | None = None,
    expected_head: str | None = None,
    witnessed: Sequence[Checkpoint] = (),
) -> AuditReport:
    """The same within the caller's transaction."""
    walk = _Walk(session, key, expected_head, {}, 0)
    try:
        walk.begin(witnessed)
        walk.run()
        walk.finish()
    except _Broken as broken:
        return AuditReport(
            walk.tree.size, walk.tree.last_hash, broken_at=broken.seq, reason=broken.reason, sealed=walk.sealed
        )
    return AuditReport(walk.tree.size, walk.tree.last_hash, sealed=walk.sealed, root=walk.tree.root().hex())


def _pages(session: Session) -> Iterator[list[Fields]]:
    """All rows in order; also those numbered below 1, which nobody can have appended."""
    after = _BEFORE_ALL
    query = select(*COLUMNS).order_by(AuditRow.seq).limit(PAGE_ROWS)
    while page := [Fields(*row) for row in session.execute(query.where(AuditRow.seq > after))]:
        yield page
        after = page[-1].seq
