"""The Merkle tree over the audit log: tiles and signed checkpoints beside the rows, and proofs out of them.

An entry's leaf is what the chain hashes; leaf ``n`` is entry ``n + 1``. Entries are appended by anybody (``audit.append_in``);
``seal_in`` takes in what is new and signs the head, in one transaction. Tiles are what C2SP's tlog-tiles says: 256 hashes,
written once they are full. They save reading the rows again; ``audit_verify`` believes none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, LargeBinary, SmallInteger, String, Text, insert, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from genba_shared.audit import COLUMNS, GENESIS, AuditRow, Fields, stand_in_line
from genba_shared.db import Record, utc_now
from genba_shared.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    subtree_root,
)
from genba_shared.problems import NotFound, Unavailable
from genba_shared.tlog import TILE_WIDTH, Checkpoint, NoteSigner

_LEVELS_PER_TILE = 8
_PAGE_ROWS = 4096


class AuditTile(Record):
    """A full tile: 256 hashes of one level."""

    __tablename__ = "platform_audit_tiles"

    level: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hashes: Mapped[bytes] = mapped_column(LargeBinary)


class AuditCheckpoint(Record):
    """A signed head, as a note."""

    __tablename__ = "platform_audit_checkpoints"

    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[str] = mapped_column(String)
    note: Mapped[str] = mapped_column(Text)


class Tile(NamedTuple):
    """A tile that has become full."""

    level: int
    position: int
    hashes: bytes


class Tree:
    """The right edge of the tree: enough to append, to say the root, and to cut tiles."""

    __slots__ = ("edge", "last_hash", "pending", "size")

    def __init__(self) -> None:
        self.size = 0
        self.last_hash = GENESIS  # the chain's, of entry number ``size``
        self.edge: list[bytes] = []  # roots of the complete subtrees, largest first
        self.pending: list[list[bytes]] = [[]]  # by level of tiles: the hashes of the tile that is not full yet

    def copy(self) -> Tree:
        twin = Tree()
        twin.size, twin.last_hash, twin.edge = self.size, self.last_hash, self.edge.copy()
        twin.pending = [hashes.copy() for hashes in self.pending]
        return twin

    def append(self, leaf: bytes, last_hash: str) -> list[Tile]:
        """Take in the next leaf; the tiles that it completes."""
        full: list[Tile] = []
        self.pending[0].append(leaf)
        found, size, level = leaf, self.size, 0
        while size & 1:
            found = node_hash(self.edge.pop(), found)
            size >>= 1
            level += 1
            if level % _LEVELS_PER_TILE == 0:
                full.append(self._cut(level // _LEVELS_PER_TILE, found))
        self.edge.append(found)
        self.size += 1
        self.last_hash = last_hash
        return full

    def _cut(self, above: int, root: bytes) -> Tile:
        if len(self.pending) == above:
            self.pending.append([])
        hashes = b"".join(self.pending[above - 1])
        self.pending[above - 1] = []
        self.pending[above].append(root)
        return Tile(above - 1, (self.size >> (_LEVELS_PER_TILE * above)), hashes)

    def root(self) -> bytes:
        """Of the whole tree."""
        if not self.edge:
            return EMPTY_ROOT
        found = self.edge[-1]
        for left in reversed(self.edge[:-1]):
            found = node_hash(left, found)
        return found


def load_tree(session: Session) -> Tree:
    """The tree up to where full tiles of leaves are stored; the caller takes in what follows."""
    tree = Tree()
    level, tiles = 0, _positions(session, 0)
    if not tiles:
        return tree
    tree.size = tiles * TILE_WIDTH
    tree.last_hash = session.scalars(select(AuditRow.hash).where(AuditRow.seq == tree.size)).one()
    tree.pending = [[]]
    while tiles:
        above = tiles // TILE_WIDTH
        rest = select(AuditTile.hashes).where(AuditTile.level == level, AuditTile.position >= above * TILE_WIDTH)
        tree.pending.append(
            [subtree_root(cut(hashes)) for hashes in session.scalars(rest.order_by(AuditTile.position))]
        )
        level, tiles = level + 1, above
    tree.edge = [node for hashes in reversed(tree.pending) for node in _complete_subtrees(hashes)]
    return tree


def _complete_subtrees(hashes: Sequence[bytes]) -> Iterable[bytes]:
    at = 0
    for level in range(_LEVELS_PER_TILE - 1, -1, -1):
        if len(hashes) >> level & 1:
            yield subtree_root(hashes[at : at + (1 << level)])
            at += 1 << level


def _positions(session: Session, level: int) -> int:
    last = select(AuditTile.position).where(AuditTile.level == level).order_by(AuditTile.position.desc()).limit(1)
    found = session.scalars(last).first()
    return 0 if found is None else found + 1


def cut(hashes: bytes) -> list[bytes]:
    """A tile's bytes as hashes."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def extend(session: Session, tree: Tree, rows: Iterable[Fields], *, fresh: bool) -> None:
    """Take rows into ``tree`` and store the tiles that become full. ``fresh``: nobody can have stored them yet."""
    tiles = [tile for row in rows for tile in tree.append(leaf_hash(row.entry()), row.hash)]
    if not fresh:
        stored = {level: _positions(session, level) for level in {tile.level for tile in tiles}}
        tiles = [tile for tile in tiles if tile.position >= stored[tile.level]]
    if tiles:
        session.execute(insert(AuditTile), [tile._asdict() for tile in tiles])


class AuditBroken(Unavailable):
    """The audit log does not continue what was signed."""


