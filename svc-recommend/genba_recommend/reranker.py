"""The second stage: a shortlist put in order by how its user differs from the crowd.

Popularity makes the shortlist of most people, and says nothing of who among them takes what. So four things are added to the scores
of the ``SHORTLIST`` best, each measured against the crowd, so that it is nought on average and takes nothing from popularity:

| feature | is high where |
|---|---|
| genre | the user chooses the item's genres more often than the crowd does |
| age | … items as old as this one |
| lately | those who chose the item in the last days are people like the user |
| ever | … in the last months |

Their weights are those of a conditional logit (McFadden 1974), learnt at earlier moments of the log (reranker_fitting.py). Reads only
what had happened before.

The first ``HEAD`` places of a list are decided by what is chosen now. Later ones are asked for by people who come back in weeks, so there
popularity counts that fades slowly, too (``head_first``).
Arrays in, arrays out; knows no torch, no database and no HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from genba_recommend.blending import MOST_HISTORY
from genba_recommend.dataset import Floats, Histories

Float32s = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Rows = npt.NDArray[np.integer]

FILE: Final = "reranker.npz"  # in a bundle
SHORTLIST: Final = 100  # items of the first stage that are put in order
HEAD: Final = 10  # places that go by what is chosen now alone
STEP: Final = 1e-3  # between the scores of the last of them and the next
FEATURES: Final = ("genre", "age", "lately", "ever")
AGE_EDGES_YEARS: Final = np.array([0.5, 1.5, 2.5, 4.5, 8.5, 15.5, 30.5])
N_AGES: Final = len(AGE_EDGES_YEARS) + 2  # the first is unknown
YEAR_S: Final = 365.25 * 86_400.0
GENRE_DOUBT: Final = 5.0  # in choices: so much of the crowd is in everybody
AGE_DOUBT: Final = 3.0


@dataclass(frozen=True)
class Profile:
    """How one user differs. genre: (G,), age: (A,), logarithms of the user's share over the crowd's.   point: (R,), unit length."""

    genre: Float32s
    age: Float32s
    point: Float32s


@dataclass(frozen=True)
class Reranker:
    """Over N items, as of a moment.

    genre: (N, L) codes, 0 for none.   published_s: (N,), nan or -inf where unknown.   direction: (N, R), what choosing an item says
    of a user's taste.   lately, ever: (N, R), how those who chose it differ from the crowd in it.
    genre_share: (G,), age_share: (A,), of the crowd's choices.   weights: (4,), of ``FEATURES``; zeros where nothing was learnt.
    """

    genre: Int32s
    published_s: Floats
    direction: Float32s
    lately: Float32s
    ever: Float32s
    genre_share: Floats
    age_share: Floats
    weights: Float32s

    def __len__(self) -> int:
        return len(self.direction)

    @classmethod
    def none(cls, n_items: int) -> Self:
        nothing, one = np.zeros((n_items, 0), np.float32), np.ones(1)
        genre, published_s = np.zeros((n_items, 0), np.int32), np.full(n_items, np.nan)
        weights = np.zeros(len(FEATURES), np.float32)
        return cls(genre, published_s, nothing, nothing, nothing, one, np.ones(N_AGES), weights)

    @property
    def is_empty(self) -> bool:
        return not self.weights.any()

    @classmethod
    def read(cls, path: Path, genre: Int32s) -> Self:
        """What ``write`` has written, with the genres of the bundle's items; none without such a file.

        Raises: OSError, KeyError, ValueError.
        """
        if not path.is_file():
            return cls.none(len(genre))
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return cls(genre=genre, **{name: data[name] for name in cls.__dataclass_fields__ if name != "genre"})

    def write(self, path: Path) -> None:
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "genre"}
        np.savez(path, **columns)

    def onto(self, rows: Rows, genre: Int32s, published_s: Floats) -> Self:
        """The same over another catalogue of M items: of what training did not know, only genre and age speak.

        Args: rows: (N,) where each item stands there, -1 for one that is gone.   genre: (M, L).   published_s: (M,).
        """
        if self.is_empty:
            return self.none(len(genre))
        here = rows >= 0

        def laid(table: Float32s) -> Float32s:
            out = np.zeros((len(genre), table.shape[1]), np.float32)
            out[rows[here]] = table[here]
            return out

        return replace(
            self, genre=genre, published_s=published_s,
            direction=laid(self.direction), lately=laid(self.lately), ever=laid(self.ever),
        )  # fmt: skip

    def profile(self, rows: Rows, weight: Float32s, at_s: Floats) -> Profile:
        """What a history tells of its user. Args: rows, weight, at_s: (T,) in any order."""
        codes = self.genre[rows]  # (T, L)
        each = weight[:, None] / np.maximum((codes > 0).sum(1), 1)[:, None] * (codes > 0)
        genres = np.bincount(codes.ravel(), each.ravel(), minlength=len(self.genre_share))
        ages = np.bincount(self._age(rows, at_s), weight, minlength=N_AGES)
        point = weight @ self.direction[rows]
        return Profile(
            _over_the_crowd(genres.astype(np.float64), self.genre_share, GENRE_DOUBT),
            _over_the_crowd(ages.astype(np.float64), self.age_share, AGE_DOUBT),
            np.asarray(point / max(float(np.sqrt(point @ point)), 1e-9), np.float32),
        )

    def profile_in(self, past: Histories, user: int) -> Profile:
        """The same from a dataset's history."""
        mine = past.of(user)
        mine = slice(max(mine.start, mine.stop - MOST_HISTORY), mine.stop)
        return self.profile(past.item[mine], past.weight[mine], past.time_s[mine])

    def features(self, profile: Profile, rows: Rows, *, now_s: float) -> Float32s:
        """(M, 4) of some items for one user, in the order of ``FEATURES``."""
        codes = self.genre[rows]
        found = (
            profile.genre[codes].sum(1) * self._per_genre[rows],
            profile.age[self._age(rows, now_s)],
            self.lately[rows] @ profile.point,
            self.ever[rows] @ profile.point,
        )
        return np.stack(found, axis=1).astype(np.float32)

    def gains(self, profile: Profile, rows: Rows, *, now_s: float) -> Float32s:
        """(M,) what is added to the scores of a shortlist: the features, weighed."""
        of_genre, of_age, _, _ = self.weights
        genre = profile.genre[self.genre.take(rows, 0)].sum(1) * self._per_genre.take(rows)
        age = profile.age.take(self._age(rows, now_s))
        return np.asarray(of_genre * genre + of_age * age + self._people.take(rows, 0) @ profile.point, np.float32)

    @cached_property
    def _per_genre(self) -> Float32s:
        """(N,) one over how many genres an item has."""
        return np.asarray(1 / np.maximum(np.count_nonzero(self.genre, axis=1), 1), np.float32)

    @cached_property
    def _people(self) -> Float32s:
        """(N, R) both tables of an item's people, weighed: one product a list instead of two."""
        return np.asarray(self.weights[2] * self.lately + self.weights[3] * self.ever, np.float32)

    def _age(self, rows: Rows, at_s: Floats | float) -> npt.NDArray[np.int64]:
        """(M,) 0 for unknown."""
        return age_of(self.published_s[rows], at_s)


