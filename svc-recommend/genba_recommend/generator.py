"""A generated catalogue with generated users and events that have structure, so that models can differ.

Taste clusters, a long tail, freshness, trends and tastes that move, sessions, new items and new users; everything follows
from the seed. ``World.true_scores`` is the oracle that nothing learnt from the log can beat. Knows no database and no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from genba_recommend import generator_catalogue as made
from genba_recommend.dataset import Catalogue, Dataset, Interactions, Item, Kind, User
from genba_recommend.generator_behaviour import (
    KINDS,
    Events,
    Progress,
    behave,
    click_probability,
    popularity,
)
from genba_recommend.generator_catalogue import (
    DAY_S,
    GENRES,
    START_S,
    TAGS,
    Hidden,
    People,
    make_catalogue,
    make_people,
    style_centres,
)
from genba_recommend.generator_words import AGE_RANGES, REGIONS, STYLES

__all__ = ("DemoData", "Events", "Habits", "Size", "World", "generate", "write")

TOKYO = timezone(timedelta(hours=9))
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Size:
    """How much to generate. ``new_items`` and ``new_users`` are the shares that appear during the log."""

    items: int = 2_000
    users: int = 1_000
    days: int = 60
    new_items: float = 0.2
    new_users: float = 0.2

    def __post_init__(self) -> None:
        """Raises: ValueError for a world without items, users or days."""
        if min(self.items, self.users, self.days) < 1:
            message = f"items, users and days are {self.items}, {self.users} and {self.days}; each needs at least 1"
            raise ValueError(message)


@dataclass(frozen=True)
class World:
    """All that was generated; ``hidden`` is for oracles only."""

    size: Size
    catalogue: made.Catalogue
    people: People
    events: Events
    hidden: Hidden

    @property
    def start_s(self) -> int:
        """When the log starts."""
        return START_S

    @property
    def end_s(self) -> int:
        """When the log ends; visits that start late may run over by an hour or two."""
        return START_S + self.size.days * DAY_S

    def item_id(self, item: int) -> str:
        """The wire's name of an item."""
        return f"v{item:06d}"

    def user_id(self, user: int) -> str:
        """The wire's name of a user."""
        return f"u{user:06d}"

    def item_rows(self, *, later_by_s: int = 0) -> Iterator[Row]:
        """The catalogue in the shape of ``PUT /v1/recommend/items``; all of it may be moved in time."""
        catalogue = self.catalogue
        for item in range(len(catalogue)):
            title, description = catalogue.text(item)
            yield {
                "item_id": self.item_id(item),
                "title": title,
                "description": description,
                "genre": [GENRES[n] for n in catalogue.genres[item] if n >= 0],
                "maker": catalogue.maker_names[catalogue.makers[item]],
                "performers": catalogue.cast(item),
                "tags": [TAGS[n] for n in catalogue.tags[item] if n >= 0],
                "price": int(catalogue.prices_yen[item]),
                "duration_s": int(catalogue.durations_s[item]),
                "published_at": _iso(int(catalogue.published_s[item]) + later_by_s),
            }

    def user_rows(self) -> Iterator[Row]:
        """The users; age range and region are left out where a person has not told."""
        for user in range(len(self.people)):
            age, region = self.people.ages[user], self.people.regions[user]
            told = {
                **({"age_range": AGE_RANGES[age]} if age >= 0 else {}),
                **({"region": REGIONS[region]} if region >= 0 else {}),
            }
            sessions_per_week = round(float(self.people.sessions_a_week[user]), 1)
            yield {"user_id": self.user_id(user), "sessions_per_week": sessions_per_week, **told}

    def event_rows(self, *, later_by_s: int = 0) -> Iterator[Row]:
        """The log in the shape of ``POST /v1/recommend/events``, in the order of time."""
        events = self.events
        columns = (events.users, events.items, events.kinds, events.at_s, events.watched_s, events.sessions)
        listed = (column.tolist() for column in columns)
        for n, (user, item, kind, at_s, watched_s, session) in enumerate(zip(*listed, strict=True)):
            watched = {"watched_s": round(watched_s, 1)} if KINDS[kind] == "view" else {}
            yield {
                "event_id": f"e{n:09d}",
                "user_id": self.user_id(user),
                "item_id": self.item_id(item),
                "kind": KINDS[kind],
                "at": _iso(at_s + later_by_s),
                "session_id": f"s{session:08d}",
                **watched,
            }

    def dataset(self) -> Dataset:
        """The same world as arrays that training reads: items, users and all events, with their kinds."""
        items = (
            Item(
                item_id=row["item_id"],
                title=row["title"],
                description=row["description"],
                genre=tuple(row["genre"]),
                maker=row["maker"],
                performers=tuple(row["performers"]),
                tags=tuple(row["tags"]),
                price=float(row["price"]),
                duration_s=float(row["duration_s"]),
                published_at_s=float(published_s),
            )
            for row, published_s in zip(self.item_rows(), self.catalogue.published_s, strict=True)
        )
        users = (
            User(row["user_id"], row.get("age_range"), row.get("region"), row["sessions_per_week"])
            for row in self.user_rows()
        )
        kinds = np.array([Kind[kind.upper()] for kind in KINDS], np.int8)[self.events.kinds]
        events = self.events
        interactions = Interactions.of(events.users, events.items, events.at_s, kind=kinds, watched_s=events.watched_s)
        return Dataset(Catalogue(tuple(items)), tuple(users), interactions)

    def true_scores(self, users: NDArray[np.integer], at_s: float) -> NDArray[np.float64]:
        """(B, N) log of how likely each user is to be shown and click each item at a time; -inf before it is published."""
        day = (at_s - START_S) / DAY_S
        taste = self.hidden.taste(users, np.full(len(users), day))  # (B, DIMS)
        affinity = (taste @ self.hidden.item_vectors.T).astype(np.float64)  # (B, N)
        with np.errstate(divide="ignore"):
            weight = np.log(popularity(self.catalogue, self.hidden, day))  # (N,)
        return weight + self.hidden.affinity * affinity + np.log(click_probability(affinity, self.hidden.quality))


