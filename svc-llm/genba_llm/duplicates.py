"""Same and nearly same texts, and texts that stand in an evaluation set: MinHash over character 5-grams, checked by Jaccard.

What was seen lies in a temporary SQLite file, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from genba_shared.text_forms import nfkc

Hashes = npt.NDArray[np.uint64]
N_GRAM = 5
N_BANDS, ROWS_PER_BAND = 16, 4
NEAR = 0.8
_MIX = np.uint64(0x9E3779B97F4A7C15)
_draw = np.random.default_rng(0x5EED)
_MULTIPLIERS = _draw.integers(1, 1 << 63, N_BANDS * ROWS_PER_BAND, np.uint64) | np.uint64(1)
_ADDENDS = _draw.integers(0, 1 << 63, N_BANDS * ROWS_PER_BAND, np.uint64)


def normal(text: str) -> str:
    """NFKC, lower case, without white space: what two copies of a text share."""
    return "".join(nfkc(text).casefold().split())


def shingles(text: str) -> Hashes:
    """(n,) distinct hashes of the 5-grams of the normalised text; a shorter text is one gram."""
    codes = np.frombuffer(normal(text).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    if not codes.size:
        return np.empty(0, np.uint64)
    n = max(1, codes.size - N_GRAM + 1)
    value = np.zeros(n, np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(min(N_GRAM, codes.size)):
            value = (value ^ codes[offset : offset + n]) * _MIX
            value ^= value >> np.uint64(29)
    return np.unique(value)


def jaccard(a: Hashes, b: Hashes) -> float:
    """Share of common grams; 1 for two empty texts."""
    union = np.union1d(a, b).size
    return np.intersect1d(a, b, assume_unique=True).size / union if union else 1.0


def _jaccards(grams: Hashes, others: Sequence[Hashes]) -> npt.NDArray[np.float64]:
    """``jaccard`` of ``grams`` with each of ``others``, none of them empty, in one pass."""
    sizes = np.array([each.size for each in others])
    every = np.concatenate(others)
    place = np.searchsorted(grams, every).clip(max=grams.size - 1)
    common = np.add.reduceat((grams[place] == every).astype(np.int64), np.cumsum(sizes) - sizes)  # (n,)
    return common / (grams.size + sizes - common)  # type: ignore[no-any-return]


def signature(grams: Hashes) -> Hashes:
    """(16,) one hash for each band of four MinHashes. Texts of Jaccard .8 share a band with probability .9998."""
    with np.errstate(over="ignore"):
        mixed = grams[:, None] * _MULTIPLIERS + _ADDENDS
        least = (mixed ^ (mixed >> np.uint64(31))).min(0).reshape(N_BANDS, ROWS_PER_BAND)
        band = np.arange(N_BANDS, dtype=np.uint64)
        for row in range(ROWS_PER_BAND):
            band = (band ^ least[:, row]) * _MIX
    return band


def _bands(grams: Hashes) -> list[int]:
    return signature(grams).view(np.int64).tolist() if grams.size else []


def _digest(text: str) -> bytes:
    return hashlib.blake2b(normal(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Seen:
    """Texts seen so far. ``add`` says what a text repeats."""

    def __init__(self, *, near: float = NEAR) -> None:
        self._near = near
        self._folder = tempfile.TemporaryDirectory(prefix="genba-duplicates-")
        self._db = sqlite3.connect(Path(self._folder.name) / "seen.db", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536;"
            "CREATE TABLE exact (digest BLOB PRIMARY KEY, name TEXT) WITHOUT ROWID;"
            "CREATE TABLE texts (id INTEGER PRIMARY KEY, name TEXT, grams BLOB);"
            "CREATE TABLE bands (hash INTEGER, id INTEGER, PRIMARY KEY (hash, id)) WITHOUT ROWID;"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        self._folder.cleanup()

    def add(self, text: str, name: str) -> tuple[str, float] | None:
        """The name of the text that this one repeats, and how alike they are; None for a new text, which is remembered."""
        digest = _digest(text)
        known = self._db.execute("SELECT name FROM exact WHERE digest = ?", (digest,)).fetchone()
        if known:
            return str(known[0]), 1.0
        grams = shingles(text)
        bands = _bands(grams)
        if found := self._alike(grams, bands):
            return found
        self._keep(name, digest, grams, bands)
        return None

    def remember(self, text: str, name: str) -> None:
        """Take in a text that ``add`` found new before: what follows is compared with it, it with nothing."""
        grams = shingles(text)
        self._keep(name, _digest(text), grams, _bands(grams))

    def _keep(self, name: str, digest: bytes, grams: Hashes, bands: Iterable[int]) -> None:
        if grams.size:
            row = self._db.execute("INSERT INTO texts (name, grams) VALUES (?, ?)", (name, grams.tobytes())).lastrowid
            self._db.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", [(band, row) for band in bands])
        self._db.execute("INSERT INTO exact VALUES (?, ?)", (digest, name))

    def most_alike(self, text: str) -> tuple[str, float] | None:
        """The remembered text that is nearest, if it is at least ``near``; remembers nothing."""
        grams = shingles(text)
        return self._alike(grams, _bands(grams))

    def _alike(self, grams: Hashes, bands: Iterable[int]) -> tuple[str, float] | None:
        wanted = list(bands)
        if not wanted:
            return None
        marks = ",".join("?" * len(wanted))
        rows = self._db.execute(
            f"SELECT name, grams FROM texts WHERE id IN (SELECT DISTINCT id FROM bands WHERE hash IN ({marks}))",  # noqa: S608 - marks only
            wanted,
        )
        candidates = rows.fetchall()
        if not candidates:
            return None
        alike = _jaccards(grams, [np.frombuffer(each, np.uint64) for _, each in candidates])
        best = max(range(len(candidates)), key=lambda index: (alike[index], candidates[index][0]))
        return (str(candidates[best][0]), float(alike[best])) if alike[best] >= self._near else None
