"""A transparency log as the C2SP writes it: signed notes, checkpoints, cosignatures, and the paths and bytes of its tiles.

So that tools of others (Go's ``sumdb/note``, witnesses, ``tlog-tiles`` readers) can check our log without our code.
Knows Merkle hashes and keys; knows no database and no entry's meaning.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TILE_WIDTH = 256
_NOTE, _COSIGNATURE = 0x01, 0x04  # C2SP signed-note: Ed25519; tlog-cosignature: timestamped Ed25519
_NAME = re.compile(r"[^\s+]+")


class NotSigned(ValueError):
    """A note is malformed, or nobody whom the reader knows signed it."""


@dataclass(frozen=True)
class Checkpoint:
    """A log's head: how many entries, and the root over them."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """The note's text."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, body: str) -> Checkpoint:
        """Raises: NotSigned for a text that is no checkpoint."""
        try:
            origin, size, root, *rest = body.split("\n")
            digest = decode_base64(root)
        except ValueError as error:
            raise NotSigned("The note holds no checkpoint.") from error
        canonical = size.isascii() and size.isdecimal() and str(int(size)) == size
        if not origin or not canonical or len(digest) != hashlib.sha256().digest_size or rest[-1:] != [""]:
            raise NotSigned("The note holds no checkpoint.")
        return cls(origin, int(size), digest)


class NoteKey:
    """A named public key. Written as a vkey: ``name+8 hex digits+base64``."""

    def __init__(self, name: str, public: bytes, *, kind: int = _NOTE) -> None:
        """Raises: ValueError for a name with blanks or a plus, or bytes that are no key."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a key: no blanks and no plus.")
        self.name, self._kind, self._raw = name, kind, public
        self._public = Ed25519PublicKey.from_public_bytes(public)
        self.id = hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]

    @classmethod
    def parse(cls, vkey: str) -> NoteKey:
        """Raises: ValueError for a text that is no vkey."""
        name, _, rest = vkey.strip().partition("+")
        found_id, _, encoded = rest.partition("+")
        raw = decode_base64(encoded)
        if not raw:
            raise ValueError("This is no public key of a log; `genba audit key` prints one: NAME+ID+KEY.")
        key = cls(name, raw[1:], kind=raw[0])
        if raw[0] not in {_NOTE, _COSIGNATURE} or key.id.hex() != found_id:
            raise ValueError("The vkey's id does not belong to its key.")
        return key

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([self._kind]) + self._raw).decode()}"

    def verifies(self, body: str, signature: bytes) -> bool:
        """Whether this key made ``signature`` (without the four bytes of the key's id) over the note's text."""
        message = body.encode()
        if self._kind == _COSIGNATURE:
            if len(signature) < 8:
                return False
            (seconds,) = struct.unpack(">Q", signature[:8])
            message, signature = _cosigned(body, seconds), signature[8:]
        try:
            self._public.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class NoteSigner:
    """A named private key."""

    def __init__(self, name: str, seed: bytes) -> None:
        """``seed``: 32 bytes. Raises: ValueError for another length or a bad name."""
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key = NoteKey(name, raw)
        self.cosigning_key = NoteKey(name, raw, kind=_COSIGNATURE)

    def sign(self, checkpoint: Checkpoint) -> str:
        """The signed note."""
        body = checkpoint.body()
        return f"{body}\n{_line(self.key, self._private.sign(body.encode()))}"

    def cosign(self, note: str, *, at_s: int) -> str:
        """The note with this witness's ``cosignature/v1`` below the signatures that it has."""
        body, _ = split_note(note)
        signature = self._private.sign(_cosigned(body, at_s))
        return note + _line(self.cosigning_key, struct.pack(">Q", at_s) + signature)


def _cosigned(body: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{body}".encode()


def _line(key: NoteKey, signature: bytes) -> str:
    return f"\u2014 {key.name} {base64.b64encode(key.id + signature).decode()}\n"


def split_note(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """The text, and ``(name, key id, signature)`` of each line below it. Raises: NotSigned if it is no signed note."""
    body, separator, below = note.rpartition("\n\n")
    if not separator or not below.endswith("\n"):
        raise NotSigned("The note has no signatures.")
    found = []
    for line in below.removesuffix("\n").split("\n"):
        mark, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        try:
            raw = decode_base64(encoded)
        except ValueError as error:
            raise NotSigned("A signature line is malformed.") from error
        if mark != "\u2014" or not name or len(raw) < 5:
            raise NotSigned("A signature line is malformed.")
        found.append((name, raw[:4], raw[4:]))
    return body + "\n", found


def open_checkpoint(note: str, keys: Iterable[NoteKey]) -> Checkpoint:
    """The checkpoint of a note that every one of ``keys`` signed. Raises: NotSigned."""
    body, signatures = split_note(note)
    for key in keys:
        signed = [sig for name, key_id, sig in signatures if (name, key_id) == (key.name, key.id)]
        if len(signed) != 1 or not key.verifies(body, signed[0]):
            raise NotSigned(f"The note carries no good signature of {key.name}.")
    return Checkpoint.parse(body)


def decode_base64(text: str) -> bytes:
    """Raises: ValueError unless ``text`` is what the standard encoder writes: of two texts for the same bytes, one was forged."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("This is not canonical base64.")
    return data


def tile_path(level: int | str, index: int, width: int = TILE_WIDTH) -> str:
    """``tile/0/x001/x234/067``, with ``.p/<width>`` for one that is not full. Level ``"entries"`` names an entry bundle."""
    parts = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        parts.insert(0, f"x{index % 1000:03d}")
    suffix = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(parts)}{suffix}"


def entry_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries one after the other, each behind its length in two bytes. Raises: ValueError for one above 65,535 bytes."""
    if any(len(entry) > 0xFFFF for entry in entries):
        raise ValueError("An entry of a bundle may have 65,535 bytes at most.")
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def read_bundle(bundle: bytes) -> list[bytes]:
    """What ``entry_bundle`` wrote. Raises: ValueError if it breaks off."""
    entries, at = [], 0
    while at < len(bundle):
        if at + 2 > len(bundle):
            raise ValueError("The bundle breaks off.")
        (length,) = struct.unpack_from(">H", bundle, at)
        entries.append(bundle[at + 2 : at + 2 + length])
        if len(entries[-1]) != length:
            raise ValueError("The bundle breaks off.")
        at += 2 + length
    return entries
