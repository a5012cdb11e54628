"""The catalogue in memory, as columns that lists are filtered by. Arrays and words; knows no table, no model and no HTTP.

A ``Shelf`` never changes: a change makes the next one, and whoever is at work keeps the one that they took. Rows are only ever
added, so that a row means the same item on every shelf of a process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import orjson

from genba_recommend.dataset import Item

Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int32]
WORDS: Final = ("genre", "maker", "tags", "performers", "regions")
READ_BY_THE_TOWER: Final = (
    "item_id", "title", "description", "genre", "maker", "performers", "tags", "price", "duration_s", "published_at_s",
    "embedding",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """An item as the catalogue holds it."""

    item: Item
    regions: tuple[str, ...] = ()
    clearance: int = 1
    active: bool = True
    content_hash: str = ""


@dataclass(frozen=True)
class Wanted:
    """What may be on a list; hashable, because masks are remembered by it. Empty and None ask for nothing."""

    genre: tuple[str, ...] = ()
    maker: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    performers: tuple[str, ...] = ()
    region: str | None = None
    price_min: float | None = None
    price_max: float | None = None
    duration_min_s: float | None = None
    duration_max_s: float | None = None
    clearance: int = 3


@dataclass(frozen=True)
class Words:
    """Which items carry which words: pairs of row and code, in no order."""

    rows: Rows
    codes: Rows

    def mask(self, codes: Sequence[int], n: int) -> Bools:
        """(n,) the items that carry any of ``codes``."""
        found = np.zeros(n, np.bool_)
        for code in codes:
            found[self.rows[self.codes == code]] = True
        return found


NO_WORDS = Words(np.zeros(0, np.int32), np.zeros(0, np.int32))


@dataclass(frozen=True)
class Shelf:
    """N items. Columns are (N,); price and duration are nan where unknown, ``published_s`` is -inf there."""

    ids: list[str] = field(default_factory=list)  # shared between shelves: a shelf sees its first N
    row_by_id: dict[str, int] = field(default_factory=dict)  # shared; rows from N on are of later shelves
    entries: list[Entry] = field(default_factory=list)
    vocabulary: dict[str, int] = field(default_factory=dict)  # shared, only grows
    words: Mapping[str, Words] = field(default_factory=lambda: dict.fromkeys(WORDS, NO_WORDS))
    price: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    duration_s: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    published_s: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0, np.float64))
    clearance: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    active: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    everywhere: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    revision: int = 0
    allowed: Callable[[Wanted], Bools] = field(init=False, repr=False, compare=False)  # _allowed, with a memory

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowed", lru_cache(maxsize=256)(self._allowed))

    def __len__(self) -> int:
        return len(self.price)

    def row(self, item_id: str) -> int | None:
        """The row of an item that this shelf has."""
        row = self.row_by_id.get(item_id)
        return row if row is not None and row < len(self) else None

    def with_entries(self, changed: Sequence[Entry], *, revision: int) -> Self:
        """The next shelf: items replaced in place, new ones at the end."""
        latest = {entry.item.item_id: entry for entry in changed}
        entries = list(self.entries)
        rows = np.empty(len(latest), np.int32)
        for at, (item_id, entry) in enumerate(latest.items()):
            row = self.row_by_id.get(item_id)
            if row is None:
                row = len(entries)
                self.ids.append(item_id)
                self.row_by_id[item_id] = row
                entries.append(entry)
            else:
                entries[row] = entry
            rows[at] = row
        values, n = list(latest.values()), len(entries)

        def column(old: npt.NDArray[Any], new: Iterable[Any]) -> npt.NDArray[Any]:
            out = np.concatenate([old, np.zeros(n - len(old), old.dtype)])
            out[rows] = np.fromiter(new, old.dtype, len(values))
            return out

        return type(self)(
            ids=self.ids,
            row_by_id=self.row_by_id,
            entries=entries,
            vocabulary=self.vocabulary,
            words={name: self._words(name, rows, values) for name in WORDS},
            price=column(self.price, (_or_nan(entry.item.price) for entry in values)),
            duration_s=column(self.duration_s, (_or_nan(entry.item.duration_s) for entry in values)),
            published_s=column(
                self.published_s,
                (-np.inf if e.item.published_at_s is None else e.item.published_at_s for e in values),
            ),
            clearance=column(self.clearance, (entry.clearance for entry in values)),
            active=column(self.active, (entry.active for entry in values)),
            everywhere=column(self.everywhere, (not entry.regions for entry in values)),
            revision=revision,
        )

    def _words(self, name: str, rows: Rows, values: Sequence[Entry]) -> Words:
        old, known = self.words[name], self.vocabulary
        pairs = [
            (row, known.setdefault(f"{name}:{word}", len(known)))
            for row, entry in zip(rows.tolist(), values, strict=True)
            for word in words_of(entry, name)
        ]
        kept = ~np.isin(old.rows, rows) if len(old.rows) else np.zeros(0, np.bool_)
        new = np.array(pairs, np.int32).reshape(-1, 2)
        return Words(np.concatenate([old.rows[kept], new[:, 0]]), np.concatenate([old.codes[kept], new[:, 1]]))

    def _allowed(self, wanted: Wanted) -> Bools:
        """(N,) what may be on the list. Not to be written to: it is shared."""
        mask = self.active & (self.clearance <= wanted.clearance)
        for name in ("genre", "maker", "tags", "performers"):
            if asked := getattr(wanted, name):
                mask &= self.carrying(name, asked)
        if wanted.region is not None:
            mask &= self.everywhere | self.carrying("regions", (wanted.region,))
        with np.errstate(invalid="ignore"):  # what is unknown is within no bounds
            for column, low, high in (
                (self.price, wanted.price_min, wanted.price_max),
                (self.duration_s, wanted.duration_min_s, wanted.duration_max_s),
            ):
                if low is not None:
                    mask &= column >= np.float64(low)  # a bound beyond single precision is compared, not cast
                if high is not None:
                    mask &= column <= np.float64(high)
        mask.flags.writeable = False
        return mask

    def carrying(self, name: str, asked: Iterable[str]) -> Bools:
        """(N,) the items that carry any of the words asked for."""
        codes = [code for word in asked if (code := self.vocabulary.get(f"{name}:{word}")) is not None]
        return self.words[name].mask(codes, len(self))


def words_of(entry: Entry, name: str) -> tuple[str, ...]:
    """The words of an item under one of ``WORDS``, each once."""
    if name == "maker":
        return (entry.item.maker,) if entry.item.maker else ()
    found = entry.regions if name == "regions" else getattr(entry.item, name)
    return tuple(dict.fromkeys(found))


def content_hash(item: Item) -> str:
    """A hash of what the item tower reads, so that a vector can be told to be stale."""
    read = [getattr(item, name) for name in READ_BY_THE_TOWER]
    if item.embedding_by is not None:
        read.append(item.embedding_by)
    return hashlib.blake2b(orjson.dumps(read), digest_size=16).hexdigest()


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