@dataclass(frozen=True)
class DemoData:
    """The files that ``write`` has written, as JSON lines, and how many rows are in each."""

    items_path: Path
    users_path: Path
    events_path: Path
    items: int
    users: int
    events: int


@dataclass(frozen=True)
class Habits:
    """What people are like. taste: the best fitting item is e^taste times as likely to be shown as one that is indifferent.

    drift: whether tastes and the trends of styles move.
    """

    taste: float = 4.5
    drift: Literal["moving", "still"] = "moving"


def generate(
    size: Size | None = None, *, habits: Habits | None = None, seed: int = 0, progress: Progress | None = None
) -> World:
    """Make a world of a size; the same seed makes the same one."""
    size, habits = size or Size(), habits or Habits()
    show = progress or (lambda _share, _what: None)
    show(0.0, f"{size.items} items, {size.users} users")
    catalogue, vectors, quality = make_catalogue(size.items, size.days, new_share=size.new_items, seed=seed)
    people, before, after, switch = make_people(size.users, size.days, new_share=size.new_users, seed=seed)
    trend = _trend(size.days, seed)
    if habits.drift == "still":
        after, trend = before, np.ones_like(trend)
    hidden = Hidden(vectors, quality, before, after, switch, trend, habits.taste)
    events = behave(catalogue, people, hidden, style_centres(seed), seed=seed, progress=show)
    show(1.0, f"{len(events)} events")
    return World(size, catalogue, people, events, hidden)


def write(world: World, out: Path, *, progress: Progress | None = None) -> DemoData:
    """Write items.jsonl, users.jsonl and events.jsonl into ``out``, ready to be sent to the service."""
    out.mkdir(parents=True, exist_ok=True)
    show = progress or (lambda _share, _what: None)
    paths = {name: out / f"{name}.jsonl" for name in ("items", "users", "events")}
    counts = {}
    for n, (name, rows) in enumerate(
        {"items": world.item_rows(), "users": world.user_rows(), "events": world.event_rows()}.items()
    ):
        show(n / 3, paths[name].name)
        counts[name] = _write_lines(paths[name], rows)
    show(1.0, f"{counts['events']} events")
    return DemoData(paths["items"], paths["users"], paths["events"], counts["items"], counts["users"], counts["events"])


def _write_lines(path: Path, rows: Iterable[Row]) -> int:
    count = 0
    with path.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def _trend(days: int, seed: int) -> NDArray[np.float32]:
    """(days, styles) factors that wander: a log-normal AR(1) with a memory of a month."""
    rng = np.random.default_rng([seed, 5])
    memory, spread = 0.97, 0.9
    logs = np.empty((days, len(STYLES)))
    logs[0] = spread * rng.normal(size=len(STYLES))
    for day in range(1, days):
        logs[day] = memory * logs[day - 1] + spread * np.sqrt(1 - memory**2) * rng.normal(size=len(STYLES))
    return np.exp(logs).astype(np.float32)


def _iso(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).astimezone(TOKYO).isoformat()
