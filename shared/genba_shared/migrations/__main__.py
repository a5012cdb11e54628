"""``python -m genba_shared.migrations upgrade|check|revision``: what `make` and CI call."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from sqlalchemy.engine import make_url

from genba_shared import migrations
from genba_shared.settings import Platform

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Move the schema of Genba's database.")
Url = Annotated[str | None, typer.Option(help="Database url; GENBA_DATABASE_URL without it.")]


def _url(url: str | None) -> str:
    return url or Platform().database_url


@app.command()
def upgrade(url: Url = None) -> None:
    """Bring the database to the newest revision."""
    migrations.upgrade(make_url(_url(url)))


@app.command()
def check(url: Url = None) -> None:
    """Exit with 1 and say what differs, unless the database is what the code declares."""
    if differing := migrations.differences(make_url(_url(url))):
        for difference in differing:
            typer.echo(f"The code would {_in_words(difference)}.", err=True)
        raise typer.Exit(1)
    typer.echo("The database and the code agree.")


def _in_words(difference: Any) -> str:
    """Alembic's tuple, or list of tuples for one column: ``("add_table", Table(…))`` → ``add_table platform_audit``."""
    if isinstance(difference, list):
        return "; ".join(_in_words(part) for part in difference)
    kind, *about = difference
    return " ".join([kind, *(str(getattr(part, "name", part)) for part in about if not isinstance(part, dict | None))])


@app.command()
def revision(name: str, message: str, url: Url = None) -> None:
    """Draft the revision NAME (such as 0005_llm) from what the code declares and the database lacks."""
    migrations.write_revision(make_url(_url(url)), name, message)


if __name__ == "__main__":
    app()
