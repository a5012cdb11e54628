"""Turn items and users into the integers and floats that the towers read. Fitted once, written to encoders.json, the same everywhere.

A browser or another process repeats every step from that file, so all of them are plain: look up, count, logarithm, compare.
Index 0 of every vocabulary means "nothing here", 1 "something that training never saw"; of item ids, 0 means both, because an
item tower that has learnt to do without an id treats a new item as one whose id was dropped.
Knows nothing of torch: arrays out.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from genba_recommend.dataset import Catalogue, Dataset, Histories, Ints, Item, User
from genba_shared.text_forms import nfkc

Int32s = npt.NDArray[np.int32]
Float32s = npt.NDArray[np.float32]

NOTHING, UNKNOWN, FIRST_KNOWN = 0, 1, 2
DAY_S = 86_400.0
NUMBERS = ("price", "duration_s", "age_days")
MOST_OF_AN_EMBEDDING = 1e9  # what is larger overflows inside the tower, and one item would spoil a whole training
PROFILE_NUMBERS = ("log_events", "log_sessions_per_week", "log_mean_watched_s")
_WORDS = re.compile(r"[0-9a-zà-öø-ÿĀ-ſ]+|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class EncoderConfig:
    """Lengths of the padded lists and sizes of the tables."""

    history_len: int = 100
    genre_len: int = 6
    performers_len: int = 8
    tags_len: int = 12
    top_len: int = 3  # top genres and top makers in a user's profile
    text_len: int = 24  # heaviest terms kept of a text
    text_buckets: int = 4096
    number_buckets: int = 16
    min_count: int = 2  # a maker, performer or tag on fewer items stays unknown
    min_id_events: int = 1  # an item with fewer positive events gets no id of its own


@dataclass(frozen=True)
class NumberScale:
    """How a number becomes a bucket and a standardised logarithm: edges increasing, mean and spread of log(1 + x)."""

    edges: tuple[float, ...] = ()
    mean: float = 0.0
    spread: float = 1.0

    @property
    def n_buckets(self) -> int:
        """Return how many buckets there are, the one for missing numbers included."""
        return len(self.edges) + 2

    def encode(self, values: npt.NDArray[np.float64]) -> tuple[Int32s, Float32s]:
        """Args: values: (N,), nan for missing. Returns: bucket (N,), 0 for missing; (N,) standardised logarithm, 0 for missing."""
        missing = np.isnan(values)
        known = np.maximum(np.where(missing, 0.0, values), 0.0)
        bucket = np.where(missing, 0, 1 + np.searchsorted(self.edges, known, side="right"))
        number = np.where(missing, 0.0, (np.log1p(known) - self.mean) / self.spread)
        return bucket.astype(np.int32), number.astype(np.float32)


@dataclass(frozen=True)
class ItemFeatures:
    """The catalogue as the item tower reads it; N rows in the catalogue's order, lists padded with 0.

    id: (N,).   genre: (N, Lg).   maker: (N, 1).   performers: (N, Lp).   tags: (N, Lt).
    text: (N, Lx) buckets from 1; text_weight: (N, Lx), of unit length a row.
    number_bucket, number: (N, 3) in the order of ``NUMBERS``.   embedding: (N, E), E = 0 without.
    """

    id: Int32s
    genre: Int32s
    maker: Int32s
    performers: Int32s
    tags: Int32s
    text: Int32s
    text_weight: Float32s
    number_bucket: Int32s
    number: Float32s
    embedding: Float32s

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: npt.NDArray[Any] | slice) -> Self:
        return type(self)(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by name, in the order of the fields."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class UserFeatures:
    """Users as the user tower reads them; B rows.

    history: (B, T) catalogue row + 1, newest first, 0 where there is nothing; weight: (B, T), 0 there.
    genre, maker: (B, top_len), the most frequent of the history.   age_range, region: (B,).
    number: (B, 3) in the order of ``PROFILE_NUMBERS``.
    """

    history: Int32s
    weight: Float32s
    genre: Int32s
    maker: Int32s
    age_range: Int32s
    region: Int32s
    number: Float32s

    def __len__(self) -> int:
        return len(self.history)

    def take(self, rows: npt.NDArray[Any] | slice) -> Self:
        return type(self)(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by name, in the order of the fields."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Windows:
    """The newest events before a moment, for B users. history, weight as in ``UserFeatures``; n_events, mean_watched_s: (B,)."""

    history: Int32s
    weight: Float32s
    n_events: Ints
    mean_watched_s: npt.NDArray[np.float64]  # nan without views


@dataclass(frozen=True)
class Encoders:
    """Vocabularies and scales. Make with ``fit``; ``to_json`` and ``from_json`` carry all of it."""

    config: EncoderConfig
    reference_s: (
        float  # the moment of fitting: ages of items count back from it, so vectors do not drift with the clock
    )
    ids: tuple[str, ...]
    genres: tuple[str, ...]
    makers: tuple[str, ...]
    performers: tuple[str, ...]
    tags: tuple[str, ...]
    age_ranges: tuple[str, ...]
    regions: tuple[str, ...]
    idf: tuple[float, ...]  # (text_buckets,)
    numbers: Mapping[str, NumberScale] = field(default_factory=dict)
    embedding_len: int = 0
    embedding_by: str | None = None  # the encoder whose embeddings are read; see ``Item``

    @classmethod
    def fit(cls, dataset: Dataset, config: EncoderConfig = EncoderConfig()) -> Self:
        """Learn vocabularies from the items, ids from the items with positive events, scales from what is known."""
        items = dataset.catalogue.items
        events = dataset.histories
        counts = np.bincount(events.item, minlength=len(items))
        reference_s = float(dataset.interactions.time_s.max()) if len(dataset.interactions) else 0.0
        embedding_by, embedding_len = _usual_embedding(items)
        return cls(
            config=config,
            reference_s=reference_s,
            ids=tuple(item.item_id for item, n in zip(items, counts, strict=True) if n >= config.min_id_events),
            genres=_vocabulary((item.genre for item in items), 1),
            makers=_vocabulary(((item.maker,) for item in items if item.maker), config.min_count),
            performers=_vocabulary((item.performers for item in items), config.min_count),
            tags=_vocabulary((item.tags for item in items), config.min_count),
            age_ranges=_vocabulary(((user.age_range,) for user in dataset.users if user.age_range), 1),
            regions=_vocabulary(((user.region,) for user in dataset.users if user.region), 1),
            idf=_inverse_document_frequency(items, config.text_buckets),
            numbers={name: _scale(_numbers(items, reference_s)[name], config.number_buckets) for name in NUMBERS},
            embedding_len=embedding_len,
            embedding_by=embedding_by,
        )

    def to_json(self) -> str:
        return json.dumps({"format": 1, **asdict(self)}, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises: ValueError for a file of another format."""
        raw: dict[str, Any] = json.loads(text)
        if raw.pop("format", None) != 1:
            raise ValueError("encoders.json is of a format that this version does not read.")
        scales = {name: NumberScale(**{**s, "edges": tuple(s["edges"])}) for name, s in raw.pop("numbers").items()}
        config = EncoderConfig(**raw.pop("config"))
        lists: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()
        }
        return cls(config=config, numbers=scales, **lists)

    @cached_property
    def _index(self) -> Mapping[str, Mapping[str, int]]:
        names = ("genres", "makers", "performers", "tags", "age_ranges", "regions")
        known = {name: {word: at for at, word in enumerate(getattr(self, name), FIRST_KNOWN)} for name in names}
        return known | {"ids": {word: at for at, word in enumerate(self.ids, 1)}}

    def items(self, catalogue: Catalogue | Sequence[Item]) -> ItemFeatures:
        """Encode items, known or new."""
        items = catalogue.items if isinstance(catalogue, Catalogue) else catalogue
        config, index = self.config, self._index
        text, text_weight = self._texts(items)
        numbers = _numbers(items, self.reference_s)
        encoded = [self.numbers[name].encode(numbers[name]) for name in NUMBERS]
        return ItemFeatures(
            id=np.array([index["ids"].get(item.item_id, NOTHING) for item in items], np.int32),
            genre=_bags((item.genre for item in items), index["genres"], config.genre_len),
            maker=_bags(((item.maker,) if item.maker else () for item in items), index["makers"], 1),
            performers=_bags((item.performers for item in items), index["performers"], config.performers_len),
            tags=_bags((item.tags for item in items), index["tags"], config.tags_len),
            text=text,
            text_weight=text_weight,
            number_bucket=np.stack([bucket for bucket, _ in encoded], 1),
            number=np.stack([number for _, number in encoded], 1),
            embedding=self._embeddings(items),
        )

    def profile_codes(self, items: Sequence[Item]) -> tuple[Int32s, Int32s]:
        """Encode of items only what profiles are made of: genre (N, Lg) and maker (N, 1), as in ``items``."""
        index = self._index
        genre = _bags((item.genre for item in items), index["genres"], self.config.genre_len)
        return genre, _bags(((item.maker,) if item.maker else () for item in items), index["makers"], 1)

    def users(self, users: Sequence[User], windows: Windows, items: ItemFeatures) -> UserFeatures:
        """Encode users with what they did lately; ``items`` are the features of the rows that the windows refer to."""
        sessions = np.array([np.nan if user.sessions_per_week is None else user.sessions_per_week for user in users])
        known = np.stack([windows.n_events, sessions.astype(np.float64), windows.mean_watched_s], 1)
        index = self._index
        return UserFeatures(
            history=windows.history,
            weight=windows.weight,
            genre=_most_frequent(items.genre, windows.history, self.config.top_len),
            maker=_most_frequent(items.maker, windows.history, self.config.top_len),
            age_range=_bags(((user.age_range,) for user in users), index["age_ranges"], 1)[:, 0],
            region=_bags(((user.region,) for user in users), index["regions"], 1)[:, 0],
            number=np.log1p(np.maximum(np.nan_to_num(known), 0.0)).astype(np.float32),
        )

    def _texts(self, items: Sequence[Item]) -> tuple[Int32s, Float32s]:
        """The heaviest terms of each item by tf-idf, ties to the smaller bucket; all items of a batch at once."""
        n_terms, n_buckets = self.config.text_len, len(self.idf)
        found = [_buckets_of(f"{item.title} {item.description}", n_buckets) for item in items]
        row = np.repeat(np.arange(len(items)), [len(each) for each in found])
        term, n = np.unique(
            row * (n_buckets + 1) + np.fromiter(chain.from_iterable(found), np.int64, len(row)), return_counts=True
        )
        row, bucket = term // (n_buckets + 1), term % (n_buckets + 1)
        weight = (1.0 + np.log(n)) * self._idf[bucket]
        order = np.lexsort((bucket, -weight, row))
        row, bucket, weight = row[order], bucket[order], weight[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        kept = place < n_terms
        row, bucket, weight, place = row[kept], bucket[kept], weight[kept], place[kept]
        length = np.sqrt(np.bincount(row, weight * weight, minlength=len(items)))
        buckets, weights = np.zeros((len(items), n_terms), np.int32), np.zeros((len(items), n_terms), np.float32)
        buckets[row, place], weights[row, place] = bucket, weight / length[row]
        return buckets, weights

    @cached_property
    def _idf(self) -> npt.NDArray[np.float64]:
        return np.array((0.0, *self.idf))

    def _embeddings(self, items: Sequence[Item]) -> Float32s:
        """Zeros for an item without one, with one of another encoder or another length, or beyond single precision."""
        out = np.zeros((len(items), self.embedding_len), np.float32)
        read = (self.embedding_by, self.embedding_len)
        for row, item in enumerate(items):
            if item.embedding is not None and (item.embedding_by, len(item.embedding)) == read:
                found = np.array(item.embedding)
                if np.abs(found).max(initial=0.0) <= MOST_OF_AN_EMBEDDING:  # False for nan
                    out[row] = found
        return out


def _usual_embedding(items: Sequence[Item]) -> tuple[str | None, int]:
    """Encoder and length of most items' embeddings: vectors of two are of two spaces, so the others count as none."""
    kinds = Counter((item.embedding_by, len(item.embedding)) for item in items if item.embedding)
    return max(kinds, key=lambda kind: (kinds[kind], kind[1], kind[0] or "")) if kinds else (None, 0)


def windows(histories: Histories, user: Ints, end: Ints, *, length: int) -> Windows:
    """Take the ``length`` newest events of each user before a place in the histories.

    Args: user: (B,) rows.   end: (B,) places, ``offsets[user] <= end <= offsets[user + 1]``; the event there is not seen.
    """
    start = histories.offsets[user]
    places = end[:, None] - 1 - np.arange(length)[None, :]  # (B, T), newest first
    here = places >= start[:, None]
    places = np.where(here, places, 0)
    if not len(histories.item):
        return no_history(len(user), length=length)
    watched = np.where(here, histories.watched_s[places], np.nan)
    n_views = np.isfinite(watched).sum(1)
    seconds = np.nansum(watched, 1)
    return Windows(
        history=np.where(here, histories.item[places] + 1, 0).astype(np.int32),
        weight=np.where(here, histories.weight[places], 0.0).astype(np.float32),
        n_events=end - start,
        mean_watched_s=np.where(n_views > 0, seconds / np.maximum(n_views, 1), np.nan),
    )


def latest_windows(histories: Histories, user: Ints, *, length: int) -> Windows:
    """Take the newest events that each user has."""
    return windows(histories, user, histories.offsets[user + 1], length=length)


def window_of(rows: Sequence[int], *, length: int, weights: Sequence[float] | None = None) -> Windows:
    """One anonymous session: catalogue rows, newest first."""
    kept = list(rows)[:length]
    history, weight = np.zeros((1, length), np.int32), np.zeros((1, length), np.float32)
    history[0, : len(kept)] = np.asarray(kept, np.int32) + 1
    weight[0, : len(kept)] = 1.0 if weights is None else list(weights)[:length]
    return Windows(history, weight, np.array([len(rows)]), np.array([np.nan]))


def no_history(n_users: int, *, length: int) -> Windows:
    """Users of whom nothing is known yet."""
    empty = np.zeros((n_users, length))
    return Windows(
        empty.astype(np.int32), empty.astype(np.float32), np.zeros(n_users, np.int64), np.full(n_users, np.nan)
    )


def terms_of(text: str) -> list[str]:
    """Lower-cased words, and pairs of neighbouring characters where a script has no spaces (Japanese, Chinese, Korean)."""
    return [term for word in _words_of(text) for term in _terms_of_word(word)]


def _words_of(text: str) -> list[str]:
    found: list[str] = _WORDS.findall(nfkc(text).lower())
    return found


def _terms_of_word(word: str) -> list[str]:
    return [word[at : at + 2] for at in range(max(1, len(word) - 1))] if _CJK.match(word) else [word]


@lru_cache(maxsize=65_536)  # a catalogue's words come again and again
def bucket_of(term: str, n_buckets: int) -> int:
    """Hash a term (32-bit FNV-1a of its UTF-8 bytes) to a bucket in [1, n_buckets]."""
    value = 0x811C9DC5
    for byte in term.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value % n_buckets + 1


@lru_cache(maxsize=65_536)
def _buckets_of_word(word: str, n_buckets: int) -> tuple[int, ...]:
    return tuple(bucket_of(term, n_buckets) for term in _terms_of_word(word))


def _buckets_of(text: str, n_buckets: int) -> list[int]:
    """The bucket of every term, as often as it comes."""
    return list(chain.from_iterable(_buckets_of_word(word, n_buckets) for word in _words_of(text)))


def _vocabulary(lists: Iterable[Iterable[str | None]], min_count: int) -> tuple[str, ...]:
    """Words on at least ``min_count`` items, the most frequent first, ties by name."""
    counts = Counter(word for words in lists for word in {*words} if word)
    return tuple(sorted((word for word, n in counts.items() if n >= min_count), key=lambda word: (-counts[word], word)))


def _bags(lists: Iterable[Iterable[str | None]], index: Mapping[str, int], length: int) -> Int32s:
    """Padded lists of indices; what is unknown comes last, so that it is what a long list loses."""
    rows: list[list[int]] = []
    known: dict[tuple[str | None, ...], list[int]] = {}  # genres and makers repeat from item to item
    for words in lists:
        key = tuple(words)
        found = known.get(key)
        if found is None:
            at = {index.get(word, UNKNOWN) for word in key if word}
            few = sorted(at - {UNKNOWN}) + ([UNKNOWN] if UNKNOWN in at else [])
            known[key] = found = few[:length] + [NOTHING] * (length - len(few))
        rows.append(found)
    return np.array(rows, np.int32).reshape(-1, length)


def _numbers(items: Sequence[Item], reference_s: float) -> dict[str, npt.NDArray[np.float64]]:
    def column(values: Iterable[float | None]) -> npt.NDArray[np.float64]:
        return np.array([math.nan if value is None else value for value in values], np.float64)

    published = column(item.published_at_s for item in items)
    return {
        "price": column(item.price for item in items),
        "duration_s": column(item.duration_s for item in items),
        "age_days": np.maximum((reference_s - published) / DAY_S, 0.0),
    }


def _scale(values: npt.NDArray[np.float64], n_buckets: int) -> NumberScale:
    known = np.maximum(values[~np.isnan(values)], 0.0)
    if not len(known):
        return NumberScale()
    edges = np.unique(np.quantile(known, np.arange(1, n_buckets) / n_buckets))
    logs = np.log1p(known)
    return NumberScale(tuple(map(float, edges)), float(logs.mean()), float(logs.std()) or 1.0)


def _inverse_document_frequency(items: Sequence[Item], n_buckets: int) -> tuple[float, ...]:
    found = np.zeros(n_buckets + 1)
    for item in items:
        found[list({bucket_of(term, n_buckets) for term in terms_of(f"{item.title} {item.description}")})] += 1
    idf = np.log((1 + len(items)) / (1 + found[1:])) + 1
    return tuple(map(float, np.round(idf, 6)))


def _most_frequent(values: Int32s, history: Int32s, top: int) -> Int32s:
    """The most frequent known values over each history.

    Args:    values: (N, L) of the catalogue.   history: (B, T) rows + 1.
    Returns: (B, top), the most frequent first, ties to the smaller index (the commoner word), 0 where there are fewer.
    """
    padded = np.concatenate([np.zeros((1, values.shape[1]), np.int32), values])
    found = padded[history].reshape(len(history), -1)  # (B, T·L)
    n_words = int(values.max(initial=0)) + 1
    place = np.arange(len(history))[:, None] * n_words + found
    counts = np.bincount(place.ravel(), minlength=len(history) * n_words).reshape(len(history), n_words)
    counts[:, :FIRST_KNOWN] = 0
    if counts.shape[1] < top:
        counts = np.pad(counts, ((0, 0), (0, top - counts.shape[1])))
    n_columns = counts.shape[1]
    rank = counts * n_columns + np.arange(n_columns - 1, -1, -1)  # by count, then by the smaller index; no two alike
    highest = np.sort(np.partition(rank, n_columns - top, axis=1)[:, n_columns - top :], axis=1)[:, ::-1]
    best = n_columns - 1 - highest % n_columns
    return np.where(np.take_along_axis(counts, best, 1) > 0, best, 0).astype(np.int32)
