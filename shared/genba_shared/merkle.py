"""The Merkle tree of RFC 6962 and RFC 9162: how a log of hashes becomes one root, and how a short proof speaks for one entry.

Hashes in, hashes out; knows no database, no file and no signature. A tree's interior hash is named by level and index: node
``(level, index)`` covers the ``2**level`` leaves from ``index * 2**level`` on. Whoever holds the leaves hands in a ``Reader``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Reader = Callable[[int, int], bytes]
"""``(level, index)`` → the hash of a complete subtree."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def subtree_root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes. Linear, and needs them all: for tiles of 256 and for checking."""
    tree = CompactRange()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


class CompactRange:
    """The right edge of a growing tree: the roots of its complete subtrees, largest first; at most 64 hashes."""

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """Raises: ValueError unless there is one hash per bit that is set in ``size``."""
        self.size, self.hashes = size, list(hashes)
        if size < 0 or len(self.hashes) != size.bit_count():
            raise ValueError(
                f"A tree of {size} leaves has {size.bit_count()} complete subtrees, not {len(self.hashes)}."
            )

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash at the end."""
        found, size = leaf, self.size
        while size & 1:
            found = node_hash(self.hashes.pop(), found)
            size >>= 1
        self.hashes.append(found)
        self.size += 1

    def root(self) -> bytes:
        """The root of the tree so far."""
        if not self.hashes:
            return EMPTY_ROOT
        found = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            found = node_hash(left, found)
        return found

    def copy(self) -> CompactRange:
        return CompactRange(self.size, self.hashes)


def peaks(size: int) -> list[tuple[int, int]]:
    """``(level, index)`` of each complete subtree of a tree of ``size`` leaves, largest first."""
    found, at = [], 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            found.append((level, at >> level))
            at += 1 << level
    return found


def _range_hash(read: Reader, start: int, end: int) -> bytes:
    """The root over leaves ``start`` to ``end``, where ``start`` is a multiple of the least power of two ≥ its width."""
    width = end - start
    if width & (width - 1) == 0:
        level = width.bit_length() - 1
        return read(level, start >> level)
    split = 1 << ((width - 1).bit_length() - 1)
    return node_hash(_range_hash(read, start, start + split), _range_hash(read, start + split, end))


def root_at(read: Reader, size: int) -> bytes:
    """The root of the first ``size`` leaves."""
    return _range_hash(read, 0, size) if size else EMPTY_ROOT


def inclusion_proof(read: Reader, index: int, size: int) -> list[bytes]:
    """That leaf ``index`` is in the tree of ``size`` leaves (RFC 9162 2.1.3.1): the siblings on its way up, lowest first.

    Raises: ValueError unless ``0 <= index < size``.
    """
    if not 0 <= index < size:
        raise ValueError(f"Leaf {index} is not in a tree of {size}.")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if index < split:
            proof.append(_range_hash(read, split, end))
            end = split
        else:
            proof.append(_range_hash(read, start, split))
            start = split
    return proof[::-1]


def consistency_proof(read: Reader, old: int, new: int) -> list[bytes]:
    """That the tree of ``new`` leaves begins with the tree of ``old`` (RFC 9162 2.1.4.1).

    Raises: ValueError unless ``0 <= old <= new``.
    """
    if not 0 <= old <= new:
        raise ValueError(f"A tree of {old} leaves is no beginning of one of {new}.")
    if old in {0, new}:
        return []
    return _subproof(read, old, 0, new, whole=True)


def _subproof(read: Reader, old: int, start: int, end: int, *, whole: bool) -> list[bytes]:
    if old == end - start:
        return [] if whole else [_range_hash(read, start, end)]
    split = 1 << ((end - start - 1).bit_length() - 1)
    if old <= split:
        return [
            *_subproof(read, old, start, start + split, whole=whole),
            _range_hash(read, start + split, end),
        ]
    return [
        *_subproof(read, old - split, start + split, end, whole=False),
        _range_hash(read, start, start + split),
    ]


def includes(proof: Sequence[bytes], *, leaf: bytes, index: int, size: int, root: bytes) -> bool:
    """Whether ``proof`` shows ``leaf`` at ``index`` of the tree with ``root`` (RFC 9162 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and found == root


def extends(proof: Sequence[bytes], *, old: int, old_root: bytes, new: int, new_root: bytes) -> bool:
    """Whether ``proof`` shows that the tree of ``new`` leaves begins with that of ``old`` (RFC 9162 2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    if old == new:
        return not proof and old_root == new_root
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    return bool(path) and _climb(path, old - 1, new - 1) == (old_root, new_root)


def _climb(path: Sequence[bytes], node: int, last: int) -> tuple[bytes, bytes] | None:
    """The roots of the old and the new tree that a consistency proof leads to; None if it is too long or too short."""
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if node & 1 or node == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        node, last = node >> 1, last >> 1
    return (first, second) if last == 0 else None
