"""Texts that must be provable without being readable: salted commitments, and encrypted copies where a policy wants them.

A commitment is SHA-256 over a fresh random salt and the text. It stands in the audit log; the salt does not, so that erasing
the salt leaves a digest that nobody can try guesses against. Encryption is AES-256-GCM under a key that never enters the
database. Knows no table.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from genba_shared.text_forms import nfkc

_SALT_BYTES = 16
_NONCE_BYTES = 12
_SKETCH_BITS = 64
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True)
class Commitment:
    """``digest`` (hex) may be shown to anybody; with ``salt`` and the text it can be opened."""

    salt: bytes
    digest: str


def commit(text: str) -> Commitment:
    """Commit to a text. Two commitments to the same text have nothing in common."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return Commitment(salt, _digest(salt, text))


def opens(digest: str, *, salt: bytes, text: str) -> bool:
    """Whether ``text`` is what was committed to."""
    return hmac.compare_digest(digest, _digest(salt, text))


def _digest(salt: bytes, text: str) -> str:
    return hashlib.sha256(salt + text.encode("utf-8", "surrogatepass")).hexdigest()


class TextVault:
    """Encrypts texts for rest. One secret, two keys: one for texts, one for sketches."""

    def __init__(self, secret: bytes) -> None:
        """``secret``: at least 16 bytes. Raises: ValueError for a shorter one."""
        if len(secret) < _SALT_BYTES:
            raise ValueError("The text key must have at least 16 bytes.")
        self._cipher = AESGCM(_derived(secret, b"genba llm texts"))
        self._sketch_key = _derived(secret, b"genba llm sketches")

    def seal(self, text: str, *, bound_to: str) -> bytes:
        """The encrypted text, which opens only under the same ``bound_to``."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode("utf-8", "surrogatepass"), bound_to.encode())

    def open(self, sealed: bytes, *, bound_to: str) -> str:
        """Raises: ValueError if it was not sealed with this key, for this record, or was changed."""
        try:
            data = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to.encode())
        except InvalidTag as error:
            raise ValueError("The text does not open: another key, another record, or it was changed.") from error
        return data.decode("utf-8", "surrogatepass")

    def sketch(self, text: str) -> int:
        """A keyed 64-bit simhash of character trigrams: near-equal texts differ in few bits, and without the key it says
        nothing. Signed, as databases keep integers.
        """
        plain = _BLANKS.sub(" ", nfkc(text).lower()).strip()
        grams = {plain[at : at + 3] for at in range(max(1, len(plain) - 2))}
        votes = [0] * _SKETCH_BITS
        for gram in grams:
            digest = hashlib.blake2b(
                gram.encode("utf-8", "surrogatepass"), digest_size=8, key=self._sketch_key
            ).digest()
            bits = int.from_bytes(digest)
            for at in range(_SKETCH_BITS):
                votes[at] += 1 if bits >> at & 1 else -1
        value = sum(1 << at for at, vote in enumerate(votes) if vote > 0)
        return value - (1 << _SKETCH_BITS) if value >> (_SKETCH_BITS - 1) else value


def distance(left: int, right: int) -> int:
    """In how many bits two sketches differ."""
    return ((left ^ right) & ((1 << _SKETCH_BITS) - 1)).bit_count()


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=purpose).derive(secret)
