"""Merkle proofs against the definitions of RFC 6962 2.1, written here from its text, and against its published vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba_shared.merkle import (
    EMPTY_ROOT,
    CompactRange,
    consistency_proof,
    extends,
    includes,
    inclusion_proof,
    leaf_hash,
    peaks,
    root_at,
    subtree_root,
)

# The inputs and roots of the reference implementation of Certificate Transparency.
VECTORS = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def mth(entries: Sequence[bytes]) -> bytes:
    """RFC 6962 2.1: the Merkle Tree Hash of a list."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = largest_power_below(len(entries))
    return hashlib.sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()


def largest_power_below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 2.1.1: PATH(m, D[n])."""
    if len(entries) == 1:
        return []
    k = largest_power_below(len(entries))
    if m < k:
        return [*path(m, entries[:k]), mth(entries[k:])]
    return [*path(m - k, entries[k:]), mth(entries[:k])]


def proof(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 2.1.2: PROOF(m, D[n])."""

    def subproof(m: int, entries: Sequence[bytes], *, b: bool) -> list[bytes]:
        if m == len(entries):
            return [] if b else [mth(entries)]
        k = largest_power_below(len(entries))
        if m <= k:
            return [*subproof(m, entries[:k], b=b), mth(entries[k:])]
        return [*subproof(m - k, entries[k:], b=False), mth(entries[:k])]

    return subproof(m, entries, b=True)


def entries_of(n: int) -> list[bytes]:
    return [f"entry {k}".encode() for k in range(n)]


class Leaves:
    """Reads interior hashes out of leaves, as a store would."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.leaves = [leaf_hash(entry) for entry in entries]

    def __call__(self, level: int, index: int) -> bytes:
        return subtree_root(self.leaves[index << level : (index + 1) << level])


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_that_certificate_transparency_publishes(size: int) -> None:
    assert subtree_root([leaf_hash(entry) for entry in VECTORS[:size]]).hex() == ROOTS[size - 1]
    assert mth(VECTORS[:size]).hex() == ROOTS[size - 1]


def test_an_empty_tree_has_the_hash_of_nothing() -> None:
    assert CompactRange().root() == EMPTY_ROOT == mth([])
    assert root_at(Leaves([]), 0) == EMPTY_ROOT


@given(st.integers(1, 70), st.data())
@settings(max_examples=60, deadline=None)
def test_inclusion_proofs_are_the_paths_of_the_rfc_and_hold(size: int, data: st.DataObject) -> None:
    entries = entries_of(size)
    index = data.draw(st.integers(0, size - 1))
    made = inclusion_proof(Leaves(entries), index, size)
    assert made == path(index, entries)
    known = {"leaf": leaf_hash(entries[index]), "root": mth(entries)}
    assert includes(made, index=index, size=size, **known)
    assert not includes(made, index=index, size=size, leaf=leaf_hash(b"other"), root=known["root"])
    assert not includes([*made, b"\0" * 32], index=index, size=size, **known)
    if made:
        assert not includes(made[:-1], index=index, size=size, **known)
        broken = [*made]
        at = data.draw(st.integers(0, len(made) - 1))
        broken[at] = bytes([broken[at][0] ^ 1]) + broken[at][1:]
        assert not includes(broken, index=index, size=size, **known)


@given(st.integers(1, 70), st.data())
@settings(max_examples=60, deadline=None)
def test_consistency_proofs_are_those_of_the_rfc_and_hold(size: int, data: st.DataObject) -> None:
    entries = entries_of(size)
    old = data.draw(st.integers(1, size))
    made = consistency_proof(Leaves(entries), old, size)
    assert made == proof(old, entries)
    roots = {"old_root": mth(entries[:old]), "new_root": mth(entries)}
    assert extends(made, old=old, new=size, **roots)
    forked = mth([b"forged", *entries[1:old]])
    assert not extends(made, old=old, new=size, old_root=forked, new_root=roots["new_root"])
    assert not extends([*made, b"\0" * 32], old=old, new=size, **roots)
    if made:
        assert not extends(made[1:], old=old, new=size, **roots)


def test_every_log_extends_the_empty_one_and_none_extends_a_longer() -> None:
    root = mth(entries_of(3))
    assert extends([], old=0, old_root=EMPTY_ROOT, new=3, new_root=root)
    assert not extends([], old=0, old_root=root, new=3, new_root=root)
    assert not extends([], old=4, old_root=root, new=3, new_root=root)
    assert extends([], old=3, old_root=root, new=3, new_root=root)
    with pytest.raises(ValueError, match="no beginning"):
        consistency_proof(Leaves(entries_of(3)), 4, 3)
    with pytest.raises(ValueError, match="not in a tree"):
        inclusion_proof(Leaves(entries_of(3)), 3, 3)
    assert not includes([], leaf=leaf_hash(b""), index=0, size=0, root=EMPTY_ROOT)


@given(st.integers(0, 300))
@settings(max_examples=30, deadline=None)
def test_a_tree_that_grew_has_the_root_of_one_made_at_once(size: int) -> None:
    grown = CompactRange()
    for entry in entries_of(size):
        grown.append(leaf_hash(entry))
    assert grown.root() == mth(entries_of(size)) == root_at(Leaves(entries_of(size)), size)
    assert len(peaks(size)) == len(grown.hashes)
    twin = grown.copy()
    twin.append(leaf_hash(b"more"))
    assert grown.root() == mth(entries_of(size))


def test_an_edge_that_does_not_fit_its_size_is_refused() -> None:
    with pytest.raises(ValueError, match="2 complete subtrees"):
        CompactRange(3, [b"\0" * 32])
