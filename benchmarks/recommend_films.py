"""Film ratings as the recommender's datasets: the shared tweets, and whatever MovieLens folder somebody points at.

A rating of any height is a positive event: it says that the user chose the film, which is what a list of films is for. Of an
item only what its file holds is known (title, year, genres); the year becomes a publication on 1 July.
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
_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")


def shared_tweets() -> Path:
    """Where the film-rating tweets lie; the folder may be missing."""
    data = Path(os.environ.get("GENBA_DATA", ROOT.parent / "shared" / "data"))
    return data / "recommend" / "movietweetings-100k"


def load(folder: Path) -> Dataset:
    """Read movies and ratings, ``::``-separated (.dat) or CSV.

    Raises: FileNotFoundError without either pair of files; ValueError for a rating of a film that is not listed.
    """
    films = {film_id: _item(film_id, title, genres) for film_id, title, genres in _rows(folder, "movies")}
    row_by_film = {film_id: row for row, film_id in enumerate(films)}
    row_by_user: dict[str, int] = {}
    users, items, times_s = [], [], []
    for user, film, _rating, time_s in _rows(folder, "ratings"):
        if film not in row_by_film:
            raise ValueError(f"{folder.name} has a rating of film {film}, which it does not list.")
        users.append(row_by_user.setdefault(user, len(row_by_user)))
        items.append(row_by_film[film])
        times_s.append(float(time_s))
    everyone = tuple(User(user) for user in row_by_user)
    return Dataset(Catalogue(tuple(films.values())), everyone, Interactions.of(users, items, times_s))


def _item(film_id: str, title: str, genres: str) -> Item:
    year = _YEAR.search(title)
    published_at_s = datetime(int(year[1]), 7, 1, tzinfo=UTC).timestamp() if year and int(year[1]) > 0 else None
    kinds = tuple(dict.fromkeys(genre for genre in genres.split("|") if genre and genre != "(no genres listed)"))
    return Item(film_id, title=_YEAR.sub("", title), genre=kinds, published_at_s=published_at_s)


def _rows(folder: Path, name: str) -> Iterator[list[str]]:
    plain, table = folder / f"{name}.dat", folder / f"{name}.csv"
    if plain.is_file():
        data = plain.read_bytes()
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode("latin-1")  # MovieLens 1M
        yield from (line.split("::") for line in text.splitlines() if line)
    elif table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            next(rows)
            yield from rows
    else:
        raise FileNotFoundError(f"{folder} has neither {name}.dat nor {name}.csv.")