def catch_up(session: Session, tree: Tree | None, last: tuple[int, str]) -> Tree:
    """A tree that covers all entries up to ``last``: ``tree`` and what other processes have appended since, or all anew.

    The caller stands in line. Raises: AuditBroken if entries are gone or others that were there before: signing on would
    bury it.
    """
    found = tree.copy() if tree is not None else _load_checked(session)
    _take_in(session, found, last[0])
    if (found.size, found.last_hash) != last:
        raise AuditBroken("The audit log was changed behind our back: run `genba audit verify`.")
    return found


def _load_checked(session: Session) -> Tree:
    """The tree up to the newest checkpoint, which it must agree with."""
    note, found = newest_note(session), load_tree(session)
    if note is not None:
        signed = head_of(note)
        _take_in(session, found, signed.size)
        if found.size == signed.size and found.root() != signed.root:
            raise AuditBroken("The audit log is not what its newest checkpoint signed: run `genba audit verify`.")
        if found.size < signed.size:
            raise AuditBroken("The audit log's end was cut off: run `genba audit verify`.")
    return found


def _take_in(session: Session, tree: Tree, up_to: int) -> None:
    while tree.size < up_to:
        before = tree.size
        extend(session, tree, rows_between(session, before, min(up_to, before + _PAGE_ROWS)), fresh=False)
        if tree.size == before:
            return


def head_of(note: str) -> Checkpoint:
    """What a note of ours says, its signature not looked at."""
    return Checkpoint.parse(note.rpartition("\n\n")[0] + "\n")


_SIGN = text(
    "INSERT INTO platform_audit_checkpoints (size, at, note) VALUES (:size, :at, :note) ON CONFLICT DO NOTHING"
)


def seal(session: Session, tree: Tree, signer: NoteSigner) -> str | None:
    """Sign the head that ``tree`` stands for and store it; None if there is nothing new to sign."""
    if tree.size == 0:
        return None
    note = signer.sign(Checkpoint(signer.key.name, tree.size, tree.root()))
    row = {"size": tree.size, "at": utc_now().isoformat(timespec="microseconds"), "note": note}
    return note if session.connection().execute(_SIGN, row).rowcount == 1 else None


def seal_in(session: Session, signer: NoteSigner, tree: Tree | None = None) -> Tree:
    """Take in whatever has been appended and sign the head, in the caller's transaction."""
    found = catch_up(session, tree, stand_in_line(session))
    seal(session, found, signer)
    return found


def newest_note(session: Session) -> str | None:
    """The newest signed checkpoint."""
    newest = select(AuditCheckpoint.note).order_by(AuditCheckpoint.size.desc()).limit(1)
    return session.scalars(newest).first()


class TileReader:
    """Interior hashes of the tree below ``size``, from tiles and, where no tile is full, from rows."""

    def __init__(self, session: Session, size: int) -> None:
        self._session, self._size = session, size
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def __call__(self, level: int, index: int) -> bytes:
        tile_level, within = divmod(level, _LEVELS_PER_TILE)
        start = index << within
        hashes = self.tile(tile_level, start // TILE_WIDTH)
        at = start % TILE_WIDTH
        return subtree_root(hashes[at : at + (1 << within)])

    def tile(self, level: int, position: int) -> list[bytes]:
        """A tile's hashes, fewer than 256 at the right edge. Raises: NotFound for one beyond it."""
        key = (level, position)
        if key not in self._tiles:
            below = self._size >> (_LEVELS_PER_TILE * level)  # complete hashes of this level
            width = min(TILE_WIDTH, below - position * TILE_WIDTH)
            if width <= 0:
                raise NotFound(f"The log of {self._size} entries has no tile {position} of level {level}.")
            stored = self._session.get(AuditTile, key)
            self._tiles[key] = cut(stored.hashes)[:width] if stored else self._made(level, position, width)
        return self._tiles[key]

    def _made(self, level: int, position: int, width: int) -> list[bytes]:
        first = position * TILE_WIDTH
        if level:
            return [subtree_root(self.tile(level - 1, first + n)) for n in range(width)]
        return [leaf_hash(row.entry()) for row in rows_between(self._session, first, first + width)]


def rows_between(session: Session, start: int, end: int) -> list[Fields]:
    """The rows of leaves ``start`` to ``end``."""
    query = select(*COLUMNS).where(AuditRow.seq > start, AuditRow.seq <= end).order_by(AuditRow.seq)
    return [Fields(*row) for row in session.execute(query)]


class Proof(NamedTuple):
    """All that a stranger with the log's public key needs, to be sure that an entry is in the log."""

    entry: bytes
    leaf: int  # its index: number less one
    hashes: list[bytes]
    note: str


def prove(session: Session, seq: int) -> Proof:
    """That entry ``seq`` is below the newest checkpoint. Raises: NotFound if it is not, or not yet."""
    note = newest_note(session)
    row = session.execute(select(*COLUMNS).where(AuditRow.seq == seq)).first()
    if row is None:
        raise NotFound(f"There is no entry {seq}.")
    size = head_of(note).size if note else 0
    if note is None or size < seq:
        raise NotFound(f"Entry {seq} is not sealed yet; try again in a moment.")
    hashes = inclusion_proof(TileReader(session, size), seq - 1, size)
    return Proof(Fields(*row).entry(), seq - 1, hashes, note)


def prove_consistency(session: Session, old: int, new: int) -> list[bytes]:
    """That the log of ``new`` entries begins with the log of ``old``."""
    return consistency_proof(TileReader(session, new), old, new)
