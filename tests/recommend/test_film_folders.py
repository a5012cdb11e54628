"""A folder of ratings is read the same from each of MovieLens' formats, as their README files describe them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from benchmarks.recommend_films import load

from genba_recommend.dataset import Dataset

FILMS = (
    ("1", "Toy Story (1995)", ("Animation", "Comedy")),
    ("2", "Cité des enfants perdus, La (1995)", ("Drama",)),
    ("3", 'Say "Cheese"', ()),
)
RATINGS = (
    ("7", "2", 5, 978_300_760),
    ("7", "1", 3, 978_300_019),
    ("9", "3", 1, 978_302_268),
    ("9", "2", 4, 978_300_019),
)
GENRES = ("unknown", "Animation", "Comedy", "Drama")
JULY_1995_S = datetime(1995, 7, 1, tzinfo=UTC).timestamp()
Write = Callable[[Path], None]


def one_million(folder: Path) -> None:
    """``::`` between fields, Latin-1, ages as codes."""
    films = [f"{film}::{title}::{'|'.join(genres)}" for film, title, genres in FILMS]
    (folder / "movies.dat").write_text("\n".join(films) + "\n", "latin-1")
    (folder / "ratings.dat").write_text("".join(f"{u}::{f}::{r}::{t}\n" for u, f, r, t in RATINGS), "latin-1")
    (folder / "users.dat").write_text("7::F::1::10::48067\n9::M::25::15::55117\n", "latin-1")


def tweets(folder: Path) -> None:
    """The same in UTF-8; users.dat names accounts and no ages."""
    films = [f"{film}::{title}::{'|'.join(genres)}" for film, title, genres in FILMS]
    (folder / "movies.dat").write_text("\n".join(films) + "\n", "utf-8")
    (folder / "ratings.dat").write_text("".join(f"{u}::{f}::{r}::{t}\n" for u, f, r, t in RATINGS), "utf-8")
    (folder / "users.dat").write_text("7::177651718\n9::139564917\n", "utf-8")


def latest(folder: Path) -> None:
    """CSV with a line of names, quotes where a title has commas or quotes, CR LF."""
    quoted = ("Toy Story (1995)", '"Cité des enfants perdus, La (1995)"', '"Say ""Cheese"""')
    films = [
        f"{film},{title},{'|'.join(genres) or '(no genres listed)'}"
        for (film, _, genres), title in zip(FILMS, quoted, strict=True)
    ]
    (folder / "movies.csv").write_bytes("\r\n".join(["movieId,title,genres", *films, ""]).encode())
    rows = [f"{u},{f},{r}.0,{t}" for u, f, r, t in RATINGS]
    (folder / "ratings.csv").write_bytes("\r\n".join(["userId,movieId,rating,timestamp", *rows, ""]).encode())


def hundred_thousand(folder: Path) -> None:
    """Tabs, bars, a flag a genre, Latin-1; a film without a date says so with an empty field."""
    days = ("01-Jan-1995", "01-Jan-1995", "")
    films = []
    for (film, title, genres), day in zip(FILMS, days, strict=True):
        told = genres or ("unknown",)
        flags = "|".join(str(int(genre in told)) for genre in GENRES)
        films.append(f"{film}|{title}|{day}||http://example.org/{film}|{flags}")
    (folder / "u.item").write_text("\n".join(films) + "\n", "latin-1")
    (folder / "u.genre").write_text("".join(f"{name}|{at}\n" for at, name in enumerate(GENRES)) + "\n", "latin-1")
    (folder / "u.data").write_text("".join(f"{u}\t{f}\t{r}\t{t}\n" for u, f, r, t in RATINGS), "latin-1")
    (folder / "u.user").write_text("7|17|F|other|48067\n9|25|M|writer|55117\n", "latin-1")


def titles(found: Dataset) -> list[str]:
    return [item.title for item in found.catalogue.items]


@pytest.mark.parametrize("write", [one_million, tweets, latest, hundred_thousand])
def test_each_format_gives_the_same_films_users_and_events(write: Write, tmp_path: Path) -> None:
    write(tmp_path)
    found = load(tmp_path)
    assert [item.item_id for item in found.catalogue.items] == ["1", "2", "3"]
    assert titles(found) == ["Toy Story", "Cité des enfants perdus, La", 'Say "Cheese"']
    assert [item.genre for item in found.catalogue.items] == [genres for _, _, genres in FILMS]
    assert [user.user_id for user in found.users] == ["7", "9"]
    events = found.interactions
    np.testing.assert_array_equal(events.time_s, sorted(t for *_, t in RATINGS))
    assert sorted(zip(events.user.tolist(), events.item.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("write", "published_s"),
    [(one_million, JULY_1995_S), (latest, JULY_1995_S), (hundred_thousand, datetime(1995, 1, 1, tzinfo=UTC).timestamp())],
)  # fmt: skip
def test_a_film_came_out_when_its_row_or_its_title_says(write: Write, published_s: float, tmp_path: Path) -> None:
    write(tmp_path)
    assert [item.published_at_s for item in load(tmp_path).catalogue.items] == [published_s, published_s, None]


@pytest.mark.parametrize(
    ("write", "ages"),
    [(one_million, ["0-", "25-"]), (hundred_thousand, ["0-", "25-"]), (tweets, [None, None]), (latest, [None, None])],
)
def test_ages_are_read_where_they_are_told(write: Write, ages: list[str | None], tmp_path: Path) -> None:
    write(tmp_path)
    assert [user.age_range for user in load(tmp_path).users] == ages


def test_a_folder_of_something_else_and_a_rating_of_no_film_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither movies\.dat nor movies\.csv"):
        load(tmp_path)
    latest(tmp_path)
    with (tmp_path / "ratings.csv").open("a") as file:
        file.write("7,99,4.0,978300000\n")
    with pytest.raises(ValueError, match="film 99"):
        load(tmp_path)
