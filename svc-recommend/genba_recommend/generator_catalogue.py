"""The catalogue and the people of a generated world: what a recommender may see, and the hidden tastes that made it so.

Styles (finer than genres) are directions in a space of ``DIMS``; an item's hidden vector mixes its style, maker and performers, so
features of a new item say where it lies. A person's taste mixes a few styles and, for half of them, moves to others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from genba_recommend.generator_words import (
    ADJECTIVES,
    AGE_RANGES,
    CLOSINGS,
    FAMILIES,
    FORMS,
    GIVENS,
    MAKER_HEADS,
    MAKER_TAILS,
    MOODS,
    REGIONS,
    STYLES,
)

__all__ = (
    "DAY_S",
    "DIMS",
    "START_S",
    "Catalogue",
    "Hidden",
    "People",
    "make_catalogue",
    "make_people",
    "style_centres",
)

F32: TypeAlias = NDArray[np.float32]
I32: TypeAlias = NDArray[np.int32]
I64: TypeAlias = NDArray[np.int64]
DIMS = 16
DAY_S = 86_400
START_S = 1_785_510_000  # 2026-08-01T00:00:00+09:00, the first day of the generated log
GENRES = tuple(dict.fromkeys(style.genre for style in STYLES))
TAGS = (*(en for style in STYLES for en, _ in style.nouns), *(en for en, _ in MOODS))
PRICES_YEN = np.array([0, 110, 220, 330, 550, 980, 1480, 2200, 3300])


@dataclass(frozen=True)
class Catalogue:
    """What is known of the items. Several values stand in rows padded with -1; ``words`` picks a title's parts."""

    genres: I32  # (N, 2) into GENRES
    makers: I32  # (N,)
    performers: I32  # (N, 4)
    tags: I32  # (N, 5) into TAGS
    prices_yen: I32  # (N,)
    durations_s: I32  # (N,)
    published_s: I64  # (N,)
    words: I32  # (N, 5): adjective, noun, form, steps to the second noun, closing
    styles: I32  # (N,) into STYLES; shown only through genres, words and tags
    in_japanese: NDArray[np.bool_]  # (N,)
    maker_names: tuple[str, ...]
    performer_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.makers)

    def text(self, item: int) -> tuple[str, str]:
        """Title and description, in the item's language."""
        japanese = int(self.in_japanese[item])
        adjective, noun, form, second, closing = self.words[item]
        nouns = STYLES[self.styles[item]].nouns
        first, other = nouns[noun][japanese], nouns[(noun + second) % len(nouns)][japanese]
        who = "、".join(self.cast(item)) if japanese else ", ".join(self.cast(item))
        if japanese:
            title = f"{ADJECTIVES[adjective][1]}{first}{FORMS[form][1]} 第{item % 12 + 1}話"
            return title, f"{first}と{other}をめぐる映像。出演：{who}。{CLOSINGS[closing][1]}"
        title = f"{ADJECTIVES[adjective][0]} {first.title()} {FORMS[form][0]}, Part {item % 12 + 1}"
        return title, f"About {first} and {other}, with {who}. {CLOSINGS[closing][0]}"

    def cast(self, item: int) -> list[str]:
        """The names of those who perform, each once."""
        return [*dict.fromkeys(self.performer_names[who] for who in self.performers[item] if who >= 0)]


@dataclass(frozen=True)
class People:
    """Who watches. ``ages`` and ``regions`` are -1 where a person has not told."""

    ages: I32  # (U,) into AGE_RANGES
    regions: I32  # (U,) into REGIONS
    joined_s: I64  # (U,)
    sessions_a_week: F32  # (U,)

    def __len__(self) -> int:
        return len(self.ages)


