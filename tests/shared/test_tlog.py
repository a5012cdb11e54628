"""Notes, checkpoints and tiles as C2SP writes them; the first note is Go's own example, signed by Go's own key."""

from __future__ import annotations

import base64

import pytest

from genba_shared.tlog import (
    Checkpoint,
    NoteKey,
    NoteSigner,
    NotSigned,
    entry_bundle,
    open_checkpoint,
    read_bundle,
    split_note,
    tile_path,
)

GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
SIGNER = NoteSigner("plant.example/audit", bytes(range(32)))
HEAD = Checkpoint("plant.example/audit", 7, b"\x11" * 32)


def test_a_note_that_go_signed_is_verified() -> None:
    key = NoteKey.parse(GO_KEY)
    raw = base64.b64decode(GO_SIGNATURE)
    assert raw[:4] == key.id
    assert key.verifies(GO_TEXT, raw[4:])
    assert not key.verifies(GO_TEXT + " ", raw[4:])
    assert key.vkey == GO_KEY


def test_a_signed_checkpoint_opens_to_what_was_signed() -> None:
    note = SIGNER.sign(HEAD)
    assert note.splitlines()[:3] == ["plant.example/audit", "7", base64.b64encode(HEAD.root).decode()]
    assert open_checkpoint(note, [SIGNER.key]) == HEAD
    assert open_checkpoint(note, [NoteKey.parse(SIGNER.key.vkey)]) == HEAD


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_no_character_of_a_note_can_be_changed(at: int) -> None:
    note = SIGNER.sign(HEAD)
    at %= len(note)
    broken = note[:at] + chr(ord(note[at]) ^ 1) + note[at + 1 :]
    with pytest.raises(NotSigned):
        open_checkpoint(broken, [SIGNER.key])


def test_another_key_of_the_same_name_is_not_believed() -> None:
    other = NoteSigner(SIGNER.key.name, bytes(32))
    with pytest.raises(NotSigned, match="no good signature"):
        open_checkpoint(other.sign(HEAD), [SIGNER.key])


def test_a_witness_signs_below_the_log_with_its_time() -> None:
    witness = NoteSigner("witness.example/w1", b"\x07" * 32)
    note = witness.cosign(SIGNER.sign(HEAD), at_s=1_790_000_000)
    assert open_checkpoint(note, [SIGNER.key, witness.cosigning_key]) == HEAD
    assert [name for name, _, _ in split_note(note)[1]] == ["plant.example/audit", "witness.example/w1"]
    with pytest.raises(NotSigned):  # a witness's key is of another kind, so its signature can stand for nobody's log
        open_checkpoint(note, [NoteSigner("witness.example/w1", b"\x07" * 32).key])


@pytest.mark.parametrize(
    "body",
    ["o\n07\nAA==\n", "o\n7\nAA==\n", f"o\n-7\n{base64.b64encode(bytes(32)).decode()}\n", "o\n7\n", "\n1\n\n", "x"],
)
def test_a_text_that_is_no_checkpoint_is_refused(body: str) -> None:
    with pytest.raises(NotSigned):
        Checkpoint.parse(body)


@pytest.mark.parametrize("vkey", ["", "a+b", "a+00000000+AQ==", GO_KEY.replace("c74f20a3", "c74f20a4")])
def test_a_text_that_is_no_key_is_refused(vkey: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        NoteKey.parse(vkey)


@pytest.mark.parametrize("name", ["a b", "a+b", ""])
def test_a_name_with_blanks_or_a_plus_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a key"):
        NoteSigner(name, bytes(32))


def test_tiles_lie_where_the_specification_says() -> None:
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(2, 5, 17) == "tile/2/005.p/17"
    assert tile_path("entries", 1000) == "tile/entries/x001/000"


def test_a_bundle_gives_back_its_entries_and_says_when_it_breaks_off() -> None:
    entries = [b"", b"a", "日本語".encode(), b"x" * 65535]
    assert read_bundle(entry_bundle(entries)) == entries
    for broken in (entry_bundle(entries)[:-1], b"\x00"):
        with pytest.raises(ValueError, match="breaks off"):
            read_bundle(broken)
    with pytest.raises(ValueError, match="65,535"):
        entry_bundle([b"x" * 65536])