def head_first(scores: Float32s, lasting: Float32s, n: int) -> tuple[npt.NDArray[np.int64], Float32s]:
    """The first places by what is chosen now, the others by what lasts as well.

    Args:    scores: (M,), lasting included.   lasting: (M,), how much of them that is.   n: places.
    Returns: places among the M, the best first, and their scores, (min(n, M),) each; those of the others are lowered by one
        number, so that no score is above an earlier one.
    """
    now, key = scores - lasting, scores.copy()
    head = np.argpartition(-now, HEAD)[:HEAD] if len(now) > HEAD else np.arange(len(now))
    key[head] = -np.inf
    key -= max(0.0, float(key.max(initial=-np.inf) - now[head].min(initial=np.inf)) + STEP)
    key[head] = now[head]
    order = np.argsort(-key, kind="stable")[:n]
    return order, key[order]


def age_of(published_s: Floats, at_s: Floats | float) -> npt.NDArray[np.int64]:
    """Which stretch of ``AGE_EDGES_YEARS`` an item's age lies in, from 1; 0 where its publication is unknown."""
    years = (at_s - published_s) / YEAR_S
    return np.where(np.isfinite(published_s), 1 + np.searchsorted(AGE_EDGES_YEARS, years, side="right"), 0)


def _over_the_crowd(counts: Floats, share: Floats, doubt: float) -> Float32s:
    """Log of a user's shares over the crowd's, drawn to the crowd by so many choices; 0 for what is not known."""
    counts[0] = 0.0
    found = np.log((counts + doubt * share) / ((counts.sum() + doubt) * share))
    found[0] = 0.0
    return np.asarray(found, np.float32)