@dataclass(frozen=True)
class Hidden:
    """The truth behind the log, for oracles and tests; no model may see it."""

    item_vectors: F32  # (N, DIMS) unit length
    quality: F32  # (N,) long-tailed
    taste_before: F32  # (U, DIMS) unit length
    taste_after: F32  # (U, DIMS)
    switch_day: F32  # (U,) when a taste moves; inf for those that stay
    trend: F32  # (days, styles) factor on popularity
    affinity: float  # how much more likely the best fitting item is shown: e^affinity

    def taste(self, users: NDArray[np.integer], days: NDArray[np.floating]) -> F32:
        """(B, DIMS) unit length: the tastes of ``users`` on ``days``, moving over about a week."""
        moved = 1.0 / (1.0 + np.exp(np.clip((self.switch_day[users] - days) / 1.5, -40, 40)))[:, None]  # (B, 1)
        return _unit((1 - moved) * self.taste_before[users] + moved * self.taste_after[users])


def style_centres(seed: int) -> F32:
    """(styles, DIMS) unit length; styles of one genre lie near each other."""
    rng = np.random.default_rng([seed, 1])
    genres = _unit(rng.normal(size=(len(GENRES), DIMS)))
    own = _unit(rng.normal(size=(len(STYLES), DIMS)))
    return _unit(0.6 * genres[_style_genres()] + own)


