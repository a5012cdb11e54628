"""Film ratings as the recommender's datasets: the shared tweets, and whatever MovieLens folder somebody points at.

| files | of |
|---|---|
| ``movies.dat``, ``ratings.dat``, ``users.dat`` if there, ``::`` between fields | MovieLens 1M and 10M, MovieTweetings |
| ``movies.csv``, ``ratings.csv`` with a line of names | MovieLens latest, 20M, 25M, 32M |
| ``u.item``, ``u.data``, ``u.genre``, ``u.user`` if there | MovieLens 100K |

A rating of any height is a positive event: it says that the user chose the film, which is what a list of films is for. Of an
item only what its file holds is known (title, genres, when it came out); a year alone becomes 1 July.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from genba_recommend.dataset import Catalogue, Dataset, Interactions, Item, User

ROOT = Path(__file__).resolve().parents[1]
NO_GENRES = ("", "(no genres listed)", "unknown")
_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_AGES = (18, 25, 35, 45, 50, 56)  # where MovieLens 1M cuts


def shared_tweets() -> Path:
    """Where the film-rating tweets lie; the folder may be missing."""
    data = Path(os.environ.get("GENBA_DATA", ROOT.parent / "shared" / "data"))
    return data / "recommend" / "movietweetings-100k"


def load(folder: Path) -> Dataset:
    """Read films, ratings and, where they are told, the ages of users.

    Raises: FileNotFoundError without both files of one of the kinds above; ValueError for a rating of a film that is not listed.
    """
    films = {item.item_id: item for item in _films(folder)}
    row_by_film = {film_id: row for row, film_id in enumerate(films)}
    ages = dict(_ages(folder))
    row_by_user: dict[str, int] = {}
    users, items, times_s = [], [], []
    for user, film, _rating, time_s, *_ in _ratings(folder):
        if film not in row_by_film:
            raise ValueError(f"{folder.name} has a rating of film {film}, which it does not list.")
        users.append(row_by_user.setdefault(user, len(row_by_user)))
        items.append(row_by_film[film])
        times_s.append(float(time_s))
    everyone = tuple(User(user, age_range=ages.get(user)) for user in row_by_user)
    return Dataset(Catalogue(tuple(films.values())), everyone, Interactions.of(users, items, times_s))


def _films(folder: Path) -> Iterator[Item]:
    if (folder / "u.item").is_file():
        names = [line.split("|")[0] for line in _lines(folder / "u.genre")]
        for line in _lines(folder / "u.item"):
            film_id, title, released, _video, _address, *flags = line.split("|")
            genres = [name for name, flag in zip(names, flags, strict=True) if flag == "1"]
            yield _item(film_id, title, genres, released=released)
        return
    for film_id, title, genres_, *_ in _rows(folder, "movies"):
        yield _item(film_id, title, genres_.split("|"))


def _item(film_id: str, title: str, genres: list[str], *, released: str = "") -> Item:
    year = _YEAR.search(title)
    published = datetime(int(year[1]), 7, 1, tzinfo=UTC) if year and int(year[1]) > 0 else None
    if released:
        published = datetime.strptime(released, "%d-%b-%Y").replace(tzinfo=UTC)
    kinds = tuple(dict.fromkeys(genre for genre in genres if genre not in NO_GENRES))
    published_at_s = None if published is None else published.timestamp()
    return Item(film_id, title=_YEAR.sub("", title), genre=kinds, published_at_s=published_at_s)


def _ratings(folder: Path) -> Iterator[list[str]]:
    if (folder / "u.data").is_file():
        return (line.split("\t") for line in _lines(folder / "u.data"))
    return _rows(folder, "ratings")


def _ages(folder: Path) -> Iterator[tuple[str, str]]:
    """User and age range; nothing where the folder does not tell, as MovieTweetings, whose users.dat holds accounts."""
    hundred_k, one_m = folder / "u.user", folder / "users.dat"
    if hundred_k.is_file():
        rows = [line.split("|") for line in _lines(hundred_k)]
        told = [(row[0], row[1]) for row in rows]
    elif one_m.is_file():
        rows = [line.split("::") for line in _lines(one_m)]
        told = [(row[0], row[2]) for row in rows if len(row) == 5]
    else:
        return
    for user, age in told:
        yield user, f"{max((cut for cut in _AGES if int(age) >= cut), default=0)}-"


def _rows(folder: Path, name: str) -> Iterator[list[str]]:
    plain, table = folder / f"{name}.dat", folder / f"{name}.csv"
    if plain.is_file():
        yield from (line.split("::") for line in _lines(plain))
    elif table.is_file():
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            next(rows)
            yield from (row for row in rows if row)
    else:
        raise FileNotFoundError(f"{folder} has neither {name}.dat nor {name}.csv, nor u.data with u.item.")


def _lines(path: Path) -> list[str]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # MovieLens 100K and 1M
    return [line for line in text.replace("\r\n", "\n").split("\n") if line]