def make_catalogue(items: int, days: int, *, new_share: float, seed: int) -> tuple[Catalogue, F32, F32]:
    """The items, their hidden vectors (N, DIMS) and quality (N,). ``new_share`` of them appear during the log."""
    rng = np.random.default_rng([seed, 2])
    centres = style_centres(seed)
    styles = rng.choice(len(STYLES), size=items, p=rng.dirichlet(np.full(len(STYLES), 4.0)))
    makers = _loyal(rng, styles, max(4, items // 60), choices=1)[:, 0]
    performers = _loyal(rng, styles, max(12, items // 12), choices=4)
    performers[np.arange(4) >= rng.integers(1, 5, size=(items, 1))] = -1
    maker_lean = _unit(rng.normal(size=(makers.max() + 1, DIMS)))
    performer_lean = np.vstack([_unit(rng.normal(size=(performers.max() + 1, DIMS))), np.zeros((1, DIMS))])
    lean = 0.45 * maker_lean[makers] + 0.6 * performer_lean[performers].mean(1)  # (N, DIMS); row -1 adds nothing
    vectors = _unit(centres[styles] + lean + 0.25 * _unit(rng.normal(size=(items, DIMS))))
    quality = rng.lognormal(0.0, 1.5, size=items).astype(np.float32)
    catalogue = Catalogue(
        genres=_genres(rng, styles),
        makers=makers,
        performers=performers,
        tags=_tags(rng, styles),
        prices_yen=_prices(rng, styles),
        durations_s=np.clip(rng.lognormal(6.6 + 0.35 * (styles % 3), 0.5), 30, 4 * 3600).astype(np.int32),
        published_s=_published(rng, items, days, new_share),
        words=rng.integers([0, 0, 0, 1, 0], [len(ADJECTIVES), 4, len(FORMS), 4, len(CLOSINGS)], (items, 5)).astype(
            np.int32
        ),
        styles=styles.astype(np.int32),
        in_japanese=rng.random(items) < 0.7,
        maker_names=_names(MAKER_HEADS, MAKER_TAILS, int(makers.max()) + 1),
        performer_names=_names(GIVENS, FAMILIES, int(performers.max()) + 1),
    )
    return catalogue, vectors, quality


def make_people(users: int, days: int, *, new_share: float, seed: int) -> tuple[People, F32, F32, F32]:
    """The people, their tastes before and after (U, DIMS), and the day (U,) on which a taste moves."""
    rng = np.random.default_rng([seed, 3])
    ages, regions = rng.integers(0, len(AGE_RANGES), users), rng.integers(0, len(REGIONS), users)
    leanings = 0.9 * rng.normal(size=(len(AGE_RANGES), len(STYLES)))[ages]  # (U, styles): the young watch other things
    leanings += 0.3 * rng.normal(size=(len(REGIONS), len(STYLES)))[regions]
    centres = style_centres(seed)
    before, after = (_tastes(rng, leanings, centres) for _ in range(2))
    switch = np.where(rng.random(users) < 0.5, rng.uniform(0.2, 1.0, users) * days, np.inf)
    is_new = rng.random(users) < new_share
    joined = START_S + np.where(is_new, rng.uniform(0.1, 0.98, users) * days, 0.0) * DAY_S
    people = People(
        ages=np.where(rng.random(users) < 0.3, -1, ages).astype(np.int32),
        regions=np.where(rng.random(users) < 0.2, -1, regions).astype(np.int32),
        joined_s=joined.astype(np.int64),
        sessions_a_week=rng.lognormal(0.6, 0.7, users).astype(np.float32),
    )
    return people, before, after, switch.astype(np.float32)


def _tastes(rng: np.random.Generator, leanings: NDArray[np.floating], centres: F32) -> F32:
    """Three styles a person, one of them first among them."""
    liked = np.argpartition(-(leanings + rng.gumbel(size=leanings.shape)), 3, axis=1)[:, :3]  # (U, 3)
    weights = rng.dirichlet([2.0, 1.0, 0.7], size=len(liked))  # (U, 3)
    return _unit(np.einsum("us,usd->ud", weights, centres[liked]) + 0.12 * rng.normal(size=(len(liked), DIMS)) / 4)


def _loyal(rng: np.random.Generator, styles: NDArray[np.integer], names: int, *, choices: int) -> I32:
    """(N, choices): names that mostly stay with a style, the first of each far more often than the last (Zipf)."""
    rank = np.minimum(rng.zipf(1.6, size=(len(styles), choices)) - 1, 50)
    home = (styles[:, None] * 7919 + rank * 104_729) % names  # one fixed list of names for each style
    anywhere = rng.integers(0, names, size=home.shape)
    return np.asarray(np.where(rng.random(home.shape) < 0.12, anywhere, home), dtype=np.int32)


def _style_genres() -> NDArray[np.int64]:
    return np.array([GENRES.index(style.genre) for style in STYLES])


def _genres(rng: np.random.Generator, styles: NDArray[np.integer]) -> I32:
    first = _style_genres()[styles]
    second = rng.integers(0, len(GENRES), len(styles))
    second[(rng.random(len(styles)) < 0.7) | (second == first)] = -1
    return np.stack([first, second], axis=1).astype(np.int32)


def _tags(rng: np.random.Generator, styles: NDArray[np.integer]) -> I32:
    own = styles[:, None] * 4 + np.argsort(rng.random((len(styles), 4)), axis=1)[:, :3]  # (N, 3) of the style's nouns
    moods = len(STYLES) * 4 + np.argsort(rng.random((len(styles), len(MOODS))), axis=1)[:, :2]  # (N, 2)
    tags = np.concatenate([own, moods], axis=1).astype(np.int32)
    hidden = rng.random(tags.shape) < 0.3
    hidden[:, 0] = False  # at least one tag stays
    tags[hidden] = -1
    return tags


def _prices(rng: np.random.Generator, styles: NDArray[np.integer]) -> I32:
    steps = np.clip(np.round(rng.normal(2.5 + (styles % 5) * 0.7, 1.6)), 0, len(PRICES_YEN) - 1).astype(np.int64)
    return PRICES_YEN[steps].astype(np.int32)


def _published(rng: np.random.Generator, items: int, days: int, new_share: float) -> I64:
    age_days = rng.exponential(200.0, items)
    during_days = rng.uniform(0.0, days, items)
    is_new = rng.random(items) < new_share
    return (START_S + np.where(is_new, during_days, -age_days) * DAY_S).astype(np.int64)


def _names(heads: Sequence[tuple[str, str]], tails: Sequence[tuple[str, str]], count: int) -> tuple[str, ...]:
    """``count`` different names, every third in English; a number follows where the lists are used up."""
    names = []
    for n in range(count):
        turn, place = divmod(n, len(heads) * len(tails))
        head, tail = heads[place % len(heads)], tails[(place // len(heads) + place) % len(tails)]
        name = f"{head[0]} {tail[0]}" if n % 3 == 0 else f"{head[1]}{tail[1]}"
        names.append(f"{name} {turn + 1}" if turn else name)
    return tuple(names)


def _unit(rows: NDArray[np.floating]) -> F32:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)
